//! The requests to an engine for a whole release, as JSON. Tests compare them with an owner's policy. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::NewContainer;
use super::docker_spec::{self, Host};
use crate::model::{App, Instance, Introduction, Release};

/// The bodies of the requests that create the release's networks, volumes and containers:
/// `{"networks": [...], "volumes": [...], "containers": [...]}`.
///
/// What depends on the device is left out: lock folders, and the containers whose namespaces others join.
#[must_use]
pub fn requests(instance: &Instance, app: &App, release: &Release) -> Value {
    let (joined, introduction) = (BTreeMap::new(), Introduction::default());
    let on = Host { instance, socket: Path::new("/var/run/docker.sock"), is_podman: false };
    let networks = release.networks.iter().map(|(n, spec)| docker_spec::network(instance, app, n, spec));
    let volumes = release.volumes.iter().map(|(n, spec)| docker_spec::volume(instance, app, n, spec));
    let containers = release.services.iter().map(|(service, spec)| {
        let (networks, volumes) = (&release.networks, &release.volumes);
        let release = &release.commit;
        docker_spec::container(
            on,
            NewContainer {
                app,
                release,
                service,
                spec,
                networks,
                volumes,
                joined: &joined,
                introduction: &introduction,
            },
        )
        .0
    });
    json!({
        "networks": networks.collect::<Vec<_>>(),
        "volumes": volumes.collect::<Vec<_>>(),
        "containers": containers.collect::<Vec<_>>(),
    })
}
