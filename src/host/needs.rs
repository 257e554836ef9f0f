//! Whether this machine has the device nodes and kernel settings that a service asks for.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::model::HostNeed;

/// Returns why this machine cannot give a service what it needs. `None`: it can, or that cannot be known.
#[must_use]
pub fn lacks(need: &HostNeed) -> Option<String> {
    lacks_below(Path::new("/"), need)
}

fn lacks_below(root: &Path, need: &HostNeed) -> Option<String> {
    match need {
        HostNeed::Device(path) => {
            if !path.starts_with("/dev/") || !has_host_devices(root) {
                return None;
            }
            match fs::metadata(root.join(path.trim_start_matches('/'))) {
                Ok(found) if found.is_file() => Some(format!("{path} is no device node")),
                Err(error) if error.kind() == ErrorKind::NotFound => Some(format!("{path} is not there")),
                Ok(_) | Err(_) => None,
            }
        }
        HostNeed::Setting(name) => {
            let settings = root.join("proc/sys");
            if !settings.join("kernel").is_dir() {
                return None;
            }
            // A point separates the parts of a name. One within a part is written as a slash.
            let path: String = name
                .chars()
                .map(|c| {
                    if c == '.' {
                        '/'
                    } else if c == '/' {
                        '.'
                    } else {
                        c
                    }
                })
                .collect();
            let is_missing =
                settings.join(path).symlink_metadata().is_err_and(|e| e.kind() == ErrorKind::NotFound);
            is_missing.then(|| format!("this kernel has no setting {name}"))
        }
    }
}

/// Returns whether `/dev` shows the devices of the host: a private one, of a container or of a service manager, does not.
fn has_host_devices(root: &Path) -> bool {
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    let kind = |line: &str| {
        let (fields, filesystem) = line.split_once(" - ")?;
        let is_dev = fields.split(' ').nth(4) == Some("/dev");
        is_dev.then(|| filesystem.split(' ').next().unwrap_or_default().to_owned())
    };
    // The last mount is the one that is seen.
    mounts.lines().rev().find_map(kind).as_deref() == Some("devtmpfs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_settings_that_are_not_there() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let device = |path: &str| HostNeed::Device(path.to_owned());
        let setting = |name: &str| HostNeed::Setting(name.to_owned());
        let why = |need: &HostNeed| lacks_below(root.path(), need).unwrap_or_default();
        assert_eq!(why(&setting("net.foo")), "", "there is no /proc");
        write("proc/sys/kernel/msgmax", "1");
        write("proc/sys/net/ipv4/conf/eth0.1/forwarding", "1");
        write("dev/file", "");
        fs::create_dir(root.path().join("dev/bus")).unwrap();
        std::os::unix::fs::symlink("/dev/null", root.path().join("dev/link")).unwrap();
        assert_eq!(why(&device("/dev/ttyUSB0")), "", "whose /dev it is, is not known");
        let line = |kind: &str| format!("25 1 0:6 / /dev rw,nosuid shared:2 - {kind} udev rw,size=1\n");
        write("proc/self/mountinfo", &(line("devtmpfs") + &line("tmpfs")));
        assert_eq!(why(&device("/dev/ttyUSB0")), "", "a private /dev");
        write("proc/self/mountinfo", &("1 1 8:1 / / rw - ext4 /dev/sda rw\n".to_owned() + &line("devtmpfs")));
        for (need, expected) in [
            (device("/dev/ttyUSB0"), "/dev/ttyUSB0 is not there"),
            (device("/dev/file"), "/dev/file is no device node"),
            (device("/dev/link"), ""),
            (device("/dev/bus"), ""),
            (device("/srv/none"), ""),
            (setting("kernel.msgmax"), ""),
            (setting("net.ipv4.conf.eth0/1.forwarding"), ""),
            (setting("net.foo.bar"), "this kernel has no setting net.foo.bar"),
        ] {
            assert_eq!(why(&need), expected, "{need}");
        }
    }
}
