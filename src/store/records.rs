//! Converts the saved state to records (texts with names) and back, and computes a checksum over all of them. Pure.
//!
//! Each record is versioned JSON, `{"v":1,"value":…}`: `identity`, `target`, `images`, `downloads`, `hold`, `leases`,
//! `clock`, `history`, `evidence` and one `app/<uuid>` per app, so that a change to one app writes that record only.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::{AppId, AppLedger, ClockNote, Identity, Ledger, StoredTarget};

use super::StoreError;

/// Version of the format of records, database and mirrors. They change together.
pub(super) const VERSION: u32 = 1;

/// Everything that the device saves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered {
    pub identity: Option<Identity>,
    /// The last target that was received. `None`: change nothing.
    pub target: Option<StoredTarget>,
    pub ledger: Ledger,
}

/// Records by name. Cheap to clone.
pub(super) type Records = BTreeMap<String, Arc<str>>;

/// All records after one save.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Grows with every attempt to save, so that two different contents never have the same number.
    pub(super) seq: u64,
    pub(super) records: Records,
}

pub(super) const IDENTITY: &str = "identity";
pub(super) const TARGET: &str = "target";
const IMAGES: &str = "images";
const DOWNLOADS: &str = "downloads";
const HOLD: &str = "hold";
const LEASES: &str = "leases";
const CLOCK: &str = "clock";
const HISTORY: &str = "history";
const EVIDENCE: &str = "evidence";
const APP: &str = "app/";

#[derive(Serialize)]
struct Versioned<'a, T> {
    v: u32,
    value: &'a T,
}

#[derive(Deserialize)]
struct AnyVersion {
    v: u32,
}

#[derive(Deserialize)]
struct Value<T> {
    value: T,
}

/// Encodes one record.
pub(super) fn encode<T: Serialize>(record: &str, value: &T) -> Result<Arc<str>, StoreError> {
    serde_json::to_string(&Versioned { v: VERSION, value })
        .map(Arc::from)
        .map_err(|source| StoreError::Encode { record: record.to_owned(), source })
}

/// Encodes everything.
pub(super) fn encode_all(remembered: &Remembered) -> Result<Records, StoreError> {
    let Remembered { identity, target, ledger } = remembered;
    let mut records = encode_ledger(&Records::new(), &Ledger::default(), ledger)?;
    if let Some(identity) = identity {
        records.insert(IDENTITY.to_owned(), encode(IDENTITY, identity)?);
    }
    if let Some(target) = target {
        records.insert(TARGET.to_owned(), encode(TARGET, target)?);
    }
    Ok(records)
}

/// Encodes the ledger `next`. Reuses the text in `records` for an app that did not change since `last`.
pub(super) fn encode_ledger(records: &Records, last: &Ledger, next: &Ledger) -> Result<Records, StoreError> {
    // No `..`: a new field of the ledger must get a record here, or this does not compile.
    let Ledger { apps, images, downloads, hold, leases, clock, history, evidence } = next;
    let mut written = Records::new();
    for (app, ledger) in apps {
        let name = format!("{APP}{app}");
        let kept = records.get(&name).filter(|_| last.apps.get(app) == Some(ledger));
        let text = kept.map_or_else(|| encode(&name, ledger), |text| Ok(Arc::clone(text)))?;
        written.insert(name, text);
    }
    if !images.is_empty() {
        written.insert(IMAGES.to_owned(), encode(IMAGES, images)?);
    }
    if !downloads.is_empty() {
        written.insert(DOWNLOADS.to_owned(), encode(DOWNLOADS, downloads)?);
    }
    if let Some(hold) = hold {
        written.insert(HOLD.to_owned(), encode(HOLD, hold)?);
    }
    if !leases.is_empty() {
        written.insert(LEASES.to_owned(), encode(LEASES, leases)?);
    }
    if *clock != ClockNote::default() {
        written.insert(CLOCK.to_owned(), encode(CLOCK, clock)?);
    }
    if !history.all().is_empty() {
        let kept = records.get(HISTORY).filter(|_| Arc::ptr_eq(&last.history, history));
        let text = kept.map_or_else(|| encode(HISTORY, history), |text| Ok(Arc::clone(text)))?;
        written.insert(HISTORY.to_owned(), text);
    }
    if !evidence.all().is_empty() {
        let kept = records.get(EVIDENCE).filter(|_| Arc::ptr_eq(&last.evidence, evidence));
        let text = kept.map_or_else(|| encode(EVIDENCE, evidence), |text| Ok(Arc::clone(text)))?;
        written.insert(EVIDENCE.to_owned(), text);
    }
    Ok(written)
}

/// Returns whether a record belongs to the ledger.
pub(super) fn is_ledger(name: &str) -> bool {
    [IMAGES, DOWNLOADS, HOLD, LEASES, CLOCK, HISTORY, EVIDENCE].contains(&name) || name.starts_with(APP)
}

/// Decodes the records. Also returns the names of those that cannot be decoded, each with the reason.
pub(super) fn decode(records: &Records) -> (Remembered, Vec<(String, String)>) {
    let mut remembered = Remembered::default();
    let mut strange = Vec::new();
    for (name, text) in records {
        if let Err(why) = decode_one(name, text, &mut remembered) {
            strange.push((name.clone(), why));
        }
    }
    (remembered, strange)
}

fn decode_one(name: &str, text: &str, into: &mut Remembered) -> Result<(), String> {
    match name {
        IDENTITY => into.identity = Some(value(text)?),
        TARGET => into.target = Some(value(text)?),
        IMAGES => into.ledger.images = value(text)?,
        DOWNLOADS => into.ledger.downloads = value(text)?,
        HOLD => into.ledger.hold = Some(value(text)?),
        LEASES => into.ledger.leases = value(text)?,
        CLOCK => into.ledger.clock = value(text)?,
        HISTORY => into.ledger.history = value(text)?,
        EVIDENCE => into.ledger.evidence = value(text)?,
        other => {
            let app = other.strip_prefix(APP).ok_or("this version of cotter does not know it")?;
            let app = AppId::parse(app).map_err(|e| e.to_string())?;
            into.ledger.apps.insert(app, value::<AppLedger>(text)?);
        }
    }
    Ok(())
}

fn value<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let AnyVersion { v } = serde_json::from_str(text).map_err(without_content)?;
    if v != VERSION {
        return Err(other_version(v));
    }
    let Value { value } = serde_json::from_str(text).map_err(without_content)?;
    Ok(value)
}

/// Says where JSON is wrong, without serde's own message: that may quote a value, and values may be secret.
pub(super) fn without_content(error: serde_json::Error) -> String {
    format!("{:?} error in its JSON at line {} column {}", error.classify(), error.line(), error.column())
        .to_lowercase()
}

pub(super) fn other_version(v: u32) -> String {
    format!("it is of format {v}, this version of cotter knows {VERSION}")
}

/// Returns the SHA-256 over number, names and texts, in lower-case hex.
pub(super) fn digest(snapshot: &Snapshot) -> String {
    let mut hash = Sha256::new();
    hash.update(snapshot.seq.to_le_bytes());
    for (name, text) in &snapshot.records {
        for part in [name.as_bytes(), text.as_bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    hex(&hash.finalize())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
