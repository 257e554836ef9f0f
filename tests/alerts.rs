//! docs/alerts.yml, held by Prometheus's own tool: the rules can be read, and each fires where it should.
//! `scripts/prepare.sh` unpacks promtool.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and asks the environment whether it may be skipped"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Without promtool the test is skipped, but not where all of them must run.
fn promtool() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cross/promtool/promtool");
    if path.exists() {
        return Some(path);
    }
    let why = "promtool is missing; scripts/prepare.sh unpacks it where Debian's packages can be had";
    assert!(std::env::var_os("COTTER_SKIP_NOTHING").is_none(), "{why}");
    eprintln!("skipped: {why}");
    None
}

fn run(promtool: &Path, arguments: &[&str]) -> String {
    let out = Command::new(promtool).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "promtool {arguments:?}: {said}");
    said
}

#[test]
fn prometheus_accepts_the_alert_rules() {
    let Some(promtool) = promtool() else { return };
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/alerts.yml");
    let said = run(&promtool, &["check", "rules", "--lint=all", "--lint-fatal", rules.to_str().unwrap()]);
    let count = std::fs::read_to_string(&rules).unwrap().matches("- alert: ").count();
    assert!(said.contains(&format!("SUCCESS: {count} rules found")), "{said}");
}

#[test]
fn an_alert_fires_when_it_should_and_not_before() {
    let Some(promtool) = promtool() else { return };
    let folder = tempfile::tempdir().unwrap();
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/alerts.yml");
    let tests = include_str!("alerts/tests.yml").replace("ALERTS", rules.to_str().unwrap());
    let path = folder.path().join("tests.yml");
    std::fs::write(&path, tests).unwrap();
    run(&promtool, &["test", "rules", path.to_str().unwrap()]);
}
