//! The acts of release policy: by the header of a fleet, on a device, on many, and what happens when two people act at once.

use reqwest::Method;
use serde_json::json;

use crate::driver::{Browser, ENTER, ESCAPE, UP};
use crate::scene::{DRAFT, FAILED, GOOD, INVALID, NEW, OLD, Scene};

async fn greenhouse() -> (Scene, u64, Vec<String>) {
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("greenhouse").await;
    scene.releases(fleet).await;
    let mut devices = Vec::new();
    for (number, name) in (1..).zip(["north", "south", "east", "west"]) {
        let ring = if number < 3 { "canary" } else { "stable" };
        let uuid = scene.device(fleet, number, name, json!({ "ring": ring, "site": name })).await;
        scene.obey(&uuid).await;
        devices.push(uuid);
    }
    (scene, fleet, devices)
}

/// Pins what is chosen to a release, in the dialog, once it shows what that changes.
pub(crate) async fn pin(browser: &Browser, release: &str, changes: &str, done: &str) {
    browser.click_text("Pin to release…").await;
    browser.click(&format!("dialog input[value='{release}']")).await;
    browser.click_text("Show what it changes").await;
    browser.until_text(changes).await;
    browser.click("dialog button.primary").await;
    browser.until_text(done).await;
}

#[tokio::test]
async fn a_fleet_is_pinned_by_its_header_and_tracks_latest_again() {
    let (scene, fleet, devices) = greenhouse().await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    browser.open(&scene.url(&format!("/fleets/{fleet}"))).await;
    browser.until_text("Tracks latest").await;
    browser.click_text("Change policy…").await;
    browser.until_there("dialog[open] input[type=radio]").await;
    // What cannot be chosen is shown, with the reason.
    for (commit, word) in [(DRAFT, "Draft"), (FAILED, "Failed"), (INVALID, "Invalid")] {
        let option = format!("dialog input[value='{commit}']");
        let shown = format!(
            "(() => {{ const one = document.querySelector(\"{option}\"); return one.disabled && one.closest('label').textContent.includes('{word}'); }})()"
        );
        assert_eq!(browser.eval(&shown).await, true, "{word}");
    }
    browser.click(&format!("dialog input[value='{GOOD}']")).await;
    browser.click_text("Show whom it moves").await;
    // Before anything is done.
    browser.until_text("4 devices of 4 of this fleet will run 2b3c4d5").await;
    assert_eq!(scene.get(&format!("/fleets/{fleet}")).await["is_tracking_latest"], true);
    browser.click_text("Pin fleet").await;
    browser.until_text("greenhouse is pinned to 2b3c4d5.").await;
    browser.until("document.querySelector('#policy').innerText.includes('Pinned')").await;
    assert_eq!(scene.poll(&devices[0]).await.0, GOOD);
    let trail = scene.get("/audit?limit=1").await;
    assert_eq!(trail[0]["what"], "pin a fleet");
    assert_eq!(trail[0]["request"], format!("POST /fleets/{fleet}/policy"));
    // With the keyboard alone, back to the latest.
    browser.tab_to("document.activeElement.textContent.trim() === 'Change policy…'").await;
    browser.press(ENTER).await;
    browser.until_there("dialog[open] input:focus").await;
    browser.press(ESCAPE).await;
    browser.until("!document.querySelector('dialog[open]') && document.activeElement.textContent.trim() === 'Change policy…'").await;
    browser.press(ENTER).await;
    browser.until_there("dialog[open] input:focus").await;
    // The focus is on what the fleet is pinned to; the arrows move the choice.
    browser.until(&format!("document.activeElement.value === '{GOOD}'")).await;
    while browser.eval("document.activeElement.value").await != "latest" {
        browser.press(UP).await;
    }
    browser.tab_to("document.activeElement.textContent.trim() === 'Show whom it moves'").await;
    browser.press(ENTER).await;
    browser.until_text("will run 3c4d5e6").await;
    browser.tab_to("document.activeElement.textContent.trim() === 'Track latest'").await;
    browser.press(ENTER).await;
    browser.until_text("greenhouse tracks latest.").await;
    assert_eq!(scene.poll(&devices[0]).await.0, NEW);
}

#[tokio::test]
async fn a_device_is_pinned_on_its_page_and_says_so_everywhere() {
    let (scene, fleet, devices) = greenhouse().await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    browser.open(&scene.url(&format!("/devices/{}", devices[2]))).await;
    pin(&browser, OLD, "1 device of 1 that are chosen will run 1a2b3c4", "Pinned 1 device to 1a2b3c4.").await;
    assert!(browser.url().await.ends_with(&format!("/devices/{}", devices[2])));
    browser.until("document.querySelector('#standing .pinned').textContent === 'Pinned'").await;
    assert_eq!(scene.poll(&devices[2]).await.0, OLD);
    browser.open(&scene.url(&format!("/fleets/{fleet}"))).await;
    browser.until("[...document.querySelectorAll('.devices tbody tr')].filter((row) => row.innerText.includes('Pinned')).map((row) => row.querySelector('.name').textContent).join() === 'east'").await;
    browser.click("a.chip[href*='state=pinned']").await;
    browser.until("document.querySelectorAll('.devices tbody tr').length === 1").await;
    // And follows again.
    browser.click(".devices .name").await;
    browser.click_text("Track fleet…").await;
    browser.click("dialog button.primary").await;
    browser.until_text("1 device now follow the fleet.").await;
    assert_eq!(scene.poll(&devices[2]).await.0, NEW);
}

#[tokio::test]
async fn many_devices_are_pinned_by_a_tag_filter_from_the_menu_of_actions() {
    let (scene, fleet, devices) = greenhouse().await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    browser.open(&scene.url(&format!("/fleets/{fleet}"))).await;
    browser.type_into("#filter", "ring=canary").await;
    browser.click(".search button").await;
    browser.until("document.querySelectorAll('.devices tbody tr').length === 2").await;
    assert!(browser.url().await.contains("filter=ring%3Dcanary"), "the filter is in the address");
    browser.click("#all").await;
    browser.click("details.actions summary").await;
    pin(&browser, GOOD, "2 devices of 2 that are chosen will run 2b3c4d5", "Pinned 2 devices to 2b3c4d5.")
        .await;
    assert!(browser.url().await.contains("filter=ring%3Dcanary"), "the filter is kept");
    for (device, commit) in devices.iter().zip([GOOD, GOOD, NEW, NEW]) {
        assert_eq!(scene.poll(device).await.0, commit);
    }
    // One by one, and tags.
    browser.open(&scene.url(&format!("/fleets/{fleet}"))).await;
    browser.click(&format!("input[value='{}']", devices[3])).await;
    browser.until_text("1 chosen").await;
    browser.click("details.actions summary").await;
    browser.click_text("Tag…").await;
    browser.type_into("dialog #set", "ring=late, note=a b").await;
    browser.click_text("Show what it changes").await;
    browser.until_text("Tag 1 device").await;
    browser.click("dialog button.primary").await;
    browser.until_text("Tagged 1 device.").await;
    assert_eq!(scene.get(&format!("/devices/{}", devices[3])).await["tags"]["note"], "a b");
    // A malformed filter is told where it was typed.
    browser.type_into("#filter", "=x").await;
    browser.click(".search button").await;
    browser.until_text("is not a condition").await;
}

#[tokio::test]
async fn the_second_of_two_people_sees_that_the_first_was_faster() {
    let (scene, fleet, devices) = greenhouse().await;
    let olga = scene.user("olga", "operator").await;
    let (Some(first), Some(second)) = (scene.browser(&scene.admin).await, scene.browser(&olga).await) else {
        return;
    };
    for (browser, release) in [(&first, GOOD), (&second, OLD)] {
        browser.open(&scene.url(&format!("/fleets/{fleet}/policy?release={release}"))).await;
        browser.until_text("4 devices of 4").await;
    }
    first.click_text("Pin fleet").await;
    first.until_text("greenhouse is pinned to 2b3c4d5.").await;
    second.click_text("Pin fleet").await;
    second.until_text("Another user changed this first").await;
    second.until_text("Now the fleet is pinned to 2b3c4d5").await;
    assert_eq!(scene.poll(&devices[0]).await.0, GOOD);
    second.click_text("Preview it again").await;
    second.until_text("4 devices of 4 of this fleet will run 1a2b3c4").await;
    second.click_text("Pin fleet").await;
    second.until_text("greenhouse is pinned to 1a2b3c4.").await;
    assert_eq!(scene.poll(&devices[0]).await.0, OLD);
    // The first page shows it by itself, and keeps what was chosen and where the focus is.
    first.open(&scene.url(&format!("/fleets/{fleet}"))).await;
    first.until_text("Live").await;
    first.click(&format!("input[value='{}']", devices[1])).await;
    scene.did(Method::POST, &format!("/fleets/{fleet}/track-latest"), json!({})).await;
    first.until("document.querySelector('#policy').innerText.includes('Tracks latest')").await;
    let kept = format!(
        "document.querySelector(\"input[value='{0}']\").checked && document.activeElement.value === '{0}'",
        devices[1]
    );
    first.until(&kept).await;
}

#[tokio::test]
async fn a_device_that_is_deleted_while_its_page_is_open_is_said_to_be_gone() {
    let (scene, _, devices) = greenhouse().await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    browser.open(&scene.url(&format!("/devices/{}", devices[1]))).await;
    browser.until_text("Live").await;
    scene.did(Method::DELETE, &format!("/devices/{}", devices[1]), json!(null)).await;
    browser.until_text("This is not there any more.").await;
    browser.click_text("Pin to release…").await;
    browser.click(&format!("dialog input[value='{OLD}']")).await;
    browser.click_text("Show what it changes").await;
    browser.until("document.querySelector('dialog [role=alert]').innerText.includes('no_such_device')").await;
    browser.open(&scene.url(&format!("/devices/{}", devices[1]))).await;
    browser.until_text("Not found").await;
}

#[tokio::test]
async fn reading_and_plain_acts_work_without_the_script() {
    let (scene, fleet, devices) = greenhouse().await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    browser.scripts(false).await;
    browser.open(&scene.url(&format!("/fleets/{fleet}"))).await;
    browser.until_text("north").await;
    browser.open(&scene.url(&format!("/fleets/{fleet}/releases"))).await;
    browser.until_text("29 days ago").await;
    browser.open(&scene.url(&format!("/fleets/{fleet}"))).await;
    browser.click("#policy a.primary").await;
    browser.until_there("main input[type=radio]").await;
    browser.click(&format!("input[value='{OLD}']")).await;
    browser.click("main button.primary").await;
    browser.until_text("4 devices of 4 of this fleet will run 1a2b3c4").await;
    browser.click("main button.primary").await;
    browser.until_text("greenhouse is pinned to 1a2b3c4.").await;
    assert_eq!(scene.poll(&devices[0]).await.0, OLD);
    browser.click(&format!("input[value='{}']", devices[0])).await;
    browser.click("details.actions summary").await;
    browser.click("button[formaction$='/actions/pin']").await;
    browser.click(&format!("input[value='{GOOD}']")).await;
    browser.click("main button.primary").await;
    browser.until_text("1 device of 1 that are chosen").await;
    browser.click("main button.primary").await;
    browser.until_text("Pinned 1 device to 2b3c4d5.").await;
    assert_eq!(scene.poll(&devices[0]).await.0, GOOD);
}

#[tokio::test]
async fn a_server_that_goes_away_is_said_and_the_page_follows_again() {
    let (mut scene, fleet, devices) = greenhouse().await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    browser.open(&scene.url(&format!("/fleets/{fleet}"))).await;
    browser.until_text("Live").await;
    scene.server.cut();
    browser.until_text("The server does not answer.").await;
    assert!(browser.text().await.contains("north"), "what was shown stays");
    scene.server.start_again();
    // Sessions are in memory, so this one has ended; the page says so and keeps what it shows.
    browser.until_text("Your session has ended.").await;
    scene.sign_in(&browser, &scene.admin).await;
    browser.open(&scene.url(&format!("/fleets/{fleet}"))).await;
    browser.until_text("Live").await;
    scene.did(Method::POST, &format!("/devices/{}/rename", devices[0]), json!({ "name": "attic" })).await;
    browser.until_text("attic").await;
}
