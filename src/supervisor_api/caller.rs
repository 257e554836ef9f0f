//! Who asks: a service of this device, or its cloud through the VPN.

use crate::model::{ApiClient, AppId, ServiceName};

use super::Allowed;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    Service(ApiClient),
    /// The cloud, for its users. All apps of the device are its own.
    Cloud,
}

impl Caller {
    /// Returns whether this caller may see and change an app.
    pub(super) fn may_reach(&self, app: &AppId, allowed: Allowed) -> bool {
        self.may_reach_all(allowed) || self.is_of(app)
    }

    /// Returns whether this caller may see and change all apps.
    pub(super) fn may_reach_all(&self, allowed: Allowed) -> bool {
        allowed.other_apps || *self == Self::Cloud
    }

    /// Returns whether the app is that of the caller.
    fn is_of(&self, app: &AppId) -> bool {
        match self {
            Self::Service(client) => client.app == *app,
            Self::Cloud => true,
        }
    }

    /// The app of a service; `None` for the cloud.
    pub(super) fn app(&self) -> Option<&AppId> {
        self.service().map(|(app, _)| app)
    }

    /// A service with its app; `None` for the cloud.
    pub(super) fn service(&self) -> Option<(&AppId, &ServiceName)> {
        match self {
            Self::Service(client) => Some((&client.app, &client.service)),
            Self::Cloud => None,
        }
    }
}
