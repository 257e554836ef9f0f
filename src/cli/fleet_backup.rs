//! `cotter-fleet backup`, `verify` and `restore`: copies of the fleet server's records.

use std::fs::{self, File};
use std::io::{BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::client::{Client, Connection};
use super::fleet_migrate::{counts, home, label};
use super::print;
use crate::fleet;
use crate::fleet::backup::Backup;
use crate::host;
use crate::ownership;

/// Arguments of `cotter-fleet backup`.
#[derive(Debug, Args)]
pub(super) struct Save {
    /// The file to write; an older one with this name is replaced at the end, once the new one is complete
    file: PathBuf,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `cotter-fleet verify`.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The file of a backup
    file: PathBuf,
}

/// Arguments of `cotter-fleet restore`.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The file of a backup
    file: PathBuf,
    /// The folder for the server's records and keys, which no server uses meanwhile
    #[arg(
        long,
        env = "COTTER_FLEET_DATA_DIR",
        value_name = "DIR",
        default_value = "/var/lib/cotter-fleet",
        conflicts_with = "store"
    )]
    data_dir: PathBuf,
    /// An empty database for the records, in place of a folder: postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "URL", conflicts_with = "replace")]
    store: Option<String>,
    /// File with the password of the database
    #[arg(long, value_name = "FILE", requires = "store")]
    password_file: Option<PathBuf>,
    /// Moves records aside that the folder has already
    #[arg(long)]
    replace: bool,
}

pub(super) async fn save(save: Save) -> anyhow::Result<()> {
    let client = Client::new(save.connection)?;
    let unfinished = beside(&save.file);
    let written = write(&client, &unfinished).await;
    if let Err(error) = written {
        let _gone = fs::remove_file(&unfinished);
        return Err(error);
    }
    let backup = read(&unfinished).inspect_err(|_| {
        let _gone = fs::remove_file(&unfinished);
    })?;
    let named = || format!("cannot write {}", save.file.display());
    fs::rename(&unfinished, &save.file).with_context(named)?;
    let folder = save.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(named)?;
    print::note(&format!("{} has {}", save.file.display(), content(&backup)));
    Ok(())
}

async fn write(client: &Client, to: &Path) -> anyhow::Result<()> {
    let named = || format!("cannot write {}", to.display());
    let mut file =
        File::options().create(true).truncate(true).write(true).mode(0o600).open(to).with_context(named)?;
    let mut answer = client.stream(&["backup"]).await?;
    while let Some(piece) = answer.next().await.context("the server stopped sending")? {
        file.write_all(&piece).with_context(named)?;
    }
    file.sync_all().with_context(named)
}

pub(super) fn verify(verify: &Verify) -> anyhow::Result<()> {
    let backup = read(&verify.file)?;
    print::note(&format!("{} is good: it has {}", verify.file.display(), content(&backup)));
    Ok(())
}

pub(super) fn restore(restore: &Restore) -> anyhow::Result<()> {
    let backup = read(&restore.file)?;
    ownership::make_files_private();
    if let Some(store) = &restore.store {
        let to = home(store, restore.password_file.as_deref())?;
        fleet::fill(&to, &backup.records, host::now())
            .with_context(|| format!("{} is not restored", restore.file.display()))?;
        print::note(&format!("{} has {}", label(&to), content(&backup)));
        return Ok(());
    }
    let aside = fleet::restore(&backup, &restore.data_dir, restore.replace, host::now())
        .with_context(|| format!("{} is not restored", restore.file.display()))?;
    if let Some(aside) = aside {
        print::note(&format!(
            "the records before are in {}; delete them once they are not needed",
            aside.display()
        ));
    }
    print::note(&format!("{} has {}", restore.data_dir.display(), content(&backup)));
    Ok(())
}

/// Reads all of a backup, and checks it.
fn read(path: &Path) -> anyhow::Result<Backup> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Backup::read(BufReader::new(file)).with_context(|| format!("{} is no good backup", path.display()))
}

fn content(backup: &Backup) -> String {
    format!("{} of {}", counts(&backup.records), backup.head.created)
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".unfinished");
    name.into()
}
