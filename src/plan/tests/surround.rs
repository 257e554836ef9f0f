//! Words for what is around a device: locks, windows, weights, ports, and what an operator said.

use std::time::Duration;

use super::{Device, app, hash, image, name, release};
use crate::model::{
    Clock, ContainerId, Cooling, FileLock, Halt, HeldPort, Lease, Protocol, Step, Weight, Window, WindowState,
};

const MIB: u64 = 1 << 20;

fn of(text: &str) -> (&str, u8) {
    let (service, number) = text.split_once('@').unwrap();
    (service, number.parse().unwrap())
}

fn container(text: &str) -> ContainerId {
    ContainerId::parse(text.replace('@', "-")).unwrap()
}

impl Device {
    /// Reads an item; `false` when `word` is none of these.
    pub(super) fn surround(&mut self, word: &str, words: &[&str]) -> bool {
        self.surround_by_gate(word, words)
            || self.surround_by_host(word, words)
            || self.surround_by_hand(word, words)
    }

    fn surround_by_gate(&mut self, word: &str, words: &[&str]) -> bool {
        let window = || Window::parse("02:00-04:00").unwrap();
        match word {
            "lock" => {
                let lock = FileLock { path: "/tmp/balena/updates.lock".into() };
                self.facts.locks.entry(app()).or_default().insert(name(words[1]), lock);
            }
            "lease" => {
                self.facts.uptime = Duration::from_secs(100);
                let boot_id = if words[1] == "old" { "another" } else { "boot" }.to_owned();
                let until = Duration::from_secs(if words[1] == "over" { 100 } else { 130 });
                let (id, owner, reason) = ("1".into(), "backup".into(), "copying".into());
                self.ledger.leases.push(Lease { id, owner, reason, boot_id, until });
            }
            "own" => drop(self.facts.own_locks.insert(app())),
            "forced" => {
                let key = release(words[1].parse().unwrap()).key();
                self.ledger.apps.entry(app()).or_default().forced = Some(key);
            }
            "override" => self.target.as_mut().unwrap().is_lock_overridden = true,
            "window" => {
                self.settings.windows = [window()].into();
                let state = match words[1] {
                    "open" => WindowState::Open,
                    "unknown" => WindowState::Unknown("no zone is known".into()),
                    seconds => {
                        WindowState::Closed { opens_in: Duration::from_secs(seconds.parse().unwrap()) }
                    }
                };
                self.facts.windows = [(window(), state)].into();
            }
            "clock" => self.facts.clock = Clock::Untrusted("it is 1970".into()),
            "waited" => {
                self.ledger.clock.waited = Duration::from_secs(3600 * words[1].parse::<u64>().unwrap())
            }
            _ => return false,
        }
        true
    }

    fn surround_by_host(&mut self, word: &str, words: &[&str]) -> bool {
        match word {
            "cut" => {
                let cut_off = container(words[1]);
                let mut seen = self.observed.services.iter_mut();
                seen.find(|s| s.container == cut_off).unwrap().is_cut_off = true;
            }
            "free" => self.facts.free = Some(words[1].parse::<u64>().unwrap() * MIB),
            "reserve" => self.settings.disk_reserve = words[1].parse::<u64>().unwrap() * MIB,
            "weight" => {
                let (service, number) = of(words[1]);
                let weight = self.facts.weights.entry(image(service, number)).or_default();
                for layer in &words[2..] {
                    let (id, bytes) = layer.split_once('=').unwrap();
                    weight.layers.push((id.to_owned(), bytes.parse::<u64>().unwrap() * MIB));
                }
            }
            "unweighed" => {
                let (service, number) = of(words[1]);
                self.facts.weights.remove(&image(service, number));
            }
            "weighing" => {
                let (service, number) = of(words[1]);
                self.facts.weights.remove(&image(service, number));
                self.weighing.insert(image(service, number));
            }
            "layers" => self.facts.layers = Some(words[1..].iter().map(|&layer| layer.to_owned()).collect()),
            "arch" => self.facts.architecture = Some(words[1].to_owned()),
            "made" => {
                let (service, number) = of(words[1]);
                let architectures = words[2..].iter().map(|&made| made.to_owned()).collect();
                self.facts
                    .weights
                    .insert(image(service, number), Weight { architectures, ..Weight::default() });
            }
            "port" => {
                let holder = words.get(3).map(|text| container(text));
                let by = words.get(3).unwrap_or(&"another program").to_string();
                let host_ip =
                    words.get(2).filter(|ip| **ip != "*").map_or(String::new(), |ip| (*ip).to_owned());
                let (port, protocol) = (words[1].parse().unwrap(), Protocol::Tcp);
                self.facts.ports.push(HeldPort { host_ip, port, protocol, container: holder, by });
            }
            _ => return false,
        }
        true
    }

    fn surround_by_hand(&mut self, word: &str, words: &[&str]) -> bool {
        let ledger = self.ledger.apps.entry(app()).or_default();
        match word {
            "halted" => {
                let (service, number) = of(words[1]);
                let halt = Halt { spec: hash(service, number), since: "noon".into() };
                ledger.halted.insert(name(service), halt);
            }
            "left" => drop(self.facts.left_behind.insert(container(words[1]))),
            "restart" => drop(ledger.restart.insert(container(words[1]))),
            "healed" => drop(ledger.heals.insert(name(words[1]), words[2].parse().unwrap())),
            "said" => drop(self.facts.handed_over.insert((app(), name(words[1])))),
            "beside" => {
                let ran = Duration::from_secs(words[2].parse().unwrap());
                ledger.trial.as_mut().unwrap().hand_over.insert(name(words[1]), ran);
            }
            "parked" => {
                let (service, number) = of(words[1]);
                self.add_container(service, number, "dead");
                let seen = self.observed.services.pop().unwrap();
                self.observed.parked.push(seen);
            }
            // A step that failed so often, and may be tried again now, later, or is given up.
            "tried" | "spent" | "putoff" => {
                let attempts = words[3].parse().unwrap();
                let step = self.step(words[1], words[2]);
                let remaining = match word {
                    "tried" => Some(Duration::ZERO),
                    "putoff" => Some(Duration::from_secs(9)),
                    _ => None,
                };
                self.cooling.insert(step, Cooling { attempts, why: "no".into(), remaining });
            }
            _ => return false,
        }
        true
    }

    fn step(&self, verb: &str, text: &str) -> Step {
        let (service, number) = of(text);
        let (app, service, container) = (app(), name(service), container(text));
        match verb {
            "stop" => Step::Stop { app, service, container, grace: Duration::from_secs(10) },
            "kill" => Step::Kill { app, service, container },
            "remove" => Step::Remove { app, service, container },
            "remove-by-force" => Step::RemoveByForce { app, service, container },
            "reconnect" => Step::Reconnect { app, service, container },
            "start" => Step::Start { app, service, container },
            "pull" => Step::Pull { image: image(service.as_str(), number) },
            other => panic!("no step {other}"),
        }
    }
}
