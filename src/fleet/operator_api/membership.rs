//! What the rollout of its fleet means for a device.

use crate::fleet::policy::{Device, World};
use crate::fleet::rollout::{Position, Rollout, position};
use crate::fleet::standing::Contact;
use crate::wire::operator_api::DeviceRollout;

/// Says what the rollout of its fleet that goes on means for a device.
pub(super) fn of_device(world: &World, device: &Device, contact: Contact) -> Option<DeviceRollout> {
    let rollout = world.open_rollout(device.fleet)?;
    let member = world.membership(device).map(|(_, member)| member);
    let why = match member {
        _ if device.pin.is_some() => "it has a pin of its own".to_owned(),
        Some(member) if member.is_pulled_back || !rollout.phase.keeps_release() => {
            "it was sent back".to_owned()
        }
        Some(_) => String::new(),
        None => not_exposed(rollout, device, contact),
    };
    Some(DeviceRollout {
        number: rollout.number,
        release: world.release(rollout.release).map(|release| release.commit.to_string()),
        phase: rollout.phase.as_str().to_owned(),
        wave: member.map(|member| member.wave + 1),
        exposed: member.map(|member| member.exposed),
        verdict: member.map(|member| member.verdict.as_str().to_owned()),
        why,
    })
}

fn not_exposed(rollout: &Rollout, device: &Device, contact: Contact) -> String {
    let is_out = rollout.definition.filter.as_ref().is_some_and(|filter| !filter.matches(&device.tags));
    let halted = rollout.halted.keys().find(|segment| segment.has(&device.tags));
    match position(rollout.number, device.uuid.as_str(), &device.tags) {
        None => "its tag rollout=never keeps it out".to_owned(),
        Some(_) if is_out => "it has not the tags of the rollout's filter".to_owned(),
        Some(_) if halted.is_some() => "its segment is halted".to_owned(),
        Some(position) => match rollout.wave_of(position, &device.tags) {
            Some(wave) if !rollout.phase.is_running() => {
                format!("it is in wave {}, and the rollout is {}", wave + 1, rollout.phase.as_str())
            }
            Some(wave) if !rollout.is_confirmed(wave) => rollout
                .waits_for_webhook()
                .unwrap_or_else(|| format!("wave {} waits for a webhook", wave + 1)),
            Some(wave) => {
                let limits = if contact.is_recent() {
                    "a rate, a number at once or a window"
                } else {
                    "a rate or a window"
                };
                format!("it is in wave {}, which has begun: {limits} keeps it waiting", wave + 1)
            }
            None if matches!(position, Position::Late(_)) => {
                "its tag rollout=late puts it in the last wave".to_owned()
            }
            None => "it is in a later wave".to_owned(),
        },
    }
}
