//! Exchanges with other servers when each device polled last. Nothing is decided by it.

use jiff::Timestamp;

use super::schema::{self, TO_READ};
use crate::fleet::database_error::DatabaseError;
use crate::fleet::secret;
use crate::postgres::{Address, PgError, Session, Value};

/// Rows of one statement.
const ROWS: usize = 5_000;

/// Each read begins this many milliseconds before the one before it, because a transaction that began earlier may have been
/// committed later.
const LATE: i64 = 30_000;

/// The last polls of all servers.
pub(in crate::fleet) struct SharedSightings {
    address: Address,
    session: Option<Session>,
    /// The name of this server in the table.
    own: String,
    /// When the table was read last, by the clock of the database, in milliseconds.
    read: i64,
}

impl SharedSightings {
    /// # Errors
    ///
    /// If the machine has no random bytes.
    pub(in crate::fleet) fn new(address: Address) -> std::io::Result<Self> {
        Ok(Self { address, session: None, own: secret::token()?, read: 0 })
    }

    /// Writes when devices have polled here, and returns when others have polled elsewhere.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub(in crate::fleet) fn exchange(
        &mut self,
        seen: &[(String, Timestamp)],
    ) -> Result<Vec<(String, Timestamp)>, DatabaseError> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => schema::connect(&self.address)?,
        };
        let found = self.exchange_by(&mut session, seen);
        let found = found.map_err(|error| DatabaseError::of(&self.address, error))?;
        self.session = Some(session);
        Ok(found)
    }

    fn exchange_by(
        &mut self,
        session: &mut Session,
        seen: &[(String, Timestamp)],
    ) -> Result<Vec<(String, Timestamp)>, PgError> {
        for rows in seen.chunks(ROWS) {
            let uuids = rows.iter().map(|(uuid, _)| uuid.as_str()).collect();
            let times = rows.iter().map(|(_, at)| at.as_millisecond()).collect();
            session.rows(
                "INSERT INTO cotter_seen (uuid, at, by, changed) \
                 SELECT uuid, at, $1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint \
                 FROM unnest($2, $3) AS new (uuid, at) \
                 ON CONFLICT (uuid) DO UPDATE SET at = excluded.at, by = excluded.by, changed = excluded.changed \
                 WHERE cotter_seen.at < excluded.at",
                &[Value::Text(&self.own), Value::Texts(uuids), Value::Numbers(times)],
                TO_READ,
            )?;
        }
        let sql = "SELECT uuid, at, (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM cotter_seen \
                   WHERE changed > $1 AND by <> $2";
        let rows = session.rows(sql, &[Value::Number(self.read - LATE), Value::Text(&self.own)], TO_READ)?;
        if let Some(now) = rows.first().and_then(|row| row.try_get(2).ok()) {
            self.read = now;
        }
        let read = |row: &crate::postgres::Row| {
            Some((row.try_get(0).ok()?, Timestamp::from_millisecond(row.try_get(1).ok()?).ok()?))
        };
        Ok(rows.iter().filter_map(read).collect())
    }
}
