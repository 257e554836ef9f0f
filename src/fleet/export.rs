//! The lines of an export, in a fixed order: fleets by name, each with its releases, the oldest first, and its variables; then
//! devices by uuid, each with its variables. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::policy::{Device, Fleet, Release, Variable, VariableHolder, World};
use crate::model::ServiceName;
use crate::wire::operator_api::{
    Composition, ExportLine, ExportedDevice, ExportedFleet, ExportedRelease, ExportedVariable,
};

/// Returns the lines after the head, of the fleets that are `shown` and their devices. Without `secrets` a secret variable
/// has no value.
pub(super) fn lines<'a>(
    world: &'a World,
    shown: impl Fn(u64) -> bool + Copy + 'a,
    secrets: bool,
) -> impl Iterator<Item = ExportLine> + 'a {
    let mut fleets: Vec<&Fleet> = world.fleets().filter(|fleet| shown(fleet.number)).collect();
    fleets.sort_by(|a, b| a.name.cmp(&b.name));
    let of_fleet = move |fleet: &'a Fleet| {
        let releases = world.releases_of(fleet.number).map(move |release| self::release(fleet, release));
        let variables = variables(world, VariableHolder::Fleet(fleet.number), &fleet.name, secrets);
        std::iter::once(self::fleet(world, fleet)).chain(releases).chain(variables)
    };
    let of_device = move |device: &'a Device| {
        let holder = VariableHolder::Device(device.uuid.clone());
        let variables = variables(world, holder, device.uuid.as_str(), secrets);
        self::device(world, device).into_iter().chain(variables)
    };
    let devices = world.devices().filter(move |device| shown(device.fleet));
    fleets.into_iter().flat_map(of_fleet).chain(devices.flat_map(of_device))
}

fn fleet(world: &World, fleet: &Fleet) -> ExportLine {
    let present: BTreeSet<&ServiceName> =
        world.releases_of(fleet.number).flat_map(|release| release.content.services.keys()).collect();
    let former = fleet.services.keys().filter(|service| !present.contains(service));
    ExportLine::Fleet(ExportedFleet {
        name: fleet.name.clone(),
        uuid: Some(fleet.uuid.to_string()),
        registry: fleet.registry.clone(),
        is_tracking_latest: fleet.is_tracking_latest,
        target: commit(world, fleet.target),
        former_services: former.map(ToString::to_string).collect(),
    })
}

fn release(fleet: &Fleet, release: &Release) -> ExportLine {
    let content = &release.content;
    let services = content.services.iter();
    let composition = Composition {
        services: services.clone().map(|(name, i)| (name.to_string(), i.composition.value())).collect(),
        networks: content.networks.value(),
        volumes: content.volumes.value(),
    };
    let images: BTreeMap<_, _> = services.map(|(name, i)| (name.to_string(), i.image.to_string())).collect();
    ExportLine::Release(Box::new(ExportedRelease {
        fleet: fleet.name.clone(),
        commit: release.commit.to_string(),
        status: release.status,
        is_final: release.is_final,
        is_passing_tests: release.is_passing_tests,
        is_invalidated: release.is_invalidated,
        start_timestamp: Some(release.start_timestamp),
        images,
        composition,
        build_log: release.build_log.as_deref().map(str::to_owned),
    }))
}

fn device(world: &World, device: &Device) -> Option<ExportLine> {
    Some(ExportLine::Device(ExportedDevice {
        uuid: device.uuid.to_string(),
        name: device.name.clone(),
        device_type: device.device_type.clone(),
        fleet: world.fleet(device.fleet)?.name.clone(),
        pin: commit(world, device.pin),
        tags: device.tags.clone(),
    }))
}

fn variables<'a>(
    world: &'a World,
    holder: VariableHolder,
    name: &'a str,
    secrets: bool,
) -> impl Iterator<Item = ExportLine> + 'a {
    let (fleet, device) = match &holder {
        VariableHolder::Fleet(_) => (Some(name), None),
        VariableHolder::Device(_) => (None, Some(name)),
    };
    let row = move |(service, name, variable): (Option<&ServiceName>, &String, &Variable)| {
        ExportLine::Variable(ExportedVariable {
            fleet: fleet.map(str::to_owned),
            device: device.map(str::to_owned),
            service: service.map(ToString::to_string),
            name: name.clone(),
            value: (secrets || !variable.is_secret).then(|| variable.value.clone()),
            secret: variable.is_secret,
        })
    };
    world.variables(&holder).iter().map(row)
}

fn commit(world: &World, release: Option<u64>) -> Option<String> {
    world.release(release?).map(|release| release.commit.to_string())
}
