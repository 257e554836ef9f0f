//! Checks the settings of the cloud.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::key_file::{KeyFile, key};
use super::sources::RawCloud;
use super::{CloudConfig, ConfigError, Joining, MoveTo, count, duration};
use crate::model::{DeviceUuid, FleetRef, parse_tags};

/// Maximum number of bytes of a file with certificates.
const LARGEST_AUTHORITY: u64 = 1 << 20;

pub(super) fn cloud(raw: RawCloud) -> Result<Option<CloudConfig>, ConfigError> {
    let poll_interval = duration("cloud.poll_interval", raw.poll_interval, 1, 24 * 3600)?;
    let poll_wait = duration("cloud.poll_wait", raw.poll_wait, 0, 300)?;
    let report_interval = duration("cloud.report_interval", raw.report_interval, 1, 3600)?;
    let request_timeout = duration("cloud.request_timeout", raw.request_timeout, 1, 600)?;
    let joining = match (raw.uuid, raw.device_key_file, raw.fleet, raw.provisioning_key_file) {
        (Some(uuid), Some(file), _, _) => {
            let accepts = "32 or 62 lower-case hex digits".to_owned();
            let uuid = DeviceUuid::parse(&uuid).map_err(|_| ConfigError::Value {
                key: "cloud.uuid",
                given: uuid,
                accepts,
            })?;
            Joining::Known { uuid, key: key("cloud.device_key_file", &file)? }
        }
        (Some(_), None, _, _) | (None, Some(_), _, _) => {
            return Err(ConfigError::Incomplete(
                "cloud.uuid and cloud.device_key_file go together; set both or neither",
            ));
        }
        (None, None, Some(fleet), Some(file)) => {
            Joining::Register { fleet: self::fleet(fleet.0)?, key_file: KeyFile::new(file)? }
        }
        (None, None, Some(_), None) | (None, None, None, Some(_)) => {
            return Err(ConfigError::Incomplete(
                "cloud.fleet and cloud.provisioning_key_file go together; set both or neither",
            ));
        }
        (None, None, None, None) => Joining::Remembered,
    };
    let Some(endpoint) = raw.endpoint else { return Ok(None) };
    Ok(Some(CloudConfig {
        endpoint: self::endpoint(endpoint)?,
        joining,
        device_type: raw.device_type.unwrap_or_else(|| default_device_type().to_owned()),
        device_name: raw.device_name,
        tags: tags(raw.tags.as_deref().unwrap_or_default())?,
        authority: raw.ca_file.as_deref().map(authority).transpose()?,
        registries: registries(raw.registries.as_deref().unwrap_or_default())?,
        poll_interval,
        poll_wait,
        report_interval,
        report_lines: count("cloud.report_lines", raw.report_lines, 0..=20)?,
        request_timeout,
        move_to: move_to(raw.move_to.as_deref().unwrap_or("policy"))?,
    }))
}

/// Checks the base URL of a cloud, and removes a slash at its end.
pub(super) fn endpoint(endpoint: String) -> Result<String, ConfigError> {
    let is_url = endpoint.strip_prefix("https://").or(endpoint.strip_prefix("http://"));
    if is_url
        .is_none_or(|rest| rest.is_empty() || rest.starts_with('/') || rest.contains(char::is_whitespace))
    {
        let accepts = "a URL with http:// or https://, e.g. https://api.example.com".to_owned();
        return Err(ConfigError::Value { key: "cloud.endpoint", given: endpoint, accepts });
    }
    let authority = is_url.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    if !authority.is_ascii() {
        let accepts = "a URL whose host is in ASCII, e.g. xn--mnchen-3ya.example".to_owned();
        return Err(ConfigError::Value { key: "cloud.endpoint", given: endpoint, accepts });
    }
    if authority.contains('@') {
        return Err(ConfigError::Incomplete(
            "cloud.endpoint contains a user or a password, but logs and status show it; remove them",
        ));
    }
    if endpoint.contains(['?', '#', '\\']) {
        let accepts = "a URL without a query, i.e. without '?', '#' and '\\'".to_owned();
        return Err(ConfigError::Value { key: "cloud.endpoint", given: endpoint, accepts });
    }
    Ok(endpoint.trim_end_matches('/').to_owned())
}

/// Parses hosts that are separated by commas or spaces. `http://` marks one without TLS.
pub(super) fn registries(given: &str) -> Result<Vec<String>, ConfigError> {
    let is_host = |host: &str| {
        let host = host.strip_prefix("http://").unwrap_or(host);
        let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
        !host.is_empty() && host.chars().all(is_fine) && !host.starts_with(['.', ':'])
    };
    let hosts: Vec<_> = given.split([',', ' ']).filter(|host| !host.is_empty()).map(str::to_owned).collect();
    if hosts.iter().all(|host| is_host(host)) {
        return Ok(hosts);
    }
    let accepts =
        "hosts such as registry.example.com:5000, separated by commas, with http:// before one without TLS"
            .to_owned();
    Err(ConfigError::Value { key: "cloud.registries", given: given.to_owned(), accepts })
}

/// Parses where the cloud may move this device to.
pub(super) fn move_to(given: &str) -> Result<MoveTo, ConfigError> {
    match given.trim() {
        "policy" => return Ok(MoveTo::AsPolicyAllows),
        "any" => return Ok(MoveTo::Anywhere),
        "none" => return Ok(MoveTo::Hosts(Vec::new())),
        _ => {}
    }
    let hosts: Vec<_> =
        given.split([',', ' ']).filter(|host| !host.is_empty()).map(str::to_lowercase).collect();
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    if !hosts.is_empty() && hosts.iter().all(|host| host.chars().all(is_fine)) {
        return Ok(MoveTo::Hosts(hosts));
    }
    let accepts =
        "any, none, policy, or hosts such as fleet.example.com:8443, separated by commas".to_owned();
    Err(ConfigError::Value { key: "cloud.move_to", given: given.to_owned(), accepts })
}

/// Checks the endpoint of a cloud to which this device is to move.
///
/// # Errors
///
/// What is accepted, in words.
pub fn checked_endpoint(given: &str) -> Result<String, ConfigError> {
    endpoint(given.to_owned())
}

pub(super) fn default_device_type() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "generic-aarch64",
        "arm" => "generic-armv7ahf",
        _ => "generic-amd64",
    }
}

fn fleet(given: String) -> Result<FleetRef, ConfigError> {
    FleetRef::parse(&given).map_err(|accepts| ConfigError::Value {
        key: "cloud.fleet",
        given,
        accepts: accepts.to_owned(),
    })
}

/// Parses tags that are separated by commas.
pub(super) fn tags(given: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    let tags = given.split(',').map(str::trim).filter(|tag| !tag.is_empty());
    parse_tags(tags).map_err(|(tag, accepts)| ConfigError::Value {
        key: "cloud.tags",
        given: tag,
        accepts: format!("tags such as site=zurich,rack=3: {accepts}"),
    })
}

/// Reads certificates. They are public, so it does not matter who can read the file.
fn authority(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let wrong = |accepts: String| ConfigError::Value {
        key: "cloud.ca_file",
        given: path.display().to_string(),
        accepts,
    };
    let accepts = "a file with certificates of authorities, as PEM";
    let mut bytes = Vec::new();
    let file = fs::File::open(path).and_then(|file| file.take(LARGEST_AUTHORITY).read_to_end(&mut bytes));
    file.map_err(|error| wrong(format!("{accepts} ({error})")))?;
    let begins = b"-----BEGIN CERTIFICATE-----";
    let has_one = bytes.windows(begins.len()).any(|window| window == begins);
    if has_one { Ok(bytes) } else { Err(wrong(format!("{accepts}; it has none"))) }
}
