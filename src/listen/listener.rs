//! Listeners, and the peers of their connections.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::proxies::{Network, is_in};
#[cfg(feature = "server")]
use super::tls::{Tls, TlsStream};

/// The kernel's buffers of one TCP connection, in bytes; the kernel doubles it for its own needs. By default they grow to
/// megabytes, and count as memory of the unit.
const RECEIVED: u32 = 32 << 10;
const SENT: u32 = 64 << 10;
/// Maximum number of connections that wait in the kernel to be accepted.
const BACKLOG: u32 = 1024;

/// Accepts connections. One type for all kinds of sockets, because a generic server would be 20 KB of code for each.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    #[cfg(feature = "server")]
    tls: Option<Tls>,
    proxies: Arc<[Network]>,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::new(Socket::Unix(listener))
    }
}

/// A connection of either kind.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

/// The peer of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// The user of the peer, over a unix socket.
    pub(super) user: Option<u32>,
    /// The address of the peer, over TCP.
    pub(super) address: Option<IpAddr>,
    /// Whether the peer is a proxy that names its clients.
    pub(super) is_proxy: bool,
    /// The group of the connection: all connections of one user or address. The largest group makes room first.
    pub(super) group: u64,
    /// Whether the peer is root or the user of this process.
    pub(super) is_privileged: bool,
}

impl Listener {
    fn new(socket: Socket) -> Self {
        Self {
            socket,
            #[cfg(feature = "server")]
            tls: None,
            proxies: Arc::from([]),
        }
    }

    /// Listens at a TCP address, with small kernel buffers for its connections.
    ///
    /// # Errors
    ///
    /// The system's own.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        Self::bound(address, None)
    }

    /// As [`Listener::tcp`], for connections that arrive over this network interface.
    ///
    /// # Errors
    ///
    /// The system's own. Linux before 5.7 lets only root with its capabilities do it.
    pub fn tcp_at(address: SocketAddr, interface: &str) -> io::Result<Self> {
        Self::bound(address, Some(interface))
    }

    fn bound(address: SocketAddr, interface: Option<&str>) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(interface) = interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        socket.set_reuseaddr(true)?;
        // Connections inherit them.
        socket.set_recv_buffer_size(RECEIVED)?;
        socket.set_send_buffer_size(SENT)?;
        socket.bind(address)?;
        Ok(Self::new(Socket::Tcp(socket.listen(BACKLOG)?)))
    }

    /// Expects TLS on each TCP connection.
    #[cfg(feature = "server")]
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// Believes `X-Forwarded-For` of peers in these networks. They are proxies.
    #[must_use]
    pub fn behind(self, proxies: Arc<[Network]>) -> Self {
        Self { proxies, ..self }
    }

    /// Returns the networks of trusted proxies.
    pub(super) fn proxies(&self) -> &Arc<[Network]> {
        &self.proxies
    }

    /// Returns the address of a TCP listener.
    ///
    /// # Errors
    ///
    /// The system's own; a unix socket has none.
    pub fn address(&self) -> io::Result<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr(),
            Socket::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Accepts the next connection. Dropping the future loses none. A TLS handshake is a part of reading from the
    /// connection, so a connection whose handshake does not end is like one that sends nothing.
    pub(super) async fn accept(&self) -> io::Result<(Box<dyn Io>, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                let peer = Peer::at(address.ip(), &self.proxies);
                #[cfg(feature = "server")]
                if let Some(tls) = &self.tls {
                    return Ok((Box::new(TlsStream::new(stream, tls)), peer));
                }
                Ok((Box::new(stream), peer))
            }
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred().ok().map(|peer| peer.uid());
                Ok((Box::new(stream), Peer::user(user)))
            }
        }
    }
}

/// Returns the group of the connections of an address. The addresses of one IPv6 /64 network are one group, because they
/// belong to one site or one machine.
pub(super) fn group(address: IpAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    match address.to_canonical() {
        IpAddr::V4(address) => address.hash(&mut hasher),
        IpAddr::V6(address) => address.segments()[..4].hash(&mut hasher),
    }
    hasher.finish()
}

impl Peer {
    fn at(address: IpAddr, proxies: &[Network]) -> Self {
        let address = address.to_canonical();
        let is_proxy = is_in(proxies, address);
        Self { user: None, address: Some(address), is_proxy, group: group(address), is_privileged: false }
    }

    /// Groups clients by their user. Those whose user is unknown are one group, without privileges.
    fn user(user: Option<u32>) -> Self {
        let user = user.unwrap_or(u32::MAX);
        let is_own = || std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == user);
        let is_privileged = user == 0 || is_own();
        Self { user: Some(user), address: None, is_proxy: false, group: user.into(), is_privileged }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_site_are_one_group() {
        let at = |address: &str| group(address.parse().unwrap());
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:2:ffff::9"));
        assert_eq!(at("192.0.2.1"), at("::ffff:192.0.2.1"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }

    #[test]
    fn root_and_the_own_user_are_privileged() {
        let own = std::fs::metadata("/proc/self").unwrap().uid();
        for (user, is_privileged) in [(Some(0), true), (Some(own), true), (Some(65534), false), (None, false)]
        {
            assert_eq!(Peer::user(user).is_privileged, is_privileged, "{user:?}");
        }
    }
}
