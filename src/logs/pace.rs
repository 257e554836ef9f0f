//! How much a service may upload. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// The time for which the limits are.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// Most lines and bytes of a service in a window: as many lines as the journal of balenaOS takes.
pub(super) const LINES: u32 = 1000;
const BYTES: usize = 1 << 20;

/// The lines of one service in the present window.
#[derive(Debug)]
pub(super) struct Pace {
    begun: Instant,
    lines: u32,
    bytes: usize,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { begun: now, lines: 0, bytes: 0 }
    }

    /// Counts a line of so many bytes.
    ///
    /// # Errors
    ///
    /// When the next window begins, if this one is used up.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) -> Result<(), Instant> {
        if now >= self.begun + WINDOW {
            *self = Self::new(now);
        }
        if self.lines == LINES || self.bytes >= BYTES {
            return Err(self.begun + WINDOW);
        }
        (self.lines, self.bytes) = (self.lines + 1, self.bytes + bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_so_many_lines_and_bytes() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        assert!((0..1000).all(|_| pace.take(begun, 100).is_ok()));
        assert_eq!(pace.take(begun + WINDOW / 2, 100), Err(begun + WINDOW));
        assert!(pace.take(begun + WINDOW, 100).is_ok());
        let mut pace = Pace::new(begun);
        assert_eq!((0..1000).filter(|_| pace.take(begun, 10_000).is_ok()).count(), 105);
    }
}
