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
use crate::fleet::access::AccessChange;
use crate::fleet::backup::Backup;
use crate::fleet::{self, RawConfig, policy::Change};
use crate::host;
use crate::model::quantity::counted;
use crate::ownership;

/// Arguments of `cotter-fleet backup`.
#[derive(Debug, Args)]
pub(super) struct Save {
    /// The file to write; an older one with this name is replaced at the end, once the new one is complete
    file: PathBuf,
    /// Prints nothing when all is well
    #[arg(long, short)]
    quiet: bool,
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
    /// The folder for the server's records and keys, which no server uses meanwhile [default: data_dir of --config, or /var/lib/cotter-fleet]
    #[arg(long, env = "COTTER_FLEET_DATA_DIR", value_name = "DIR", conflicts_with = "store")]
    data_dir: Option<PathBuf>,
    /// Settings file of the server (TOML), of which data_dir is used; --data-dir overrides it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An empty database for the records, in place of a folder: postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "URL", conflicts_with = "replace")]
    store: Option<String>,
    /// File with the password of the database
    #[arg(long, value_name = "FILE", requires = "store")]
    password_file: Option<PathBuf>,
    /// Moves records aside that the folder has already
    #[arg(long)]
    replace: bool,
    /// Revokes all tokens that the backup has, so that none that was revoked after it works again
    #[arg(long)]
    revoke_tokens: bool,
}

pub(super) async fn save(save: Save) -> anyhow::Result<()> {
    let client = Client::new(save.connection)?;
    let (unfinished, file) = begin(&save.file)?;
    let written = write(&client, &unfinished, file).await;
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
    if !save.quiet {
        print::note(&format!("{} has {}", save.file.display(), content(&backup)));
    }
    Ok(())
}

async fn write(client: &Client, to: &Path, mut file: File) -> anyhow::Result<()> {
    let named = || format!("cannot write {}", to.display());
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
    let settings = match &restore.config {
        None => RawConfig::default(),
        Some(path) => RawConfig::read(path).with_context(|| format!("in {}", path.display()))?,
    };
    let flags = RawConfig { data_dir: restore.data_dir.clone(), ..RawConfig::default() };
    let data_dir = flags.over(settings).data_dir();
    let mut backup = read(&restore.file)?;
    let now = host::now();
    let revoked = if restore.revoke_tokens { backup.revoke_tokens(now) } else { 0 };
    let details = match restore.revoke_tokens {
        true => format!("of {}, and {} revoked", backup.head.created, counted(revoked, "token")),
        false => format!("of {}", backup.head.created),
    };
    let shown = content(&backup);
    backup.record_restoration(now, details);
    ownership::make_files_private();
    let named = || format!("{} is not restored", restore.file.display());
    let place = match &restore.store {
        Some(store) => {
            let to = home(store, restore.password_file.as_deref())?;
            fleet::fill(&to, &backup.records, now).with_context(named)?;
            label(&to)
        }
        None => {
            let aside = fleet::restore(&backup, &data_dir, restore.replace, now).with_context(named)?;
            if let Some(aside) = aside {
                print::note(&format!(
                    "the records before are in {}; delete them once they are not needed",
                    aside.display()
                ));
            }
            data_dir.display().to_string()
        }
    };
    print::note(&format!("{place} has {shown}"));
    warn(&backup, revoked, restore.revoke_tokens);
    Ok(())
}

fn count(backup: &Backup, is_such: impl Fn(&Change) -> bool) -> usize {
    backup.records.iter().filter(|change| is_such(change)).count()
}

/// Warns of what a restoration undoes without a word.
fn warn(backup: &Backup, revoked: usize, are_revoked: bool) {
    let created = backup.head.created;
    let live = count(
        backup,
        |change| matches!(change, Change::Access(AccessChange::PutToken(token)) if token.revoked.is_none()),
    );
    let users = count(
        backup,
        |change| matches!(change, Change::Access(AccessChange::PutUser(user)) if user.disabled.is_none()),
    );
    let keys = count(backup, |change| matches!(change, Change::PutKey(key) if key.revoked.is_none()));
    let devices = count(backup, |change| matches!(change, Change::PutDevice(_)));
    let tokens = match are_revoked {
        true => format!("{} (revoked now)", counted(revoked, "token")),
        false => format!("{} (--revoke-tokens would revoke them)", counted(live, "token")),
    };
    print::note(&format!(
        "warning: what was revoked, disabled or deleted after {created} is as it was then: {tokens}, {}, {} and {}; \
         look at `cotter token list`, `cotter user list`, `cotter fleet provisioning-key list FLEET` and `cotter device list`",
        counted(users, "user"),
        counted(keys, "provisioning key"),
        counted(devices, "device"),
    ));
    print::note(
        "warning: devices go to the releases of the backup within seconds once the server runs; \
         `cotter-fleet serve --paused` leaves them as they are, so that you can look first",
    );
}

/// Reads all of a backup, and checks it.
fn read(path: &Path) -> anyhow::Result<Backup> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Backup::read(BufReader::new(file)).with_context(|| format!("{} is no good backup", path.display()))
}

fn content(backup: &Backup) -> String {
    format!("{} of {}", counts(&backup.records), backup.head.created)
}

/// Creates the file in which a backup is written until it is complete. Its name is new: another user of the folder may have
/// put a link or a file of their own in the place of one that can be guessed.
fn begin(file: &Path) -> anyhow::Result<(PathBuf, File)> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("there are no random numbers: {error}"))?;
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".unfinished-{:016x}", u64::from_le_bytes(random)));
    let path = PathBuf::from(name);
    let created = File::options().create_new(true).write(true).mode(0o600).open(&path);
    let created = created.with_context(|| format!("cannot write {}", path.display()))?;
    Ok((path, created))
}
