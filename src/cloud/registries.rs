//! Lists the image registries that belong to a cloud.

/// Returns the registries that get the device's key: those in the settings, the API's own host and, if that is
/// `api.DOMAIN`, every host below DOMAIN, as with openBalena and balenaCloud.
#[must_use]
pub fn registries(endpoint: &str, named: &[String]) -> Vec<String> {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.split_once(':').map_or(authority, |(host, _)| host);
    // DOMAIN must not be a top-level domain: other people have hosts below it.
    let domain = host.strip_prefix("api.").filter(|domain| domain.contains('.'));
    let below = domain.map(|domain| format!(".{domain}"));
    named.iter().cloned().chain([authority.to_owned()]).chain(below).collect()
}

#[cfg(test)]
mod tests {
    use super::registries;

    #[test]
    fn hosts_that_belong_to_an_api() {
        for (endpoint, all) in [
            ("https://api.balena-cloud.com", "api.balena-cloud.com .balena-cloud.com"),
            ("https://api.fleet.example.com:8443/", "api.fleet.example.com:8443 .fleet.example.com"),
            ("https://fleet.example.com", "fleet.example.com"),
            ("https://api.com", "api.com"),
            ("http://127.0.0.1:7300", "127.0.0.1:7300"),
        ] {
            assert_eq!(registries(endpoint, &[]).join(" "), all);
        }
        let named = ["images.example.org:5000".to_owned()];
        assert_eq!(registries("https://x.example", &named).join(" "), "images.example.org:5000 x.example");
    }
}
