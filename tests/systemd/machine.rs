//! A small Debian with systemd in a container of systemd-nspawn. It shares this machine's network, engine and
//! `/run/cotter`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::support::{Docker, eventually};

/// The agent's unit.
pub(crate) const AGENT: &str = "cotter-agent.service";

/// A command without any setting of Cotter from this process's environment.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("COTTER_")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// The output of a command, standard output and error.
pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a command and returns its standard output.
///
/// # Panics
///
/// If it fails.
#[track_caller]
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output =
        command(program).args(args).output().unwrap_or_else(|e| panic!("{program} does not run: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// The folder of a small Debian, made once by debootstrap, without the remains of an earlier run and without a repository
/// that needs a network. `None`, with a line that says why, if it cannot be made.
pub(crate) fn debian(work: &Path) -> Option<PathBuf> {
    let (root, made) = (work.join("rootfs"), work.join("made"));
    let path = root.display().to_string();
    // It is made anew when something else is needed in it.
    let include = "--include=systemd,systemd-sysv,dbus,ca-certificates,curl";
    if fs::read_to_string(&made).ok().as_deref() != Some(include) {
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(work).unwrap();
        println!("making a small Debian, once");
        let made_it = command("debootstrap").args(["--variant=minbase", include, "bookworm", &path]).output();
        let made_it = made_it.expect("debootstrap is installed");
        if !made_it.status.success() {
            let said = text(&made_it);
            assert!(
                std::env::var_os("COTTER_SKIP_NOTHING").is_none(),
                "no Debian can be made to boot: {said}"
            );
            println!("skipped: no Debian can be made to boot ({})", said.lines().last().unwrap_or_default());
            return None;
        }
        fs::write(&made, include).unwrap();
    }
    let _ = command("chroot").args([&path, "dpkg", "--purge", "cotter", "cotter-fleet"]).output();
    run(
        "sh",
        &[
            "-c",
            "cd \"$0\" && rm -rf etc/cotter var/lib/cotter* var/lib/private/cotter* etc/systemd/system/cotter-* \
         etc/credstore/cotter.* var/log/journal root/bundle.tar srv/dist srv/page etc/apt/sources.list.d/cotter.list \
         etc/apt/keyrings/cotter.asc etc/apt/sources.list",
            &path,
        ],
    );
    Some(root)
}

/// The machine. It ends with its value.
pub(crate) struct Machine {
    nspawn: Child,
    init: String,
    pub(crate) root: PathBuf,
}

impl Machine {
    /// Boots the system in `root`, and waits until it is up.
    pub(crate) fn boot(root: PathBuf, docker: &Docker, console: &Path) -> Self {
        let log = fs::File::create(console).unwrap();
        let mut nspawn = command("systemd-nspawn");
        nspawn.args(["--quiet", "--boot", "--register=no", "--keep-unit", "--bind=/run/cotter"]);
        nspawn.arg(format!("--directory={}", root.display()));
        nspawn.arg(format!("--bind={}:/run/engine.sock", docker.socket().display()));
        let nspawn =
            nspawn.stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("systemd-nspawn runs");
        let mut machine = Self { nspawn, init: String::new(), root };
        eventually("the system boots", Duration::from_secs(30), || {
            let parent = machine.nspawn.id().to_string();
            let found = command("pgrep").args(["-P", &parent, "-x", "systemd"]).output().ok()?;
            machine.init = String::from_utf8_lossy(&found.stdout).trim().to_owned();
            if machine.init.is_empty() {
                return None;
            }
            let state = text(&machine.try_run(&["systemctl", "is-system-running"]));
            (state.contains("running") || state.contains("degraded")).then_some(())
        });
        machine
    }

    /// Runs a command inside, whatever comes of it.
    pub(crate) fn try_run(&self, words: &[&str]) -> Output {
        let mut inside = command("nsenter");
        inside.args(["-t", &self.init, "-m", "-p", "-i", "-u", "--"]).args(words);
        inside.output().expect("nsenter runs")
    }

    pub(crate) fn succeeds(&self, words: &[&str]) -> bool {
        self.try_run(words).status.success()
    }

    /// Runs a command inside and returns its standard output.
    ///
    /// # Panics
    ///
    /// If it fails.
    #[track_caller]
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let output = self.try_run(words);
        assert!(output.status.success(), "{words:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// As [`run`](Self::run), with standard error in the result.
    #[track_caller]
    pub(crate) fn run_with_errors(&self, words: &[&str]) -> String {
        let output = self.try_run(words);
        assert!(output.status.success(), "{words:?}: {}", text(&output));
        text(&output)
    }

    /// A property of the agent's unit.
    pub(crate) fn unit(&self, property: &str) -> String {
        self.run(&["systemctl", "show", "-P", property, AGENT])
    }

    /// The journal of the agent's unit, with more arguments for journalctl.
    pub(crate) fn journal(&self, args: &[&str]) -> String {
        let mut words = vec!["journalctl", "--no-pager", "-u", AGENT];
        words.extend(args);
        String::from_utf8_lossy(&self.try_run(&words).stdout).into_owned()
    }

    /// A file of the machine.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let file = self.file(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }

    /// Adds settings to a unit.
    pub(crate) fn drop_in(&self, unit: &str, lines: &str) {
        self.write(&format!("etc/systemd/system/{unit}.d/test.conf"), &format!("[Service]\n{lines}\n"));
        self.run(&["systemctl", "daemon-reload"]);
    }

    /// Asserts that systemd-analyze finds a unit well protected.
    #[track_caller]
    pub(crate) fn assert_secure(&self, unit: &str) -> f64 {
        let report = self.run(&["systemd-analyze", "security", "--no-pager", unit]);
        let line = report.lines().find(|line| line.contains("exposure level for")).unwrap_or_default();
        let score = line.rsplit(": ").next().and_then(|rest| rest.split_whitespace().next());
        let score: f64 = score.and_then(|score| score.parse().ok()).unwrap_or(10.0);
        assert!(score <= 2.0, "systemd-analyze security says {score} of {unit}");
        score
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.init.is_empty() {
            let journal = self.try_run(&["journalctl", "--no-pager", "-n", "40"]);
            eprintln!("--- the last lines of its journal:\n{}", text(&journal));
        }
        // It powers off. Both fail only when it has ended already.
        if self.init.is_empty() {
            let _ = self.nspawn.kill();
        } else {
            let _ = command("kill").args(["-RTMIN+4", &self.init]).output();
        }
        let _ = self.nspawn.wait();
    }
}

/// The file system of the lock folders. The engine is this machine's, so what it mounts must have the same path here and
/// in the container. What the mount unit would make is made here, because the engine would not see it.
pub(crate) struct LockSpace;

impl LockSpace {
    pub(crate) fn mount() -> Self {
        let unit = fs::read_to_string("systemd/run-cotter-services.mount").unwrap();
        let options = unit.lines().find_map(|line| line.strip_prefix("Options=")).unwrap();
        fs::create_dir_all("/run/cotter/services").unwrap();
        let space = Self;
        run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", "/run/cotter/services"]);
        space
    }
}

impl Drop for LockSpace {
    fn drop(&mut self) {
        let _ = command("umount").arg("/run/cotter/services").output();
        let _ = fs::remove_dir_all("/run/cotter");
    }
}
