//! Gives, renews and ends leases, and lets a release ignore locks.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{Answer, AppId, AppLedger, Lease, Ledger, Release, TargetApp, WantedApp};
use crate::plan::gate::may_lock;
use crate::plan::situation::Situation;

use super::lookup::{check_not_held, find_app, name_of_app};

/// How many leases may be in force, so that a program that never releases them does not fill the disk.
const MOST: usize = 64;

/// Gives a lease, except during an update or a rollback. A swap that has begun is finished, so the lease would have no
/// effect on it.
pub(super) fn give(at: &Situation, ledger: &mut Ledger, lease: &Lease) -> Result<String, Answer> {
    let is_under_way = |(id, app): &(&AppId, &AppLedger)| {
        app.good.is_some() && (app.trial.is_some() || at.facts.own_locks.contains(*id))
    };
    if let Some((id, _)) = at.ledger.apps.iter().find(is_under_way) {
        let why = format!("an update of {} is under way; ask again when it is done", name_of_app(at, id));
        return Err(Answer::Held(why));
    }
    ledger.leases.retain(|other| other.id != lease.id);
    if ledger.leases.len() >= MOST {
        return Err(Answer::Refused(format!("there are {MOST} locks already; release one first")));
    }
    ledger.leases.push(lease.clone());
    Ok(format!("updates are locked; `cotter lock release {}` unlocks them", lease.id))
}

pub(super) fn renew(ledger: &mut Ledger, id: &str, until: Duration) -> Result<String, Answer> {
    let lease = ledger.leases.iter_mut().find(|lease| lease.id == id).ok_or_else(|| no_lock(id))?;
    lease.until = until;
    Ok(format!("lock {id} of {} is renewed", lease.owner))
}

pub(super) fn end(ledger: &mut Ledger, id: &str) -> Result<String, Answer> {
    let place = ledger.leases.iter().position(|lease| lease.id == id).ok_or_else(|| no_lock(id))?;
    let lease = ledger.leases.remove(place);
    let rest = match ledger.leases.len() {
        0 => "",
        1 => "; another one is in force",
        _ => "; others are in force",
    };
    Ok(format!("lock {id} of {} is released{rest}", lease.owner))
}

fn no_lock(id: &str) -> Answer {
    Answer::NotFound(format!("there is no lock {id}; it may have ended"))
}

/// Lets the wanted release of one app, or of all apps, ignore locks and windows.
pub(super) fn force(at: &Situation, ledger: &mut Ledger, app: Option<&str>) -> Result<String, Answer> {
    let chosen = app.map(|app| find_app(at, app)).transpose()?;
    let mut answer = Vec::new();
    for (id, app) in at.target.iter().flat_map(|target| &target.apps) {
        let is_chosen = chosen.as_ref().is_none_or(|chosen| chosen == id);
        let TargetApp::Wanted(WantedApp { release: Some(release), .. }) = app else { continue };
        if !is_chosen {
            continue;
        }
        ledger.apps.entry(id.clone()).or_default().forced = Some(release.key());
        let (commit, name) = (&release.commit, name_of_app(at, id));
        answer.push(format!("release {commit} of {name} passes locks and windows once"));
        if is_rejected(at, id, release) {
            answer.push(format!("{commit} was rejected, and `cotter retry` tries it again"));
        }
    }
    if answer.is_empty() {
        let of = chosen.map_or_else(String::new, |id| format!(" of {}", name_of_app(at, &id)));
        return Err(Answer::Refused(format!("no release{of} is wanted that could pass locks")));
    }
    if ledger.hold.is_some() {
        answer.push("nothing is swapped before `cotter unhold`".to_owned());
    }
    Ok(answer.join("; "))
}

fn is_rejected(at: &Situation, app: &AppId, release: &Release) -> bool {
    let rejected = at.ledger.apps.get(app).and_then(|entry| entry.rejected.as_ref());
    rejected.is_some_and(|rejected| rejected.release == release.key())
}

/// Refuses to end the run of the host while the device is held, or while updates of any app are locked.
pub(super) fn check_power(at: &Situation, is_forced: bool) -> Result<String, Answer> {
    check_not_held(&at.ledger)?;
    let known: BTreeSet<_> = at.ledger.apps.keys().chain(at.facts.locks.keys()).collect();
    for app in known {
        check_not_locked(at, app, is_forced)?;
    }
    Ok(String::new())
}

/// Refuses an order while updates of `app` are locked, unless the operator or the target overrides locks.
pub(super) fn check_not_locked(at: &Situation, app: &AppId, is_forced: bool) -> Result<(), Answer> {
    if is_forced || at.target.as_ref().is_some_and(|target| target.is_lock_overridden) {
        return Ok(());
    }
    let held = |by: String| Err(Answer::Held(format!("updates are locked by {by}; --force passes this")));
    let ledger = at.ledger.apps.get(app);
    let mut files = at.facts.locks.get(app).into_iter().flatten();
    if let Some((service, lock)) = files.find(|(service, _)| may_lock(&at.observed, ledger, app, service)) {
        return held(format!("service {service} of {}: {}", name_of_app(at, app), lock.path));
    }
    let mut leases = at.ledger.leases.iter();
    match leases.find(|lease| lease.is_in_force(&at.boot_id, at.facts.uptime)) {
        Some(lease) => held(format!("{}: {} (lock {})", lease.owner, lease.reason, lease.id)),
        None => Ok(()),
    }
}
