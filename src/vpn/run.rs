//! Follows openvpn over its management socket, and ends it.

use std::io::ErrorKind;
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

use super::addresses::{check_v6, ends};
use super::files::Files;
use super::management::{Said, said};

/// Times between two attempts to reach openvpn. While it runs there are none: it tells what happens.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(30);

/// How long openvpn may be away, e.g. between two starts of its unit, before it is said not to run.
const AWAY: Duration = Duration::from_secs(20);

/// How long openvpn has to end after one request.
const TO_END: Duration = Duration::from_secs(5);

/// How long openvpn must be away before it is said to be gone: its unit may just be starting it.
const GONE: Duration = Duration::from_secs(10);

/// The longest time in which it is tried to end openvpn.
const ENDING: Duration = Duration::from_secs(30);

/// How often the kernel is asked for IPv6 over the tunnel.
const CHECK: Duration = Duration::from_secs(10);

/// After which time a server that gave addresses that are not accepted is tried again.
const AGAIN: Duration = Duration::from_secs(900);

/// Maximum bytes of a line.
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

/// What became of openvpn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// There were no settings, and it did not run.
    WasNot,
    /// It does not run any more.
    Gone,
    /// It may go on.
    Runs,
}

/// Removes the settings of openvpn and ends it, even if there were none: what made openvpn start may be gone already.
///
/// # Errors
///
/// If they cannot be removed.
pub async fn end_for_good(files: &Files) -> Result<Ended, String> {
    let had_settings = files.remove()?;
    let begin = Instant::now();
    let mut away_since = None;
    while begin.elapsed() < ENDING {
        match ask_to_end(files).await {
            // Without settings it does not start again.
            Asked::Ended => return Ok(Ended::Gone),
            Asked::IsAway if !had_settings => return Ok(Ended::WasNot),
            Asked::IsAway if away_since.get_or_insert_with(Instant::now).elapsed() >= GONE => {
                return Ok(Ended::Gone);
            }
            Asked::IsAway => {}
            Asked::GoesOn => away_since = None,
        }
        sleep(SOON).await;
    }
    Ok(Ended::Runs)
}

/// How openvpn reacts to the request to end.
enum Asked {
    Ended,
    IsAway,
    GoesOn,
}

/// Asks openvpn to end, and waits until it has ended.
async fn ask_to_end(files: &Files) -> Asked {
    let mut stream = match timeout(TO_END, UnixStream::connect(&files.socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(why)) if matches!(why.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Asked::IsAway;
        }
        Ok(Err(_)) | Err(_) => return Asked::GoesOn,
    };
    terminate(&mut stream).await
}

/// Asks openvpn at its management socket to end, and waits until it has ended.
async fn terminate(stream: &mut UnixStream) -> Asked {
    let ended = async {
        stream.write_all(b"signal SIGTERM\n").await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    match timeout(TO_END, ended).await {
        Ok(Ok(())) => Asked::Ended,
        Ok(Err(_)) | Err(_) => Asked::GoesOn,
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
                let is_over = self.end().await;
                self.publish(state.clone());
                if is_over { Next::Rest } else { Next::Retry }
            }
            // Without the program its unit would fail again and again.
            Intent::Run(_) if !self.program.exists() => {
                self.end().await;
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
        self.files.take_folder()?;
        if self.files.has(wanted) {
            return Ok(());
        }
        match end_for_good(&self.files).await? {
            Ended::WasNot => {}
            Ended::Gone => self.lost(),
            Ended::Runs => {
                return Err(
                    "openvpn with other settings does not end; systemctl stop cotter-vpn ends it".to_owned()
                );
            }
        }
        self.files.write(wanted)
    }

    /// Removes the settings and ends openvpn. Returns `false`, with a warning, if it may go on.
    async fn end(&self) -> bool {
        match end_for_good(&self.files).await {
            Ok(Ended::WasNot | Ended::Gone) => true,
            Ok(Ended::Runs) => {
                warn!("openvpn does not end; it is tried again, and systemctl stop cotter-vpn ends it");
                false
            }
            Err(why) => {
                warn!(%why, "the settings of the VPN cannot be removed; remove them by hand");
                false
            }
        }
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
            match timeout(CHECK, stream.read(&mut piece)).await {
                Ok(Ok(0) | Err(_)) => return true,
                Ok(Ok(count)) => buffer.extend_from_slice(&piece[..count]),
                Err(_) if self.is_acceptable() => {}
                Err(_) => return self.refuse(&mut stream).await,
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
            Said::Logged(trouble) => {
                if !self.state.borrow().is_connected() {
                    self.publish(VpnState::Down(trouble));
                }
            }
            Said::Connected(own) => {
                let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
                let both = ends(own, &self.files.device, &routes);
                match both.and_then(|both| self.check_v6().map(|()| both)) {
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

    /// Returns whether a tunnel that is up may go on. If not, it publishes why.
    fn is_acceptable(&self) -> bool {
        if !self.state.borrow().is_connected() {
            return true;
        }
        match self.check_v6() {
            Ok(()) => true,
            Err(why) => {
                self.publish(VpnState::Down(VpnTrouble::Addresses(why)));
                false
            }
        }
    }

    fn check_v6(&self) -> Result<(), String> {
        // Without IPv6 the kernel has neither file.
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        check_v6(&self.files.device, &text("/proc/net/if_inet6"), &text("/proc/net/ipv6_route"))
    }

    /// Ends a tunnel whose addresses are not accepted. Without its settings it is not started again.
    async fn refuse(&self, stream: &mut UnixStream) -> bool {
        if let Err(why) = self.files.remove() {
            warn!(%why, "the settings of the VPN cannot be removed; remove them by hand");
        }
        if !matches!(terminate(stream).await, Asked::Ended) {
            warn!("openvpn does not end; systemctl stop cotter-vpn ends it");
        }
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
