//! The id of a release that is made from a folder.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use tokio::process::Command;

use super::client::Client;
use super::exit::{InTheWay, Usage};
use super::print;
use crate::host;
use crate::model::{Commit, ReleaseStatus};
use crate::wire::operator_api::ReleaseView;

/// The given id, else the Git commit of this folder, if it has one.
pub(super) async fn of(given: Option<String>, directory: &Path) -> anyhow::Result<Commit> {
    if let Some(given) = given {
        return Ok(Commit::parse(given).map_err(|bad| Usage(format!("--commit: {bad}")))?);
    }
    let random =
        |bytes| host::random_hex(bytes).context("cannot generate a random commit; name one with --commit");
    let head = git(directory, &["rev-parse", "--verify", "--quiet", "HEAD"]).await;
    let Some(head) = head.filter(|head| !head.is_empty()) else {
        print::note("no Git commit is known here, so the release gets a random id");
        return Ok(Commit::parse(random(16)?)?);
    };
    if git(directory, &["status", "--porcelain"]).await.is_some_and(|changes| changes.is_empty()) {
        return Ok(Commit::parse(head.get(..40).unwrap_or(&head))?);
    }
    let commit = Commit::parse(format!("{}-dirty-{}", head.get(..12).unwrap_or(&head), random(4)?))?;
    print::note(&format!("warning: files have changed since the last Git commit: the release is {commit}"));
    Ok(commit)
}

/// What git prints; `None` if it fails or is not installed.
async fn git(directory: &Path, args: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).args(args).stdin(Stdio::null()).stderr(Stdio::null());
    let out = command.output().await.ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// Refuses a commit that the fleet has already: images would be built for nothing. The record of a failed build may be
/// replaced.
pub(super) async fn check_is_new(client: &Client, fleet: &str, commit: &Commit) -> anyhow::Result<()> {
    let releases: Vec<ReleaseView> = client.list(&["fleets", fleet, "releases"], &[], None).await?;
    let is_same = |release: &ReleaseView| {
        let is_record = release.status == ReleaseStatus::Failed && release.services.is_empty();
        release.commit == commit.as_str() && !is_record
    };
    if releases.iter().any(is_same) {
        let why = format!(
            "{fleet} has a release {commit} already: commit your changes, or name another id with --commit"
        );
        return Err(InTheWay(why).into());
    }
    Ok(())
}
