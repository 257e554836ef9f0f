//! Lists every setting with its value and where it is set, for people. Checks nothing.

use std::collections::BTreeMap;

use toml::Value;

use super::cloud::default_device_type;
use super::knobs::{KNOBS, default_of};
use super::sources::{Place, said};
use super::{ConfigError, Given, policy};
use crate::model::Switch;

/// A setting with the value that is in force if the settings are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As in the file: `engine.socket`.
    pub key: &'static str,
    /// The value as written; `None` if it is not set and has no default. Never a secret key: those are in files.
    pub value: Option<String>,
    /// Where it is set; `None`: it has its default.
    pub place: Option<Place>,
}

/// Returns every setting, in the order of the shipped file.
///
/// # Errors
///
/// If a source cannot be read or parsed.
pub fn settings(given: &Given, environment: &BTreeMap<String, String>) -> Result<Vec<Setting>, ConfigError> {
    let said = said(given, environment)?;
    let setting = |name: &'static str, default: Option<&str>| {
        let nearest = said.iter().rfind(|said| said.knob == name);
        let value = nearest.map(|said| written(&said.value));
        Setting {
            key: name,
            value: value.map(without_password).or_else(|| default.map(str::to_owned)),
            place: nearest.map(|said| said.place.clone()),
        }
    };
    let preset = said.iter().rfind(|said| said.knob == "policy.preset").map(|said| written(&said.value));
    let preset = policy::preset(preset.as_deref().unwrap_or(default_of("policy.preset")));
    let default = |name: &str| {
        let of_policy = name.strip_prefix("policy.").zip(preset.as_ref()).and_then(|(name, preset)| {
            let switch = Switch::ALL.into_iter().find(|switch| switch.as_str() == name)?;
            Some(if preset.allows(switch) { "yes" } else { "no" })
        });
        of_policy.or((name == "cloud.device_type").then(default_device_type))
    };
    Ok(KNOBS.iter().map(|knob| setting(knob.name, knob.default.or_else(|| default(knob.name)))).collect())
}

/// Formats a value: a text or a whole number.
fn written(value: &Value) -> String {
    let number = || value.as_integer().map(|number| number.to_string());
    value.as_str().map(str::to_owned).or_else(number).unwrap_or_default()
}

/// Removes user and password from a URL. Such a URL is not accepted, and must not be shown either.
fn without_password(value: String) -> String {
    let Some((scheme, rest)) = value.split_once("://") else { return value };
    match rest.split_once('@') {
        Some((_, rest)) => format!("{scheme}://(not shown)@{rest}"),
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_says_where_its_value_comes_from() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("agent.d")).unwrap();
        let file = "# mine\ninstance = \"lab\"\nengine.resync = \"1min\"\n[cloud]\n\nfleet = 7\n[update]\nsoak = \"1s\"";
        std::fs::write(path("agent.toml"), file).unwrap();
        std::fs::write(path("agent.d/10.toml"), "[cloud]\nendpoint = \"https://u:hunter2@a\"\nfleet = 8")
            .unwrap();
        let environment = BTreeMap::from([("COTTER_UPDATE_SOAK".to_owned(), "2s".to_owned())]);
        let set = [("heal.restarts", "5"), ("policy.preset", "strict"), ("policy.devices", "yes")];
        let set = set.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let given = Given { file: Some(path("agent.toml")), set };
        let settings = settings(&given, &environment).unwrap();
        let shown = |key: &str| {
            let setting = settings.iter().find(|setting| setting.key == key).unwrap();
            let place = setting.place.as_ref().map_or("default".to_owned(), Place::to_string);
            let place = place.replace(&folder.path().display().to_string(), "DIR");
            format!("{} ({place})", setting.value.as_deref().unwrap_or("-"))
        };
        for (key, expected) in [
            ("instance", "lab (DIR/agent.toml, line 2)"),
            ("state_dir", "/var/lib/cotter (default)"),
            ("engine.resync", "1min (DIR/agent.toml, line 3)"),
            ("cloud.endpoint", "https://(not shown)@a (DIR/agent.d/10.toml, line 2)"),
            ("cloud.fleet", "8 (DIR/agent.d/10.toml, line 3)"),
            ("cloud.uuid", "- (default)"),
            ("update.soak", "2s (variable COTTER_UPDATE_SOAK)"),
            ("heal.restarts", "5 (--set heal.restarts)"),
            ("update.windows", " (default)"),
            ("policy.privileged", "no (default)"),
            ("policy.devices", "yes (--set policy.devices)"),
        ] {
            assert_eq!(shown(key), expected, "{key}");
        }
        assert_eq!(settings.len(), KNOBS.len());
    }
}
