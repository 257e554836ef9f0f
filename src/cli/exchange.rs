//! `cotter export` and `cotter import`: the fleets, releases, devices and variables of a fleet server as JSON lines.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::client::{Client, Connection, Plain};
use super::exit::Usage;
use super::print;
use crate::model::quantity::counted;
use crate::wire::operator_api::{ImportCounts, ImportView, LARGEST_IMPORT};

/// Arguments of `cotter export`.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// The file to write; an older one is replaced once the new one is complete [default: standard output]
    file: Option<PathBuf>,
    /// Also the values of secret variables; needs the role admin
    #[arg(long)]
    secrets: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `cotter import`.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file of an export; "-" reads standard input
    file: PathBuf,
    /// Checks everything, says what would be created, and creates nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    plain: Plain,
}

pub(super) async fn export(export: Export) -> anyhow::Result<()> {
    let Export { file, secrets, connection } = export;
    let client = Client::new(connection)?;
    let path: &[&str] = if secrets { &["export", "secrets"] } else { &["export"] };
    let Some(file) = file else {
        let (mut answer, mut log) = (client.stream(path).await?, print::Log::new(false));
        while let Some(piece) = answer.next().await.context("the server stopped sending")? {
            if !log.piece_reaches(&piece)? {
                return Ok(());
            }
        }
        return log.end();
    };
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = Path::new(&unfinished);
    let written = write(&client, path, unfinished).await;
    let renamed = written.and_then(|()| {
        fs::rename(unfinished, &file).with_context(|| format!("cannot write {}", file.display()))
    });
    renamed.inspect_err(|_| drop(fs::remove_file(unfinished)))
}

/// Other users cannot read the file, because values of variables may be confidential.
async fn write(client: &Client, path: &[&str], to: &Path) -> anyhow::Result<()> {
    let named = || format!("cannot write {}", to.display());
    let mut answer = client.stream(path).await?;
    let mut file =
        File::options().create(true).truncate(true).write(true).mode(0o600).open(to).with_context(named)?;
    while let Some(piece) = answer.next().await.context("the server stopped sending")? {
        file.write_all(&piece).with_context(named)?;
    }
    file.sync_all().with_context(named)
}

pub(super) async fn import(import: Import) -> anyhow::Result<()> {
    let Import { file, dry_run, plain } = import;
    let client = Client::new(plain.connection)?;
    let query = [("dry_run", dry_run.then_some("true"))];
    let done: ImportView = client.post_lines(&["import"], &query, read(&file)?).await?;
    if plain.json {
        return print::json("import", &done);
    }
    let verb = if dry_run { "would create" } else { "created" };
    print::line(&format!("{verb} {}", counts(done.created)))?;
    if done.unchanged != ImportCounts::default() {
        print::line(&format!("here already, and the same: {}", counts(done.unchanged)))?;
    }
    for variable in &done.without_value {
        print::line(&format!("left out, because the file has no value for this secret: {variable}"))?;
    }
    if !done.without_value.is_empty() {
        print::note("set these variables with `cotter env set --secret`");
    }
    if dry_run {
        print::note("nothing was changed: this was a dry run");
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = LARGEST_IMPORT as u64 + 1;
    let read = match path.to_str() {
        Some("-") => io::stdin().lock().take(most).read_to_end(&mut bytes),
        _ => File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)),
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() > LARGEST_IMPORT {
        let why =
            format!("{} is longer than 16 MiB; split it, each part with the first line", path.display());
        return Err(Usage(why).into());
    }
    Ok(bytes)
}

fn counts(counts: ImportCounts) -> String {
    let ImportCounts { fleets, releases, devices, variables } = counts;
    let (fleets, releases) = (counted(fleets, "fleet"), counted(releases, "release"));
    format!("{fleets}, {releases}, {} and {}", counted(devices, "device"), counted(variables, "variable"))
}
