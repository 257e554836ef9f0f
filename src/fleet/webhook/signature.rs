//! Secrets and signatures, as in the Standard Webhooks specification 1.0, "Signature scheme": HMAC-SHA256 over
//! `ID.TIMESTAMP.BODY` with the bytes of the secret, as `v1,` and Base64.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What begins the text of a secret.
const PREFIX: &str = "whsec_";

/// The secret with which the requests to a webhook are signed: `whsec_` and Base64. It is shown once, when it is made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// A text that is not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret is whsec_ and Base64")]
pub struct BadSecret;

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Secret {
    /// Makes a secret of random bytes.
    #[must_use]
    pub fn of(bytes: &[u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", STANDARD.encode(bytes)))
    }

    /// Returns its text, for the one answer that shows it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns the value of `webhook-signature` for a body.
    ///
    /// # Errors
    ///
    /// [`BadSecret`], for a record that was changed by hand.
    pub fn sign(&self, id: &str, at: Timestamp, body: &str) -> Result<String, BadSecret> {
        let key = self.0.strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok()).ok_or(BadSecret)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| BadSecret)?;
        mac.update(format!("{id}.{}.{body}", at.as_second()).as_bytes());
        Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    }
}

/// Returns the id of a message, which is the same however often it is sent. `parts` say which one it is.
#[must_use]
pub fn id_of(parts: &str) -> String {
    let hash = STANDARD.encode(Sha256::digest(parts));
    let plain: String = hash.chars().filter(char::is_ascii_alphanumeric).take(27).collect();
    format!("msg_{plain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let secret = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into());
        let at = Timestamp::from_second(1_614_265_330).unwrap();
        let signed = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, r#"{"test": 2432232314}"#);
        assert_eq!(signed.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_never_printed_by_accident() {
        let secret = Secret::of(&[7; 32]);
        assert_eq!(format!("{secret:?}"), "(secret)");
        assert_eq!(secret.reveal().len(), 6 + 44);
        assert!(secret.sign("a", Timestamp::UNIX_EPOCH, "").is_ok());
        assert_eq!(Secret("x".into()).sign("a", Timestamp::UNIX_EPOCH, ""), Err(BadSecret));
    }

    #[test]
    fn ids_differ_with_what_they_are_of() {
        assert_eq!(id_of("a"), id_of("a"));
        assert_ne!(id_of("a"), id_of("b"));
        assert!(id_of("a").len() == 31 && id_of("a").starts_with("msg_"));
    }
}
