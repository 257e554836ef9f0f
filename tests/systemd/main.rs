//! The packages and their units as they are shipped, under a real systemd: `make test-systemd`.
//!
//! A small Debian is made in `.systemd/` once, and booted in a container that shares this machine's network and engine.
//! The packages are installed in it, and the units of fleet server and agent run with all their hardening. The parts run
//! in order, because each continues with the state of the one before. Whatever happens to the agent, the app's container
//! keeps its start time.
//!
//! Needs root, debootstrap, systemd-nspawn and nsenter (`scripts/test-systemd.sh` installs them), and a machine without an
//! agent in `/run/cotter`. Without them it is skipped with a line that says why; with `COTTER_SKIP_NOTHING=1` it fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, says what it has checked, and reads the real clock"
)]

mod device;
mod installed;
mod machine;
mod packages;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use device::Device;
use machine::{AGENT, LockSpace, Machine};
use packages::{Packages, VERSION};
use support::Lab;

/// Prints lines with the time since the begin.
struct Log(Instant);

impl Log {
    fn checked(&self, what: &str) {
        println!("[{:3} s] {what}", self.0.elapsed().as_secs());
    }
}

/// Why this machine cannot run the test; `None` if it can.
fn obstacle() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !status.lines().any(|line| line.starts_with("Uid:") && line.ends_with("\t0")) {
        return Some("a system is booted here, which needs root".to_owned());
    }
    if Path::new("/run/cotter").exists() {
        return Some(
            "/run/cotter exists: an agent of this machine uses it, and the test needs it".to_owned(),
        );
    }
    let is_missing = |program: &&&str| Command::new(program).arg("--version").output().is_err();
    let missing =
        ["debootstrap", "systemd-nspawn", "nsenter", "strip", "dpkg-deb", "apt-ftparchive", "gpg", "curl"];
    let missing = missing.iter().find(is_missing)?;
    Some(format!("{missing} is not installed; scripts/test-systemd.sh installs what is missing"))
}

#[test]
fn the_packages_and_their_units_work_under_systemd() {
    if let Some(why) = obstacle() {
        assert!(std::env::var_os("COTTER_SKIP_NOTHING").is_none(), "{why}");
        println!("skipped: the units under a real systemd: {why}");
        return;
    }
    let work = Path::new(env!("CARGO_MANIFEST_DIR")).join(".systemd");
    let Some(root) = machine::debian(&work) else { return };
    let log = Log(Instant::now());
    let lab = Lab::new("systemd");
    let packages = Packages::build(&work, &root);
    let _space = LockSpace::mount();
    let machine = Machine::boot(root, lab.docker(), &work.join("console.log"));
    log.checked("both packages are built, and the system is up");
    installed::as_the_page_says(&machine, &work, &log);
    the_package_of_both_is_split(&machine, &packages, &log);
    packages_are_installed(&machine, &packages, &log);
    lock_folders_have_a_file_system(&machine, &log);
    let mut device = Device::start(&lab, &machine, &log);
    device.under_the_hardening(&work, &log);
    device.obeys_locks(&work, &log);
    device.survives_its_agent(&log);
    device.is_started_by_sockets(&log);
    device.empties_its_key(&log);
    device.has_a_neighbour(&log);
    device.is_upgraded(&packages, &log);
    device.is_recovered(&log);
    device.has_its_certificate_as_a_credential(&log);
    device.writes_a_journal(&log);
    device.is_removed(&log);
}

/// The unit for instances is the agent's unit with the instance's name in its paths.
#[test]
fn the_unit_of_instances_is_that_of_the_agent() {
    let replaced = |line: &str| {
        if line.starts_with("Description=Cotter agent:") {
            return "Description=Cotter agent %i: keeps what is its own on this device on the release it should run"
                .to_owned();
        }
        let mut line = line.to_owned();
        if let Some(begin) = line.strip_suffix("/etc/cotter/agent.toml") {
            line = format!(
                "{begin}/etc/cotter/%i/agent.toml --set instance=%i --set state_dir=/var/lib/cotter-%i \
                 --set runtime_dir=/run/cotter-%i"
            );
        }
        if let Some(begin) = line.strip_suffix("=-/etc/cotter/provisioning.key") {
            line = format!("{begin}=-/etc/cotter/%i/provisioning.key");
        }
        if ["StateDirectory=cotter", "RuntimeDirectory=cotter"].contains(&line.as_str()) {
            line += "-%i";
        }
        // The units of the VPN are those of one agent.
        line.replacen("run-cotter-services", "run-cotter\\x2d%i-services", 1).replacen(
            " cotter-vpn.path",
            "",
            1,
        )
    };
    let agent = fs::read_to_string("systemd/cotter-agent.service").unwrap();
    let expected: Vec<String> = agent.lines().map(replaced).collect();
    let instances = fs::read_to_string("systemd/cotter-agent@.service").unwrap();
    assert_eq!(instances.lines().collect::<Vec<_>>(), expected);
}

fn the_package_of_both_is_split(machine: &Machine, packages: &Packages, log: &Log) {
    packages.install(machine, "0.1.0", &["cotter"]);
    let settings = machine.file("etc/cotter/fleet.toml");
    let own = fs::read_to_string(&settings).unwrap() + "# a line of the owner\n";
    fs::write(&settings, own).unwrap();
    let beside = packages.try_install(machine, VERSION, &["cotter-fleet"]);
    assert!(
        beside.is_err(),
        "the fleet server was installed in addition to the package that has it: {beside:?}"
    );
    packages.install(machine, VERSION, &["cotter", "cotter-fleet"]);
    let kept = fs::read_to_string(&settings).unwrap();
    assert!(kept.contains("a line of the owner"), "the split replaced the settings of the server's owner");
    for file in ["/etc/cotter/fleet.toml", "/usr/lib/systemd/system/cotter-fleet.service"] {
        let owner = machine.run(&["dpkg", "--search", file]);
        assert_eq!(owner.split(':').next(), Some("cotter-fleet"), "{file}");
    }
    machine.run(&["dpkg", "--purge", "cotter", "cotter-fleet"]);
    log.checked("the package of both becomes two, and the settings of the server stay");
}

fn packages_are_installed(machine: &Machine, packages: &Packages, log: &Log) {
    let said = packages.install(machine, VERSION, &["cotter", "cotter-fleet"]);
    assert!(
        said.contains("set its cloud in /etc/cotter/agent.toml"),
        "the package does not say what to do: {said}"
    );
    machine.run(&["systemctl", "is-enabled", "--quiet", AGENT]);
    assert_eq!(machine.unit("ActiveState"), "inactive", "an agent without a cloud was started");
    assert!(!machine.succeeds(&["systemctl", "is-enabled", "--quiet", "cotter-fleet.service"]));
    assert!(!machine.succeeds(&["systemctl", "is-enabled", "--quiet", "cotter-fleet-backup.timer"]));
    machine.run(&["getent", "group", "cotter"]);
    for (page, text) in [("man1/cotter-status.1.gz", "cotter status"), ("man8/cotter-fleet.8.gz", "serve")] {
        let file = machine.file(&format!("usr/share/man/{page}")).display().to_string();
        assert!(machine::run("gzip", &["-dc", &file]).contains(text), "{page}");
    }
    log.checked("installed: the agent is enabled and, without a cloud, not started");
    machine.run(&["systemctl", "is-enabled", "--quiet", "run-cotter-services.mount"]);
    let units = [
        AGENT,
        "cotter-agent@.service",
        "cotter-fleet.service",
        "cotter-fleet-backup.service",
        "cotter-fleet-backup.timer",
        "cotter-agent.socket",
        "cotter-agent-control.socket",
        "run-cotter-services.mount",
        "cotter-vpn.path",
    ];
    let units = units.map(|unit| format!("/usr/lib/systemd/system/{unit}"));
    let mut words = vec!["systemd-analyze", "verify", "--man=no"];
    words.extend(units.iter().map(String::as_str));
    let verified = machine.try_run(&words);
    let complaints = machine::text(&verified);
    assert!(
        verified.status.success() && complaints.trim().is_empty(),
        "systemd-analyze verify: {complaints}"
    );
}

/// As docs/systemd.md says for another agent.
fn lock_folders_have_a_file_system(machine: &Machine, log: &Log) {
    let docs = fs::read_to_string("docs/systemd.md").unwrap();
    let is_recipe = |line: &&str| line.starts_with("    sed ") && line.contains("run-cotter-services.mount");
    let recipe =
        docs.lines().find(is_recipe).expect("docs/systemd.md says how another agent gets a file system");
    machine.run(&["sh", "-c", &recipe.trim().replace("NAME", "lab")]);
    machine.run(&["systemctl", "daemon-reload"]);
    let unit = "run-cotter\\x2dlab-services.mount";
    machine.run(&["systemctl", "start", unit]);
    let columns = ["--noheadings", "--output", "FSTYPE,OPTIONS"];
    let mounted = machine.run(&[&["findmnt"], &columns[..], &["/run/cotter-lab/services"]].concat());
    for option in ["tmpfs", "nosuid", "nodev", "noexec", "size=4096k", "nr_inodes=2048", "mode=700"] {
        assert!(mounted.contains(option), "its file system has no {option}: {mounted}");
    }
    machine.run(&["systemctl", "stop", unit]);
    machine.run(&["mkdir", "-p", "/run/cotter-lab/services/7/web"]);
    machine.run(&["systemctl", "start", unit]);
    assert!(
        !machine.succeeds(&["mountpoint", "-q", "/run/cotter-lab/services"]),
        "it was mounted over folders that are in use"
    );
    machine.run(&["rm", "-r", "/run/cotter-lab", &format!("/etc/systemd/system/{unit}")]);
    machine.run(&["systemctl", "daemon-reload"]);
    log.checked("the lock folders have a file system of 4 MiB, and none is mounted over those in use");
}
