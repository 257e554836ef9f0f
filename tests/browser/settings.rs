//! Fleets, keys, users, tokens and webhooks that are made on pages, and secrets that are shown once.

use reqwest::Method;
use serde_json::{Value, json};

use crate::driver::{Browser, DOWN, ENTER, ESCAPE, SPACE};
use crate::scene::Scene;

/// The secret that the page shows.
async fn secret(browser: &Browser) -> String {
    browser.until_there("[data-secret] .command code").await;
    let shown = browser.eval("document.querySelector('[data-secret] .command code').textContent").await;
    shown.as_str().unwrap().to_owned()
}

/// Goes on from a secret, and checks that no page has it any more.
async fn is_gone(scene: &Scene, browser: &Browser, secret: &str, pages: &[&str]) {
    browser.click_text("I have copied it").await;
    browser.until("!document.querySelector('[data-secret]')").await;
    browser.eval("history.back()").await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let now = browser.eval("document.documentElement.outerHTML").await;
    assert!(!now.as_str().unwrap().contains(secret), "going back");
    for page in pages.iter().copied().chain(["/audit", "/settings"]) {
        browser.open(&scene.url(page)).await;
        browser.until_there("main h1").await;
        let html = browser.eval("document.documentElement.outerHTML").await;
        assert!(!html.as_str().unwrap().contains(secret), "{page}");
    }
    let trail = scene.get("/audit").await.to_string();
    assert!(!trail.contains(secret), "{trail}");
}

#[tokio::test]
async fn a_user_and_a_token_are_made_with_the_keyboard_and_the_token_is_shown_once() {
    let mut scene = Scene::open().await;
    scene.fleet("greenhouse").await;
    scene.fleet("lab").await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    browser.open(&scene.url("/settings/access")).await;
    browser.tab_to("document.activeElement.textContent === 'Add a user…'").await;
    browser.press(ENTER).await;
    browser.until("document.activeElement.id === 'name'").await;
    for letter in ["o", "l", "g", "a"] {
        browser.press(letter).await;
    }
    browser.press(ENTER).await;
    browser.until_text("Added user olga. Now create a token for it.").await;
    assert_eq!(browser.eval("document.querySelector('#user').value").await, "olga");
    browser.tab_to("document.activeElement.name === 'role'").await;
    browser.press(DOWN).await;
    browser
        .until("document.activeElement.value === 'release-engineer' && document.activeElement.checked")
        .await;
    browser.tab_to("document.activeElement.name === 'scope'").await;
    browser.press(DOWN).await;
    browser.tab_to("document.activeElement.name === 'fleet' && document.activeElement.value === 'lab'").await;
    browser.press(SPACE).await;
    browser.tab_to("document.activeElement.textContent === 'Create token'").await;
    browser.press(ENTER).await;
    let token = secret(&browser).await;
    let who = scene.get_as(&token, "/whoami").await;
    assert_eq!((&who["user"], &who["role"]), (&json!("olga"), &json!("release-engineer")));
    assert_eq!(who["fleets"], json!(["lab"]));
    assert!(who["expires"].is_string(), "{who}");
    is_gone(&scene, &browser, &token, &["/settings/access"]).await;
    // Disabling the user says how many tokens end, and ends them.
    browser.open(&scene.url("/settings/access")).await;
    browser.click("a[aria-label='Disable user olga']").await;
    browser.until_text("This revokes 1 token of olga at once and for good").await;
    browser.click("dialog button.primary").await;
    browser.until_text("Disabled user olga.").await;
    assert_eq!(scene.get("/tokens").await[0]["state"], "user_disabled");
    browser.click("a[aria-label='Enable user olga']").await;
    browser.click("dialog button.primary").await;
    browser.until_text("Enabled user olga.").await;
}

#[tokio::test]
async fn a_token_reaches_no_more_than_a_person_meant() {
    let mut scene = Scene::open().await;
    scene.fleet("greenhouse").await;
    scene.user("olga", "read-only").await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    browser.open(&scene.url("/settings/access")).await;
    browser.click("a[aria-label='Create a token for olga']").await;
    browser.click("dialog input[name=role][value=operator]").await;
    browser.click("dialog input[name=scope][value=all]").await;
    browser.click("dialog input[name=fleet]").await;
    browser.click_text("Create token").await;
    browser.until_text("All fleets and some are chosen; choose one of both.").await;
    // What was chosen is kept.
    assert_eq!(browser.eval("document.querySelector('input[name=role]:checked').value").await, "operator");
    browser.click("dialog input[name=scope][value=some]").await;
    browser.type_into("#expires_in", "soon").await;
    browser.click_text("Create token").await;
    browser.until_text("Expires_in = \"soon\" is not accepted").await;
    assert_eq!(scene.get("/tokens").await.as_array().unwrap().len(), 1);
    browser.type_into("#expires_in", "").await;
    browser.click_text("Create token").await;
    let token = secret(&browser).await;
    assert_eq!(scene.get_as(&token, "/whoami").await["expires"], Value::Null);
}

#[tokio::test]
async fn a_fleet_and_a_key_are_made_on_pages_and_a_device_joins_with_them() {
    let mut scene = Scene::open().await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    browser.open(&scene.url("/fleets")).await;
    browser.click_text("Create a fleet…").await;
    browser.type_into("#name", "green house / north").await;
    browser.click_text("Create fleet").await;
    browser
        .until("!!document.querySelector('[role=alert]') || !!document.querySelector('[data-secret]')")
        .await;
    if browser.eval("!!document.querySelector('dialog [role=alert]')").await == true {
        browser.type_into("#name", "greenhouse").await;
        browser.click_text("Create fleet").await;
    }
    let key = secret(&browser).await;
    // Neither a key nor a click beside it closes what is shown only once.
    // A browser lets no page refuse a second Escape, unless the dialog says so.
    for _ in 0..3 {
        browser.press(ESCAPE).await;
    }
    browser.eval("document.querySelector('dialog').click()").await;
    assert_eq!(secret(&browser).await, key);
    let fleet = scene.get("/fleets").await[0]["number"].as_u64().unwrap();
    scene.provision_with(fleet, &key);
    scene.device(fleet, 1, "first", json!({})).await;
    is_gone(&scene, &browser, &key, &["/fleets", "/settings/keys"]).await;
    browser.open(&scene.url("/settings/keys")).await;
    browser.click_text("Create a provisioning key…").await;
    browser.type_into("#name", "<b>factory</b>").await;
    browser.type_into("#uses", "many").await;
    browser.click_text("Create key").await;
    browser.until_text("The most devices is \"many\"").await;
    browser.type_into("#uses", "1").await;
    browser.click_text("Create key").await;
    browser.until("!!document.querySelector('[role=alert], [data-secret]')").await;
    if browser.eval("!!document.querySelector('dialog [role=alert]')").await == true {
        // A name with such characters may be refused, too. It is text in any case.
        browser.type_into("#name", "factory").await;
        browser.click_text("Create key").await;
    }
    let second = secret(&browser).await;
    assert_ne!(second, key);
    scene.provision_with(fleet, &second);
    scene.device(fleet, 2, "second", json!({})).await;
    is_gone(&scene, &browser, &second, &["/settings/keys", &format!("/settings/keys?fleet={fleet}")]).await;
    browser.open(&scene.url("/settings/keys")).await;
    browser.until_text("used up").await;
    let keys = scene.get(&format!("/fleets/{fleet}/provisioning-keys")).await;
    assert!(
        keys.as_array().unwrap().iter().any(|key| key["most_uses"] == 1 && key["expires"].is_string()),
        "{keys}"
    );
    browser.click("a[aria-label^='Revoke key']").await;
    browser.until_text("lets no further device join").await;
    browser.until_text("Devices that joined with it stay as they are: 1.").await;
    browser.click("dialog button.primary").await;
    browser.until_text("Revoked provisioning key").await;
}

#[tokio::test]
async fn a_webhook_is_created_tested_and_deleted_by_an_admin() {
    let mut scene = Scene::open().await;
    scene.fleet("greenhouse").await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    browser.open(&scene.url("/settings/webhooks")).await;
    browser.click_text("Create a webhook…").await;
    browser.type_into("#name", "ci").await;
    browser.type_into("#url", "http://192.0.2.1/hook").await;
    browser.click("dialog input[name=event][value=wave]").await;
    browser.click("dialog input[name=scope][value=some]").await;
    browser.click("dialog input[name=fleet]").await;
    browser.click_text("Create webhook").await;
    browser.until("!!document.querySelector('dialog [role=alert]')").await;
    browser.type_into("#url", "http://127.0.0.1:9/hook").await;
    browser.click_text("Create webhook").await;
    let secret = secret(&browser).await;
    assert!(secret.starts_with("whsec_"), "{secret}");
    is_gone(&scene, &browser, &secret, &["/settings/webhooks"]).await;
    let webhook = scene.get("/webhooks/ci").await;
    assert_eq!(webhook["fleets"], json!(["greenhouse"]));
    let events: Vec<_> =
        webhook["events"].as_array().unwrap().iter().map(|event| event.as_str().unwrap()).collect();
    assert!(!events.contains(&"wave") && events.contains(&"halt"), "{events:?}");
    browser.open(&scene.url("/settings/webhooks")).await;
    browser.until_text("none yet").await;
    browser.click("a[aria-label='Test webhook ci']").await;
    browser.click("dialog button.primary").await;
    browser.until_text("The test did not reach webhook ci").await;
    browser.click("a[aria-label='Delete webhook ci']").await;
    browser.until_text("Nothing is sent to http://127.0.0.1:9/hook any more.").await;
    browser.click("dialog button.primary").await;
    browser.until_text("Deleted webhook ci.").await;
    assert_eq!(scene.ask(Method::GET, "/webhooks/ci", Value::Null).await.0, 404);
}
