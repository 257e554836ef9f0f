//! Probes the connection to a cloud step by step, to find the step that fails. Decides nothing.

use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};

use super::answers::Answered;
use super::client::Client;
use super::error::CloudError;
use crate::http::{Http, Url};
use crate::model::Identity;

/// The results of the steps.
#[derive(Debug)]
pub struct Probe {
    pub host: String,
    pub port: u16,
    /// The addresses of the host, or why its name cannot be resolved.
    pub addresses: Result<Vec<String>, String>,
    /// The address of the connection, or why it failed; `None` if there are no addresses.
    pub connection: Option<Result<String, String>>,
    pub answer: Result<Answered, CloudError>,
}

/// Resolves the cloud's name, opens a connection, and polls with `identity`. Without an identity that is registered,
/// requests `/ping` instead.
///
/// # Errors
///
/// If TLS cannot be set up on this machine, or `authority`, as PEM, has no certificate.
pub async fn probe(
    (endpoint, authority): (&str, Option<&[u8]>),
    identity: Option<&Identity>,
    within: Duration,
) -> Result<Probe, CloudError> {
    let http = Http::trusting(authority)
        .map_err(|failure| CloudError::Unreachable { endpoint: endpoint.to_owned(), why: failure })?;
    let client = Client::new(http, endpoint, within);
    let (host, port) = host_and_port(endpoint);
    let in_time = |_| "no answer in time".to_owned();
    let addresses = tokio::time::timeout(within, lookup_host((host.as_str(), port))).await.map_err(in_time);
    let addresses = addresses.and_then(|found| {
        let found: Vec<_> = found.map_err(|e| e.to_string())?.collect();
        if found.is_empty() { Err("it has no address".to_owned()) } else { Ok(found) }
    });
    let connection = match &addresses {
        Err(_) => None,
        Ok(addresses) => {
            let connected = tokio::time::timeout(within, TcpStream::connect(addresses.as_slice())).await;
            let connected = connected.map_err(in_time).and_then(|tried| tried.map_err(|e| e.to_string()));
            Some(connected.map(|stream| stream.peer_addr().map_or_else(|_| host.clone(), |a| a.to_string())))
        }
    };
    let answer = client.probe(identity).await;
    let addresses = addresses.map(|found| found.iter().map(|a| a.ip().to_string()).collect());
    Ok(Probe { host, port, addresses, connection, answer })
}

/// Returns the host and the port of an endpoint that was checked before.
fn host_and_port(endpoint: &str) -> (String, u16) {
    let url = Url::parse(endpoint).ok();
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
    let port = url.as_ref().and_then(Url::port_or_known_default).unwrap_or(443);
    (host.trim_matches(['[', ']']).to_owned(), port)
}

#[cfg(test)]
mod tests {
    use super::host_and_port;

    #[test]
    fn where_an_endpoint_is() {
        for (endpoint, host, port) in [
            ("https://api.balena-cloud.com", "api.balena-cloud.com", 443),
            ("http://127.0.0.1:7300", "127.0.0.1", 7300),
            ("http://[::1]:80/base", "::1", 80),
            ("http://fleet.example", "fleet.example", 80),
        ] {
            assert_eq!(host_and_port(endpoint), (host.to_owned(), port), "{endpoint}");
        }
    }
}
