//! openvpn as `systemd/cotter-vpn.service` and `cotter-vpn.path` run it, without systemd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The part of the unit that this test repeats.
const UNIT: &str = include_str!("../../systemd/cotter-vpn.service");

/// openvpn while the agent's settings for it are there.
pub(crate) struct Client {
    stop: Arc<AtomicBool>,
    /// The process that runs; 0: none.
    pid: Arc<AtomicU32>,
    keeper: Option<JoinHandle<()>>,
}

impl Client {
    /// Follows the agent with this runtime folder.
    pub(crate) fn keep(runtime: &Path) -> Self {
        let (stop, pid) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stopped, shown, runtime) = (Arc::clone(&stop), Arc::clone(&pid), runtime.to_owned());
        let keeper = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if runtime.join("vpn/client.conf").exists() {
                    let mut process = start(&runtime);
                    shown.store(process.id(), Ordering::Relaxed);
                    while process.try_wait().unwrap().is_none() {
                        if stopped.load(Ordering::Relaxed) {
                            _ = process.kill();
                        }
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    shown.store(0, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Self { stop, pid, keeper: Some(keeper) }
    }

    /// The process that runs, if one does.
    pub(crate) fn pid(&self) -> Option<u32> {
        Some(self.pid.load(Ordering::Relaxed)).filter(|pid| *pid > 0)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        _ = self.keeper.take().unwrap().join();
    }
}

/// The folder of the management socket.
pub(crate) fn socket_folder(runtime: &Path) -> PathBuf {
    PathBuf::from(format!("{}-vpn", runtime.display()))
}

/// Starts openvpn with copies of the files, as systemd gives them to the unit.
fn start(runtime: &Path) -> Child {
    let given = runtime.with_file_name("credentials");
    fs::create_dir_all(&given).unwrap();
    fs::create_dir_all(socket_folder(runtime)).unwrap();
    for file in ["client.conf", "credentials"] {
        assert!(UNIT.contains(&format!("\nLoadCredential={file}:/run/cotter/vpn/{file}\n")));
        // The agent may be writing them.
        _ = fs::copy(runtime.join("vpn").join(file), given.join(file));
    }
    let line = UNIT.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let line = line.replace("${CREDENTIALS_DIRECTORY}", &given.display().to_string());
    let mut words = line.split_whitespace();
    let log =
        fs::File::options().append(true).create(true).open(runtime.with_file_name("openvpn.log")).unwrap();
    let mut command = Command::new(words.next().unwrap());
    command.args(words).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().expect("openvpn is installed: scripts/prepare.sh installs it")
}
