//! The rows of the API: which request means what.

use axum::http::Method;

use crate::model::Power;

/// What a request asks for. Apps are named by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    Ping,
    Healthy,
    NewKey,
    Update,
    Power(Power),
    /// The number of the app is in the body.
    RestartV1,
    PurgeV1,
    Device,
    /// The only service of an app.
    Single(u64),
    StopSingle(u64),
    StartSingle(u64),
    Service(Verb, u64),
    Restart(u64),
    Purge(u64),
    Apps,
    App(u64),
    Status,
    Version,
    Containers,
    DeviceName,
    CleanUp,
    /// A row that this agent does not have, and why.
    Missing(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Start,
    Stop,
    Restart,
}

impl Row {
    /// Returns `true` if no key is needed.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::Ping | Self::Healthy)
    }

    /// Returns `true` if it changes something, or asks the cloud.
    pub(super) fn is_change(self) -> bool {
        match self {
            Self::Ping
            | Self::Healthy
            | Self::Device
            | Self::Single(_)
            | Self::Apps
            | Self::App(_)
            | Self::Status
            | Self::Version
            | Self::Containers
            | Self::DeviceName
            | Self::Missing(_) => false,
            Self::NewKey
            | Self::Update
            | Self::Power(_)
            | Self::RestartV1
            | Self::PurgeV1
            | Self::StopSingle(_)
            | Self::StartSingle(_)
            | Self::Service(..)
            | Self::Restart(_)
            | Self::Purge(_)
            | Self::CleanUp => true,
        }
    }

    /// Returns the row of a request; `None` if there is none.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let number = |text: &str| text.parse::<u64>().ok();
        let row = match (method.as_str(), parts.as_slice()) {
            ("GET", ["ping"]) => Self::Ping,
            ("GET", ["v1", "healthy"]) => Self::Healthy,
            ("POST", ["v1", "regenerate-api-key"]) => Self::NewKey,
            ("POST", ["v1", "update"]) => Self::Update,
            ("POST", ["v1", "reboot"]) => Self::Power(Power::Reboot),
            ("POST", ["v1", "shutdown"]) => Self::Power(Power::Off),
            ("POST", ["v1", "restart"]) => Self::RestartV1,
            ("POST", ["v1", "purge"]) => Self::PurgeV1,
            ("GET", ["v1", "device"]) => Self::Device,
            ("GET", ["v1", "apps", app]) => Self::Single(number(app)?),
            ("POST", ["v1", "apps", app, "stop"]) => Self::StopSingle(number(app)?),
            ("POST", ["v1", "apps", app, "start"]) => Self::StartSingle(number(app)?),
            ("GET", ["v2", "applications", "state"]) => Self::Apps,
            ("GET", ["v2", "applications", app, "state"]) => Self::App(number(app)?),
            ("POST", ["v2", "applications", app, verb]) => Self::of_app(number(app)?, verb)?,
            ("GET", ["v2", "state", "status"]) => Self::Status,
            ("GET", ["v2", "version"]) => Self::Version,
            ("GET", ["v2", "containerId"]) => Self::Containers,
            ("GET", ["v2", "device", "name"]) => Self::DeviceName,
            ("GET", ["v2", "cleanup-volumes"]) => Self::CleanUp,
            (method, parts) => Self::Missing(missing(method, parts)?),
        };
        Some(row)
    }

    fn of_app(app: u64, verb: &str) -> Option<Self> {
        Some(match verb {
            "restart" => Self::Restart(app),
            "purge" => Self::Purge(app),
            "restart-service" => Self::Service(Verb::Restart, app),
            "stop-service" => Self::Service(Verb::Stop, app),
            "start-service" => Self::Service(Verb::Start, app),
            _ => return None,
        })
    }
}

/// Returns why this agent does not have a row of balena's.
fn missing(method: &str, parts: &[&str]) -> Option<&'static str> {
    Some(match (method, parts) {
        ("POST", ["v1", "blink"]) => "this device has no light that the agent knows",
        ("GET" | "PATCH", ["v1", "device", "host-config"]) => {
            "the agent does not change the host's name or its proxy; its owner does"
        }
        ("GET" | "PATCH", ["v2", "device", "tags"]) => {
            "the agent does not pass on tags; with the label io.balena.features.balena-api a service asks the cloud itself"
        }
        ("GET", ["v2", "device", "vpn"]) => "this device has no VPN of the cloud",
        ("POST", ["v2", "journal-logs"]) => {
            "the journal belongs to the host and to all apps; the label io.balena.features.journal-logs mounts it where the \
             owner allows that"
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
        for (method, path, expected) in [
            ("GET", "/ping", Some(Row::Ping)),
            ("POST", "/v1/shutdown", Some(Row::Power(Power::Off))),
            ("GET", "/v1/apps/7", Some(Row::Single(7))),
            ("POST", "/v1/apps/7/stop", Some(Row::StopSingle(7))),
            ("POST", "/v2/applications/7/restart-service", Some(Row::Service(Verb::Restart, 7))),
            ("POST", "/v2/applications/7/purge/", Some(Row::Purge(7))),
            ("GET", "/v2/applications/state", Some(Row::Apps)),
            ("GET", "/v2/applications/7/state", Some(Row::App(7))),
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
        assert!(matches!(row("POST", "/v1/blink"), Some(Row::Missing(_))));
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
            assert_eq!(here, if matches!(row, Row::Missing(_)) { "no" } else { "yes" }, "{request}");
            count += 1;
        }
        // Those of the protocol, one line each.
        assert_eq!(count, 35);
    }
}
