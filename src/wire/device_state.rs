//! The states of a device in the fleet server's operator API.

use serde::{Deserialize, Serialize};

/// Where a device stands between what it should run and what it runs. The server computes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceState {
    /// It runs its target.
    OnTarget,
    /// It has not received its target yet.
    Pending,
    /// It is downloading, swapping or trying its target.
    Updating,
    /// A lock, a window, a hold or an operator's stop keeps it from going on.
    Waiting,
    /// Something on the device or in the release keeps it from going on.
    Blocked,
    /// It has rejected its target and runs an earlier release.
    Rejected,
    /// Its target runs, but not well; or there is no release to roll back to, or the rollback fails.
    Failing,
    /// It has neither polled nor reported for more than one and a half poll intervals.
    Offline,
    /// It was registered and has never polled.
    Silent,
    /// There is no release for it.
    NoTarget,
}

impl DeviceState {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::OnTarget,
        Self::Pending,
        Self::Updating,
        Self::Waiting,
        Self::Blocked,
        Self::Rejected,
        Self::Failing,
        Self::Offline,
        Self::Silent,
        Self::NoTarget,
    ];

    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnTarget => "on-target",
            Self::Pending => "pending",
            Self::Updating => "updating",
            Self::Waiting => "waiting",
            Self::Blocked => "blocked",
            Self::Rejected => "rejected",
            Self::Failing => "failing",
            Self::Offline => "offline",
            Self::Silent => "silent",
            Self::NoTarget => "no-target",
        }
    }

    /// Reads a list such as `blocked,failed`: words of states, `failed` for those that ended badly, and `behind` for all
    /// that do not run their target.
    ///
    /// # Errors
    ///
    /// Which word is none of these, and all that are accepted.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let mut chosen = Vec::new();
        for word in text.split(',').map(str::trim) {
            match word {
                "failed" => chosen.extend([Self::Rejected, Self::Failing]),
                "behind" => {
                    let runs = [Self::OnTarget, Self::NoTarget];
                    chosen.extend(Self::ALL.into_iter().filter(|state| !runs.contains(state)));
                }
                word => match Self::ALL.into_iter().find(|state| state.as_str() == word) {
                    Some(state) => chosen.push(state),
                    None => {
                        let known = Self::ALL.map(Self::as_str).join(", ");
                        return Err(format!(
                            "{word:?} is no state of a device; the states are {known}, failed and behind"
                        ));
                    }
                },
            }
        }
        Ok(chosen)
    }
}
