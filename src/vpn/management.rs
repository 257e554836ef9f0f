//! Parses the lines of openvpn's management socket. Pure.

use std::net::Ipv4Addr;

use crate::model::VpnTrouble;
use crate::model::text::cleaned;

/// Maximum characters of openvpn's own words that are kept.
const LONGEST: usize = 160;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// The tunnel is up, and this device has this address.
    Connected(Ipv4Addr),
    /// The tunnel is not up; openvpn goes on trying.
    NotConnected,
    Trouble(VpnTrouble),
    /// A trouble in the log. It counts only while there is no tunnel.
    Logged(VpnTrouble),
    Nothing,
}

/// Parses a line.
pub(super) fn said(line: &str) -> Said {
    if let Some(state) = line.strip_prefix(">STATE:") {
        return self::state(state);
    }
    if let Some(log) = line.strip_prefix(">LOG:") {
        // >LOG:time,flags,text
        return log.splitn(3, ',').nth(2).and_then(trouble).map_or(Said::Nothing, Said::Logged);
    }
    if line.starts_with(">PASSWORD:Verification Failed") {
        return Said::Trouble(VpnTrouble::Refused);
    }
    // A line of the answer to `state`, as of STATE.
    if line.starts_with(|c: char| c.is_ascii_digit()) { self::state(line) } else { Said::Nothing }
}

/// Parses `time,name,detail,own address,…`.
fn state(text: &str) -> Said {
    let mut words = text.split(',').skip(1);
    let (name, detail, own) = (words.next(), words.next().unwrap_or_default(), words.next());
    let unreachable = |why: &str| Said::Trouble(VpnTrouble::Unreachable(why.to_owned()));
    match name {
        Some("CONNECTED") => match own.and_then(|own| own.parse().ok()) {
            Some(own) => Said::Connected(own),
            None => Said::Trouble(VpnTrouble::Addresses("it gave none".to_owned())),
        },
        Some("RECONNECTING") => match detail {
            "auth-failure" => Said::Trouble(VpnTrouble::Refused),
            "ping-restart" | "server_poll" => unreachable("it does not answer"),
            _ => Said::NotConnected,
        },
        Some(_) => Said::NotConnected,
        None => Said::Nothing,
    }
}

/// Finds in a line of the log why there is no tunnel.
fn trouble(text: &str) -> Option<VpnTrouble> {
    // Only words at the beginning are openvpn's own; what follows may come from the server.
    let after = |mark: &str| Some(cleaned(text.strip_prefix(mark)?, LONGEST));
    if let Some(why) = after("VERIFY ERROR: ") {
        let what = why.split_once("error=").map_or(why.as_str(), |(_, what)| what);
        return Some(VpnTrouble::NotTrusted(what.to_owned()));
    }
    if text.starts_with("VERIFY KU ERROR") || text.starts_with("VERIFY EKU ERROR") {
        return Some(VpnTrouble::NotTrusted("it is no certificate of a server".to_owned()));
    }
    if text.starts_with("AUTH: Received control message: AUTH_FAILED") {
        return Some(VpnTrouble::Refused);
    }
    if let Some(why) = after("RESOLVE: Cannot resolve host address: ") {
        return Some(VpnTrouble::Unreachable(why));
    }
    if let Some(why) =
        after("TCP: connect to ").filter(|why| why.starts_with('[') && why.contains(" failed: "))
    {
        return Some(VpnTrouble::Unreachable(why));
    }
    if let Some(why) =
        after("ERROR: Cannot open TUN/TAP dev ").or_else(|| after("ERROR: Cannot ioctl TUNSETIFF "))
    {
        return Some(VpnTrouble::NoFiles(format!("no network interface can be made: {why}")));
    }
    text.starts_with("TLS Error: TLS key negotiation failed")
        .then(|| VpnTrouble::Unreachable("it does not answer".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_openvpn_are_understood() {
        let unreachable = |why: &str| Said::Trouble(VpnTrouble::Unreachable(why.into()));
        let logged = |why: &str| Said::Logged(VpnTrouble::Unreachable(why.into()));
        for (line, expected) in [
            (
                "1796115234,CONNECTED,SUCCESS,10.250.0.3,10.199.7.2,1194,10.199.7.1,59472",
                Said::Connected([10, 250, 0, 3].into()),
            ),
            (">STATE:1796115234,CONNECTED,SUCCESS,10.250.0.3,,,,", Said::Connected([10, 250, 0, 3].into())),
            (">STATE:1,CONNECTED,SUCCESS,,,,,", Said::Trouble(VpnTrouble::Addresses("it gave none".into()))),
            (">STATE:1,RECONNECTING,tls-error,,,,,", Said::NotConnected),
            (">STATE:1,RECONNECTING,ping-restart,,,,,", unreachable("it does not answer")),
            (">STATE:1,EXITING,SIGTERM,,,,,", Said::NotConnected),
            (">PASSWORD:Verification Failed: 'Auth'", Said::Trouble(VpnTrouble::Refused)),
            (
                ">LOG:1,N,VERIFY ERROR: depth=1, error=self-signed certificate in certificate chain: CN=a",
                Said::Logged(VpnTrouble::NotTrusted(
                    "self-signed certificate in certificate chain: CN=a".into(),
                )),
            ),
            (
                ">LOG:1,N,TCP: connect to [AF_INET]10.199.7.2:1199 failed: Connection refused",
                logged("[AF_INET]10.199.7.2:1199 failed: Connection refused"),
            ),
            (
                ">LOG:1,N,RESOLVE: Cannot resolve host address: a.invalid:1199 (Name or service not known)",
                logged("a.invalid:1199 (Name or service not known)"),
            ),
            // The server chooses what it pushes.
            (">LOG:1,I,PUSH: Received control message: 'PUSH_REPLY,AUTH_FAILED'", Said::Nothing),
            (">LOG:1,N,PUSH: 'VERIFY ERROR: a TLS key negotiation failed'", Said::Nothing),
            (">LOG:1,I,TCP/UDP: Preserving recently used remote address", Said::Nothing),
            (">INFO:OpenVPN Management Interface Version 5", Said::Nothing),
            ("SUCCESS: real-time state notification set to ON", Said::Nothing),
            ("END", Said::Nothing),
            (">STATE:", Said::Nothing),
            ("", Said::Nothing),
        ] {
            assert_eq!(said(line), expected, "{line}");
        }
        let long = format!(">LOG:1,N,VERIFY ERROR: depth=0, error=\u{1b}[2J{}", "x".repeat(9000));
        let Said::Logged(VpnTrouble::NotTrusted(what)) = said(&long) else { panic!("{long}") };
        assert!(what.len() <= LONGEST && !what.contains('\u{1b}'), "{what}");
    }
}
