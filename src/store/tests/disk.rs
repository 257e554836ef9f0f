//! A disk that is full, read-only or failing, and recovers.

use std::process::Command;

use super::super::StoreError;
use super::*;

/// A small separate file system, which is unmounted with the value.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// `None`, with a printed line, if this process may not mount.
    fn mount(kib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={kib}k,mode=700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "cotter-test"]).arg(dir.path()).output();
        if mounted.is_ok_and(|out| out.status.success()) {
            return Some(Self { dir });
        }
        println!("skipped: may not mount a tmpfs here");
        None
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        assert!(
            Command::new("mount").args(["-o", &options]).arg(self.dir.path()).status().unwrap().success()
        );
    }

    /// Fills it and leaves about `spare` KiB free.
    fn fill(&self, spare: usize) {
        use std::io::Write as _;
        let mut filler = fs::File::create(self.dir.path().join("filler")).unwrap();
        let page = [1; 4096];
        let mut pages = 0;
        while filler.write_all(&page).is_ok() {
            pages += 1;
        }
        filler.set_len((pages * 4096u64).saturating_sub(spare as u64 * 1024)).unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.dir.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

#[test]
fn a_full_disk_loses_nothing_wherever_it_ends() {
    let (mut failed, mut went) = (0, 0);
    for spare in (0..160).step_by(8) {
        let Some(disk) = Disk::mount(3000) else { return };
        let (store, _) = open(&disk.state());
        save_all(&store, &full());
        disk.fill(spare);
        let mut acked = store.load();
        let mut wanted = acked.clone();
        for n in 10..14 {
            wanted.target = Some(target(n, 10_000));
            wanted.ledger = ledger(&[(1, n, 8_000), (9, n, 100)]);
            match store
                .save_target(wanted.target.as_ref().unwrap())
                .and_then(|()| store.save_ledger(&wanted.ledger))
            {
                Ok(()) => {
                    acked = wanted.clone();
                    went += 1;
                }
                Err(error) => {
                    assert!(
                        matches!(error, StoreError::Full { .. }),
                        "{}",
                        crate::model::with_causes(&error)
                    );
                    assert!(store.trouble().unwrap().contains("no space"), "{:?}", store.trouble());
                    store.save_ledger(&wanted.ledger).unwrap_err();
                    failed += 1;
                }
            }
            assert_eq!(store.load(), wanted, "reading goes on");
        }
        // Half of the rounds continue with the failed handle, and half restart on the full disk.
        let store = if spare % 16 == 0 { store } else { restarted(store, &disk.state(), &acked) };
        let _ = store.save_ledger(&wanted.ledger);
        let _ = store.save_target(&target(99, 20_000));
        disk.free();
        store.retry().unwrap();
        assert_eq!(store.trouble(), None);
        drop(store);
        let after = Remembered { target: Some(target(99, 20_000)), ..wanted };
        assert_eq!(remembered(&disk.state()), (after, vec![Recovery::Opened]), "spare {spare}");
    }
    println!("{failed} saves refused, {went} went through");
    assert!(failed > 10, "the disk was never full");
}

/// A restart finds at least what was acknowledged.
fn restarted(store: Store, state: &Path, acked: &Remembered) -> Store {
    drop(store);
    let (store, notes) = open(state);
    let found = store.load();
    assert!(!notes.iter().any(|note| matches!(note, Recovery::SetAside { .. })), "{}", text(&notes));
    let number = |r: &Remembered| r.target.as_ref().unwrap().body[..20].parse::<u64>().unwrap();
    assert_eq!(found.identity, acked.identity);
    assert!(number(&found) >= number(acked), "{}", text(&notes));
    store
}

#[test]
fn a_store_created_on_a_full_disk_stays_in_memory_until_there_is_space() {
    let Some(disk) = Disk::mount(400) else { return };
    disk.fill(0);
    let (store, notes) = open(&disk.state());
    assert!(notes.iter().any(|note| matches!(note, Recovery::Unavailable { .. })), "{}", text(&notes));
    let error = store.save_identity(&identity(1)).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}; {}", text(&notes));
    disk.free();
    disk.remount("size=3000k");
    store.retry().unwrap();
    drop(store);
    assert_eq!(remembered(&disk.state()).0.identity, Some(identity(1)));
}

#[test]
fn a_read_only_disk_is_read_and_brought_up_to_date_later() {
    let Some(disk) = Disk::mount(3000) else { return };
    save_all(&open(&disk.state()).0, &full());
    disk.remount("ro");
    let (store, notes) = open(&disk.state());
    assert_eq!(store.load(), full(), "{}", text(&notes));
    assert!(matches!(notes[..], [Recovery::Unavailable { from: Some(_), .. }]), "{}", text(&notes));
    let error = store.save_identity(&identity(8)).unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }) && !error.is_fatal(), "{error}");
    assert_eq!(store.load().identity, Some(identity(8)));
    disk.remount("rw");
    store.retry().unwrap();
    drop(store);
    assert_eq!(remembered(&disk.state()).0, Remembered { identity: Some(identity(8)), ..full() });
}

/// Replaces a file by a link to itself, so that every access fails, as on a failing disk.
fn hide(path: &Path) -> impl FnOnce() + use<> {
    let aside = path.with_extension("hidden");
    fs::rename(path, &aside).unwrap();
    std::os::unix::fs::symlink(path, path).unwrap();
    let path = path.to_path_buf();
    move || {
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
}

#[test]
fn a_database_on_a_failing_disk_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    save_all(&open(dir.path()).0, &full());
    let show = hide(&dir.path().join("db/db"));
    let (store, notes) = open(dir.path());
    assert_eq!(store.load(), full());
    assert!(matches!(notes[..], [Recovery::Unavailable { from: Some(_), .. }]), "{}", text(&notes));
    assert!(store.save_identity(&identity(8)).is_err());
    drop(store); // only a mirror has it
    show();
    let (found, notes) = remembered(dir.path());
    assert_eq!(found.identity, Some(identity(8)), "{}", text(&notes));
    assert_eq!(found.target, full().target);
}

/// Our own lock also protects a store without its database, where sled has none.
#[test]
fn a_store_without_its_database_is_in_use_too() {
    let dir = tempfile::tempdir().unwrap();
    save_all(&open(dir.path()).0, &full());
    let show = hide(&dir.path().join("db/db"));
    let (store, _) = open(dir.path());
    show();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::InUse { .. })));
    drop(store);
}

/// The newest copy, the database, is unreadable for a while. What is saved meanwhile is newer than its content.
#[test]
fn a_database_that_comes_back_does_not_win_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    save_all(&store, &full());
    let mirrors = ["mirror-a.json", "mirror-b.json"].map(|name| dir.path().join(name));
    let kept = mirrors.each_ref().map(|path| fs::read(path).unwrap());
    for path in &mirrors {
        fs::remove_file(path).unwrap();
        fs::create_dir_all(path.join("in the way")).unwrap();
    }
    for n in 20..25 {
        assert!(store.save_identity(&identity(n)).is_err());
    }
    drop(store);
    for (path, kept) in mirrors.iter().zip(kept) {
        fs::remove_dir_all(path).unwrap();
        fs::write(path, kept).unwrap();
    }
    let show = hide(&dir.path().join("db/db"));
    let (store, _) = open(dir.path());
    assert!(store.save_identity(&identity(30)).is_err());
    drop(store);
    show();
    assert_eq!(remembered(dir.path()).0.identity, Some(identity(30)));
}

/// The worst case: no copy can be read at boot, and the memory is empty when they become readable.
#[test]
fn an_empty_memory_does_not_replace_copies_that_could_not_be_read() {
    let dir = tempfile::tempdir().unwrap();
    save_all(&open(dir.path()).0, &full());
    let hidden = ["db/db", "mirror-a.json", "mirror-b.json"].map(|name| hide(&dir.path().join(name)));
    let (store, notes) = open(dir.path());
    assert_eq!(store.load(), Remembered::default());
    assert!(
        notes.iter().any(|note| matches!(note, Recovery::Unavailable { from: None, .. })),
        "{}",
        text(&notes)
    );
    assert!(store.save_target(&target(9, 10)).is_err());
    assert!(store.retry().is_err());
    for show in hidden {
        show();
    }
    store.retry().unwrap();
    let merged = Remembered { target: Some(target(9, 10)), ..full() };
    assert_eq!(store.load(), merged, "the disk's, but for what was saved since");
    drop(store);
    assert_eq!(remembered(dir.path()), (merged, vec![Recovery::Opened]));
}

#[test]
fn a_mirror_that_cannot_be_written_fails_the_save() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    save_all(&store, &full());
    for name in ["mirror-a.json", "mirror-b.json"] {
        fs::remove_file(dir.path().join(name)).unwrap();
        fs::create_dir_all(dir.path().join(name).join("in the way")).unwrap();
    }
    assert!(store.save_identity(&identity(8)).is_err());
    assert!(store.save_identity(&identity(8)).is_err(), "still outstanding");
    for name in ["mirror-a.json", "mirror-b.json"] {
        fs::remove_dir_all(dir.path().join(name)).unwrap();
    }
    store.retry().unwrap();
    assert_eq!(store.trouble(), None);
    drop(store);
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    assert_eq!(remembered(dir.path()).0, Remembered { identity: Some(identity(8)), ..full() });
}
