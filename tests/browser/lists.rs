//! Long lists page by page, the audit trail as a file, and the comparison of releases.

use reqwest::Method;
use serde_json::{Value, json};

use crate::driver::{DOWN, ENTER};
use crate::scene::{GOOD, NEW, OLD, Scene};

#[tokio::test]
async fn releases_and_fleets_are_shown_page_by_page() {
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("greenhouse").await;
    let commit = |number: u64| format!("{number:040x}");
    for number in 1..=120_u64 {
        let at =
            jiff::Timestamp::now() - jiff::SignedDuration::from_hours(i64::try_from(200 - number).unwrap());
        scene.release(fleet, &commit(number), json!({ "start_timestamp": at.to_string() })).await;
    }
    for number in 1..=50 {
        scene.did(Method::POST, "/fleets", json!({ "name": format!("fleet-{number:02}") })).await;
    }
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    browser.open(&scene.url(&format!("/fleets/{fleet}/releases"))).await;
    browser.until_text("120 releases, newest first").await;
    let first = "document.querySelector('table.releases tbody a.commit').title";
    for (link, range, newest) in [
        (None, "1–50 of 120", 120),
        (Some("a[rel=next]"), "51–100 of 120", 70),
        (Some("a[rel=next]"), "101–120 of 120", 20),
        (Some("a[rel=prev]"), "51–100 of 120", 70),
        (Some("a[rel=prev]"), "1–50 of 120", 120),
    ] {
        if let Some(link) = link {
            browser.click(link).await;
        }
        browser.until_text(range).await;
        browser.until(&format!("{first} === '{}'", commit(newest))).await;
    }
    let wrong = browser.eval("(async () => (await fetch(location.pathname + '?after=x')).status)()").await;
    assert_eq!(wrong, 400);
    // A menu has the newest ones, and an older one that its own page has chosen.
    browser.open(&scene.url(&format!("/fleets/{fleet}/rollouts/start?release={}", commit(1)))).await;
    browser
        .until(&format!("document.querySelector('input[name=release]:checked').value === '{}'", commit(1)))
        .await;
    browser.open(&scene.url("/fleets")).await;
    browser.until_text("48 fleets on this page").await;
    assert_eq!(browser.eval("document.querySelectorAll('.fleet-card').length").await, 48);
    browser.click("a[rel=next]").await;
    browser.until("document.querySelectorAll('.fleet-card').length === 3").await;
    browser.click("a[rel=prev]").await;
    browser.until("document.querySelectorAll('.fleet-card').length === 48").await;
    // Keys are shown fleet by fleet; each fleet has one, and the first has two.
    browser.open(&scene.url("/settings/keys")).await;
    let mut keys = 0;
    loop {
        browser.until_there("table.keys").await;
        keys +=
            browser.eval("document.querySelectorAll('table.keys tbody tr').length").await.as_u64().unwrap();
        let page = browser.url().await;
        if browser.eval("!document.querySelector('a[rel=next]')").await == true {
            break;
        }
        browser.click("a[rel=next]").await;
        browser.until(&format!("location.href !== {}", json!(page))).await;
    }
    assert_eq!(keys, 52);
}

#[tokio::test]
async fn the_audit_trail_is_downloaded_with_the_filter_of_the_page() {
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("greenhouse").await;
    let device = scene.device(fleet, 1, "north", json!({})).await;
    for number in 0..530 {
        let tags = json!({ "set": { "n": number.to_string() } });
        scene.did(Method::POST, &format!("/devices/{device}/tags"), tags).await;
    }
    let token = scene.user("olga", "operator").await;
    let Some(browser) = scene.browser(&token).await else { return };
    browser.open(&scene.url("/audit?what=tag+a+device&fleet=greenhouse")).await;
    browser.until_text("Download as JSON lines").await;
    let address = browser.eval("document.querySelector('a[download]').getAttribute('href')").await;
    assert_eq!(address, "/audit/export?what=tag%20a%20device&fleet=greenhouse");
    let fetched = "(async () => { const answer = await fetch(document.querySelector('a[download]').href);
        return [answer.status, answer.headers.get('content-type'), answer.headers.get('content-disposition'), answer.headers.get('cache-control'), await answer.text()]; })()";
    let fetched = browser.eval(fetched).await;
    assert_eq!(
        (&fetched[0], &fetched[1], &fetched[3]),
        (&json!(200), &json!("application/jsonl"), &json!("no-store"))
    );
    let name = fetched[2].as_str().unwrap();
    assert!(
        name.starts_with("attachment; filename=\"cotter-audit-2") && name.ends_with("Z.jsonl\""),
        "{name}"
    );
    let lines: Vec<Value> =
        fetched[4].as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // More than one page of the API, the newest first, each once.
    assert_eq!(lines.len(), 530);
    let asked = scene.get("/audit?what=tag+a+device&fleet=greenhouse&limit=1000").await;
    assert_eq!(json!(lines), asked);
    let wrong = browser.eval("(async () => (await fetch('/audit/export?device=nothing')).status)()").await;
    assert_eq!(wrong, 404);
}

#[tokio::test]
async fn a_release_is_compared_with_another_one_and_the_address_holds_the_choice() {
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("greenhouse").await;
    scene.releases(fleet).await;
    let image = |digit: &str| format!("registry.example.com/greenhouse/web@sha256:{}", digit.repeat(64));
    let commit = "7a".repeat(20);
    let changed = json!({
        "composition": {
            "services": {
                "web": { "environment": { "NOTE": "<img src=x onerror=pwned=1>" } },
                "cache": {}, "mqtt": { "restart": "no" },
            },
        },
        "images": { "web": image("b"), "cache": image("c"), "mqtt": format!("registry.example.com/greenhouse/mqtt@sha256:{}", "a".repeat(64)) },
    });
    scene.release(fleet, &commit, changed).await;
    let reader = scene.user("rita", "read-only").await;
    let Some(browser) = scene.browser(&reader).await else { return };
    let page = format!("/fleets/{fleet}/releases/{commit}");
    browser.open(&scene.url(&page)).await;
    // With the keyboard: the third release of the menu.
    browser.tab_to("document.activeElement.id === 'compare-with'").await;
    while browser.eval("document.activeElement.value").await != NEW {
        browser.press(DOWN).await;
    }
    browser.tab_to("document.activeElement.textContent === 'Compare'").await;
    browser.press(ENTER).await;
    browser.until_text("Compared with 3c4d5e6").await;
    assert!(browser.url().await.contains(&format!("?compare={NEW}")), "{}", browser.url().await);
    let compared = "document.querySelector('#compare').innerText.replace(/\\s+/g, ' ')";
    let text = browser.eval(compared).await.as_str().unwrap().to_owned();
    for part in [
        format!("Service cache added {}", image("c")),
        "Service sensor removed".to_owned(),
        format!("web {} {}", image("a"), image("b")),
        "services.mqtt.restart not set \"no\"".to_owned(),
        "services.web.environment".to_owned(),
        "<img src=x onerror=pwned=1>".to_owned(),
    ] {
        assert!(text.contains(&part), "{part}: {text}");
    }
    assert!(!text.contains("services.sensor") && !text.contains("services.cache"), "{text}");
    assert_eq!(browser.eval("window.pwned === undefined && !document.querySelector('main img')").await, true);
    // The address alone shows it again, also without a script.
    browser.scripts(false).await;
    browser.open(&scene.url(&format!("/fleets/{fleet}/releases/{GOOD}?compare={OLD}"))).await;
    browser.until_text("Both releases have the same services, images and compose fields.").await;
    browser.open(&scene.url(&format!("/fleets/{fleet}/releases/{GOOD}?compare=ffffffff"))).await;
    browser.until_there("#compare [role=alert]").await;
}
