//! Maintenance windows and a clock that is not believed, in a whole agent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cotter::store::Store;

use crate::support::{Agent, Fleet, FleetServer, Lab, eventually};
use crate::until_done;

/// A release of `web` that may be swapped within `window` only; an empty one is none.
fn release(lab: &Lab, server: &FleetServer, fleet: &Fleet, commit: &str, image: &str, window: &str) {
    let label = match window {
        "" => String::new(),
        window => format!(", io.cotter.update.window: \"{window}\""),
    };
    let text = format!(
        r#"services:
  web:
    image: {image}
    ports: ["127.0.0.1::8080"]
    stop_grace_period: 2s
    labels: {{ io.cotter.trial.soak: 1s{label} }}
"#,
        image = lab.image(image),
    );
    server.create_release(fleet, commit, &lab.file(&format!("{}-{commit}.yml", fleet.name), &text));
}

/// An hour of every day that begins at a full minute; `minutes` after midnight, in UTC.
fn hour_from(minutes: u64) -> String {
    let clock = |minutes: u64| format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60);
    format!("{}-{}", clock(minutes), clock(minutes + 60))
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What the only waiting says, and in how many seconds it is looked at again.
#[track_caller]
fn waits(agent: &Agent<'_>, reason: &str) -> (String, u64) {
    agent.until_status("/waiting/0/reason", reason);
    let why = agent.status_value("/waiting/0/why").as_str().unwrap().to_owned();
    (why, agent.status_value("/waiting/0/retry_in_s").as_u64().unwrap())
}

/// A device of a fleet of its own that runs release one.
fn device<'lab>(lab: &'lab Lab, server: &FleetServer, name: &str, windows: &str) -> (Agent<'lab>, Fleet) {
    let fleet = server.create_fleet(lab, name);
    release(lab, server, &fleet, "one", "r1", "");
    let mut agent = Agent::prepare(lab, &server.url, &fleet, name);
    agent.set(&format!("update.windows={windows}"));
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    (agent, fleet)
}

#[test]
fn a_release_waits_for_its_window_or_for_an_operator() {
    let lab = Lab::new("window");
    let server = FleetServer::start(&lab);
    let far = hour_from(unix_time() / 60 % 1440 + 720);
    let (till, tills) = device(&lab, &server, "till", "");
    // The device's own window holds where a release has none. A first release does not wait for it.
    let (mut desk, desks) = device(&lab, &server, "desk", &far);
    let (on_till, on_desk) = (till.standing(), desk.standing());

    // The one of the release opens with the next minute, or the one after it.
    let opens = (unix_time() + 15) / 60 + 1;
    let soon = hour_from(opens % 1440);
    release(&lab, &server, &tills, "two", "r2", &soon);
    let (why, left) = waits(&till, "window");
    assert_eq!(why, format!("outside of {soon} UTC"));
    let expected = (opens * 60).saturating_sub(unix_time());
    assert!(left.abs_diff(expected) <= 10, "{left} s until it opens, expected {expected}");

    // Meanwhile at the desk.
    release(&lab, &server, &desks, "two", "r2", "");
    let (why, left) = waits(&desk, "window");
    assert_eq!(why, format!("outside of {far} UTC"));
    assert!(left.abs_diff(12 * 3600) < 600, "{left} s until it opens");
    let explained = String::from_utf8(desk.cli(&["explain"]).stdout).unwrap();
    assert!(
        explained.contains("window, since ") && explained.contains("`cotter update --force`"),
        "{explained}"
    );
    let shown = String::from_utf8(desk.cli(&["status"]).stdout).unwrap();
    assert!(shown.contains(&why), "{shown}");
    assert!(desk.log().contains("reason=\"window\""), "{}", desk.log());
    desk.until_polled(2);
    assert_eq!(desk.standing(), on_desk, "nothing was touched");
    let (is_done, output) = desk.order(&["update", "--force"]);
    assert!(is_done, "{output}");
    desk.until_serves("web", "two", "r2");
    until_done(&desk, "two");

    // It passes that release only. And as if the clock had been set back by years: it is not believed.
    desk.stop();
    {
        let (store, _) = Store::open(&desk.state_dir()).unwrap();
        let mut ledger = store.load().ledger;
        assert!(ledger.clock.seen_at.is_some(), "the time of the update was noted");
        ledger.clock.seen_at = Some("2099-01-01T00:00:00Z".to_owned());
        store.save_ledger(&ledger).unwrap();
    }
    let on_desk = desk.standing();
    desk.start_again();
    release(&lab, &server, &desks, "three", "r3", "");
    let (why, left) = waits(&desk, "clock");
    assert!(why.starts_with("a maintenance window is set, and the clock shows 2"), "{why}");
    assert!(why.ends_with(", but it has shown 2099-01-01T00:00:00Z before; set it, or enable NTP"), "{why}");
    assert!(left.abs_diff(24 * 3600) < 600, "{left} s at most");
    desk.until_polled(2);
    assert_eq!(desk.standing(), on_desk);
    let (is_done, output) = desk.order(&["update", "--force"]);
    assert!(is_done, "{output}");
    desk.until_serves("web", "three", "r3");
    until_done(&desk, "three");

    // And the other window opens by itself.
    if unix_time() < opens * 60 {
        assert_eq!(till.standing(), on_till, "it is not open yet");
    }
    eventually("the window opens", Duration::from_secs(100), || {
        (till.service("web")?.release() == "two").then_some(())
    });
    assert!(unix_time() >= opens * 60, "it was not open yet");
    till.until_serves("web", "two", "r2");
    until_done(&till, "two");
}
