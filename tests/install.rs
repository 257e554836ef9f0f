//! `packaging/install.sh` on machines that it must refuse, and with files that it must refuse. `apt-get` is a program of
//! the test that notes how it was called. tests/systemd installs real packages with the script.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

/// A release with packages that are none, and a machine whose programs are the test's.
struct Place {
    folder: tempfile::TempDir,
    url: Option<String>,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap(), url: None };
        for folder in ["bin", "release"] {
            fs::create_dir(place.path(folder)).unwrap();
        }
        place.program("apt-get", "echo \"apt-get $*\" >>\"$CALLS\"");
        place.program("id", "echo 0");
        place.program("uname", "echo aarch64");
        place.program("dpkg", "[ \"$1\" = --print-architecture ] || exec /usr/bin/dpkg \"$@\"; echo arm64");
        place.system("debian", "12");
        for name in ["cotter_1.2.0_arm64.deb", "cotter_1.2.0_amd64.deb", "cotter-fleet_1.2.0_arm64.deb"] {
            fs::write(place.path("release").join(name), name).unwrap();
        }
        let sums = Command::new("sh")
            .args(["-c", "cd \"$0\" && sha256sum *.deb >SHA256SUMS"])
            .arg(place.path("release"))
            .status();
        assert!(sums.unwrap().success());
        Self { url: Some(format!("file://{}", place.path("release").display())), ..place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, lines: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn system(&self, id: &str, version: &str) {
        let version = if version.is_empty() { String::new() } else { format!("VERSION_ID=\"{version}\"\n") };
        fs::write(self.path("os-release"), format!("PRETTY_NAME=\"A System\"\nID={id}\n{version}")).unwrap();
    }

    /// Runs a script: whether it succeeded, what it said, and how it called apt-get.
    fn run_script(&self, script: &str, words: &[&str]) -> (bool, String, String) {
        let file = self.path("install.sh");
        fs::write(&file, script).unwrap();
        let _none_yet = fs::remove_file(self.path("calls"));
        let mut command = Command::new("sh");
        command.env_clear().env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()));
        command.env("CALLS", self.path("calls")).env("OS_RELEASE", self.path("os-release"));
        command.envs(self.url.iter().map(|url| ("COTTER_URL", url)));
        let out = command.arg(file).args(words).output().unwrap();
        let said = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
        (out.status.success(), said, fs::read_to_string(self.path("calls")).unwrap_or_default())
    }

    fn run(&self, words: &[&str]) -> (bool, String, String) {
        self.run_script(&fs::read_to_string("packaging/install.sh").unwrap(), words)
    }

    /// Asserts that the script refuses to go on, names `why`, and installs nothing.
    #[track_caller]
    fn refuses(&self, why: &str) {
        let (succeeded, said, calls) = self.run(&[]);
        let last = said.lines().last().unwrap_or_default();
        assert!(!succeeded && last.starts_with("error: ") && last.contains(why), "{said}");
        assert_eq!(calls, "", "{said}");
    }
}

#[test]
fn the_package_of_this_machine_is_installed() {
    let place = Place::new();
    for (words, package) in
        [(&[][..], "cotter_1.2.0_arm64.deb"), (&["--server"], "cotter-fleet_1.2.0_arm64.deb")]
    {
        let (succeeded, said, calls) = place.run(words);
        assert!(succeeded && calls.lines().count() == 1, "{said}{calls}");
        assert!(
            calls.starts_with("apt-get install --yes ") && calls.ends_with(&format!("/{package}\n")),
            "{calls}"
        );
        let (succeeded, said, calls) = place.run(&[words, &["--dry-run"]].concat());
        assert!(succeeded && said.contains(package) && calls.is_empty(), "{said}{calls}");
    }
    for (id, version) in [("debian", ""), ("debian", "13"), ("raspbian", "12"), ("ubuntu", "22.04")] {
        place.system(id, version);
        let (succeeded, said, _) = place.run(&[]);
        assert!(succeeded, "{id} {version}: {said}");
    }
}

#[test]
fn a_file_that_is_not_the_one_of_the_release_is_not_installed() {
    let place = Place::new();
    fs::write(place.path("release/cotter_1.2.0_arm64.deb"), "another").unwrap();
    place.refuses("cotter_1.2.0_arm64.deb is not the file that SHA256SUMS names");
    fs::remove_file(place.path("release/cotter_1.2.0_arm64.deb")).unwrap();
    place.refuses("is COTTER_URL right?");

    let sums = |text: String| fs::write(place.path("release/SHA256SUMS"), text).unwrap();
    let digest = "a".repeat(64);
    sums(format!("{digest}  cotter_1.2.0_amd64.deb\n{digest}  ../cotter_1.2.0_arm64.deb\n"));
    place.refuses("has no package cotter for arm64");
    sums(format!("{digest}  cotter_1.2.0_arm64.deb\n{digest}  cotter_1.3.0_arm64.deb\n"));
    place.refuses("several packages cotter for arm64");
}

#[test]
fn a_machine_without_a_package_is_refused() {
    let mut place = Place::new();
    for (id, version, why) in [
        ("debian", "11", "A System is too old: Debian 12"),
        ("ubuntu", "20.04", "A System is too old: Ubuntu 22.04"),
        ("alpine", "3.20", "it is not known whether the package runs on A System"),
    ] {
        place.system(id, version);
        place.refuses(why);
    }
    place.system("debian", "12");
    place.program("uname", "echo armv6l");
    place.refuses("ARMv6");
    place.program("uname", "echo riscv64");
    place.program("dpkg", "echo riscv64");
    place.refuses("there is no package for riscv64");
    place.program("dpkg", "echo arm64");
    place.program("id", "echo 1000");
    place.refuses("run this with sudo, or as root");
    for (url, why) in [
        (Some("http://downloads.example.com/1"), "over http:// anyone on the way can change the files"),
        (Some("downloads.example.com"), "it begins with https:// or file:///"),
        (None, "COTTER_URL is not set"),
    ] {
        place.url = url.map(str::to_owned);
        place.refuses(why);
    }
}

/// What a shell gets when a download is cut off, at each place of the script.
#[test]
fn a_part_of_the_script_does_nothing() {
    let place = Place::new();
    let script = fs::read_to_string("packaging/install.sh").unwrap();
    let script = script.trim_end();
    let last = script.rfind('\n').unwrap();
    let somewhere = (0..last).step_by(150);
    for end in somewhere.chain(last..script.len()) {
        let (_, said, calls) = place.run_script(&script[..end], &[]);
        assert!(calls.is_empty() && !said.contains("This machine is"), "cut off after {end} bytes: {said}");
    }
    assert!(place.run_script(script, &[]).0);
}

#[test]
fn a_tag_names_the_version_that_is_released() {
    let check = |tag: &str| {
        let out = Command::new("scripts/release.sh").args(["--check-tag", tag]).output().unwrap();
        (out.status.success(), String::from_utf8(out.stderr).unwrap())
    };
    let tag = concat!("v", env!("CARGO_PKG_VERSION"));
    assert_eq!(check(tag), (true, String::new()));
    let (succeeded, said) = check("v9.9.9");
    assert!(!succeeded && said.contains("the tag is v9.9.9") && said.contains(tag), "{said}");
}

/// What `make release` makes of packages, twice.
#[test]
fn the_same_packages_give_the_same_repository_and_checksums() {
    let folder = tempfile::tempdir().unwrap();
    let run = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        let out = command.args(words).current_dir(env!("CARGO_MANIFEST_DIR")).output();
        let out = out.unwrap_or_else(|e| panic!("{program} does not run: {e}"));
        assert!(out.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    let tree = folder.path().join("tree");
    fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    let control =
        "Package: cotter\nVersion: 1.2.0\nArchitecture: arm64\nMaintainer: test\nDescription: test\n";
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    let made = ["one", "two"].map(|name| {
        let dist = folder.path().join(name);
        fs::create_dir(&dist).unwrap();
        let package = dist.join("cotter_1.2.0_arm64.deb");
        let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        run("env", &["SOURCE_DATE_EPOCH=1", "dpkg-deb", "--build", &text(&tree), &text(&package)]);
        let said = run("env", &["-u", "COTTER_SIGNING_KEY", "scripts/release.sh", "--finish", &text(&dist)]);
        assert!(said.contains("unsigned"), "{said}");
        let read = |name: &str| fs::read_to_string(dist.join(name)).unwrap();
        let packages = read("apt/dists/stable/main/binary-arm64/Packages");
        assert!(packages.contains("Filename: pool/main/c/cotter/cotter_1.2.0_arm64.deb"), "{packages}");
        (read("SHA256SUMS"), read("apt/dists/stable/Release"))
    });
    let (sums, release) = &made[0];
    let names: Vec<_> = sums.lines().filter_map(|line| line.split_once("  ")).map(|(_, name)| name).collect();
    assert_eq!(names, ["apt.tar.gz", "cotter_1.2.0_arm64.deb", "install.sh"]);
    assert!(release.contains("Architectures: arm64\n") && release.contains("SHA256:"), "{release}");
    assert_eq!(made[0], made[1]);
}
