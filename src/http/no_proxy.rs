//! Hosts that `NO_PROXY` names with a port. reqwest knows entries without a port only.

use super::Url;

/// Reads `NO_PROXY`, or else `no_proxy`, as reqwest does.
pub(super) fn from_environment() -> String {
    let value = |name: &str| std::env::var_os(name)?.into_string().ok();
    value("NO_PROXY").or_else(|| value("no_proxy")).unwrap_or_default()
}

/// Returns whether `list` names the host of `url`, or a domain above it, together with its port.
pub(super) fn names(list: &str, url: &Url) -> bool {
    let Some((host, port)) = url.host_str().zip(url.port_or_known_default()) else { return false };
    list.split(',').any(|entry| {
        let Some((name, named_port)) = entry.trim().rsplit_once(':') else { return false };
        let domain = name.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase();
        let is_below = host.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        !domain.is_empty() && is_below && named_port.parse() == Ok(port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_their_ports() {
        let list = "other, r.example:5000,.lan:8443 ,10.0.0.7:443,[fd00::1]:5000,:80";
        for (url, expected) in [
            ("http://r.example:5000/v2/", true),
            ("http://R.Example:5000/v2/", true),
            ("http://a.r.example:5000/v2/", true),
            ("http://ar.example:5000/v2/", false),
            ("http://r.example:5001/v2/", false),
            ("http://r.example/", false),
            ("https://a.lan:8443/", true),
            ("https://lan:8443/", true),
            ("https://10.0.0.7/", true),
            ("http://10.0.0.7/", false),
            ("https://[fd00::1]:5000/", true),
            ("http://other/", false),
            ("http://b/", false),
        ] {
            assert_eq!(names(list, &Url::parse(url).unwrap()), expected, "{url}");
        }
        assert!(!names("", &Url::parse("http://r.example").unwrap()));
    }
}
