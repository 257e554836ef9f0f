//! What a fleet has at an openBalena already.

use std::collections::{BTreeMap, BTreeSet};

use super::api::{Api, Row};
use crate::cli::openbalena_error::BalenaError;

/// A release there.
#[derive(Debug, Clone)]
pub(super) struct Release {
    pub(super) id: u64,
    pub(super) status: String,
    pub(super) is_final: bool,
    pub(super) is_invalidated: bool,
    pub(super) is_passing_tests: bool,
}

/// An image there.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) id: u64,
    pub(super) is_complete: bool,
}

/// A text with the id of its row.
#[derive(Debug, Clone)]
pub(super) struct Text {
    pub(super) id: u64,
    pub(super) value: String,
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) pin: Option<u64>,
}

/// A fleet there, with all that is in it. Empty while there is none.
#[derive(Debug, Default)]
pub(super) struct There {
    pub(super) application: u64,
    pub(super) is_tracking_latest: bool,
    pub(super) target: Option<u64>,
    /// By name.
    pub(super) services: BTreeMap<String, u64>,
    /// By commit.
    pub(super) releases: BTreeMap<String, Release>,
    /// By service and digest.
    pub(super) images: BTreeMap<(u64, String), Image>,
    /// Image and release.
    pub(super) parts: BTreeSet<(u64, u64)>,
    /// By name.
    pub(super) variables: BTreeMap<String, Text>,
    /// By service and name.
    pub(super) of_services: BTreeMap<(u64, String), Text>,
    /// By uuid.
    pub(super) devices: BTreeMap<String, Device>,
    /// By device and key.
    pub(super) tags: BTreeMap<(u64, String), Text>,
    /// By device and name.
    pub(super) of_devices: BTreeMap<(u64, String), Text>,
    /// By device and service.
    pub(super) installs: BTreeMap<(u64, u64), u64>,
    /// By install and name.
    pub(super) of_installs: BTreeMap<(u64, String), Text>,
}

impl There {
    /// Reads all that the fleet `application` has.
    pub(super) async fn read(api: &Api, application: &Row) -> Result<Self, BalenaError> {
        let number = application.id();
        let mut there = Self {
            application: number,
            is_tracking_latest: application.is("should_track_latest_release"),
            target: application.link("should_be_running__release"),
            ..Self::default()
        };
        there.read_releases(api).await?;
        let of_device = format!("device/any(d:d/belongs_to__application eq {number})");
        let own = format!("application eq {number}");
        there.variables = texts(api, "application_environment_variable", "application", "name", &own)
            .await?
            .into_iter()
            .map(|((_, name), text)| (name, text))
            .collect();
        let of_service = format!("service/any(s:s/application eq {number})");
        there.of_services =
            texts(api, "service_environment_variable", "service", "name", &of_service).await?;
        let filter = format!("belongs_to__application eq {number}");
        for row in api.rows("device", "uuid,device_name,is_pinned_on__release", &filter).await? {
            let (name, pin) = (row.text("device_name").to_owned(), row.link("is_pinned_on__release"));
            there.devices.insert(row.text("uuid").to_owned(), Device { id: row.id(), name, pin });
        }
        if there.devices.is_empty() {
            return Ok(there);
        }
        there.tags = texts(api, "device_tag", "device", "tag_key", &of_device).await?;
        there.of_devices = texts(api, "device_environment_variable", "device", "name", &of_device).await?;
        for row in api.rows("service_install", "device,installs__service", &of_device).await? {
            if let (Some(device), Some(service)) = (row.link("device"), row.link("installs__service")) {
                there.installs.insert((device, service), row.id());
            }
        }
        let of_install = format!("service_install/any(i:i/{of_device})");
        let resource = "device_service_environment_variable";
        there.of_installs = texts(api, resource, "service_install", "name", &of_install).await?;
        Ok(there)
    }

    async fn read_releases(&mut self, api: &Api) -> Result<(), BalenaError> {
        let number = self.application;
        for row in api.rows("service", "service_name", &format!("application eq {number}")).await? {
            self.services.insert(row.text("service_name").to_owned(), row.id());
        }
        let select = "commit,status,is_final,is_invalidated,is_passing_tests";
        for row in api.rows("release", select, &format!("belongs_to__application eq {number}")).await? {
            let release = Release {
                id: row.id(),
                status: row.text("status").to_owned(),
                is_final: row.is("is_final"),
                is_invalidated: row.is("is_invalidated"),
                is_passing_tests: row.is("is_passing_tests"),
            };
            // Of several that were begun, one may be complete.
            let known = self.releases.get(row.text("commit"));
            if known.is_none_or(|known| known.status != "success" && release.status == "success") {
                self.releases.insert(row.text("commit").to_owned(), release);
            }
        }
        let filter = format!("is_a_build_of__service/any(s:s/application eq {number})");
        for row in api.rows("image", "content_hash,status,is_a_build_of__service", &filter).await? {
            if let Some(service) = row.link("is_a_build_of__service") {
                let image = Image { id: row.id(), is_complete: row.text("status") == "success" };
                self.images.insert((service, row.text("content_hash").to_owned()), image);
            }
        }
        let filter = format!("is_part_of__release/any(r:r/belongs_to__application eq {number})");
        for row in api.rows("image__is_part_of__release", "image,is_part_of__release", &filter).await? {
            if let (Some(image), Some(release)) = (row.link("image"), row.link("is_part_of__release")) {
                self.parts.insert((image, release));
            }
        }
        Ok(())
    }
}

/// Reads values, by the row that has them and by their key.
async fn texts(
    api: &Api,
    resource: &str,
    holder: &str,
    key: &str,
    filter: &str,
) -> Result<BTreeMap<(u64, String), Text>, BalenaError> {
    let rows = api.rows(resource, &format!("{holder},{key},value"), filter).await?;
    let text = |row: Row| {
        let text = Text { id: row.id(), value: row.text("value").to_owned() };
        Some(((row.link(holder)?, row.text(key).to_owned()), text))
    };
    Ok(rows.into_iter().filter_map(text).collect())
}
