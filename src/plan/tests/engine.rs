//! A model of the engine: applies steps, and the passing of time, to the device of a story.

use std::collections::BTreeMap;
use std::time::Duration;

use super::story::{Device, app, hash, range, release, target};
use crate::model::{
    ContainerId, ContainerState, Facts, ImageSize, NetworkId, NetworkSpec, ObservedNetwork, ObservedService,
    Rejection, SpecHash, Step, Subnet, Trial,
};

impl Device {
    /// Sets another target. A trial and a rejection of other releases are forgotten, as in the reconciler.
    pub(super) fn retarget(&mut self, number: u8) {
        self.target = Some(target(Some(release(number))));
        let key = release(number).key();
        for ledger in self.ledger.apps.values_mut() {
            ledger.trial.take_if(|trial| trial.release != key);
            ledger.rejected.take_if(|rejected| rejected.release != key);
        }
    }

    /// Removes everything that delays an update.
    pub(super) fn clear_the_way(&mut self) {
        let uptime = self.facts.uptime;
        self.facts = Facts {
            image_sizes: std::mem::take(&mut self.facts.image_sizes),
            own_locks: std::mem::take(&mut self.facts.own_locks),
            uptime,
            ..Facts::default()
        };
        (self.ledger.hold, self.ledger.leases) = (None, Vec::new());
        self.settings.windows.clear();
        self.ledger.apps.values_mut().for_each(|app| app.stopped_by_operator.clear());
    }

    /// Ten seconds pass in which nothing changes.
    pub(super) fn pass(&mut self) {
        self.steady = BTreeMap::from([(app(), Duration::from_secs(10))]);
    }

    /// The agent is killed right after it has sent the call of this step.
    pub(super) fn send(&mut self, step: &Step) {
        if let Step::Start { container, .. } = step {
            self.late.insert(container.clone());
        } else {
            self.apply(step, |_| true);
        }
    }

    /// The engine carries out the starts that were still under way.
    pub(super) fn finish_late_starts(&mut self) {
        for id in std::mem::take(&mut self.late) {
            for seen in self.observed.services.iter_mut().filter(|seen| seen.container == id) {
                if matches!(seen.state, ContainerState::Created | ContainerState::Exited { .. }) {
                    seen.state = ContainerState::Running;
                }
            }
        }
    }

    /// Services of which two containers run, except those that hand over.
    pub(super) fn doubles(&self) -> Vec<String> {
        let up =
            |s: &&ObservedService| matches!(s.state, ContainerState::Running | ContainerState::Restarting);
        let mut running: Vec<_> = self.observed.services.iter().filter(up).collect();
        running.sort_by(|a, b| a.service.cmp(&b.service));
        let is_double = |pair: &&[&ObservedService]| {
            let hands_over = pair.iter().any(|s| s.spec == hash("web", 11));
            pair[0].service == pair[1].service && !hands_over
        };
        running.windows(2).filter(is_double).map(|pair| pair[0].service.to_string()).collect()
    }

    /// Applies a step that works.
    pub(super) fn apply(&mut self, step: &Step, works: impl Fn(&SpecHash) -> bool) {
        // The engine ends one call on a container before it begins the next.
        let was_late = step.container().is_some_and(|id| self.late.remove(id));
        let at =
            |id: &ContainerId, all: &[ObservedService]| all.iter().position(|s| s.container == *id).unwrap();
        let all = &mut self.observed.services;
        let ledger = self.ledger.apps.entry(app()).or_default();
        match step {
            Step::Pull { image } => {
                self.ledger.images.insert(image.clone());
                self.observed.images.insert(image.clone());
            }
            Step::CreateNetwork { config_hash: None, .. } => self.add_network(),
            Step::CreateNetwork { config_hash: Some(config), .. } => {
                let others = self.observed.networks.iter().flat_map(|n| n.subnets.clone());
                let others: Vec<_> = others.collect();
                let subnets = vec![Subnet { subnet: Some(range(config)), ..Subnet::default() }];
                if !(NetworkSpec { subnets, ..NetworkSpec::default() }).overlaps(&others) {
                    self.add_lan(config);
                }
            }
            Step::Reconnect { container, .. } => {
                let n = at(container, all);
                all[n].networks.values_mut().for_each(|id| *id = None);
                all[n].is_cut_off = false;
            }
            Step::Create { service, spec, .. } => {
                let number = (1..=22).find(|n| hash(service.as_str(), *n) == *spec).unwrap();
                self.add_container(service.as_str(), number, "created");
            }
            Step::Start { container, .. } => {
                ledger.stopped_by_agent.remove(container);
                let n = at(container, all);
                let runs = |id: &ContainerId| {
                    all.iter().any(|s| s.container == *id && s.state == ContainerState::Running)
                };
                assert!(!all[n].is_cut_off, "it cannot be started: {step}");
                if !all[n].joins.values().all(runs) {
                    return; // the engine refuses it
                }
                let Some(met) = meet_networks(&all[n], &self.observed.networks) else {
                    return; // the engine refuses it
                };
                all[n].networks = met;
                let joined = all.iter().filter(|s| s.joins.values().any(|id| id == container));
                self.facts.left_behind.extend(joined.map(|s| s.container.clone()));
                self.facts.left_behind.remove(container);
                all[n].state =
                    if works(&all[n].spec) { ContainerState::Running } else { ContainerState::Restarting };
            }
            Step::Stop { container, .. } => {
                ledger.stopped_by_agent.insert(container.clone());
                let n = at(container, all);
                all[n].state = ContainerState::Exited { code: 143 };
            }
            Step::Fence { container, .. } => {
                let n = at(container, all);
                if all[n].state == ContainerState::Created {
                    ledger.stopped_by_agent.insert(container.clone());
                }
                if was_late {
                    all[n].state = ContainerState::Exited { code: 143 };
                }
            }
            Step::MeasureImage { image } => {
                drop(self.facts.image_sizes.insert(image.clone(), ImageSize::default()))
            }
            Step::Heal { service, .. } => *ledger.heals.entry(service.clone()).or_default() += 1,
            Step::Unlock { .. } => drop(self.facts.own_locks.remove(&app())),
            Step::Park { container, .. } => {
                let n = at(container, all);
                let seen = all.remove(n);
                self.observed.parked.push(seen);
            }
            Step::Kill { container, .. } => {
                let n = at(container, all);
                all[n].state = ContainerState::Exited { code: 137 };
            }
            Step::Remove { container, .. } | Step::RemoveByForce { container, .. } => {
                let n = at(container, all);
                all.remove(n);
            }
            Step::RemoveNetwork { id, .. } => {
                let is_on = |s: &ObservedService| s.networks.values().any(|on| on.as_ref() == Some(id));
                assert!(!all.iter().any(|s| is_on(s) && s.state == ContainerState::Running), "it is in use");
                self.observed.networks.retain(|n| n.id != *id);
            }
            Step::RemoveImage { image } => {
                self.observed.images.remove(image);
                self.ledger.images.remove(image);
            }
            Step::Try { release: commit, .. } => {
                self.facts.own_locks.insert(app());
                let release = release(commit.as_str().parse().unwrap()).key();
                let (ran, boots, boot_id) = (Duration::ZERO, 0, String::new());
                ledger.trial = Some(Trial { release, ran, boots, boot_id, hand_over: BTreeMap::new() });
            }
            Step::Reject { release: commit, why, .. } => {
                let release = release(commit.as_str().parse().unwrap()).key();
                (ledger.rejected, ledger.trial) = (Some(Rejection { release, why: why.clone() }), None);
            }
            Step::Accept { release: commit, .. } => {
                let good = release(commit.as_str().parse().unwrap());
                let replaced = ledger.good.replace(good.clone());
                ledger.previous = replaced.filter(|r| *r != good).or(ledger.previous.take());
                (ledger.trial, ledger.rejected) = (None, None);
            }
            Step::Forget { .. } => self.ledger.apps.clear(),
        }
    }
}

/// The networks to which a container is connected when it starts: by their ids if it has run before, else by name.
/// `None`: one of them is missing, and the engine refuses the start.
pub(super) fn meet_networks(
    seen: &ObservedService,
    here: &[ObservedNetwork],
) -> Option<BTreeMap<String, Option<NetworkId>>> {
    let meet = |(name, id): (&String, &Option<NetworkId>)| {
        let found = here.iter().find(|n| id.as_ref().map_or(n.name == *name, |id| n.id == *id))?;
        Some((name.clone(), Some(found.id.clone())))
    };
    seen.networks.iter().map(meet).collect()
}
