//! Checks that a release or a target has no more of anything than a device accepts. Pure.
//!
//! A target of 4 MiB can contain two million values, and each takes 30 to 600 bytes of memory once it is parsed. So values
//! are counted before a body is parsed, and services before a release is read.

use super::compose::{Contents, Form, paths};
use super::state_v3::ReleaseState;
use crate::model::{Refusal, ReleaseLimits};

/// The totals of the releases of the same device that were read before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    services: usize,
    networks: usize,
    volumes: usize,
    ports: usize,
}

impl Taken {
    /// Adds the totals of a release.
    #[must_use]
    pub fn and(self, contents: &Contents) -> Self {
        Self {
            services: self.services + contents.services.len(),
            networks: self.networks + contents.networks.len(),
            volumes: self.volumes + contents.volumes.len(),
            ports: self.ports + ports(contents),
        }
    }
}

/// Returns the least number of values in a JSON text. Every text, number, list and map is one. Also returns some number
/// for a text that is not JSON.
#[must_use]
pub fn values(json: &[u8]) -> usize {
    let (mut count, mut is_text, mut is_escaped) = (1, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b',' | b'[' | b'{' if !is_text => count += 1,
            _ => {}
        }
    }
    count
}

/// Refuses a release with too many services, networks or volumes, before it is read.
#[must_use]
pub fn unread(release: &ReleaseState, bounds: &ReleaseLimits, taken: Taken) -> Vec<Refusal> {
    let found = [
        ("services", release.services.len(), taken.services, bounds.services),
        ("networks", release.networks.len(), taken.networks, bounds.networks),
        ("volumes", release.volumes.len(), taken.volumes, bounds.volumes),
    ];
    found.into_iter().filter_map(|(what, number, before, most)| all(what, number, before, most)).collect()
}

/// Refuses a release that was read and exceeds a limit.
#[must_use]
pub fn exceeded(contents: &Contents, form: Form, bounds: &ReleaseLimits, taken: Taken) -> Vec<Refusal> {
    let Contents { services, networks, volumes, .. } = contents;
    let mut found = Vec::new();
    found.extend(all("services", services.len(), taken.services, bounds.services));
    found.extend(all("networks", networks.len(), taken.networks, bounds.networks));
    found.extend(all("volumes", volumes.len(), taken.volumes, bounds.volumes));
    found.extend(all("ports", ports(contents), taken.ports, bounds.ports));
    for (name, spec) in services {
        let path = paths(name.as_str(), form).service;
        let environment: usize = spec.environment.iter().map(|(name, value)| name.len() + value.len()).sum();
        found.extend(own(format!("{path}.labels"), "labels", spec.labels.len(), bounds.labels));
        let variables = spec.environment.len();
        found.extend(own(format!("{path}.environment"), "variables", variables, bounds.variables));
        found.extend(own(format!("{path}.environment"), "environment", environment, bounds.environment));
    }
    let labels = networks.iter().map(|(name, spec)| (format!("networks.{name}"), &spec.labels));
    let labels = labels.chain(volumes.iter().map(|(name, spec)| (format!("volumes.{name}"), &spec.labels)));
    for (path, labels) in labels {
        found.extend(own(format!("{path}.labels"), "labels", labels.len(), bounds.labels));
    }
    found
}

fn ports(contents: &Contents) -> usize {
    contents.services.values().map(|spec| spec.ports.len()).sum()
}

/// Checks a limit that all apps of a device share.
fn all(what: &str, number: usize, before: usize, most: usize) -> Option<Refusal> {
    let others = if before == 0 { String::new() } else { format!(", and apps before it have {before}") };
    let why = format!(
        "it has {number} {what}{others}, and a device accepts {most} in total: use fewer, or raise limits.{what} on the device"
    );
    (number > 0 && before + number > most).then(|| Refusal { path: what.to_owned(), why })
}

/// Checks a limit of one service, network or volume.
fn own(path: String, setting: &str, number: usize, most: usize) -> Option<Refusal> {
    let unit = if setting == "environment" { "bytes" } else { setting };
    let why = format!(
        "it has {number} {unit}, and a device accepts {most}: use fewer, or raise limits.{setting} on the device"
    );
    (number > most).then_some(Refusal { path, why })
}

#[cfg(test)]
#[path = "bounds_tests.rs"]
mod tests;
