//! The lines of docs/install.md, run in the machine: from a signed apt repository, by install.sh, by hand, and the static
//! binary. Only the address of the release and the architecture are this test's.

use std::fs;
use std::path::Path;

use crate::Log;
use crate::machine::{Machine, command, run, text};
use crate::packages::VERSION;

const URL: &str = "file:///srv/dist";

/// The lines of each section of the page that has some, by its heading.
fn lines_of(page: &str, heading: &str, architecture: &str) -> String {
    let section = page.split("\n## ").find_map(|section| section.strip_prefix(&format!("{heading}\n")));
    let section = section.unwrap_or_else(|| panic!("docs/install.md has no section {heading}"));
    let block = section.split("```sh\n").nth(1).and_then(|rest| rest.split_once("```"));
    let (lines, _) = block.unwrap_or_else(|| panic!("docs/install.md has no lines in {heading}"));
    // A pager would wait for a person.
    lines.replace("amd64", architecture).replace("\nless ", "\ncat ")
}

/// Makes a release of this build in the machine, signed with a key of this test.
fn release(machine: &Machine, work: &Path, architecture: &str) {
    let dist = machine.file("srv/dist");
    fs::create_dir_all(&dist).unwrap();
    for name in ["cotter", "cotter-fleet"] {
        let package = format!("{name}_{VERSION}_{architecture}.deb");
        fs::copy(machine.file("root").join(&package), dist.join(&package)).unwrap();
    }
    let dist = dist.display().to_string();
    let [agent, server] = ["cotter", "cotter-fleet"].map(|name| work.join(name).display().to_string());

    let keys = work.join("gnupg");
    let _ = fs::remove_dir_all(&keys);
    fs::create_dir_all(&keys).unwrap();
    run("chmod", &["700", &keys.display().to_string()]);
    let with_keys = |program: &str, words: &[&str]| {
        let mut command = command(program);
        command
            .env("ARCHIVE_LEVEL", "1")
            .env("GNUPGHOME", &keys)
            .env("COTTER_SIGNING_KEY", "releases@example.com")
            .args(words);
        let out = command.output().unwrap_or_else(|e| panic!("{program} does not run: {e}"));
        assert!(out.status.success(), "{program} {words:?}: {}", text(&out));
    };
    let user = "Cotter releases <releases@example.com>";
    with_keys(
        "gpg",
        &["--batch", "--quiet", "--passphrase", "", "--quick-generate-key", user, "ed25519", "sign", "never"],
    );
    with_keys("scripts/release.sh", &["--archive", &agent, &server, architecture, &dist]);
    with_keys("scripts/release.sh", &["--finish", &dist]);
    with_keys("gpg", &["--verify", &format!("{dist}/SHA256SUMS.asc"), &format!("{dist}/SHA256SUMS")]);
    with_keys("gpgconf", &["--kill", "gpg-agent"]);
}

/// Installs Cotter as docs/install.md says, in every way, and removes it each time.
pub(crate) fn as_the_page_says(machine: &Machine, work: &Path, log: &Log) {
    let architecture = run("dpkg", &["--print-architecture"]);
    release(machine, work, &architecture);
    log.checked("a signed release is made of them");
    let page = fs::read_to_string("docs/install.md").unwrap();
    assert!(page.contains(VERSION), "docs/install.md shows another version than {VERSION}");
    let lines = |heading: &str| {
        let script = format!(
            "set -eux; cd /srv/page; export COTTER_URL={URL}\n{}",
            lines_of(&page, heading, &architecture)
        );
        machine.run(&["mkdir", "-p", "/srv/page"]);
        let said = machine.run_with_errors(&["sh", "-c", &script]);
        machine.run(&["rm", "-r", "/srv/page"]);
        said
    };
    let is_installed = |name: &str| {
        let query = ["dpkg-query", "--show", "--showformat=${Version} ${db:Status-Abbrev}", name];
        String::from_utf8_lossy(&machine.try_run(&query).stdout).starts_with(&format!("{VERSION} ii"))
    };
    let purge = |name: &str| {
        assert!(is_installed(name), "{name} is not installed");
        machine.run(&["dpkg", "--purge", name]);
    };

    lines("From the apt repository");
    purge("cotter");
    machine.run(&["rm", "/etc/apt/sources.list.d/cotter.list", "/etc/apt/keyrings/cotter.asc"]);

    let said = lines("With install.sh");
    let (dry, installed) = said.split_once("Nothing was changed (--dry-run).").expect("a dry run is first");
    assert!(!dry.contains("Unpacking") && installed.contains("Unpacking cotter"), "{said}");
    purge("cotter");
    let server = format!("COTTER_URL={URL} sh /srv/dist/install.sh --server");
    machine.run(&["sh", "-c", &server]);
    assert!(!is_installed("cotter"));
    purge("cotter-fleet");

    lines("One package by hand");
    assert!(is_installed("cotter"));
    lines("Remove");
    machine.run(&["dpkg", "--purge", "cotter"]);

    let said = lines("The static binary");
    assert!(said.contains(&format!("cotter {VERSION}")), "{said}");
    machine.run(&["rm", "/usr/local/bin/cotter"]);
    log.checked(
        "docs/install.md: apt repository, install.sh, a package by hand and the static binary install it",
    );
}
