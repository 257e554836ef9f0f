//! Waits for notifications that other servers have written, and lets the writer of the records read that.

use std::io;
use std::thread;
use std::time::Duration;

use super::CHANNEL;
use super::schema::{self, TO_READ};
use crate::fleet::writer::Bell;
use crate::postgres::{Address, Session};

/// The writer reads news after this time even without a notification. Reports of devices are written without one.
const STEADY: Duration = Duration::from_secs(1);

/// After so many times without a notification the connection is tested.
const TESTED: u32 = 10;

/// Starts the thread. It ends after the writer. Notifications with the name `own` are this server's and wake nothing.
///
/// # Errors
///
/// If the machine has no thread for it.
pub(in crate::fleet) fn follow(address: Address, own: String, bell: Bell) -> io::Result<()> {
    let body = move || {
        let mut listening = None;
        while bell.ring() {
            listening = wait(listening, &address, &own);
        }
    };
    thread::Builder::new().name("database-news".to_owned()).spawn(body).map(drop)
}

/// Waits for a notification, for [`STEADY`] at most. Returns the connection, and how many times in a row none has come.
fn wait(listening: Option<(Session, u32)>, address: &Address, own: &str) -> Option<(Session, u32)> {
    let Some((mut session, quiet)) = listening else {
        let opened = schema::connect(address).ok().and_then(|mut session| {
            session.listen(CHANNEL, own, TO_READ).ok()?;
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
