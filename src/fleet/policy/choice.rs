//! Selects the devices of a list or a bulk act.

use super::{Device, KeyHash};
use crate::fleet::tag_filter::TagFilter;

/// Selects devices. Every field that is set must match; without any, all devices are selected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    pub filter: Option<TagFilter>,
    /// Number of their fleet.
    pub fleet: Option<u64>,
    /// The provisioning key that they registered with.
    pub key: Option<KeyHash>,
}

impl Choice {
    /// Returns whether a device is one of them.
    #[must_use]
    pub fn matches(&self, device: &Device) -> bool {
        self.fleet.is_none_or(|fleet| fleet == device.fleet)
            && self.key.as_ref().is_none_or(|key| device.provisioned_by.as_ref() == Some(key))
            && self.filter.as_ref().is_none_or(|filter| filter.matches(&device.tags))
    }
}
