//! Signing in, and how a session ends.

use reqwest::Method;
use serde_json::json;

use crate::driver::Browser;
use crate::scene::{NEW, Scene};

#[tokio::test]
async fn who_signs_in_comes_to_the_page_that_was_asked_for_and_a_wrong_token_is_told() {
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("greenhouse").await;
    let Some(browser) = Browser::start().await else { return };
    browser.open(&scene.url(&format!("/fleets/{fleet}?state=failing"))).await;
    browser.until_text("Sign in to Cotter").await;
    assert_eq!(browser.eval("document.querySelector('#token').type").await, "password");
    browser.type_into("#token", "0123456789abcdef").await;
    browser.click("button[type=submit]").await;
    browser.until_text("This token is not known here.").await;
    browser.type_into("#token", &scene.admin).await;
    browser.click("button[type=submit]").await;
    browser.until_text("Let a device join").await;
    assert!(
        browser.url().await.ends_with(&format!("/fleets/{fleet}?state=failing")),
        "{}",
        browser.url().await
    );
    // Nothing on a page or in its address is secret, and no script reads the cookie.
    let page = browser.eval("document.documentElement.outerHTML").await;
    assert!(!page.as_str().unwrap().contains(&scene.admin));
    assert_eq!(browser.eval("document.cookie").await, "");
    browser.open(&scene.url("/sign-in?to=//evil.example/")).await;
    browser.type_into("#token", &scene.admin).await;
    browser.click("button[type=submit]").await;
    browser.until("location.pathname === '/fleets'").await;
    assert!(browser.url().await.starts_with(&scene.server.url));
}

#[tokio::test]
async fn a_read_only_user_sees_no_buttons_and_the_server_refuses_all_the_same() {
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("greenhouse").await;
    scene.releases(fleet).await;
    let device = scene.device(fleet, 1, "north", json!({ "site": "north" })).await;
    let reader = scene.user("rita", "read-only").await;
    let Some(browser) = scene.browser(&reader).await else { return };
    for path in [
        format!("/fleets/{fleet}"),
        format!("/devices/{device}"),
        format!("/fleets/{fleet}/releases/{NEW}"),
        format!("/fleets/{fleet}/rollouts"),
        format!("/fleets/{fleet}/variables"),
        "/settings".to_owned(),
        "/settings/keys".to_owned(),
        "/fleets".to_owned(),
    ] {
        browser.open(&scene.url(&path)).await;
        browser.until_there("main h1").await;
        let acts = "document.querySelectorAll('main a.button, main button:not([data-copy]):not(.search button), main input[type=checkbox]').length
            - document.querySelectorAll('main form[action=\"/sign-out\"] button').length";
        assert_eq!(browser.eval(acts).await, 0, "{path}");
    }
    for path in [
        "/audit",
        "/audit/export",
        "/new-fleet",
        "/settings/access",
        "/settings/webhooks",
        "/settings/keys?do=create",
        &format!("/fleets/{fleet}/variables?do=set"),
        &format!("/fleets/{fleet}/rollouts/start"),
    ] {
        browser.open(&scene.url(path)).await;
        browser.until_text("Not allowed").await;
        browser.until_text("role").await;
    }
    // A form that was made by hand.
    browser.open(&scene.url(&format!("/fleets/{fleet}"))).await;
    let status = "(async () => { const body = new URLSearchParams({ csrf: document.querySelector('input[name=csrf]').value, release: 'latest' });
        const answer = await fetch(location.pathname + '/policy', { method: 'POST', body });
        return answer.status + ' ' + (await answer.text()).includes('release-engineer'); })()";
    assert_eq!(browser.eval(status).await, "403 true");
    assert_eq!(scene.get(&format!("/fleets/{fleet}")).await["is_tracking_latest"], true);
}

#[tokio::test]
async fn a_form_without_the_text_of_the_session_changes_nothing() {
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("greenhouse").await;
    scene.releases(fleet).await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    for csrf in ["", "0123456789abcdef0123456789abcdef"] {
        let post = format!(
            "(async () => (await fetch('/fleets/{fleet}/policy', {{ method: 'POST', body: new URLSearchParams({{ csrf: '{csrf}', release: '{NEW}' }}) }})).status)()"
        );
        assert_eq!(browser.eval(&post).await, 403);
    }
    // From another site the browser sends no cookie, so nobody is signed in.
    browser.open(&scene.url("/healthz").replace("127.0.0.1", "localhost")).await;
    let form = format!(
        "document.body.innerHTML = `<form method=post action='{}/fleets/{fleet}/policy'><input name=release value={NEW}></form>`; document.forms[0].submit()",
        scene.server.url
    );
    browser.eval(&form).await;
    browser.until_text("Sign in").await;
    assert_eq!(scene.get(&format!("/fleets/{fleet}")).await["is_tracking_latest"], true);
}

#[tokio::test]
async fn a_session_ends_with_its_token_and_at_sign_out() {
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("greenhouse").await;
    scene.releases(fleet).await;
    let token = scene.user("olga", "operator").await;
    let Some(browser) = scene.browser(&token).await else { return };
    let page = scene.url(&format!("/fleets/{fleet}/releases"));
    browser.open(&page).await;
    browser.until_text("Live").await;
    let id = scene.get("/tokens").await[0]["id"].as_str().unwrap().to_owned();
    scene.did(Method::POST, &format!("/tokens/{id}/revoke"), json!({})).await;
    // The open page says it, and keeps what it shows.
    browser.until("document.querySelector('#connection').textContent.includes('session has ended')").await;
    assert!(browser.text().await.contains("Releases"));
    browser.open(&page).await;
    browser.until_text("Sign in to Cotter").await;
    scene.sign_in(&browser, &token).await;
    browser.until_text("was revoked at").await;
    // Two sessions of one token, and one click that ends both.
    let Some(other) = scene.browser(&scene.admin).await else { return };
    scene.sign_in(&browser, &scene.admin).await;
    browser.open(&page).await;
    browser.click(".account summary").await;
    browser.click_text("Sign out everywhere").await;
    browser.until_text("You are signed out.").await;
    other.open(&page).await;
    other.until_text("Sign in to Cotter").await;
}

#[tokio::test]
async fn a_page_without_a_place_says_that_it_reloads_and_does() {
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("greenhouse").await;
    scene.releases(fleet).await;
    let http = crate::http::client();
    let cookie = crate::http::cookie_of(&scene, &http, &scene.admin).await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        let mut stream = http.get(scene.url("/live")).header("cookie", &cookie).send().await.unwrap();
        stream.chunk().await.unwrap();
        streams.push(stream);
    }
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    browser.open(&scene.url(&format!("/fleets/{fleet}/releases"))).await;
    let says = |words: &str| format!("document.querySelector('#connection').textContent === '{words}'");
    browser.until(&says("Reloads every 20 seconds, because too many pages are live")).await;
    browser.screenshot(&crate::looks::file("connection-reloads", "light", "wide")).await;
    scene.release(fleet, &"7".repeat(40), json!({ "is_final": false })).await;
    browser.until_text("7777777").await;
    assert_eq!(browser.eval("document.querySelector('.connection').classList.contains('lost')").await, false);
    // Another user gets a place at once, and this one when there is one.
    let olga = scene.user("olga", "read-only").await;
    let Some(other) = scene.browser(&olga).await else { return };
    other.open(&scene.url(&format!("/fleets/{fleet}"))).await;
    other.until(&says("Live")).await;
    drop(streams);
    browser.until(&says("Live")).await;
}
