//! Other acts: on releases, on rollouts, on tokens and keys; and a fleet of many devices.

use reqwest::Method;
use serde_json::json;

use crate::policy::pin;
use crate::scene::{DRAFT, GOOD, NEW, OLD, Scene};

#[tokio::test]
async fn a_release_is_finalised_invalidated_validated_and_deleted() {
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("greenhouse").await;
    scene.releases(fleet).await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    let page = |commit: &str| scene.url(&format!("/fleets/{fleet}/releases/{commit}"));
    let target =
        || async { scene.get(&format!("/fleets/{fleet}")).await["target"].as_str().unwrap().to_owned() };
    for (act, said, expected) in [
        ("Finalise…", "Release 4d5e6f7 is final.", DRAFT),
        ("Invalidate…", "Release 4d5e6f7 is invalid.", NEW),
        ("Validate…", "Release 4d5e6f7 is valid again.", DRAFT),
    ] {
        browser.open(&page(DRAFT)).await;
        browser.click_text(act).await;
        browser.click("dialog button.primary").await;
        browser.until_text(said).await;
        assert_eq!(target().await, expected, "{act}");
    }
    // A rule of the policy is told where the act is, by its name and with what to do.
    browser.open(&page(DRAFT)).await;
    browser.click_text("Delete…").await;
    browser.click("dialog button.primary").await;
    browser.until("!!document.querySelector('dialog [role=alert]') && document.querySelector('dialog [role=alert]').innerText.includes('in_use')").await;
    browser.open(&page(OLD)).await;
    browser.click_text("Delete…").await;
    browser.click("dialog button.primary").await;
    browser.until_text("Release 1a2b3c4 is deleted.").await;
    assert_eq!(scene.ask(Method::GET, &format!("/releases/{OLD}?fleet={fleet}"), json!(null)).await.0, 404);
}

#[tokio::test]
async fn a_rollout_is_watched_paused_resumed_and_pulled_back() {
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("greenhouse").await;
    scene.releases(fleet).await;
    let mut devices = Vec::new();
    for number in 1..=4 {
        let device = scene.device(fleet, number, &format!("board-{number}"), json!({})).await;
        scene.obey(&device).await;
        devices.push(device);
    }
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    browser.open(&scene.url(&format!("/fleets/{fleet}/rollouts"))).await;
    browser.until_text("cotter rollout start").await;
    let definition = json!({ "waves": ["1", "100%"], "soak": "1h" });
    let start = json!({ "release": DRAFT, "definition": definition });
    scene.did(Method::POST, &format!("/fleets/{fleet}/rollouts"), start).await;
    browser.open(&scene.url(&format!("/fleets/{fleet}/rollouts"))).await;
    browser.until_text("1 updating").await;
    let mut exposed = None;
    for device in &devices {
        if scene.poll(device).await.0 == DRAFT {
            exposed = Some(device);
        }
    }
    let exposed = exposed.expect("one device has the release");
    scene.obey(exposed).await;
    // The picture follows by itself.
    browser.until_text("1 accepted").await;
    browser.until("document.querySelectorAll('.wave-bar rect.good').length === 1").await;
    // Another target of the fleet ends it, and the preview says so.
    browser.open(&scene.url(&format!("/fleets/{fleet}/policy?release={GOOD}"))).await;
    browser
        .until_text("This ends rollout 1. Its 1 exposed device will follow the target of the fleet, too.")
        .await;
    browser.open(&scene.url(&format!("/fleets/{fleet}/rollouts"))).await;
    for (act, said) in [
        ("Pause…", "rollout 1 is paused now."),
        ("Resume…", "rollout 1 is running now."),
        ("Pull back…", "rollout 1 is pulled-back now."),
        ("Abort…", "rollout 1 is aborted now."),
    ] {
        browser.click_text(act).await;
        browser.click("dialog button.primary").await;
        browser.until_text(said).await;
    }
    assert_eq!(scene.poll(exposed).await.0, NEW);
    let trail = scene.get("/audit?what=rollout&limit=4").await;
    let what: Vec<_> =
        trail.as_array().unwrap().iter().map(|entry| entry["what"].as_str().unwrap()).collect();
    assert!(what.contains(&"pull back a rollout") && what.contains(&"abort a rollout"), "{what:?}");
}

#[tokio::test]
async fn tokens_and_keys_are_revoked_in_the_settings() {
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("greenhouse").await;
    let olga = scene.user("olga", "operator").await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    for (page, link, kind) in [
        ("/settings/access", "a[aria-label^='Revoke token']", "token"),
        ("/settings/keys", "a[aria-label^='Revoke key']", "key"),
    ] {
        browser.open(&scene.url(page)).await;
        browser.click(link).await;
        browser.click("dialog button.primary").await;
        browser.until("!!document.querySelector('.done')").await;
        assert!(browser.text().await.contains("Revoked "), "{kind}");
    }
    assert_eq!(scene.get("/tokens").await[0]["state"], "revoked");
    let keys = scene.get(&format!("/fleets/{fleet}/provisioning-keys")).await;
    assert!(keys.as_array().unwrap().iter().any(|key| key["state"] == "revoked"));
    assert!(!browser.text().await.contains(&olga));
}

#[tokio::test]
async fn a_fleet_of_many_devices_is_sorted_and_paged_and_a_choice_lasts() {
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("greenhouse").await;
    scene.releases(fleet).await;
    scene.import("greenhouse", 10_000).await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    let address = scene.url(&format!("/fleets/{fleet}"));
    browser.open(&address).await;
    browser.until_text("1–50 of 10,000").await;
    let weight = "performance.getEntriesByType('navigation')[0].encodedBodySize + performance.getEntriesByType('resource').reduce((sum, one) => sum + one.encodedBodySize, 0)";
    let weight = browser.eval(weight).await.as_u64().unwrap();
    assert!(weight <= 100 * 1024, "{weight} bytes");
    let first = "document.querySelector('.devices .name').textContent";
    assert_eq!(browser.eval(first).await, "board-00001");
    browser.click("a[rel=next]").await;
    browser.until(&format!("{first} === 'board-00051'")).await;
    browser.click("a[rel=prev]").await;
    browser.until(&format!("{first} === 'board-00001'")).await;
    browser.click("thead a[href*='sort=-name']").await;
    browser.until(&format!("{first} === 'board-10000'")).await;
    assert!(browser.url().await.contains("sort=-name"));
    browser.open(&format!("{address}?filter=ring%3Dcanary&sort=-name")).await;
    browser.until_text("1–50 of 100").await;
    browser.click("#all").await;
    browser.click("details.actions summary").await;
    pin(&browser, GOOD, "100 devices of 100 that are chosen", "Pinned 100 devices to 2b3c4d5.").await;
    let pinned = scene.get(&format!("/devices?fleet={fleet}&filter=ring%3Dcanary&limit=1000")).await;
    assert!(pinned.as_array().unwrap().iter().all(|device| device["pin"] == GOOD));
    assert_eq!(pinned.as_array().unwrap().len(), 100);
}
