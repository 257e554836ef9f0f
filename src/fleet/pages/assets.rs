//! The static files: one style, one script and one icon. Their names have the hash of their content, so that browsers keep them
//! until they change.

use std::io::Write as _;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use crate::fleet::secret;

struct Asset {
    name: String,
    kind: &'static str,
    content: &'static str,
    /// The content for browsers that take gzip. Pages are not compressed: they have secrets beside texts of their address.
    compressed: Vec<u8>,
}

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| asset("css", "text/css; charset=utf-8", include_str!("dashboard.css")));
static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| asset("js", "text/javascript; charset=utf-8", include_str!("dashboard.js")));
static ICON: LazyLock<Asset> = LazyLock::new(|| asset("svg", "image/svg+xml", include_str!("dashboard.svg")));

fn asset(ending: &str, kind: &'static str, content: &'static str) -> Asset {
    let hash = secret::hex(&Sha256::digest(content)[..8]);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail; empty means that it is sent as it is.
    let compressed =
        encoder.write_all(content.as_bytes()).and_then(|()| encoder.finish()).unwrap_or_default();
    Asset { name: format!("dashboard-{hash}.{ending}"), kind, content, compressed }
}

pub(super) fn style() -> String {
    format!("/static/{}", STYLE.name)
}

pub(super) fn script() -> String {
    format!("/static/{}", SCRIPT.name)
}

pub(super) fn icon() -> String {
    format!("/static/{}", ICON.name)
}

pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let found = [&STYLE, &SCRIPT, &ICON].into_iter().find(|asset| asset.name == name);
    match found {
        Some(asset) => {
            let head = [
                (CONTENT_TYPE, asset.kind),
                (CACHE_CONTROL, "public, max-age=31536000, immutable"),
                (X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (VARY, "accept-encoding"),
            ];
            match takes_gzip(&headers) && !asset.compressed.is_empty() {
                true => (head, [(CONTENT_ENCODING, "gzip")], &asset.compressed[..]).into_response(),
                false => (head, asset.content).into_response(),
            }
        }
        None => (StatusCode::NOT_FOUND, "there is no such file").into_response(),
    }
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // `gzip;q=0` refuses it; browsers send no other weights.
    accepted.split(',').any(|name| name.trim().eq_ignore_ascii_case("gzip"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_together_are_small_and_load_nothing_from_elsewhere() {
        let all = [&STYLE, &SCRIPT, &ICON].map(|asset| asset.content);
        assert!(all.iter().map(|content| content.len()).sum::<usize>() <= 100 * 1024);
        for content in all {
            let others = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!others.contains("http:") && !others.contains("https:") && !others.contains("@import"));
        }
    }
}
