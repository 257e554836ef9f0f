//! Reads capabilities, ulimits and signals of a service.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::at::{At, Notes, digits};
use super::quantities::whole;
use crate::model::{Refusal, Ulimit};

/// Capabilities(7), without `CAP_`.
const CAPABILITIES: &str = "ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN \
    DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN \
    MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID \
    SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE \
    SYS_TIME SYS_TTY_CONFIG WAKE_ALARM";

/// Signal(7), without `SIG` and the numbers of real-time signals.
const SIGNALS: &str = "HUP INT QUIT ILL TRAP ABRT IOT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CLD \
    CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO POLL PWR SYS RTMIN RTMAX";

/// The limits of setrlimit(2) that the engine accepts.
const ULIMITS: &str = "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending \
    stack";

fn is_in(list: &str, word: &str) -> bool {
    list.split_ascii_whitespace().any(|known| known == word)
}

/// Reads `cap_add` or `cap_drop`, in upper case and without `CAP_`.
pub(super) fn capabilities(at: &At<'_>, notes: &mut Notes) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for item in notes.keep(at.list()).unwrap_or_default() {
        let read = item.text().and_then(|text| {
            let upper = text.to_ascii_uppercase();
            let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
            if is_in(CAPABILITIES, bare) {
                Ok(bare.to_owned())
            } else {
                Err(item.wrong("a Linux capability, e.g. \"NET_ADMIN\""))
            }
        });
        found.extend(notes.keep(read));
    }
    found
}

/// Reads `ulimits`: one number for both limits, or soft and hard; -1 is no limit.
pub(super) fn ulimits(at: &At<'_>, notes: &mut Notes) -> BTreeMap<String, Ulimit> {
    let mut found = BTreeMap::new();
    for (name, field) in notes.keep(at.map()).unwrap_or_default() {
        if !is_in(ULIMITS, name) {
            let known = ULIMITS.split_ascii_whitespace().collect::<Vec<_>>().join(", ");
            notes.refuse(field.refusal(format_args!("it is not a limit: write one of {known}")));
            continue;
        }
        found.extend(notes.keep(ulimit(&field)).map(|limit| (name.to_owned(), limit)));
    }
    found
}

fn ulimit(at: &At<'_>) -> Result<Ulimit, Refusal> {
    let number = |at: &At<'_>| whole(at, "a whole number, or -1 for no limit", -1..=i64::MAX);
    let Value::Object(_) = at.value else {
        let both = number(at)?;
        return Ok(Ulimit { soft: both, hard: both });
    };
    let (mut soft, mut hard) = (None, None);
    for (key, field) in at.map()? {
        match key {
            "soft" => soft = Some(number(&field)?),
            "hard" => hard = Some(number(&field)?),
            _ => return Err(field.unknown("it is not a field of a limit: write soft and hard")),
        }
    }
    let (Some(soft), Some(hard)) = (soft, hard) else {
        return Err(at.refusal("it needs both soft and hard: write both, or one number"));
    };
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(
            at.refusal(format_args!("soft is higher than hard ({hard}): write {hard} or less as soft"))
        );
    }
    Ok(Ulimit { soft, hard })
}

/// Reads a signal such as `SIGTERM`, `SIGRTMIN+3` or a number.
pub(super) fn signal(at: &At<'_>) -> Result<String, Refusal> {
    let text = at.scalar()?.to_ascii_uppercase();
    let wrong = || at.wrong("a signal, e.g. \"SIGTERM\", or its number from 1 to 64");
    if !text.is_empty()
        && let Some(number) = digits(&text)
    {
        return if (1..=64).contains(&number) { Ok(number.to_string()) } else { Err(wrong()) };
    }
    let bare = text.strip_prefix("SIG").unwrap_or(&text);
    let name = match bare.split_once(['+', '-']) {
        Some((name @ ("RTMIN" | "RTMAX"), offset)) if !offset.is_empty() => {
            digits(offset).filter(|n| *n <= 30).map(|_| name)
        }
        Some(_) => None,
        None => Some(bare),
    };
    match name {
        Some(name) if is_in(SIGNALS, name) => Ok(format!("SIG{bare}")),
        Some(_) | None => Err(wrong()),
    }
}

/// Highest number of a user or group that the engine accepts.
const HIGHEST_ID: u64 = 2_147_483_647;

/// Reads `user`, by name or number, perhaps with a group. Whether the image has the name, only the engine can say.
pub(super) fn user(at: &At<'_>) -> Result<String, Refusal> {
    let text = at.word()?;
    text.split(':').try_for_each(|part| id(at, part)).map(|()| text.clone())
}

/// Refuses the number of a user or group that is too high.
pub(super) fn id(at: &At<'_>, text: &str) -> Result<(), Refusal> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_high = is_number && text.parse::<u64>().map_or(true, |number| number > HIGHEST_ID);
    if is_high { Err(at.wrong(&format!("a number of {HIGHEST_ID} or less"))) } else { Ok(()) }
}

/// Reads an absolute path.
pub(super) fn working_dir(at: &At<'_>) -> Result<String, Refusal> {
    let text = at.text()?;
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err(at.wrong("an absolute path in the container"))
    }
}
