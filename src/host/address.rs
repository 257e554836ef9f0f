//! The address under which other machines reach this one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Addresses of documentation (RFC 5737, RFC 3849): only the default route leads there.
const ELSEWHERE_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
const ELSEWHERE_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9);

/// Returns where other machines reach a listener. For one on all addresses this is the address of the interface with the
/// default route. `None` on loopback, and without a default route.
#[must_use]
pub fn reached_at(listener: SocketAddr) -> Option<SocketAddr> {
    let ip = listener.ip();
    if ip.is_loopback() {
        return None;
    }
    let own = if ip.is_unspecified() { of_default_route(ip) } else { Some(ip) };
    own.map(|ip| SocketAddr::new(ip, listener.port()))
}

/// Returns the IPv4 address of the interface with the default route.
pub(super) fn own_v4() -> Option<IpAddr> {
    of_default_route(Ipv4Addr::UNSPECIFIED.into())
}

/// Connecting a UDP socket sends nothing: the kernel only chooses the route, and with it our address.
fn of_default_route(any: IpAddr) -> Option<IpAddr> {
    let own = |bind: IpAddr, to: SocketAddr| {
        let socket = UdpSocket::bind((bind, 0)).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    };
    // A listener on all addresses of IPv6 is on those of IPv4, too.
    let v4 = || own(Ipv4Addr::UNSPECIFIED.into(), ELSEWHERE_V4);
    if any.is_ipv4() { v4() } else { v4().or_else(|| own(any, ELSEWHERE_V6)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_set_is_the_one_and_loopback_is_none() {
        let reached = |text: &str| reached_at(text.parse().unwrap()).map(|address| address.to_string());
        assert_eq!(reached("192.0.2.7:9599").as_deref(), Some("192.0.2.7:9599"));
        assert_eq!(reached("127.0.0.1:9599"), None);
        assert_eq!(reached("[::1]:9599"), None);
        // This machine may have no default route.
        for all in ["0.0.0.0:9599", "[::]:9599"] {
            assert!(
                reached(all).is_none_or(|address| address.ends_with(":9599") && !address.contains("0.0.0.0"))
            );
        }
    }
}
