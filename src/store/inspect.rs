//! Inspects a store from outside, also while an agent has it open. Changes nothing, so it does not open the database.

use std::io;
use std::path::Path;

use crate::model::{ClockNote, Identity, with_causes};

use super::mirror::{self, Found};
use super::records::{self, Snapshot};
use super::slot::Slot;
use super::{DATABASE, folder};

/// What can be observed of a store from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Whether a process has it open.
    pub is_held: bool,
    pub has_database: bool,
    /// The two mirrors.
    pub mirrors: [Copy; 2],
    /// The number of damaged databases that were set aside.
    pub set_aside: usize,
    /// The identity in the newer mirror.
    pub identity: Option<Identity>,
    pub clock: ClockNote,
}

/// The condition of one copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Copy {
    #[default]
    Missing,
    Whole,
    /// It cannot be used, for this reason.
    Lost(String),
}

/// Inspects the store in `dir`.
///
/// # Errors
///
/// The system's error if the folder cannot be opened.
pub fn inspect(dir: &Path) -> io::Result<Inspection> {
    let is_held = folder::is_held(dir)?;
    let mut best: Option<Snapshot> = None;
    let mirrors = Slot::BOTH.map(|slot| match mirror::inspect(&dir.join(slot.file_name())) {
        Found::Nothing => Copy::Missing,
        Found::Damaged(why) | Found::Foreign(why) => Copy::Lost(why),
        Found::Unreadable(error) => Copy::Lost(with_causes(&error)),
        Found::Whole(snapshot) => {
            if best.as_ref().is_none_or(|best| snapshot.seq > best.seq) {
                best = Some(snapshot);
            }
            Copy::Whole
        }
    });
    let (remembered, _) = records::decode(&best.unwrap_or_default().records);
    Ok(Inspection {
        is_held,
        has_database: dir.join(DATABASE).is_dir(),
        mirrors,
        set_aside: folder::aside(dir).len(),
        identity: remembered.identity,
        clock: remembered.ledger.clock,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::DeviceUuid;
    use crate::store::Store;

    #[test]
    fn a_store_is_seen_from_outside_open_or_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(inspect(dir.path()).unwrap(), Inspection::default(), "an empty folder");
        let uuid = DeviceUuid::parse("ab".repeat(16)).unwrap();
        let identity = Identity {
            uuid,
            device_key: "key".into(),
            registered: None,
            moves: crate::model::Moves::default(),
        };
        let (store, _) = Store::open(dir.path()).unwrap();
        store.save_identity(&identity).unwrap();
        let open = inspect(dir.path()).unwrap();
        assert!(open.is_held && open.has_database);
        assert_eq!((&open.mirrors, open.identity.as_ref()), (&[Copy::Whole, Copy::Whole], Some(&identity)));
        drop(store);
        assert!(!inspect(dir.path()).unwrap().is_held);

        fs::write(dir.path().join("mirror-a.json"), "{}\n{}\n").unwrap();
        fs::remove_file(dir.path().join("mirror-b.json")).unwrap();
        fs::create_dir(dir.path().join("db.corrupt-3")).unwrap();
        fs::create_dir(dir.path().join("mirror-b.json")).unwrap();
        let hurt = inspect(dir.path()).unwrap();
        assert!(matches!(hurt.mirrors, [Copy::Lost(_), Copy::Lost(_)]), "{hurt:?}");
        assert_eq!((hurt.set_aside, hurt.identity), (1, None));
        assert!(dir.path().join("mirror-b.json").is_dir(), "inspecting removes nothing");
        assert!(inspect(&dir.path().join("none")).is_err());
    }
}
