//! Copies all records from a data folder into a database or back. The source stays as it is.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::access::{Scope, Which};
use super::policy::{Change, World};
use super::restore::{RestoreError, place_records};
use super::storage::Opened;
use super::store::FolderLock;
use super::store_error::FILE;
use super::{database, file_storage, sled_store};
use crate::ownership;
use crate::postgres::Address;

/// Where the records of a fleet server are.
#[derive(Debug, Clone)]
pub enum Home {
    Folder(PathBuf),
    Database(Box<Address>),
}

/// Records of the audit trail that are read at once.
const OF_THE_TRAIL: usize = 1000;

/// Reads all records, which no server may use meanwhile.
///
/// # Errors
///
/// [`RestoreError`].
pub fn read_out(home: &Home) -> Result<Vec<Change>, RestoreError> {
    match home {
        Home::Folder(dir) => of_folder(dir),
        Home::Database(address) => Ok(database::read_out(address)?),
    }
}

/// Writes all records to a place that has none: all of them or none.
///
/// # Errors
///
/// [`RestoreError`].
pub fn fill(home: &Home, records: &[Change], now: Timestamp) -> Result<(), RestoreError> {
    match home {
        Home::Folder(dir) => place_records(records, dir, false, now).map(drop),
        Home::Database(address) => Ok(database::fill(address, records)?),
    }
}

fn of_folder(dir: &Path) -> Result<Vec<Change>, RestoreError> {
    if !dir.join(FILE).exists() && !sled_store::place(dir).exists() {
        return Err(RestoreError::NoRecords { dir: dir.to_owned() });
    }
    ownership::take_folder(dir)?;
    let _lock = FolderLock::take(dir)?;
    let Opened { trail, records, .. } = file_storage::open(dir)?;
    let mut records: Vec<_> = World::of(records).records().collect();
    let mut below = Some(u64::MAX);
    while let Some(number) = below {
        let page = trail.page(&Which::default(), &Scope::All, number, OF_THE_TRAIL)?;
        records.extend(page.entries.into_iter().map(Change::from));
        below = page.below;
    }
    Ok(records)
}
