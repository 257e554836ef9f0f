//! `cotter-fleet migrate`: the records of the fleet server from a data folder into a database, or back. Also reads where records
//! are, for other commands.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::exit::Usage;
use super::print;
use crate::fleet::{self, Home, policy::Change};
use crate::host;
use crate::model::quantity::counted;
use crate::ownership;
use crate::postgres::Address;

/// Arguments of `cotter-fleet migrate`.
#[derive(Debug, Args)]
pub(super) struct Migrate {
    /// The records that are copied: a data folder, or postgres://USER@HOST/DATABASE
    from: String,
    /// An empty place for them: the other of both
    to: String,
    /// File with the password of the database
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

pub(super) fn migrate(migrate: &Migrate) -> anyhow::Result<()> {
    ownership::make_files_private();
    let password = migrate.password_file.as_deref();
    let (from, to) = (home(&migrate.from, password)?, home(&migrate.to, password)?);
    match (&from, &to) {
        (Home::Folder(_), Home::Folder(_)) => {
            return Err(Usage("one of both must be the URL of a database, postgres://...".to_owned()).into());
        }
        (Home::Database(_), Home::Database(_)) => {
            return Err(Usage(
                "one of both must be a folder; for a copy of a database use pg_dump".to_owned(),
            )
            .into());
        }
        _ => {}
    }
    let named = || format!("the records of {} are not copied", label(&from));
    let records = fleet::read_out(&from).with_context(named)?;
    fleet::fill(&to, &records, host::now()).with_context(named)?;
    print::note(&format!("{} has {}; {} is as it was", label(&to), counts(&records), label(&from)));
    Ok(())
}

/// Reads where records are: a folder, or the URL of a database, whose password may be in a file.
pub(super) fn home(given: &str, password: Option<&Path>) -> anyhow::Result<Home> {
    if !given.contains("://") {
        return Ok(Home::Folder(given.into()));
    }
    keep_password_secret(Some(given), "give a file that has it with --password-file")?;
    // The URL is not quoted: it may have a password.
    let address = Address::parse(given)
        .map_err(|error| Usage(format!("the URL of the database is not accepted: {error}")))?;
    let Some(path) = password else { return Ok(Home::Database(Box::new(address))) };
    let password = fleet::password(path).with_context(|| format!("cannot use {}", path.display()))?;
    Ok(Home::Database(Box::new(address.with_password(&password))))
}

/// Returns the name of a place, without a password.
pub(super) fn label(home: &Home) -> String {
    match home {
        Home::Folder(dir) => dir.display().to_string(),
        Home::Database(address) => address.to_string(),
    }
}

/// Returns how many fleets, releases and devices there are.
pub(super) fn counts(records: &[Change]) -> String {
    let count = |is_such: fn(&Change) -> bool| records.iter().filter(|change| is_such(change)).count();
    let fleets = count(|change| matches!(change, Change::PutFleet(_)));
    let releases = count(|change| matches!(change, Change::PutRelease(_)));
    let devices = count(|change| matches!(change, Change::PutDevice(_)));
    format!(
        "{}, {} and {}",
        counted(fleets, "fleet"),
        counted(releases, "release"),
        counted(devices, "device")
    )
}

/// Refuses a password on the command line, which all users of a machine can read in its list of processes. `remedy` says where
/// the command accepts it.
pub(super) fn keep_password_secret(store: Option<&str>, remedy: &str) -> anyhow::Result<()> {
    let is_on_command_line =
        |store: &str| std::env::args().any(|arg| arg == store || arg.ends_with(&format!("={store}")));
    let Some(store) = store.filter(|store| is_on_command_line(store)) else { return Ok(()) };
    if Address::parse(store).is_ok_and(|address| address.has_password()) {
        return Err(Usage(format!(
            "all users of this machine can read a password on the command line; {remedy}"
        ))
        .into());
    }
    Ok(())
}
