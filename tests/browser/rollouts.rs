//! Starting a rollout on the page: the form, the plan, the start, and what becomes of it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::driver::{Browser, DOWN, ENTER, SPACE};
use crate::scene::{DRAFT, GOOD, NEW, Scene};

/// A fleet that runs [`NEW`] on so many devices.
async fn fleet(scene: &mut Scene, devices: u32) -> (u64, Vec<String>) {
    let fleet = scene.fleet("greenhouse").await;
    scene.releases(fleet).await;
    let mut uuids = Vec::new();
    for number in 1..=devices {
        let ring = if number <= 2 { "canary" } else { "stable" };
        let device = scene.device(fleet, number, &format!("board-{number}"), json!({ "ring": ring })).await;
        scene.obey(&device).await;
        uuids.push(device);
    }
    (fleet, uuids)
}

async fn current(scene: &Scene, fleet: u64) -> Value {
    scene.get(&format!("/fleets/{fleet}/rollouts/current")).await
}

/// Lets the devices that should run the draft say that they have rejected it.
async fn reject(scene: &Scene, devices: &[String]) -> usize {
    let mut rejected = 0;
    for device in devices {
        if scene.poll(device).await.0 == DRAFT {
            let waiting = json!([{ "reason": "rejected", "service": "web", "why": "exited with code 1", "since": "2026-11-28T09:12:00Z" }]);
            scene.report(device, NEW, waiting, json!({})).await;
            rejected += 1;
        }
    }
    rejected
}

#[tokio::test]
async fn a_rollout_is_planned_started_halted_by_failures_and_pulled_back() {
    let mut scene = Scene::open().await;
    let (fleet, devices) = fleet(&mut scene, 6).await;
    let token = scene.user("rhea", "release-engineer").await;
    let Some(browser) = scene.browser(&token).await else { return };
    browser.open(&scene.url(&format!("/fleets/{fleet}"))).await;
    browser.click_text("Start a rollout…").await;
    browser.click(&format!("dialog input[value='{DRAFT}']")).await;
    browser.type_into("#waves", "ring=canary, 100%").await;
    browser.click("dialog input[name=approve]").await;
    browser.type_into("#soak", "10min").await;
    browser.type_into("#rate", "3600/h").await;
    browser.click("dialog input[name=on_halt][value=pause]").await;
    browser.click_text("More settings").await;
    browser.type_into("#max_failures", "2").await;
    browser.click_text("Show the plan").await;
    // Wave by wave: who, how many, when. Nothing has begun.
    browser.until_text("6 devices in 2 waves").await;
    for text in [
        "1: ring=canary approve",
        "2: 100%",
        "at once",
        "after 10 min at the earliest",
        "those that have it keep it",
    ] {
        browser.until_text(text).await;
    }
    assert_eq!(
        scene.ask(Method::GET, &format!("/fleets/{fleet}/rollouts/current"), Value::Null).await.0,
        404
    );
    browser.click_text("Start rollout").await;
    browser.until_text("Rollout 1 of 4d5e6f7 has started.").await;
    let definition = current(&scene, fleet).await["definition"].clone();
    assert_eq!(definition["waves"], json!(["ring=canary approve", "100%"]));
    assert_eq!((&definition["soak"], &definition["max_failures"]), (&json!("10m"), &json!(2)));
    browser.until_text("at the earliest 10 min after wave 1 began").await;
    // Both canaries take the release back, and the second one halts it.
    let begun = std::time::Instant::now();
    while reject(&scene, &devices).await < 2 {
        assert!(begun.elapsed().as_secs() < 30, "{}", current(&scene, fleet).await);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    // The page follows by itself. A rollout that does not run has no time at which a wave begins.
    browser.until_text("Halted").await;
    assert!(!browser.text().await.contains("at the earliest"), "{}", browser.text().await);
    browser.click_text("Pull back…").await;
    browser.until_text("2 devices with the release go back to the target of the fleet.").await;
    browser.click("dialog button.primary").await;
    browser.until_text("rollout 1 is pulled-back now.").await;
    for device in &devices {
        assert_eq!(scene.poll(device).await.0, NEW);
    }
    let trail = scene.get("/audit?by=rhea").await;
    let trail = trail
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["what"].as_str().unwrap(), entry["request"].as_str().unwrap()));
    let trail: Vec<_> = trail.collect();
    assert!(
        trail.contains(&("start a rollout", format!("POST /fleets/{fleet}/rollouts/start").as_str())),
        "{trail:?}"
    );
    assert!(trail.iter().any(|(what, _)| *what == "pull back a rollout"), "{trail:?}");
}

#[tokio::test]
async fn a_rollout_is_started_from_a_release_with_the_keyboard_and_completed() {
    let mut scene = Scene::open().await;
    let (fleet, devices) = fleet(&mut scene, 3).await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    browser.open(&scene.url(&format!("/fleets/{fleet}/releases/{DRAFT}"))).await;
    browser.tab_to("document.activeElement.textContent === 'Roll out in waves…'").await;
    browser.press(ENTER).await;
    // The release of the page is chosen already, and has the focus.
    browser
        .until(&format!("document.activeElement.value === '{DRAFT}' && document.activeElement.checked"))
        .await;
    browser.tab_to("document.activeElement.name === 'on_halt'").await;
    browser.press(DOWN).await;
    browser.tab_to("document.activeElement.textContent === 'Show the plan'").await;
    browser.press(SPACE).await;
    browser.until_text("3 devices in 3 waves").await;
    browser.until_text("and those that have it go back").await;
    browser.tab_to("document.activeElement.textContent === 'Start rollout'").await;
    browser.press(ENTER).await;
    browser.until_text("Rollout 1 of 4d5e6f7 has started.").await;
    assert_eq!(current(&scene, fleet).await["definition"]["on_halt"], "pull-back");
    let begun = std::time::Instant::now();
    while current(&scene, fleet).await["tally"]["exposed"] != 1 {
        assert!(begun.elapsed().as_secs() < 30);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    browser.open(&scene.url(&format!("/fleets/{fleet}/rollouts"))).await;
    browser.tab_to("document.activeElement.textContent === 'Complete…'").await;
    browser.press(ENTER).await;
    browser.until_text("2 devices without the release get it at once.").await;
    browser.click("dialog button.primary").await;
    browser.until_text("rollout 1 is completed now.").await;
    for device in &devices {
        assert_eq!(scene.poll(device).await.0, DRAFT);
    }
}

/// Opens the plan of a rollout that replaces the one that goes on.
async fn open_plan(scene: &Scene, browser: &Browser, fleet: u64) {
    let address = format!("/fleets/{fleet}/rollouts/start?plan=1&release={DRAFT}&waves=1,100%25&supersede=1");
    browser.open(&scene.url(&address)).await;
    browser.until_text("Start rollout").await;
}

#[tokio::test]
async fn a_rollout_starts_only_if_the_fleet_is_as_the_plan_showed_it_and_errors_are_in_the_form() {
    let mut scene = Scene::open().await;
    let (fleet, _) = fleet(&mut scene, 3).await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    let start = |waves: &str| {
        let body = json!({ "release": DRAFT, "definition": { "waves": waves.split(' ').collect::<Vec<_>>() }, "supersede": true });
        (format!("/fleets/{fleet}/rollouts"), body)
    };
    let (path, body) = start("1 100%");
    scene.did(Method::POST, &path, body).await;
    // Another rollout takes the place of the one that the plan would replace.
    open_plan(&scene, &browser, fleet).await;
    browser.until_text("This ends rollout 1.").await;
    let (path, body) = start("2 100%");
    scene.did(Method::POST, &path, body).await;
    browser.click_text("Start rollout").await;
    browser.until_text("Another user changed this first").await;
    assert_eq!(current(&scene, fleet).await["number"], 2);
    browser.click_text("Preview it again").await;
    browser.until_text("This ends rollout 2.").await;
    // The fleet gets another target, which ends the rollout.
    scene.did(Method::POST, &format!("/fleets/{fleet}/pin"), json!({ "release": GOOD })).await;
    browser.click_text("Start rollout").await;
    browser.until_text("Another user changed this first").await;
    browser.click_text("Preview it again").await;
    browser.click_text("Start rollout").await;
    browser.until_text("Rollout 3 of 4d5e6f7 has started.").await;
    // Without consent to replace it, and with a wave that is none, the form says why, and keeps what was typed.
    for (waves, more, wrong) in [
        ("1,100%25", "", "is not over"),
        ("%3Cimg+src=x%3E", "&supersede=1", "not a wave"),
        ("1,100%25", "&at_once=x&supersede=1", "At once"),
    ] {
        let address = format!("/fleets/{fleet}/rollouts/start?plan=1&release={DRAFT}&waves={waves}{more}");
        browser.open(&scene.url(&address)).await;
        browser.until(&format!("!!document.querySelector('[role=alert]') && document.querySelector('[role=alert]').innerText.includes('{wrong}')")).await;
        browser
            .until("!document.querySelector('main img') && document.querySelector('#waves').value.length > 4")
            .await;
    }
}

#[tokio::test]
async fn a_rollout_starts_without_a_script() {
    let mut scene = Scene::open().await;
    let (fleet, _) = fleet(&mut scene, 2).await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    browser.scripts(false).await;
    browser.open(&scene.url(&format!("/fleets/{fleet}/rollouts/start?release={DRAFT}"))).await;
    browser.click_text("Show the plan").await;
    browser.until_text("2 devices in 3 waves").await;
    browser.click_text("Start rollout").await;
    browser.until_text("Rollout 1 of 4d5e6f7 has started.").await;
}
