//! An OpenVPN server with the settings of open-balena-vpn, in a network namespace of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::support::{Lab, eventually};

/// What config/confd/templates/server.conf.tmpl of open-balena-vpn 12 says, with its defaults, but for `dh`: it names a file of
/// parameters there, which only old clients use.
const CONF: &str = r#"
ca ca.crt
key server.key
cert server.crt
dh none
topology p2p
persist-key
persist-tun
proto tcp4-server
compress lzo
ping 10
ping-exit 120
push "ping 10"
push "ping-exit 60"
max-clients 32768
script-security 3
verify-client-cert none
username-as-common-name
mode server
tls-server
tls-version-min 1.2
data-ciphers AES-128-GCM:AES-192-GCM:AES-256-GCM:AES-128-CBC:AES-192-CBC:AES-256-CBC
group nogroup
user nobody
mute 20
suppress-timestamps
sndbuf 0
rcvbuf 0
push "sndbuf 0"
push "rcvbuf 0"
hand-window 600
tls-timeout 20
tcp-nodelay
reneg-sec 0
reneg-bytes 1073741824
"#;

/// In place of open-balena-vpn's program, which asks the API: a uuid and a key are good if they are a line of a file.
const AUTH: &str =
    "#!/bin/sh\n{ read -r name; read -r key; } <\"$1\"\nexec grep -qxF \"$name $key\" allowed\n";

/// A server. Its namespace has one neighbour: this machine.
pub(crate) struct Server {
    dir: PathBuf,
    namespace: String,
    /// Both ends of the wire between this machine and the namespace.
    pub(crate) here: String,
    pub(crate) there: String,
    /// The address of the server in the tunnel.
    pub(crate) gateway: String,
    pool: u8,
    process: Option<Child>,
}

#[track_caller]
pub(crate) fn run(words: &[&str]) -> String {
    let out = try_run(words);
    assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

pub(crate) fn try_run(words: &[&str]) -> Output {
    Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output().expect("the program is installed")
}

/// Makes an authority, and a certificate of it for a server. Returns the authority.
#[track_caller]
pub(crate) fn authority(dir: &Path, name: &str) -> String {
    let at = |file: &str| dir.join(file).display().to_string();
    let (ca, ca_key, csr) = (at("ca.crt"), at("ca.key"), at("server.csr"));
    fs::create_dir_all(dir).unwrap();
    fs::write(
        dir.join("ext"),
        "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nkeyUsage=digitalSignature,keyEncipherment\n",
    )
    .unwrap();
    let subject = format!("/CN={name}");
    let kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    run(&[
        &["openssl", "req", "-x509", "-days", "2", "-subj", &subject, "-keyout", &ca_key, "-out", &ca][..],
        &kind,
    ]
    .concat());
    run(&[&["openssl", "req", "-subj", "/CN=vpn", "-keyout", &at("server.key"), "-out", &csr][..], &kind]
        .concat());
    run(&[
        "openssl",
        "x509",
        "-req",
        "-in",
        &csr,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        &at("ext"),
        "-out",
        &at("server.crt"),
    ]);
    fs::read_to_string(ca).unwrap()
}

impl Server {
    /// Makes the namespace and the certificates, and starts nothing.
    #[track_caller]
    pub(crate) fn prepare(lab: &Lab) -> Self {
        static COUNT: AtomicU8 = AtomicU8::new(0);
        let (pid, number) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let namespace = format!("cotter-vpn-{pid}-{number}");
        let (left, right) = (format!("cv{number}h{pid}"), format!("cv{number}s{pid}"));
        // Documentation's addresses (RFC 2544, RFC 6598), of this process.
        let wire = format!("198.18.{}", pid % 250);
        let (here, there) = (format!("{wire}.{}", 4 * number + 1), format!("{wire}.{}", 4 * number + 2));
        run(&["ip", "netns", "add", &namespace]);
        let dir = lab.dir().join(format!("vpn-server-{number}"));
        let pool = 64 + number;
        let gateway = format!("100.{pool}.{}.1", pid % 250);
        let server = Self { dir, namespace, here, there, gateway, pool, process: None };
        run(&["ip", "link", "add", &left, "type", "veth", "peer", "name", &right]);
        run(&["ip", "link", "set", &right, "netns", &server.namespace]);
        run(&["ip", "addr", "add", &format!("{}/30", server.here), "dev", &left]);
        run(&["ip", "link", "set", &left, "up"]);
        server.inside(&["ip", "addr", "add", &format!("{}/30", server.there), "dev", &right]);
        server.inside(&["ip", "link", "set", &right, "up"]);
        server.inside(&["ip", "link", "set", "lo", "up"]);
        authority(&server.dir, "authority");
        fs::write(server.dir.join("server.conf"), CONF).unwrap();
        fs::write(server.dir.join("auth.sh"), AUTH).unwrap();
        fs::set_permissions(server.dir.join("auth.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        // It gives up root.
        for folder in [lab.dir(), &server.dir] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        }
        server.allow("nobody", "nothing");
        server
    }

    /// Starts it as `utils/openvpn.ts` of open-balena-vpn does, with more options.
    #[track_caller]
    pub(crate) fn start(&mut self, more: &[&str]) {
        assert!(self.process.is_none(), "it runs already");
        let base = self.gateway.rsplit_once('.').unwrap().0.to_owned();
        let at = |last: &str| format!("{base}.{last}");
        let (push, verify) =
            (format!("route {}", self.gateway), self.dir.join("auth.sh").display().to_string());
        let log = fs::File::options().append(true).create(true).open(self.dir.join("log")).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "openvpn", "--cd"]).arg(&self.dir);
        command.args([
            "--config",
            "server.conf",
            "--verb",
            "3",
            "--dev",
            "tun1",
            "--txqueuelen",
            "1000",
            "--port",
            "443",
        ]);
        command.args(["--ifconfig", &self.gateway, &at("2"), "--ifconfig-pool", &at("3"), &at("254")]);
        command.args(["--route", &at("0"), "255.255.255.0", "--push", &push]);
        command.args(["--auth-user-pass-verify", &verify, "via-file"]).args(more);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().expect("openvpn starts"));
        eventually("the server of the VPN listens", Duration::from_secs(10), || {
            let listening = self.inside(&["ss", "-Hltn", "sport", "=", ":443"]);
            (!listening.trim().is_empty()).then_some(())
        });
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            _ = process.kill();
            _ = process.wait();
        }
    }

    /// From now on it takes this uuid and this key only.
    pub(crate) fn allow(&self, uuid: &str, key: &str) {
        fs::write(self.dir.join("allowed"), format!("{uuid} {key}\n")).unwrap();
        fs::set_permissions(self.dir.join("allowed"), fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// What a cloud with this VPN says of it.
    pub(crate) fn config(&self) -> String {
        format!(
            "\nclient\nremote {} 443\nresolv-retry infinite\n\nremote-cert-tls server\ntls-version-min 1.2\nca /etc/openvpn/ca.crt\n\
             auth-user-pass /var/volatile/vpn-auth\nauth-retry none\nscript-security 2\nup /etc/openvpn-misc/upscript.sh\n\
             up-restart\ndown /etc/openvpn-misc/downscript.sh\n\ncomp-lzo\ndev resin-vpn\ndev-type tun\nproto tcp\nnobind\n",
            self.there
        )
    }

    pub(crate) fn ca(&self) -> String {
        fs::read_to_string(self.dir.join("ca.crt")).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The range of its tunnels.
    pub(crate) fn pool(&self) -> u8 {
        self.pool
    }

    /// Runs a command in its namespace.
    pub(crate) fn inside(&self, words: &[&str]) -> String {
        let all = [&["ip", "netns", "exec", &self.namespace][..], words].concat();
        String::from_utf8_lossy(&try_run(&all).stdout).into_owned()
    }

    /// Sends a request as open-balena-api does, with more options of curl. Returns the status, 0 without an answer, and the body.
    pub(crate) fn ask(&self, request: &str, body: &str, more: &[&str]) -> (u16, String) {
        let (method, url) = request.split_once(' ').unwrap();
        let mut words = vec![
            "curl",
            "--silent",
            "--max-time",
            "20",
            "--write-out",
            "\n%{http_code}",
            "--request",
            method,
        ];
        if !body.is_empty() {
            words.extend(["--header", "content-type: application/json", "--data", body]);
        }
        let said = self.inside(&[&words, more, &[url]].concat());
        let (body, status) = said.rsplit_once('\n').unwrap_or(("", "0"));
        (status.trim().parse().unwrap_or(0), body.to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the server of the VPN said:\n{}", self.log());
        }
        // The wire goes with it.
        _ = try_run(&["ip", "netns", "delete", &self.namespace]);
    }
}
