//! The device's login at image registries, and the credentials that an engine gets for one download.

use std::fmt;
use std::time::Duration;

use super::ImageRef;

/// The device's login, and the hosts of the registries of its cloud. No other host gets the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    /// The URL of the device's cloud.
    pub cloud: String,
    pub username: String,
    pub password: String,
    /// `host` or `host:port`. `.domain` means every host below a domain, and `http://host` a host without TLS.
    pub registries: Vec<String>,
}

impl RegistryLogin {
    /// Returns `true` if the login is for the image's registry.
    #[must_use]
    pub fn is_for(&self, image: &ImageRef) -> bool {
        image.registry().is_some_and(|registry| self.may_see(registry))
    }

    /// Returns `true` if the login may be sent to a host, `host` or `host:port`.
    #[must_use]
    pub fn may_see(&self, host: &str) -> bool {
        let host = usual(host);
        let name = host.split_once(':').map_or(host.as_str(), |(name, _)| name);
        self.registries.iter().any(|known| {
            let known = usual(known.strip_prefix(PLAIN).unwrap_or(known));
            if known.starts_with('.') { name.ends_with(&known) } else { known == host }
        })
    }

    /// Returns `true` if the settings say that a host has no TLS.
    #[must_use]
    pub fn is_plain(&self, host: &str) -> bool {
        let host = usual(host);
        self.registries
            .iter()
            .any(|known| known.strip_prefix(PLAIN).is_some_and(|known| usual(known) == host))
    }
}

/// The prefix of a host without TLS.
const PLAIN: &str = "http://";

/// Normalises a host for comparison: lower case, without the default port of https.
fn usual(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    host.strip_suffix(":443").map_or(host.clone(), str::to_owned)
}

/// The credentials that an engine sends to a registry when it pulls an image.
#[derive(Clone, PartialEq, Eq)]
pub enum RegistryPass {
    /// The registry asks for none, or the device's login is not for it.
    Nothing,
    /// A token for this image. Engines that accept no token use the login; the registry was checked for that.
    Token { token: String, life: Duration, login: RegistryLogin },
    /// The login itself.
    Login(RegistryLogin),
}

impl fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryLogin")
            .field("username", &self.username)
            .field("password", &"(secret)")
            .field("registries", &self.registries)
            .finish()
    }
}

impl fmt::Debug for RegistryPass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::Token { life, .. } => write!(f, "Token({life:?})"),
            Self::Login(login) => f.debug_tuple("Login").field(login).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_sent_only_to_the_registries_of_the_cloud() {
        let registries = [".example.com", "127.0.0.1:5000", "images.example.org", "http://lan.example:5000"];
        let registries = registries.map(str::to_owned).into();
        let login = RegistryLogin {
            cloud: String::new(),
            username: "d_1".into(),
            password: "hunter2".into(),
            registries,
        };
        for (image, is_for) in [
            ("registry2.example.com/v2/abc", true),
            ("registry2.example.com:443/v2/abc", true),
            ("registry2.example.com:8443/v2/abc", true),
            ("REGISTRY2.Example.com/v2/abc", true),
            ("127.0.0.1:5000/a/b", true),
            ("images.example.org/a", true),
            ("images.example.org:443/a", true),
            ("lan.example:5000/a", true),
            ("images.example.org:8443/a", false),
            ("127.0.0.1:5001/a/b", false),
            ("other.images.example.org/a", false),
            ("notexample.com/a", false),
            ("example.com.evil.example/a", false),
            ("example.com/a", false),
            ("owner/app", false),
            ("redis", false),
        ] {
            assert_eq!(login.is_for(&ImageRef::parse(image).unwrap()), is_for, "{image}");
        }
        assert!(login.is_plain("LAN.example:5000") && !login.is_plain("images.example.org"));
        let pass =
            RegistryPass::Token { token: "hunter2".into(), life: Duration::ZERO, login: login.clone() };
        assert!(!format!("{login:?} {pass:?} {:?}", RegistryPass::Login(login.clone())).contains("hunter2"));
    }
}
