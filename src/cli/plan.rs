//! `cotter plan`: shows the steps that the agent would take next.

use std::process::ExitCode;

use clap::Args;

use super::exit::Exit;
use super::print;
use super::quantity::ahead;
use super::status::Source;
use crate::api::{self, PlanDocument, WaitingStatus};

/// Arguments of `cotter plan`.
#[derive(Debug, Args)]
pub(super) struct Plan {
    #[command(flatten)]
    source: Source,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// Shows the plan. Returns [`Exit::Planned`] if it has any steps.
pub(super) async fn run(plan: Plan) -> anyhow::Result<ExitCode> {
    let document = api::plan(&plan.source.socket).await?;
    if plan.json {
        print::document(&document)?;
    } else {
        show(&document)?;
    }
    let is_unknown = document.engine_error.is_some();
    Ok(match document.stages.is_empty() {
        true if is_unknown => Exit::Unexpected,
        true => Exit::Done,
        false => Exit::Planned,
    }
    .into())
}

fn show(document: &PlanDocument) -> anyhow::Result<()> {
    if let Some(error) = &document.engine_error {
        return print::line(&format!("the next steps are unknown: {error}"));
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
        let why = "the forecast ends here: it is too long, or the next plan breaks a safety rule";
        rows.push(["...".to_owned(), "cut".to_owned(), why.to_owned()]);
    }
    let empty = "nothing to do: the device runs what it should, or has no target";
    print::table(["STAGE", "", "WHAT"], rows, empty)
}

fn waiting(waiting: &WaitingStatus) -> String {
    let service = waiting.service.as_ref().map_or(String::new(), |service| format!(" {service}"));
    let again = waiting.retry_in_s.map_or(String::new(), |s| format!(" ({})", ahead(s)));
    format!("{}{service}: {}{again}", waiting.reason, waiting.why)
}
