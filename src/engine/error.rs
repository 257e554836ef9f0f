//! Why an engine call failed, sorted by what the caller can do about it.

use std::time::Duration;

use crate::model::Cause;

/// Why a call to the engine failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The engine is down, restarting or not installed.
    #[error(
        "engine at {socket} does not answer ({cause}); is it running, may we use it, and is engine.socket its socket?"
    )]
    Unreachable { socket: String, cause: Cause },

    /// The engine took the call and did not answer in time. The call may or may not have worked.
    #[error("engine did not answer {call} within {seconds} s")]
    Timeout { call: &'static str, seconds: u64 },

    /// The engine was asked again and again to end a container, and restarted it each time (podman).
    #[error("engine kept restarting a container that was to end, for {seconds} s")]
    KeptRestarting { seconds: u64 },

    /// The engine refused, with the status it gave.
    #[error("engine refused {call} with status {status}: {message}")]
    Refused { call: &'static str, status: u16, message: String },

    /// The image is not in the registry at this reference.
    #[error("image {image} is not in its registry: {message}")]
    NoImage { image: String, message: String },

    /// The registry wants other credentials than it was given.
    #[error("registry denies image {image}: {message}")]
    RegistryAuth { image: String, message: String },

    /// The registry has been asked too often. Passes by itself.
    #[error("registry of {image} wants to be asked less often: {message}")]
    RateLimited { image: String, message: String },

    /// The registry cannot be reached, or broke off.
    #[error("registry of {image} cannot be reached: {message}")]
    Registry { image: String, message: String },

    /// The engine cannot fetch or store the image, for a reason that is not known to pass.
    #[error("engine cannot pull {image}: {message}")]
    PullFailed { image: String, message: String },

    /// The registry sent nothing for too long.
    #[error("download of {image} made no progress for {seconds} s")]
    Stalled { image: String, seconds: u64 },

    /// The disk of the engine is full.
    #[error("disk of the engine is full while it did {call}: {message}")]
    DiskFull { call: &'static str, message: String },
}

impl EngineError {
    /// Returns `true` if the same call may succeed soon without a change by a person.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::KeptRestarting { .. }
            | Self::RateLimited { .. }
            | Self::Registry { .. }
            | Self::Stalled { .. } => true,
            // Whether it passes is not known. The bytes that it costs are counted (`model::Download`).
            Self::PullFailed { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            Self::NoImage { .. } | Self::RegistryAuth { .. } | Self::DiskFull { .. } => false,
        }
    }

    /// Returns the shortest wait before the same call is repeated, if a person must act first or the registry has asked
    /// for it. `None`: the caller decides.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::DiskFull { .. } | Self::RateLimited { .. } => Some(Duration::from_secs(60)),
            Self::RegistryAuth { .. } => Some(Duration::from_secs(300)),
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::KeptRestarting { .. }
            | Self::Refused { .. }
            | Self::NoImage { .. }
            | Self::Registry { .. }
            | Self::PullFailed { .. }
            | Self::Stalled { .. } => None,
        }
    }

    /// Sorts the error of a pull by its text: its status is nearly always 500 (docs/dev/facts.md, "Errors of a pull").
    #[must_use]
    pub fn of_pull(image: &str, message: &str) -> Self {
        let (image, text) = (image.to_owned(), message.to_lowercase());
        let has = |words: &[&str]| words.iter().any(|w| text.contains(w));
        let message = short(message);
        if has(&["no space left on device"]) {
            Self::DiskFull { call: "pull", message }
        } else if has(&[
            "toomanyrequests",
            "too many requests",
            "rate limit",
            "http 429",
            "status: 429",
            "status 429",
        ]) {
            // Before "denied", which is often part of the same message.
            Self::RateLimited { image, message }
        } else if has(&["error parsing http"]) {
            // No registry answers so: it is the page of a captive portal, or of a proxy that cannot reach the registry.
            Self::Registry { image, message }
        } else if has(&["unauthorized", "no basic auth credentials", "denied", "authentication required"]) {
            Self::RegistryAuth { image, message }
        } else if has(&[
            "manifest unknown",
            "not found",
            "invalid reference",
            "no matching manifest",
            "name unknown",
        ]) {
            Self::NoImage { image, message }
        } else if has(PASSING) {
            Self::Registry { image, message }
        } else {
            Self::PullFailed { image, message }
        }
    }

    /// Sorts a refusal of any call other than a pull by the status that Docker uses for it. podman answers some of them
    /// with 500, and only the message shows what is meant.
    #[must_use]
    pub fn of_refusal(call: &'static str, status: u16, message: &str) -> Self {
        let has = |words: &str| message.contains(words);
        let message = short(message);
        if has("no space left on device") {
            return Self::DiskFull { call, message };
        }
        let status = match status {
            500 if has("name is already in use") || has("container state improper") => 409,
            other => other,
        };
        Self::Refused { call, status, message }
    }

    /// Changes the message, if it is one that the engine or a registry wrote.
    #[must_use]
    pub(super) fn map_message(mut self, change: impl FnOnce(&str) -> String) -> Self {
        match &mut self {
            Self::Refused { message, .. }
            | Self::NoImage { message, .. }
            | Self::RegistryAuth { message, .. }
            | Self::RateLimited { message, .. }
            | Self::Registry { message, .. }
            | Self::PullFailed { message, .. }
            | Self::DiskFull { message, .. } => *message = change(message),
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::KeptRestarting { .. }
            | Self::Stalled { .. } => {}
        }
        self
    }

    /// The longest time that a single call may take; a stop may take its grace in addition.
    pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
}

/// Words of errors between engine and registry that pass: of the network, of names, of TLS, and of servers in trouble.
/// Everything else may be an image that no download can make good.
const PASSING: &[&str] = &[
    "dial ",
    "lookup ",
    "no such host",
    "connect",
    "timeout",
    "timed out",
    "deadline",
    "canceled",
    "eof",
    "broken pipe",
    "reset by peer",
    "unreachable",
    "no route to host",
    "server misbehaving",
    "temporary failure",
    "tls",
    "x509",
    "certificate",
    "proxy",
    "http2",
    "stream error",
    "http response to https client",
    "http status: 5",
    "status code 5",
    "bad gateway",
    "service unavailable",
    "internal server error",
    "gateway time",
    "verification failed",
    "short read",
    "use of closed",
];

/// The longest message that is kept, in characters. An engine quotes registries, including pages of HTML.
const LONGEST: usize = 2000;

fn short(message: &str) -> String {
    let message = message.trim();
    match message.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::EngineError;

    #[test]
    fn refusals_have_the_status_of_docker() {
        for (status, message, expected) in [
            (409, "Conflict. The container name \"/a\" is already in use", 409),
            (
                500,
                "creating container storage: the container name \"a\" is already in use by b: that name is already in use",
                409,
            ),
            (500, "can only kill running containers. a is in state exited: container state improper", 409),
            (500, "container state improper: stopped", 409),
            (500, "invalid log driver: invalid argument", 500),
            (404, "No such container: a", 404),
        ] {
            let error = EngineError::of_refusal("create", status, message);
            let EngineError::Refused { call: "create", status, message: kept } = &error else {
                panic!("{error:?}")
            };
            assert_eq!((*status, kept.as_str()), (expected, message));
        }
    }

    #[test]
    fn pull_errors_are_sorted_by_their_text() {
        for (message, is_transient, expected) in [
            (
                "manifest for r/a@sha256:0 not found: manifest unknown: manifest unknown",
                false,
                "is not in its registry",
            ),
            (
                r#"Get "http://127.0.0.1:5999/v2/": dial tcp 127.0.0.1:5999: connect: connection refused"#,
                true,
                "cannot be reached",
            ),
            ("dial tcp: lookup registry.invalid on 1.1.1.1:53: no such host", true, "cannot be reached"),
            ("Head \"…/manifests/1\": no basic auth credentials", false, "denies"),
            ("unauthorized: authentication required", false, "denies"),
            (
                "toomanyrequests: You have reached your pull rate limit. You may increase the limit by \
                 authenticating and upgrading: https://www.docker.com/increase-rate-limit",
                true,
                "less often",
            ),
            ("denied: requested access to the resource is denied: Rate Limit exceeded", true, "less often"),
            ("error parsing HTTP 429 response body: unexpected end of JSON input: \"\"", true, "less often"),
            ("received unexpected HTTP status: 429 Too Many Requests", true, "less often"),
            (
                "manifest for r/a@sha256:4290000042900000 not found: manifest unknown: manifest unknown",
                false,
                "is not in its registry",
            ),
            ("Head \"https://r/v2/a/manifests/429\": no basic auth credentials", false, "denies"),
            (
                r#"error parsing HTTP 404 response body: invalid character '<' looking for beginning of value: "<html>404 Not Found""#,
                true,
                "cannot be reached",
            ),
            (
                r#"error parsing HTTP 403 response body: invalid character 'A' looking for beginning of value: "Access denied""#,
                true,
                "cannot be reached",
            ),
            ("write /var/lib/docker/tmp/x: no space left on device", false, "is full"),
            ("filesystem layer verification failed for digest sha256:0", true, "cannot be reached"),
            ("read tcp 10.0.0.2:1->10.0.0.1:443: read: connection reset by peer", true, "cannot be reached"),
            ("net/http: TLS handshake timeout", true, "cannot be reached"),
            ("unexpected EOF", true, "cannot be reached"),
            ("received unexpected HTTP status: 502 Bad Gateway", true, "cannot be reached"),
            ("failed to register layer: archive/tar: invalid tar header", true, "engine cannot pull"),
            (
                "failed to register layer: Error processing tar file(exit status 1): unexpected",
                true,
                "engine cannot pull",
            ),
            ("layer size mismatch", true, "engine cannot pull"),
            ("unsupported media type application/x", true, "engine cannot pull"),
        ] {
            let error = EngineError::of_pull("r/a", message);
            assert_eq!(error.is_transient(), is_transient, "{message}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
