//! Man pages and completions say what the binary does, and the tools that read them do.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../examples/manual.rs"]
mod manual;

use std::path::Path;
use std::process::{Command, Stdio};

/// What a program prints; `None` where it is not installed.
fn run(program: &str, arguments: &[&str], file: &Path) -> Option<String> {
    let output = Command::new(program).args(arguments).arg(file).stdin(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{program} of {}: {said}", file.display());
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn every_command_has_its_page_and_its_completion() {
    let folder = tempfile::tempdir().expect("a folder");
    manual::write(folder.path()).expect("it writes");
    let page = |name: &str| std::fs::read_to_string(folder.path().join("man1").join(name)).expect("a page");
    for (name, says) in [
        ("cotter.1", "Keeps every device of a fleet"),
        ("cotter-check.1", "what is wrong"),
        ("cotter-fleet-serve.1", "allow\\-remote"),
        ("cotter-lock-run.1", "Example: cotter lock run"),
        ("cotter-logs.1", "takes its place"),
    ] {
        assert!(page(name).contains(says), "{name}: {}", page(name));
    }
    let bash = std::fs::read_to_string(folder.path().join("completions/cotter.bash")).expect("a script");
    let binary = Command::new(env!("CARGO_BIN_EXE_cotter")).args(["completion", "bash"]).output();
    assert_eq!(bash.as_bytes(), binary.expect("the binary runs").stdout);

    // Those that read them, where they are here.
    for page in std::fs::read_dir(folder.path().join("man1")).expect("pages") {
        let page = page.expect("a page").path();
        if run("groff", &["-man", "-Tutf8", "-ww"], &page).is_none() {
            println!("not looked at: there is no groff here");
            break;
        }
    }
    run("bash", &["-n"], &folder.path().join("completions/cotter.bash")).expect("bash is everywhere");
    let asked = format!(
        "source {}; COMP_WORDS=(cotter con); COMP_CWORD=1; _cotter cotter con cotter; echo ${{COMPREPLY[@]}}",
        folder.path().join("completions/cotter.bash").display()
    );
    let completed = Command::new("bash").args(["-c", &asked]).output().expect("bash is everywhere");
    assert_eq!(String::from_utf8_lossy(&completed.stdout).trim(), "config");
    for (shell, file) in [("zsh", "_cotter"), ("fish", "cotter.fish")] {
        if run(shell, &["-n"], &folder.path().join("completions").join(file)).is_none() {
            println!("not looked at: there is no {shell} here");
        }
    }
}
