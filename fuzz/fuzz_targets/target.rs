//! Any bytes as the body of a target, and any JSON as the release in one.

#![no_main]

use cotter::model::{DeviceUuid, Policy};
use cotter::wire::target_v3;
use serde_json::{Value, json};

const DEVICE: &str = "0123456789abcdef0123456789abcdef";

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let Ok(device) = DeviceUuid::parse(DEVICE) else { return };
    let _ = target_v3::parse(body, &device, &Policy::default());
    // The corpus has a word in the place of a device, as its test knows.
    let text = String::from_utf8_lossy(body).replace("DEVICE", DEVICE);
    let _ = target_v3::parse(text.as_bytes(), &device, &Policy::default());
    let Ok(release) = serde_json::from_str::<Value>(&text) else { return };
    let apps = json!({DEVICE: {"id": 1, "name": "a", "releases": {"abc": release}}});
    let body = json!({DEVICE: {"name": "d", "apps": apps}}).to_string();
    let _ = target_v3::parse(body.as_bytes(), &device, &Policy::default());
});
