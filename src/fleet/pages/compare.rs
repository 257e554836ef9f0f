//! What differs between two releases: services, images, and fields of the compose file. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::model::text::shortened;
use crate::wire::operator_api::{Composition, ReleaseDetail};

/// Maximum number of fields that are listed.
const MOST: usize = 300;

/// Maximum number of characters of a value that are shown.
const LONGEST: usize = 400;

/// What a release changes from an earlier one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Services that only one of the releases has, with their images.
    pub(super) added: Vec<(String, String)>,
    pub(super) removed: Vec<(String, String)>,
    /// Services with another image.
    pub(super) images: Vec<Changed>,
    /// Fields of the compose file with another value.
    pub(super) fields: Vec<Changed>,
    /// How many further fields differ.
    pub(super) more: usize,
}

/// Something with its value before and after; `None`: it is not there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Changed {
    /// The name of a service, or the path of a field.
    pub(super) path: String,
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

impl Comparison {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares two releases.
pub(super) fn compared(before: &ReleaseDetail, after: &ReleaseDetail) -> Comparison {
    let (old, new) = (&before.release.services, &after.release.services);
    let only = |one: &BTreeMap<String, String>, other: &BTreeMap<String, String>| {
        let only = one.iter().filter(|(name, _)| !other.contains_key(*name));
        only.map(|(name, image)| (name.clone(), image.clone())).collect()
    };
    let mut comparison =
        Comparison { added: only(new, old), removed: only(old, new), ..Comparison::default() };
    for (name, image) in new {
        let earlier = old.get(name).filter(|earlier| *earlier != image);
        comparison.images.extend(earlier.map(|earlier| Changed {
            path: name.clone(),
            before: Some(earlier.clone()),
            after: Some(image.clone()),
        }));
    }
    let (old, new) = (document(&before.composition, new), document(&after.composition, old));
    walk("", Some(&old), Some(&new), &mut comparison);
    comparison
}

/// The compose file as one document, without services that the other release does not have: these are listed by their names.
fn document(composition: &Composition, other: &BTreeMap<String, String>) -> Value {
    let services = composition.services.iter().filter(|(name, _)| other.contains_key(*name));
    let services: Map<String, Value> =
        services.map(|(name, service)| (name.clone(), Value::Object(service.clone()))).collect();
    let of = |configs: &BTreeMap<String, Value>| -> Map<String, Value> {
        configs.iter().map(|(name, config)| (name.clone(), config.clone())).collect()
    };
    let (networks, volumes) = (of(&composition.networks), of(&composition.volumes));
    serde_json::json!({ "services": services, "networks": networks, "volumes": volumes })
}

/// Collects the fields that differ. Objects are compared field by field, lists as one.
fn walk(path: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Comparison) {
    if before == after {
        return;
    }
    if let (Some(Value::Object(old)), Some(Value::Object(new))) = (before, after) {
        let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            walk(&path, old.get(name), new.get(name), found);
        }
        return;
    }
    if found.fields.len() == MOST {
        found.more += 1;
        return;
    }
    let (before, after) = (before.map(written), after.map(written));
    found.fields.push(Changed { path: path.to_owned(), before, after });
}

fn written(value: &Value) -> String {
    shortened(&value.to_string(), LONGEST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn release(services: &Value, volumes: &Value) -> ReleaseDetail {
        let images: Map<String, Value> = services
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, service)| (name.clone(), service["image"].clone()))
            .collect();
        let detail = json!({
            "number": 1, "fleet": "f", "commit": "c", "status": "success", "is_final": true, "is_invalidated": false,
            "is_passing_tests": true, "start_timestamp": "2026-11-30T00:00:00Z", "is_fleet_target": false,
            "pinned_devices": 0, "running_devices": 0, "services": images,
            "composition": { "services": services, "volumes": volumes },
        });
        let mut detail: ReleaseDetail = serde_json::from_value(detail).unwrap();
        detail.composition.services.values_mut().for_each(|service| drop(service.remove("image")));
        detail
    }

    fn changed(path: &str, before: Option<&str>, after: Option<&str>) -> Changed {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Changed { path: path.to_owned(), before: owned(before), after: owned(after) }
    }

    #[test]
    fn services_images_and_fields_are_compared() {
        let before = release(
            &json!({
                "web": { "image": "a@1", "environment": { "MODE": "slow", "SAME": "1" }, "ports": ["80:80"] },
                "old": { "image": "o@1", "restart": "no" },
            }),
            &json!({ "data": {} }),
        );
        let after = release(
            &json!({
                "web": { "image": "a@2", "environment": { "MODE": 5, "SAME": "1", "NEW": "x" }, "ports": ["80:80", "81:81"] },
                "new": { "image": "n@1" },
            }),
            &json!({}),
        );
        let found = compared(&before, &after);
        assert_eq!(found.added, [("new".to_owned(), "n@1".to_owned())]);
        assert_eq!(found.removed, [("old".to_owned(), "o@1".to_owned())]);
        assert_eq!(found.images, [changed("web", Some("a@1"), Some("a@2"))]);
        assert_eq!(
            found.fields,
            [
                changed("services.web.environment.MODE", Some("\"slow\""), Some("5")),
                changed("services.web.environment.NEW", None, Some("\"x\"")),
                changed("services.web.ports", Some("[\"80:80\"]"), Some("[\"80:80\",\"81:81\"]")),
                changed("volumes.data", Some("{}"), None),
            ]
        );
        assert!(compared(&after, &after).is_empty());
    }

    #[test]
    fn a_long_list_of_differences_is_bounded_and_says_so() {
        let many: Map<String, Value> = (0..MOST + 7).map(|n| (format!("K{n}"), n.into())).collect();
        let of = |environment: Value| {
            release(&json!({ "web": { "image": "a@1", "environment": environment } }), &json!({}))
        };
        let found = compared(&of(json!({ "K": "x".repeat(2 * LONGEST) })), &of(Value::Object(many)));
        assert_eq!((found.fields.len(), found.more), (MOST, 8));
        assert!(found.fields[0].before.as_ref().unwrap().ends_with("characters more)"));
    }
}
