//! `Debug` output for types that hold secrets.

use std::collections::BTreeMap;
use std::fmt;

/// Shows the keys of a map and not its values, which may be secret.
pub(super) struct Names<'a>(pub(super) &'a BTreeMap<String, String>);

impl fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::model::{
        DeviceRequest, Healthcheck, ImageRef, Logging, NetworkAttachment, NetworkMode, NetworkName,
        NetworkSpec, ObservedVolume, Probe, Release, ServiceSpec, SpecHash, TrialSpec, VolumeSpec,
    };

    #[test]
    fn debug_output_shows_no_value_that_may_be_secret() {
        let map = || BTreeMap::from([("name".to_owned(), "hunter2".to_owned())]);
        let hash = SpecHash::from_sha256(1, [1; 32]);
        let mut spec = ServiceSpec::bare(hash, ImageRef::parse("r.example/a:1").unwrap());
        (spec.environment, spec.labels, spec.annotations) = (map(), map(), map());
        spec.command = Some(vec!["hunter2".to_owned()]);
        spec.entrypoint = Some(vec!["hunter2".to_owned()]);
        let attachment = NetworkAttachment { driver_opts: map(), ..NetworkAttachment::default() };
        let shown = [
            format!("{attachment:?}"),
            format!("{:?}", DeviceRequest { options: map(), ..DeviceRequest::default() }),
            format!("{:?}", Logging { driver: "a".to_owned(), options: map() }),
            format!(
                "{:?}",
                NetworkSpec {
                    driver_opts: map(),
                    ipam_options: map(),
                    labels: map(),
                    ..NetworkSpec::default()
                }
            ),
            format!("{:?}", VolumeSpec { driver_opts: map(), labels: map(), ..VolumeSpec::default() }),
            format!("{:?}", ObservedVolume { name: "v".to_owned(), driver: "d".to_owned(), options: map() }),
        ];
        spec.network_mode = NetworkMode::Networks([(NetworkName::parse("back").unwrap(), attachment)].into());
        let probe = Probe::Shell("hunter2".to_owned());
        let times = (None, None, None, None, None);
        let (interval, timeout, start_period, start_interval, retries) = times;
        spec.healthcheck =
            Some(Healthcheck { probe, interval, timeout, start_period, start_interval, retries });
        let release = Release {
            commit: crate::model::Commit::parse("a").unwrap(),
            number: 1,
            services: [(crate::model::ServiceName::parse("web").unwrap(), spec)].into(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            trial: TrialSpec::default(),
            windows: std::collections::BTreeSet::new(),
        };
        for shown in shown.into_iter().chain([format!("{release:#?}")]) {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
