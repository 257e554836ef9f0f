//! The device's login at image registries.

use std::fmt;

use super::ImageRef;

/// Who the device is to the registries of its cloud, and which those are: nobody else is shown the key.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    pub username: String,
    pub password: String,
    /// `host` or `host:port`; one that begins with a dot stands for every host below that domain.
    pub registries: Vec<String>,
}

impl RegistryLogin {
    /// Whether the image's registry is one of those that the login is for.
    #[must_use]
    pub fn is_for(&self, image: &ImageRef) -> bool {
        let Some(registry) = image.registry() else { return false };
        let host = registry.split_once(':').map_or(registry, |(host, _)| host);
        self.registries.iter().any(|known| match known.strip_prefix('.') {
            Some(_) => host.ends_with(known.as_str()),
            None => known == registry,
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_shown_to_the_clouds_registries_alone() {
        let registries = [".example.com", "127.0.0.1:5000", "images.example.org"].map(str::to_owned).into();
        let login = RegistryLogin { username: "d_1".into(), password: "hunter2".into(), registries };
        for (image, is_for) in [
            ("registry2.example.com/v2/abc", true),
            ("registry2.example.com:443/v2/abc", true),
            ("127.0.0.1:5000/a/b", true),
            ("images.example.org/a", true),
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
        assert!(!format!("{login:?}").contains("hunter2"));
    }
}
