//! The machine: clock, zones, memory, power, journal.

use super::{Finding, bytes, error, ok, skip, warning};
use crate::config::Config;
use crate::host::{self, Memory};
use crate::model::{Clock, WindowState};
use crate::store::Look;

/// Less than this and the kernel may soon end a program.
const SCARCE: u64 = 48 << 20;

/// What a Raspberry Pi notes while its supply is too weak, and since the boot.
const WEAK_NOW: u32 = 1;
const WEAK_BEFORE: u32 = 1 << 16;

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) now: String,
    pub(super) clock: Clock,
    pub(super) is_synced: Option<bool>,
    /// How many windows there are, and what is not known of one's zone.
    pub(super) windows: (usize, Option<String>),
    pub(super) memory: Option<Memory>,
    pub(super) power: Option<u32>,
    pub(super) keeps_journal: Option<bool>,
}

/// `config` is absent when the settings are not accepted.
pub(super) async fn look(config: Option<&Config>, store: Option<&Look>) -> Machine {
    let now = host::now();
    let windows = config.map(|config| &config.plan.windows);
    let unknown = windows.into_iter().flatten().find_map(|window| match host::window(window, now) {
        WindowState::Unknown(why) => Some(why),
        WindowState::Open | WindowState::Closed { .. } => None,
    });
    Machine {
        now: host::time_in(std::time::Duration::ZERO),
        clock: host::trust(now, store.and_then(|look| look.clock.seen_at.as_deref())),
        is_synced: host::is_clock_synced().await,
        windows: (windows.map_or(0, std::collections::BTreeSet::len), unknown),
        memory: host::memory(),
        power: host::power(),
        keeps_journal: host::keeps_journal(),
    }
}

pub(super) fn judge(machine: &Machine) -> Vec<Finding> {
    vec![clock(machine), sync(machine), zones(machine), memory(machine), power(machine), journal(machine)]
}

fn clock(machine: &Machine) -> Finding {
    let id = "host-clock";
    match &machine.clock {
        Clock::Trusted => ok(id, machine.now.clone()),
        Clock::Untrusted(why) => error(id, why.clone(), "timedatectl set-ntp true, or set it by hand"),
    }
}

fn sync(machine: &Machine) -> Finding {
    let id = "host-time-sync";
    match machine.is_synced {
        None => skip(id, "nobody here says whether the clock is synchronized"),
        Some(true) => ok(id, "yes"),
        Some(false) => warning(
            id,
            "the clock is not synchronized",
            "timedatectl set-ntp true; is a time server reachable? Windows and TLS need the time",
        ),
    }
}

fn zones(machine: &Machine) -> Finding {
    let id = "host-zones";
    match &machine.windows {
        (0, _) => skip(id, "no window is set here; those of releases are told in `cotter status`"),
        (_, Some(why)) => error(id, why.clone(), "until then the window stays closed: see update.windows"),
        (n, None) => ok(id, format!("those of {n} windows")),
    }
}

fn memory(machine: &Machine) -> Finding {
    let id = "host-memory";
    let Some(memory) = machine.memory else { return skip(id, "the kernel does not say") };
    let told = format!("{} of {} available", bytes(memory.available), bytes(memory.total));
    if memory.available < SCARCE {
        return warning(id, told, "stop a service, or give those that take too much a mem_limit");
    }
    ok(id, told)
}

fn power(machine: &Machine) -> Finding {
    let id = "host-power";
    let remedy = "use the board's own power supply and a short cable: a weak one damages SD cards";
    match machine.power {
        None => skip(id, "only a Raspberry Pi says it"),
        Some(bits) if bits & WEAK_NOW != 0 => error(id, "too little voltage now", remedy),
        Some(bits) if bits & WEAK_BEFORE != 0 => warning(id, "too little voltage since the boot", remedy),
        Some(_) => ok(id, "never too little voltage since the boot"),
    }
}

fn journal(machine: &Machine) -> Finding {
    let id = "host-journal";
    match machine.keeps_journal {
        None => skip(id, "there is no systemd here"),
        Some(true) => ok(id, "/var/log/journal is there"),
        Some(false) => warning(
            id,
            "the journal is kept in memory, and what led to a crash is lost with it",
            "mkdir /var/log/journal && systemctl restart systemd-journald; SystemMaxUse= bounds it",
        ),
    }
}
