//! Asks webhooks whether a wave of a rollout may begin. It holds up nothing but that wave.
//!
//! That something is asked is stored before, so that no other server asks, too, and a server that was killed does not ask more
//! often than it should.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::clock;
use super::courier::Courier;
use super::policy::{Attempt, World};
use super::records::{ActError, Records};
use super::rollout::Rollout;
use super::webhook;

/// The pause between two looks for questions.
const PAUSE: Duration = Duration::from_millis(500);

/// Asks what is to be asked; never returns.
pub(super) async fn keep_up(records: &Arc<Records>, courier: &Courier) -> Infallible {
    let (mut asking, mut busy) = (JoinSet::new(), BTreeSet::new());
    loop {
        if !records.is_paused() {
            for (fleet, number) in due(&records.world(), &mut busy) {
                asking.spawn(ask(Arc::clone(records), courier.clone(), fleet, number));
            }
        }
        tokio::select! {
            Some(asked) = asking.join_next() => {
                if let Ok(number) = asked {
                    busy.remove(&number);
                }
            }
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Returns the fleets and numbers of the rollouts whose webhook is to be asked now.
fn due(world: &World, busy: &mut BTreeSet<u64>) -> Vec<(u64, u64)> {
    let now = clock::now();
    let is_due = |rollout: &&Arc<Rollout>| {
        let is_asking = rollout.question.as_ref().is_some_and(|question| webhook::is_due(question.next, now));
        rollout.phase.is_running() && is_asking && busy.insert(rollout.number)
    };
    let open = world.fleets().filter_map(|fleet| world.open_rollout(fleet.number));
    open.filter(is_due).map(|rollout| (rollout.fleet, rollout.number)).collect()
}

/// Asks, and stores the answer. Returns the number of the rollout.
async fn ask(records: Arc<Records>, courier: Courier, fleet: u64, number: u64) -> u64 {
    if let Err(error) = attempt(&records, &courier, fleet, number).await {
        tracing::warn!(rollout = number, %error, "the answer of a webhook is not recorded");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    number
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
    let question = rollout.question.as_ref().ok_or_else(gone)?;
    let id = webhook::id_of(&format!("{} {} {}", rollout.number, question.wave, question.since));
    let body = webhook::question(rollout, world.subject_of(rollout), question.wave, clock::now());
    courier.ask(webhook, &id, &body).await
}
