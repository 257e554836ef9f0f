//! The end of what docker prints, for the record of a build that failed.

use std::cell::RefCell;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;

use super::print;
use crate::model::text::Screen;
use crate::wire::operator_api::LONGEST_BUILD_LOG;

/// Prints the end of the log of a build that failed.
pub(super) fn print(log: &str) -> anyhow::Result<()> {
    print::line("")?;
    print::line("END OF THE BUILD'S LOG")?;
    log.lines().try_for_each(|line| print::line(&format!("| {}", line.replace('\t', "    "))))
}

/// How long the output may stay open after docker has ended, because a program that it started still has it.
const TO_END: Duration = Duration::from_secs(2);

/// The last bytes of a log, from the beginning of a line on.
#[derive(Debug, Default)]
pub(super) struct BuildLog {
    text: String,
}

impl BuildLog {
    fn add(&mut self, piece: &str) {
        self.text.push_str(piece);
        // The text is not moved for each line.
        if self.text.len() > 2 * LONGEST_BUILD_LOG {
            self.text = self.end();
        }
    }

    /// What is kept of it.
    pub(super) fn end(&self) -> String {
        let mut start = self.text.len().saturating_sub(LONGEST_BUILD_LOG);
        if start == 0 {
            return self.text.clone();
        }
        while !self.text.is_char_boundary(start) {
            start += 1;
        }
        let end = &self.text[start..];
        // A line that is longer than all that is kept has no beginning here.
        end.split_once('\n').map_or(end, |(_, rest)| rest).to_owned()
    }

    /// Prints and records all output of a program until it has ended.
    pub(super) async fn follow(&mut self, child: &mut Child) -> io::Result<ExitStatus> {
        let (out, errors) = (child.stdout.take(), child.stderr.take());
        let log = RefCell::new(self);
        let printed = async { tokio::join!(copy(out, &log), copy(errors, &log)) };
        tokio::pin!(printed);
        tokio::select! {
            _ = &mut printed => child.wait().await,
            ended = child.wait() => {
                // What was printed until then is recorded in any case.
                let _ = tokio::time::timeout(TO_END, printed).await;
                ended
            }
        }
    }
}

/// Prints and records what is read. A read that fails ends the output.
async fn copy(from: Option<impl AsyncRead + Unpin>, log: &RefCell<&mut BuildLog>) {
    let Some(mut from) = from else { return };
    let (mut screen, mut piece) = (Screen::default(), vec![0; 8192]);
    let show = |text: &str| {
        print::output(text);
        log.borrow_mut().add(text);
    };
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        show(&screen.take(&piece[..read]));
    }
    show(&screen.finish());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_kept_from_the_beginning_of_a_line_on() {
        let mut log = BuildLog::default();
        for n in 0..10_000 {
            log.add(&format!("line {n} äöü\n"));
        }
        let end = log.end();
        assert!((LONGEST_BUILD_LOG - 100..=LONGEST_BUILD_LOG).contains(&end.len()), "{}", end.len());
        assert!(end.starts_with("line ") && end.ends_with("line 9999 äöü\n"), "{end}");
        assert!(log.text.len() <= 2 * LONGEST_BUILD_LOG);

        let mut log = BuildLog::default();
        log.add("short\n");
        assert_eq!(log.end(), "short\n");
        log.add(&"ä".repeat(LONGEST_BUILD_LOG));
        assert!(log.end().len() <= LONGEST_BUILD_LOG && log.end().starts_with('ä'));
    }
}
