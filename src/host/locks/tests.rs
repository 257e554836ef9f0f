//! Real folders, in which apps may do anything.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::*;

const APP: u64 = 7;

struct Lab {
    dir: tempfile::TempDir,
    locks: Locks,
}

impl Lab {
    /// With folders of `web` and `db`.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::new(dir.path().join("services"));
        for service in ["web", "db"] {
            locks.prepare(APP, &named(service)).unwrap();
        }
        Self { dir, locks }
    }

    fn path(&self, service: &str, name: &str) -> PathBuf {
        self.dir.path().join("services/7").join(service).join(name)
    }

    fn foreign(&self, service: &str) -> Option<String> {
        self.locks.foreign(APP, &named(service)).map(|lock| lock.path)
    }

    /// The paths below the app's folder, sorted.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        for service in fs::read_dir(self.dir.path().join("services/7")).unwrap() {
            let service = service.unwrap();
            let name = service.file_name().into_string().unwrap();
            if !service.file_type().unwrap().is_dir() {
                found.push(name);
                continue;
            }
            for file in fs::read_dir(service.path()).unwrap() {
                found.push(format!("{name}/{}", file.unwrap().file_name().into_string().unwrap()));
            }
        }
        found.sort();
        found
    }
}

fn named(service: &str) -> ServiceName {
    ServiceName::parse(service).unwrap()
}

fn both() -> [ServiceName; 2] {
    [named("db"), named("web")]
}

const ALL: [&str; 4] =
    ["db/resin-updates.lock", "db/updates.lock", "web/resin-updates.lock", "web/updates.lock"];

/// Makes this thread root without any capability, as the agent is under systemd.
pub(in crate::host) fn without_capabilities() {
    let none = CapabilitySet::empty();
    let held = capabilities(None).unwrap();
    set_capabilities(None, CapabilitySets { effective: none, inheritable: none, ..held }).unwrap();
}

#[test]
fn every_user_in_the_container_may_write_and_only_root_on_the_host_has_access() {
    let lab = Lab::new();
    let mode = |path: &Path| mode(&fs::symlink_metadata(path).unwrap());
    let (root, web) = (lab.dir.path().join("services"), lab.path("web", ""));
    assert_eq!((mode(&root), mode(&web)), (0o700, 0o1777));
    // As the engine creates them if it starts a container before the agent does.
    for path in [&root, &web] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    lab.locks.prepare(APP, &named("web")).unwrap();
    assert_eq!((mode(&root), mode(&web)), (0o700, 0o1777));
    fs::write(lab.path("web", "x"), "").unwrap();
    lab.locks.prepare(APP, &named("web")).expect("again");
    assert_eq!(lab.files(), ["web/x"], "what is in it stays");
}

#[test]
fn a_file_in_the_place_of_a_folder_is_an_error() {
    let lab = Lab::new();
    let before = mode(&fs::metadata(lab.dir.path()).unwrap());
    fs::write(lab.dir.path().join("services/7/file"), "").unwrap();
    symlink(lab.dir.path(), lab.dir.path().join("services/7/link")).unwrap();
    for service in ["file", "link"] {
        let error = lab.locks.prepare(APP, &named(service)).unwrap_err();
        assert!(matches!(error, LockError::Unusable { .. }), "{error}");
        assert!(error.to_string().starts_with("lock folder "), "{error}");
    }
    let after = mode(&fs::metadata(lab.dir.path()).unwrap());
    assert_eq!(after, before, "what a link leads to is not opened to everybody");
}

#[test]
fn anything_with_the_name_of_a_lock_is_a_lock() {
    let lab = Lab::new();
    assert_eq!(lab.foreign("web"), None);
    assert_eq!(lab.foreign("never-made"), None);
    let secret = lab.dir.path().join("secret");
    fs::write(&secret, OURS).unwrap();
    for name in LOCKS {
        let path = lab.path("web", name);
        let kinds: [(&str, &dyn Fn()); 9] = [
            ("file", &|| fs::write(&path, "").unwrap()),
            ("file that says more than we do", &|| fs::write(&path, "cotter\nnot").unwrap()),
            ("file that says something else", &|| fs::write(&path, "COTTER\n").unwrap()),
            ("file without end", &|| {
                File::create(&path).unwrap().set_len(1 << 40).unwrap();
            }),
            ("folder", &|| fs::create_dir(&path).unwrap()),
            ("link to a file of ours", &|| symlink(&secret, &path).unwrap()),
            ("link to nothing", &|| symlink("/nowhere", &path).unwrap()),
            ("pipe", &|| assert!(Command::new("mkfifo").arg(&path).status().unwrap().success())),
            ("socket", &|| drop(UnixListener::bind(&path).unwrap())),
        ];
        for (kind, make) in kinds {
            make();
            assert_eq!(lab.foreign("web"), Some(format!("/tmp/balena/{name}")), "{kind}");
            assert_eq!(lab.foreign("db"), None, "{kind}");
            assert!(!lab.locks.has_own(APP), "{kind}");
            let error = lab.locks.take(APP, &both()).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("web has locked updates with /tmp/balena/{name}"),
                "{kind}"
            );
            lab.locks.release(APP);
            assert_eq!(lab.files(), [format!("web/{name}")], "{kind}: theirs stays, ours are gone");
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                fs::remove_dir(&path).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
        }
    }
    assert_eq!(fs::read(&secret).unwrap(), OURS);
}

#[test]
fn a_pipe_in_the_place_of_a_file_does_not_block() {
    let lab = Lab::new();
    let path = lab.path("web", "updates.lock");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(!has_our_content(&path));
    let linked = lab.path("web", "linked");
    fs::write(lab.dir.path().join("ours"), OURS).unwrap();
    symlink(lab.dir.path().join("ours"), &linked).unwrap();
    assert!(!has_our_content(&linked));
}

#[test]
fn either_all_our_locks_are_taken_or_none() {
    let lab = Lab::new();
    lab.locks.take(APP, &both()).unwrap();
    assert_eq!(lab.files(), ALL, "and no draft");
    assert_eq!(fs::read(lab.path("web", "updates.lock")).unwrap(), b"cotter\n");
    assert_eq!((lab.foreign("web"), lab.foreign("db")), (None, None), "ours are not theirs");
    assert!(lab.locks.has_own(APP));
    assert!(!lab.locks.has_own(8));
    lab.locks.take(APP, &both()).expect("ours stand already");
    // Each lock is a separate file, so a write into one does not change the others.
    fs::write(lab.path("web", "updates.lock"), "").unwrap();
    assert_eq!((lab.foreign("web").as_deref(), lab.foreign("db")), (Some("/tmp/balena/updates.lock"), None));
    fs::remove_file(lab.path("web", "updates.lock")).unwrap();
    lab.locks.release(8);
    assert_eq!(lab.files().len(), 3, "those of another app stay");
    lab.locks.release(APP);
    assert_eq!(lab.files(), Vec::<String>::new());
    assert!(!lab.locks.has_own(APP));
    lab.locks.release(APP);
    // The folders of a service that was never started, and of a former one.
    lab.locks.take(APP, &[named("new")]).unwrap();
    assert!(lab.locks.has_own(APP));
    lab.locks.release(APP);
    assert!(!lab.locks.has_own(APP));
}

#[test]
fn one_lock_of_the_app_prevents_all_of_ours() {
    for (theirs, expected) in [("web", "web has locked"), ("db", "db has locked")] {
        let lab = Lab::new();
        fs::write(lab.path(theirs, "resin-updates.lock"), "").unwrap();
        let error = lab.locks.take(APP, &both()).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(lab.files(), [format!("{theirs}/resin-updates.lock")]);
    }
    // Our earlier locks stay, because a swap in progress needs them.
    let lab = Lab::new();
    lab.locks.take(APP, &[named("db")]).unwrap();
    fs::create_dir(lab.path("web", "updates.lock")).unwrap();
    lab.locks.take(APP, &both()).unwrap_err();
    assert_eq!(lab.files(), ["db/resin-updates.lock", "db/updates.lock", "web/updates.lock"]);
}

#[test]
fn a_crash_between_two_files_is_repaired() {
    for at in 0..=ALL.len() {
        for left_draft in [false, true] {
            let lab = Lab::new();
            for path in &ALL[..at] {
                fs::write(lab.dir.path().join("services/7").join(path), OURS).unwrap();
            }
            if left_draft {
                fs::write(lab.dir.path().join("services/7/.lock"), "cot").unwrap();
            }
            assert_eq!(lab.locks.has_own(APP), at > 0);
            assert_eq!((lab.foreign("web"), lab.foreign("db")), (None, None));
            lab.locks.take(APP, &both()).unwrap();
            assert_eq!(lab.files(), ALL);
            lab.locks.release(APP);
            assert_eq!(lab.files(), Vec::<String>::new());
        }
    }
}

#[test]
fn without_capabilities_everything_works_and_unreadable_files_are_not_ours() {
    let lab = Lab::new();
    without_capabilities();
    lab.locks.prepare(APP, &named("new")).unwrap();
    lab.locks.take(APP, &both()).unwrap();
    assert!(lab.locks.has_own(APP));
    let hidden = lab.path("web", "updates.lock");
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(lab.foreign("web").as_deref(), Some("/tmp/balena/updates.lock"));
    lab.locks.release(APP);
    assert_eq!(lab.files(), ["web/updates.lock"]);
    fs::remove_file(&hidden).unwrap();
    // The app removes our access to its folder. Then the service counts as locked.
    fs::set_permissions(lab.path("web", ""), fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(lab.foreign("web").as_deref(), Some("/tmp/balena/updates.lock"));
    assert!(!lab.locks.has_handed_over(APP, &named("web")));
    lab.locks.forget_hand_over(APP, &named("web"));
    assert!(!lab.locks.has_own(APP));
    // We own the folder, so its mode is set again. One that the app owns would keep its mode.
    lab.locks.take(APP, &both()).unwrap();
    lab.locks.release(APP);
    assert_eq!(lab.foreign("web"), None);
}

#[test]
fn a_file_signals_a_hand_over_and_is_removed_afterwards() {
    let lab = Lab::new();
    let web = named("web");
    assert!(!lab.locks.has_handed_over(APP, &web));
    lab.locks.forget_hand_over(APP, &web);
    lab.locks.forget_hand_over(APP, &named("never-made"));
    for name in SIGNALS {
        fs::write(lab.path("web", name), "").unwrap();
        assert!(lab.locks.has_handed_over(APP, &web), "{name}");
        assert!(!lab.locks.has_handed_over(APP, &named("db")), "{name}");
        lab.locks.forget_hand_over(APP, &web);
        assert!(!lab.locks.has_handed_over(APP, &web), "{name}");
    }
    // A folder that is not empty cannot be removed, so it does not count as a signal.
    fs::create_dir_all(lab.path("web", "handover-complete/x")).unwrap();
    assert!(!lab.locks.has_handed_over(APP, &web));
    fs::write(lab.path("web", "resin-kill-me"), "").unwrap();
    assert!(lab.locks.has_handed_over(APP, &web));
    lab.locks.forget_hand_over(APP, &web);
    assert!(!lab.locks.has_handed_over(APP, &web));
    // The link is removed, not its target.
    let precious = lab.dir.path().join("precious");
    fs::write(&precious, "gold").unwrap();
    symlink(&precious, lab.path("web", "resin-kill-me")).unwrap();
    assert!(!lab.locks.has_handed_over(APP, &web));
    lab.locks.forget_hand_over(APP, &web);
    assert_eq!(fs::read(&precious).unwrap(), b"gold");
    assert_eq!(lab.files(), ["web/handover-complete"]);
}
