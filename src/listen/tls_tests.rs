//! Clients over TLS that are as slow as those of `tests.rs`.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client};

use super::super::tests::{LARGE, LIMITS, SOON, Server};
use super::super::{Ended, Limits, Listener};
use super::*;

/// A certificate for 127.0.0.1, its key, and a client that trusts it.
fn certificate() -> (Certificate, TlsConnector) {
    let dir = tempfile::tempdir().unwrap();
    let [key, cert] = ["key", "cert"].map(|name| dir.path().join(name));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-subj", "/CN=a", "-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert);
    let made = openssl.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let [key, cert] = [key, cert].map(|path| std::fs::read(path).unwrap());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&cert).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    (Certificate::from_pem(&cert, &key).unwrap(), Arc::new(config).into())
}

fn server(limits: Limits) -> (Server, TlsConnector) {
    let (certificate, connector) = certificate();
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    (Server::start_at(listener.with_tls(Some(Tls::new(certificate).unwrap())), limits), connector)
}

async fn open(server: &Server, connector: &TlsConnector, text: &str) -> client::TlsStream<TcpStream> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

/// Reads until the server closes the connection.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> usize {
    let mut length = 0;
    let read = async {
        let mut part = vec![0; 64 << 10];
        while let Ok(n @ 1..) = stream.read(&mut part).await {
            length += n;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read).await.expect("the server closes the connection");
    length
}

#[tokio::test]
async fn a_large_response_arrives_whole() {
    let (server, connector) = server(LIMITS);
    let mut stream = open(&server, &connector, "GET /large HTTP/1.0\r\n\r\n").await;
    assert!(rest(&mut stream).await > LARGE);
    assert_eq!(server.end().await, Ended::Complete);
}

#[tokio::test]
async fn whoever_does_not_read_is_closed() {
    for limits in [Limits { stalled: SOON, ..LIMITS }, Limits { response: Some(SOON), ..LIMITS }] {
        let (server, connector) = server(limits);
        let mut stream = open(&server, &connector, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut length = 0;
        for _ in 0..100 {
            tokio::time::sleep(SOON / 10).await;
            // Where the whole response has its time, reading a little is not enough.
            if limits.response.is_some() {
                // An error if it is closed by now, and all that had come is read.
                length += stream.read(&mut [0; 16]).await.unwrap_or(0);
            }
        }
        length += rest(&mut stream).await;
        assert!(length > 0 && length < LARGE / 2, "{length}");
        assert_eq!(server.end().await, Ended::Complete);
    }
}

/// A response that fits into our buffer, but not into those of the kernel, waits there for a client that reads nothing.
#[tokio::test]
async fn whoever_only_asks_is_closed() {
    let (server, connector) = server(Limits { stalled: SOON, ..LIMITS });
    let mut stream = open(&server, &connector, "").await;
    let many = "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    let closed = async { while stream.write_all(many.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), closed).await.expect("the server closes the connection");
    assert_eq!(server.end().await, Ended::Complete);
}

#[tokio::test]
async fn a_handshake_has_the_time_of_a_head() {
    let (server, connector) = server(Limits { head: SOON, ..LIMITS });
    for text in ["", "\u{16}\u{3}\u{1}\u{1}"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(rest(&mut stream).await, 0, "{text:?}");
    }
    // Nor is a connection kept whose client says nothing after its handshake.
    let mut stream = open(&server, &connector, "").await;
    assert_eq!(rest(&mut stream).await, 0);
    assert_eq!(server.end().await, Ended::Complete);
}
