//! A look at a store that somebody else may have open. Changes nothing, and so does not open the database.

use std::io;
use std::path::Path;

use crate::model::{ClockNote, Identity, with_causes};

use super::mirror::{self, Found, Slot};
use super::records::{self, Snapshot};
use super::{DATABASE, folder};

/// What is seen of a store from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Whether an agent has it open.
    pub is_held: bool,
    pub has_database: bool,
    /// The two mirrors.
    pub mirrors: [Copy; 2],
    /// How many damaged databases were set aside and are kept.
    pub set_aside: usize,
    /// As the newer mirror has it.
    pub identity: Option<Identity>,
    pub clock: ClockNote,
}

/// What became of one copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Copy {
    #[default]
    Missing,
    Whole,
    /// It cannot be used, and why.
    Lost(String),
}

/// Looks at the store in `dir`.
///
/// # Errors
///
/// What stands in the way of opening the folder, as the system says it.
pub fn look(dir: &Path) -> io::Result<Look> {
    let is_held = folder::is_held(dir)?;
    let mut best: Option<Snapshot> = None;
    let mirrors = Slot::BOTH.map(|slot| match mirror::look(&dir.join(slot.file_name())) {
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
    Ok(Look {
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
        assert_eq!(look(dir.path()).unwrap(), Look::default(), "an empty folder");
        let uuid = DeviceUuid::parse("ab".repeat(16)).unwrap();
        let identity = Identity { uuid, device_key: "key".into(), registered: None };
        let (store, _) = Store::open(dir.path()).unwrap();
        store.save_identity(&identity).unwrap();
        let open = look(dir.path()).unwrap();
        assert!(open.is_held && open.has_database);
        assert_eq!((&open.mirrors, open.identity.as_ref()), (&[Copy::Whole, Copy::Whole], Some(&identity)));
        drop(store);
        assert!(!look(dir.path()).unwrap().is_held);

        fs::write(dir.path().join("mirror-a.json"), "{}\n{}\n").unwrap();
        fs::remove_file(dir.path().join("mirror-b.json")).unwrap();
        fs::create_dir(dir.path().join("db.corrupt-3")).unwrap();
        fs::create_dir(dir.path().join("mirror-b.json")).unwrap();
        let hurt = look(dir.path()).unwrap();
        assert!(matches!(hurt.mirrors, [Copy::Lost(_), Copy::Lost(_)]), "{hurt:?}");
        assert_eq!((hurt.set_aside, hurt.identity), (1, None));
        assert!(dir.path().join("mirror-b.json").is_dir(), "a look removes nothing");
        assert!(look(&dir.path().join("none")).is_err());
    }
}
