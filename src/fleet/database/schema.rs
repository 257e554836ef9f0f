//! The tables in the database, and what a connection sets.

use std::time::Duration;

use crate::fleet::database_error::DatabaseError;
use crate::postgres::{Address, Session};

/// Version of the tables.
const VERSION: i32 = 1;

/// How long a connection may take.
pub(super) const TO_CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take that needs little work.
pub(super) const TO_READ: Duration = Duration::from_secs(5);
/// How long the database may take for the lock, which another server may hold: longer than `lock_timeout`.
pub(super) const TO_LOCK: Duration = Duration::from_secs(15);
/// How long a large statement may take: longer than `statement_timeout`.
pub(super) const TO_WRITE: Duration = Duration::from_secs(65);

/// The number by which servers create the tables one after the other.
const CREATING: i64 = 0x636f_7474_6572;

/// The row of `cotter_meta` is the lock of a group of acts, so the numbers in it have no gaps.
const TABLES: &str = r#"
CREATE TABLE IF NOT EXISTS cotter_meta (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  version integer NOT NULL,
  -- The newest row of cotter_log, the group of acts that wrote it, and the newest one that was dropped from it.
  head bigint NOT NULL DEFAULT 0,
  head_group text NOT NULL DEFAULT '',
  trimmed bigint NOT NULL DEFAULT 0,
  -- The newest number in cotter_reports.
  reports bigint NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS cotter_records (
  kind text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  v integer NOT NULL,
  record text NOT NULL,
  PRIMARY KEY (kind, id)
);
CREATE TABLE IF NOT EXISTS cotter_reports (
  uuid text COLLATE "C" PRIMARY KEY,
  number bigint NOT NULL,
  v integer NOT NULL,
  record text NOT NULL
);
CREATE INDEX IF NOT EXISTS cotter_reports_number ON cotter_reports (number);
CREATE TABLE IF NOT EXISTS cotter_audit (
  number bigint PRIMARY KEY,
  v integer NOT NULL,
  record text NOT NULL
);
-- When each device polled last. It is not worth a write to the disk.
CREATE UNLOGGED TABLE IF NOT EXISTS cotter_seen (
  uuid text COLLATE "C" PRIMARY KEY,
  at bigint NOT NULL,
  by text NOT NULL,
  changed bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS cotter_seen_changed ON cotter_seen (changed);
CREATE TABLE IF NOT EXISTS cotter_log (
  seq bigint PRIMARY KEY,
  of_group text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  changes text NOT NULL
);
"#;

/// What each connection sets. The first one ends a transaction of a server that cannot be reached any more, so that its lock
/// becomes free. An answer to a client must mean that the act is on disk.
const SETTINGS: &str = "SET idle_in_transaction_session_timeout = '10s'; SET lock_timeout = '12s'; \
    SET statement_timeout = '60s'; \
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// Opens a connection whose tables are of this version.
///
/// # Errors
///
/// [`DatabaseError`].
pub(super) fn connect(address: &Address) -> Result<Session, DatabaseError> {
    let failed = |error| DatabaseError::of(address, error);
    let mut session = Session::open(address, TO_CONNECT).map_err(failed)?;
    session.simple(SETTINGS, TO_READ).map_err(failed)?;
    check(&mut session, address)?;
    Ok(session)
}

/// As [`connect`], but a database without tables will do.
///
/// # Errors
///
/// [`DatabaseError`].
pub(super) fn look(address: &Address) -> Result<(), DatabaseError> {
    let failed = |error| DatabaseError::of(address, error);
    let mut session = Session::open(address, TO_CONNECT).map_err(failed)?;
    let rows = session.simple("SELECT to_regclass('cotter_meta') IS NOT NULL", TO_READ).map_err(failed)?;
    match rows.first().and_then(|row| row.first()).is_some_and(|exists| exists == "t") {
        true => check(&mut session, address),
        false => Ok(()),
    }
}

/// As [`connect`], and creates the tables if there are none.
///
/// # Errors
///
/// [`DatabaseError`].
pub(super) fn create(address: &Address) -> Result<Session, DatabaseError> {
    let failed = |error| DatabaseError::of(address, error);
    let mut session = Session::open(address, TO_CONNECT).map_err(failed)?;
    session.simple(SETTINGS, TO_READ).map_err(failed)?;
    let asked = "SELECT current_setting('server_encoding'), to_regclass('cotter_meta') IS NOT NULL";
    let rows = session.simple(asked, TO_READ).map_err(failed)?;
    let (encoding, exist) = match rows.first().map(Vec::as_slice) {
        Some([encoding, exist]) => (encoding.clone(), exist == "t"),
        _ => (String::new(), false),
    };
    if encoding != "UTF8" {
        return Err(DatabaseError::Encoding { place: address.to_string(), found: encoding });
    }
    if !exist {
        let sql = format!(
            "BEGIN; SELECT pg_advisory_xact_lock({CREATING}); {TABLES} \
             INSERT INTO cotter_meta (version) VALUES ({VERSION}) ON CONFLICT DO NOTHING; COMMIT"
        );
        session.simple(&sql, TO_WRITE).map_err(failed)?;
        tracing::info!(database = %address, "created the tables");
    }
    check(&mut session, address)?;
    Ok(session)
}

fn check(session: &mut Session, address: &Address) -> Result<(), DatabaseError> {
    let other =
        |found: String| DatabaseError::OtherVersion { place: address.to_string(), found, known: VERSION };
    let asked = session.simple("SELECT version FROM cotter_meta", TO_READ);
    let rows = asked.map_err(|error| DatabaseError::of(address, error))?;
    match rows.first().and_then(|row| row.first()) {
        Some(version) if *version == VERSION.to_string() => Ok(()),
        Some(version) => Err(other(version.clone())),
        None => Err(other("none".to_owned())),
    }
}
