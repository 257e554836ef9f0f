//! The form in which records are stored and copied: a kind, an id, and the record as JSON. Pure.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::access::AccessChange;
use super::policy::{Bar, Change, Device, KeyHash, Reported, VariableHolder, Variables};
use super::webhook::WebhookChange;
use crate::model::DeviceUuid;

/// Version of the records' format. Records of older versions are read, too; fields that they do not have get defaults. A
/// server that knows only an older version refuses these records: one that knows version 1 would accept a revoked
/// provisioning key, and one that knows version 2 would lose reports, which had no records of their own, and has no users.
pub(super) const VERSION: u32 = 3;

/// The first version in which reports are records of their own.
const OWN_REPORTS: u32 = 3;

/// The kind of the records of the audit trail. No other kind begins with it.
pub(super) const AUDIT: &str = "audit";

/// The kind of what a rollout has noted of a device.
const MEMBER: &str = "rollout-member";

/// The kinds of the records of webhooks, and of the messages that wait for their delivery.
const WEBHOOK: &str = "webhook";
const MESSAGE: &str = "webhook-message";

/// The kinds of the records of variables.
const OF_FLEET: &str = "fleet-variables";
const OF_DEVICE: &str = "device-variables";

/// What a change writes.
#[derive(Debug)]
pub(super) enum Entry {
    Put { kind: &'static str, id: String, json: Vec<u8> },
    Drop { kind: &'static str, id: String },
}

/// Why a record is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadRecord {
    #[error("it was written by a newer version of cotter")]
    Newer,
    #[error("{0}")]
    Form(String),
}

/// Returns the entries that a change writes.
///
/// # Errors
///
/// Never in practice: no record has a value that is not JSON.
pub(super) fn entries(change: &Change) -> serde_json::Result<Vec<Entry>> {
    let entry = match change {
        Change::Counters(counters) => put("counters", "", counters)?,
        Change::PutFleet(fleet) => put("fleet", &number(fleet.number), fleet)?,
        Change::PutRelease(release) => put("release", &number(release.number), release)?,
        Change::PutDevice(device) => put("device", device.uuid.as_str(), device)?,
        Change::PutReports(uuid, reported) => put("reports", uuid.as_str(), reported)?,
        Change::PutKey(key) => put("key", &key.hash.0, key)?,
        Change::RetireKey(hash) => put("retired", &hash.0, hash)?,
        Change::PutBar(bar) => put("bar", bar.device.uuid.as_str(), bar)?,
        Change::Access(AccessChange::PutUser(user)) => put("user", &user.name, user)?,
        Change::Access(AccessChange::PutToken(token)) => put("token", &token.hash.0, token)?,
        Change::Audit(entry) => put(AUDIT, &number(entry.number), entry)?,
        Change::DropAudit(entry) => drop_one(AUDIT, &number(*entry)),
        Change::PutRepeat(repeat) => put("repeat", &repeat.id, repeat)?,
        Change::DropRepeat(id) => drop_one("repeat", id),
        Change::DropBar(uuid) => drop_one("bar", uuid.as_str()),
        Change::DropDevice(uuid) => {
            let variables = drop_variables(&VariableHolder::Device(uuid.clone()));
            return Ok(vec![
                drop_one("device", uuid.as_str()),
                drop_one("reports", uuid.as_str()),
                drop_one(MEMBER, uuid.as_str()),
                variables,
            ]);
        }
        Change::PutVariables(holder, variables) if variables.is_empty() => drop_variables(holder),
        Change::PutVariables(VariableHolder::Fleet(fleet), variables) => {
            put(OF_FLEET, &number(*fleet), variables)?
        }
        Change::PutVariables(VariableHolder::Device(uuid), variables) => {
            put(OF_DEVICE, uuid.as_str(), variables)?
        }
        Change::PutRollout(rollout) => put("rollout", &number(rollout.number), rollout)?,
        Change::DropRollout(rollout) => drop_one("rollout", &number(*rollout)),
        Change::PutMember(uuid, exposed) => put(MEMBER, uuid.as_str(), exposed)?,
        Change::Webhook(WebhookChange::Put(webhook)) => put(WEBHOOK, &webhook.name, webhook)?,
        Change::Webhook(WebhookChange::Drop(name)) => drop_one(WEBHOOK, name),
        Change::Webhook(WebhookChange::PutMessage(message)) => {
            put(MESSAGE, &number(message.number), message)?
        }
        Change::Webhook(WebhookChange::DropMessage(message)) => drop_one(MESSAGE, &number(*message)),
        Change::DropKey(hash) => drop_one("key", &hash.0),
        Change::DropFleet(fleet) => {
            let variables = drop_variables(&VariableHolder::Fleet(*fleet));
            return Ok(vec![drop_one("fleet", &number(*fleet)), variables]);
        }
        Change::DropRelease(release) => drop_one("release", &number(*release)),
    };
    Ok(vec![entry])
}

/// Reads a record. A device of an older version has its reports in it, and is two changes.
///
/// # Errors
///
/// [`BadRecord`], without the kind and the id.
pub(super) fn read(kind: &str, id: &str, version: u32, json: &str) -> Result<Vec<Change>, BadRecord> {
    if version > VERSION {
        return Err(BadRecord::Newer);
    }
    let change = match kind {
        "counters" => Change::Counters(parse(json)?),
        "fleet" => Change::PutFleet(parse(json)?),
        "release" => Change::PutRelease(parse(json)?),
        "device" if version < OWN_REPORTS => {
            let OldDevice { device, reported } = parse(json)?;
            let reports = Change::PutReports(device.uuid.clone(), reported);
            return Ok(vec![Change::PutDevice(device), reports]);
        }
        "device" => Change::PutDevice(parse(json)?),
        "reports" => {
            let uuid = DeviceUuid::parse(id).map_err(|error| BadRecord::Form(error.to_string()))?;
            Change::PutReports(uuid, parse(json)?)
        }
        OF_FLEET => {
            let fleet = id.parse().map_err(|_| BadRecord::Form("its fleet has no number".to_owned()))?;
            Change::PutVariables(VariableHolder::Fleet(fleet), parse_variables(json)?)
        }
        OF_DEVICE => {
            let uuid = DeviceUuid::parse(id).map_err(|error| BadRecord::Form(error.to_string()))?;
            Change::PutVariables(VariableHolder::Device(uuid), parse_variables(json)?)
        }
        "key" => Change::PutKey(parse(json)?),
        "retired" => Change::RetireKey(parse::<KeyHash>(json)?),
        "bar" => Change::PutBar(parse::<Bar>(json)?),
        "rollout" => Change::PutRollout(Box::new(parse(json)?)),
        MEMBER => {
            let uuid = DeviceUuid::parse(id).map_err(|error| BadRecord::Form(error.to_string()))?;
            Change::PutMember(uuid, parse(json)?)
        }
        // An error does not quote these, because they contain a secret.
        WEBHOOK => {
            Change::Webhook(WebhookChange::Put(serde_json::from_str(json).map_err(|_| not_a("webhook"))?))
        }
        MESSAGE => Change::Webhook(WebhookChange::PutMessage(parse(json)?)),
        "user" => Change::Access(AccessChange::PutUser(parse(json)?)),
        "token" => Change::Access(AccessChange::PutToken(parse(json)?)),
        "repeat" => Change::PutRepeat(parse(json)?),
        AUDIT => Change::Audit(Box::new(parse(json)?)),
        _ => return Err(BadRecord::Form("unknown kind of record".to_owned())),
    };
    Ok(vec![change])
}

/// Returns the change that removes a record; `None` if another change removes it, too.
///
/// # Errors
///
/// As [`read`].
pub(super) fn removed(kind: &str, id: &str) -> Result<Option<Change>, BadRecord> {
    let uuid = || DeviceUuid::parse(id).map_err(|error| BadRecord::Form(error.to_string()));
    let number = || id.parse().map_err(|_| BadRecord::Form("it has no number".to_owned()));
    Ok(Some(match kind {
        "device" => Change::DropDevice(uuid()?),
        // With its device.
        "reports" | MEMBER => return Ok(None),
        "bar" => Change::DropBar(uuid()?),
        "rollout" => Change::DropRollout(number()?),
        "repeat" => Change::DropRepeat(id.to_owned()),
        WEBHOOK => Change::Webhook(WebhookChange::Drop(id.to_owned())),
        MESSAGE => Change::Webhook(WebhookChange::DropMessage(number()?)),
        "fleet" => Change::DropFleet(number()?),
        "release" => Change::DropRelease(number()?),
        "key" => Change::DropKey(KeyHash(id.to_owned())),
        OF_FLEET => Change::PutVariables(VariableHolder::Fleet(number()?), Variables::default()),
        OF_DEVICE => Change::PutVariables(VariableHolder::Device(uuid()?), Variables::default()),
        AUDIT => Change::DropAudit(number()?),
        _ => return Err(BadRecord::Form("records of this kind are never removed".to_owned())),
    }))
}

/// A device's record of version 1 or 2.
#[derive(Deserialize)]
struct OldDevice {
    #[serde(flatten)]
    device: Device,
    #[serde(default)]
    reported: Reported,
}

fn put<T: Serialize>(kind: &'static str, id: &str, record: &T) -> serde_json::Result<Entry> {
    Ok(Entry::Put { kind, id: id.to_owned(), json: serde_json::to_vec(record)? })
}

fn drop_one(kind: &'static str, id: &str) -> Entry {
    Entry::Drop { kind, id: id.to_owned() }
}

fn drop_variables(holder: &VariableHolder) -> Entry {
    match holder {
        VariableHolder::Fleet(fleet) => drop_one(OF_FLEET, &number(*fleet)),
        VariableHolder::Device(uuid) => drop_one(OF_DEVICE, uuid.as_str()),
    }
}

fn parse<T: DeserializeOwned>(json: &str) -> Result<T, BadRecord> {
    serde_json::from_str(json).map_err(|error| BadRecord::Form(error.to_string()))
}

/// An error does not quote the record, because it may contain secrets.
fn parse_variables(json: &str) -> Result<Variables, BadRecord> {
    serde_json::from_str(json).map_err(|_| BadRecord::Form("it is not a record of variables".to_owned()))
}

fn not_a(kind: &str) -> BadRecord {
    BadRecord::Form(format!("it is not a record of a {kind}"))
}

/// Returns a number as the id of a record, so that records are in its order.
pub(super) fn number(number: u64) -> String {
    format!("{number:020}")
}
