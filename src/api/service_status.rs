//! The part of the status document about one service: its container, and the download of its image.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::quantity::span;
use crate::model::{DownloadProgress, Elapsed, ServiceReport};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    pub release: String,
    pub image: String,
    pub status: String,
    /// The engine's status text, empty without a container. Its time is right now, not when the engine was asked.
    pub detail: String,
    /// For how many seconds the container has been in this state; absent if that is not known.
    #[serde(default)]
    pub for_s: Option<u64>,
    /// Percent of the bytes of its image, while that downloads. Fetching and unpacking count half each.
    pub progress: Option<u8>,
    /// While its image downloads, or waits for its download.
    #[serde(default)]
    pub download: Option<DownloadStatus>,
}

/// How far a download is, or all downloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadStatus {
    /// Percent of the bytes. Fetching and unpacking count half each.
    pub progress: u8,
    /// Compressed bytes that are here. Layers that were here before do not count.
    pub fetched_bytes: u64,
    /// Compressed bytes of all that is fetched; absent while they are not known.
    pub total_bytes: Option<u64>,
    /// Bytes a second, over the last 10 s; absent in the first second.
    pub rate: Option<u64>,
    /// Seconds until everything is fetched at this rate; absent if that is not known.
    pub left_s: Option<u64>,
}

pub(super) fn service(s: &ServiceReport, uptime: Duration) -> ServiceStatus {
    let for_s = s.since.map(|since| uptime.saturating_sub(since).as_secs());
    ServiceStatus {
        name: s.service.to_string(),
        release: s.release.to_string(),
        image: s.image.clone(),
        status: s.status.as_str().to_owned(),
        detail: for_s.map_or_else(|| s.detail.clone(), |seconds| with_time(&s.detail, seconds)),
        for_s,
        progress: s.progress.map(|at| at.percent),
        download: s.progress.map(download),
    }
}

/// The engine's text with another time: "Up 40 s (healthy)".
fn with_time(detail: &str, seconds: u64) -> String {
    let Some(Elapsed { place, .. }) = Elapsed::find(detail) else { return detail.to_owned() };
    let mut text = detail.to_owned();
    text.replace_range(place, &span(seconds));
    text
}

pub(super) fn download(at: DownloadProgress) -> DownloadStatus {
    DownloadStatus {
        progress: at.percent,
        fetched_bytes: at.fetched,
        total_bytes: Some(at.total).filter(|total| *total > 0),
        rate: at.rate,
        left_s: at.left_s(),
    }
}
