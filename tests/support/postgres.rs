//! A PostgreSQL of the test's own: Debian's, as the user postgres, in a folder that goes away with it. It uses nothing of its
//! neighbours, because the unit tests of the server have it, too.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Ends with its value.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    dir: tempfile::TempDir,
    child: Option<Child>,
    settings: &'static [&'static str],
    pub port: u16,
}

/// It survives the end of its process, as a database does; only the machine must not fail.
const SETTINGS: &[&str] = &["fsync=off", "max_connections=40"];

/// The password of the user `cotter`.
pub const PASSWORD: &str = "hush-hush";

impl Postgres {
    /// Starts one with the user `cotter` and its empty database `fleet`; `None` where there is no PostgreSQL, with a line that
    /// says so.
    #[track_caller]
    pub fn start() -> Option<Self> {
        Self::start_with(SETTINGS)
    }

    /// As [`start`](Self::start), with these settings.
    #[track_caller]
    pub fn start_with(settings: &'static [&'static str]) -> Option<Self> {
        let Some(bin) = binaries() else {
            return skipped("it is not installed; scripts/prepare.sh does that");
        };
        let dir = tempfile::Builder::new().prefix("cotter-pg-").tempdir_in("/tmp").expect("a folder in /tmp");
        if is_root() {
            let owned = Command::new("chown").arg("postgres:").arg(dir.path()).status().expect("chown runs");
            assert!(owned.success(), "there is no user postgres");
        }
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let mut server = Self { bin, dir, child: None, settings, port };
        let data = server.dir.path().join("data");
        let mut init = server.command("initdb");
        init.arg("-D").arg(&data);
        init.args([
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--no-sync",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
        ]);
        let made = init.output().expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.start_again();
        server.psql("postgres", &format!("CREATE ROLE cotter LOGIN PASSWORD '{PASSWORD}'"));
        server.create("fleet");
        Some(server)
    }

    /// Creates an empty database of the user `cotter`.
    #[track_caller]
    pub fn create(&self, name: &str) {
        self.psql("postgres", &format!("CREATE DATABASE {name} OWNER cotter"));
    }

    /// Starts it after [`stop`](Self::stop), on the same port.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = fs::File::options().create(true).append(true).open(self.log_file()).expect("its log");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.dir.path().join("data"));
        for setting in self.settings.iter().chain(&["listen_addresses=127.0.0.1", "log_min_messages=warning"])
        {
            command.args(["-c", setting]);
        }
        command.arg("-c").arg(format!("unix_socket_directories={}", self.dir.path().display()));
        command.args(["-p", &self.port.to_string()]).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.child = Some(command.spawn().expect("postgres starts"));
        for _ in 0..300 {
            if self.try_psql("postgres", "SELECT 1").is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("PostgreSQL does not answer: {}", fs::read_to_string(self.log_file()).unwrap_or_default());
    }

    /// Ends all its processes with SIGKILL, as a lack of memory would.
    #[track_caller]
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = child.kill();
            let _status = child.wait();
            // Its other processes notice that, and it does not start while one of them is left.
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Ends it at once, without a farewell to its clients.
    #[track_caller]
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = Command::new("kill").args(["-s", "QUIT", &child.id().to_string()]).status();
            let _status = child.wait();
        }
    }

    /// Starts it again with TLS.
    #[track_caller]
    pub fn use_tls(&mut self, certificate: &Path, key: &Path) {
        for (file, name) in [(certificate, "server.crt"), (key, "server.key")] {
            let to = self.dir.path().join("data").join(name);
            fs::copy(file, &to).expect("a file in its folder");
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("a mode");
            if is_root() {
                Command::new("chown").arg("postgres:").arg(&to).status().expect("chown runs");
            }
        }
        self.psql("postgres", "ALTER SYSTEM SET ssl = on");
        self.stop();
        self.start_again();
    }

    /// The memory of all its processes, each with its part of what they share, in KiB.
    pub fn memory_kib(&self) -> u64 {
        let Some(child) = &self.child else { return 0 };
        let main = child.id().to_string();
        let is_its = |pid: &str| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            pid == main || stat.rsplit(") ").next().is_some_and(|rest| rest.split(' ').nth(1) == Some(&main))
        };
        let of = |pid: &str| {
            let parts = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = parts.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0)
        };
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()) && is_its(pid))
            .map(|pid| of(&pid))
            .sum()
    }

    /// The URL of a database of it, with the password.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://cotter:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// The same through a port of a proxy.
    pub fn url_by(&self, port: u16) -> String {
        format!("postgres://cotter:{PASSWORD}@127.0.0.1:{port}/fleet")
    }

    /// Its folder, with its socket.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs SQL as the superuser, and gives the rows, each on a line.
    #[track_caller]
    pub fn psql(&self, database: &str, sql: &str) -> String {
        self.try_psql(database, sql).unwrap_or_else(|why| panic!("{sql}: {why}"))
    }

    fn try_psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-d",
            database,
            "-c",
            sql,
        ]);
        psql.arg("-h").arg(self.dir.path()).args(["-p", &self.port.to_string()]).current_dir("/");
        let done = psql.output().expect("psql runs");
        if done.status.success() {
            Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&done.stderr).trim().to_owned())
        }
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// A program of PostgreSQL, which does not run as root.
    fn command(&self, name: &str) -> Command {
        let program = self.bin.join(name);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        // Its own group: a Ctrl-C in a terminal is for the test.
        command.current_dir("/").process_group(0);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The newest PostgreSQL of this machine.
fn binaries() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let newest = versions.filter(|version| version.join("bin/initdb").exists());
    Some(newest.max_by_key(|path| path.file_name()?.to_str()?.parse::<u32>().ok())?.join("bin"))
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:") && line.ends_with("\t0"))
}

/// Says so past the test's own output, which is shown for a test that fails alone.
fn skipped<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("COTTER_SKIP_NOTHING").is_none(), "PostgreSQL: {why}");
    let _unseen = writeln!(std::io::stderr(), "skipped: PostgreSQL as the store of the fleet server: {why}");
    None
}
