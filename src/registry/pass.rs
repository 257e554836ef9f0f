//! What an engine is given to show a registry, so that it never has to show the device's login to anybody else.
//!
//! An engine that is given user and password shows them to the token service that the registry names, wherever that
//! is (seen with Docker 20.10). So the token is fetched here, where the host is looked at first, and the engine is
//! given the token.

use std::time::Duration;

use crate::http::Http;
use crate::model::{ImageRef, RegistryLogin, RegistryPass};

use super::ask::{Asking, Pass};
use super::{Unanswered, late};

/// How long registry and token service may take together.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the image's registry what it wants to be shown, and fetches that. A registry that `login` is not for is not
/// asked.
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
