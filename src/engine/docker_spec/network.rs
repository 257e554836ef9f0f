//! Translates networks and volumes into the engine's requests. Pure.

use bollard::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkCreateRequest, VolumeCreateRequest,
};

use crate::engine::NewContainer;
use crate::model::{
    App, Instance, NetworkAttachment, NetworkMode, NetworkName, NetworkSpec, VolumeName, VolumeSpec,
};

use super::label::{self, APP_UUID, SUPERVISED};
use super::{has_names_of_balena, network_name, of_author, owned, volume_name};

/// Returns the network mode of a container and its networks, in the order in which they are connected.
pub(in crate::engine) fn endpoints(
    instance: &Instance,
    new: NewContainer<'_>,
) -> (String, Vec<(String, EndpointSettings)>) {
    let attached = match &new.spec.network_mode {
        NetworkMode::Host => return ("host".to_owned(), Vec::new()),
        NetworkMode::None => return ("none".to_owned(), Vec::new()),
        NetworkMode::Bridge => return ("bridge".to_owned(), Vec::new()),
        // If it is missing, the engine reports an error and does not use another network.
        NetworkMode::Service(name) => {
            let id = new.joined.get(name).map_or(name.as_str(), |id| id.as_str());
            return (format!("container:{id}"), Vec::new());
        }
        NetworkMode::Networks(attached) => attached,
    };
    let unconfigured = NetworkSpec::default();
    let mut ordered: Vec<_> = attached.iter().collect();
    ordered.sort_by_key(|(_, attachment)| std::cmp::Reverse(attachment.priority));
    let named = |(name, attachment): (&NetworkName, &NetworkAttachment)| {
        let spec = new.networks.get(name).unwrap_or(&unconfigured);
        (network_name(instance, new.app, name, spec), endpoint(new, attachment))
    };
    let endpoints: Vec<_> = ordered.into_iter().map(named).collect();
    let mode = endpoints.first().map_or("none".to_owned(), |(name, _)| name.clone());
    (mode, endpoints)
}

fn endpoint(new: NewContainer<'_>, attachment: &NetworkAttachment) -> EndpointSettings {
    let mut aliases: Vec<_> = attachment.aliases.iter().cloned().collect();
    aliases.push(new.service.to_string());
    let has_address = attachment.ipv4_address.is_some()
        || attachment.ipv6_address.is_some()
        || !attachment.link_local_ips.is_empty();
    EndpointSettings {
        aliases: Some(aliases),
        ipam_config: has_address.then(|| EndpointIpamConfig {
            ipv4_address: attachment.ipv4_address.clone(),
            ipv6_address: attachment.ipv6_address.clone(),
            link_local_ips: (!attachment.link_local_ips.is_empty())
                .then(|| attachment.link_local_ips.iter().cloned().collect()),
        }),
        mac_address: attachment.mac_address.clone(),
        gw_priority: (attachment.gateway_priority != 0).then_some(attachment.gateway_priority),
        driver_opts: (!attachment.driver_opts.is_empty())
            .then(|| attachment.driver_opts.clone().into_iter().collect()),
        ..EndpointSettings::default()
    }
}

fn or_default(driver: &str, default: &str) -> String {
    if driver.is_empty() { default.to_owned() } else { driver.to_owned() }
}

pub(in crate::engine) fn network(
    instance: &Instance,
    app: &App,
    name: &NetworkName,
    spec: &NetworkSpec,
) -> NetworkCreateRequest {
    let mut labels = of_author(&spec.labels);
    labels.extend(owned(app, instance));
    labels.insert(label::NETWORK.to_owned(), name.to_string());
    if let Some(hash) = &spec.config_hash {
        labels.insert(label::NETWORK_CONFIG.to_owned(), hash.clone());
    }
    NetworkCreateRequest {
        name: network_name(instance, app, name, spec),
        driver: Some(or_default(&spec.driver, "bridge")),
        internal: Some(spec.is_internal),
        enable_ipv6: Some(spec.has_ipv6),
        options: Some(spec.driver_opts.clone().into_iter().collect()),
        labels: Some(labels),
        ipam: ipam(spec),
        ..NetworkCreateRequest::default()
    }
}

fn ipam(spec: &NetworkSpec) -> Option<Ipam> {
    let range = |s: &crate::model::Subnet| IpamConfig {
        subnet: s.subnet.clone(),
        gateway: s.gateway.clone(),
        ip_range: s.ip_range.clone(),
        auxiliary_addresses: (!s.aux_addresses.is_empty())
            .then(|| s.aux_addresses.clone().into_iter().collect()),
    };
    let says_nothing = spec.subnets.is_empty() && spec.ipam_driver.is_empty() && spec.ipam_options.is_empty();
    (!says_nothing).then(|| Ipam {
        driver: (!spec.ipam_driver.is_empty()).then(|| spec.ipam_driver.clone()),
        config: (!spec.subnets.is_empty()).then(|| spec.subnets.iter().map(range).collect()),
        options: (!spec.ipam_options.is_empty()).then(|| spec.ipam_options.clone().into_iter().collect()),
    })
}

pub(in crate::engine) fn volume(
    instance: &Instance,
    app: &App,
    name: &VolumeName,
    spec: &VolumeSpec,
) -> VolumeCreateRequest {
    let mut labels = of_author(&spec.labels);
    if has_names_of_balena(instance) {
        // Balena's supervisor removes a volume of its name with other labels than these. So data survives a return to
        // balena's supervisor.
        labels
            .extend([(SUPERVISED.to_owned(), "true".to_owned()), (APP_UUID.to_owned(), app.id.to_string())]);
    } else {
        labels.extend(owned(app, instance));
        labels.insert(label::VOLUME.to_owned(), name.to_string());
    }
    VolumeCreateRequest {
        name: Some(volume_name(instance, app, name)),
        driver: Some(or_default(&spec.driver, "local")),
        driver_opts: Some(spec.driver_opts.clone().into_iter().collect()),
        labels: Some(labels),
        cluster_volume_spec: None,
    }
}
