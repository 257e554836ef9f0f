//! What the agent and the fleet server keep is theirs alone: on the real binary, and seen by another user.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::json;
use support::{Program, eventually};
use tempfile::TempDir;

const NOBODY: u32 = 65534;
const SECRET: &str = "hunter2-in-the-environment";

/// A folder that other users may look into, as /var/lib is.
fn folder() -> TempDir {
    let dir = tempfile::Builder::new().prefix("cotter-").tempdir_in("/tmp").unwrap();
    set(dir.path(), 0o755);
    dir
}

fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

/// Everything below a folder, itself included.
fn all(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(all(&path)) } else { found.push(path) }
    }
    found
}

fn assert_private(folder: &Path) {
    for path in all(folder) {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
}

/// Runs a command as the user `nobody`; `None` where this process may not.
fn as_nobody(words: &[&str]) -> Option<Output> {
    let mut command = Command::new(words[0]);
    match command.args(&words[1..]).uid(NOBODY).gid(NOBODY).output() {
        Ok(output) => Some(output),
        Err(_) => {
            println!("skipped: not root, so other users cannot be tried");
            None
        }
    }
}

/// Returns whether the user `nobody` may read a file, or list a folder.
fn may_others_see(path: &Path) -> Option<bool> {
    let verb = if path.is_dir() { "ls" } else { "cat" };
    as_nobody(&[verb, path.to_str().unwrap()]).map(|output| output.status.success())
}

/// A fleet server, with a mask as an administrator's shell has it.
fn serve(data: &Path, log: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "umask 022; exec \"$0\" \"$@\""]).arg(Program::fleet_binary());
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
    command.env_clear();
    let _none_yet = fs::remove_file(log);
    command
}

fn served(data: &Path, log: &Path) -> (Program, String) {
    let program = Program::start("the fleet server", serve(data, log), log);
    let url = eventually("it listens", Duration::from_secs(10), || {
        let text = fs::read_to_string(log).ok()?;
        let url = text.split("url=").nth(1)?.split_whitespace().next()?.to_owned();
        data.join("operator.token").exists().then_some(url)
    });
    (program, url)
}

/// How a server that does not start ends: its exit code and its last line.
fn refused(data: &Path, log: &Path) -> (Option<i32>, String) {
    let output = serve(data, log).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said.lines().last().unwrap_or_default().to_owned())
}

fn cli(data: &Path, url: &str, words: &[&str]) -> String {
    let mut command = Program::cotter();
    command.args(words).env("COTTER_FLEET_URL", url).env("COTTER_TOKEN_FILE", data.join("operator.token"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The environment of a release is in the database: no other user reads it, whatever the folder was before.
#[test]
fn other_users_cannot_read_the_records_of_a_fleet_server() {
    let dir = folder();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    fs::create_dir(&data).unwrap();
    set(&data, 0o755);
    let (server, url) = served(&data, &log);
    cli(&data, &url, &["fleet", "create", "lab"]);
    let image = format!("127.0.0.1:5000/a@sha256:{}", "a".repeat(64));
    let services = json!({ "services": { "web": { "image": image, "environment": { "TOKEN": SECRET } } } });
    fs::write(dir.path().join("compose.yml"), services.to_string()).unwrap();
    let file = dir.path().join("compose.yml");
    cli(&data, &url, &["release", "create", "lab", "--file", file.to_str().unwrap()]);
    assert_private(&data);
    let said = server.log();
    assert!(said.contains("other users had access to the data folder; it is private now"), "{said}");
    assert!(said.contains("mode=\"755\""), "{said}");
    drop(server);

    // As an older version left it.
    for path in all(&data).iter().filter(|path| !path.ends_with("operator.token")) {
        set(path, if path.is_dir() { 0o755 } else { 0o644 });
    }
    let holds = |path: &Path| fs::read(path).unwrap().windows(SECRET.len()).any(|w| w == SECRET.as_bytes());
    assert!(all(&data).iter().any(|path| path.is_file() && holds(path)), "the secret is in there");
    if let Some(could) = may_others_see(&data.join("records")) {
        assert!(could, "this is how it was");
    }
    let (server, _) = served(&data, &log);
    assert_private(&data);
    for path in all(&data) {
        if let Some(may) = may_others_see(&path) {
            assert!(!may, "another user can read {}", path.display());
        }
    }
    drop(server);
}

/// What only a person can mend is an error with a remedy, and nothing is served.
#[test]
fn a_data_folder_that_others_could_change_is_refused() {
    let dir = folder();
    let above = dir.path().join("above");
    let (data, log) = (above.join("data"), dir.path().join("log"));
    fs::create_dir(&above).unwrap();
    let (server, _) = served(&data, &log);
    drop(server);
    let answer = |expected: &str| {
        let (code, said) = refused(&data, &log);
        let said = said.replace(dir.path().to_str().unwrap(), "DIR");
        assert!(code == Some(75) && said.contains(expected), "{code:?} {said}");
        assert!(said.starts_with("error: ") && said.lines().count() == 1, "{said}");
    };

    set(&above, 0o777);
    answer(
        "cannot use the data folder DIR/above/data; correct that, or name another one with --data-dir: other users can write to \
         DIR/above, which is above it (mode 777), and replace it; `chmod go-w DIR/above`",
    );
    set(&above, 0o755);
    symlink("/etc", data.join("link")).unwrap();
    answer("DIR/above/data/link is a link or not a regular file");
    fs::remove_file(data.join("link")).unwrap();
    set(&data.join("operator.token"), 0o644);
    answer("other users can read it (mode 644); chmod 600 it, or delete it for a new token");
    set(&data.join("operator.token"), 0o600);

    if chown(data.join("store"), Some(NOBODY), None).is_err() {
        println!("skipped: not root, so that nothing can belong to another user");
        return;
    }
    answer(
        "DIR/above/data/store belongs to user 65534, but this process runs as user 0; `chown -R` it, or run as user 65534",
    );
    chown(data.join("store"), Some(0), None).unwrap();
    chown(&data, Some(NOBODY), None).unwrap();
    answer("DIR/above/data belongs to user 65534");
    chown(&data, Some(0), None).unwrap();
    chown(&above, Some(NOBODY), None).unwrap();
    answer(
        "DIR/above on its path belongs to user 65534, who can replace the folder; `chown root` it, or use another folder",
    );
    chown(&above, Some(0), None).unwrap();
    set(&above, 0o775);
    chown(&above, None, Some(NOBODY)).unwrap();
    answer("other users can write to DIR/above, which is above it (mode 775)");
    chown(&above, None, Some(0)).unwrap();

    // A link that root or we made is followed, as systemd's for a dynamic user; one of another user is not.
    let link = dir.path().join("link");
    symlink(&data, &link).unwrap();
    drop(served(&link, &log));
    lchown(&link, Some(NOBODY), None).unwrap();
    let (code, said) = refused(&link, &log);
    assert!(code == Some(75) && said.contains("link on its path belongs to user 65534"), "{code:?} {said}");
    drop(served(&data, &log));
}

/// An agent without engine and cloud: only its memory matters here.
fn agent(dir: &Path, state: &Path) -> Command {
    let settings = format!(
        "state_dir = \"{}\"\nruntime_dir = \"{1}/run\"\n[engine]\nsocket = \"{1}/none.sock\"\n",
        state.display(),
        dir.display()
    );
    fs::write(dir.join("agent.toml"), settings).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "umask 022; exec \"$0\" \"$@\""]).arg(Program::binary());
    command.args(["agent", "--config"]).arg(dir.join("agent.toml")).env_clear();
    command
}

#[test]
fn other_users_cannot_read_the_store_of_an_agent() {
    let dir = folder();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    for before in [0o755, 0o777] {
        set(&state, before);
        let log = dir.path().join(format!("log-{before:o}"));
        let program = Program::start("the agent", agent(dir.path(), &state), &log);
        eventually("it has a memory", Duration::from_secs(20), || {
            fs::read_to_string(&log).ok()?.contains("agent started").then_some(())
        });
        assert_private(&state);
        for path in all(&state) {
            if let Some(may) = may_others_see(&path) {
                assert!(!may, "another user can read {}", path.display());
            }
        }
        let said = program.log();
        let expected = "other users had access to the state folder; it is private now";
        assert!(said.contains(expected) && said.contains(&format!("{before:o}")), "{said}");
        drop(program);
        // As an older version left it.
        for path in all(&state) {
            set(&path, if path.is_dir() { 0o755 } else { 0o644 });
        }
    }

    if chown(&state, Some(NOBODY), None).is_err() {
        return;
    }
    let output = agent(dir.path(), &state).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("belongs to another user: `chown -R` it"), "{said}");
}
