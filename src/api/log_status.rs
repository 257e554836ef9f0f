//! Whether logs are uploaded, and how many lines, in the status document.

use serde::{Deserialize, Serialize};

use crate::model::CloudReport;

/// The upload of logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus {
    /// `on`, `off_by_setting`, `off_on_metered_link`, `off_by_variable`, `not_wanted` or `unknown`.
    pub state: String,
    /// Why no logs are uploaded, in words; absent if they are.
    pub why_not: Option<String>,
    /// Why the last attempt failed; absent if it did not.
    pub error: Option<String>,
    /// Since the agent started: lines sent; messages of the agent that found no room; lines sent shortly before a connection broke,
    /// so that some may be lost; sent again, because the cloud had become silent.
    pub sent: u64,
    pub suppressed: u64,
    pub uncertain: u64,
    pub repeated: u64,
    /// How often lines of a service were skipped unread, because it wrote too many.
    pub gaps: u64,
    /// Lines that wait for the connection now. More may wait in the logs of the engine.
    pub waiting: u64,
    /// Connections that failed since the agent started.
    pub failures: u64,
}

/// Makes the status of the upload.
#[must_use]
pub(super) fn logs(cloud: &CloudReport) -> LogStatus {
    let counts = cloud.logs;
    LogStatus {
        state: cloud.log_state.as_str().to_owned(),
        why_not: cloud.log_state.why_not().map(str::to_owned),
        error: cloud.log_error.clone(),
        sent: counts.lines,
        suppressed: counts.dropped,
        uncertain: counts.uncertain,
        repeated: counts.repeated,
        gaps: counts.gaps,
        waiting: counts.waiting,
        failures: counts.failures,
    }
}

impl LogStatus {
    /// Returns the line of `cotter status`.
    #[must_use]
    pub fn line(&self) -> String {
        let mut parts = match (&self.why_not, &self.error) {
            (Some(why), _) => vec![format!("not uploaded: {why}")],
            (None, Some(error)) => vec![format!("cannot be uploaded now: {error}")],
            (None, None) => vec!["uploaded to the cloud".to_owned()],
        };
        parts.extend(self.losses());
        parts.join("; ")
    }

    /// Returns what the cloud does not have, or has twice, in words.
    #[must_use]
    pub fn losses(&self) -> Vec<String> {
        let losses = [
            (self.suppressed, "messages of the agent were suppressed"),
            (self.gaps, "times lines of a service were skipped, because it wrote too many"),
            (self.uncertain, "lines may be lost, because a connection broke"),
            (self.repeated, "lines were sent again, because the cloud was silent"),
        ];
        let some = losses.into_iter().filter(|(count, _)| *count > 0);
        some.map(|(count, what)| format!("{count} {what}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LogCounts, LogState};

    #[test]
    fn the_line_says_why_nothing_is_uploaded_and_what_the_cloud_lacks() {
        let cloud = |log_state, error: Option<&str>, counts| CloudReport {
            log_state,
            log_error: error.map(str::to_owned),
            logs: counts,
            ..CloudReport::default()
        };
        let none = LogCounts::default();
        for (cloud, line) in [
            (cloud(LogState::On, None, none), "uploaded to the cloud"),
            (cloud(LogState::On, Some("status 503"), none), "cannot be uploaded now: status 503"),
            (
                cloud(LogState::OffOnMeteredLink, None, none),
                "not uploaded: each request costs money here (cloud.poll_wait is 0s), and logs.upload is auto",
            ),
            (cloud(LogState::OffBySetting, None, none), "not uploaded: logs.upload is off"),
            (
                cloud(LogState::OffByVariable, None, none),
                "not uploaded: BALENA_SUPERVISOR_LOG_CONTROL is false",
            ),
            (
                cloud(LogState::On, None, LogCounts { dropped: 3, gaps: 2, repeated: 9, ..none }),
                "uploaded to the cloud; 3 messages of the agent were suppressed; 2 times lines of a service were \
                 skipped, because it wrote too many; 9 lines were sent again, because the cloud was silent",
            ),
        ] {
            assert_eq!(logs(&cloud).line(), line);
        }
    }
}
