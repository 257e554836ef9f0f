//! Progress of a download, from the engine's many layers to one percentage that never falls.

use std::collections::HashMap;

use bollard::models::CreateImageInfo;

/// The progress of each layer, and the highest percentage that was reported.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Per layer: downloaded and extracted, each from 0 to 1.
    layers: HashMap<String, (f64, f64)>,
    /// For each downloaded layer, the largest total size that the engine reported.
    totals: HashMap<String, u64>,
    reported: u8,
}

impl Progress {
    /// Returns the bytes of the downloaded layers, as far as the engine reported them.
    pub(super) fn bytes(&self) -> u64 {
        self.totals.values().sum()
    }

    /// Takes a message of the engine; the percentage if it rose.
    ///
    /// After a cut layer is resumed its total is only what remains (docs/dev/facts.md, "Progress of a pull"), so a
    /// layer never falls back. Download and extraction count half each.
    pub(super) fn advance(&mut self, message: &CreateImageInfo) -> Option<u8> {
        let (id, status) = (message.id.as_ref()?, message.status.as_deref()?);
        let ratio = message.progress_detail.as_ref().and_then(|detail| {
            let (current, total) = (detail.current?, detail.total?);
            #[expect(clippy::cast_precision_loss, reason = "a percentage needs no more")]
            (total > 0).then(|| (current as f64 / total as f64).clamp(0.0, 1.0))
        });
        let total = message.progress_detail.as_ref().and_then(|detail| detail.total);
        if let Some(total) =
            total.and_then(|total| u64::try_from(total).ok()).filter(|_| status == "Downloading")
        {
            let known = self.totals.entry(id.clone()).or_default();
            *known = total.max(*known);
        }
        let (downloaded, extracted) = match status {
            "Pulling fs layer" | "Waiting" => (0.0, 0.0),
            "Downloading" => (ratio.unwrap_or(0.0), 0.0),
            "Verifying Checksum" | "Download complete" => (1.0, 0.0),
            "Extracting" => (1.0, ratio.unwrap_or(0.0)),
            "Pull complete" | "Already exists" => (1.0, 1.0),
            _ => return None,
        };
        let layer = self.layers.entry(id.clone()).or_default();
        *layer = (layer.0.max(downloaded), layer.1.max(extracted));
        let sum: f64 = self.layers.values().map(|(d, e)| (d + e) / 2.0).sum();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 100"
        )]
        let percent = (sum / self.layers.len() as f64 * 100.0).clamp(0.0, 100.0) as u8;
        (percent > self.reported).then(|| {
            self.reported = percent;
            percent
        })
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
        let percentages: Vec<_> = [
            message("a", "Pulling fs layer", None),
            message("b", "Pulling fs layer", None),
            message("a", "Downloading", Some((50, 100))),
            message("a", "Downloading", Some((10, 60))),
            message("a", "Download complete", None),
            message("a", "Pull complete", None),
            message("b", "Already exists", None),
        ]
        .iter()
        .map(|m| progress.advance(m))
        .collect();
        assert_eq!(percentages, [None, None, Some(12), None, Some(25), Some(50), Some(100)]);
        assert_eq!(progress.bytes(), 100);
    }
}
