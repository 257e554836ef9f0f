//! The machine: clock, zones, memory, power, journal.

use super::{Finding, error, ok, skip, warning};
use crate::config::Config;
use crate::host::{self, Memory};
use crate::model::quantity::bytes;
use crate::model::{Clock, WindowState};
use crate::store::Inspection;

/// With less memory available, the kernel may soon end a process.
const SCARCE: u64 = 48 << 20;

/// Bits of a Raspberry Pi's throttling register: too little voltage now, and at any time since the boot.
const WEAK_NOW: u32 = 1;
const WEAK_BEFORE: u32 = 1 << 16;

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) now: String,
    pub(super) clock: Clock,
    pub(super) is_synced: Option<bool>,
    /// The number of windows, and the first error about the time zone of one.
    pub(super) windows: (usize, Option<String>),
    pub(super) memory: Option<Memory>,
    pub(super) power: Option<u32>,
    pub(super) keeps_journal: Option<bool>,
}

/// `config` is `None` if the settings are not accepted.
pub(super) async fn observe(config: Option<&Config>, store: Option<&Inspection>) -> Machine {
    let now = host::now();
    let windows = config.map(|config| &config.plan.windows);
    let unknown = windows.into_iter().flatten().find_map(|window| match host::window(window, now) {
        WindowState::Unknown(why) => Some(why),
        WindowState::Open | WindowState::Closed { .. } => None,
    });
    Machine {
        now: host::time_in(std::time::Duration::ZERO),
        clock: host::trust(now, store.and_then(|store| store.clock.seen_at.as_deref())),
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
        Clock::Untrusted(why) => {
            error(id, why.clone(), "`timedatectl set-ntp true`, or set the clock by hand")
        }
    }
}

fn sync(machine: &Machine) -> Finding {
    let id = "host-time-sync";
    match machine.is_synced {
        None => skip(id, "systemd does not say whether the clock is synchronized"),
        Some(true) => ok(id, "yes"),
        Some(false) => warning(
            id,
            "the clock is not synchronized",
            "`timedatectl set-ntp true`; is a time server reachable? Windows and TLS need the time",
        ),
    }
}

fn zones(machine: &Machine) -> Finding {
    let id = "host-zones";
    match &machine.windows {
        (0, _) => skip(id, "the settings have no window; `cotter status` shows those of releases"),
        (_, Some(why)) => error(
            id,
            why.clone(),
            "install tzdata, or correct the name in update.windows; until then the window stays closed",
        ),
        (n, None) => ok(id, format!("windows with known zones: {n}")),
    }
}

fn memory(machine: &Machine) -> Finding {
    let id = "host-memory";
    let Some(memory) = machine.memory else { return skip(id, "the kernel reports none") };
    let evidence = format!("{} of {} available", bytes(memory.available), bytes(memory.total));
    if memory.available < SCARCE {
        return warning(id, evidence, "stop a service, or set a mem_limit for those that use too much");
    }
    ok(id, evidence)
}

fn power(machine: &Machine) -> Finding {
    let id = "host-power";
    let remedy = "use the board's own power supply and a short cable: a weak one damages SD cards";
    match machine.power {
        None => skip(id, "this is not a Raspberry Pi"),
        Some(bits) if bits & WEAK_NOW != 0 => error(id, "too little voltage now", remedy),
        Some(bits) if bits & WEAK_BEFORE != 0 => warning(id, "too little voltage since the boot", remedy),
        Some(_) => ok(id, "never too little voltage since the boot"),
    }
}

fn journal(machine: &Machine) -> Finding {
    let id = "host-journal";
    match machine.keeps_journal {
        None => skip(id, "this machine has no systemd"),
        Some(true) => ok(id, "/var/log/journal exists"),
        Some(false) => warning(
            id,
            "the journal is only in memory: a reboot loses it, and with it the cause of a crash",
            "`mkdir /var/log/journal && systemctl restart systemd-journald`; SystemMaxUse= limits its size",
        ),
    }
}
