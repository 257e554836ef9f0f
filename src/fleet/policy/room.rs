//! How much memory releases take, and how much they may take. The server keeps all of them in memory, so it must accept no
//! more than it can read again when it starts.

use imbl::OrdMap;

use super::Release;

/// Bytes of memory for one release, and for each of its services, in addition to their texts.
const OF_A_RELEASE: usize = 512;
const OF_A_SERVICE: usize = 256;

/// How many releases are accepted. Drafts and failed ones count as all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Maximum number of releases of a fleet.
    pub releases: usize,
    /// Maximum number of bytes of the releases of a fleet.
    pub of_a_fleet: usize,
    /// Maximum number of bytes of all releases.
    pub of_all: usize,
}

/// What the releases of one fleet, or of all, take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) releases: usize,
    pub(super) bytes: usize,
}

/// What all releases take, by fleet.
#[derive(Debug, Clone, Default)]
pub(super) struct AllTaken {
    by_fleet: OrdMap<u64, Taken>,
    pub(super) all: Taken,
}

impl Taken {
    fn add(&mut self, release: &Release) {
        self.releases += 1;
        self.bytes = self.bytes.saturating_add(release.size());
    }

    fn remove(&mut self, release: &Release) {
        self.releases = self.releases.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(release.size());
    }
}

impl AllTaken {
    pub(super) fn add(&mut self, release: &Release) {
        self.by_fleet.entry(release.fleet).or_default().add(release);
        self.all.add(release);
    }

    pub(super) fn remove(&mut self, release: Option<&Release>) {
        let Some(release) = release else { return };
        self.all.remove(release);
        let of_fleet = self.by_fleet.entry(release.fleet).or_default();
        of_fleet.remove(release);
        if of_fleet.releases == 0 {
            self.by_fleet.remove(&release.fleet);
        }
    }

    pub(super) fn of(&self, fleet: u64) -> Taken {
        self.by_fleet.get(&fleet).copied().unwrap_or_default()
    }
}

impl Release {
    /// Returns about how many bytes of memory it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        let of_service = |(name, image): (&crate::model::ServiceName, &super::Image)| {
            OF_A_SERVICE + name.as_str().len() + image.image.to_string().len() + image.composition.size()
        };
        let services: usize = self.content.services.iter().map(of_service).sum();
        let log = self.build_log.as_ref().map_or(0, |log| log.len());
        OF_A_RELEASE + services + self.content.networks.size() + self.content.volumes.size() + log
    }
}
