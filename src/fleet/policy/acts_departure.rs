//! Acts that send devices to another cloud, and call them back.

use super::rules::bad;
use super::{Change, Departure, Device, Refusal, World};
use crate::model::FleetRef;

/// Longest address and longest key.
const LONGEST: usize = 255;

const URL_ACCEPTS: &str = "it is the address of the other server's API, such as https://fleet.example.com, without a user and a query";
const FLEET_ACCEPTS: &str = "it is the number of the fleet there, or at a Cotter fleet server its name";
const KEY_ACCEPTS: &str = "a provisioning key is one word of at most 255 visible ASCII characters";

impl World {
    /// Lets the targets of these devices order them to another cloud; `None` cancels that. A device that has moved does not
    /// hear of it.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadText`] for the address, the fleet or the key; no message contains the key.
    pub fn send_away(
        &self,
        devices: &[&Device],
        departure: Option<&Departure>,
    ) -> Result<Vec<Change>, Refusal> {
        if let Some(departure) = departure {
            check(departure)?;
        }
        let changed = devices.iter().filter(|device| {
            let is_same = |before: &Departure, after: &Departure| {
                (&before.to, &before.fleet, &before.key) == (&after.to, &after.fleet, &after.key)
            };
            match (&device.departure, departure) {
                (None, None) => false,
                (Some(before), Some(after)) => !is_same(before, after),
                (Some(_), None) | (None, Some(_)) => true,
            }
        });
        let put = |device: &&&Device| {
            Change::PutDevice(Device { departure: departure.cloned(), ..Device::clone(device) })
        };
        Ok(changed.map(|device| put(&device)).collect())
    }
}

fn check(Departure { to, fleet, key, .. }: &Departure) -> Result<(), Refusal> {
    let rest = to.strip_prefix("https://").or(to.strip_prefix("http://")).unwrap_or_default();
    let is_url = to.len() <= LONGEST
        && !rest.is_empty()
        && !rest.starts_with('/')
        && rest.chars().all(|c| c.is_ascii_graphic() && !"@?#\\\"".contains(c));
    if !is_url {
        return Err(bad("address of a server", to, URL_ACCEPTS));
    }
    if FleetRef::parse(fleet).is_err() {
        return Err(bad("fleet there", fleet, FLEET_ACCEPTS));
    }
    let is_key = (1..=LONGEST).contains(&key.len()) && key.chars().all(|c| c.is_ascii_graphic());
    // Not quoted: it is a secret.
    if is_key { Ok(()) } else { Err(Refusal::BadDeviceKey { why: KEY_ACCEPTS }) }
}
