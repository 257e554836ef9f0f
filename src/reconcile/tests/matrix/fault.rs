//! What goes wrong, and where.

use std::collections::BTreeSet;
use std::time::Duration;

use super::cell::Measure;
use super::scenario::Scenario;
use crate::engine::fake::Fault as Call;

/// A column of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    AgentKilled,
    PowerCut,
    EngineHangs,
    CallFails,
    /// The agent is killed as well, a little later.
    CallFailsAndKilled,
    EngineKilled,
    /// The agent is killed while the engine is at a call, which the engine ends in a later life of the agent.
    CallOutlivesAgent,
    /// As [`CallOutlivesAgent`](Self::CallOutlivesAgent), and meanwhile the release before is wanted again.
    CallOutlivesTarget,
    /// The agent gives a call up, then the release before is wanted again, and then the engine ends the call.
    CallOutlivesDeadline,
    StoreFull,
    /// The agent is killed as well, while nothing can be saved.
    StoreFullAndKilled,
    /// With the agent: one that runs has it all in memory.
    StoreLost,
    RegistryLost,
    TenYearsAhead,
    TenYearsBack,
    /// The engine stands still for no time: what a clock that jumps is held against.
    Nothing,
}

/// The faults, and the words that name them.
pub(super) const FAULTS: &[(Fault, &str)] = &[
    (Fault::AgentKilled, "agent-killed"),
    (Fault::PowerCut, "power-cut"),
    (Fault::EngineKilled, "engine-killed"),
    (Fault::EngineHangs, "engine-hangs"),
    (Fault::CallOutlivesAgent, "call-outlives-agent"),
    (Fault::CallOutlivesTarget, "call-outlives-target"),
    (Fault::CallOutlivesDeadline, "call-outlives-deadline"),
    (Fault::CallFails, "call-fails"),
    (Fault::CallFailsAndKilled, "call-fails-killed"),
    (Fault::StoreFull, "store-full"),
    (Fault::StoreFullAndKilled, "store-full-killed"),
    (Fault::StoreLost, "store-lost"),
    (Fault::RegistryLost, "registry-lost"),
    (Fault::TenYearsAhead, "clock+10y"),
    (Fault::TenYearsBack, "clock-10y"),
];

/// A boundary: an engine call or a save, counted from the beginning of the scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The call has not happened, or has.
    Before(usize),
    After(usize),
    /// A container is created only in part.
    Midway(usize),
    /// This one call goes wrong by itself.
    In(usize, Call),
    /// What changes the store is not written yet, or is.
    BeforeSave(u32),
    AfterSave(u32),
}

/// Every place where `fault` makes a difference, in a scenario of so many calls, of which some create containers, and
/// saves.
pub(super) fn places(fault: Fault, measure: &Measure) -> Vec<Place> {
    let Measure { calls, saves, .. } = *measure;
    let midway = measure.creations.iter().copied().map(Place::Midway);
    let before = (0..calls).map(Place::Before);
    let after = (0..calls).map(Place::After);
    let at_saves = (0..saves).map(Place::AfterSave);
    let all = before.clone().chain(after).chain(at_saves.clone());
    match fault {
        Fault::AgentKilled | Fault::PowerCut => {
            all.chain((0..saves).map(Place::BeforeSave)).chain(midway).collect()
        }
        Fault::EngineHangs => all.chain(each(calls, &[Call::Hang])).collect(),
        Fault::EngineKilled | Fault::StoreLost => all.collect(),
        Fault::CallOutlivesAgent | Fault::CallOutlivesTarget => {
            each(calls, &[Call::Late(Duration::from_secs(1)), Call::Late(Duration::from_secs(4))])
        }
        Fault::CallOutlivesDeadline => each(calls, &[Call::Late(Duration::from_secs(63))]),
        Fault::CallFails => each(calls, &[Call::Error, Call::ErrorAfter, Call::Unreachable]),
        Fault::CallFailsAndKilled => each(calls, &[Call::Error, Call::ErrorAfter, Call::Hang]),
        Fault::StoreFull | Fault::StoreFullAndKilled => (0..saves).map(Place::BeforeSave).collect(),
        Fault::RegistryLost | Fault::TenYearsAhead | Fault::TenYearsBack | Fault::Nothing => {
            before.chain(at_saves).collect()
        }
    }
}

/// Each of these kinds of failure at each call.
fn each(calls: usize, kinds: &[Call]) -> Vec<Place> {
    (0..calls).flat_map(|n| kinds.iter().map(move |kind| Place::In(n, *kind))).collect()
}

/// How it may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Exactly this release runs, and it is the good one.
    Runs(u8),
    /// Release 2 keeps crashing, there is nothing to roll back to, and a wait says so.
    Degraded,
    /// Release 1 runs, and a wait says that 2 does not: no good release is remembered to roll back to.
    Kept,
    /// Nothing runs, and a wait says so: release 2 is wanted and was tried, and it is not remembered that it failed.
    Down,
    /// Release 2 is good, and what the engine does not restart ended with it.
    Ended,
}

impl End {
    /// Whether this is it, by what runs.
    pub(super) fn is_it(self, scenario: &Scenario, runs: &str) -> bool {
        // Predecessors stay, stopped, for as long as their successors are not well.
        let is_predecessor = |word: &&str| matches!(*word, "(db@1)" | "(web@1)");
        let others: Vec<_> = runs.split(' ').filter(|word| !is_predecessor(word)).collect();
        match self {
            Self::Runs(number) => runs == scenario.runs(number),
            Self::Degraded => {
                let beside = scenario.runs(2).replace("web@2", "(web@2)");
                // What shares the network of one that crashes cannot start, and its predecessor may go on.
                let (beside, stays) = if scenario.needs_web() {
                    (beside.replace("db@2", "(db@2)"), "db@1")
                } else {
                    (beside, "")
                };
                let others = others.iter().copied().filter(|word| *word != stays);
                others.collect::<BTreeSet<_>>() == beside.split(' ').collect()
            }
            Self::Ended | Self::Down => others.join(" ") == "(db@2) (web@2)",
            Self::Kept => runs == "(db@2) (web@2) db@1 web@1",
        }
    }

    /// The release that runs then, or is tried.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Runs(number) => number,
            Self::Kept => 1,
            Self::Degraded | Self::Down | Self::Ended => 2,
        }
    }

    /// A description for an end that differs from the expected one.
    pub(super) fn described(self) -> &'static str {
        match self {
            Self::Runs(1) => "the old release runs, exactly",
            Self::Runs(_) => "the release runs that an operator's lost order had taken back, exactly",
            Self::Degraded => {
                "the new release keeps crashing, and a wait says so: no good release is remembered"
            }
            Self::Kept => {
                "the old release runs, exactly, and a wait says that the new one does not: no good release is remembered"
            }
            Self::Down => {
                "nothing runs, and a wait says so: services of `restart: no` whose failure is not remembered"
            }
            Self::Ended => {
                "the new release is good, and what `restart: no` keeps down has ended with the engine"
            }
        }
    }

    /// The good release then.
    pub(super) fn good(self) -> Option<&'static str> {
        match self {
            Self::Runs(1) => Some("1"),
            Self::Runs(_) | Self::Ended => Some("2"),
            Self::Degraded | Self::Kept | Self::Down => None,
        }
    }
}

/// How it should end.
pub(super) fn right(scenario: &Scenario, fault: Fault) -> End {
    End::Runs(scenario.called_back_to(fault).unwrap_or(scenario.right))
}

/// How it may end, first of all what is right.
///
/// `is_answered` says of an operator's order whether it was, and is on disk.
pub(super) fn allowed(scenario: &Scenario, fault: Fault, is_answered: bool) -> Vec<End> {
    let right = right(scenario, fault);
    let is_kept = fault == Fault::StoreLost && scenario.is_bad && !scenario.restarts;
    let other = match fault {
        // What an operator ordered is in the store, and only there.
        Fault::StoreLost if scenario.is_by_hand() => Some(End::Runs(2)),
        Fault::AgentKilled
        | Fault::PowerCut
        | Fault::CallOutlivesAgent
        | Fault::CallOutlivesDeadline
        | Fault::StoreFullAndKilled
            if scenario.is_by_hand() && !is_answered =>
        {
            Some(End::Runs(2))
        }
        // So is what was good before: without it a bad release is as a first one.
        Fault::StoreLost if scenario.is_bad => Some(End::Degraded),
        // Where the predecessor goes first, no image in time is a release that does not come good.
        Fault::RegistryLost if scenario.needs_registry_in_time() => Some(End::Runs(1)),
        Fault::PowerCut | Fault::EngineKilled if !scenario.restarts => Some(End::Ended),
        Fault::AgentKilled
        | Fault::PowerCut
        | Fault::EngineHangs
        | Fault::CallFails
        | Fault::CallFailsAndKilled
        | Fault::EngineKilled
        | Fault::CallOutlivesAgent
        | Fault::CallOutlivesTarget
        | Fault::CallOutlivesDeadline
        | Fault::StoreFull
        | Fault::StoreFullAndKilled
        | Fault::StoreLost
        | Fault::RegistryLost
        | Fault::TenYearsAhead
        | Fault::TenYearsBack
        | Fault::Nothing => None,
    };
    std::iter::once(right)
        .chain(other)
        .chain(is_kept.then_some([End::Kept, End::Down]).into_iter().flatten())
        .collect()
}
