//! Reads what a balena cloud says of its VPN: the body of `GET /os/v1/config`.
//!
//! The cloud hands out a complete configuration for openvpn, with commands to run. Nothing of it is used but the values of
//! `remote`, `port` and `proto`, each checked, and the certificates. [`VpnOffer`] cannot hold anything else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::model::text::cleaned;
use crate::model::{VpnOffer, VpnServer};

/// Most bytes of the configuration, and of the certificates.
const LONGEST: usize = 64 << 10;
/// Most servers, and most certificates.
const MOST_SERVERS: usize = 8;
const MOST_CERTIFICATES: usize = 16;
/// Most characters of a host name (RFC 1035).
const LONGEST_HOST: usize = 253;

/// openvpn's own port.
const USUAL_PORT: u16 = 1194;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

#[derive(Deserialize)]
struct Body {
    services: Option<Services>,
}

#[derive(Deserialize)]
struct Services {
    openvpn: Option<OpenVpn>,
}

#[derive(Deserialize)]
struct OpenVpn {
    #[serde(default)]
    config: String,
    #[serde(default)]
    ca: String,
}

/// Parses the body. Returns `None` if it names no server of a VPN.
///
/// # Errors
///
/// A line that says what is not accepted.
pub fn vpn(body: &[u8]) -> Result<Option<VpnOffer>, String> {
    let body: Body = serde_json::from_slice(body).map_err(|bad| format!("it cannot be parsed: {bad}"))?;
    let Some(OpenVpn { config, ca }) = body.services.and_then(|services| services.openvpn) else {
        return Ok(None);
    };
    for (name, text) in [("config", &config), ("ca", &ca)] {
        if text.len() > LONGEST {
            return Err(format!(
                "services.openvpn.{name} has {} bytes, and {LONGEST} are accepted",
                text.len()
            ));
        }
    }
    let servers = servers(&config)?;
    if servers.is_empty() {
        return Ok(None);
    }
    Ok(Some(VpnOffer { servers, authorities: certificates(&ca)? }))
}

/// Returns the servers of a configuration. Every other directive is left out.
fn servers(config: &str) -> Result<Vec<VpnServer>, String> {
    let (mut remotes, mut proto, mut port) = (Vec::new(), None, USUAL_PORT);
    let mut inside = None;
    for line in config.lines().map(str::trim) {
        // What is between <ca> and </ca> is no directive.
        if let Some(end) = &inside {
            if line == end {
                inside = None;
            }
            continue;
        }
        if let Some(name) = line.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
            inside = Some(format!("</{name}>"));
            continue;
        }
        let words: Vec<&str> =
            line.split_whitespace().take_while(|word| !word.starts_with(['#', ';'])).collect();
        match words.as_slice() {
            ["remote", rest @ ..] => {
                remotes.push(rest.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
            }
            ["proto", name] => proto = Some(is_udp(name)?),
            ["port" | "rport", number] => port = self::port(number)?,
            _ => {}
        }
        if remotes.len() > MOST_SERVERS {
            return Err(format!("it names more than {MOST_SERVERS} servers"));
        }
    }
    let server = |words: &Vec<String>| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (host, of_port, of_proto) = match words.as_slice() {
            [host] => (host, None, None),
            [host, number] => (host, Some(*number), None),
            [host, number, name] => (host, Some(*number), Some(*name)),
            _ => {
                return Err("a line `remote` must have a host, a port and a protocol, and no more".to_owned());
            }
        };
        let port = of_port.map_or(Ok(port), self::port)?;
        let is_udp = of_proto.map_or(Ok(proto.unwrap_or(false)), self::is_udp)?;
        Ok(VpnServer { host: self::host(host)?, port, is_udp })
    };
    remotes.iter().map(server).collect()
}

/// Checks a host: a name of letters, digits, `-` and `.`, or an address.
fn host(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        let is_of = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty() && !label.starts_with('-') && label.chars().all(is_of)
    };
    let is_name = text.len() <= LONGEST_HOST && text.trim_end_matches('.').split('.').all(is_label);
    if is_name || text.parse::<std::net::IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    Err(format!("{:?} is no host", cleaned(text, 60)))
}

fn port(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{:?} is no port", cleaned(text, 20)))
}

fn is_udp(text: &str) -> Result<bool, String> {
    match text {
        "udp" | "udp4" | "udp6" => Ok(true),
        "tcp" | "tcp4" | "tcp6" | "tcp-client" | "tcp4-client" | "tcp6-client" => Ok(false),
        _ => Err(format!("{:?} is no protocol of a VPN", cleaned(text, 20))),
    }
}

/// Returns the certificates of a text, as PEM that is made from their DER. Nothing else of the text is kept.
fn certificates(text: &str) -> Result<String, String> {
    let (mut written, mut count, mut rest) = (String::new(), 0, text);
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (inside, after) = after.split_once(END).ok_or("services.openvpn.ca ends within a certificate")?;
        let joined: String = inside.split_whitespace().collect();
        let der = STANDARD.decode(&joined).ok().filter(|der| is_der(der));
        let der = der.ok_or("services.openvpn.ca has something that is no certificate")?;
        count += 1;
        if count > MOST_CERTIFICATES {
            return Err(format!("services.openvpn.ca has more than {MOST_CERTIFICATES} certificates"));
        }
        written.push_str(&format!("{BEGIN}\n{}{END}\n", lines(&STANDARD.encode(der))));
        rest = after;
    }
    if count == 0 { Err("services.openvpn.ca has no certificate".to_owned()) } else { Ok(written) }
}

/// Returns whether this is one DER sequence, as a certificate is. openvpn reads the rest of it.
fn is_der(bytes: &[u8]) -> bool {
    let &[0x30, first, ref rest @ ..] = bytes else { return false };
    if first < 0x80 {
        return rest.len() == usize::from(first);
    }
    let count = usize::from(first & 0x7f);
    let Some((length, content)) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count)) else {
        return false;
    };
    length.iter().fold(0usize, |all, byte| all << 8 | usize::from(*byte)) == content.len()
}

/// Splits base64 into lines of 64 characters.
fn lines(text: &str) -> String {
    let mut split = String::new();
    for (at, c) in text.chars().enumerate() {
        split.push(c);
        if at % 64 == 63 || at + 1 == text.len() {
            split.push('\n');
        }
    }
    split
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A sequence with these bytes, as PEM.
    fn pem(content: &[u8]) -> String {
        let der = [&[0x30, u8::try_from(content.len()).unwrap()], content].concat();
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der))
    }

    fn read(config: &str, ca: &str) -> Result<Option<VpnOffer>, String> {
        vpn(json!({ "services": { "openvpn": { "config": config, "ca": ca } } }).to_string().as_bytes())
    }

    /// The servers, as text.
    fn shown(config: &str) -> String {
        match read(config, &pem(&[1])) {
            Ok(offer) => {
                let servers = offer.map(|offer| offer.servers).unwrap_or_default();
                let word = |it: &VpnServer| {
                    format!("{} {} {}", it.host, it.port, if it.is_udp { "udp" } else { "tcp" })
                };
                servers.iter().map(word).collect::<Vec<_>>().join(", ")
            }
            Err(why) => why,
        }
    }

    #[test]
    fn only_servers_are_taken_from_a_configuration() {
        for (config, expected) in [
            ("client\nremote vpn.example.com 443\nproto tcp\nup /bin/evil\n", "vpn.example.com 443 tcp"),
            ("remote a.example 443 udp\nremote b.example 443 tcp", "a.example 443 udp, b.example 443 tcp"),
            ("remote a.example\nport 7\nproto udp", "a.example 7 udp"),
            ("remote a.example", "a.example 1194 tcp"),
            ("  remote  192.0.2.1  443 # there", "192.0.2.1 443 tcp"),
            ("remote fd00::1 443 tcp6-client", "fd00::1 443 tcp"),
            ("<ca>\nremote evil.example 1\n</ca>\nremote a.example 2", "a.example 2 tcp"),
            ("# remote a.example\n;remote b.example", ""),
            ("", ""),
            ("remote", "a line `remote` must have a host, a port and a protocol, and no more"),
            ("remote a 1 tcp x", "a line `remote` must have a host, a port and a protocol, and no more"),
            ("remote a;reboot 443", "\"a;reboot\" is no host"),
            ("remote \"a b\" 443", "\"b\\\"\" is no port"),
            ("remote -a 443", "\"-a\" is no host"),
            ("remote a..b 443", "\"a..b\" is no host"),
            ("remote a 0", "\"0\" is no port"),
            ("remote a 65536", "\"65536\" is no port"),
            ("remote a 443 exec", "\"exec\" is no protocol of a VPN"),
            ("proto none\nremote a 443", "\"none\" is no protocol of a VPN"),
        ] {
            assert_eq!(shown(config), expected, "{config}");
        }
        assert_eq!(shown(&"remote a 1\n".repeat(9)), "it names more than 8 servers");
        assert!(shown(&"#".repeat(LONGEST + 1)).contains("65537 bytes"));
    }

    #[test]
    fn certificates_are_encoded_again_and_nothing_else_is_kept() {
        let offered = |ca: &str| read("remote a 1", ca).map(|offer| offer.unwrap().authorities);
        let two = format!("{}{}", pem(&[1, 2, 3]), pem(&[4; 100]));
        let junk = format!("up /bin/evil\n{}\n</ca>\nplugin x\n{}", pem(&[1, 2, 3]), pem(&[4; 100]));
        let written = offered(&junk).unwrap();
        assert_eq!(written, offered(&two).unwrap());
        assert!(written.lines().all(|line| line.len() <= 64) && !written.contains("evil"), "{written}");
        let with_a_tag = format!("{BEGIN}\nMAMBAgM=\n</ca>\nup x\n{END}");
        for (ca, expected) in [
            ("", "services.openvpn.ca has no certificate"),
            (
                "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----",
                "services.openvpn.ca has no certificate",
            ),
            (BEGIN, "services.openvpn.ca ends within a certificate"),
            (with_a_tag.as_str(), "services.openvpn.ca has something that is no certificate"),
            (
                &format!("{BEGIN}\nMAQBAgM=\n{END}"),
                "services.openvpn.ca has something that is no certificate",
            ),
            (&pem(&[1]).repeat(17), "services.openvpn.ca has more than 16 certificates"),
        ] {
            assert_eq!(offered(ca).unwrap_err(), expected, "{ca}");
        }
    }

    #[test]
    fn a_cloud_without_a_vpn_offers_none() {
        for body in ["{}", r#"{"services":{}}"#, r#"{"services":{"openvpn":{}}}"#] {
            assert_eq!(vpn(body.as_bytes()), Ok(None), "{body}");
        }
        assert!(vpn(b"<html>").unwrap_err().starts_with("it cannot be parsed"));
    }
}
