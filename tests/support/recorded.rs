//! The acts that were recorded on a real open-balena-api, one after the other, and which release each device then had. One
//! list for all that decide so: the policy alone, and servers on each kind of store.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

const FOLDER: &str = "tests/fixtures/openbalena";

/// The devices of the recordings, all created in `fleet1`.
pub(crate) const DEVICES: [&str; 3] = ["A", "B", "C"];

/// What is special about a new release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Draft,
    Failed,
    Running,
    /// Its build began before that of all others.
    Older,
}

/// One act of an operator, in the words of the recordings' README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Fleet(&'static str),
    /// A device of `fleet1`.
    Device(&'static str),
    Release(&'static str, &'static str, Kind),
    Finalize(&'static str),
    Invalidate(&'static str, bool),
    FailsTests(&'static str),
    Delete(&'static str),
    PinFleet(&'static str, &'static str),
    TrackLatest(&'static str),
    /// Only the flag, without the target: an act of the recorded API that the operator API does not have.
    TrackFlag(&'static str),
    /// No target while the fleet tracks its latest release: as `TrackFlag`.
    NoTarget(&'static str),
    Pin(&'static str, &'static str),
    Unpin(&'static str),
    Tag(&'static str, &'static str, &'static str),
    PinByTag(&'static str, Option<&'static str>),
    Move(&'static str, &'static str),
}

/// A line of the list.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Line {
    Do(Act),
    /// The act is refused, because the release is in use.
    Refused(Act),
    /// Each device that was recorded at this step has its recorded release.
    Like(&'static str),
    /// This device has this release, at a moment that was not recorded.
    Has(&'static str, &'static str),
}

use Act::{
    Delete, Device, FailsTests, Finalize, Fleet, Invalidate, Move, NoTarget, Pin, PinByTag, PinFleet,
    Release, Tag, TrackFlag, TrackLatest, Unpin,
};
use Line::{Do, Has, Like, Refused};

pub(crate) const LIST: &[Line] = &[
    Do(Fleet("fleet1")),
    Do(Fleet("fleet2")),
    Do(Device("A")),
    Do(Device("B")),
    Do(Device("C")),
    Like("01-no-release"),
    Do(Release("fleet1", "r1", Kind::Plain)),
    Like("02-track-latest-r1"),
    Do(Release("fleet1", "r2", Kind::Plain)),
    Like("03-track-latest-r2"),
    Do(Release("fleet1", "r3", Kind::Plain)),
    Like("04-track-latest-r3"),
    // Pins.
    Do(PinFleet("fleet1", "r1")),
    Like("05-fleet-pinned-r1"),
    Do(Pin("A", "r2")),
    Like("06-device-A-pinned-r2"),
    Do(PinFleet("fleet1", "r3")),
    Like("07-fleet-pinned-r3-A-still-r2"),
    Do(Release("fleet1", "r4", Kind::Plain)),
    Like("08-new-release-r4-while-pinned"),
    Do(Unpin("A")),
    Like("09-device-A-unpinned"),
    Do(TrackFlag("fleet1")),
    Like("10-track-flag-only"),
    Do(TrackLatest("fleet1")),
    Like("11-track-latest-back"),
    Do(Tag("A", "ring", "canary")),
    Do(Tag("B", "ring", "canary")),
    Do(Tag("C", "ring", "prod")),
    Like("12-tags"),
    Do(PinByTag("ring=canary", Some("r2"))),
    Like("13-pin-by-tag-canary-r2"),
    Do(PinByTag("ring=canary", Some("r3"))),
    Like("14-pin-by-tag-canary-r3"),
    Do(PinByTag("ring=canary", None)),
    Like("15-unpin-by-tag"),
    // Drafts.
    Do(Release("fleet1", "draft1", Kind::Draft)),
    Like("16-draft-release"),
    Do(Pin("A", "draft1")),
    Like("16b-A-pinned-on-draft"),
    Do(Unpin("A")),
    Do(Finalize("draft1")),
    Like("17-draft-finalised"),
    Do(Invalidate("draft1", true)),
    Like("18-latest-invalidated"),
    Do(Pin("B", "draft1")),
    Like("18b-B-pinned-on-invalidated"),
    Do(Unpin("B")),
    Do(Invalidate("draft1", false)),
    Like("18c-revalidated"),
    // The README has no line for it, but the recordings after this one show r4 again:
    // the release of 18c was taken out of tracking before them.
    Do(Invalidate("draft1", true)),
    // What is not tracked.
    Do(Release("fleet1", "failed1", Kind::Failed)),
    Like("19-failed-release"),
    Do(Release("fleet1", "running1", Kind::Running)),
    Like("19b-running-release"),
    Do(Release("fleet1", "ptst", Kind::Plain)),
    // As long as it passes its tests.
    Has("C", "ptst"),
    Do(FailsTests("ptst")),
    Like("20-not-passing-tests"),
    Do(Release("fleet1", "older", Kind::Older)),
    Like("21-older-start-timestamp"),
    // Deletions: a pin holds r2, and r4 is the fleet's target.
    Do(Pin("A", "r2")),
    Refused(Delete("r2")),
    Refused(Delete("r4")),
    Do(Delete("r1")),
    Like("22-delete-pinned"),
    // Moves.
    Do(Move("A", "fleet2")),
    Like("23-device-A-moved-to-empty-fleet2"),
    Do(Release("fleet2", "f2r1", Kind::Plain)),
    Like("24-fleet2-has-release"),
    Do(Move("A", "fleet1")),
    Like("25-device-A-moved-back"),
    Like("30-device-B-before-any-report"),
    Do(NoTarget("fleet1")),
    Like("55-fleet-target-null"),
    // Moved to fleet2 with a report behind it (the report itself is another test).
    Do(Move("B", "fleet2")),
    Like("60-report-then-move"),
];

/// The devices that were recorded at this step: the file, the device, and its release.
pub(crate) fn recorded(step: &str) -> Vec<(String, &'static str, Option<String>)> {
    let of = |device: &&'static str| {
        let file = format!("{step}.device-{device}.json");
        let text = std::fs::read_to_string(Path::new(FOLDER).join(&file)).ok()?;
        Some((file, *device, release(&text)))
    };
    DEVICES.iter().filter_map(of).collect()
}

/// The files of all recorded targets of policy.
pub(crate) fn files() -> BTreeSet<String> {
    // A v2 body, and rich releases of one device.
    let others = ["39b-", "50-vars", "65-compression"];
    std::fs::read_dir(FOLDER)
        .expect("the recordings")
        .map(|entry| entry.expect("a file").file_name().into_string().expect("text"))
        .filter(|file| file.ends_with(".json") && file.contains(".device-"))
        .filter(|file| !others.iter().any(|other| file.starts_with(other)))
        .collect()
}

/// The name of the release in a recorded state: what its services have in `FROM_COMPOSE`.
fn release(text: &str) -> Option<String> {
    let state: Value = serde_json::from_str(text).expect("JSON");
    let device = state.as_object()?.values().next()?;
    let app = device["apps"].as_object()?.values().next()?;
    let releases = app.get("releases")?.as_object()?;
    let services = releases.values().next()?["services"].as_object()?;
    let names: BTreeSet<&str> = services
        .values()
        .map(|service| service["composition"]["environment"]["FROM_COMPOSE"].as_str().expect("a name"))
        .collect();
    assert_eq!(names.len(), 1, "{text}");
    names.first().map(|name| (*name).to_owned())
}
