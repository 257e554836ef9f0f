//! Variables of a fleet and of a device, on their pages.

use serde_json::{Value, json};

use crate::scene::{DRAFT, Scene};

/// What the API lists, as `name=value for service`.
async fn listed(scene: &Scene, query: &str) -> Vec<String> {
    let rows = scene.get(&format!("/variables?{query}")).await;
    let row = |row: &Value| {
        let value = row["value"].as_str().unwrap_or("secret");
        format!("{}={value} for {}", row["name"].as_str().unwrap(), row["service"].as_str().unwrap_or("all"))
    };
    rows.as_array().unwrap().iter().map(row).collect()
}

#[tokio::test]
async fn variables_are_set_changed_and_removed_and_a_secret_is_only_written() {
    let mut scene = Scene::open().await;
    let fleet = scene.fleet("greenhouse").await;
    let device = scene.device(fleet, 1, "board-1", json!({})).await;
    scene.release(fleet, DRAFT, json!({ "is_final": false })).await;
    let Some(browser) = scene.browser(&scene.admin).await else { return };
    let page = format!("/fleets/{fleet}/variables");
    browser.open(&scene.url(&page)).await;
    browser.until_text("No variable is set here.").await;
    browser.click_text("Set a variable…").await;
    browser.type_into("#name", "RATE").await;
    browser.type_into("#value", " 5 <b>").await;
    browser.click_text("Set variable").await;
    browser.until_text("Set RATE of greenhouse. No device restarts a service for it.").await;
    assert_eq!(listed(&scene, &format!("fleet={fleet}")).await, ["RATE= 5 <b> for all"]);
    // What is refused is said, and what was typed stays.
    browser.click_text("Set a variable…").await;
    browser.type_into("#name", "A B").await;
    browser.type_into("#value", "kept").await;
    browser.click_text("Set variable").await;
    browser.until_there("dialog [role=alert]").await;
    assert_eq!(browser.eval("document.querySelector('dialog #value').value").await, "kept");
    // A secret is on no page, not even where it is changed.
    browser.type_into("#name", "TOKEN").await;
    browser.type_into("#value", "hunter2-hunter2").await;
    browser.type_into("#service", "web").await;
    browser.click("dialog input[name=secret]").await;
    browser.click_text("Set variable").await;
    browser.until_text("Set TOKEN of greenhouse.").await;
    browser.click("a[aria-label='Change TOKEN']").await;
    browser.until_text("the present value is not shown").await;
    let html = browser.eval("document.documentElement.outerHTML").await;
    assert!(!html.as_str().unwrap().contains("hunter2"));
    assert_eq!(listed(&scene, &format!("fleet={fleet}")).await.len(), 2);
    // Another user has changed the variables meanwhile.
    let change = json!({ "set": { "UNIT": "lux" } });
    scene.did(reqwest::Method::POST, &format!("/fleets/{fleet}/variables"), change).await;
    browser.type_into("#value", "hunter3-hunter3").await;
    browser.click_text("Set variable").await;
    browser.until_text("The list of variables has changed since you looked at it").await;
    let html = browser.eval("document.documentElement.outerHTML").await;
    assert!(!html.as_str().unwrap().contains("hunter3"), "a refused secret does not come back");
    // A variable becomes a secret, and the first attempt is refused: it is still to become one.
    browser.open(&scene.url(&page)).await;
    browser.click("a[aria-label='Change RATE']").await;
    browser.until_there("dialog #value").await;
    browser.click("dialog input[name=secret]").await;
    browser.type_into("#value", "hunter4\nhunter4").await;
    browser.click_text("Set variable").await;
    browser.until_there("dialog [role=alert]").await;
    let form = "[document.querySelector('dialog input[name=secret]').checked, document.querySelector('dialog #value').value]";
    assert_eq!(browser.eval(form).await, json!([true, ""]));
    // The page of a device has those of its fleet, too, and changes only its own.
    browser.open(&scene.url(&format!("/devices/{device}"))).await;
    browser.click_text("Variables of this device").await;
    browser.until_text("Back to the device").await;
    browser.until_text("secret").await;
    assert_eq!(browser.eval("document.querySelectorAll('#variables a.button').length").await, 0);
    browser.click_text("Set a variable…").await;
    browser.type_into("#name", "RATE").await;
    browser.type_into("#value", "9").await;
    browser.click_text("Set variable").await;
    browser.until_text("Set RATE of board-1.").await;
    browser.until_text("Overridden").await;
    browser.click("a[aria-label='Remove RATE']").await;
    browser.until_text("is removed. No device restarts a service for it.").await;
    browser.click("dialog button.primary").await;
    browser.until_text("Removed RATE of board-1.").await;
    assert_eq!(listed(&scene, &format!("device={device}&name=RATE")).await, ["RATE= 5 <b> for all"]);
}
