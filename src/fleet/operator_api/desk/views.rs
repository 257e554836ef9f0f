//! What the client of a request may see besides the policy world.

use std::sync::Arc;

use jiff::Timestamp;

use super::Desk;
use crate::fleet::logs::Logs;
use crate::fleet::parked::Parked;
use crate::fleet::policy::{Device, Room, World};
use crate::fleet::requests::Requests;
use crate::fleet::standing::Contact;
use crate::fleet::writer::Work;
use crate::model::DeviceUuid;

impl Desk {
    /// As [`Records::room`](crate::fleet::records::Records::room).
    pub(in crate::fleet::operator_api) fn room(&self) -> Room {
        self.records.room()
    }

    /// Returns who makes the request, for people.
    pub(in crate::fleet::operator_api) fn who(&self) -> String {
        self.order.caller.by.shown()
    }

    /// As [`Records::last_seen`](crate::fleet::records::Records::last_seen).
    pub(in crate::fleet::operator_api) fn last_seen(
        &self,
        world: &World,
        device: &Device,
    ) -> (Option<Timestamp>, Contact) {
        self.records.last_seen(world, device)
    }

    /// As [`Records::work`](crate::fleet::records::Records::work).
    pub(in crate::fleet::operator_api) fn work(&self) -> &Work {
        self.records.work()
    }

    /// As [`Records::parked`](crate::fleet::records::Records::parked).
    pub(in crate::fleet::operator_api) fn parked(&self) -> &Parked {
        self.records.parked()
    }

    pub(in crate::fleet::operator_api) fn logs(&self) -> &Arc<Logs> {
        &self.records.logs
    }

    /// As [`Records::requests`](crate::fleet::records::Records::requests).
    pub(in crate::fleet::operator_api) fn requests(&self) -> &Requests {
        self.records.requests()
    }

    /// As [`Records::forget`](crate::fleet::records::Records::forget).
    pub(in crate::fleet::operator_api) fn forget(&self, uuid: &DeviceUuid) {
        self.records.forget(uuid);
    }
}
