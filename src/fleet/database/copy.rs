//! Copies all records into an empty database, and out of one.

use super::CHANNEL;
use super::read::{META, Reader};
use super::schema::{self, TO_LOCK, TO_READ, TO_WRITE};
use super::write::{Batch, Writing};
use crate::fleet::database_error::DatabaseError;
use crate::fleet::policy::Change;
use crate::fleet::store_error::StoreError;
use crate::postgres::{Address, Session};

/// How many records there are.
const COUNT: &str = "SELECT (SELECT count(*) FROM cotter_records) + (SELECT count(*) FROM cotter_reports) \
    + (SELECT count(*) FROM cotter_audit)";

/// Other connections of servers.
const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cotter-fleet' \
    AND datname = current_database() AND pid <> pg_backend_pid()";

/// Writes all records into a database that has none, in one transaction. Servers that use it read all of them.
///
/// # Errors
///
/// [`StoreError`]. Then nothing was written.
pub(in crate::fleet) fn fill(address: &Address, records: &[Change]) -> Result<(), StoreError> {
    let batch = Batch::of(records);
    let batch = batch
        .map_err(|error| DatabaseError::Refused { place: address.to_string(), why: error.to_string() })?;
    let mut session = schema::create(address)?;
    let meta =
        Reader { session: &mut session, address }.meta(&format!("BEGIN; {META} FOR UPDATE"), TO_LOCK)?;
    let count = |session: &mut Session| -> Result<u64, DatabaseError> {
        let rows = session.simple(COUNT, TO_WRITE).map_err(|error| DatabaseError::of(address, error))?;
        Ok(rows.first().and_then(|row| row.first()?.parse().ok()).unwrap_or(u64::MAX))
    };
    if meta.newest.head > 0 || count(&mut session)? > 0 {
        return Err(DatabaseError::NotEmpty { place: address.to_string() }.into());
    }
    batch.write(&mut Writing { session: &mut session, address, reports: 1 })?;
    let (found, expected) = (count(&mut session)?, batch.count());
    if found != expected {
        return Err(DatabaseError::Incomplete { place: address.to_string(), found, expected }.into());
    }
    // The log does not have these records, so a server that is at the beginning reads all of them.
    let end = format!(
        "UPDATE cotter_meta SET head = 1, head_group = 'copied', trimmed = 1, reports = 1; NOTIFY {CHANNEL}; COMMIT"
    );
    session.simple(&end, TO_WRITE).map_err(|error| DatabaseError::of(address, error))?;
    Ok(())
}

/// Reads all records of a database that no server uses, with the audit trail.
///
/// # Errors
///
/// [`StoreError`].
pub(in crate::fleet) fn read_out(address: &Address) -> Result<Vec<Change>, StoreError> {
    let mut session = schema::connect(address)?;
    let others = session.simple(OTHERS, TO_READ).map_err(|error| DatabaseError::of(address, error))?;
    let count = others.into_iter().flatten().next().unwrap_or_default();
    if count != "0" {
        return Err(DatabaseError::InUse { place: address.to_string(), count }.into());
    }
    let mut reader = Reader { session: &mut session, address };
    reader.meta(&format!("BEGIN; {META} FOR UPDATE"), TO_LOCK)?;
    let mut records = reader.all()?;
    records.retain(|record| !matches!(record, Change::Audit(_)));
    records.extend(reader.trail()?);
    reader.end()?;
    Ok(records)
}
