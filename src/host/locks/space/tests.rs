//! Real folders, filled by malicious apps.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use super::*;
use crate::host::locks::tests::without_capabilities;

struct Lab {
    dir: tempfile::TempDir,
    locks: Locks,
}

impl Lab {
    fn new(services: &[(u64, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::new(dir.path().join("services"));
        for (app, service) in services {
            locks.prepare(*app, &named(service)).unwrap();
        }
        Self { dir, locks }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("services").join(path)
    }

    /// The entries of a folder, sorted.
    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn named(service: &str) -> ServiceName {
    ServiceName::parse(service).unwrap()
}

fn keep(services: &[(u64, &str)]) -> BTreeSet<(u64, ServiceName)> {
    services.iter().map(|(app, service)| (*app, named(service))).collect()
}

fn write(path: &Path, bytes: usize) {
    fs::write(path, vec![1; bytes]).unwrap();
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn content_within_the_limits_stays() {
    let lab = Lab::new(&[(7, "web")]);
    lab.locks.take(7, &[named("web")]).unwrap();
    write(&lab.path("7/web/state"), 40_000);
    for n in 0..50 {
        write(&lab.path(&format!("7/web/small-{n}")), 0);
    }
    fs::create_dir_all(lab.path("7/web/a/b/c")).unwrap();
    symlink("/", lab.path("7/web/link")).unwrap();
    pipe(&lab.path("7/web/pipe"));
    // A sparse file uses no space.
    fs::File::create(lab.path("7/web/hole")).unwrap().set_len(1 << 40).unwrap();
    drop(UnixListener::bind(lab.path("7/web/socket")).unwrap());
    let before = lab.names("7/web");
    assert_eq!(lab.locks.trim(), Vec::<String>::new());
    assert_eq!(lab.names("7/web"), before);
}

#[test]
fn a_folder_with_too_much_is_emptied_except_for_lock_and_hand_over_files() {
    let bytes: &dyn Fn(&Lab) = &|lab| write(&lab.path("7/web/big"), 100_000);
    let sum: &dyn Fn(&Lab) = &|lab| (0..20).for_each(|n| write(&lab.path(&format!("7/web/part-{n}")), 4000));
    let files: &dyn Fn(&Lab) = &|lab| (0..3000).for_each(|n| write(&lab.path(&format!("7/web/file-{n}")), 0));
    let links: &dyn Fn(&Lab) =
        &|lab| (0..70).for_each(|n| symlink("/etc/passwd", lab.path(&format!("7/web/l{n}"))).unwrap());
    let pipes: &dyn Fn(&Lab) = &|lab| (0..70).for_each(|n| pipe(&lab.path(&format!("7/web/p{n}"))));
    let deep: &dyn Fn(&Lab) = &|lab| {
        let mut path = lab.path("7/web");
        for _ in 0..80 {
            path.push("d");
            fs::create_dir(&path).unwrap();
        }
    };
    let closed: &dyn Fn(&Lab) = &|lab| {
        fs::create_dir(lab.path("7/web/closed")).unwrap();
        write(&lab.path("7/web/closed/big"), 100_000);
        fs::set_permissions(lab.path("7/web/closed"), fs::Permissions::from_mode(0o000)).unwrap();
    };
    let word: &dyn Fn(&Lab) = &|lab| write(&lab.path("7/web/updates.lock"), 100_000);
    let folder: &dyn Fn(&Lab) = &|lab| {
        fs::create_dir(lab.path("7/web/updates.lock")).unwrap();
        write(&lab.path("7/web/updates.lock/big"), 100_000);
    };
    for (what, fill) in [
        ("bytes", bytes),
        ("bytes in sum", sum),
        ("files", files),
        ("links", links),
        ("pipes", pipes),
        ("a depth", deep),
        ("a closed folder", closed),
        ("a lock that is long", word),
        ("a lock that is a folder", folder),
    ] {
        let lab = Lab::new(&[(7, "web"), (7, "db")]);
        write(&lab.path("7/db/state"), 1000);
        for name in ["resin-updates.lock", "handover-complete"] {
            write(&lab.path("7/web").join(name), 3);
        }
        fill(&lab);
        let is_locked = lab.locks.foreign(7, &named("web"));
        for _ in 0..3 {
            if lab.locks.trim() != ["7/web"] {
                break;
            }
        }
        assert_eq!(lab.locks.trim(), Vec::<String>::new(), "{what}");
        let left = lab.names("7/web");
        assert!(
            left.iter()
                .all(|name| ["updates.lock", "resin-updates.lock", "handover-complete"]
                    .contains(&name.as_str())),
            "{what}: {left:?}"
        );
        assert!(left.len() >= 2, "{what}: its words stay: {left:?}");
        assert_eq!(lab.locks.foreign(7, &named("web")), is_locked, "{what}: what is locked stays so");
        assert_eq!(lab.names("7/db"), ["state"], "{what}: others keep theirs");
        assert_eq!(fs::metadata(lab.path("7/web")).unwrap().mode() & 0o7777, 0o1777, "{what}");
    }
}

#[test]
fn nothing_outside_the_folder_is_changed() {
    let lab = Lab::new(&[(7, "web"), (7, "gone")]);
    let precious = lab.dir.path().join("precious");
    fs::create_dir(&precious).unwrap();
    write(&precious.join("gold"), 200_000);
    for service in ["web", "gone"] {
        let path = lab.path(&format!("7/{service}"));
        symlink(&precious, path.join("folder")).unwrap();
        symlink(precious.join("gold"), path.join("updates.lock")).unwrap();
        symlink(&precious, path.join("handover-complete")).unwrap();
        (0..70).for_each(|n| symlink(precious.join("gold"), path.join(n.to_string())).unwrap());
    }
    assert_eq!(lab.locks.trim().len(), 2);
    lab.locks.break_all(7, &named("web"));
    lab.locks.keep_only(&keep(&[(7, "web")]));
    assert_eq!(lab.names("7"), ["web"]);
    assert_eq!(lab.names("7/web"), ["handover-complete"]);
    assert_eq!(fs::read(precious.join("gold")).unwrap().len(), 200_000);
    assert_eq!(fs::metadata(&precious).unwrap().mode() & 0o777, 0o755);
}

/// An app may replace a folder or a file by a link between a check and the following action.
#[test]
fn a_path_that_was_replaced_by_a_link_is_not_followed() {
    let lab = Lab::new(&[(7, "web")]);
    let precious = lab.dir.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o500)).unwrap();
    write(&precious.join("gold"), 10);
    symlink(&precious, lab.path("7/web/folder")).unwrap();
    symlink(precious.join("gold"), lab.path("7/web/file")).unwrap();
    pipe(&lab.path("7/web/pipe"));
    let web = open_folder(CWD, &name_of(&lab.path("7/web")).unwrap(), 0o1777).unwrap();
    let (folder, file) = (c"folder".to_owned(), c"file".to_owned());
    assert!(open_folder(&web, &folder, 0o777).is_err());
    assert!(!hollow(&web, &folder, &mut Budget(AT_ONCE)));
    assert!(move_up(&web, &folder, &web).is_err());
    shorten(&web, &file);
    shorten(&web, &c"pipe".to_owned());
    assert_eq!(fs::read(precious.join("gold")).unwrap().len(), 10);
    assert_eq!(fs::metadata(&precious).unwrap().mode() & 0o777, 0o500);
}

#[test]
fn files_that_are_still_open_lose_their_content() {
    let lab = Lab::new(&[(7, "web")]);
    let mut open = fs::File::create(lab.path("7/web/big")).unwrap();
    open.write_all(&vec![1; 200_000]).unwrap();
    assert_eq!(lab.locks.trim(), ["7/web"]);
    assert_eq!(open.metadata().unwrap().len(), 0);
}

#[test]
fn the_folders_of_former_services_are_removed() {
    let lab = Lab::new(&[(7, "web"), (7, "old"), (8, "old"), (9, "web")]);
    write(&lab.path("7/web/state"), 1000);
    for path in ["7/old", "8/old"] {
        fs::create_dir_all(lab.path(path).join("a/b/c")).unwrap();
        write(&lab.path(path).join("a/b/c/big"), 100_000);
        fs::set_permissions(lab.path(path).join("a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        pipe(&lab.path(path).join("pipe"));
    }
    // Remains of a crash, and a file that belongs to no service.
    fs::write(lab.path("8/.lock"), "cot").unwrap();
    fs::create_dir(lab.path("other")).unwrap();
    lab.locks.keep_only(&keep(&[(7, "web"), (9, "web"), (10, "new")]));
    assert_eq!(lab.names(""), ["7", "9", "other"]);
    assert_eq!((lab.names("7"), lab.names("7/web")), (vec!["web".to_owned()], vec!["state".to_owned()]));
    // A service that comes back has an empty folder.
    lab.locks.prepare(7, &named("old")).unwrap();
    assert_eq!(lab.names("7/old"), Vec::<String>::new());
    lab.locks.keep_only(&BTreeSet::new());
    assert_eq!(lab.names(""), ["other"]);
    Lab::new(&[]).locks.keep_only(&BTreeSet::new());
}

#[test]
fn one_call_does_a_bounded_part_and_the_next_continues() {
    let lab = Lab::new(&[(7, "old")]);
    for n in 0..5000 {
        write(&lab.path(&format!("7/old/{n}")), 0);
    }
    let mut left = Vec::new();
    while !lab.names("7").is_empty() && left.len() < 10 {
        lab.locks.keep_only(&BTreeSet::new());
        let aside = lab.names("7").first().cloned().unwrap_or_default();
        left.push(if aside.is_empty() { 0 } else { lab.names(&format!("7/{aside}")).len() });
        assert!(aside.is_empty() || aside.starts_with(".gone-"), "{aside}");
    }
    assert_eq!(left, [3001, 1002, 0]);
}

/// As under systemd. A folder that another user of a container has closed cannot be removed, and does no harm.
#[test]
fn without_capabilities_everything_is_removed_except_what_another_user_has_closed() {
    let lab = Lab::new(&[(7, "web"), (7, "old")]);
    let is_root = fs::metadata(lab.dir.path()).unwrap().uid() == 0;
    for service in ["web", "old"] {
        let path = lab.path(&format!("7/{service}"));
        fs::create_dir_all(path.join("own/deep")).unwrap();
        write(&path.join("own/deep/big"), 100_000);
        fs::set_permissions(path.join("own"), fs::Permissions::from_mode(0o000)).unwrap();
        write(&path.join("theirs"), 100_000);
        fs::create_dir(path.join("closed")).unwrap();
        write(&path.join("closed/big"), 100_000);
        if is_root {
            for name in ["theirs", "closed"] {
                std::os::unix::fs::chown(path.join(name), Some(12345), Some(12345)).unwrap();
            }
            fs::set_permissions(path.join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
        }
    }
    without_capabilities();
    lab.locks.trim();
    lab.locks.keep_only(&keep(&[(7, "web")]));
    let closed: &[&str] = if is_root { &["closed"] } else { &[] };
    assert_eq!(lab.names("7/web"), closed);
    let aside = lab.names("7").into_iter().filter(|name| name != "web").collect::<Vec<_>>();
    assert_eq!(aside.len(), closed.len(), "{aside:?}");
    assert!(aside.iter().all(|name| name.starts_with(".gone-")), "{aside:?}");
    // A service that comes back finds nothing of it.
    lab.locks.prepare(7, &named("old")).unwrap();
    assert_eq!(lab.names("7/old"), Vec::<String>::new());
    lab.locks.take(7, &[named("old"), named("web")]).unwrap();
    assert!(lab.locks.has_own(7));
    lab.locks.release(7);
    assert!(!lab.locks.has_own(7));
}

#[test]
fn a_separate_file_system_is_distinguished_from_a_shared_one() {
    let lab = Lab::new(&[(7, "web")]);
    let shared = space(&lab.path("")).unwrap();
    assert!(!shared.is_own && !shared.is_small());
    assert_eq!(space(&lab.dir.path().join("nowhere")), None);
    let own = Space { is_own: true, bytes: 4 << 20, used: 0, files: 2048, has: 3 };
    assert!(own.is_small() && !own.is_nearly_full());
    assert!(Space { used: 4 << 20, ..own }.is_nearly_full() && Space { has: 2000, ..own }.is_nearly_full());
    for other in [Space { is_own: false, ..own }, Space { bytes: 1 << 30, ..own }, Space { files: 0, ..own }]
    {
        assert!(!other.is_small(), "{other:?}");
    }
}
