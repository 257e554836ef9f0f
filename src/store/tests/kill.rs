//! SIGKILL at any moment loses nothing that was acknowledged.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;

const KILLS: u64 = 120;

/// The child process: saves one number after the other, in turn as target, ledger and identity, and prints each.
#[test]
fn writer() {
    #[expect(clippy::disallowed_methods, reason = "how a test tells its child what to do")]
    let Ok(dir) = std::env::var("COTTER_TEST_WRITER_DIR") else { return };
    let (store, notes) = open(Path::new(&dir));
    assert!(!notes.iter().any(|note| matches!(note, Recovery::SetAside { .. })), "{}", text(&notes));
    let mut out = std::io::stdout();
    for n in numbers(&store.load()).into_iter().max().unwrap() + 1.. {
        match n % 3 {
            0 => store.save_target(&target(n, 3_000)),
            1 => store.save_ledger(&ledger(&[(1, n, 1_500), (2, 0, 4_000)])),
            _ => store.save_identity(&identity(n)),
        }
        .unwrap();
        writeln!(out, "\nacked {n}").unwrap();
        out.flush().unwrap();
    }
}

/// The saved numbers, by `n % 3`.
fn numbers(remembered: &Remembered) -> [u64; 3] {
    let app = AppId::parse("app1").unwrap();
    [
        remembered.target.as_ref().map_or(0, |target| target.body[..20].parse().unwrap()),
        remembered.ledger.apps.get(&app).map_or(0, |app| app.good.as_ref().unwrap().number),
        remembered.identity.as_ref().map_or(0, |identity| identity.device_key[4..].parse().unwrap()),
    ]
}

#[test]
fn nothing_acknowledged_is_lost_to_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(42);
    let mut acked = [0; 3];
    let (mut total, mut damaged) = (0, 0);
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::kill::writer", "--nocapture"])
            .env("COTTER_TEST_WRITER_DIR", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let seen = Arc::new(AtomicU64::new(0));
        let seeing = Arc::clone(&seen);
        let reader = std::thread::spawn(move || -> Vec<u64> {
            lines
                .map_while(Result::ok)
                .filter_map(|line| line.strip_prefix("acked ")?.parse().ok())
                .inspect(|_| _ = seeing.fetch_add(1, Ordering::Relaxed))
                .collect()
        });
        // One kill in four may come during the opening, and the others after some saves, however slow the machine is.
        while kill % 4 != 0 && seen.load(Ordering::Relaxed) == 0 {
            assert!(child.try_wait().unwrap().is_none(), "the writer ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(random.below(80_000)));
        assert!(child.try_wait().unwrap().is_none(), "the writer ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        for n in reader.join().unwrap() {
            acked[(n % 3) as usize] = n;
            total += 1;
        }
        // Each copy alone must be enough.
        let lost = ["none", "db", "mirror-a.json mirror-b.json"][(kill % 3) as usize];
        for name in lost.split(' ') {
            let path = dir.path().join(name);
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
        let (remembered, notes) = remembered(dir.path());
        let found = numbers(&remembered);
        // In rare cases, once in many hundred kills, sled itself finds its log damaged. That is what the mirrors are for;
        // without them, nothing is left.
        let is_damaged = notes.iter().any(|note| matches!(note, Recovery::SetAside { .. }));
        if is_damaged && lost.starts_with("mirror") && text(&notes).contains("sled found corruption") {
            damaged += 1;
            assert!(damaged <= 1, "sled has damaged its log twice in {kill} kills");
            acked = found;
            continue;
        }
        for (kind, (found, acked)) in found.into_iter().zip(acked).enumerate() {
            let is_next = found == acked + 3 || acked == 0;
            assert!(
                found == acked || is_next,
                "kill {kill}, kind {kind}, lost {lost}: {found}, not {acked}: {}",
                text(&notes)
            );
        }
        assert!(!notes.iter().any(|note| matches!(note, Recovery::SetAside { .. })), "{}", text(&notes));
        acked = found;
    }
    println!("{KILLS} kills, {total} acknowledged saves");
    assert!(total > KILLS, "only {total} saves were acknowledged: the kills came too early to show anything");
}
