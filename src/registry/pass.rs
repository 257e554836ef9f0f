//! Fetches the credential that the engine needs to pull an image, so that the device's login goes to no other host.
//!
//! An engine with user and password sends them to whatever token service the registry names (seen with Docker 20.10).
//! So the token is fetched here, after the host is checked, and the engine gets only the token.

use std::time::Duration;

use crate::http::Http;
use crate::model::{ImageRef, RegistryLogin, RegistryPass};

use super::ask::{Asking, Pass};
use super::{Unanswered, late};

/// Longest time for registry and token service together.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the registry of the image which credential it wants, and fetches it. Sends nothing to a registry that may not
/// have `login`.
///
/// # Errors
///
/// [`Unanswered`], after 30 s at the latest. The image cannot be pulled then.
pub async fn pass(http: &Http, image: &ImageRef, login: &RegistryLogin) -> Result<RegistryPass, Unanswered> {
    if !login.is_for(image) {
        return Ok(RegistryPass::Nothing);
    }
    let asking = Asking::new(http, image, Some(login));
    let asked = tokio::time::timeout(PATIENCE, asking.probe()).await;
    match asked.unwrap_or_else(|_| Err(late(image, PATIENCE).into()))? {
        None => Ok(RegistryPass::Nothing),
        Some(Pass::Token { token, life }) => Ok(RegistryPass::Token { token, life, login: login.clone() }),
        Some(Pass::Login) => Ok(RegistryPass::Login(login.clone())),
    }
}
