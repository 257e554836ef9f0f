//! Why the database cannot be used, each with what to do about it.

use std::path::PathBuf;

use crate::postgres::{Address, PgError};

/// Why the records in a database cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("the database {place} does not answer ({why}); start it, or correct the setting `store`")]
    Unreachable { place: String, why: String },

    #[error("the connection to the database {place} was lost ({why}); try again")]
    Lost { place: String, why: String },

    #[error(
        "the database {place} was lost while this was being written ({why}), and it is not known whether it was done; check that before you repeat it"
    )]
    Unknown { place: String, why: String },

    #[error(
        "the database {place} does not accept this user ({why}); correct the user or the password, or pg_hba.conf of the database"
    )]
    NotAccepted { place: String, why: String },

    #[error(
        "there is no TLS with the database {place} as `store` wants it ({why}); correct sslmode or sslrootcert in it, or the certificate"
    )]
    NotTrusted { place: String, why: String },

    #[error("there is no such database as {place}; create it with `createdb --owner={user} {name}`")]
    NoDatabase { place: String, user: String, name: String },

    #[error(
        "the user of the database {place} has too few rights there ({why}); let it own the database and the tables of cotter in it, e.g. `ALTER DATABASE {name} OWNER TO {user}`"
    )]
    NoRights { place: String, why: String, user: String, name: String },

    #[error("the database {place} only allows reading ({why}); name the primary and no standby")]
    ReadOnly { place: String, why: String },

    #[error(
        "the tables in {place} have version {found}, and this version of cotter-fleet knows {known}; use the version that made them"
    )]
    OtherVersion { place: String, found: String, known: i32 },

    #[error("the tables in {place} are not those of cotter-fleet ({why}); name another database")]
    OtherTables { place: String, why: String },

    #[error(
        "the database {place} has the encoding {found}; create it with `createdb --encoding=UTF8 --template=template0`"
    )]
    Encoding { place: String, found: String },

    #[error("other servers have kept the database {place} busy for too long ({why}); try again")]
    Busy { place: String, why: String },

    #[error("the database {place} refused a statement: {why}")]
    Refused { place: String, why: String },

    #[error("the records in {place} are damaged ({why}); restore the database from a backup")]
    Damaged { place: String, why: String },

    #[error("the records in {place} were written by a newer version of cotter; use that version")]
    Newer { place: String },

    #[error(
        "the database {place} has no records, but {} has some; bring them there with `cotter-fleet migrate`, or name an empty --data-dir", dir.display()
    )]
    NotMigrated { place: String, dir: PathBuf },

    #[error("the database {place} has records already; name an empty one")]
    NotEmpty { place: String },

    #[error("{count} other connections of cotter-fleet use the database {place}; stop those servers first")]
    InUse { place: String, count: String },

    #[error("{place} has {found} records after the copy, and not {expected}; nothing is kept of it")]
    Incomplete { place: String, found: u64, expected: u64 },
}

impl DatabaseError {
    /// Sorts an error of the connection.
    pub(super) fn of(address: &Address, error: PgError) -> Self {
        let place = address.to_string();
        let (code, why) = match error {
            PgError::NotConnected(why) if why.contains("password missing") => {
                return Self::NotAccepted { place, why: "it wants a password".to_owned() };
            }
            PgError::NotTrusted(why) => return Self::NotTrusted { place, why },
            PgError::NotConnected(why) => return Self::Unreachable { place, why },
            PgError::Late(_) => return Self::Unreachable { place, why: error.to_string() },
            PgError::Lost(why) => return Self::Lost { place, why },
            PgError::Refused { code, message } => (code, message),
        };
        let user = address.user().unwrap_or("USER").to_owned();
        let name = address.database().to_owned();
        match code.as_str() {
            "28000" | "28P01" => Self::NotAccepted { place, why },
            "3D000" => Self::NoDatabase { place, user, name },
            "42501" => Self::NoRights { place, why, user, name },
            "42703" | "42P01" => Self::OtherTables { place, why },
            "25006" => Self::ReadOnly { place, why },
            // The lock was not free in time, a deadlock, or the statement took too long.
            "55P03" | "40P01" | "57014" => Self::Busy { place, why },
            // It starts, or has too many connections.
            "57P03" | "53300" => Self::Unreachable { place, why },
            // It has ended this connection.
            "57P01" | "57P02" | "25P03" => Self::Lost { place, why },
            _ => Self::Refused { place, why: format!("{why} ({code})") },
        }
    }

    /// Returns whether a new connection may help at once.
    pub(super) fn is_of_connection(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Unreachable { .. })
    }

    /// Returns whether it passes without a change of settings or of the database.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(
            self,
            Self::Lost { .. }
                | Self::Unreachable { .. }
                | Self::Unknown { .. }
                | Self::Busy { .. }
                | Self::ReadOnly { .. }
        )
    }
}
