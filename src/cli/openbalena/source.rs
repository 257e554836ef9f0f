//! The contents of a fleet on this server, read from its export, without what openBalena would refuse.

use std::collections::BTreeMap;

use anyhow::Context as _;

use crate::cli::client::Client;
use crate::cli::exit::Unknown;
use crate::wire::operator_api::{
    ExportLine, ExportedDevice, ExportedFleet, ExportedRelease, ExportedVariable,
};

/// Maximum number of bytes of one line of an export.
const LONGEST_LINE: usize = 8 << 20;

/// The limits of openBalena's model (balena.sbvr).
const LONGEST_COMMIT: usize = 40;
const LARGEST_COMPOSITION: usize = 1_000_000;
const LONGEST_TAG_KEY: usize = 100;
const LONGEST_TAG: usize = 10_000;
const LONGEST_VALUE: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) fleet: Option<ExportedFleet>,
    /// The oldest first.
    pub(super) releases: Vec<ExportedRelease>,
    pub(super) variables: Vec<ExportedVariable>,
    pub(super) devices: BTreeMap<String, ExportedDevice>,
    /// By uuid.
    pub(super) of_devices: BTreeMap<String, Vec<ExportedVariable>>,
    /// What is not carried over, each with the reason.
    pub(super) left_out: Vec<String>,
}

impl Source {
    /// Reads the export of the fleet's server, and keeps the lines of this fleet.
    pub(super) async fn read(client: &Client, fleet: &str, secrets: bool) -> anyhow::Result<Self> {
        let path: &[&str] = if secrets { &["export", "secrets"] } else { &["export"] };
        let mut answer = client.stream(path).await?;
        let (mut source, mut line) = (Self::default(), Vec::new());
        let mut is_head = true;
        while let Some(piece) = answer.next().await.context("the server stopped sending")? {
            line.extend_from_slice(&piece);
            while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                let rest = line.split_off(end + 1);
                let complete = std::mem::replace(&mut line, rest);
                if !is_head {
                    source.take(serde_json::from_slice(&complete).context("a line of the export")?, fleet);
                }
                is_head = false;
            }
            anyhow::ensure!(line.len() <= LONGEST_LINE, "a line of the export has more than 8 MiB");
        }
        if source.fleet.is_none() {
            return Err(Unknown(format!("there is no fleet {fleet:?} (`cotter fleet list`)")).into());
        }
        source.check();
        Ok(source)
    }

    /// Fleets come before devices, and devices before their variables.
    fn take(&mut self, line: ExportLine, fleet: &str) {
        match line {
            ExportLine::Fleet(found) if found.name == fleet => self.fleet = Some(found),
            ExportLine::Release(release) if release.fleet == fleet => self.releases.push(*release),
            ExportLine::Device(device) if device.fleet == fleet => {
                self.devices.insert(device.uuid.clone(), device);
            }
            ExportLine::Variable(variable) => match &variable.device {
                Some(device) if self.devices.contains_key(device) => {
                    self.of_devices.entry(device.clone()).or_default().push(variable);
                }
                None if variable.fleet.as_deref() == Some(fleet) => self.variables.push(variable),
                Some(_) | None => {}
            },
            ExportLine::Fleet(_) | ExportLine::Release(_) | ExportLine::Device(_) => {}
        }
    }

    /// Takes out what openBalena would refuse, so that it is known before the first change.
    fn check(&mut self) {
        let Self { releases, variables, devices, of_devices, left_out, fleet } = self;
        releases.retain(|release| match refusal(release) {
            Some(why) => {
                left_out.push(format!("release {}: {why}", release.commit));
                false
            }
            None => true,
        });
        let mut keep = |variable: &ExportedVariable, of: &str| match unfit(variable) {
            Some(why) => {
                left_out.push(format!("variable {} of {of}: {why}", variable.name));
                false
            }
            None => true,
        };
        variables.retain(|variable| keep(variable, "the fleet"));
        for (uuid, variables) in of_devices {
            let name = devices.get(uuid).map_or(uuid.as_str(), |device| device.name.as_str());
            variables.retain(|variable| keep(variable, &format!("device {name}")));
        }
        for device in devices.values_mut() {
            device.tags.retain(|key, value| match unfit_tag(key, value) {
                Some(why) => {
                    left_out.push(format!("tag {key} of device {}: {why}", device.name));
                    false
                }
                None => true,
            });
        }
        if let Some(registry) = fleet.as_ref().and_then(|fleet| fleet.registry.as_ref()) {
            left_out.push(format!("the registry of the fleet, {registry}: openBalena has no such setting"));
        }
    }
}

fn refusal(release: &ExportedRelease) -> Option<String> {
    let ExportedRelease { commit, composition, images, .. } = release;
    if commit.len() > LONGEST_COMMIT {
        return Some(format!("its commit has more than {LONGEST_COMMIT} characters"));
    }
    let size = serde_json::to_string(composition).map_or(0, |text| text.len());
    if size > LARGEST_COMPOSITION {
        return Some(format!("its compose file has more than {LARGEST_COMPOSITION} characters"));
    }
    let without = images.iter().find(|(_, image)| !image.contains('@'));
    without.map(|(service, _)| format!("the image of {service} has no digest"))
}

fn unfit(variable: &ExportedVariable) -> Option<String> {
    match &variable.value {
        None => Some("it is secret; --secrets carries it over, and there it can be read".to_owned()),
        Some(value) if value.len() > LONGEST_VALUE => {
            Some(format!("its value has more than {LONGEST_VALUE} characters"))
        }
        Some(_) => None,
    }
}

fn unfit_tag(key: &str, value: &str) -> Option<String> {
    if key.chars().any(char::is_whitespace) {
        return Some("openBalena has no key with a space".to_owned());
    }
    if key.starts_with("io.balena.") || key.starts_with("io.resin.") {
        return Some("openBalena keeps such keys for itself".to_owned());
    }
    if key.len() > LONGEST_TAG_KEY || value.len() > LONGEST_TAG {
        return Some(format!(
            "it is longer than {LONGEST_TAG_KEY} characters for the key and {LONGEST_TAG} for the value"
        ));
    }
    None
}
