//! `cotter support-bundle`: collects diagnostics into one tar file, with secrets left out.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::agent::Settings;
use super::exit::InTheWay;
use super::{explain, print};
use crate::api;
use crate::config::{Config, environment_outside};
use crate::doctor::{self, Page, Subject};
use crate::host;

/// Arguments of `cotter support-bundle`.
#[derive(Debug, Args)]
pub(super) struct SupportBundle {
    /// File to create, which must not exist yet, or - for standard output [default: cotter-support-TIME.tar]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

pub(super) async fn run(bundle: SupportBundle) -> anyhow::Result<()> {
    let time = host::time_in(Duration::ZERO).replace(':', "");
    let folder = format!("cotter-support-{time}");
    let output = bundle.output.unwrap_or_else(|| PathBuf::from(format!("{folder}.tar")));
    let given = bundle.settings.given();
    let subject = Subject { environment: environment_outside(&given), given, left_out: BTreeSet::new() };
    let mut pages = Box::pin(doctor::pages(&subject)).await;
    pages.extend(explained(&subject).await);
    let archive = doctor::archive(&folder, &pages);
    if output == Path::new("-") {
        return print::raw(&archive);
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&output);
    let written = file.and_then(|mut file| file.write_all(&archive));
    match written {
        Ok(()) => {
            let pages: Vec<_> = pages.iter().map(|page| page.name.as_str()).collect();
            print::line(&format!("wrote {}: {}", output.display(), pages.join(", ")))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(InTheWay(format!("{} exists already; name another file with --output", output.display()))
                .into())
        }
        Err(error) => Err(error).with_context(|| {
            format!("{} cannot be written; name another place with --output", output.display())
        }),
    }
}

/// Returns the page with the output of `cotter explain`. There is none if the agent does not answer; the status page
/// says so.
async fn explained(subject: &Subject) -> Option<Page> {
    let config = Config::load(&subject.given, &subject.environment).ok()?;
    let status = api::status(&config.runtime_dir.join("status.sock")).await.ok()?;
    Some(Page::json("explain", &explain::links(&status, None)))
}
