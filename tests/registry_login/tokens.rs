//! A token service, as registries have them: JSON web tokens, signed by openssl with a key of the test's own.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::support::Lab;

/// How long its tokens are good for, as it says.
const LIFE: i64 = 300;

/// Gives everybody a token to read `demo/app`, and notes who asked. It ends with the test process.
pub(crate) struct Tokens {
    /// `127.0.0.1:5000`.
    pub(crate) address: String,
    folder: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tokens {
    #[track_caller]
    pub(crate) fn start(lab: &Lab) -> Self {
        let folder = lab.dir().to_owned();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tests"])
            .args(["-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(&folder)
            .output()
            .expect("openssl is here");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("its address").to_string();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (noted, place) = (Arc::clone(&asked), folder.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &place, &noted);
            }
        });
        Self { address, folder, asked }
    }

    /// The registry's setting `auth` that names it.
    pub(crate) fn auth(&self) -> String {
        let (address, certificate) = (&self.address, self.folder.join("cert.pem"));
        format!(
            "{{ token: {{ realm: \"http://{address}/token\", service: tests, issuer: tests, rootcertbundle: {} }} }}",
            certificate.display()
        )
    }

    /// Who asked so far: user agent, credentials and address.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no thread panics").clone()
    }

    /// A token that ended longer ago than the minute by which the registry lets clocks differ.
    pub(crate) fn ended(&self) -> String {
        token(&self.folder, -100)
    }
}

fn answer(mut stream: TcpStream, folder: &Path, asked: &Mutex<Vec<String>>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        let is_it = |line: &&String| line.to_ascii_lowercase().starts_with(name);
        head.iter().find(is_it).and_then(|line| line.split_once(": ")).map_or("", |(_, value)| value)
    };
    let note = format!("{} {} {path}", header("user-agent"), header("authorization"));
    asked.lock().expect("no thread panics").push(note);
    let body = json!({ "token": token(folder, LIFE), "expires_in": LIFE }).to_string();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        .ok()
}

/// A token that is good for so many seconds.
fn token(folder: &Path, life: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let now = i64::try_from(now).expect("a clock");
    let certificate = std::fs::read_to_string(folder.join("cert.pem")).expect("made before");
    let der: String = certificate.lines().filter(|line| !line.starts_with('-')).collect();
    let header = json!({ "alg": "RS256", "typ": "JWT", "x5c": [der] });
    let access = json!([{ "type": "repository", "name": "demo/app", "actions": ["pull"] }]);
    let claims = json!({
        "iss": "tests", "sub": "user", "aud": "tests", "jti": "1", "access": access,
        "iat": now - 600, "nbf": now - 600, "exp": now + life,
    });
    let message =
        format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()));
    let to_sign = folder.join(format!("token-{life}"));
    std::fs::write(&to_sign, &message).expect("the lab's folder is ours");
    let signed = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign", "key.pem"])
        .arg(&to_sign)
        .current_dir(folder)
        .output()
        .expect("openssl is here");
    assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
    format!("{message}.{}", base64(&signed.stdout))
}

/// Base64 with the alphabet for URLs, without padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = |group: &[u8]| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | usize::from(*group.get(at).unwrap_or(&0)));
        let all = [bits >> 18, bits >> 12, bits >> 6, bits].map(|at| char::from(ALPHABET[at & 63]));
        all[..=group.len()].iter().collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}
