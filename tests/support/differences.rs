//! What another engine is known to do otherwise: rows of docs/engines.md, each met or the test fails.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use super::Podman;

/// The rows of one table, and which of them were met.
#[derive(Debug)]
pub struct Differences {
    listed: BTreeSet<String>,
    met: Mutex<BTreeSet<String>>,
    wrong: Mutex<Vec<String>>,
    /// The table is of this version.
    is_binding: bool,
}

impl Differences {
    /// The first column of the table below `title` in docs/engines.md, which binds podman 4.3 only: what another
    /// version does otherwise is printed.
    #[track_caller]
    pub fn listed(title: &str, podman: &Podman) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/engines.md");
        let text = fs::read_to_string(file).expect("docs/engines.md");
        let (_, after) =
            text.split_once(&format!("## {title}\n")).unwrap_or_else(|| panic!("no title {title:?}"));
        let table = after.split("\n## ").next().unwrap_or_default();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
        let listed = rows.skip(2).map(str::to_owned).collect();
        let is_binding = podman.version().starts_with("4.3.");
        Self { listed, met: Mutex::default(), wrong: Mutex::default(), is_binding }
    }

    /// Notes whether `what` is as with Docker. What is listed must differ at least once, all else never.
    #[track_caller]
    pub fn note(&self, what: &str, is_so: bool, seen: &str) {
        match (is_so, self.listed.contains(what)) {
            (true, _) => {}
            (false, true) => drop(self.met.lock().unwrap().insert(what.to_owned())),
            (false, false) => {
                self.wrong.lock().unwrap().push(format!("{what}: not so, and not listed: {seen}"))
            }
        }
    }

    /// Fails with all that was noted and is not as listed.
    #[track_caller]
    pub fn assert_as_listed(&self) {
        let mut wrong = self.wrong.lock().unwrap().clone();
        let met = self.met.lock().unwrap();
        wrong.extend(
            self.listed.difference(&met).map(|what| format!("{what}: listed, and it does not differ")),
        );
        assert!(wrong.is_empty() || !self.is_binding, "{}", wrong.join("\n"));
        for line in wrong {
            eprintln!("another version of podman than docs/engines.md has: {line}");
        }
    }
}
