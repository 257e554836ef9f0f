//! Why an act is refused. Each variant is a rule, and its text says what to do instead.

use jiff::Timestamp;

use crate::model::quantity::counted;
use crate::model::text::{first_of, shortened};
use crate::model::{Commit, DeviceUuid, Refusal as ContentRefusal, ReleaseStatus};

use super::types::KeyEnd;
use crate::fleet::access::AccessRefusal;
use crate::fleet::webhook::WebhookRefusal;

/// Maximum number of entries of a list in a text, and of characters of an entry.
const MOST: usize = 10;
const LONGEST: usize = 300;
/// Lines of an import that a message names.
const SHOWN: usize = 5;

/// A rule that forbids an act. Nothing was changed.
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

    #[error("{given:?} matches more than one {what}: {}; give more characters of it, or the fleet", first_of(matches.iter().cloned(), MOST, ", "))]
    Ambiguous { what: &'static str, given: String, matches: Vec<String> },

    #[error(
        "fleet {fleet} has {}; move or delete them first (`cotter device list --fleet`), or delete them with it: --with-devices",
        counted(*devices, "device")
    )]
    FleetHasDevices { fleet: String, devices: usize },

    #[error(
        "the fleet of device {uuid} was deleted, so it cannot be restored; let it register in another fleet, with a key of that: `cotter device allow {uuid}` without --restore"
    )]
    FleetGone { uuid: DeviceUuid },

    #[error("the fleet name {name:?} is taken; choose another")]
    FleetNameTaken { name: String },

    /// A name, a tag or a type that the rules do not accept. The quoted text has its control characters escaped.
    #[error("{given:?} cannot be a {what}: {accepts}")]
    BadText { what: &'static str, given: String, accepts: &'static str },

    #[error("this device's key is not accepted: {why}")]
    BadDeviceKey { why: &'static str },

    #[error("{given} cannot be the {what}: it must be from {least} to {most}")]
    OutOfRange { what: &'static str, given: u64, least: u64, most: u64 },

    #[error("device {uuid} has the name {name:?} already; choose another, or rename that one first")]
    NameTaken { name: String, uuid: DeviceUuid },

    /// As [`Refusal::NameTaken`], for a token of some fleets, when the other device is of another one.
    #[error("a device of another fleet has the name {name:?} already; choose another")]
    NameTakenBeyond { name: String },

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

    #[error("release {commit} has no images, so it can only be failed; build it again with `cotter push`")]
    NoImages { commit: Commit },

    #[error(
        "fleet {fleet} has {most} releases already, drafts and failed ones counted, and no more are accepted; delete old ones with `cotter release delete --fleet {fleet} RELEASE` (`cotter release list --fleet {fleet}`), or raise the server's setting releases_per_fleet"
    )]
    TooManyReleases { fleet: String, most: usize },

    /// The releases of one fleet, or of all, take too much memory.
    #[error(
        "the releases of {whose} would take more than {most_mib} MiB, drafts and failed ones counted; delete old ones with `cotter release delete --fleet {fleet} RELEASE` (`cotter release list --fleet {fleet}`), or raise the server's setting {setting}"
    )]
    ReleasesTooLarge { fleet: String, whose: String, most_mib: usize, setting: &'static str },

    #[error("devices would refuse this release: {}", list(refusals))]
    Unsupported { refusals: Vec<ContentRefusal> },

    #[error("a device with uuid {uuid} is registered already; a new device needs a new uuid")]
    UuidTaken { uuid: DeviceUuid },

    #[error("this device key is taken; a new device needs a new key")]
    KeyTaken,

    /// Sent to a device. The agent reports it in the same words.
    #[error(
        "device {uuid} was deleted from its fleet, or has the key of one that was; an operator must allow it again with `cotter device allow {uuid}`"
    )]
    Barred { uuid: DeviceUuid },

    #[error(
        "there is no deleted device {given:?}; give its uuid, the first 4 or more digits of it, or its name (`cotter device barred`)"
    )]
    NoSuchBar { given: String },

    #[error(
        "{most} deleted devices are barred already, and this would need more places than are left ({room}); allow some again with `cotter device allow`"
    )]
    TooManyBars { most: usize, room: usize },

    #[error(
        "there is no provisioning key {given:?}; give its name, its id or the first 4 or more digits of that (`cotter fleet provisioning-key list`)"
    )]
    NoSuchKey { given: String },

    #[error(
        "this provisioning key registers devices in fleet {fleet} (number {number}), not in {given:?}; join with --fleet {fleet}, or with a key of the fleet that you mean"
    )]
    NotOfKey { given: String, fleet: String, number: u64 },

    #[error("fleet {fleet} has a provisioning key {name:?} already; choose another name")]
    KeyNameTaken { name: String, fleet: String },

    #[error("provisioning key {key} {why}; make another with `cotter fleet provisioning-key create {fleet}`")]
    KeyEnded { key: String, fleet: String, why: KeyEnd },

    #[error(
        "provisioning key {key} registers {} a minute, and more have come; try again in {retry_after_s} s",
        counted(*rate, "device")
    )]
    TooManyRegistrations { key: String, rate: u32, retry_after_s: u64 },

    #[error(
        "the number of devices that match has changed from {expected} to {found}; nothing was changed, look again with --dry-run"
    )]
    MatchChanged { expected: usize, found: usize },

    #[error(
        "fleet {fleet} would have more than {most} services in its releases; delete old releases with `cotter release delete --fleet {fleet} RELEASE`, or give the services the names of earlier ones"
    )]
    TooManyServices { fleet: String, most: usize },
    /// `header` is the condition of the request.
    #[error(
        "this is not as {header} of the request expects: its ETag is {etag} now, and nothing was changed; read it again, and repeat the request with that ETag if you still want it"
    )]
    NotAsExpected { header: &'static str, etag: String },

    #[error(
        "the Idempotency-Key of this request was used for another request, so nothing was changed; make a new key for each request, and use it again only to repeat that"
    )]
    KeyReused,

    /// `number` is its record of the audit trail.
    #[error(
        "this request was done already, at {at}, as record {number} of the audit trail, and was not done again; its answer is not kept, so read how things are now"
    )]
    DoneAlready { at: Timestamp, number: u64 },

    #[error(
        "this request was done already, at {at}, and was not done again: {what} was in the first answer only, because no more than its hash is kept; {remedy}"
    )]
    ShownOnce { at: Timestamp, what: &'static str, remedy: &'static str },

    #[error("no release of fleet {fleet} ever had a service {given:?}; {}", services(known))]
    NoSuchService { given: String, fleet: String, known: Vec<String> },

    #[error(
        "there is no variable {name:?} at this level, so nothing was changed; `cotter env list` shows all, and where each is set"
    )]
    NoSuchVariable { name: String },

    /// The name may have a secret in it, "PASSWORD=...", so it is not in the text.
    #[error(
        "a name of a variable is not accepted: {accepts}; it is not shown, because it may have a secret value in it"
    )]
    BadVariableName { accepts: &'static str },

    #[error(
        "the variables of a fleet or device would have more than {most} bytes; remove some, or put large content into the image or a volume"
    )]
    VariablesTooLarge { most: u64 },

    /// The value may be secret, so it is not in the text.
    #[error("the variable {name} is not accepted: {why}")]
    BadVariable { name: String, why: &'static str },

    #[error("{thing} is on this server already, and its {} is not as in the file", fields.join(", "))]
    Differs { thing: String, fields: Vec<&'static str> },

    #[error("nothing was imported: {}", first(refusals))]
    NotImported { refusals: Vec<ContentRefusal> },

    #[error("no device matches {filter:?}; `cotter device list --columns name,tags` shows all tags")]
    NoDeviceMatches { filter: String },

    /// For a token of some fleets, whether other fleets have such a thing or not: it must not tell.
    #[error("this token reaches {}, and not {what} {given:?}; use a token of that fleet", only(fleets))]
    OutOfScope { what: &'static str, given: String, fleets: Vec<String> },

    #[error("{why}")]
    BadRollout { why: String },

    #[error("release {commit} cannot be rolled out to fleet {fleet}: {why}")]
    CannotRollOut { fleet: String, commit: Commit, why: String },

    #[error(
        "rollout {rollout} of fleet {fleet} is not over; abort it (`cotter rollout abort {fleet}`), or replace it with --supersede"
    )]
    RolloutGoesOn { fleet: String, rollout: u64 },

    #[error(
        "fleet {fleet} has no rollout that goes on; `cotter rollout list {fleet}` shows those that are over"
    )]
    NoRollout { fleet: String },

    #[error("rollout {rollout} cannot do that now: {why}")]
    NotNow { rollout: u64, why: &'static str },

    #[error("release {commit} cannot {act} while rollout {rollout} gives it to devices; abort that first")]
    RolledOut { commit: Commit, act: &'static str, rollout: u64 },

    #[error(transparent)]
    Webhook(#[from] WebhookRefusal),

    #[error(transparent)]
    Access(#[from] AccessRefusal),
}

impl Refusal {
    /// Returns what to do: the end of the text, after its last `; `. What a client sent is never behind that.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        let end = |text: &str| text.rsplit_once("; ").map(|(_, remedy)| remedy.to_owned());
        // Of these the text may end with what a client sent, or with what is accepted.
        if let Self::BadText { accepts, .. } | Self::Access(AccessRefusal::BadName { accepts, .. }) = self {
            return Some(end(accepts).unwrap_or_else(|| (*accepts).to_owned()));
        }
        if let Self::BadVariable { why, .. } | Self::BadDeviceKey { why } = self {
            return end(why);
        }
        if let Self::Unsupported { .. } = self {
            return Some("correct these places of the compose file".to_owned());
        }
        end(&self.to_string())
    }

    /// Returns the rule by its name in JSON.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::NoSuchFleet { .. } => "no_such_fleet",
            Self::NoSuchDevice { .. } => "no_such_device",
            Self::NoSuchRelease { .. } => "no_such_release",
            Self::Ambiguous { .. } => "ambiguous",
            Self::FleetHasDevices { .. } => "fleet_has_devices",
            Self::FleetGone { .. } => "fleet_gone",
            Self::FleetNameTaken { .. } => "fleet_name_taken",
            Self::BadText { .. } | Self::BadVariableName { .. } => "bad_text",
            Self::BadDeviceKey { .. } => "bad_device_key",
            Self::OutOfRange { .. } | Self::VariablesTooLarge { .. } => "out_of_range",
            Self::NameTaken { .. } | Self::NameTakenBeyond { .. } => "name_taken",
            Self::NotSuccessful { .. } => "not_successful",
            Self::OtherFleet { .. } => "other_fleet",
            Self::FinalIsForGood { .. } => "final_is_for_good",
            Self::InUse { .. } => "in_use",
            Self::CommitTaken { .. } => "commit_taken",
            Self::NoImages { .. } => "no_images",
            Self::TooManyReleases { .. } | Self::ReleasesTooLarge { .. } => "too_many_releases",
            Self::Unsupported { .. } => "unsupported",
            Self::UuidTaken { .. } => "uuid_taken",
            Self::KeyTaken => "key_taken",
            Self::Barred { .. } => "barred",
            Self::NoSuchBar { .. } => "no_such_bar",
            Self::TooManyBars { .. } => "too_many_bars",
            Self::NoSuchKey { .. } => "no_such_key",
            Self::NotOfKey { .. } => "not_of_key",
            Self::KeyNameTaken { .. } => "key_name_taken",
            Self::KeyEnded { .. } => "key_ended",
            Self::TooManyRegistrations { .. } => "too_many_registrations",
            Self::MatchChanged { .. } => "match_changed",
            Self::NotAsExpected { .. } => "not_as_expected",
            Self::KeyReused => "key_reused",
            Self::DoneAlready { .. } => "done_already",
            Self::ShownOnce { .. } => "shown_once",
            Self::Differs { .. } => "differs",
            Self::NotImported { .. } => "not_imported",
            Self::NoDeviceMatches { .. } => "no_device_matches",
            Self::OutOfScope { .. } => "out_of_scope",
            Self::BadRollout { .. } => "bad_rollout",
            Self::CannotRollOut { .. } => "cannot_roll_out",
            Self::RolloutGoesOn { .. } => "rollout_goes_on",
            Self::NoRollout { .. } => "no_rollout",
            Self::NotNow { .. } => "not_now",
            Self::RolledOut { .. } => "rolled_out",
            Self::Webhook(refusal) => refusal.rule(),
            Self::Access(refusal) => refusal.rule(),
            Self::TooManyServices { .. } => "too_many_services",
            Self::NoSuchService { .. } => "no_such_service",
            Self::NoSuchVariable { .. } => "no_such_variable",
            Self::BadVariable { .. } => "bad_variable",
        }
    }
}

fn only(fleets: &[String]) -> String {
    match fleets {
        [] => "no fleet that exists".to_owned(),
        [one] => format!("fleet {one} only"),
        [.., last] if fleets.len() <= 10 => {
            let before = fleets.split_last().map(|(_, before)| before.join(", ")).unwrap_or_default();
            format!("fleets {before} and {last} only")
        }
        _ => format!("{} fleets only", fleets.len()),
    }
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

fn services(known: &[String]) -> String {
    match known {
        [] => "create a release with it first, a draft will do".to_owned(),
        known => format!("it has {}", first_of(known.iter().cloned(), MOST, ", ")),
    }
}

/// The first refusals, with their places, and how many more there are.
fn first(refusals: &[ContentRefusal]) -> String {
    let (shown, more) = refusals.split_at(refusals.len().min(SHOWN));
    let more = if more.is_empty() { String::new() } else { format!("; and {} more", more.len()) };
    let shown: Vec<_> = shown.iter().map(|refusal| format!("{}: {}", refusal.path, refusal.why)).collect();
    format!("{}{more}", shown.join("; "))
}

fn list(refusals: &[ContentRefusal]) -> String {
    first_of(refusals.iter().map(|refusal| shortened(&refusal.to_string(), LONGEST)), MOST, "; ")
}
