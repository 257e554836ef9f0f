//! Forecasts: the device as text, its stages as text.

use super::*;
use crate::model::{Forecast, Lease};
use crate::plan::forecast;

impl Device {
    fn forecast(&self) -> Forecast {
        forecast(self.situation())
    }
}

/// E.g. `pull r/db:1, pull r/web:1; after held: stop web web-1; then rejected`.
fn shown(device: &Device) -> String {
    let forecast = device.forecast();
    assert!(!forecast.is_cut, "{}", device.shown());
    let words = |waiting: &[crate::model::Waiting]| {
        waiting.iter().map(|w| w.reason.as_str()).collect::<Vec<_>>().join(" ")
    };
    let stages = forecast.stages.iter().map(|stage| {
        let steps: Vec<_> = stage.steps.iter().map(Step::to_string).collect();
        let after =
            if stage.after.is_empty() { String::new() } else { format!("after {}: ", words(&stage.after)) };
        format!("{after}{}", steps.join(", "))
    });
    let end = (!forecast.waiting.is_empty()).then(|| format!("then {}", words(&forecast.waiting)));
    stages.chain(end).collect::<Vec<_>>().join("; ")
}

#[test]
fn forecasts() {
    let lease = |device: &mut Device| {
        let (id, owner, reason) = ("a1".into(), "kiosk".into(), "show".into());
        let until = device.facts.uptime + Duration::from_secs(60);
        device.ledger.leases.push(Lease { id, owner, reason, boot_id: "boot".into(), until });
    };
    let mut wrong = Vec::new();
    for (why, device, expected) in [
        ("nothing, without a target", "", ""),
        ("nothing at rest", "target 1, have 1, db@1 running, web@1 running, good 1", ""),
        (
            "a first install",
            "bare, target 1",
            "pull r/db:1, pull r/web:1; create-network default; create db@1, create web@1; try 1; \
             start db new-2, start web new-3; unlock app; after trial: commit 1",
        ),
        (
            "an update, in the order of its dependencies, with what it leaves behind",
            "target 4, good 1, pulled 1, have 1, db@1 running, web@1 running",
            "pull r/db:4, pull r/web:4; create db@4, create web@4; try 4; stop db db-1, start db new-1; \
             stop web web-1, start web new-2; after trial: commit 4; remove db db-1, remove web web-1, unlock app",
        ),
        (
            "what completes first",
            "target 7, good 1, have 7 web@1, job@7 created, web@7 created, web@1 running",
            "try 7; start job job-7; after dependency: stop web web-1, start web web-7; after trial: commit 7; \
             remove web web-1, unlock app",
        ),
        (
            "beyond a hold, which an operator must end",
            "target 3, good 1, have 1 3, db@1 running, web@1 running, web@3 created, hold",
            "after held: try 3; stop web web-1, start web web-3, stop db db-1; after trial: commit 3; \
             remove web web-1, remove db db-1, unlock app",
        ),
        (
            "a registry that is being asked for a size",
            "target 2, good 1, have 1, db@1 running, web@1 running, measuring db@2",
            "after downloading: pull r/db:2, pull r/web:2; create db@2, create web@2; try 2; stop db db-1, start db new-1, \
             stop web web-1, start web new-2; after trial: commit 2; remove db db-1, remove web web-1, unlock app",
        ),
        (
            "a download under way, and one that has failed",
            "target 2, good 1, have 1, db@1 running, web@1 running, pulling db@2, failed web@2",
            "after downloading backoff: pull r/web:2; create db@2, create web@2; try 2; stop db db-1, start db new-1, \
             stop web web-1, start web new-2; after trial: commit 2; remove db db-1, remove web web-1, unlock app",
        ),
        (
            "the rollback",
            "target 2, good 1, trial 2 5, db@1 exited, stopped db@1, web@1 exited, stopped web@1, db@2 running, web@2 unhealthy",
            "reject 2: web is unhealthy; stop db db-2, start db db-1, stop web web-2, start web web-1; \
             remove db db-2, remove web web-2; then rejected",
        ),
        (
            "a wait that no order ends is the end",
            "target refused, good 1, db@1 running, web@1 running",
            "then refused",
        ),
        (
            "a gone app",
            "target other, good 1, db@1 running",
            "stop db db-1, remove db db-1; remove-network default; forget app",
        ),
    ] {
        let found = shown(&Device::parse(device));
        if found != expected {
            wrong.push(format!("{why}:\n  {found}\n  {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut locked = Device::parse("target 3, good 8, have 1 3, web@1 running, web@3 created, lock web");
    lease(&mut locked);
    assert_eq!(
        shown(&locked),
        "after locked locked: try 3; stop web web-1, start web web-3; after trial: commit 3; remove web web-1, unlock app"
    );
}

proptest! {
    /// A forecast is what the planner does, step by step, on a device on which everything works.
    #[test]
    fn a_forecast_is_what_comes(from in 1_u8..=8, to in 1_u8..=13, has_images in any::<bool>()) {
        let have = if has_images { format!("have {from} {to}") } else { format!("have {from}") };
        let mut device = Device::parse(&format!("target {to}, good {from}, pulled {from}, {have}"));
        for (service, spec) in &release(from).services {
            let number = (1..=13).find(|n| hash(service.as_str(), *n) == spec.hash).unwrap();
            device.add_container(service.as_str(), number, "running");
        }
        let forecast = device.forecast();
        prop_assert!(!forecast.is_cut);
        let foreseen: usize = forecast.stages.iter().map(|stage| stage.steps.len()).sum();
        let mut done = 0;
        for _ in 0..60 {
            let plan = device.plan();
            done += plan.stage.len();
            for step in &plan.stage {
                device.apply(step, |_| true);
            }
            if plan.stage.is_empty() {
                device.pass();
                device.end_jobs_and_hand_overs();
            }
        }
        prop_assert_eq!(foreseen, done);
        prop_assert!(device.plan().stage.is_empty());
    }
}

impl Device {
    fn end_jobs_and_hand_overs(&mut self) {
        for seen in &mut self.observed.services {
            if seen.service.as_str() == "job" && seen.state == ContainerState::Running {
                seen.state = ContainerState::Exited { code: 0 };
            }
            self.facts.handed_over.insert((app(), seen.service.clone()));
        }
    }
}
