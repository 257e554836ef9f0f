//! The rows of the API: which request means what.

use axum::http::Method;

use crate::model::Power;

/// What a request asks for. Apps are named by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    Open(Open),
    Keyed(Keyed),
}

/// A row that needs no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    Ping,
    Healthy,
}

/// A row that needs the key of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyed {
    Show(Show),
    Change(Change),
    /// The device's tags in the cloud.
    Tags,
    SetTags,
    /// The host's journal.
    Journal,
    /// A row of balena's API that this agent does not have, and why.
    Missing(&'static str),
}

impl Keyed {
    /// Returns `true` for rows whose requests are limited for each service.
    pub(super) fn is_change(self) -> bool {
        match self {
            Self::Change(_) | Self::SetTags | Self::Journal => true,
            Self::Show(_) | Self::Tags | Self::Missing(_) => false,
        }
    }
}

/// A row that only shows something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    Device,
    /// The only service of an app.
    Single(u64),
    Apps,
    App(u64),
    Status,
    Version,
    Containers,
    DeviceName,
    /// The VPN of the cloud.
    Vpn,
}

/// A row that changes something, or asks the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    NewKey,
    Update,
    Power(Power),
    /// The number of the app is in the body.
    RestartV1,
    PurgeV1,
    /// The only service of an app.
    Single(Verb, u64),
    Service(Verb, u64),
    Restart(u64),
    Purge(u64),
    CleanUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Start,
    Stop,
    Restart,
}

impl Row {
    /// Returns the row of a request; `None` if there is none.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let number = |text: &str| text.parse::<u64>().ok();
        let keyed = match (method.as_str(), parts.as_slice()) {
            ("GET", ["ping"]) => return Some(Self::Open(Open::Ping)),
            ("GET", ["v1", "healthy"]) => return Some(Self::Open(Open::Healthy)),
            ("POST", ["v1", "regenerate-api-key"]) => Keyed::Change(Change::NewKey),
            ("POST", ["v1", "update"]) => Keyed::Change(Change::Update),
            ("POST", ["v1", "reboot"]) => Keyed::Change(Change::Power(Power::Reboot)),
            ("POST", ["v1", "shutdown"]) => Keyed::Change(Change::Power(Power::Off)),
            ("POST", ["v1", "restart"]) => Keyed::Change(Change::RestartV1),
            ("POST", ["v1", "purge"]) => Keyed::Change(Change::PurgeV1),
            ("GET", ["v1", "device"]) => Keyed::Show(Show::Device),
            ("GET", ["v1", "apps", app]) => Keyed::Show(Show::Single(number(app)?)),
            ("POST", ["v1", "apps", app, "stop"]) => Keyed::Change(Change::Single(Verb::Stop, number(app)?)),
            ("POST", ["v1", "apps", app, "start"]) => {
                Keyed::Change(Change::Single(Verb::Start, number(app)?))
            }
            ("GET", ["v2", "applications", "state"]) => Keyed::Show(Show::Apps),
            ("GET", ["v2", "applications", app, "state"]) => Keyed::Show(Show::App(number(app)?)),
            ("POST", ["v2", "applications", app, verb]) => Keyed::Change(of_app(number(app)?, verb)?),
            ("GET", ["v2", "state", "status"]) => Keyed::Show(Show::Status),
            ("GET", ["v2", "version"]) => Keyed::Show(Show::Version),
            ("GET", ["v2", "containerId"]) => Keyed::Show(Show::Containers),
            ("GET", ["v2", "device", "name"]) => Keyed::Show(Show::DeviceName),
            ("GET", ["v2", "device", "vpn"]) => Keyed::Show(Show::Vpn),
            ("GET", ["v2", "device", "tags"]) => Keyed::Tags,
            ("PATCH", ["v2", "device", "tags"]) => Keyed::SetTags,
            ("POST", ["v2", "journal-logs"]) => Keyed::Journal,
            ("GET", ["v2", "cleanup-volumes"]) => Keyed::Change(Change::CleanUp),
            (method, parts) => Keyed::Missing(missing(method, parts)?),
        };
        Some(Self::Keyed(keyed))
    }
}

/// Returns the row of version 2 that changes an app.
fn of_app(app: u64, verb: &str) -> Option<Change> {
    Some(match verb {
        "restart" => Change::Restart(app),
        "purge" => Change::Purge(app),
        "restart-service" => Change::Service(Verb::Restart, app),
        "stop-service" => Change::Service(Verb::Stop, app),
        "start-service" => Change::Service(Verb::Start, app),
        _ => return None,
    })
}

/// Returns why this agent does not have a row of balena's.
fn missing(method: &str, parts: &[&str]) -> Option<&'static str> {
    Some(match (method, parts) {
        ("POST", ["v1", "blink"]) => "this device has no light that the agent knows",
        ("GET" | "PATCH", ["v1", "device", "host-config"]) => {
            "the agent does not change the host's name or its proxy; its owner does"
        }
        ("GET" | "POST", ["v2", "local", _]) => "this device has no local mode",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_find_their_rows() {
        let row = |method: &str, path: &str| Row::of(&method.parse().unwrap(), path);
        let keyed = |row: Keyed| Some(Row::Keyed(row));
        for (method, path, expected) in [
            ("GET", "/ping", Some(Row::Open(Open::Ping))),
            ("POST", "/v1/shutdown", keyed(Keyed::Change(Change::Power(Power::Off)))),
            ("GET", "/v1/apps/7", keyed(Keyed::Show(Show::Single(7)))),
            ("POST", "/v1/apps/7/stop", keyed(Keyed::Change(Change::Single(Verb::Stop, 7)))),
            (
                "POST",
                "/v2/applications/7/restart-service",
                keyed(Keyed::Change(Change::Service(Verb::Restart, 7))),
            ),
            ("POST", "/v2/applications/7/purge/", keyed(Keyed::Change(Change::Purge(7)))),
            ("GET", "/v2/applications/state", keyed(Keyed::Show(Show::Apps))),
            ("GET", "/v2/applications/7/state", keyed(Keyed::Show(Show::App(7)))),
            ("PATCH", "/v2/device/tags", keyed(Keyed::SetTags)),
            ("GET", "/v2/journal-logs", None),
            ("POST", "/ping", None),
            ("GET", "/v1/restart", None),
            ("GET", "/v2/applications/x/state", None),
            ("POST", "/v2/applications/7/explode", None),
            ("POST", "/v2/applications/-7/restart", None),
            ("GET", "/", None),
            ("GET", "/v2/../ping", None),
        ] {
            assert_eq!(row(method, path), expected, "{method} {path}");
        }
        assert!(matches!(row("POST", "/v1/blink"), Some(Row::Keyed(Keyed::Missing(_)))));
    }

    #[test]
    fn the_documentation_has_each_row_and_what_became_of_it() {
        let page = include_str!("../../docs/balena.md");
        let mut count = 0;
        for line in page.lines().filter(|line| line.starts_with("| `GET ") || line.starts_with("| `P")) {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let (request, here) = (cells.next().unwrap().trim_matches('`'), cells.next().unwrap());
            let (method, path) = request.split_once(' ').unwrap();
            let row =
                Row::of(&method.parse().unwrap(), path).unwrap_or_else(|| panic!("no row for {request}"));
            assert_eq!(
                here,
                if matches!(row, Row::Keyed(Keyed::Missing(_))) { "no" } else { "yes" },
                "{request}"
            );
            count += 1;
        }
        // Those of the protocol, one line each.
        assert_eq!(count, 35);
    }
}
