//! Reads the labels with which an author sets the trial of a release.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Notes, refusal};
use crate::model::{ServiceName, ServiceSpec, TrialSpec};
use crate::wire::units;

const SOAK: &str = "io.cotter.trial.soak";
const DEADLINE: &str = "io.cotter.trial.deadline";
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Returns the longest soak and deadline of any service. Refuses a label that is not a duration.
pub(super) fn spec(services: &BTreeMap<ServiceName, ServiceSpec>, notes: &mut Notes) -> TrialSpec {
    let mut longest = |label: &str| {
        let mut longest = None;
        for (name, service) in services {
            let Some(text) = service.labels.get(label) else { continue };
            let read = match units::duration(text) {
                Ok(duration) if duration <= LONGEST => Ok(duration),
                Ok(_) => Err("it must be 24h at most".to_owned()),
                Err(bad) => Err(bad.to_string()),
            };
            let kept =
                notes.keep(read.map_err(|why| refusal(format!("services.{name}.labels.{label}"), why)));
            longest = longest.max(kept);
        }
        longest
    };
    TrialSpec { soak: longest(SOAK), deadline: longest(DEADLINE) }
}
