//! A line of a log stream (docs/dev/protocol.md, "Log streaming").

use serde::{Deserialize, Serialize};

use crate::model::LogMessage;

/// One line of the body of `POST /device/v2/:uuid/log-stream`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamedLine {
    pub message: String,
    /// Milliseconds since 1970.
    pub timestamp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_id: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_system: bool,
    #[serde(default)]
    pub is_std_err: bool,
}

/// Returns a line with its line break.
#[must_use]
pub fn encode(message: &LogMessage) -> Vec<u8> {
    let line = StreamedLine {
        message: message.text.clone(),
        timestamp: message.at_ms,
        service_id: message.service,
        is_system: message.service.is_none(),
        is_std_err: message.is_stderr,
    };
    let mut line = serde_json::to_vec(&line).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_protocol() {
        let line = LogMessage {
            text: "a \"b\"\n\u{1}".to_owned(),
            at_ms: 1_731_000_000_123,
            service: Some(40),
            is_stderr: false,
        };
        let system = LogMessage { service: None, is_stderr: true, ..line.clone() };
        for (message, expected) in [
            (
                line,
                r#"{"message":"a \"b\"\n\u0001","timestamp":1731000000123,"serviceId":40,"isStdErr":false}"#,
            ),
            (
                system,
                r#"{"message":"a \"b\"\n\u0001","timestamp":1731000000123,"isSystem":true,"isStdErr":true}"#,
            ),
        ] {
            assert_eq!(String::from_utf8(encode(&message)).unwrap(), format!("{expected}\n"));
        }
    }
}
