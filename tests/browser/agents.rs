//! A real agent behind a page: what is done on the page moves real containers, and what they write is shown.

use crate::driver::Browser;
use crate::policy::pin;
use crate::scene::{GOOD, OLD};
use crate::support::{Agent, FleetServer, Lab};

#[tokio::test]
async fn a_pin_on_the_page_moves_the_containers_of_a_real_agent() {
    let Some(browser) = Browser::start().await else { return };
    let lab = Lab::new("dashboard");
    let server = FleetServer::start(&lab);
    let fleet = server.create_fleet(&lab, "porch");
    server.create_release(&fleet, OLD, &lab.compose("old.yml", &[("web", "r1")], ""));
    server.create_release(&fleet, GOOD, &lab.compose("good.yml", &[("web", "r2")], ""));
    let agent = Agent::start(&lab, &server, &fleet, "kitchen");
    agent.until_serves("web", GOOD, "r2");

    let token = std::fs::read_to_string(server.token_file()).unwrap();
    browser.open(&format!("{}/sign-in?to=/fleets/{}", server.url, fleet.number)).await;
    browser.type_into("#token", token.trim()).await;
    browser.click("button[type=submit]").await;
    browser.click(".devices .name").await;
    let standing = |text: &str| format!("document.querySelector('#standing').innerText.includes('{text}')");
    browser.until(&standing("On target")).await;
    browser.until_text("Accepted 2b3c4d5").await;

    pin(&browser, OLD, "1 device of 1 that are chosen will run 1a2b3c4", "Pinned 1 device to 1a2b3c4.").await;
    agent.until_serves("web", OLD, "r1");
    // The page follows the device to the end.
    browser.until_text("Accepted 1a2b3c4").await;
    browser.until(&standing("On target")).await;
    browser.until("document.querySelector('#services').innerText.includes('1a2b3c4')").await;

    browser.click_text("Track fleet…").await;
    browser.click("dialog button.primary").await;
    agent.until_serves("web", GOOD, "r2");
    browser.until("document.querySelectorAll('#history li').length === 3").await;

    // The agent says in its log what it did.
    browser.click_text("Show logs").await;
    let has = |text: &str| {
        format!(
            "[...document.querySelectorAll('#log-lines p')].some((row) => row.textContent.includes({text:?}))"
        )
    };
    browser.until(&has("Started service 'web ")).await;
}
