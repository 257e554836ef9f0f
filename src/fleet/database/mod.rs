//! The records in a PostgreSQL database that several servers share (docs/postgresql.md).
//!
//! Each server has all records in memory, and follows the log of changes. A group of acts locks the one row of `cotter_meta`,
//! takes over what others have written, decides, writes, and commits. So acts of all servers run one after the other, and the
//! log has no gaps. Reports of devices are never in the log: each group of them has a number, and other servers read those
//! after the last number that they know.
//!
//! `read` and `write` have the statements, `schema` the tables, `follow` the thread that notices news.

mod copy;
mod follow;
mod read;
mod schema;
mod seen;
mod trail;
mod write;

use std::path::Path;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

pub(super) use copy::{fill, read_out};

pub(super) use follow::follow;
pub(super) use seen::SharedSightings;

use super::database_error::DatabaseError;
use super::policy::Change;
use super::secret;
use super::sled_store;
use super::storage::{News, Opened, Storage};
use super::store_error::{FILE, StoreError};
use crate::postgres::{Address, Session};
use read::{META, Place, Reader};
use schema::{TO_LOCK, TO_READ, TO_WRITE};
use write::{Batch, Writing};

/// Rows of the log that are kept. A server that is further behind reads all records again.
const KEPT: i64 = 4096;

/// For how long the server tries to find out whether a group was written.
const TO_SETTLE: Duration = Duration::from_secs(20);

/// If an attempt to reach the database took longer than this, attempts that follow within this time fail at once: acts that
/// waited in the meantime must not each wait as long.
const TOO_SOON: Duration = Duration::from_millis(500);

/// The channel on which servers announce their groups.
const CHANNEL: &str = "cotter_fleet";

/// The records in the database, for one server.
struct Database {
    address: Address,
    /// The name of this server in its notifications.
    own: String,
    /// `None` after an error.
    session: Option<Session>,
    place: Place,
    /// When the last attempt failed that took long, and why.
    late: Option<(Instant, String)>,
}

/// Opens the records in a database, and creates the tables if there are none. `dir` is the server's data folder.
///
/// # Errors
///
/// [`StoreError`]; and [`DatabaseError::NotMigrated`] if the database is empty but the folder has records: a fleet must not
/// disappear unnoticed.
pub(super) fn open(address: &Address, dir: &Path) -> Result<Opened, StoreError> {
    let random = |source| StoreError::Io { path: "/dev/urandom".into(), source };
    let own = secret::token().map_err(random)?;
    let session = schema::create(address)?;
    let mut database = Database {
        address: address.clone(),
        own: own.clone(),
        session: Some(session),
        place: Place::default(),
        late: None,
    };
    let (records, place) = database.read_all()?;
    let has_file = dir.join(FILE).exists() || sled_store::place(dir).exists();
    if place.head == 0 && has_file {
        return Err(DatabaseError::NotMigrated { place: address.to_string(), dir: dir.to_owned() }.into());
    }
    database.place = place;
    let position = Some(database.position());
    let trail = trail::DatabaseTrail::new(address.clone());
    Ok(Opened { storage: Box::new(database), trail: Box::new(trail), records, position, own })
}

/// Looks whether a database can be used, and writes nothing. One without tables can.
///
/// # Errors
///
/// [`DatabaseError`].
pub(super) fn look(address: &Address) -> Result<(), StoreError> {
    Ok(schema::look(address)?)
}

impl Storage for Database {
    fn begin(&mut self) -> Result<News, StoreError> {
        // While the row is locked, nothing is written: what is read then is the newest.
        let begin = format!("BEGIN; {META} FOR UPDATE");
        self.with_session(|database, session| {
            let (news, place) = database.read_news(session, &begin, TO_LOCK)?;
            database.place = place;
            Ok(news)
        })
    }

    fn commit(&mut self, changes: &[Change]) -> Result<Option<u64>, StoreError> {
        let Some(mut session) = self.session.take() else { return Err(StoreError::Closed) };
        let group =
            secret::token().map_err(|source| StoreError::Io { path: "/dev/urandom".into(), source })?;
        let batch = Batch::of(changes).map_err(|error| self.refused(error.to_string()))?;
        let mut new = self.place.clone();
        if batch.log_rows() > 0 {
            new.head += batch.log_rows();
            new.group.clone_from(&group);
        }
        new.reports += i64::from(batch.has_reports());
        let mut writing = Writing { session: &mut session, address: &self.address, reports: new.reports };
        batch.write(&mut writing)?;
        batch.write_log(&mut writing, self.place.head, &group)?;
        match session.simple(&self.ending(&new), TO_WRITE) {
            Ok(_) => self.session = Some(session),
            Err(error) => {
                drop(session);
                let error = DatabaseError::of(&self.address, error);
                if batch.log_rows() == 0 {
                    // Reports have no row in the log that could be found. A report that was written is news of the next
                    // refresh, and does no harm if its device sends it again.
                    return Err(error.into());
                }
                self.settle(&group, &error)?;
            }
        }
        self.place = new;
        Ok(Some(self.position()))
    }

    fn end(&mut self) {
        if let Some(session) = &mut self.session
            && session.simple("ROLLBACK", TO_READ).is_err()
        {
            self.session = None;
        }
    }

    fn refresh(&mut self) -> Result<News, StoreError> {
        let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {META}");
        self.with_session(|database, session| {
            let (news, place) = database.read_news(session, &begin, TO_READ)?;
            // If the end fails, the news are not returned, so they must be read again.
            Reader { session, address: &database.address }.end()?;
            database.place = place;
            Ok(news)
        })
    }
}

impl Database {
    fn position(&self) -> u64 {
        u64::try_from(self.place.head).unwrap_or_default()
    }

    /// Runs `work` on the connection, which must not have a transaction. If the connection has ended meanwhile, which happens
    /// when the database is restarted, it is opened again, once.
    fn with_session<T>(
        &mut self,
        work: impl Fn(&mut Self, &mut Session) -> Result<T, DatabaseError>,
    ) -> Result<T, StoreError> {
        if let Some((_, why)) = self.late.as_ref().filter(|(at, _)| at.elapsed() < TOO_SOON) {
            let (place, why) = (self.address.to_string(), why.clone());
            return Err(DatabaseError::Unreachable { place, why }.into());
        }
        let was_open = self.session.is_some();
        let begun = Instant::now();
        let mut done = self.try_with_session(&work);
        if was_open && matches!(done, Err(DatabaseError::Lost { .. })) {
            done = self.try_with_session(&work);
        }
        self.late = match &done {
            Err(DatabaseError::Unreachable { why, .. }) if begun.elapsed() >= TOO_SOON => {
                Some((Instant::now(), why.clone()))
            }
            Ok(_) | Err(_) => None,
        };
        Ok(done?)
    }

    fn try_with_session<T>(
        &mut self,
        work: &impl Fn(&mut Self, &mut Session) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => schema::connect(&self.address)?,
        };
        let done = work(self, &mut session)?;
        self.session = Some(session);
        Ok(done)
    }

    /// Begins a transaction with `begin`, and reads what is new: all records, if the log does not have all of that. Returns the
    /// place to which the news lead.
    fn read_news(
        &self,
        session: &mut Session,
        begin: &str,
        deadline: Duration,
    ) -> Result<(News, Place), DatabaseError> {
        let mut reader = Reader { session, address: &self.address };
        let meta = reader.meta(begin, deadline)?;
        let news = match reader.since(&self.place, &meta)? {
            Some(changes) if changes.is_empty() => News::None,
            Some(changes) => News::Changes(changes, u64::try_from(meta.newest.head).unwrap_or_default()),
            None => {
                let records = reader.all()?;
                tracing::warn!(
                    at = self.place.head,
                    newest = meta.newest.head,
                    "this server was too far behind the others, and has read all records again"
                );
                News::All(records, u64::try_from(meta.newest.head).ok())
            }
        };
        Ok((news, meta.newest))
    }

    /// Reads all records as they are at one moment.
    fn read_all(&mut self) -> Result<(Vec<Change>, Place), StoreError> {
        let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {META}");
        self.with_session(|database, session| {
            let mut reader = Reader { session, address: &database.address };
            let meta = reader.meta(&begin, TO_READ)?;
            let records = reader.all()?;
            reader.end()?;
            Ok((records, meta.newest))
        })
    }

    /// Returns the last statements of a group. From time to time they delete the oldest rows of the log.
    fn ending(&self, new: &Place) -> String {
        let mut sql = format!(
            "UPDATE cotter_meta SET head = {}, head_group = '{}', reports = {}; ",
            new.head, new.group, new.reports
        );
        if new.head > self.place.head {
            let every = KEPT / 16;
            if new.head / every > self.place.head / every && new.head > KEPT {
                let last = new.head - KEPT;
                sql.push_str(&format!(
                    "DELETE FROM cotter_log WHERE seq <= {last}; UPDATE cotter_meta SET trimmed = {last}; "
                ));
            }
            sql.push_str(&format!("NOTIFY {CHANNEL}, '{}'; ", self.own));
        }
        sql.push_str("COMMIT");
        sql
    }

    /// Finds out whether a group was written, after the database did not answer its COMMIT. It takes the lock of acts first, so
    /// that the transaction of the group has ended: until then it may still be committed.
    fn settle(&mut self, group: &str, why: &DatabaseError) -> Result<(), DatabaseError> {
        tracing::warn!(error = %why, "the database did not say whether a group of changes was written; asking it again");
        let begun = Instant::now();
        let begin = format!("BEGIN; {META} FOR UPDATE");
        loop {
            let asked = schema::connect(&self.address).and_then(|mut session| {
                let mut reader = Reader { session: &mut session, address: &self.address };
                let meta = reader.meta(&begin, TO_LOCK)?;
                let is_written = reader.find_group(group, &self.place)?;
                reader.end()?;
                self.session = Some(session);
                Ok((is_written, meta.trimmed > self.place.head))
            });
            let (place, why) = (self.address.to_string(), why.to_string());
            match asked {
                Ok((true, _)) => return Ok(()),
                Ok((false, false)) => {
                    return Err(DatabaseError::Lost {
                        place,
                        why: "the transaction was rolled back".to_owned(),
                    });
                }
                Ok((false, true)) => return Err(DatabaseError::Unknown { place, why }),
                Err(_) if begun.elapsed() < TO_SETTLE => thread::sleep(Duration::from_millis(300)),
                Err(_) => return Err(DatabaseError::Unknown { place, why }),
            }
        }
    }

    fn refused(&self, why: String) -> DatabaseError {
        DatabaseError::Refused { place: self.address.to_string(), why }
    }
}
