//! `cotter plan`: what the next cycles would do.

use std::process::ExitCode;

use clap::Args;

use super::exit::Exit;
use super::print;
use super::status::Source;
use crate::api::{self, PlanDocument, WaitingStatus};

/// Whom to ask, and how to show it.
#[derive(Debug, Args)]
pub(super) struct Plan {
    #[command(flatten)]
    source: Source,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// Shows it; [`Exit::Planned`] when there is anything to do.
pub(super) async fn run(plan: Plan) -> anyhow::Result<ExitCode> {
    let document = api::plan(&plan.source.socket).await?;
    if plan.json {
        print::document(&document)?;
    } else {
        show(&document)?;
    }
    let is_blind = document.engine_error.is_some();
    Ok(match document.stages.is_empty() {
        true if is_blind => Exit::Unexpected,
        true => Exit::Done,
        false => Exit::Planned,
    }
    .into())
}

fn show(document: &PlanDocument) -> anyhow::Result<()> {
    if let Some(error) = &document.engine_error {
        return print::line(&format!("nothing can be foreseen: {error}"));
    }
    let mut rows = Vec::new();
    for (n, stage) in document.stages.iter().enumerate() {
        let number = (n + 1).to_string();
        let after = stage.after.iter().map(|w| [number.clone(), "wait".to_owned(), waiting(w)]);
        let steps = stage.steps.iter().map(|s| [number.clone(), "do".to_owned(), s.what.clone()]);
        rows.extend(after.chain(steps));
    }
    let end = document.waiting.iter().map(|w| ["end".to_owned(), "wait".to_owned(), waiting(w)]);
    rows.extend(end);
    if document.is_cut {
        rows.push(["...".to_owned(), "more".to_owned(), "follows than is looked for".to_owned()]);
    }
    let empty = "nothing to do: the device runs what it should, or knows of no target";
    print::table(["STAGE", "", "WHAT"], rows, empty)
}

fn waiting(waiting: &WaitingStatus) -> String {
    let service = waiting.service.as_ref().map_or(String::new(), |service| format!(" {service}"));
    let again = waiting.retry_in_s.map_or(String::new(), |s| format!(" (in {s} s)"));
    format!("{}{service}: {}{again}", waiting.reason, waiting.why)
}
