//! What happens on a device, on its page: its logs as they come, and its releases with their verdicts.

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::json;

use crate::driver::Browser;
use crate::http::{client, cookie_of};
use crate::looks::{HOSTILE, axe, look};
use crate::scene::{GOOD, NEW, OLD, Scene};

/// Most lines that a page keeps.
const MOST: usize = 2000;

async fn greenhouse() -> (Scene, u64, String) {
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("greenhouse").await;
    scene.releases(fleet).await;
    let device = scene.device(fleet, 1, "north", json!({})).await;
    scene.obey(&device).await;
    (scene, fleet, device)
}

fn a_minute_ago() -> Timestamp {
    Timestamp::now() - SignedDuration::from_secs(60)
}

/// Opens the logs on the page of a device, as its reader does.
async fn open_logs(scene: &Scene, browser: &Browser, device: &str) {
    browser.open(&scene.url(&format!("/devices/{device}"))).await;
    browser.click_text("Show logs").await;
    browser.until_there("#log-lines").await;
}

/// The lines that are shown, each as service and text.
async fn shown(browser: &Browser) -> Vec<String> {
    let lines = "[...document.querySelectorAll('#log-lines p')].filter((row) => row.checkVisibility())
        .map((row) => row.querySelector('b').textContent + ' ' + row.querySelector('.text').textContent)";
    let lines = browser.eval(lines).await;
    lines.as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn logs_are_live_merged_by_time_filtered_chosen_and_paused() {
    let (scene, _, device) = greenhouse().await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    open_logs(&scene, &browser, &device).await;
    browser.until_text("The device was asked for its logs.").await;
    let from = a_minute_ago();
    // The device uploads service by service.
    let lines = [
        (0, "web", "listening on :8080"),
        (2000, "web", "GET /needle error"),
        (1000, "sensor", "21.5 °C"),
        (3000, "sensor", "    at <indented>"),
        (1500, "", "Started service 'web'"),
    ];
    scene.say(&device, from, &lines).await;
    browser.until("document.querySelectorAll('#log-lines p').length === 5").await;
    let merged = [
        "web listening on :8080",
        "sensor 21.5 °C",
        "cotter Started service 'web'",
        "web GET /needle error",
        "sensor     at <indented>",
    ];
    assert_eq!(shown(&browser).await, merged);
    browser.until("document.querySelector('#log-state').textContent === 'Live'").await;
    let colours = "new Set([...document.querySelectorAll('#log-lines b')].map((one) => getComputedStyle(one).color)).size";
    assert_eq!(browser.eval(colours).await, 3);
    assert_eq!(browser.eval("document.querySelector('#log-lines i').textContent").await, "err");

    browser.type_into("#log-filter", "NEEDLE").await;
    browser
        .until("[...document.querySelectorAll('#log-lines p')].filter((row) => !row.hidden).length === 1")
        .await;
    assert_eq!(shown(&browser).await, [merged[3]]);
    // Every line has a space behind its service.
    browser.type_into("#log-filter", " ").await;
    browser.click("#log-services input[value=web]").await;
    browser
        .until("[...document.querySelectorAll('#log-lines p')].filter((row) => !row.hidden).length === 3")
        .await;
    scene.say(&device, from, &[(4000, "web", "hidden"), (4001, "sensor", "22.0 °C")]).await;
    browser.until_text("22.0 °C").await;
    assert_eq!(shown(&browser).await.len(), 4);
    browser.click("#log-services input[value=web]").await;

    browser.click_text("Pause").await;
    scene.say(&device, from, &[(5000, "web", "during the pause"), (5001, "mqtt", "too")]).await;
    browser.until_text("Resume (2 new)").await;
    assert_eq!(shown(&browser).await.len(), 7);
    browser.click_text("Resume (2 new)").await;
    browser.until("document.querySelectorAll('#log-lines p').length === 9").await;

    // A stream that ends is opened again, without a line twice or missing.
    browser.eval("logs.stream.abort()").await;
    scene.say(&device, from, &[(6000, "web", "while nobody read")]).await;
    browser.until("!logs.stream").await;
    browser.eval("followLogs(), 1").await;
    browser.until_text("while nobody read").await;
    scene.say(&device, from, &[(7000, "web", "the last one")]).await;
    browser.until_text("the last one").await;
    let lines = shown(&browser).await;
    assert_eq!(lines.len(), 11, "{lines:#?}");
    assert_eq!(lines[9..], ["web while nobody read", "web the last one"]);
}

#[tokio::test]
async fn lines_of_logs_are_text_and_the_page_keeps_only_the_last_ones() {
    let (scene, _, device) = greenhouse().await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    open_logs(&scene, &browser, &device).await;
    let long = "w".repeat(10_000);
    let hostile = [
        HOSTILE,
        "\u{1b}[31mred\u{1b}[0m \u{1b}]0;title\u{7}",
        "\u{202e}\u{2066}reversed\u{200f}",
        "\u{0}\u{8}\r\u{b}\u{c}\u{85}\u{2028}",
        "</p></div><script>window.pwned=1</script>",
        &long,
        "",
    ];
    let from = a_minute_ago();
    let lines: Vec<_> = (0..).zip(hostile).map(|(at, text)| (at, "web", text)).collect();
    scene.say(&device, from, &lines).await;
    browser.until("document.querySelectorAll('#log-lines p').length === 7").await;
    let lines = shown(&browser).await;
    assert!(
        lines[0].starts_with("web <script>pwned=1</script><img src=x onerror=pwned=1>\\u{202e}gnp\\u{7}"),
        "{}",
        lines[0]
    );
    assert_eq!(lines[1], "web \\u{1b}[31mred\\u{1b}[0m \\u{1b}]0;title\\u{7}");
    assert_eq!(lines[2], "web \\u{202e}\\u{2066}reversed\\u{200f}");
    assert_eq!(lines[3], "web \\u{0}\\u{8}\\r\\u{b}\\u{c}\\u{85}\\u{2028}");
    assert!(lines[5].ends_with("w… (and 8000 characters more)") && lines[5].len() < 2100);
    let is_harmless = "window.pwned === undefined && document.scripts.length === 1 && !document.querySelector('main img, #log-lines script')";
    assert_eq!(browser.eval(is_harmless).await, true);
    let (axe, mut wrong) = (axe(), Vec::new());
    look(&browser, "device-logs-hostile", axe.as_ref(), &mut wrong).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // The same without a script, from the server.
    browser.scripts(false).await;
    browser.open(&scene.url(&format!("/devices/{device}?logs=1"))).await;
    browser.until_there("#log-lines p").await;
    assert_eq!(shown(&browser).await, lines);
    assert_eq!(browser.eval("document.querySelector('.log-tools').checkVisibility()").await, false);
    browser.until_text("These are the last lines").await;
    look(&browser, "device-logs-without-script", None, &mut wrong).await;
    browser.scripts(true).await;

    open_logs(&scene, &browser, &device).await;
    let texts: Vec<_> = (0..2500).map(|number| format!("line {number}")).collect();
    let many: Vec<_> = (1000..).zip(&texts).map(|(at, text)| (at, "sensor", text.as_str())).collect();
    for part in many.chunks(500) {
        scene.say(&device, from, part).await;
    }
    browser.until_text("line 2499").await;
    assert_eq!(browser.eval("document.querySelectorAll('#log-lines p').length").await, MOST);
    let first = "document.querySelector('#log-lines p .text').textContent";
    assert_eq!(browser.eval(first).await, "line 500");
    // It follows the end.
    let end = "(() => { const lines = document.querySelector('#log-lines'); return lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 8; })()";
    browser.until(end).await;
    look(&browser, "device-logs", axe.as_ref(), &mut wrong).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn logs_are_for_those_who_may_see_the_device() {
    let (mut scene, _, device) = greenhouse().await;
    scene.fleet("lab").await;
    scene.did(Method::POST, "/users", json!({ "name": "rita" })).await;
    let token = json!({ "user": "rita", "role": "read-only", "fleets": ["lab"] });
    let created = scene.did(Method::POST, "/tokens", token).await;
    let http = client();
    let of_lab = cookie_of(&scene, &http, created["token"].as_str().unwrap()).await;
    let reader = scene.user("ruth", "read-only").await;
    let of_all = cookie_of(&scene, &http, &reader).await;
    let (page, stream) = (format!("/devices/{device}?logs=1"), format!("/devices/{device}/logs"));
    let ask = async |path: &str, cookie: &str| {
        let request = http.get(scene.url(path)).header("cookie", cookie).header("cotter-script", "live");
        request.send().await.unwrap()
    };
    for path in [&page, &stream] {
        let answer = ask(path, &of_lab).await;
        assert_eq!(answer.status(), 403, "{path}");
        let text = answer.text().await.unwrap();
        assert!(!text.contains("north") && !text.contains("log-lines"), "{text}");
        assert_eq!(ask(path, "").await.status(), 303, "{path}: nobody is signed in");
    }
    let mut answer = ask(&stream, &of_all).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-accel-buffering"], "no");
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "\n", "no lines yet, and that is all");
    scene.say(&device, Timestamp::UNIX_EPOCH, &[(1, "web", "hello")]).await;
    let line = answer.chunk().await.unwrap().unwrap();
    let expected = "{\"at\":\"1970-01-01T00:00:00.001Z\",\"service\":\"web\",\"text\":\"hello\"}\n";
    assert_eq!(line, expected);

    // All places of those who follow, of one user: another user gets one all the same.
    let mut held = vec![answer];
    for _ in 1..16 {
        held.push(ask(&stream, &of_all).await);
    }
    let one_more = ask(&stream, &of_all).await;
    assert_eq!(one_more.status(), 503);
    let admin = cookie_of(&scene, &http, &scene.admin).await;
    assert_eq!(ask(&stream, &admin).await.status(), 200);
    let mut oldest = held.remove(0);
    while let Ok(Some(_)) = oldest.chunk().await {}
}

#[tokio::test]
async fn a_device_shows_the_releases_that_it_accepted_and_rejected() {
    let (scene, fleet, device) = greenhouse().await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    browser.open(&scene.url(&format!("/devices/{device}"))).await;
    browser.until_text("Accepted 3c4d5e6").await;
    scene.did(Method::POST, &format!("/devices/{device}/pin"), json!({ "release": OLD })).await;
    let why = format!("release {OLD} was rejected: exited with code 1 <script>pwned=1</script>\u{202e}");
    let rejected = json!([{ "reason": "rejected", "service": "web", "why": why }]);
    scene.report(&device, NEW, rejected.clone(), json!({})).await;
    scene.report(&device, NEW, rejected, json!({ "cpu_temp": 50 })).await;
    // The page follows by itself.
    browser.until_text("Rejected 1a2b3c4 – web: exited with code 1 <script>").await;
    scene.did(Method::POST, &format!("/devices/{device}/pin"), json!({ "release": GOOD })).await;
    scene.obey(&device).await;
    browser.until_text("Accepted 2b3c4d5").await;
    let rows = "[...document.querySelectorAll('#history li')].map((row) => row.querySelector('.state').textContent + ' ' + row.querySelector('.commit').textContent)";
    let expected = ["Accepted 2b3c4d5", "Rejected 1a2b3c4", "Accepted 3c4d5e6"];
    assert_eq!(browser.eval(rows).await, json!(expected));
    assert_eq!(browser.eval("[...document.querySelectorAll('#history li time')].length").await, 3);
    assert_eq!(browser.eval("window.pwned === undefined").await, true);
    browser.click("#history li .commit").await;
    browser.until(&format!("location.pathname === '/fleets/{fleet}/releases/{GOOD}'")).await;
    // The API has it, too.
    let history = scene.get(&format!("/devices/{device}")).await["history"].clone();
    assert_eq!(history.as_array().unwrap().len(), 3);
    assert_eq!((&history[1]["verdict"], &history[1]["release"]), (&json!("rejected"), &json!(OLD)));
    browser.open(&scene.url(&format!("/devices/{device}"))).await;
    let (axe, mut wrong) = (axe(), Vec::new());
    look(&browser, "device-history", axe.as_ref(), &mut wrong).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
