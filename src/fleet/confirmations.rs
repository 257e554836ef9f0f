//! Asks webhooks whether a wave of a rollout may begin. It holds up nothing but that wave.
//!
//! That something is asked is stored before, so that no other server asks, too, and a server that was killed does not ask more
//! often than it should.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::clock;
use super::courier::Courier;
use super::one_each::OneEach;
use super::policy::{Attempt, World};
use super::records::{ActError, Records};
use super::rollout::Rollout;
use super::webhook;

/// The pause between two looks for questions.
const PAUSE: Duration = Duration::from_millis(500);

/// Asks what is to be asked; never returns.
pub(super) async fn keep_up(records: &Arc<Records>, courier: &Courier) -> Infallible {
    let mut asking = OneEach::default();
    loop {
        if !records.is_paused() {
            for (fleet, number) in due(&records.world()) {
                asking.start(number, ask(Arc::clone(records), courier.clone(), fleet, number));
            }
        }
        tokio::select! {
            () = asking.ended() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Returns the fleets and numbers of the rollouts whose webhook is to be asked now.
fn due(world: &World) -> Vec<(u64, u64)> {
    let now = clock::now();
    let is_due = |rollout: &&Arc<Rollout>| {
        let question = rollout.question.as_ref();
        rollout.phase.is_running() && question.is_some_and(|question| webhook::is_due(question.next, now))
    };
    let open = world.fleets().filter_map(|fleet| world.open_rollout(fleet.number));
    open.filter(is_due).map(|rollout| (rollout.fleet, rollout.number)).collect()
}

/// Asks, and stores the answer.
async fn ask(records: Arc<Records>, courier: Courier, fleet: u64, number: u64) {
    if let Err(error) = attempt(&records, &courier, fleet, number).await {
        tracing::warn!(rollout = number, %error, "the answer of a webhook is not recorded");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

async fn attempt(records: &Records, courier: &Courier, fleet: u64, number: u64) -> Result<(), ActError> {
    let begin = move |world: &World| {
        let asked = world.ask_webhook(fleet, number, clock::now());
        Ok(asked.map_or((None, Vec::new()), |(rollout, changes)| (Some(rollout), changes)))
    };
    let Some(rollout) = records.act(begin).await? else { return Ok(()) };
    let answer = answer(records, courier, &rollout).await;
    match &answer {
        Ok(()) => tracing::info!(rollout = number, "a webhook lets a wave begin"),
        Err(Attempt { why, .. }) => tracing::warn!(rollout = number, why, "a webhook holds a wave"),
    }
    records.act(move |world: &World| Ok(((), world.answer_webhook(&rollout, answer, clock::now())))).await
}

async fn answer(records: &Records, courier: &Courier, rollout: &Rollout) -> Result<(), Attempt> {
    let gone = || Attempt { why: "there is no such webhook any more".to_owned(), retry_after: None };
    let (world, name) = (records.world(), rollout.definition.confirm.as_deref().unwrap_or_default());
    let webhook = world.webhook(name).ok_or_else(gone)?;
    if !webhook::is_authenticated(&webhook.url) {
        let why = "its URL is http to another machine, so its answer would prove nothing".to_owned();
        return Err(Attempt { why, retry_after: None });
    }
    let question = rollout.question.as_ref().ok_or_else(gone)?;
    let id = webhook::id_of(&format!("{} {} {}", rollout.number, question.wave, question.since));
    let body = webhook::question(rollout, world.subject_of(rollout), question.wave, clock::now());
    courier.ask(webhook, &id, &body).await
}
