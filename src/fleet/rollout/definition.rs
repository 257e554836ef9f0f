//! What an operator asks of a rollout.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::judge::Test;
use super::share::{Rate, Share, Span, as_text};
use super::wave::{self, BadWave, Wave};
use crate::fleet::tag_filter::TagFilter;
use crate::model::{Commit, Window};

/// The definition of a rollout, with its defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Definition {
    /// Only devices with these tags take part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<TagFilter>,
    pub waves: Vec<Wave>,
    /// How long the rollout waits, before the next wave, after enough devices have accepted the release.
    pub soak: Span,
    /// The share that is enough, of the reachable devices of all waves so far, without halted segments.
    pub advance: Share,
    /// The maximum number of devices that get the release in a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The maximum number of devices that update at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u32>,
    /// When devices may get the release. Without any: always.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// Releases that a device must have accepted before, from the oldest to the newest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub barriers: Vec<Commit>,
    /// Tags whose values are judged by themselves: `hw`, `site`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<String>,
    pub test: Test,
    /// Whether a wave pauses the rollout if a device has failed and the verdicts do not prove the release good. Otherwise it
    /// pauses only if the verdicts speak against the release.
    #[serde(rename = "strict")]
    pub is_strict: bool,
    /// Halts when so many devices have failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<u32>,
    /// Halts when more than this share of at least `min_sample` devices has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_failure_rate: Option<Share>,
    pub min_sample: u32,
    /// After this time without contact, a device that was reachable before counts as failed.
    pub silent_after: Span,
    /// How long all devices are watched after the last wave, until the rollout completes.
    pub observe: Span,
    pub on_halt: OnHalt,
    /// Name of the webhook that must let each wave begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
}

impl Default for Definition {
    fn default() -> Self {
        Self {
            filter: None,
            waves: Vec::new(),
            soak: Span::seconds(30 * 60),
            advance: Share::of_ten_thousand(9_500),
            rate: None,
            at_once: None,
            windows: Vec::new(),
            barriers: Vec::new(),
            segments: Vec::new(),
            test: Test::default(),
            is_strict: false,
            max_failures: None,
            max_failure_rate: None,
            min_sample: 20,
            silent_after: Span::seconds(86_400),
            observe: Span::seconds(3_600),
            on_halt: OnHalt::Pause,
            confirm: None,
        }
    }
}

/// What happens to devices that have the release when a rollout halts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnHalt {
    /// They keep it, and no other device is exposed.
    Pause,
    /// They return to their fleet's target.
    PullBack,
}

as_text!(TagFilter);

/// A definition that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDefinition {
    #[error(transparent)]
    Wave(#[from] BadWave),
    #[error("{field} is {given}, and must be {accepts}")]
    Value { field: &'static str, given: String, accepts: &'static str },
}

/// The maximum number of barriers, of segments and of windows of a definition.
const MOST: usize = 16;

impl Definition {
    /// Checks what the types do not.
    ///
    /// # Errors
    ///
    /// `BadDefinition` for the first invalid field.
    pub fn check(&self) -> Result<(), BadDefinition> {
        wave::check(&self.waves)?;
        let value = |field, given: String, accepts| Err(BadDefinition::Value { field, given, accepts });
        if self.at_once == Some(0) {
            return value("at_once", "0".to_owned(), "at least 1");
        }
        if self.max_failures == Some(0) {
            return value("max_failures", "0".to_owned(), "at least 1");
        }
        let Test { alpha, beta, floor, detect } = self.test;
        for (field, share) in [("test.alpha", alpha), ("test.beta", beta)] {
            if share > Share::of_ten_thousand(2_500) {
                return value(field, share.to_string(), "at most 25%");
            }
        }
        if detect <= floor {
            return value("test.detect", detect.to_string(), "more than test.floor");
        }
        if self.silent_after < Span::seconds(60) {
            return value("silent_after", self.silent_after.to_string(), "at least 1m");
        }
        for (field, count) in [
            ("barriers", self.barriers.len()),
            ("segments", self.segments.len()),
            ("windows", self.windows.len()),
        ] {
            if count > MOST {
                return value(field, format!("{count} long"), "at most 16 long");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_stored_as_it_is_written() {
        let text = r#"{"waves": ["ring=canary", "1%", "10% approve", "100%"], "soak": "10m", "rate": "500/h",
            "windows": ["Mon-Fri 22:00-04:00 Europe/Zurich"], "segments": ["hw"], "filter": "!lab",
            "test": {"detect": "2%"}, "max_failure_rate": "5%", "on_halt": "pull-back"}"#;
        let definition: Definition = serde_json::from_str(text).unwrap();
        definition.check().unwrap();
        let stored = serde_json::to_string(&definition).unwrap();
        assert_eq!(serde_json::from_str::<Definition>(&stored).unwrap(), definition);
        assert!(stored.contains("\"detect\":\"2%\"") && stored.contains("\"alpha\":\"0.5%\""), "{stored}");
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused() {
        for (more, why) in [
            (r#""at_once": 0"#, "at_once is 0, and must be at least 1"),
            (r#""max_failures": 0"#, "max_failures is 0"),
            (r#""rate": "0/h""#, "a rate from 1"),
            (r#""soak": "ten""#, "a time of whole seconds"),
            (r#""silent_after": "1s""#, "silent_after is 1s, and must be at least 1m"),
            (r#""test": {"alpha": "50%"}"#, "test.alpha is 50%, and must be at most 25%"),
            (r#""test": {"detect": "0.1%"}"#, "test.detect is 0.1%, and must be more than test.floor"),
            (r#""windows": ["always"]"#, "not a maintenance window"),
            (r#""wave": []"#, "unknown field `wave`"),
            (r#""on_halt": "stop""#, "unknown variant `stop`"),
        ] {
            let text = format!(r#"{{"waves": ["100%"], {more}}}"#);
            let said = match serde_json::from_str::<Definition>(&text) {
                Ok(definition) => definition.check().unwrap_err().to_string(),
                Err(error) => error.to_string(),
            };
            assert!(said.contains(why), "{more}: {said}");
        }
        assert!(Definition::default().check().unwrap_err().to_string().contains("no wave is given"));
    }
}
