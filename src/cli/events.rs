//! `cotter events`: prints the agent's events.

use std::time::Duration;

use clap::Args;

use super::print;
use super::status::Source;
use crate::api::{self, EventStatus};

/// Time between two attempts to reach an agent that has stopped.
const AGAIN: Duration = Duration::from_secs(1);

/// Arguments of `cotter events`.
#[derive(Debug, Args)]
pub(super) struct Events {
    /// Continues with new events, also after restarts of the agent
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    source: Source,
    /// Prints JSON, one document per line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(events: Events) -> anyhow::Result<()> {
    let mut last = None;
    let mut has_answered = false;
    let show = |event: &EventStatus, text: &str| match events.json {
        true => print::json_reaches(text),
        false => print::reaches(&line(event)),
    };
    loop {
        match api::events(&events.source.socket, events.follow, &mut last, show).await {
            Ok(false) => return Ok(()),
            Ok(true) => has_answered = true,
            // An agent that has answered before is restarting: connect again.
            Err(error) if error.may_pass() && (has_answered || last.is_some()) => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Formats an event as one line.
fn line(event: &EventStatus) -> String {
    let at = event.at.as_deref().unwrap_or("-");
    let outcome = event.outcome.as_deref().unwrap_or("-");
    let word = event.word.as_deref().filter(|_| event.kind != "step").map(|word| format!("{word} "));
    let service = event.service.as_deref().filter(|_| event.kind == "waiting").map(|s| format!("{s}: "));
    let (word, service) = (word.unwrap_or_default(), service.unwrap_or_default());
    format!("{at}  {:<7}  {outcome:<8}  {word}{service}{}", event.kind, event.what)
}
