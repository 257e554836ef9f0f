//! Follows openvpn over its management socket, and ends it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::model::{VpnState, VpnTrouble, VpnWanted};

use super::addresses::ends;
use super::files::Files;
use super::management::{Said, said};

/// Times between two attempts to reach openvpn. While it runs there are none: it tells what happens.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(30);

/// How long openvpn may be away, e.g. between two starts of its unit, before it is said not to run.
const AWAY: Duration = Duration::from_secs(20);

/// How long openvpn has to end.
const TO_END: Duration = Duration::from_secs(5);

/// After which time a server that gave addresses that are not accepted is tried again.
const AGAIN: Duration = Duration::from_secs(900);

/// Most bytes of a line.
const LONGEST_LINE: usize = 8 << 10;

/// What is wanted of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// Nothing is known yet: a tunnel that runs goes on. The trouble is shown if there is none.
    Keep(VpnTrouble),
    /// No tunnel, for the reason that is shown.
    Not(VpnState),
    Run(Arc<VpnWanted>),
}

/// What to do until something else is wanted.
enum Next {
    Follow,
    /// Try again later.
    Retry,
    Rest,
}

/// The tunnel of this device.
#[derive(Debug)]
pub struct Tunnel {
    pub files: Files,
    /// The path of openvpn.
    pub program: PathBuf,
    pub state: watch::Sender<VpnState>,
}

/// Keeps the tunnel as it is wanted until `stop`, or until nothing can be wanted any more. Then openvpn goes on: it does not
/// need the agent.
pub async fn run(tunnel: &Tunnel, mut intent: watch::Receiver<Intent>, stop: CancellationToken) {
    loop {
        let wanted = intent.borrow_and_update().clone();
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = tunnel.begin(&wanted) => next,
        };
        let until_again = async {
            match next {
                Next::Follow => {
                    tunnel.follow().await;
                    sleep(AGAIN).await;
                }
                Next::Retry => sleep(LATER).await,
                Next::Rest => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = intent.changed() => if changed.is_err() {
                return;
            },
            () = until_again => {}
        }
    }
}

/// Removes the settings of openvpn and ends it. Returns whether there were settings.
///
/// # Errors
///
/// If they cannot be removed.
pub async fn end_for_good(files: &Files) -> Result<bool, String> {
    let had_settings = files.remove()?;
    if had_settings {
        end(files).await;
    }
    Ok(had_settings)
}

/// Ends openvpn, and waits until it has ended.
async fn end(files: &Files) {
    let ended = async {
        let mut stream = UnixStream::connect(&files.socket).await?;
        stream.write_all(b"signal SIGTERM\n").await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // It may not run at all.
    if timeout(TO_END, ended).await.is_err() {
        warn!("openvpn does not end; systemctl restart cotter-vpn ends it");
    }
}

impl Tunnel {
    /// Puts the settings of openvpn in place or removes them.
    async fn begin(&self, intent: &Intent) -> Next {
        match intent {
            Intent::Keep(trouble) => {
                let is_there = self.files.are_there();
                if is_there {
                    self.begins();
                    return Next::Follow;
                }
                self.publish(VpnState::Down(trouble.clone()));
                Next::Rest
            }
            Intent::Not(state) => {
                if let Err(why) = end_for_good(&self.files).await {
                    warn!(%why, "the settings of the VPN cannot be removed; remove them by hand");
                }
                self.publish(state.clone());
                Next::Rest
            }
            // Without the program its unit would fail again and again.
            Intent::Run(_) if !self.program.exists() => {
                self.publish(VpnState::Down(VpnTrouble::NotInstalled));
                Next::Retry
            }
            Intent::Run(wanted) => match self.put(wanted).await {
                Ok(()) => {
                    self.begins();
                    Next::Follow
                }
                Err(why) => {
                    self.publish(VpnState::Down(VpnTrouble::NoFiles(why)));
                    Next::Retry
                }
            },
        }
    }

    /// Writes the settings, unless the same ones are there. openvpn ends before, and starts again with the new ones.
    async fn put(&self, wanted: &VpnWanted) -> Result<(), String> {
        if self.files.has(wanted)? {
            return Ok(());
        }
        if end_for_good(&self.files).await? {
            self.lost();
        }
        self.files.write(wanted)
    }

    /// Follows openvpn through its ends and starts. Returns when it was ended because its addresses are not accepted.
    async fn follow(&self) {
        let (mut wait, mut seen) = (SOON, Instant::now());
        loop {
            if let Ok(stream) = UnixStream::connect(&self.files.socket).await {
                let is_accepted = self.listen(stream).await;
                if !is_accepted {
                    return;
                }
                (wait, seen) = (SOON, Instant::now());
                self.lost();
            } else if seen.elapsed() < AWAY {
                self.lost();
            } else {
                let is_installed = self.program.exists();
                let trouble = if is_installed { VpnTrouble::NotRunning } else { VpnTrouble::NotInstalled };
                self.publish(VpnState::Down(trouble));
            }
            sleep(wait).await;
            wait = (wait * 2).min(LATER);
        }
    }

    /// Publishes what openvpn says until it ends. Returns `false` if it was ended because of its addresses.
    async fn listen(&self, mut stream: UnixStream) -> bool {
        if stream.write_all(b"log on\nstate on\nstate\n").await.is_err() {
            return true;
        }
        let (mut buffer, mut piece) = (Vec::new(), [0; 2048]);
        loop {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return true,
                Ok(count) => buffer.extend_from_slice(&piece[..count]),
            }
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                if !self.heard(said(String::from_utf8_lossy(&line).trim_end())) {
                    return self.refuse(&mut stream).await;
                }
            }
            if buffer.len() > LONGEST_LINE {
                return true;
            }
        }
    }

    /// Publishes what a line says. Returns `false` if the tunnel must end.
    fn heard(&self, said: Said) -> bool {
        match said {
            Said::Nothing => {}
            Said::NotConnected => self.lost(),
            Said::Trouble(trouble) => self.publish(VpnState::Down(trouble)),
            Said::Connected(own) => {
                let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
                match ends(own, &self.files.device, &routes) {
                    Ok(ends) => self.publish(VpnState::Connected(ends)),
                    Err(why) => {
                        self.publish(VpnState::Down(VpnTrouble::Addresses(why)));
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Ends a tunnel whose addresses are not accepted. Without its settings it is not started again.
    async fn refuse(&self, stream: &mut UnixStream) -> bool {
        if let Err(why) = self.files.remove() {
            warn!(%why, "the settings of the VPN cannot be removed; remove them by hand");
        }
        _ = stream.write_all(b"signal SIGTERM\n").await;
        false
    }

    /// openvpn is about to be asked. A tunnel that is up stays what it is until openvpn says otherwise.
    fn begins(&self) {
        if !self.state.borrow().is_connected() {
            self.publish(VpnState::Connecting);
        }
    }

    /// The tunnel is not up any more. A trouble stays what it is until there is a tunnel or another one.
    fn lost(&self) {
        if self.state.borrow().is_connected() {
            self.publish(VpnState::Connecting);
        }
    }

    fn publish(&self, state: VpnState) {
        self.state.send_if_modified(|before| {
            if *before == state {
                return false;
            }
            match (&state, state.why()) {
                (VpnState::Connected(ends), _) => info!(address = %ends.own, "the VPN is connected"),
                (VpnState::Down(_), Some(why)) => warn!(%why, "the VPN is not connected"),
                _ if before.is_connected() => info!("the VPN is not connected any more"),
                _ => {}
            }
            *before = state;
            true
        });
    }
}
