//! Notices that other servers have written. It reads nothing: the writer of the records does.

use std::io;
use std::thread;
use std::time::Duration;

use super::CHANNEL;
use super::schema::{self, TO_READ};
use crate::fleet::writer::Bell;
use crate::postgres::{Address, Session};

/// How often news is looked for without a notification. Reports of devices have none.
const STEADY: Duration = Duration::from_secs(1);

/// After so many quiet times the connection is tested.
const TESTED: u32 = 10;

/// Starts the thread. It ends after the writer.
///
/// # Errors
///
/// If the machine has no thread for it.
pub(in crate::fleet) fn follow(address: Address, bell: Bell) -> io::Result<()> {
    let body = move || {
        let mut listening = None;
        while bell.ring() {
            listening = wait(listening, &address);
        }
    };
    thread::Builder::new().name("database-news".to_owned()).spawn(body).map(drop)
}

/// Waits for a notification or the steady time. Returns the connection, and for how many times it was quiet.
fn wait(listening: Option<(Session, u32)>, address: &Address) -> Option<(Session, u32)> {
    let Some((mut session, quiet)) = listening else {
        let opened = schema::connect(address).ok().and_then(|mut session| {
            session.simple(&format!("LISTEN {CHANNEL}"), TO_READ).ok()?;
            Some((session, 0))
        });
        if opened.is_none() {
            thread::sleep(STEADY);
        }
        return opened;
    };
    match session.wait(STEADY) {
        Ok(true) => Some((session, 0)),
        Ok(false) if quiet < TESTED => Some((session, quiet + 1)),
        Ok(false) => session.simple("SELECT 1", TO_READ).ok().map(|_| (session, 0)),
        Err(_) => None,
    }
}
