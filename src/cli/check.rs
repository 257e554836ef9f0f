//! `cotter check`: checks this device and suggests fixes.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;

use super::agent::Settings;
use super::exit::{Exit, Usage};
use super::print;
use crate::config::environment_outside;
use crate::doctor::{self, CHECKS, Finding, Level, Subject};
use crate::ownership::User;

/// Arguments of `cotter check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    settings: Settings,
    /// Checks to leave out, separated by commas: ids, or areas such as `cloud`
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    dont_run: Vec<String>,
    /// Lists all checks, and runs none
    #[arg(long, conflicts_with = "dont_run")]
    list: bool,
    /// Shows also the checks that could not run
    #[arg(long)]
    all: bool,
    /// Ends with exit code 50 also if there are only warnings
    #[arg(long)]
    warnings_as_errors: bool,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(check: Check) -> anyhow::Result<ExitCode> {
    if check.list {
        list(check.json)?;
        return Ok(Exit::Done.into());
    }
    let left_out = left_out(&check.dont_run)?;
    let given = check.settings.given();
    let subject = Subject { environment: environment_outside(&given), given, left_out };
    let findings = Box::pin(doctor::examine(&subject)).await;
    if check.json {
        print::json("checks", &findings)?
    } else {
        if User::us().id != 0 {
            print::note("note: run it as root, e.g. with sudo: some checks need it");
        }
        show(&findings, check.all)?
    }
    let bad = if check.warnings_as_errors { Level::Warning } else { Level::Error };
    let is_unwell = findings.iter().any(|finding| finding.level >= bad);
    Ok(if is_unwell { Exit::Unwell } else { Exit::Done }.into())
}

fn list(json: bool) -> anyhow::Result<()> {
    if json {
        let all: Vec<_> =
            CHECKS.iter().map(|(id, asks)| serde_json::json!({ "id": id, "asks": asks })).collect();
        return print::json("checks", &all);
    }
    print::table(
        ["CHECK", "ASKS"],
        CHECKS.iter().map(|(id, asks)| [(*id).to_owned(), (*asks).to_owned()]),
        "",
    )
}

fn left_out(names: &[String]) -> Result<BTreeSet<&'static str>, Usage> {
    let mut left_out = BTreeSet::new();
    for name in names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
        let ids = doctor::ids(name);
        if ids.is_empty() {
            return Err(Usage(format!("no check is called {name}; `cotter check --list` lists them")));
        }
        left_out.extend(ids);
    }
    Ok(left_out)
}

/// Shows the findings by area, each with what to do about it. What was skipped is shown only if it is asked for.
fn show(findings: &[Finding], is_all: bool) -> anyhow::Result<()> {
    let shown: Vec<_> = findings.iter().filter(|f| is_all || f.level != Level::Skip).collect();
    let width = shown.iter().map(|f| f.id.len()).max().unwrap_or(0);
    let mut area = "";
    for finding in shown {
        if doctor::area_of(finding.id) != area {
            area = doctor::area_of(finding.id);
            print::line(area)?;
        }
        let mark = match finding.level {
            Level::Skip => "skip",
            Level::Ok => "ok",
            Level::Warning => "WARN",
            Level::Error => "ERROR",
        };
        let mark = format!("{mark:<5}");
        let (hang, id) = (width + 4, finding.id);
        print::marked_line("  ", &mark, &format!("  {id:<width$}  {}", finding.evidence), hang)?;
        if let Some(remedy) = &finding.remedy {
            print::hanging(hang + 10, &format!("         {:<width$}  -> {remedy}", ""))?;
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    print::line("")?;
    print::line(&format!(
        "{} ok, {} with a warning, {} with an error, {} skipped{}",
        count(Level::Ok),
        count(Level::Warning),
        count(Level::Error),
        count(Level::Skip),
        if is_all || count(Level::Skip) == 0 { "" } else { " (--all shows them)" }
    ))
}
