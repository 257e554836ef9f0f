//! Lists the ports on which this machine listens, from the kernel's tables.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{HeldPort, Protocol};

/// The kernel's tables, with the state of a socket that receives: a TCP socket that listens, or a UDP socket that is bound
/// and has no peer.
const LISTS: [(&str, Protocol, &str); 4] = [
    ("/proc/net/tcp", Protocol::Tcp, "0A"),
    ("/proc/net/tcp6", Protocol::Tcp, "0A"),
    ("/proc/net/udp", Protocol::Udp, "07"),
    ("/proc/net/udp6", Protocol::Udp, "07"),
];

/// A port, its protocol and its address; an empty address means all.
type Listening = (u16, Protocol, String);

/// Returns the ports on which programs listen in the machine's own network namespace, ordered by number. A table that
/// cannot be read adds none.
#[must_use]
pub fn listeners() -> Vec<HeldPort> {
    let mut found = BTreeSet::new();
    for (path, protocol, state) in LISTS {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        found.extend(parse(&text, protocol, state));
    }
    let held = found.into_iter().map(|(port, protocol, host_ip)| HeldPort {
        host_ip,
        port,
        protocol,
        container: None,
        by: "a program of this machine".to_owned(),
    });
    held.collect()
}

/// Returns the sockets in one table that are in `state` and have no peer. Ignores lines that cannot be parsed.
fn parse(text: &str, protocol: Protocol, state: &str) -> BTreeSet<Listening> {
    let socket = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, peer, is) = (words.next()?, words.next()?, words.next()?);
        let (address, port) = endpoint(local)?;
        let (_, peer_port) = endpoint(peer)?;
        let is_all = address.is_unspecified();
        let host_ip = if is_all { String::new() } else { address.to_string() };
        (is == state && peer_port == 0 && port != 0).then_some((port, protocol, host_ip))
    };
    text.lines().skip(1).filter_map(socket).collect()
}

/// Parses `0100007F:1F90`: the address in 32-bit words in the byte order of this machine, and the port.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut octets = [0; 16];
            for (at, four) in octets.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?);
            }
            // An IPv4-mapped IPv6 address is an IPv4 address.
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
    const TAIL: &str =
        "00000000:00000000 00:00000000 00000000     0        0 37012 1 0000000000000000 100 0 0 10 0";

    /// As little-endian machines write it. All machines for which Cotter is built are little-endian.
    #[test]
    fn lines_of_the_kernel() {
        for (line, protocol, state, found) in [
            ("   0: 00000000:1F90 00000000:0000 0A", Protocol::Tcp, "0A", Some((8080, ""))),
            ("   1: 0100007F:0016 00000000:0000 0A", Protocol::Tcp, "0A", Some((22, "127.0.0.1"))),
            ("  12: 0A01A8C0:01BB 00000000:0000 0A", Protocol::Tcp, "0A", Some((443, "192.168.1.10"))),
            // A connection, a closed one, and one that is being opened.
            ("   2: 0100007F:0016 0100007F:D431 01", Protocol::Tcp, "0A", None),
            ("   3: 0100007F:0016 0100007F:D431 06", Protocol::Tcp, "0A", None),
            ("   4: 0100007F:0016 0100007F:D431 03", Protocol::Tcp, "0A", None),
            (
                "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A",
                Protocol::Tcp,
                "0A",
                Some((80, "")),
            ),
            (
                "   1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A",
                Protocol::Tcp,
                "0A",
                Some((8080, "::1")),
            ),
            (
                "   2: B80D0120000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A",
                Protocol::Tcp,
                "0A",
                Some((8080, "2001:db8::1")),
            ),
            (
                "   3: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A",
                Protocol::Tcp,
                "0A",
                Some((8080, "127.0.0.1")),
            ),
            (
                "   4: 0000000000000000FFFF000000000000:1F90 00000000000000000000000000000000:0000 0A",
                Protocol::Tcp,
                "0A",
                Some((8080, "")),
            ),
            (" 1234: 3500007F:0035 00000000:0000 07", Protocol::Udp, "07", Some((53, "127.0.0.53"))),
            // It has a peer, so it does not receive from others.
            (" 1235: 0A01A8C0:C350 08080808:0035 01", Protocol::Udp, "07", None),
            (" 1236: 0A01A8C0:C350 08080808:0035 07", Protocol::Udp, "07", None),
            // Not bound, and not parseable.
            (" 1237: 00000000:0000 00000000:0000 07", Protocol::Udp, "07", None),
            ("   0: 0000000:1F90 00000000:0000 0A", Protocol::Tcp, "0A", None),
            ("   0: 00000000:1F901 00000000:0000 0A", Protocol::Tcp, "0A", None),
            ("   0: 0000000\u{e9}:1F90 00000000:0000 0A", Protocol::Tcp, "0A", None),
            ("   0: 00000000", Protocol::Tcp, "0A", None),
            ("", Protocol::Tcp, "0A", None),
        ] {
            let seen = parse(&format!("{HEAD}{line} {TAIL}\n"), protocol, state);
            let found = found.map(|(port, ip)| (port, protocol, ip.to_owned()));
            assert_eq!(seen.into_iter().collect::<Vec<_>>(), Vec::from_iter(found), "{line}");
        }
        assert_eq!(parse("", Protocol::Tcp, "0A").len(), 0);
    }

    #[test]
    fn a_listening_socket_is_listed() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let peers = UdpSocket::bind("127.0.0.1:0").unwrap();
        peers.connect("127.0.0.1:9").unwrap();
        let seen = listeners();
        let is_seen = |ip: &str, port: u16, protocol| {
            seen.iter().any(|held| {
                (held.host_ip.as_str(), held.port, held.protocol) == (ip, port, protocol)
                    && held.container.is_none()
            })
        };
        assert!(is_seen("127.0.0.1", tcp.local_addr().unwrap().port(), Protocol::Tcp), "{seen:?}");
        assert!(is_seen("::1", udp.local_addr().unwrap().port(), Protocol::Udp), "{seen:?}");
        assert!(!is_seen("127.0.0.1", peers.local_addr().unwrap().port(), Protocol::Udp), "{seen:?}");
    }
}
