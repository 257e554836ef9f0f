//! The platforms of a fleet's devices. `cotter push` builds for them if neither its options nor the project name a platform.

use std::collections::BTreeSet;

use super::client::{Client, ClientError};
use crate::wire::operator_api::DeviceView;

/// The device types whose platform is known: the generic ones, and the usual boards by balena's names
/// (<https://docs.balena.io/reference/hardware/devices/>).
const KNOWN: &[(&str, &[&str])] = &[
    ("linux/amd64", &["generic-amd64", "genericx86-64-ext", "intel-nuc", "qemux86-64"]),
    (
        "linux/arm64",
        &[
            "generic-aarch64",
            "raspberrypi0-2w-64",
            "raspberrypi3-64",
            "raspberrypi4-64",
            "raspberrypi400-64",
            "raspberrypi5",
            "raspberrypicm4-ioboard",
            "jetson-nano",
            "jetson-xavier",
        ],
    ),
    ("linux/arm/v7", &["generic-armv7ahf", "raspberrypi2", "raspberrypi3", "beaglebone-black", "fincm3"]),
    ("linux/arm/v6", &["raspberry-pi", "raspberrypi"]),
];

/// Returns the platforms of a fleet's devices. The list is empty if docker's own platform is right for all of them, if the
/// fleet has no device, or if the type of a device is not known. Without `is_asked`, the server is not asked.
pub(super) async fn of_devices(
    client: &Client,
    fleet: &str,
    is_asked: bool,
) -> Result<Vec<String>, ClientError> {
    if !is_asked {
        return Ok(Vec::new());
    }
    let devices: Vec<DeviceView> = client.list(&["devices"], &[("fleet", Some(fleet))], None).await?;
    let own = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        _ => "",
    };
    Ok(chosen(devices.iter().map(|device| device.device_type.as_str()), own))
}

fn chosen<'a>(types: impl IntoIterator<Item = &'a str>, own: &str) -> Vec<String> {
    let platform_of =
        |name: &str| KNOWN.iter().find(|(_, names)| names.contains(&name)).map(|(platform, _)| *platform);
    let platforms: Option<BTreeSet<&str>> = types.into_iter().map(platform_of).collect();
    let platforms = platforms.unwrap_or_default();
    if platforms.iter().all(|platform| *platform == own) {
        return Vec::new();
    }
    platforms.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platforms_of_the_devices() {
        let own = "linux/amd64";
        for (why, types, expected) in [
            ("no device yet", &[][..], ""),
            ("as this machine", &["generic-amd64", "intel-nuc"], ""),
            ("boards", &["raspberrypi4-64", "raspberrypi4-64"], "linux/arm64"),
            ("boards of two kinds", &["raspberrypi3", "raspberrypi4-64"], "linux/arm/v7 linux/arm64"),
            (
                "boards beside machines as this one",
                &["generic-amd64", "raspberrypi5"],
                "linux/amd64 linux/arm64",
            ),
            ("one that is not known", &["raspberrypi5", "toaster"], ""),
        ] {
            assert_eq!(chosen(types.iter().copied(), own).join(" "), expected, "{why}");
        }
    }
}
