//! Progress of a download, from the engine's messages about its layers to bytes.

use std::collections::HashMap;

use bollard::models::CreateImageInfo;

use crate::model::{PullProgress, Transfer};

/// How far each layer is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    layers: HashMap<String, Layer>,
}

/// How far one layer is.
#[derive(Debug, Default)]
struct Layer {
    /// It was here before.
    is_here: bool,
    /// From 0 to 1, as the next one. They never fall.
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

    /// This part of its bytes.
    fn part(&self, ratio: f64) -> u64 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "progress needs no more, and the ratio is between 0 and 1"
        )]
        let bytes = (self.needed as f64 * ratio) as u64;
        bytes
    }
}

impl Progress {
    /// How far the download is, as far as the engine reports it.
    pub(super) fn now(&self) -> PullProgress {
        let mut now = PullProgress { transfer: self.transfer(), ..PullProgress::default() };
        for layer in self.layers.values().filter(|layer| !layer.is_here) {
            now.layers += 1;
            now.sized += u32::from(layer.needed > 0);
            now.pending += u32::from(layer.needed == 0 && layer.downloaded < 1.0);
            now.complete += u32::from(layer.extracted >= 1.0);
            now.fetched = now.fetched.saturating_add(layer.part(layer.downloaded));
            now.unpacked = now.unpacked.saturating_add(layer.part(layer.extracted));
        }
        now
    }

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

    /// Takes a message of the engine.
    ///
    /// After a cut layer is resumed its total is only what remains (docs/dev/facts.md, "Progress of a pull"), so the
    /// part of a layer that is done never falls.
    pub(super) fn advance(&mut self, message: &CreateImageInfo) {
        let (Some(id), Some(status)) = (message.id.as_ref(), message.status.as_deref()) else { return };
        let bytes = message.progress_detail.as_ref().and_then(|detail| {
            let unsigned = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok());
            Some((unsigned(detail.current)?, unsigned(detail.total)?))
        });
        let ratio = bytes.filter(|(_, total)| *total > 0).map(|(current, total)| {
            #[expect(clippy::cast_precision_loss, reason = "progress needs no more")]
            let ratio = current as f64 / total as f64;
            ratio.clamp(0.0, 1.0)
        });
        let (downloaded, extracted) = match status {
            "Pulling fs layer" | "Waiting" => (0.0, 0.0),
            "Downloading" => (ratio.unwrap_or(0.0), 0.0),
            "Verifying Checksum" | "Download complete" => (1.0, 0.0),
            "Extracting" => (1.0, ratio.unwrap_or(0.0)),
            "Pull complete" | "Already exists" => (1.0, 1.0),
            _ => return,
        };
        let layer = self.layers.entry(id.clone()).or_default();
        layer.is_here |= status == "Already exists" && layer.needed == 0;
        match (status, bytes) {
            ("Downloading", Some((current, total))) => layer.fetch(current, total),
            ("Verifying Checksum" | "Download complete", _) => layer.current = layer.total,
            _ => {}
        }
        layer.downloaded = layer.downloaded.max(downloaded);
        layer.extracted = layer.extracted.max(extracted);
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
    fn it_counts_bytes_and_never_falls() {
        let mut progress = Progress::default();
        let shown: Vec<_> = [
            message("c", "Already exists", None),
            message("a", "Pulling fs layer", None),
            message("b", "Pulling fs layer", None),
            message("a", "Downloading", Some((50, 100))),
            message("a", "Downloading", Some((10, 60))),
            message("b", "Downloading", Some((30, 300))),
            message("a", "Download complete", None),
            message("a", "Extracting", Some((40, 100))),
            message("a", "Pull complete", None),
            message("b", "Download complete", None),
            message("b", "Pull complete", None),
        ]
        .iter()
        .map(|message| {
            progress.advance(message);
            (progress.now().fetched, progress.now().percent(400))
        })
        .collect();
        let expected = [
            (0, 0),
            (0, 0),
            (0, 0),
            (50, 6),
            (50, 6),
            (80, 10),
            (130, 16),
            (130, 21),
            (130, 28),
            (400, 62),
            (400, 100),
        ];
        assert_eq!(shown, expected, "the layer that was here counts nowhere");
        let PullProgress { layers, complete, .. } = progress.now();
        assert_eq!((layers, complete), (2, 2), "nor among the layers, for engines that name no bytes");
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
