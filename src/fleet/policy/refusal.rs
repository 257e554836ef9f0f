//! Why an act is not done: each variant is a rule, and its text says what to do instead.

use crate::model::{Commit, DeviceUuid, Refusal as ContentRefusal};

use super::ReleaseStatus;

/// A rule in the way of an act. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no fleet {given:?}; `cotter fleet list` shows them")]
    NoSuchFleet { given: String },

    #[error(
        "there is no device {given:?}; give its uuid, the first 4 or more digits of it, or its name (`cotter device list`)"
    )]
    NoSuchDevice { given: String },

    #[error(
        "there is no release {given:?}; give its commit or the first 4 or more characters of it (`cotter release list`)"
    )]
    NoSuchRelease { given: String },

    #[error("{given:?} fits more than one {what}: {}; give more of it, or the fleet", matches.join(", "))]
    Ambiguous { what: &'static str, given: String, matches: Vec<String> },

    #[error("the fleet name {name:?} is taken; choose another")]
    FleetNameTaken { name: String },

    #[error(
        "{name:?} cannot name a {what}: it must have 1 to 255 characters, none of them a control character or invisible"
    )]
    BadName { what: &'static str, name: String },

    #[error(
        "release {commit} is {status}, and only a successful release can be a target; wait for its build, or pick another"
    )]
    NotSuccessful { commit: Commit, status: ReleaseStatus },

    #[error(
        "release {commit} belongs to fleet {belongs_to}, not to {wanted}, and a device runs only releases of its own fleet; pick a release of {wanted}, or move the device first"
    )]
    OtherFleet { commit: Commit, belongs_to: String, wanted: String },

    #[error("release {commit} is final, and a final release cannot become a draft again; create a new draft")]
    FinalIsForGood { commit: Commit },

    #[error("release {commit} is {}, so it cannot {act}; pin or track another release there first", in_use(*.fleet_target, pinned))]
    InUse { commit: Commit, act: &'static str, fleet_target: bool, pinned: Vec<DeviceUuid> },

    #[error(
        "the fleet already has a release {commit}; a release never changes, so give the new one another commit"
    )]
    CommitTaken { commit: Commit },

    #[error("devices would refuse this release: {}", list(refusals))]
    Unsupported { refusals: Vec<ContentRefusal> },

    #[error("a device with uuid {uuid} is registered already; a new device needs a new uuid")]
    UuidTaken { uuid: DeviceUuid },

    #[error("this device key is taken; a new device needs a new key")]
    KeyTaken,

    #[error("{given:?} cannot be a tag {part}: {accepts}")]
    BadTag { part: &'static str, given: String, accepts: &'static str },

    #[error("no device matches {filter:?}; `cotter device list --filter` shows who would")]
    NoDeviceMatches { filter: String },
}

fn in_use(fleet_target: bool, pinned: &[DeviceUuid]) -> String {
    let pins = match pinned {
        [] => None,
        [one] => Some(format!("pinned by device {one}")),
        [first, rest @ ..] => Some(format!("pinned by device {first} and {} more", rest.len())),
    };
    let target = fleet_target.then(|| "the target of its fleet".to_owned());
    target.into_iter().chain(pins).collect::<Vec<_>>().join(" and ")
}

fn list(refusals: &[ContentRefusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
