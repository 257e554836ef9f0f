//! Brings what belongs to a fleet, and not to its devices: services, releases, variables, and its target.
//!
//! Missing rows are created. Rows that differ are changed only while the fleet there has no device, or with `--overwrite`.
//! Otherwise they are only listed, because an operator may have changed them there.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::api::Api;
use super::source::Source;
use super::there::{Image, Release, Text, There};
use crate::cli::openbalena_error::BalenaError;
use crate::http::Http;
use crate::model::{ImageRef, ReleaseStatus};
use crate::registry;
use crate::wire::operator_api::{ExportedFleet, ExportedRelease, ExportedVariable};

/// Characters of the part of a repository's name that is different for each image.
const PART: usize = 16;

/// Where a text is there: the kind of its row, its key, and the row that has it.
pub(super) struct Place<'a> {
    pub(super) resource: &'static str,
    /// The field with the key, and the key.
    pub(super) key: (&'static str, &'a str),
    /// The field that names the row that has the text, and the number of that row.
    pub(super) holder: (&'static str, u64),
}

/// One run.
pub(super) struct Carrying<'a> {
    pub(super) api: Api,
    pub(super) http: &'a Http,
    pub(super) source: &'a Source,
    pub(super) there: There,
    /// The name of the fleet there.
    pub(super) name: String,
    pub(super) overwrite: bool,
    /// What is there and differs, and was left as it is.
    pub(super) differs: Vec<String>,
    /// What failed, with the reason. A later run tries it again.
    pub(super) failed: Vec<String>,
}

impl Carrying<'_> {
    /// Creates or updates the fleet. Returns whether it has the same target there as here, and nothing has failed.
    pub(super) async fn fleet(&mut self) -> Result<bool, BalenaError> {
        let Some(fleet) = &self.source.fleet else { return Ok(false) };
        let has_devices = !self.there.devices.is_empty();
        if !fleet.is_tracking_latest && self.there.is_tracking_latest && !has_devices {
            // Before releases are created, so that none of them becomes its target.
            let body = json!({ "should_track_latest_release": false });
            let what = format!("fleet {} to not track its latest release", self.name);
            self.api.change(&what, "application", self.there.application, &body).await?;
            self.there.is_tracking_latest = false;
        }
        for release in &self.source.releases {
            self.release(release).await?;
        }
        for variable in &self.source.variables {
            self.variable(variable).await?;
        }
        Ok(self.target(fleet).await? && self.failed.is_empty())
    }

    /// Whether something that is there and differs may be set.
    fn may_set(&self) -> bool {
        self.overwrite || self.there.devices.is_empty()
    }

    /// Sets what differs, or names it.
    pub(super) async fn differing(
        &mut self,
        what: &str,
        may_set: bool,
        (resource, id): (&str, u64),
        body: &Value,
    ) -> Result<(), BalenaError> {
        if may_set {
            return self.api.change(what, resource, id, body).await;
        }
        self.differs.push(format!("{what}, as it is here"));
        Ok(())
    }

    /// Brings a text, such as a variable or a tag: creates it if it is missing, and else sets it if it differs.
    pub(super) async fn text(
        &mut self,
        what: &str,
        Place { resource, key, holder }: Place<'_>,
        value: &str,
        known: Option<Text>,
        may_set: bool,
    ) -> Result<(), BalenaError> {
        match known {
            None => {
                let body = json!({ holder.0: holder.1, key.0: key.1, "value": value });
                self.api.create(what, resource, &body).await.map(drop)
            }
            Some(known) if known.value == value => Ok(()),
            Some(known) => {
                self.differing(what, may_set, (resource, known.id), &json!({ "value": value })).await
            }
        }
    }

    /// Returns the number of a service, which is created if it is missing.
    pub(super) async fn service(&mut self, name: &str) -> Result<u64, BalenaError> {
        if let Some(id) = self.there.services.get(name) {
            return Ok(*id);
        }
        let body = json!({ "application": self.there.application, "service_name": name });
        let id = self.api.create(&format!("service {name}"), "service", &body).await?;
        self.there.services.insert(name.to_owned(), id);
        Ok(id)
    }

    async fn release(&mut self, release: &ExportedRelease) -> Result<(), BalenaError> {
        let commit = &release.commit;
        let is_running = release.status == ReleaseStatus::Running;
        let known = self.there.releases.get(commit).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.status != "running") {
            return self.flags(release, known).await;
        }
        let id = match &known {
            Some(known) => known.id,
            None => {
                let body = new_release(release, self.there.application);
                self.api.create(&format!("release {commit}"), "release", &body).await?
            }
        };
        // It is a target of nothing until it is complete.
        let mut status = "running".to_owned();
        if self.images(release, id).await? && !is_running {
            let body =
                json!({ "status": release.status.to_string(), "end_timestamp": release.start_timestamp });
            let what = format!("release {commit} to {}", release.status);
            self.api.patch(&what, "release", id, &body).await?;
            if known.is_some() {
                self.api.note(
                    if self.api.is_dry { "would complete" } else { "completed" },
                    &format!("release {commit}"),
                );
            }
            status = release.status.to_string();
        }
        let ExportedRelease { is_final, is_invalidated, is_passing_tests, .. } = *release;
        let made = Release { id, status, is_final, is_invalidated, is_passing_tests };
        self.there.releases.insert(commit.clone(), made);
        Ok(())
    }

    /// Brings the flags of a release that is there.
    async fn flags(&mut self, release: &ExportedRelease, known: &Release) -> Result<(), BalenaError> {
        let commit = &release.commit;
        if known.status != release.status.to_string() {
            self.differs
                .push(format!("release {commit} is {} here and {} there", release.status, known.status));
            return Ok(());
        }
        for (field, here, there) in [
            ("is_final", release.is_final, known.is_final),
            ("is_invalidated", release.is_invalidated, known.is_invalidated),
            ("is_passing_tests", release.is_passing_tests, known.is_passing_tests),
        ] {
            if here != there {
                let (what, may_set) = (format!("{field} of release {commit} to {here}"), self.may_set());
                self.differing(&what, may_set, ("release", known.id), &json!({ field: here })).await?;
            }
        }
        Ok(())
    }

    /// Brings the images of a release. Returns `false` if one of them cannot be had.
    async fn images(&mut self, release: &ExportedRelease, id: u64) -> Result<bool, BalenaError> {
        let mut is_complete = true;
        for (name, image) in &release.images {
            let service = self.service(name).await?;
            match self.image(release, (name, service), image).await? {
                Ok(image) => self.part(image, id).await?,
                Err(why) => {
                    self.failed.push(format!("release {}: the image of {name}: {why}", release.commit));
                    is_complete = false;
                }
            }
        }
        Ok(is_complete)
    }

    async fn part(&mut self, image: u64, release: u64) -> Result<(), BalenaError> {
        let is_new = self.there.parts.insert((image, release));
        if !is_new || self.api.is_dry {
            return Ok(());
        }
        let body = json!({ "image": image, "is_part_of__release": release });
        self.api.add("image of a release", "image__is_part_of__release", &body).await.map(drop)
    }

    /// Brings an image: a row with a repository of its own, which openBalena requires, linked to the image in its registry.
    /// Its digest is the same, so devices fetch nothing again. Returns the number of the row, or why the image cannot be had.
    async fn image(
        &mut self,
        release: &ExportedRelease,
        (name, service): (&str, u64),
        image: &str,
    ) -> Result<Result<u64, String>, BalenaError> {
        let image = match ImageRef::parse(image) {
            Ok(image) => image,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let digest = image.digest().unwrap_or_default().to_owned();
        let key = (service, digest.clone());
        let known = self.there.images.get(&key).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.is_complete) {
            return Ok(Ok(known.id));
        }
        let to = format!("{}/{}", image.repository(), self.part_of_name(name, &digest));
        let body = json!({
            "is_a_build_of__service": service, "start_timestamp": release.start_timestamp,
            "status": "running", "content_hash": digest,
        });
        let id = match known {
            Some(known) => known.id,
            None => self.api.create(&format!("image {to} of service {name}"), "image", &body).await?,
        };
        let mut made = Image { id, is_complete: self.api.is_dry };
        if !self.api.is_dry {
            let linked = match ImageRef::parse(&format!("{to}@{digest}")) {
                Ok(linked) => {
                    registry::link(self.http, &image, &linked).await.map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            if let Err(why) = linked {
                self.there.images.insert(key, made);
                return Ok(Err(format!("{why}; copy {image} to {to} with its digest, e.g. with skopeo")));
            }
            let body = json!({
                "is_stored_at__image_location": to, "status": "success",
                "push_timestamp": release.start_timestamp, "end_timestamp": release.start_timestamp,
            });
            self.api.patch(&format!("image {to}"), "image", id, &body).await?;
            made.is_complete = true;
        }
        self.there.images.insert(key, made);
        Ok(Ok(id))
    }

    /// A part of a repository's name for each fleet, service and image: openBalena wants every image at a place of its own.
    fn part_of_name(&self, service: &str, digest: &str) -> String {
        let text = format!("{}\0{service}\0{digest}", self.name);
        let hex: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        hex[..PART].to_owned()
    }

    async fn variable(&mut self, variable: &ExportedVariable) -> Result<(), BalenaError> {
        let (name, value) = (&variable.name, variable.value.as_deref().unwrap_or_default());
        let (resource, holder, known, what) = match &variable.service {
            None => {
                let known = self.there.variables.get(name).cloned();
                let what = format!("variable {name} of the fleet");
                ("application_environment_variable", ("application", self.there.application), known, what)
            }
            Some(service) => {
                let id = self.service(service).await?;
                let known = self.there.of_services.get(&(id, name.clone())).cloned();
                let what = format!("variable {name} of service {service}");
                ("service_environment_variable", ("service", id), known, what)
            }
        };
        let (place, may_set) = (Place { resource, key: ("name", name), holder }, self.may_set());
        self.text(&what, place, value, known, may_set).await
    }

    async fn target(&mut self, fleet: &ExportedFleet) -> Result<bool, BalenaError> {
        let Some(commit) = &fleet.target else { return Ok(false) };
        let release = self.there.releases.get(commit).filter(|release| release.status == "success");
        let Some(id) = release.map(|release| release.id) else {
            self.failed.push(format!("the target of the fleet, {commit}, is not there"));
            return Ok(false);
        };
        // What was created is tracked at once: the API has moved the target meanwhile.
        if self.there.is_tracking_latest {
            self.there.target = self.tracked(id).await?;
        }
        let is_tracking = fleet.is_tracking_latest;
        if self.there.target == Some(id) && self.there.is_tracking_latest == is_tracking {
            return Ok(true);
        }
        let body = json!({ "should_track_latest_release": is_tracking, "should_be_running__release": id });
        let how = if is_tracking { "which it tracks" } else { "to which it is pinned" };
        let (what, may_set) = (format!("target of the fleet: {commit}, {how}"), self.may_set());
        self.differing(&what, may_set, ("application", self.there.application), &body).await?;
        Ok(may_set)
    }

    /// Returns the target of the fleet there, which tracks its newest release. `id`: the release that is its target here.
    async fn tracked(&self, id: u64) -> Result<Option<u64>, BalenaError> {
        if !self.api.is_dry {
            let filter = format!("id eq {}", self.there.application);
            let rows = self.api.rows("application", "should_be_running__release", &filter).await?;
            return Ok(rows.first().and_then(|row| row.link("should_be_running__release")));
        }
        let is_tracked = |release: &&ExportedRelease| {
            let is_good = release.is_final && release.is_passing_tests && !release.is_invalidated;
            is_good && release.status == ReleaseStatus::Success
        };
        let newest =
            self.source.releases.iter().filter(is_tracked).max_by_key(|release| release.start_timestamp);
        let newest = newest.and_then(|newest| self.there.releases.get(&newest.commit));
        Ok(newest.map(|newest| newest.id).filter(|newest| *newest == id).or(self.there.target))
    }
}

fn new_release(release: &ExportedRelease, application: u64) -> Value {
    json!({
        "belongs_to__application": application,
        "commit": release.commit,
        "composition": release.composition,
        "status": "running",
        "source": "cloud",
        "start_timestamp": release.start_timestamp,
        "is_final": release.is_final,
        "is_invalidated": release.is_invalidated,
        "is_passing_tests": release.is_passing_tests,
        "build_log": release.build_log,
    })
}
