//! Damage to one copy: the other one restores everything, and a note reports it.

use super::super::mirror::Found;
use super::super::records::{Records, Snapshot};
use super::super::slot::Slot;
use super::super::{StoreError, choose, database};
use super::*;

/// A closed store with the content [`full`], after a few saves.
fn sound() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.save_target(&target(1, 40_000)).unwrap();
    save_all(&store, &full());
    dir
}

/// A kind of damage: its name, and what it does to the bytes; `None` deletes the file.
type Harm = (String, Box<dyn Fn(&[u8]) -> Option<Vec<u8>>>);

fn harms(len: usize, seed: u64) -> Vec<Harm> {
    let mut harms: Vec<Harm> = vec![
        ("deleted".into(), Box::new(|_| None)),
        ("zeroed".into(), Box::new(|bytes| Some(vec![0; bytes.len()]))),
    ];
    let mut lengths = vec![0, 1, len / 4, len / 2, len * 9 / 10, len.saturating_sub(1)];
    lengths.dedup();
    for to in lengths.into_iter().filter(|to| *to < len) {
        harms.push((format!("cut to {to}"), Box::new(move |bytes| Some(bytes[..to].to_vec()))));
    }
    let mut random = Random(seed);
    for _ in 0..if len == 0 { 0 } else { 12 } {
        let (at, bit) = (random.below(len as u64) as usize, random.below(8));
        harms.push((
            format!("bit {bit} of byte {at} flipped"),
            Box::new(move |bytes| {
                let mut bytes = bytes.to_vec();
                bytes[at] ^= 1 << bit;
                Some(bytes)
            }),
        ));
    }
    for _ in 0..if len < 8192 { 0 } else { 6 } {
        let at = random.below(len as u64 / 4096) as usize * 4096;
        harms.push((
            format!("page at {at} zeroed"),
            Box::new(move |bytes| {
                let mut bytes = bytes.to_vec();
                let end = bytes.len().min(at + 4096);
                bytes[at..end].fill(0);
                Some(bytes)
            }),
        ));
    }
    harms
}

fn apply(path: &Path, harm: &Harm) {
    match harm.1(&fs::read(path).unwrap()) {
        Some(bytes) => fs::write(path, bytes).unwrap(),
        None => fs::remove_file(path).unwrap(),
    }
}

#[test]
fn damage_to_any_one_file_loses_nothing() {
    let sound = sound();
    let (mut tried, mut aside) = (0, 0);
    for file in files(sound.path()) {
        let name = file.strip_prefix(sound.path()).unwrap();
        let len = fs::metadata(&file).unwrap().len() as usize;
        for harm in harms(len, len as u64 + 1) {
            let dir = tempfile::tempdir().unwrap();
            copy(sound.path(), dir.path());
            apply(&dir.path().join(name), &harm);
            let what = format!("{} {}", name.display(), harm.0);
            let (store, notes) = open(dir.path());
            assert_eq!(store.load(), full(), "{what}: {}", text(&notes));
            assert_eq!(store.trouble(), None, "{what}");
            let is_aside = dir.path().join("db.corrupt-1").exists();
            let says_aside = notes.iter().any(|note| matches!(note, Recovery::SetAside { .. }));
            assert_eq!(is_aside, says_aside, "{what}: {}", text(&notes));
            if name.starts_with("mirror-a.json") || name.starts_with("mirror-b.json") {
                assert!(notes.iter().any(|note| matches!(note, Recovery::MirrorLost { .. })), "{what}");
            }
            store.save_identity(&identity(8)).unwrap();
            drop(store);
            let after = Remembered { identity: Some(identity(8)), ..full() };
            assert_eq!(remembered(dir.path()), (after, vec![Recovery::Opened]), "{what}");
            tried += 1;
            aside += u32::from(is_aside);
        }
    }
    println!("{tried} harms, {aside} databases set aside");
    assert!(tried > 60 && aside > 3, "{tried} {aside}");
}

#[test]
fn a_lost_database_and_a_possible_loss_are_reported() {
    let sound = sound();
    fs::remove_dir_all(sound.path().join("db")).unwrap();
    let (found, notes) = remembered(sound.path());
    assert_eq!(found, full());
    assert!(matches!(notes[..], [Recovery::Rebuilt { may_be_old: false, .. }]), "{}", text(&notes));
    assert_eq!(remembered(sound.path()), (full(), vec![Recovery::Opened]));
}

#[test]
fn without_the_database_and_the_newer_mirror_the_older_one_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    save_all(&store, &full());
    let newer = |name: &str| fs::metadata(dir.path().join(name)).unwrap().modified().unwrap();
    let [a, b] = ["mirror-a.json", "mirror-b.json"];
    let (newer, older) = if newer(a) > newer(b) { (a, Slot::B) } else { (b, Slot::A) };
    drop(store);
    fs::write(dir.path().join("db/db"), "nonsense").unwrap();
    fs::write(dir.path().join(newer), "nonsense").unwrap();
    let (found, notes) = remembered(dir.path());
    assert_eq!((found.identity, found.target), (full().identity, full().target));
    assert_eq!(found.ledger, Ledger::default(), "that was the last save");
    assert!(notes.contains(&Recovery::Rebuilt { from: older, may_be_old: true }), "{}", text(&notes));
}

#[test]
fn with_every_copy_damaged_it_starts_empty_and_says_so() {
    let sound = sound();
    for file in files(sound.path()) {
        let nonsense = fs::read(&file).unwrap().iter().map(|byte| !byte).collect::<Vec<_>>();
        fs::write(&file, nonsense).unwrap();
    }
    let (store, notes) = open(sound.path());
    assert_eq!(store.load(), Remembered::default());
    assert!(notes.contains(&Recovery::StartedEmpty), "{}", text(&notes));
    assert!(notes.iter().any(|note| matches!(note, Recovery::SetAside { .. })), "{}", text(&notes));
    save_all(&store, &full());
    drop(store);
    assert_eq!(remembered(sound.path()), (full(), vec![Recovery::Opened]));
}

/// sled checks each message separately. Only our checksum shows that one is missing.
#[test]
fn a_database_that_lacks_one_cell_is_set_aside() {
    let sound = sound();
    let sled = database::config(&sound.path().join("db")).open().unwrap();
    assert!(sled.remove("target/0001").unwrap().is_some());
    sled.flush().unwrap();
    drop(sled);
    let (found, notes) = remembered(sound.path());
    assert_eq!(found, full());
    assert!(text(&notes).contains("its checksum is wrong"), "{}", text(&notes));
}

/// As after a restored backup, or after sled dropped its tail without an error.
#[test]
fn an_outdated_database_does_not_win() {
    let dir = tempfile::tempdir().unwrap();
    let old = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.save_target(&target(1, 100)).unwrap();
    drop(store);
    copy(dir.path(), old.path());
    save_all(&open(dir.path()).0, &full());
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    copy(&old.path().join("db"), &dir.path().join("db"));
    let (found, notes) = remembered(dir.path());
    assert_eq!(found, full());
    assert!(notes.iter().any(|note| matches!(note, Recovery::CaughtUp { .. })), "{}", text(&notes));
    for mirror in ["mirror-a.json", "mirror-b.json"] {
        fs::copy(old.path().join(mirror), dir.path().join(mirror)).unwrap();
    }
    assert_eq!(remembered(dir.path()).0, full(), "mirrors that went back do not win either");
}

#[test]
fn a_file_in_the_place_of_the_database_is_set_aside() {
    let sound = sound();
    fs::remove_dir_all(sound.path().join("db")).unwrap();
    fs::write(sound.path().join("db"), "a file").unwrap();
    assert_eq!(remembered(sound.path()).0, full());
    assert_eq!(fs::read(sound.path().join("db.corrupt-1")).unwrap(), b"a file");
}

#[test]
fn two_broken_databases_are_kept() {
    let sound = sound();
    for round in 1..=4 {
        fs::write(sound.path().join("db/conf"), format!("no configuration of sled {round}")).unwrap();
        let (found, notes) = remembered(sound.path());
        assert_eq!(found, full());
        let to = sound.path().join(format!("db.corrupt-{round}"));
        let is_noted = notes.iter().any(|note| matches!(note, Recovery::SetAside { to: t, .. } if *t == to));
        assert!(is_noted, "round {round}: {}", text(&notes));
    }
    let mut kept: Vec<_> = fs::read_dir(sound.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("db."))
        .collect();
    kept.sort();
    assert_eq!(kept, ["db.corrupt-3", "db.corrupt-4"]);
}

/// Copies in a later format, with valid checksums.
#[test]
fn a_later_format_is_set_aside_and_not_overwritten() {
    use sha2::{Digest as _, Sha256};
    let later = |path: &Path, from: &str, to: &str| {
        let text = fs::read_to_string(path).unwrap();
        let payload = text.lines().nth(1).unwrap().replace(from, to);
        let sha256: String = Sha256::digest(payload.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
        fs::write(path, format!("{{\"sha256\":\"{sha256}\"}}\n{payload}\n")).unwrap();
    };
    let sound = sound();
    fs::remove_dir_all(sound.path().join("db")).unwrap();
    for mirror in ["mirror-a.json", "mirror-b.json"] {
        later(&sound.path().join(mirror), r#"{"v":1,"seq""#, r#"{"v":2,"seq""#);
    }
    let (found, notes) = remembered(sound.path());
    assert_eq!(found, Remembered::default());
    assert!(text(&notes).contains("it is of format 2, this version of cotter knows 1"), "{}", text(&notes));
    assert!(sound.path().join("db.corrupt-1/mirror-a.json").exists());
    assert!(sound.path().join("db.corrupt-1/mirror-b.json").exists());

    let sound = self::sound();
    fs::remove_dir_all(sound.path().join("db")).unwrap();
    for mirror in ["mirror-a.json", "mirror-b.json"] {
        later(&sound.path().join(mirror), r#""target":"{\"v\":1"#, r#""target":"{\"v\":9"#);
    }
    let (found, notes) = remembered(sound.path());
    assert_eq!(found, Remembered { target: None, ..full() }, "the other records are as they were");
    let forgotten =
        |note: &Recovery| matches!(note, Recovery::RecordForgotten { record, .. } if record == "target");
    assert!(notes.iter().any(forgotten), "{}", text(&notes));
    assert!(sound.path().join("db.corrupt-1/mirror-a.json").exists(), "it is kept for the later version");
    assert_eq!(remembered(sound.path()).1, [Recovery::Opened]);
}

/// Copies as text, and the choice as text. `5`: intact at save 5, `-`: missing, `x`: damaged, `f`: of a later format,
/// `?`: unreadable. An intact copy contains its own name.
#[test]
fn the_choice() {
    for (database, a, b, chosen) in [
        ("-", "-", "-", "nothing; created"),
        ("5", "4", "5", "5 of db; opened"),
        ("6", "4", "5", "6 of db; opened"),
        ("4", "4", "5", "5 of b; caught up"),
        ("4", "6", "5", "6 of a; caught up"),
        ("x", "4", "5", "5 of b; aside db; rebuilt"),
        ("f", "4", "5", "5 of b; aside db; rebuilt"),
        ("-", "6", "5", "6 of a; rebuilt"),
        ("x", "x", "5", "5 of b; aside db; lost a; rebuilt, may be old"),
        ("x", "-", "5", "5 of b; aside db; lost a; rebuilt, may be old"),
        ("x", "x", "x", "nothing; aside db; lost a; lost b; empty"),
        ("-", "x", "-", "nothing; lost a; empty"),
        ("-", "f", "-", "nothing; aside mirror-a.json; lost a; empty"),
        ("5", "-", "-", "5 of db; lost a; lost b; opened"),
        ("5", "?", "4", "5 of db; leap; lost a; opened"),
        ("?", "4", "5", "5 of b; leap; unavailable"),
        ("?", "-", "-", "nothing; leap; unavailable; may not write"),
        ("?", "4", "?", "4 of a; leap; lost b; unavailable; may not write"),
        ("-", "?", "-", "nothing; leap; lost a; unavailable; may not write"),
        ("x", "4", "?", "4 of a; leap; aside db; lost b; rebuilt, may be old"),
    ] {
        let found = |text: &str, name: &str| match text {
            "-" => Found::Nothing,
            "x" => Found::Damaged("x".into()),
            "f" => Found::Foreign("f".into()),
            "?" => Found::Unreadable(StoreError::io("read", Path::new("/"), std::io::Error::other("?"))),
            seq => Found::Whole(Snapshot {
                seq: seq.parse().unwrap(),
                records: Records::from([("from".to_owned(), name.into())]),
            }),
        };
        let choice = choose::choose(found(database, "db"), [found(a, "a"), found(b, "b")]);
        let base = choice.base.records.get("from");
        let mut text =
            vec![base.map_or("nothing".to_owned(), |from| format!("{} of {from}", choice.base.seq))];
        text.extend(choice.must_leap.then(|| "leap".to_owned()));
        text.extend(choice.aside.iter().map(|name| format!("aside {name}")));
        text.extend(choice.notes.iter().map(|note| match note {
            Recovery::MirrorLost { slot: Slot::A, .. } => "lost a".to_owned(),
            Recovery::MirrorLost { slot: Slot::B, .. } => "lost b".to_owned(),
            Recovery::Rebuilt { may_be_old: true, .. } => "rebuilt, may be old".to_owned(),
            Recovery::Rebuilt { .. } => "rebuilt".to_owned(),
            Recovery::CaughtUp { .. } => "caught up".to_owned(),
            Recovery::Created => "created".to_owned(),
            Recovery::Opened => "opened".to_owned(),
            Recovery::StartedEmpty => "empty".to_owned(),
            Recovery::Unavailable { .. } => "unavailable".to_owned(),
            Recovery::SetAside { .. } | Recovery::Dropped { .. } | Recovery::RecordForgotten { .. } => {
                "not for choose to say".to_owned()
            }
        }));
        text.extend((choice.hidden.is_some()).then(|| "may not write".to_owned()));
        assert_eq!(text.join("; "), chosen, "{database} {a} {b}");
    }
}

/// A panic inside sled ends the process. The next start finds its mark.
#[test]
fn a_database_that_ended_the_agent_twice_is_set_aside() {
    for (why, ended, is_set_aside) in [
        ("never", &[][..], false),
        ("once", &["db.opening"], false),
        ("twice", &["db.opening", "db.opening-again"], true),
    ] {
        let dir = sound();
        let marks: Vec<_> = ended.iter().map(|name| dir.path().join(name)).collect();
        marks.iter().for_each(|mark| fs::write(mark, "").unwrap());
        let (store, notes) = open(dir.path());
        assert_eq!(store.load(), full(), "{why}");
        assert!(!marks.iter().any(|mark| mark.exists()), "{why}: it is opened");
        let was_set_aside = notes.iter().any(|note| matches!(note, Recovery::SetAside { .. }));
        assert_eq!(was_set_aside, is_set_aside, "{why}: {notes:?}");
    }
}
