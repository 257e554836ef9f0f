//! Behaviour on a disk without faults.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::SystemTime;

use super::super::{StoreError, database, records};
use super::*;

#[test]
fn saved_values_are_found_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (store, notes) = open(dir.path());
    assert_eq!(notes, [Recovery::Created]);
    assert_eq!(store.load(), Remembered::default());
    save_all(&store, &full());
    assert_eq!(store.load(), full());
    assert_eq!(store.trouble(), None);
    drop(store);
    assert_eq!(remembered(dir.path()), (full(), vec![Recovery::Opened]));
}

#[test]
fn a_device_that_leaves_is_forgotten_with_its_target() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    save_all(&store, &full());
    let tags = crate::store::TagFile::of(dir.path());
    tags.save(BTreeMap::from([("site".to_owned(), "north".to_owned())])).unwrap();
    store.forget_device().unwrap();
    assert_eq!(tags.load(), BTreeMap::new(), "they are not sent as those of another device");
    let left = Remembered { identity: None, target: None, ..full() };
    assert_eq!(store.load(), left);
    drop(store);
    assert_eq!(remembered(dir.path()).0, left);
    // Neither copy has it any more.
    assert_eq!(super::super::inspect(dir.path()).unwrap().identity, None);
}

#[test]
fn an_app_that_is_gone_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.save_ledger(&ledger(&[(1, 1, 5_000), (2, 2, 10)])).unwrap();
    store.save_ledger(&ledger(&[(2, 3, 10)])).unwrap();
    drop(store);
    assert_eq!(remembered(dir.path()).0.ledger, ledger(&[(2, 3, 10)]));
}

#[test]
fn only_what_changed_is_written() {
    let encode = |ledger: &Ledger| {
        let held = Remembered { ledger: ledger.clone(), ..full() };
        records::encode_all(&held).unwrap()
    };
    let keys = |old: &Ledger, new: &Ledger| -> Vec<String> {
        let (old, new) = (encode(old), encode(new));
        database::changes(&old, &new)
            .into_iter()
            .map(|(key, value)| {
                assert!(value.len() <= 1024, "sled would put it in a file that is never synced");
                let sign = if value.is_empty() { "-" } else { "+" };
                format!("{sign}{}", String::from_utf8(key).unwrap())
            })
            .collect()
    };
    let mut changed = full().ledger;
    changed.apps.get_mut(&AppId::parse("app2").unwrap()).unwrap().stopped_by_agent.clear();
    assert_eq!(keys(&full().ledger, &full().ledger), Vec::<String>::new());
    assert_eq!(keys(&full().ledger, &changed), ["+app/app2/0000"]);
    changed.apps.remove(&AppId::parse("app2").unwrap());
    assert_eq!(keys(&full().ledger, &changed), ["-app/app2/0000"]);
}

#[test]
fn nothing_is_written_when_nothing_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    save_all(&store, &full());
    let look = || -> Vec<(PathBuf, u64, SystemTime)> {
        let seen = |path: PathBuf| {
            let found = fs::metadata(&path).unwrap();
            (path, found.len(), found.modified().unwrap())
        };
        files(dir.path()).into_iter().map(seen).collect()
    };
    let before = look();
    save_all(&store, &full());
    store.retry().unwrap();
    assert_eq!(look(), before);
    drop(store);
    let mirrors = |seen: Vec<(PathBuf, u64, SystemTime)>| -> Vec<_> {
        seen.into_iter().filter(|(path, ..)| path.extension().is_some_and(|e| e == "json")).collect()
    };
    let _reopened = open(dir.path());
    assert_eq!(mirrors(look()), mirrors(before));
}

#[test]
fn the_folder_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    save_all(&store, &full());
    for n in 0..300 {
        store.save_ledger(&ledger(&[(1, 1, 9_000), (2, n, 2_000), (3, 3, 20_000)])).unwrap();
    }
    let blobs = fs::read_dir(dir.path().join("db/blobs")).unwrap().count();
    assert_eq!(blobs, 0, "sled never syncs those");
    let bytes: u64 = files(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    println!("60 KB live, after 300 saves: {bytes} bytes");
    assert!(bytes < 4_000_000, "{bytes}");
}

#[test]
fn only_the_owner_has_access() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("deep/state");
    save_all(&open(&state).0, &full());
    drop(open(&state)); // sled creates new files when it opens again
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("db")), 0o700);
    drop(open(&state));
    for path in files(&state) {
        // The snapshot that sled writes on closing is made private at the next opening. Its folder is private already.
        if !path.to_string_lossy().contains("snap.") {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
}

/// A folder with access for others, with files of an older version.
#[test]
fn a_folder_with_access_for_others_is_made_private() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    save_all(&open(&state).0, &full());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    files(&state).iter().for_each(|path| set(path, 0o644));
    set(&state.join("db"), 0o755);
    set(&state, 0o777);
    let (store, _) = open(&state);
    assert_eq!(store.load(), full());
    assert_eq!((mode(&state), mode(&state.join("db"))), (0o700, 0o700));
    for name in ["mirror-a.json", "mirror-b.json", "db/db", "db/conf"] {
        assert_eq!(mode(&state.join(name)), 0o600, "{name}");
    }
}

/// A user who had access to the folder may have created links in it. Nothing is written through them.
#[test]
fn links_in_the_folder_are_not_followed() {
    for name in
        ["mirror-a.json", "mirror-b.json", "mirror-a.json.tmp", "mirror-b.json.tmp", "db", "db/db", "db/conf"]
    {
        let dir = tempfile::tempdir().unwrap();
        let (state, outside) = (dir.path().join("state"), dir.path().join("outside"));
        save_all(&open(&state).0, &full());
        fs::write(&outside, "theirs").unwrap();
        let planted = state.join(name);
        let _may_be_missing =
            if planted.is_dir() { fs::remove_dir_all(&planted) } else { fs::remove_file(&planted) };
        std::os::unix::fs::symlink(&outside, &planted).unwrap();
        let (store, _) = open(&state);
        assert_eq!(store.load(), full(), "{name}: the other copies have it");
        // A link in the place of a temporary file fails one save, which removes the link.
        for n in [21, 22] {
            let _may_fail = store.save_target(&target(n, 10));
            store.retry().unwrap();
        }
        assert_eq!(fs::read_to_string(&outside).unwrap(), "theirs", "{name}");
        assert!(!planted.is_symlink(), "{name}");
        drop(store);
        assert_eq!(open(&state).0.load().target, Some(target(22, 10)), "{name}");
    }
}

#[test]
fn a_mark_is_not_written_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (state, outside) = (dir.path().join("state"), dir.path().join("outside"));
    save_all(&open(&state).0, &full());
    std::os::unix::fs::symlink(&outside, state.join("db.opening")).unwrap();
    assert_eq!(open(&state).0.load(), full());
    assert!(!outside.exists());
}

#[test]
fn files_of_another_user_are_an_error_and_nothing_is_forgotten() {
    use std::os::unix::fs::chown;
    for name in ["", "db", "db/db", "mirror-a.json"] {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        save_all(&open(&state).0, &full());
        if chown(state.join(name), Some(65534), None).is_err() {
            println!("skipped: not root, so that nothing can belong to another user");
            return;
        }
        let error = Store::open(&state).err().unwrap();
        let text = crate::model::with_causes(&error);
        let expected = "belongs to another user: `chown -R` it to the user that runs cotter: its owner is user \
                        65534, but this process runs as user 0";
        assert!(error.is_fatal() && text.ends_with(expected), "{name}: {text}");
        chown(state.join(name), Some(0), None).unwrap();
        assert_eq!(open(&state).0.load(), full(), "{name}");
    }
}

#[test]
fn a_second_process_gets_an_error_that_it_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let error = Store::open(dir.path()).err().unwrap();
    assert!(matches!(error, StoreError::InUse { .. }) && error.is_fatal(), "{error}");
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    assert!(!dir.path().join("db.corrupt-1").exists());
    drop(store);
    open(dir.path());
}

#[test]
fn the_error_for_an_unusable_folder_has_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for (path, problem) in [
        (dir.path().join("file"), "is not a folder: move that file"),
        (dir.path().join("file/below"), "is not a folder: move that file"),
        (dir.path().join("x".repeat(300)), "has too long a path: set a shorter one"),
        (dir.path().join("x/".repeat(2500)), "has too long a path: set a shorter one"),
    ] {
        let error = Store::open(&path).err().unwrap();
        assert!(matches!(error, StoreError::Folder { .. }) && error.is_fatal(), "{error}");
        let text = error.to_string();
        assert!(text.contains(problem) && text.contains(&path.display().to_string()), "{text}");
    }
}

/// Run by the test below as another user.
#[test]
fn opens_as_another_user() {
    #[expect(clippy::disallowed_methods, reason = "how a test tells its child what to do")]
    let Ok(dir) = std::env::var("COTTER_TEST_FOREIGN_DIR") else { return };
    let error = Store::open(Path::new(&dir)).err().unwrap();
    assert!(error.to_string().contains("cannot be used by this user"), "{error}");
    println!("refused as it should be");
}

#[test]
fn a_folder_of_another_user_is_an_error() {
    use std::os::unix::process::CommandExt as _;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let state = dir.path().join("state");
    drop(open(&state));
    for state in [state, dir.path().join("cannot be made")] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::plain::opens_as_another_user", "--nocapture"])
            .env("COTTER_TEST_FOREIGN_DIR", &state)
            .uid(65534)
            .output();
        let Ok(child) = child else {
            println!("skipped: not root, so it cannot become another user");
            return;
        };
        let out = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(out.contains("refused as it should be"), "{out}{}", String::from_utf8_lossy(&child.stderr));
    }
}
