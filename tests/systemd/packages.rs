//! Debian packages of the binaries of this build: two versions of each, and the one package that had both.

use std::fs;
use std::path::Path;

use crate::machine::{Machine, command, run, text};
use crate::support::Program;

/// The version of this build, whose packages are first installed.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The version to which they are upgraded.
pub(crate) const NEXT: &str = "1000.0.0";

/// Packages in the folder `/root` of the machine.
pub(crate) struct Packages {
    architecture: String,
}

impl Packages {
    pub(crate) fn build(work: &Path, root: &Path) -> Self {
        let architecture = run("dpkg", &["--print-architecture"]);
        let into = root.join("root").display().to_string();
        for (name, binary) in [("cotter", Program::binary()), ("cotter-fleet", Program::fleet_binary())] {
            // Stripped and not compressed: their size is not tested here.
            let stripped = work.join(name).display().to_string();
            run("strip", &["-o", &stripped, &binary.display().to_string()]);
            for version in [VERSION, NEXT] {
                let mut deb = command("scripts/deb.sh");
                deb.env("DEB_COMPRESSION", "none").args([
                    "--of",
                    name,
                    &stripped,
                    version,
                    &architecture,
                    &into,
                ]);
                let built = deb.output().expect("scripts/deb.sh runs");
                assert!(built.status.success(), "scripts/deb.sh: {}", text(&built));
            }
        }
        let packages = Self { architecture };
        packages.build_single(work, &into);
        packages
    }

    /// What the one package of both had until version 0.2.0, as far as it conflicts with the two of today.
    fn build_single(&self, work: &Path, into: &str) {
        let single = work.join("single");
        let _ = fs::remove_dir_all(&single);
        for (from, to) in [
            ("systemd/cotter-fleet.service", "usr/lib/systemd/system/cotter-fleet.service"),
            ("config/fleet.toml", "etc/cotter/fleet.toml"),
        ] {
            fs::create_dir_all(single.join(to).parent().unwrap()).unwrap();
            fs::copy(from, single.join(to)).unwrap();
        }
        fs::create_dir_all(single.join("DEBIAN")).unwrap();
        fs::write(single.join("DEBIAN/conffiles"), "/etc/cotter/fleet.toml\n").unwrap();
        let architecture = &self.architecture;
        let control = format!(
            "Package: cotter\nVersion: 0.1.0\nArchitecture: {architecture}\nMaintainer: test\nDescription: both\n"
        );
        fs::write(single.join("DEBIAN/control"), control).unwrap();
        let deb = format!("{into}/cotter_0.1.0_{architecture}.deb");
        run("dpkg-deb", &["--root-owner-group", "-Znone", "--build", &single.display().to_string(), &deb]);
    }

    /// Installs packages of a version. The error is what dpkg printed.
    pub(crate) fn try_install(
        &self,
        machine: &Machine,
        version: &str,
        names: &[&str],
    ) -> Result<String, String> {
        let files: Vec<String> =
            names.iter().map(|name| format!("/root/{name}_{version}_{}.deb", self.architecture)).collect();
        let mut words = vec!["env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--install"];
        words.extend(files.iter().map(String::as_str));
        let installed = machine.try_run(&words);
        if installed.status.success() { Ok(text(&installed)) } else { Err(text(&installed)) }
    }

    /// Installs packages of a version, and returns what dpkg printed.
    #[track_caller]
    pub(crate) fn install(&self, machine: &Machine, version: &str, names: &[&str]) -> String {
        let installed = self.try_install(machine, version, names);
        installed.unwrap_or_else(|said| panic!("{names:?} {version} cannot be installed: {said}"))
    }
}
