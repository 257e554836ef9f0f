//! The configuration variables of a balena cloud: what each of them does on this device.
//!
//! One table, [`CLOUD_VARIABLES`], from which the device answers every variable of its target, and from which a test
//! checks docs/balena.md. Names are without their prefix, `BALENA_` or the older `RESIN_`.

use Answered::{Always, IfVpn, No, Yes};
use Takes::{Milliseconds, Text, YesOrNo};

/// What this device does about a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// The variable has the effect that these words describe.
    Yes(&'static str),
    /// This device always does what the first value asks for, for this reason. Other values have no effect.
    Always(&'static str, &'static str),
    /// The first, if the owner of the device has turned the VPN on. Otherwise the device does what `false` asks for, for the
    /// second reason.
    IfVpn(&'static str, &'static str),
    /// The variable has no effect, for this reason.
    No(&'static str),
}

/// Which values a variable takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    Text,
    YesOrNo,
    /// A number of milliseconds within these bounds.
    Milliseconds(u64, u64),
}

impl Takes {
    /// Returns what a value must be, in words.
    #[must_use]
    pub fn accepts(self) -> String {
        match self {
            Text => "any text".to_owned(),
            YesOrNo => "true or false (or 1, 0, on, off)".to_owned(),
            Milliseconds(least, most) => format!("a number of milliseconds from {least} to {most}"),
        }
    }
}

/// A variable of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloudVariable {
    /// Without its prefix. One that ends in `*` stands for all names that begin so.
    pub name: &'static str,
    pub takes: Takes,
    pub answered: Answered,
}

/// The name of the variable of the poll interval, and the bounds of its value in milliseconds.
pub const POLL_INTERVAL: &str = "SUPERVISOR_POLL_INTERVAL";
pub const POLL_BOUNDS: (u64, u64) = (1000, 24 * 3600 * 1000);

const DELTAS: &str = "images are pulled by layers; a stock engine cannot apply balena's deltas";
const BOOT: &str = "the agent does not change how the host boots; its owner does";
const RESTARTS: &str = "the compose file says how a service restarts: restart";

/// Every variable that is known. The first row that has a name counts.
pub const CLOUD_VARIABLES: &[CloudVariable] = &[
    row(
        POLL_INTERVAL,
        Milliseconds(POLL_BOUNDS.0, POLL_BOUNDS.1),
        Yes("the time between polls, in milliseconds, from 1000 to 86400000"),
    ),
    row("SUPERVISOR_LOG_CONTROL", YesOrNo, Yes("false: no logs are uploaded")),
    row(
        "SUPERVISOR_INSTANT_UPDATE_TRIGGER",
        YesOrNo,
        Yes("false: POST /v1/update of the supervisor API does not poll without force"),
    ),
    row("SUPERVISOR_OVERRIDE_LOCK", YesOrNo, Yes("true: update locks are passed")),
    row("OVERRIDE_LOCK", YesOrNo, Yes("the older name of SUPERVISOR_OVERRIDE_LOCK")),
    row(
        "SUPERVISOR_HARDWARE_METRICS",
        YesOrNo,
        Yes("false: no load, memory, disk and temperature are reported"),
    ),
    row("SUPERVISOR_UPDATE_STRATEGY", Text, Yes("the cloud makes the label io.balena.update.strategy of it")),
    row(
        "SUPERVISOR_HANDOVER_TIMEOUT",
        Text,
        Yes("the cloud makes the label io.balena.update.handover-timeout of it"),
    ),
    row("COTTER_MOVE_ENDPOINT", Text, Yes("orders a move to another cloud")),
    row("COTTER_MOVE_FLEET", Text, Yes("the fleet of a move")),
    row("COTTER_MOVE_KEY", Text, Yes("the provisioning key of a move")),
    row(
        "SUPERVISOR_VPN_CONTROL",
        YesOrNo,
        IfVpn(
            "false: the tunnel ends",
            "the owner of the device has the VPN off: vpn.enabled = \"yes\" turns it on",
        ),
    ),
    row("SUPERVISOR_LOCAL_MODE", YesOrNo, Always("false", "there is no local mode")),
    row("SUPERVISOR_DELTA", YesOrNo, Always("false", DELTAS)),
    row("SUPERVISOR_DELTA_*", Text, No(DELTAS)),
    row(
        "SUPERVISOR_CONNECTIVITY_CHECK",
        YesOrNo,
        No("the agent needs no separate check; `cotter status` shows the last contact and why a poll failed"),
    ),
    row(
        "SUPERVISOR_PERSISTENT_LOGGING",
        YesOrNo,
        No("the host's journald decides that: Storage=persistent in /etc/systemd/journald.conf"),
    ),
    row(
        "SUPERVISOR_DEVELOPMENT_MODE",
        YesOrNo,
        Always("false", "the host has no development mode of balenaOS"),
    ),
    row("SUPERVISOR_NATIVE_LOGGER", YesOrNo, No("logs are read from the engine")),
    row(
        "SUPERVISOR_API_REQUEST_TIMEOUT",
        Text,
        No("the owner sets it on the device: cloud.request_timeout in agent.toml"),
    ),
    row("SUPERVISOR_METRICS_INTERVAL", Text, No("no supervisor sends metrics at this interval any more")),
    row("APP_RESTART_POLICY", Text, No(RESTARTS)),
    row("APP_RESTART_RETRIES", Text, No(RESTARTS)),
    row("RESTART", Text, No("`cotter restart` and the supervisor API restart services")),
    row("DEVICE_RESTART", Text, No("`cotter restart` and the supervisor API restart services")),
    row("DEPENDENT_DEVICES_HOOK_ADDRESS", Text, No("clouds have no dependent devices any more")),
    row("HOST_FIREWALL_MODE", Text, Always("off", "the agent changes no firewall; the host's owner does")),
    row("HOST_DISCOVERABILITY", YesOrNo, Always("false", "the agent announces nothing by mDNS")),
    row("HOST_HOSTNAME", Text, No("the host's owner names it: hostnamectl set-hostname")),
    row("HOST_LOG_TO_DISPLAY", YesOrNo, No(BOOT)),
    row(
        "HOST_CONFIG_*",
        Text,
        No("config.txt belongs to the host's owner; the agent does not change how the host boots"),
    ),
    row("HOST_EXTLINUX_*", Text, No(BOOT)),
    row("HOST_CONFIGFS_*", Text, No(BOOT)),
    row("HOST_SPLASH_IMAGE", Text, No(BOOT)),
    row("HOST_ODMDATA_CONFIGURATION", Text, No(BOOT)),
    row("HOST_*", Text, No("the agent does not configure the host; its owner does")),
    row("UI_*", Text, No("it is for the dashboard of the cloud")),
];

const fn row(name: &'static str, takes: Takes, answered: Answered) -> CloudVariable {
    CloudVariable { name, takes, answered }
}

impl Answered {
    /// Returns the answer of a device whose owner has the VPN on, or off.
    #[must_use]
    pub fn on_device(self, has_vpn: bool) -> Self {
        match self {
            IfVpn(on, _) if has_vpn => Yes(on),
            IfVpn(_, off) => Always("false", off),
            Yes(_) | Always(..) | No(_) => self,
        }
    }
}

impl CloudVariable {
    /// Returns the row of a name without its prefix.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        CLOUD_VARIABLES.iter().find(|row| match row.name.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => row.name == name,
        })
    }
}

/// How a variable of the target stands on this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has its effect.
    Honoured,
    /// It has none here.
    NotApplicable,
    /// This version does not know its name.
    Unknown,
    /// Its value is not accepted, so another one is in force.
    BadValue,
}

impl Standing {
    /// The word of the status document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Honoured => "honoured",
            Self::NotApplicable => "not_applicable",
            Self::Unknown => "unknown",
            Self::BadValue => "bad_value",
        }
    }
}

/// The answer to one variable of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnsweredVariable {
    /// As the cloud sent it, with its prefix.
    pub name: String,
    pub standing: Standing,
    /// What it does here; or why it does nothing, and what to do.
    pub what: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_the_first_row_that_has_them() {
        let found = |name: &str| CloudVariable::find(name).map_or("-", |row| row.name);
        for (name, expected) in [
            ("SUPERVISOR_DELTA", "SUPERVISOR_DELTA"),
            ("SUPERVISOR_DELTA_VERSION", "SUPERVISOR_DELTA_*"),
            ("HOST_CONFIG_gpu_mem", "HOST_CONFIG_*"),
            ("HOST_FIREWALL_MODE", "HOST_FIREWALL_MODE"),
            ("HOST_SOMETHING_NEW", "HOST_*"),
            ("SUPERVISOR_SOMETHING_NEW", "-"),
            ("", "-"),
        ] {
            assert_eq!(found(name), expected, "{name}");
        }
    }

    #[test]
    fn no_row_is_hidden_by_one_before_it() {
        for row in CLOUD_VARIABLES {
            let name = row.name.replace('*', "x");
            assert_eq!(CloudVariable::find(&name).map(|found| found.name), Some(row.name), "{name}");
        }
    }

    #[test]
    fn the_documentation_has_each_row_in_the_order_of_the_table() {
        let page = include_str!("../../docs/balena.md");
        let rows = page.lines().skip_while(|line| !line.starts_with("| variable | here | |")).skip(2);
        let written: Vec<_> = rows.take_while(|line| line.starts_with('|')).map(str::to_owned).collect();
        let expected: Vec<_> = CLOUD_VARIABLES
            .iter()
            .map(|row| {
                let (here, words) = match row.answered {
                    Yes(words) => ("yes".to_owned(), words),
                    Always(value, words) => (format!("as if `{value}`"), words),
                    No(words) => ("no".to_owned(), words),
                    IfVpn(on, off) => {
                        return format!(
                            "| `{}` | yes; as if `false` with the VPN off | {on}; {off} |",
                            row.name
                        );
                    }
                };
                format!("| `{}` | {here} | {words} |", row.name)
            })
            .collect();
        assert_eq!(written, expected);
    }
}
