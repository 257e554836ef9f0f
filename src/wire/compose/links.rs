//! Reads `links`. Services find each other by name, so only a link with another name has an effect: the linked service gets
//! that name as an alias in the networks that both have.

use std::collections::BTreeMap;

use serde_json::Value;

use super::at::{At, Notes};
use super::networking::host_name;
use super::{Contents, Form, paths};
use crate::model::{NetworkAttachment, NetworkMode, NetworkName, Refusal, ServiceName, ServiceSpec};
use crate::wire::state_v3::ReleaseState;

/// Maximum number of names that links give, counted in each network.
const MOST_NAMES: usize = 10_000;

/// Who has a name in a network by itself: the first two services, because a link asks for one that it does not lead to.
type Names = BTreeMap<(NetworkName, String), Vec<ServiceName>>;

/// A link of `from` to `to` with another name.
struct Link<'v> {
    from: ServiceName,
    to: ServiceName,
    alias: String,
    at: At<'v>,
}

/// Gives the linked services their aliases. Warns of links that have no effect. Refuses a name that would lead to two
/// services in one network, where with Compose each linking container has its own names.
pub(super) fn apply(release: &ReleaseState, contents: &mut Contents, form: Form, notes: &mut Notes) {
    let mut claims: BTreeMap<(NetworkName, String), ServiceName> = BTreeMap::new();
    let (links, mut given) = (read(release, form, notes), 0);
    let names = if links.is_empty() { Names::new() } else { names(&contents.services) };
    for link in links {
        for network in notes.keep(shared_networks(&link, &contents.services, release)).unwrap_or_default() {
            given += 1;
            if given > MOST_NAMES {
                let why = format_args!(
                    "links give more than {MOST_NAMES} names, counted in each network: use fewer, or aliases of networks"
                );
                return notes.refuse(link.at.refusal(why));
            }
            let key = (network, link.alias.clone());
            let other = match claims.get(&key) {
                Some(claimed) => Some(claimed).filter(|claimed| **claimed != link.to),
                None => names.get(&key).and_then(|have| have.iter().find(|name| **name != link.to)),
            };
            if let Some(other) = other {
                notes.refuse(link.at.refusal(format_args!(
                    "the name {} is that of {other} in network {}, too, where every service finds the same one: choose \
                     another name, or give the two services a network without {other}",
                    link.alias, key.0
                )));
                continue;
            }
            if let Some(attachment) = attachment_mut(&mut contents.services, &link.to, &key.0) {
                attachment.aliases.insert(link.alias.clone());
            }
            claims.insert(key, link.to.clone());
        }
    }
}

/// The links with another name. Warns of all others.
fn read<'v>(release: &'v ReleaseState, form: Form, notes: &mut Notes) -> Vec<Link<'v>> {
    let mut found = Vec::new();
    for (name, given) in &release.services {
        let Some(value) = given.composition.get("links").filter(|value| !value.is_null()) else { continue };
        let list = At::new(format!("{}.links", paths(name, form).composition), value);
        for item in notes.keep(list.list()).unwrap_or_default() {
            let Some(text) = notes.keep(item.text()) else { continue };
            let Some((to, alias)) = text.split_once(':').filter(|(to, alias)| to != alias) else {
                notes.warn(item.refusal("it is not needed: services find each other by name"));
                continue;
            };
            let alias = Value::String(alias.to_owned());
            let alias = notes.keep(host_name(&At::new(item.path.clone(), &alias)));
            let to = notes.keep(ServiceName::parse(to).map_err(|bad| item.refusal(bad)));
            // Another place refuses a service with a bad name.
            let from = ServiceName::parse(name.clone()).ok();
            if let (Some(from), Some(to), Some(alias)) = (from, to, alias) {
                found.push(Link { from, to, alias, at: item });
            }
        }
    }
    found
}

/// The networks that both services of a link have.
fn shared_networks(
    link: &Link<'_>,
    services: &BTreeMap<ServiceName, ServiceSpec>,
    release: &ReleaseState,
) -> Result<Vec<NetworkName>, Refusal> {
    let Link { from, to, alias, at } = link;
    if !release.services.contains_key(to.as_str()) {
        let why = format_args!("there is no service {to} in the release: add it, or remove the link");
        return Err(at.refusal(why));
    }
    // A service that could not be read is refused itself.
    let (Some(own), Some(others)) = (services.get(from), services.get(to)) else { return Ok(Vec::new()) };
    let shared = match (&own.network_mode, &others.network_mode) {
        (NetworkMode::Networks(own), NetworkMode::Networks(others)) => {
            own.keys().filter(|network| others.contains_key(*network)).cloned().collect()
        }
        _ => Vec::new(),
    };
    if shared.is_empty() {
        return Err(at.refusal(format_args!(
            "{from} and {to} have no network of the release in common, so {alias} would lead nowhere: give both the same \
             network, or remove the link"
        )));
    }
    Ok(shared)
}

/// Returns who has which name by itself.
fn names(services: &BTreeMap<ServiceName, ServiceSpec>) -> Names {
    let mut found = Names::new();
    for (name, spec) in services {
        let NetworkMode::Networks(attachments) = &spec.network_mode else { continue };
        for (network, attachment) in attachments {
            for alias in attachment.aliases.iter().map(String::as_str).chain([name.as_str()]) {
                let have = found.entry((network.clone(), alias.to_owned())).or_default();
                if have.len() < 2 && have.last() != Some(name) {
                    have.push(name.clone());
                }
            }
        }
    }
    found
}

fn attachment_mut<'s>(
    services: &'s mut BTreeMap<ServiceName, ServiceSpec>,
    service: &ServiceName,
    network: &NetworkName,
) -> Option<&'s mut NetworkAttachment> {
    match &mut services.get_mut(service)?.network_mode {
        NetworkMode::Networks(attachments) => attachments.get_mut(network),
        NetworkMode::Host | NetworkMode::None | NetworkMode::Bridge | NetworkMode::Service(_) => None,
    }
}
