//! Progress of a download, from the engine's many layers to one percentage that never falls, and the bytes it has cost.

use std::collections::HashMap;

use bollard::models::CreateImageInfo;

use crate::model::{PullProgress, Transfer};

/// How far each layer is, and the highest percentage so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    layers: HashMap<String, Layer>,
    percent: u8,
}

/// How far one layer is.
#[derive(Debug, Default)]
struct Layer {
    /// From 0 to 1, as the next one.
    downloaded: f64,
    extracted: f64,
    /// Bytes that came before its download was begun again.
    earlier: u64,
    /// Bytes that came since.
    current: u64,
    /// The bytes of the present attempt, and of the largest one.
    total: u64,
    needed: u64,
}

impl Layer {
    /// Takes the engine's `current` and `total` of a download.
    fn fetch(&mut self, current: u64, total: u64) {
        if current < self.current {
            self.earlier = self.earlier.saturating_add(self.current);
        }
        (self.current, self.total) = (current, total);
        self.needed = self.needed.max(total);
    }
}

impl Progress {
    /// What the download has moved so far, as far as the engine reports it.
    pub(super) fn transfer(&self) -> Transfer {
        let sum = |bytes: fn(&Layer) -> u64| {
            self.layers.values().fold(0_u64, |sum, layer| sum.saturating_add(bytes(layer)))
        };
        Transfer {
            fetched: sum(|layer| layer.earlier.saturating_add(layer.current)),
            needed: sum(|layer| layer.needed),
        }
    }

    /// The percentage and the bytes so far.
    pub(super) fn now(&self) -> PullProgress {
        PullProgress { percent: self.percent, transfer: self.transfer() }
    }

    /// Takes a message of the engine. Returns `true` if the percentage rose.
    ///
    /// After a cut layer is resumed its total is only what remains (docs/dev/facts.md, "Progress of a pull"), so a
    /// layer never falls back. Download and extraction count half each.
    pub(super) fn advance(&mut self, message: &CreateImageInfo) -> bool {
        let (Some(id), Some(status)) = (message.id.as_ref(), message.status.as_deref()) else { return false };
        let bytes = message.progress_detail.as_ref().and_then(|detail| {
            let unsigned = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok());
            Some((unsigned(detail.current)?, unsigned(detail.total)?))
        });
        let ratio = bytes.filter(|(_, total)| *total > 0).map(|(current, total)| {
            #[expect(clippy::cast_precision_loss, reason = "a percentage needs no more")]
            let ratio = current as f64 / total as f64;
            ratio.clamp(0.0, 1.0)
        });
        let (downloaded, extracted) = match status {
            "Pulling fs layer" | "Waiting" => (0.0, 0.0),
            "Downloading" => (ratio.unwrap_or(0.0), 0.0),
            "Verifying Checksum" | "Download complete" => (1.0, 0.0),
            "Extracting" => (1.0, ratio.unwrap_or(0.0)),
            "Pull complete" | "Already exists" => (1.0, 1.0),
            _ => return false,
        };
        let layer = self.layers.entry(id.clone()).or_default();
        match (status, bytes) {
            ("Downloading", Some((current, total))) => layer.fetch(current, total),
            ("Verifying Checksum" | "Download complete", _) => layer.current = layer.total,
            _ => {}
        }
        layer.downloaded = layer.downloaded.max(downloaded);
        layer.extracted = layer.extracted.max(extracted);
        let sum: f64 = self.layers.values().map(|layer| (layer.downloaded + layer.extracted) / 2.0).sum();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 100"
        )]
        let percent = (sum / self.layers.len() as f64 * 100.0).clamp(0.0, 100.0) as u8;
        let has_risen = percent > self.percent;
        self.percent = self.percent.max(percent);
        has_risen
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    fn message(id: &str, status: &str, at: Option<(i64, i64)>) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(id.into()),
            status: Some(status.into()),
            progress_detail: at.map(|(c, t)| ProgressDetail { current: Some(c), total: Some(t) }),
            ..CreateImageInfo::default()
        }
    }

    #[test]
    fn it_rises_and_never_falls() {
        let mut progress = Progress::default();
        let shown: Vec<_> = [
            message("a", "Pulling fs layer", None),
            message("b", "Pulling fs layer", None),
            message("a", "Downloading", Some((50, 100))),
            message("a", "Downloading", Some((10, 60))),
            message("a", "Download complete", None),
            message("a", "Pull complete", None),
            message("b", "Already exists", None),
        ]
        .iter()
        .map(|m| progress.advance(m).then_some(progress.now().percent))
        .collect();
        assert_eq!(shown, [None, None, Some(12), None, Some(25), Some(50), Some(100)]);
    }
    #[test]
    fn bytes_that_come_again_count_again() {
        let mut progress = Progress::default();
        for (what, message, fetched, needed) in [
            ("the engine has begun nothing", message("a", "Pulling fs layer", None), 0, 0),
            ("half of it came", message("a", "Downloading", Some((50, 100))), 50, 100),
            (
                "it was cut and resumed: its total is what remains",
                message("a", "Downloading", Some((10, 60))),
                60,
                100,
            ),
            ("the rest came", message("a", "Download complete", None), 110, 100),
            ("it is unpacked", message("a", "Extracting", Some((100, 100))), 110, 100),
            ("another layer", message("b", "Downloading", Some((5, 20))), 115, 120),
            ("it was here already", message("c", "Already exists", None), 115, 120),
            ("numbers that cannot be", message("b", "Downloading", Some((-5, -1))), 115, 120),
        ] {
            progress.advance(&message);
            assert_eq!(progress.transfer(), Transfer { fetched, needed }, "{what}");
        }
    }
}
