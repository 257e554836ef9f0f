//! `cotter-fleet simulate`, as it is typed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use serde_json::Value;

fn simulate(args: &str) -> (i32, String, String) {
    let words = args.split(' ').filter(|word| !word.is_empty());
    let out = Command::new(env!("CARGO_BIN_EXE_cotter-fleet")).arg("simulate").args(words).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn the_same_seed_gives_the_same_result_and_a_bad_release_halts() {
    let bad = "--devices 2000 --runs 8 --waves 5%,20%,100% --fail 20% --json";
    let (code, first, _) = simulate(bad);
    assert_eq!(code, 0);
    let summary: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(summary["simulation"]["ends"]["halted"], 8, "{summary}");
    assert_eq!(simulate(bad).1, first);
    let other = simulate(&format!("{bad} --seed 100")).1;
    assert_ne!(other, first);
    let (_, text, _) = simulate("--devices 500 --runs 4 --waves 10%,100%");
    assert!(text.contains("4 rollouts, 500 devices each") && text.contains("4 completed"), "{text}");
}

#[test]
fn a_definition_comes_from_a_file_and_options_override_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rollout.toml");
    std::fs::write(&path, "waves = ['10%', '100%']\nsegments = ['hw']\n[test]\ndetect = '10%'\n").unwrap();
    let of = |more: &str| simulate(&format!("--definition {} --devices 500 --runs 4 {more}", path.display()));
    let (code, text, _) = of("--segment hw=rev2:20%:100%");
    assert!(code == 0 && text.contains("hw=rev2, 4 times"), "{text}");
    let (_, text, _) = of("--waves 100% --max-failures 1 --segment hw=rev2:20%:100%");
    assert!(text.contains("hw=rev2, 4 times"), "a segment comes before a limit: {text}");
    std::fs::write(&path, "waves = ['10%', '100%']\nwave = 1\n").unwrap();
    assert!(of("").2.contains("unknown field `wave`"), "{}", of("").2);
    std::fs::write(&path, "x".repeat(70_000)).unwrap();
    assert!(of("").2.contains("larger than 64 KiB"), "{}", of("").2);
}

#[test]
fn what_cannot_be_simulated_is_refused_in_one_line() {
    for (args, why) in [
        ("", "no wave is given; write them like 'ring=canary, 1%, 10%, 50%, 100%'"),
        ("--waves 10%", "the last wave is 10%, and must be 100%"),
        ("--waves 10%,5%,100%", "wave 2 (5%) is not larger than the one before it (10%)"),
        ("--waves 0%,100%", "a share above 0%"),
        ("--waves 100% --rate 0/h", "a rate from 1 to 1000000"),
        ("--waves 100% --at-once 0", "at_once is 0, and must be at least 1"),
        ("--waves 100% --segment hw", "write it like hw=rev2:10%:50%"),
        ("--waves 100% --update 5min", "write it like 2min-15min"),
        ("--waves 100% --devices 0", "0 is not in 1..=1000000"),
        ("--definition /nowhere.toml", "in /nowhere.toml: No such file"),
    ] {
        let (code, out, error) = simulate(args);
        assert!(code != 0 && out.is_empty() && error.contains(why), "{args}: {code} {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
