//! What is private, what is refused, and what is left as it is.

use std::os::unix::fs::{chown, symlink};

use super::*;

const NOBODY: u32 = 65534;

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

fn open(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Whether this process may give files away; else a test says that it is left out.
fn is_root() -> bool {
    let is_root = User::us().id == 0;
    if !is_root {
        println!("skipped: not root, so that nothing can belong to another user");
    }
    is_root
}

#[test]
fn a_folder_is_made_private_with_all_that_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("a/b");
    assert_eq!(take_folder(&made).unwrap(), None);
    assert_eq!((mode(&made), mode(&dir.path().join("a"))), (0o700, 0o700));

    fs::create_dir(made.join("deep")).unwrap();
    fs::write(made.join("deep/file"), "").unwrap();
    for (path, before) in [("", 0o755), ("deep", 0o777), ("deep/file", 0o666)] {
        open(&made.join(path), before);
    }
    assert_eq!(take_folder(&made).unwrap(), Some(0o755), "it tells what it was");
    close(&made).unwrap();
    for (path, after) in [("", 0o700), ("deep", 0o700), ("deep/file", 0o600)] {
        assert_eq!(mode(&made.join(path)), after, "{path}");
    }
    assert_eq!(take_folder(&made).unwrap(), None);
}

#[test]
fn files_that_are_not_ours_are_an_error_and_stay() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other");
    fs::write(&other, "").unwrap();
    open(&other, 0o644);
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    symlink(&other, folder.join("link")).unwrap();
    let error = close(&folder).unwrap_err().to_string();
    assert!(error.contains("folder/link is a link or not a regular file"), "{error}");
    assert_eq!(mode(&other), 0o644, "no link is followed");
    fs::remove_file(folder.join("link")).unwrap();
    if !is_root() {
        return;
    }
    fs::write(folder.join("theirs"), "").unwrap();
    chown(folder.join("theirs"), Some(NOBODY), None).unwrap();
    let error = close(&folder).unwrap_err().to_string();
    assert!(
        error.contains("folder/theirs belongs to user 65534, but this process runs as user 0; `chown -R` it"),
        "{error}"
    );
    chown(&folder, Some(NOBODY), None).unwrap();
    let error = take_folder(&folder).unwrap_err().to_string();
    assert!(error.contains("folder belongs to user 65534"), "{error}");
}

#[test]
fn who_could_put_another_folder_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let above = dir.path().join("above");
    let data = above.join("data");
    fs::create_dir_all(&data).unwrap();
    let us = User::us();
    let found = |path: &Path| doubt(path, us).unwrap().map(|doubt| doubt.to_string());
    let group = above.metadata().unwrap().gid();
    for (before, expected) in
        [(0o755, false), (0o700, false), (0o777, true), (0o757, true), (0o1777, false), (0o775, false)]
    {
        open(&above, before);
        assert_eq!(found(&data).is_some(), expected, "{before:o}");
        assert_eq!(found(&above.join("missing/deep")).is_some(), expected, "{before:o}");
    }
    open(&above, 0o775);
    let stranger = User { id: us.id, group: group + 1 };
    assert_eq!(doubt(&data, stranger).unwrap().is_some(), group != 0, "another user's group");
    open(&above, 0o777);
    let expected = "above, which is above it (mode 777), and replace it; `chmod go-w ";
    assert!(found(&data).unwrap().contains(expected), "{:?}", found(&data));
    assert!(matches!(take_folder(&data), Err(NotOurs::Replaceable(_))));

    // A link of ours is followed, and the way behind it counts as well.
    let link = dir.path().join("link");
    symlink(&data, &link).unwrap();
    assert!(found(&link).is_some());
    assert!(found(&link.join("below")).is_some());
    open(&above, 0o755);
    assert_eq!(found(&link), None);
    assert_eq!(take_folder(&link).unwrap(), Some(0o755));
    let circle = dir.path().join("circle");
    symlink("circle", &circle).unwrap();
    assert!(doubt(&circle, us).is_err());
    symlink("above/../above/data", dir.path().join("relative")).unwrap();
    assert_eq!(found(&dir.path().join("relative")), None);
    if !is_root() {
        return;
    }
    std::os::unix::fs::lchown(&link, Some(NOBODY), None).unwrap();
    assert!(found(&link).unwrap().contains("link on its path belongs to user 65534"));
    chown(&above, Some(NOBODY), None).unwrap();
    assert!(found(&data).unwrap().contains("above on its path belongs to user 65534"));
    assert_eq!(doubt(&data, User { id: NOBODY, group: NOBODY }).unwrap(), None, "unless one is that user");
}

#[test]
fn who_else_may_have_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    fs::write(&file, "").unwrap();
    for (before, expected) in [
        (0o600, None),
        (0o400, None),
        (0o640, Some("other users can read it (mode 640); chmod 600 it")),
        (0o604, Some("other users can read it (mode 604); chmod 600 it")),
    ] {
        open(&file, before);
        assert_eq!(exposure(&file.metadata().unwrap()).as_deref(), expected);
    }
    if is_root() {
        open(&file, 0o600);
        chown(&file, Some(NOBODY), None).unwrap();
        let error = exposure(&file.metadata().unwrap()).unwrap();
        assert_eq!(error, "it belongs to user 65534, who can read and change it; chown it");
    }
}
