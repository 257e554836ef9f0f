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
    let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a page");
    for (name, says) in [
        ("man1/cotter.1", "Keeps every device of a fleet"),
        ("man1/cotter-check.1", "suggests fixes"),
        ("man1/cotter-fleet.1", "the fleets of a fleet server"),
        ("man1/cotter-fleet-create.1", "Creates a fleet"),
        ("man8/cotter-fleet.8", "cotter\\-fleet\\-serve(8)"),
        ("man8/cotter-fleet-serve.8", "allow\\-remote"),
        ("man1/cotter-lock-run.1", "Example: cotter lock run"),
        ("man1/cotter-logs.1", "replaces this one"),
    ] {
        assert!(page(name).contains(says), "{name}: {}", page(name));
    }
    let completions = folder.path().join("completions");
    for (name, program) in
        [("cotter", env!("CARGO_BIN_EXE_cotter")), ("cotter-fleet", env!("CARGO_BIN_EXE_cotter-fleet"))]
    {
        let bash = std::fs::read(completions.join(format!("{name}.bash"))).expect("a script");
        let printed =
            Command::new(program).args(["completion", "bash"]).output().expect("the binary runs").stdout;
        assert!(bash == printed, "{name}");
    }
    // The old place of the server's command is for old unit files.
    assert!(!folder.path().join("man1/cotter-fleet-serve.1").exists());

    // Those that read them, where they are here.
    let pages = |section: &str| std::fs::read_dir(folder.path().join(section)).expect("pages");
    for page in pages("man1").chain(pages("man8")) {
        let page = page.expect("a page").path();
        if run("groff", &["-man", "-Tutf8", "-ww"], &page).is_none() {
            println!("not looked at: there is no groff here");
            break;
        }
    }
    for (name, function, begun, completed) in
        [("cotter", "_cotter", "con", "config"), ("cotter-fleet", "_cotter__fleet", "ser", "serve")]
    {
        let script = completions.join(format!("{name}.bash"));
        run("bash", &["-n"], &script).expect("bash is everywhere");
        let asked = format!(
            "source {}; COMP_WORDS=({name} {begun}); COMP_CWORD=1; {function} {name} {begun} {name}; echo ${{COMPREPLY[@]}}",
            script.display()
        );
        let answer = Command::new("bash").args(["-c", &asked]).output().expect("bash is everywhere");
        assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), completed);
    }
    for (shell, file) in
        [("zsh", "_cotter"), ("zsh", "_cotter-fleet"), ("fish", "cotter.fish"), ("fish", "cotter-fleet.fish")]
    {
        if run(shell, &["-n"], &completions.join(file)).is_none() {
            println!("not looked at: there is no {shell} here");
        }
    }
}
