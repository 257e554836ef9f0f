//! Reads balena's `config.json`, which balenaCloud and openBalena provide for a device or a fleet (docs/dev/protocol.md,
//! "config.json").

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::model::{Admission, DeviceUuid, Enrolment, FleetRef};

/// Why a `config.json` cannot be used. Never quotes a value, because some are secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadConfigJson(String);

/// The poll interval in milliseconds that every such file has. It is also our default.
const USUAL_POLL: u64 = 900_000;

/// Reads a `config.json`. Returns how to join, and notes about fields that are ignored.
///
/// # Errors
///
/// The first field that is missing or invalid, and what to do.
pub fn read(bytes: &[u8]) -> Result<(Enrolment, Vec<String>), BadConfigJson> {
    let bad = |why: String| BadConfigJson(why);
    let parsed: Value = serde_json::from_slice(bytes)
        .map_err(|e| bad(format!("it is not JSON (line {}, column {})", e.line(), e.column())))?;
    let Value::Object(fields) = parsed else { return Err(bad("it is not a JSON object".to_owned())) };
    let endpoint = text(&fields, "apiEndpoint")?.ok_or_else(|| {
        bad("apiEndpoint is missing: this is not a config.json of a balena cloud, or it is for an unmanaged device"
            .to_owned())
    })?;
    let mut notes = Vec::new();
    let authority = text(&fields, "balenaRootCA")?.map(|encoded| authority(&encoded)).transpose()?;
    if authority.is_some() {
        notes.push(
            "balenaRootCA is for this agent; the engine does not read it: if the registry's certificate is from the same \
             authority, copy it to /etc/docker/certs.d/REGISTRY/ca.crt as well"
                .to_owned(),
        );
    }
    let enrolment = Enrolment {
        endpoint: endpoint.trim_end_matches('/').to_owned(),
        admission: admission(&fields, &mut notes)?,
        device_type: text(&fields, "deviceType")?,
        device_name: text(&fields, "initialDeviceName")?,
        registry: text(&fields, "registryEndpoint")?,
        poll_interval: number(&fields, "appUpdatePollInterval")?
            .filter(|ms| *ms != USUAL_POLL)
            .map(Duration::from_millis),
        tags: BTreeMap::new(),
        authority,
    };
    Ok((enrolment, notes))
}

/// Decodes the certificate of an authority: PEM, in base64.
fn authority(encoded: &str) -> Result<String, BadConfigJson> {
    let decoded = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.filter(|pem| pem.contains("-----BEGIN CERTIFICATE-----")).ok_or_else(|| {
        BadConfigJson(
            "balenaRootCA is not a certificate in base64; make it with `base64 -w0 ca.pem`, or leave it out"
                .to_owned(),
        )
    })
}

fn admission(fields: &Map<String, Value>, notes: &mut Vec<String>) -> Result<Admission, BadConfigJson> {
    let bad = |why: &str| BadConfigJson(why.to_owned());
    let (uuid, device_key) = (text(fields, "uuid")?, text(fields, "deviceApiKey")?);
    let (fleet, key) = (number(fields, "applicationId")?, text(fields, "apiKey")?);
    match (uuid, device_key, fleet, key) {
        (Some(uuid), Some(key), ..) => {
            let uuid =
                DeviceUuid::parse(uuid).map_err(|_| bad("uuid is not 32 or 62 lower-case hex digits"))?;
            if !fields.contains_key("registered_at") && !fields.contains_key("deviceId") {
                notes.push(
                    "the file does not say that the device is registered already; if `cotter check` finds that it is \
                     not, use a file without uuid and deviceApiKey"
                        .to_owned(),
                );
            }
            Ok(Admission::Known { uuid, key })
        }
        (uuid, _, Some(fleet), Some(key)) => {
            if uuid.is_some() {
                notes.push("uuid is ignored: a device that registers generates its own".to_owned());
            }
            Ok(Admission::Register { fleet: FleetRef::Number(fleet), key })
        }
        (Some(_), None, ..) => Err(bad("it has uuid, but neither deviceApiKey nor applicationId and apiKey")),
        (None, _, Some(_), None) => Err(bad("it has applicationId, but not apiKey")),
        (None, _, None, Some(_)) => Err(bad("it has apiKey, but not applicationId")),
        (None, _, None, None) => Err(bad(
            "it has neither uuid and deviceApiKey of a device nor applicationId and apiKey of a fleet; \
             download it again, for a device or for a fleet",
        )),
    }
}

/// Reads a text. An empty one counts as absent.
fn text(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, BadConfigJson> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) if text.chars().all(|c| !c.is_control()) => {
            Ok(Some(text.trim().to_owned()))
        }
        Some(_) => Err(BadConfigJson(format!("{name} is not a text of one line"))),
    }
}

/// Reads a whole number, also one in quotes.
fn number(fields: &Map<String, Value>, name: &str) -> Result<Option<u64>, BadConfigJson> {
    let read = match fields.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(other) => other.as_u64(),
    };
    read.map(Some).ok_or_else(|| BadConfigJson(format!("{name} is not a whole number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "hunter2hunter2";

    /// The result as text: endpoint, credentials, and the other fields.
    fn result(json: &str) -> String {
        let json = json.replace('\'', "\"").replace("SECRET", SECRET);
        let text = match read(json.as_bytes()) {
            Err(error) => format!("refused: {error}"),
            Ok((enrolment, notes)) => {
                let Enrolment {
                    endpoint,
                    admission,
                    device_type,
                    device_name,
                    registry,
                    poll_interval,
                    authority,
                    ..
                } = enrolment;
                let key = match &admission {
                    Admission::Known { key, .. } | Admission::Register { key, .. } => key,
                };
                assert_eq!(key, SECRET);
                assert_eq!(authority.is_some(), json.contains("balenaRootCA"));
                let more: Vec<_> = [device_type, device_name, registry].into_iter().flatten().collect();
                let poll = poll_interval.map_or(String::new(), |every| format!(" every {every:?}"));
                format!("{endpoint} {admission:?} [{}]{poll} notes: {}", more.join(" "), notes.len())
            }
        };
        assert!(!text.contains(SECRET), "{text}");
        text
    }

    #[test]
    fn files_as_clouds_hand_them_out() {
        let uuid = "0123456789abcdef".repeat(2);
        for (json, expected) in [
            (
                "{'apiEndpoint': 'https://api.balena-cloud.com/', 'applicationId': '1501', 'apiKey': 'SECRET', \
                 'deviceType': 'raspberrypi4-64', 'registryEndpoint': 'registry2.balena-cloud.com', \
                 'appUpdatePollInterval': 900000, 'listenPort': 48484, 'userId': 7}"
                    .to_owned(),
                "https://api.balena-cloud.com Register { fleet: Number(1501), .. } \
                 [raspberrypi4-64 registry2.balena-cloud.com] notes: 0"
                    .to_owned(),
            ),
            (
                format!(
                    "{{'apiEndpoint': 'https://a', 'uuid': '{uuid}', 'deviceApiKey': 'SECRET', 'deviceId': 8, \
                     'applicationId': 7, 'apiKey': null, 'initialDeviceName': 'kitchen', \
                     'appUpdatePollInterval': '60000'}}"
                ),
                format!("https://a Known {{ uuid: {:?}, .. }} [kitchen] every 60s notes: 0", DeviceUuid::parse(uuid.clone()).unwrap()),
            ),
            (
                format!(
                    "{{'apiEndpoint': 'https://a', 'uuid': '{uuid}', 'deviceApiKey': 'SECRET', \
                     'balenaRootCA': '{}'}}",
                    STANDARD.encode("-----BEGIN CERTIFICATE-----\n")
                ),
                format!("https://a Known {{ uuid: {:?}, .. }} [] notes: 2", DeviceUuid::parse(uuid.clone()).unwrap()),
            ),
            (
                format!(
                    "{{'apiEndpoint': 'https://a', 'uuid': '{uuid}', 'applicationId': 7, 'apiKey': 'SECRET'}}"
                ),
                "https://a Register { fleet: Number(7), .. } [] notes: 1".to_owned(),
            ),
        ] {
            assert_eq!(result(&json), expected);
        }
    }

    #[test]
    fn files_that_are_refused() {
        let uuid = "0123456789abcdef".repeat(2);
        for (json, expected) in [
            ("{'apiEndpoint': 'SECRET", "it is not JSON (line 1, column "),
            ("['SECRET']", "it is not a JSON object"),
            ("{'apiEndpoint': '', 'apiKey': 'SECRET'}", "apiEndpoint is missing"),
            ("{'apiEndpoint': 7}", "apiEndpoint is not a text of one line"),
            ("{'apiEndpoint': 'https://a', 'apiKey': 'SECRET'}", "it has apiKey, but not applicationId"),
            ("{'apiEndpoint': 'https://a', 'applicationId': 7}", "it has applicationId, but not apiKey"),
            (
                "{'apiEndpoint': 'https://a', 'applicationId': 'SECRET', 'apiKey': 'SECRET'}",
                "applicationId is not a whole number",
            ),
            (
                "{'apiEndpoint': 'https://a', 'uuid': 'SECRET', 'deviceApiKey': 'SECRET'}",
                "uuid is not 32 or 62 lower-case hex digits",
            ),
            ("{'apiEndpoint': 'https://a', 'uuid': 'UUID'}", "it has uuid, but neither deviceApiKey"),
            (
                "{'apiEndpoint': 'https://a', 'deviceApiKey': 'SECRET\\nSECRET', 'uuid': 'UUID'}",
                "deviceApiKey is not a text of one line",
            ),
            (
                "{'apiEndpoint': 'https://a', 'deviceApiKey': 'SECRET', 'uuid': 'UUID', 'balenaRootCA': 'SECRET'}",
                "balenaRootCA is not a certificate in base64",
            ),
            ("{'apiEndpoint': 'https://a'}", "it has neither uuid and deviceApiKey of a device nor"),
        ] {
            let result = result(&json.replace("UUID", &uuid));
            assert!(result.starts_with(&format!("refused: {expected}")), "{json}: {result}");
        }
    }
}
