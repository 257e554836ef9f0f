//! How the pages look: names from outside are text, nothing is wider than a phone, axe-core finds nothing, and a screenshot of each
//! for people to look at (target/screenshots).

use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Value, json};

use crate::driver::Browser;
use crate::scene::{DRAFT, GOOD, NEW, OLD, Scene};

/// Text that would be a script, would turn the line around, or rings a bell.
pub(crate) const HOSTILE: &str =
    "<script>pwned=1</script><img src=x onerror=pwned=1>\u{202e}gnp\u{7}&amp;'\"";

/// The axe-core that scripts/prepare.sh fetches.
pub(crate) fn axe() -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cross/axe/axe.min.js");
    let found = std::fs::read_to_string(path).ok();
    if found.is_none() {
        let why = "axe-core is not there; scripts/prepare.sh fetches it where there is npm";
        assert!(std::env::var_os("COTTER_SKIP_NOTHING").is_none(), "{why}");
        eprintln!("skipped: axe-core on each page of the dashboard: {why}");
    }
    found
}

/// What axe-core finds wrong with the page: rule, element, and why.
async fn findings(browser: &Browser, axe: &str) -> Vec<String> {
    browser.eval(&format!("{axe}; !!window.axe")).await;
    let run = "axe.run(document, { resultTypes: ['violations'] }).then((found) =>
        found.violations.flatMap((one) => one.nodes.map((node) => one.id + ' ' + node.target.join(' ') + ': ' + node.failureSummary)))";
    let found = browser.eval(run).await;
    found.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

fn wait(reason: &str, service: Option<&str>, why: &str) -> Value {
    json!([{ "reason": reason, "service": service, "why": why, "since": "2026-11-28T09:12:00Z" }])
}

/// A fleet with devices in all states, a rollout that is halted, people, keys, and a second fleet.
async fn busy() -> (Scene, u64, Vec<String>) {
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("Greenhouse north").await;
    scene.releases(fleet).await;
    let sites = ["aalen", "bergen", "cork", "delft"];
    let mut devices = Vec::new();
    for number in 1..=64_u32 {
        let site = sites[usize::try_from(number % 4).unwrap()];
        let ring = if number <= 6 { "canary" } else { "stable" };
        let tags = json!({ "site": site, "ring": ring, "hw": if number % 3 == 0 { "pi4" } else { "pi5" } });
        let uuid = scene.device(fleet, number, &format!("{site}-{number:02}"), tags).await;
        match number {
            7 => {
                let why = "exited with code 1 three times in 40 s";
                let evidence = json!([{ "service": "web", "release": NEW, "at": "2026-11-30T08:00:00Z", "restarts": 3,
                    "cause": "exited with code 1", "lines": ["starting on :8080", "connecting to mqtt://broker:1883", "panic: no route to host"] }]);
                scene
                    .report(&uuid, GOOD, wait("rejected", Some("web"), why), json!({ "evidence": evidence }))
                    .await;
            }
            8 => {
                scene
                    .report(
                        &uuid,
                        NEW,
                        wait("unhealthy", Some("mqtt"), "the healthcheck failed 4 times"),
                        json!({}),
                    )
                    .await
            }
            9 => {
                scene
                    .report(
                        &uuid,
                        GOOD,
                        wait("insufficient_disk", None, "the release needs 412 MiB and 180 MiB are free"),
                        json!({}),
                    )
                    .await
            }
            10 => {
                scene
                    .report(
                        &uuid,
                        GOOD,
                        wait("window", None, "updates are allowed from 22:00 to 04:00"),
                        json!({}),
                    )
                    .await
            }
            11..=14 => {
                scene
                    .report(&uuid, GOOD, wait("downloading", Some("sensor"), "64 of 120 MiB"), json!({}))
                    .await
            }
            15 | 16 => {}
            _ => scene.obey(&uuid).await,
        }
        devices.push(uuid);
    }
    for device in &devices[..3] {
        scene.did(Method::POST, &format!("/devices/{device}/pin"), json!({ "release": OLD })).await;
        scene.obey(device).await;
    }
    scene.fleet("Lab").await;
    scene.user("olaf", "operator").await;
    scene.user("ci", "release-engineer").await;
    scene.webhook().await;
    (scene, fleet, devices)
}

/// Every page, by the name of its screenshot.
fn pages(fleet: u64, device: &str) -> Vec<(&'static str, String)> {
    vec![
        ("fleets", "/fleets".to_owned()),
        ("fleet", format!("/fleets/{fleet}")),
        ("fleet-filtered", format!("/fleets/{fleet}?state=failing,rejected,blocked&sort=state")),
        ("fleet-none", format!("/fleets/{fleet}?filter=ring%3Dnone")),
        ("fleet-empty", format!("/fleets/{}", fleet + 1)),
        ("policy", format!("/fleets/{fleet}/policy")),
        ("policy-preview", format!("/fleets/{fleet}/policy?release={GOOD}")),
        ("action-tag", format!("/fleets/{fleet}/actions/tag?device={device}")),
        ("action-move", format!("/fleets/{fleet}/actions/move?device={device}")),
        ("action-none", format!("/fleets/{fleet}/actions/pin")),
        ("device", format!("/devices/{device}")),
        ("releases", format!("/fleets/{fleet}/releases")),
        ("release", format!("/fleets/{fleet}/releases/{NEW}")),
        ("release-delete", format!("/fleets/{fleet}/releases/{NEW}?do=delete")),
        ("release-compare", format!("/fleets/{fleet}/releases/{NEW}?compare={OLD}")),
        ("rollouts", format!("/fleets/{fleet}/rollouts")),
        ("rollout-complete", format!("/fleets/{fleet}/rollouts?do=complete")),
        ("rollout-start", format!("/fleets/{fleet}/rollouts/start?release={DRAFT}&strict=1")),
        (
            "rollout-plan",
            format!(
                "/fleets/{fleet}/rollouts/start?plan=1&release={DRAFT}&waves=1,100%25&supersede=1&confirm=ci"
            ),
        ),
        ("rollout-plan-wrong", format!("/fleets/{fleet}/rollouts/start?plan=1&release={DRAFT}&waves=many")),
        ("fleet-new", "/new-fleet".to_owned()),
        ("variables", format!("/fleets/{fleet}/variables")),
        ("variables-set", format!("/fleets/{fleet}/variables?do=set")),
        ("variables-device", format!("/devices/{device}/variables")),
        ("rollouts-none", format!("/fleets/{}/rollouts", fleet + 1)),
        ("audit", "/audit".to_owned()),
        ("settings", "/settings".to_owned()),
        ("settings-keys", "/settings/keys".to_owned()),
        ("settings-key", "/settings/keys?do=create".to_owned()),
        ("settings-access", "/settings/access".to_owned()),
        ("settings-user", "/settings/access?do=add-user".to_owned()),
        ("settings-user-disable", "/settings/access?do=disable-user&user=olaf".to_owned()),
        ("settings-token", "/settings/access?do=create-token&user=olaf".to_owned()),
        ("settings-webhooks", "/settings/webhooks".to_owned()),
        ("settings-webhook", "/settings/webhooks?do=create".to_owned()),
        ("settings-webhook-delete", "/settings/webhooks?do=delete&name=ci".to_owned()),
        ("not-found", "/devices/00000000000000000000000000000000".to_owned()),
    ]
}

pub(crate) fn file(name: &str, scheme: &str, width: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(target)
        .join("screenshots")
        .join(format!("{name}-{scheme}-{width}.png"))
}

/// Looks at an open page in both schemes and widths.
pub(crate) async fn look(browser: &Browser, name: &str, axe: Option<&String>, wrong: &mut Vec<String>) {
    look_in(browser, name, &["light", "dark"], axe, wrong).await;
}

/// The same, in these schemes.
async fn look_in(
    browser: &Browser,
    name: &str,
    schemes: &[&str],
    axe: Option<&String>,
    wrong: &mut Vec<String>,
) {
    for (width, pixels, height) in [("wide", 1280, 900), ("narrow", 360, 780)] {
        browser.width(pixels, height).await;
        for scheme in schemes {
            browser.scheme(scheme).await;
            // Colours change over a moment.
            browser.until("document.getAnimations().every((one) => one.playState === 'finished')").await;
            let widest = browser.eval("document.documentElement.scrollWidth").await;
            if widest != pixels {
                let which = format!(
                    "[...document.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > {pixels} + 1).slice(0, 4)
                     .map((one) => one.tagName + '.' + one.className + ' ' + one.textContent.trim().slice(0, 40)).join(' | ')"
                );
                wrong.push(format!("{name} {scheme} {width}: {widest} wide: {}", browser.eval(&which).await));
            }
            browser.screenshot(&file(name, scheme, width)).await;
            if let Some(axe) = axe {
                let found = findings(browser, axe).await;
                wrong.extend(found.into_iter().map(|found| format!("{name} {scheme} {width}: {found}")));
            }
        }
    }
}

#[tokio::test]
async fn every_page_is_good_for_people_in_light_and_dark_wide_and_narrow() {
    let (scene, fleet, devices) = busy().await;
    let anna = scene.user("anna", "admin").await;
    let Some(browser) = scene.browser(&anna).await else { return };
    start_rollout(&scene, fleet, &devices).await;
    let (axe, mut wrong) = (axe(), Vec::new());
    for (name, path) in pages(fleet, &devices[6]) {
        browser.open(&scene.url(&path)).await;
        browser.until_there("main h1").await;
        look(&browser, name, axe.as_ref(), &mut wrong).await;
    }
    // What opens above a page.
    browser.open(&scene.url(&format!("/fleets/{fleet}"))).await;
    browser.click("details.actions summary").await;
    look(&browser, "fleet-actions", axe.as_ref(), &mut wrong).await;
    browser.open(&scene.url(&format!("/fleets/{fleet}"))).await;
    browser.click("#policy .primary").await;
    browser.until_there("dialog[open] .option").await;
    look(&browser, "fleet-dialog", axe.as_ref(), &mut wrong).await;
    browser.open(&scene.url("/fleets")).await;
    browser.click_text("Create a fleet…").await;
    browser.type_into("#name", "Workshop").await;
    browser.click_text("Create fleet").await;
    browser.until_there("dialog [data-secret]").await;
    look(&browser, "secret", axe.as_ref(), &mut wrong).await;
    browser.open(&scene.url("/settings")).await;
    browser.click(".account summary").await;
    browser.click_text("Sign out").await;
    browser.until_text("Sign in to Cotter").await;
    look(&browser, "sign-in", axe.as_ref(), &mut wrong).await;
    browser.type_into("#token", "wrong").await;
    browser.click("button[type=submit]").await;
    browser.until_there("[role=alert]").await;
    look(&browser, "sign-in-wrong", axe.as_ref(), &mut wrong).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A rollout whose second wave halts, because some devices reject the release.
async fn start_rollout(scene: &Scene, fleet: u64, devices: &[String]) {
    let draft = DRAFT;
    let definition =
        json!({ "waves": ["ring=canary", "40%", "100%"], "soak": "1s", "max_failures": 3, "advance": "50%" });
    let rollout = json!({ "release": draft, "definition": definition });
    scene.did(Method::POST, &format!("/fleets/{fleet}/rollouts"), rollout).await;
    let started = std::time::Instant::now();
    loop {
        let current = scene.get(&format!("/fleets/{fleet}/rollouts/current")).await;
        if current["tally"]["exposed"].as_u64().unwrap_or(0) >= 3 {
            break;
        }
        assert!(started.elapsed().as_secs() < 30, "{current}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    for device in &devices[3..6] {
        scene.obey(device).await;
    }
    // The second wave begins a moment later. What three of its devices report halts it.
    let (started, mut rejected) = (std::time::Instant::now(), 0);
    while rejected < 3 && started.elapsed().as_secs() < 40 {
        rejected = 0;
        for (place, device) in devices.iter().enumerate().skip(16) {
            if scene.poll(device).await.0 != draft {
                continue;
            }
            if rejected < 3 {
                let why = "exited with code 1";
                scene.report(device, NEW, wait("rejected", Some("web"), why), json!({})).await;
                rejected += 1;
            } else if place % 3 != 0 {
                scene.obey(device).await;
            }
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn names_from_outside_are_text_on_every_page() {
    let mut scene = Scene::open().await;
    let long = "ש".repeat(120) + &"W".repeat(135);
    let fleet = scene.fleet(&long.chars().rev().collect::<String>()).await;
    scene.releases(fleet).await;
    let device = scene.device(fleet, 1, &long, json!({})).await;
    scene
        .did(
            Method::POST,
            &format!("/devices/{device}/tags"),
            json!({ "set": { "note": "<script>pwned</script>", "k".repeat(100): "v".repeat(250) } }),
        )
        .await;
    scene.fleet("other").await;
    scene.user("olaf", "operator").await;
    scene.webhook().await;
    let key = json!({ "name": "<img src=x onerror=pwned=1>" });
    let named = scene.ask(Method::POST, &format!("/fleets/{fleet}/provisioning-keys"), key).await;
    assert!(named.0 == 201 || named.0 == 400, "{named:?}");
    let evidence = json!([{ "service": "web", "release": NEW, "at": "x", "restarts": 1, "cause": HOSTILE, "lines": [HOSTILE] }]);
    let waiting = json!([{ "reason": HOSTILE, "service": HOSTILE, "why": HOSTILE, "since": HOSTILE }]);
    let more = json!({ "evidence": evidence, "os_version": HOSTILE, "ip_address": HOSTILE, "mac_address": "x".repeat(300) });
    scene.report(&device, GOOD, waiting, more).await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    let (axe, mut wrong) = (axe(), Vec::new());
    for (name, path) in pages(fleet, &device) {
        browser.open(&scene.url(&path)).await;
        browser.until_there("main h1").await;
        assert_eq!(browser.eval("window.pwned === undefined && document.scripts.length === 1 && !document.querySelector('main img')").await, true, "{path}");
        look_in(&browser, &format!("hostile-{name}"), &["light"], axe.as_ref(), &mut wrong).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    browser.open(&scene.url(&format!("/devices/{device}"))).await;
    for text in ["<script>pwned=1</script><img src=x onerror=pwned=1>", "note=<script>pwned</script>"] {
        browser.until_text(text).await;
    }
    // A text of an address is text, too.
    let address = format!(
        "/fleets/{fleet}?filter={}&name={}",
        "%3Cscript%3Epwned=1%3C/script%3E", "%22%3E%3Cimg src=x onerror=pwned=1%3E"
    );
    browser.open(&scene.url(&address)).await;
    browser.until_there("[role=alert]").await;
    assert_eq!(browser.eval("window.pwned === undefined && document.scripts.length === 1").await, true);
}
