//! Finds addresses for which a key would be sent over a network without encryption.

use std::net::IpAddr;

/// The remedy for [`exposure`].
pub const EXPOSURE_REMEDY: &str = "put TLS before the cloud and set an https:// address";

/// Returns a warning if requests to this cloud would send the device's key over a network without encryption.
#[must_use]
pub fn exposure(endpoint: &str) -> Option<String> {
    exposed_host(endpoint).map(|_| format!("{endpoint}: this device's key goes there in the clear"))
}

/// Returns the host of an `http://` address, unless it is this machine.
#[must_use]
pub fn exposed_host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("http://")?;
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
        Some(_) | None => authority,
    };
    (!is_loopback(host)).then_some(host)
}

/// Returns `true` if the host of a URL is this machine: `localhost` or a loopback address.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let address: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_get_keys_in_the_clear() {
        for (url, host) in [
            ("https://fleet.example.com", None),
            ("http://127.0.0.1:7300", None),
            ("http://127.8.9.1/", None),
            ("http://localhost/api", None),
            ("http://[::1]:7300", None),
            ("http://fleet.example.com", Some("fleet.example.com")),
            ("http://fleet.example.com:7300/api", Some("fleet.example.com")),
            ("http://192.0.2.1:80", Some("192.0.2.1")),
            ("http://[2001:db8::1]:80", Some("[2001:db8::1]")),
            ("http://0.0.0.0", Some("0.0.0.0")),
            ("http://localhost.example.com", Some("localhost.example.com")),
            ("http://127.0.0.1.example.com", Some("127.0.0.1.example.com")),
            // Clients may read these in different ways, so they do not count as this machine.
            ("http://localhost#@fleet.example.com", Some("localhost#@fleet.example.com")),
            ("http://127.0.0.1:7300@fleet.example.com", Some("127.0.0.1:7300@fleet.example.com")),
        ] {
            assert_eq!(exposed_host(url), host, "{url}");
        }
    }
}
