//! The examples of the pages for a proxy, and nginx as they set it up. Debian's nginx and Caddy are the real parts.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Program, eventually};

/// The names of the pages.
pub(crate) const FLEET: &str = "fleet.example.com";
pub(crate) const REGISTRY: &str = "registry.example.com";

const PATIENCE: Duration = Duration::from_secs(30);

/// The code blocks of a language in a page.
pub(crate) fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let begin = format!("```{language}\n");
    text.split(&begin).skip(1).map(|block| block.split_once("```").unwrap().0.to_owned()).collect()
}

/// The only code block of a language in a page.
pub(crate) fn block(page: &str, language: &str) -> String {
    let blocks = blocks(page, language);
    assert_eq!(blocks.len(), 1, "{page} has one block of {language}");
    blocks[0].clone()
}

/// `text` with `old` replaced everywhere, which must be in it.
#[track_caller]
pub(crate) fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "the page has no {old:?} any more: {text}");
    text.replace(old, new)
}

/// Where a proxy is: in PATH, or where scripts/prepare.sh unpacks it.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let unpacked = [".cross/proxies/usr/sbin", ".cross/proxies/usr/bin"];
    let mut folders = path.split(':').chain(["/usr/sbin"]).chain(unpacked);
    let found = folders.find_map(|folder| fs::canonicalize(Path::new(folder).join(name)).ok());
    if found.is_none() {
        assert!(
            std::env::var_os("COTTER_SKIP_NOTHING").is_none(),
            "there is no {name}: scripts/prepare.sh unpacks it"
        );
        println!("skipped: there is no {name}; scripts/prepare.sh unpacks it");
    }
    found
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Makes an authority, `ca.pem`, and a certificate of both names, `leaf.pem` with `leaf.key`.
#[track_caller]
pub(crate) fn certificates(dir: &Path) {
    let script = "\
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 2 -subj /CN=a \
            -keyout ca.key -out ca.pem && \
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -subj /CN=b -keyout leaf.key -out leaf.csr && \
        printf 'subjectAltName=DNS:fleet.example.com,DNS:registry.example.com' >leaf.ext && \
        openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile leaf.ext -out leaf.pem";
    let made = Command::new("sh").args(["-c", script]).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
}

/// An example of docs/server.md for nginx, with this test's port and certificates in place of the page's.
#[track_caller]
pub(crate) fn localized(text: &str, dir: &Path, port: u16) -> String {
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let text = replaced(text, "listen 443 ssl;", &format!("listen 127.0.0.1:{port} ssl;"));
    let text = replaced(&text, "listen [::]:443 ssl;", "");
    let text = replaced(&text, "/etc/letsencrypt/live/cotter/fullchain.pem", &at("leaf.pem"));
    let text = replaced(&text, "/etc/letsencrypt/live/cotter/privkey.pem", &at("leaf.key"));
    replaced(&text, "/var/log/nginx/cotter.log", &at("access.log"))
}

/// Starts nginx with these sites, and waits until it listens.
#[track_caller]
pub(crate) fn start_nginx(nginx: &Path, dir: &Path, sites: &str, port: u16) -> Program {
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    fs::write(at("site.conf"), sites).unwrap();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};\n", at(kind)))
        .concat();
    // A worker of another user could not read this folder.
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    // One process, which ends with its value.
    let all = format!(
        "daemon off;\nmaster_process off;\n{user}pid {};\nerror_log stderr;\nevents {{}}\n\
         http {{\n{temporary}include {};\n}}\n",
        at("nginx.pid"),
        at("site.conf")
    );
    fs::write(at("nginx.conf"), all).unwrap();
    let mut command = Command::new(nginx);
    command.args(["-p", &at(""), "-c", &at("nginx.conf"), "-e", "stderr"]);
    listening("nginx", command, dir, port)
}

/// Starts a proxy, and waits until it listens.
#[track_caller]
pub(crate) fn listening(name: &str, command: Command, dir: &Path, port: u16) -> Program {
    let mut program = Program::start(name, command, &dir.join("proxy.log"));
    eventually(&format!("{name} listens"), PATIENCE, || {
        assert!(program.is_running(), "{name} ended: {}", program.log());
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    program
}

/// A proxy of HTTP that connects to `port` of this machine whatever port 443 it is asked for, from the address `from`.
pub(crate) fn tunnel(from: Ipv4Addr, port: u16) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, from, port));
            }
        });
    });
    address
}

async fn pass(mut client: tokio::net::TcpStream, from: Ipv4Addr, port: u16) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    let is_ours =
        [FLEET, REGISTRY].iter().any(|name| head.starts_with(format!("CONNECT {name}:443 ").as_bytes()));
    assert!(is_ours, "asked for {}", String::from_utf8_lossy(&head));
    let socket = tokio::net::TcpSocket::new_v4().ok()?;
    socket.bind((from, 0).into()).ok()?;
    let mut server = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await.ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok()?;
    Some(())
}
