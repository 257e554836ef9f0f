//! Runs another program and reads what it prints, piece by piece.

use std::process::Stdio;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};

/// Maximum number of bytes of a piece.
const PIECE: usize = 16 << 10;

/// How long the first output is waited for, so that a program that fails at once can say why.
const TO_BEGIN: Duration = Duration::from_millis(500);

/// Maximum number of bytes that are read of an error.
const MOST_SAID: u64 = 4096;

/// Runs a program, and returns its output, piece by piece. Dropping the stream ends the program.
///
/// # Errors
///
/// A line that says why there is no output.
pub async fn output(
    program: &'static str,
    arguments: Vec<String>,
) -> Result<BoxStream<'static, Vec<u8>>, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let spawned = command.kill_on_drop(true).spawn();
    let mut child = spawned.map_err(|error| format!("{program} cannot be run: {error}"))?;
    let Some(mut printed) = child.stdout.take() else { return Err(format!("{program} has no output")) };
    let mut first = vec![0; PIECE];
    let first = match tokio::time::timeout(TO_BEGIN, printed.read(&mut first)).await {
        Ok(Ok(0)) => return ended(program, child).await.map(|()| stream::empty().boxed()),
        Ok(Ok(length)) => {
            first.truncate(length);
            Some(first)
        }
        Ok(Err(error)) => return Err(format!("{program} cannot be read: {error}")),
        Err(_) => None,
    };
    let rest = stream::unfold((child, printed), |(child, mut printed)| async move {
        Some((next(&mut printed).await?, (child, printed)))
    });
    Ok(stream::iter(first).chain(rest).boxed())
}

/// Reads a piece; `None` at the end.
async fn next(printed: &mut ChildStdout) -> Option<Vec<u8>> {
    let mut piece = vec![0; PIECE];
    let length = printed.read(&mut piece).await.ok().filter(|length| *length > 0)?;
    piece.truncate(length);
    Some(piece)
}

/// Waits for the end of a program that has printed nothing.
async fn ended(program: &str, mut child: Child) -> Result<(), String> {
    let mut said = String::new();
    if let Some(errors) = child.stderr.take() {
        // What is not UTF-8 is left out.
        _ = errors.take(MOST_SAID).read_to_string(&mut said).await;
    }
    let status = child.wait().await.map_err(|error| format!("{program} cannot be waited for: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{program} failed: {}", said.lines().next().unwrap_or("it printed no reason")))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str) -> Result<String, String> {
        let pieces = output("sh", vec!["-c".to_owned(), script.to_owned()]).await?;
        let pieces: Vec<_> = pieces.collect().await;
        Ok(String::from_utf8(pieces.concat()).unwrap())
    }

    #[tokio::test]
    async fn the_output_of_a_program_is_read_to_its_end() {
        assert_eq!(run("echo a; sleep 0.1; echo b").await.as_deref(), Ok("a\nb\n"));
        assert_eq!(run("sleep 0.7; echo late").await.as_deref(), Ok("late\n"));
        assert_eq!(run("true").await.as_deref(), Ok(""));
        assert_eq!(run("echo why >&2; exit 3").await, Err("sh failed: why".to_owned()));
        let missing = output("/nowhere/journalctl", Vec::new()).await.map(|_| ());
        assert!(missing.unwrap_err().starts_with("/nowhere/journalctl cannot be run"));
    }

    #[tokio::test]
    async fn dropping_the_output_ends_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let script = format!("echo a; sleep 1; touch {}", mark.display());
        let mut pieces = output("sh", vec!["-c".to_owned(), script]).await.unwrap();
        assert_eq!(pieces.next().await, Some(b"a\n".to_vec()));
        drop(pieces);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!mark.exists());
    }
}
