//! Decides which copy is taken after a restart. Pure.
//!
//! Each save has a number `n`. It writes the database and syncs it, writes a mirror and syncs it, and then returns to
//! the caller.
//!
//! | power cut                    | database | mirrors  | taken         | returned to the caller    |
//! |------------------------------|----------|----------|---------------|---------------------------|
//! | before the database          | n-1      | n-1, n-2 | database, n-1 | n-1                       |
//! | database written             | n        | n-1, n-2 | database, n   | n-1 (n is complete, too)  |
//! | mirror half written          | n        | n-1, n-2 | database, n   | n-1; a rename is all or nothing |
//! | mirror written               | n        | n-1, n   | database, n   | n                         |
//! | database failed, mirror went | n-1      | n-1, n   | mirror, n     | n-1, and an error for n   |
//!
//! So the newest intact copy has everything that was returned as saved; on a tie the database is taken. If the database
//! is lost, the newer mirror has everything; if both mirrors are lost, the database has. A database that lost its tail
//! unnoticed is older than the mirror, so the mirror is taken.

use super::mirror::Found;
use super::records::Snapshot;
use super::slot::Slot;
use super::{Recovery, StoreError};
use crate::model::with_causes;

/// The copy to take, and what to do with the others.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// The content of the copy; empty if no copy could be read.
    pub(super) base: Snapshot,
    /// The error of a copy that cannot be read now, if it may be newer than `base`. Then nothing may be written yet,
    /// because an emptier copy with a greater number would win once that copy is readable again.
    pub(super) hidden: Option<StoreError>,
    /// A copy with an unknown number may become readable again, so our next number must be greater.
    pub(super) must_leap: bool,
    /// Files to move away before anything is written, and why.
    pub(super) aside: Vec<&'static str>,
    pub(super) why_aside: String,
    pub(super) notes: Vec<Recovery>,
}

/// The result of comparing the two mirrors.
#[derive(Default)]
struct Mirrored {
    best: Option<(Slot, Snapshot)>,
    hidden: Option<StoreError>,
    lost: Vec<(Slot, String)>,
    foreign: Vec<&'static str>,
}

/// Takes the copy with the greatest number, the database's on a tie.
pub(super) fn choose(database: Found, mirrors: [Found; 2]) -> Choice {
    let mirrored = compare(mirrors);
    let mut choice = Choice { must_leap: mirrored.hidden.is_some(), ..Choice::default() };
    let is_known = mirrored.best.is_some() || matches!(database, Found::Whole(_));
    let may_be_old = !mirrored.lost.is_empty();
    let is_all_lost = mirrored.lost.iter().any(|(_, why)| why != MISSING);
    for (slot, why) in mirrored.lost {
        if is_known || why != MISSING {
            choice.notes.push(Recovery::MirrorLost { slot, why });
        }
    }
    choice.aside = mirrored.foreign;
    if !choice.aside.is_empty() {
        choice.why_aside = "a mirror was written by a later version of cotter".to_owned();
    }
    match (database, mirrored.best) {
        (Found::Whole(ours), Some((from, theirs))) if theirs.seq > ours.seq => {
            choice.notes.push(Recovery::CaughtUp { from, database: ours.seq, mirror: theirs.seq });
            choice.base = theirs;
        }
        (Found::Whole(ours), _) => {
            choice.notes.push(Recovery::Opened);
            choice.base = ours;
        }
        (Found::Unreadable(error), best) => {
            choice.must_leap = true;
            let from = best.as_ref().map(|(slot, _)| *slot);
            choice.notes.push(Recovery::Unavailable { from, why: with_causes(&error) });
            choice.hidden = (best.is_none() || mirrored.hidden.is_some()).then_some(error);
            choice.base = best.map(|(_, snapshot)| snapshot).unwrap_or_default();
        }
        (lost @ (Found::Nothing | Found::Damaged(_) | Found::Foreign(_)), best) => {
            let is_new = matches!(lost, Found::Nothing) && !is_all_lost;
            if let Found::Damaged(why) | Found::Foreign(why) = lost {
                choice.aside.insert(0, "db");
                choice.why_aside = why;
            }
            choice.hidden = mirrored.hidden.filter(|_| best.is_none());
            choice.notes.push(match (&best, &choice.hidden) {
                (Some((from, _)), _) => Recovery::Rebuilt { from: *from, may_be_old },
                (None, Some(error)) => Recovery::Unavailable { from: None, why: with_causes(error) },
                (None, None) if is_new => Recovery::Created,
                (None, None) => Recovery::StartedEmpty,
            });
            choice.base = best.map(|(_, snapshot)| snapshot).unwrap_or_default();
        }
    }
    choice
}

const MISSING: &str = "it is missing";

/// Finds the newer intact mirror, and collects the lost ones.
fn compare(mirrors: [Found; 2]) -> Mirrored {
    let mut mirrored = Mirrored::default();
    for (slot, found) in Slot::BOTH.into_iter().zip(mirrors) {
        match found {
            Found::Whole(snapshot) => {
                if mirrored.best.as_ref().is_none_or(|(_, best)| snapshot.seq > best.seq) {
                    mirrored.best = Some((slot, snapshot));
                }
            }
            Found::Nothing => mirrored.lost.push((slot, MISSING.to_owned())),
            Found::Damaged(why) => mirrored.lost.push((slot, why)),
            Found::Foreign(why) => {
                mirrored.lost.push((slot, why));
                mirrored.foreign.push(slot.file_name());
            }
            Found::Unreadable(error) => {
                mirrored.lost.push((slot, with_causes(&error)));
                mirrored.hidden = Some(error);
            }
        }
    }
    mirrored
}
