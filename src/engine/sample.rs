//! A container to be created, for tests; each test adds a spec.

use std::collections::BTreeMap;

use crate::model::{
    App, AppId, Commit, ContainerId, Introduction, NetworkName, NetworkSpec, ServiceName, ServiceSpec,
    VolumeName, VolumeSpec,
};

use super::NewContainer;

/// The parts of a container of the app `demo`, number 7.
pub(super) struct Sample {
    app: App,
    release: Commit,
    service: ServiceName,
    networks: BTreeMap<NetworkName, NetworkSpec>,
    volumes: BTreeMap<VolumeName, VolumeSpec>,
    joined: BTreeMap<ServiceName, ContainerId>,
    pub(super) introduction: Introduction,
}

impl Sample {
    pub(super) fn new(service: &str) -> Self {
        let id = AppId::parse("0123456789abcdef0123456789abcdef").unwrap();
        let app = App { id, number: 7, name: "demo".to_owned() };
        let (release, service) = (Commit::parse("abc").unwrap(), ServiceName::parse(service).unwrap());
        let (networks, volumes, joined) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let introduction = Introduction::default();
        Self { app, release, service, networks, volumes, joined, introduction }
    }

    pub(super) fn container<'a>(&'a self, spec: &'a ServiceSpec) -> NewContainer<'a> {
        let Self { app, release, service, networks, volumes, joined, introduction } = self;
        NewContainer { app, release, service, spec, networks, volumes, joined, introduction }
    }
}
