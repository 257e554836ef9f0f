use std::os::unix::fs::symlink;

use super::*;

/// A temporary folder. Results show `DIR` in place of its path.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        let real = fs::canonicalize(self.0.path()).unwrap();
        real.join(name).display().to_string().trim_end_matches('/').to_owned()
    }

    fn folder(&self, name: &str) {
        fs::create_dir_all(self.path(name)).unwrap();
    }

    /// Creates a link. A target that begins with `DIR/` is in the folder.
    fn link(&self, name: &str, target: &str) {
        let target = target.strip_prefix("DIR/").map_or_else(|| target.to_owned(), |name| self.path(name));
        symlink(target, self.path(name)).unwrap();
    }

    fn bounds(&self, allowed: &[&str], barred: &[&str]) -> Bounds {
        let all = |names: &[&str]| names.iter().map(|name| self.path(name)).collect();
        Bounds { allowed: all(allowed), barred: all(barred) }
    }

    /// The resolved path, or the first part of the error.
    fn result(&self, name: &str, bounds: &Bounds) -> String {
        let result = leads_to(&self.path(name), bounds).map(|led| led.path);
        let result = result.unwrap_or_else(|error| error.to_string().split(": ").next().unwrap().to_owned());
        result.replace(&self.path(""), "DIR")
    }
}

#[test]
fn a_path_is_resolved_and_checked() {
    let at = Folder::new();
    for folder in ["srv/app/data", "disk/app", "etc", "other"] {
        at.folder(folder);
    }
    fs::write(at.path("srv/file"), "").unwrap();
    at.link("srv/out", "DIR/etc");
    at.link("srv/up", "../etc");
    at.link("srv/root", "/");
    at.link("srv/in", "app/data");
    at.link("srv/hop", "out");
    at.link("srv/missing", "DIR/etc/nothing");
    at.link("srv/loop", "loop");
    at.link("srv/app/back", "../../etc/..//./etc");
    at.link("data", "DIR/disk");
    at.link("disk/far", "DIR/other");
    let bounds = at.bounds(&["srv", "data"], &[]);
    for (name, expected) in [
        ("srv", "DIR/srv"),
        ("srv/app", "DIR/srv/app"),
        ("srv/file", "DIR/srv/file"),
        ("srv/new/folder", "DIR/srv/new/folder"),
        ("srv/in", "DIR/srv/app/data"),
        ("data", "DIR/disk"),
        ("data/app", "DIR/disk/app"),
        (
            "srv/out",
            "\"DIR/srv/out\" leads to \"DIR/etc\" on this device by the link \"DIR/srv/out\", which is not in policy.host_paths",
        ),
        (
            "srv/up",
            "\"DIR/srv/up\" leads to \"DIR/etc\" on this device by the link \"DIR/srv/up\", which is not in policy.host_paths",
        ),
        (
            "srv/hop",
            "\"DIR/srv/hop\" leads to \"DIR/etc\" on this device by the link \"DIR/srv/out\", which is not in policy.host_paths",
        ),
        (
            "srv/out/x",
            "\"DIR/srv/out/x\" leads to \"DIR/etc/x\" on this device by the link \"DIR/srv/out\", which is not in policy.host_paths",
        ),
        (
            "srv/missing",
            "\"DIR/srv/missing\" leads to \"DIR/etc/nothing\" on this device by the link \"DIR/srv/missing\", which is not in policy.host_paths",
        ),
        (
            "srv/root",
            "\"DIR/srv/root\" leads to \"/\" on this device by the link \"DIR/srv/root\", which is not in policy.host_paths",
        ),
        (
            "srv/app/back",
            "\"DIR/srv/app/back\" leads to \"DIR/etc\" on this device by the link \"DIR/srv/app/back\", which is not in policy.host_paths",
        ),
        (
            "data/far",
            "\"DIR/data/far\" leads to \"DIR/other\" on this device by the link \"DIR/disk/far\", which is not in policy.host_paths",
        ),
        ("etc", "\"DIR/etc\" leads to \"DIR/etc\" on this device, which is not in policy.host_paths"),
        (
            "srv/loop",
            "where \"DIR/srv/loop\" leads on this device cannot be seen by the agent (there are too many links)",
        ),
        (
            "srv/file/x",
            "where \"DIR/srv/file/x\" leads on this device cannot be seen by the agent (Not a directory (os error 20))",
        ),
    ] {
        assert_eq!(at.result(name, &bounds), expected, "{name}");
    }
}

/// The owner allows `srv` and `srv/app`. A release that can write into `srv` replaces `srv/app` by a link.
#[test]
fn a_link_in_one_allowed_tree_does_not_move_another_one() {
    let at = Folder::new();
    at.folder("srv");
    at.folder("etc");
    at.link("srv/app", "DIR/etc");
    let refused = "\"DIR/srv/app\" leads to \"DIR/etc\" on this device by the link \"DIR/srv/app\", which is not in \
                   policy.host_paths";
    assert_eq!(at.result("srv/app", &at.bounds(&["srv", "srv/app"], &[])), refused);
    assert_eq!(at.result("srv/app", &at.bounds(&["srv/app", "srv"], &[])), refused);
    assert_eq!(at.result("srv/app", &at.bounds(&["srv/app"], &[])), "DIR/etc", "the owner's own link");
}

#[test]
fn an_exception_applies_to_every_path_of_its_place() {
    let at = Folder::new();
    at.folder("run/engine");
    at.folder("srv/x");
    let _socket = std::os::unix::net::UnixListener::bind(at.path("run/docker.sock")).unwrap();
    at.link("var-run", "DIR/run");
    at.link("srv/link", "DIR/run/docker.sock");
    at.link("srv/folder", "DIR/var-run");
    fs::hard_link(at.path("run/docker.sock"), at.path("srv/second")).unwrap();
    let bounds = at.bounds(&[""], &["var-run/docker.sock", "run/engine"]);
    let is_refused = |name: &str| {
        at.result(name, &bounds).contains("leads to") && at.result(name, &bounds).contains(", where")
    };
    for name in ["run/docker.sock", "srv/link", "srv/folder", "srv/second", "run", "run/engine/x", ""] {
        assert!(is_refused(name), "{name}: {}", at.result(name, &bounds));
    }
    for name in ["srv", "srv/x", "run/other"] {
        assert_eq!(at.result(name, &bounds), format!("DIR/{name}"));
    }
}

const INFO: &str = r"22 27 0:21 / /proc rw,relatime - proc proc rw
24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw,size=12334432k
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:25 / /run rw,nosuid shared:5 - tmpfs tmpfs rw
40 27 0:25 /docker.sock /srv/s\040x rw shared:5 master:1 - tmpfs tmpfs rw
41 27 0:25 / /media/run rw - tmpfs tmpfs rw
42 27 254:0 /tmp/systemd-private-1f-cotter-agent.service-x/tmp /tmp rw - ext4 /dev/vda rw
43 27 0:25 /systemd/inaccessible/dir /home ro - tmpfs tmpfs rw
44 27 0:31 / /root ro - tmpfs tmpfs ro
nonsense";

#[test]
fn a_place_that_is_mounted_twice_has_several_paths() {
    let mounts = mounts(INFO);
    assert_eq!(mounts.len(), 9);
    let mut found = aliases("/run/docker.sock", &mounts);
    found.sort();
    found.dedup();
    assert_eq!(found, ["/media/run/docker.sock", "/run/docker.sock", "/srv/s x"]);
    let mut found = aliases("/srv", &mounts);
    found.dedup();
    assert_eq!(found, ["/srv"]);
    assert!(holds("/media", "/run/docker.sock", &mounts));
    assert!(holds("/srv", "/run/docker.sock", &mounts));
    assert!(!holds("/srv/app", "/run/docker.sock", &mounts));
}

#[test]
fn a_mount_that_only_the_agent_has_is_refused() {
    let mounts = mounts(INFO);
    for (path, why) in [
        ("/tmp/x", Some("(the agent has a folder of its own there)")),
        ("/home/pi", Some("(it is closed to the agent)")),
        ("/home", Some("(it is closed to the agent)")),
        ("/root/x", Some("(the agent has a folder of its own there)")),
        ("/usr/no-such-folder", None),
    ] {
        let result = follow(path, &mounts);
        assert_eq!(result.is_ok(), why.is_none(), "{path}: {result:?}");
        assert!(
            result.err().map_or(String::new(), |error| error.to_string()).contains(why.unwrap_or_default()),
            "{path}"
        );
    }
    let own: Vec<_> = mounts
        .iter()
        .map(|m| if m.at == "/dev" { Mounted { kind: "tmpfs".into(), ..m.clone() } } else { m.clone() })
        .collect();
    assert!(follow("/dev/no-such-node", &own).unwrap_err().to_string().contains("a /dev of its own"));
    assert_eq!(follow("/dev/no-such-node", &mounts).unwrap().path, "/dev/no-such-node");
}

#[test]
fn the_disk_is_that_of_the_folder() {
    let disk = |path: &str| {
        let bounds = Bounds { allowed: vec!["/".to_owned()], ..Bounds::default() };
        leads_to(path, &bounds).map(|led| led.disk)
    };
    assert_eq!(disk("/proc/sys/x").unwrap(), "/proc");
    assert_eq!(disk("/proc").unwrap(), "/", "a place of a mount belongs to what is above");
    assert_eq!(disk("/").unwrap(), "/");
}
