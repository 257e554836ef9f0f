//! Lists what a volume can reach of the host.
//!
//! The engine's `local` driver passes `type`, `device` and the words of `o` to mount(2). The words that the engine knows
//! become flags. One of them is `bind`, with which `type` has no meaning. The other words go to the file system.

use super::{Reach, is_in};
use crate::model::{Switch, VolumeSpec};

/// Words for any file system that only restrict, or that affect nothing else.
const FLAGS: &str = "ro rw nosuid nodev noexec async noatime nodiratime relatime strictatime dirsync sync";

/// Words that bind a folder so that mounts in the container do not appear on the host.
const BINDS: &str = "bind rbind private rprivate slave rslave";

/// Words with which mounts in the container appear on the host.
const SPREADS: &str = "shared rshared";

const TMPFS: &str = "size= mode= uid= gid= nr_inodes=";

const SHARES: [&str; 4] = ["nfs", "nfs4", "cifs", "smb3"];

/// Options of nfs(5) and mount.cifs(8) that name nothing of this machine.
const SHARE: &str = "addr= port= proto= vers= nfsvers= minorversion= mountaddr= mounthost= mountport= mountproto= \
    mountvers= clientaddr= rsize= wsize= bsize= timeo= retrans= retry= acregmin= acregmax= acdirmin= acdirmax= actimeo= \
    nconnect= max_connect= lookupcache= local_lock= namlen= sec= hard soft softerr intr nointr ac noac cto nocto lock \
    nolock tcp udp bg fg acl noacl rdirplus nordirplus sharecache nosharecache resvport noresvport username= user= \
    password= pass= domain= dom= workgroup= uid= gid= forceuid forcegid file_mode= dir_mode= iocharset= cache= ip= \
    servern= netbiosname= seal sfu mfsymlinks noperm nobrl serverino noserverino nounix persistenthandles \
    nopersistenthandles";

const DISKS: &str = "ext2 ext3 ext4 xfs btrfs f2fs vfat exfat ntfs3 iso9660 udf squashfs";

/// Options of file systems on disks.
const DISK: &str = "uid= gid= umask= fmask= dmask= iocharset= codepage= utf8 errors= data= commit= discard subvol= \
    compress=";

/// Returns what a declared volume can reach, with the field that asks for it.
pub(super) fn of_volume(spec: &VolumeSpec) -> Vec<(&'static str, Reach)> {
    let VolumeSpec { driver, driver_opts, labels: _ } = spec;
    if !matches!(driver.as_str(), "" | "local") {
        return vec![("driver", Reach::By(Switch::Drivers))];
    }
    let option = |key: &str| driver_opts.get(key).map_or("", String::as_str);
    let (kind, device) = (option("type"), option("device"));
    let words: Vec<&str> = option("o").split(',').filter(|word| !word.is_empty()).collect();
    let are_known = driver_opts.keys().all(|key| matches!(key.as_str(), "type" | "device" | "o" | "size"));
    let all_in = |lists: &[&str]| are_known && words.iter().all(|word| is_known(lists, word));
    let opts = |switch| ("driver_opts", Reach::By(switch));
    if let Some(path) = spec.bound_path() {
        let mut found = vec![("driver_opts.device", Reach::Path(path.to_owned()))];
        if !all_in(&[FLAGS, BINDS, SPREADS]) {
            found.push(opts(Switch::Privileged));
        } else if !all_in(&[FLAGS, BINDS]) {
            found.push(opts(Switch::Capabilities));
        }
        return found;
    }
    let is_plain = kind.is_empty() && device.is_empty() && words.is_empty() && are_known;
    let is_tmpfs = kind == "tmpfs" && all_in(&[FLAGS, TMPFS]);
    let is_disk = is_in(DISKS, kind) && device.starts_with("/dev/") && all_in(&[FLAGS, DISK]);
    if is_plain || is_tmpfs {
        Vec::new()
    } else if SHARES.contains(&kind) && all_in(&[FLAGS, SHARE]) {
        vec![opts(Switch::NetworkVolumes)]
    } else if is_disk {
        vec![opts(Switch::Devices)]
    } else {
        vec![opts(Switch::Privileged)]
    }
}

/// Returns whether a word is in one of the lists, where `size=` stands for any value.
fn is_known(lists: &[&str], word: &str) -> bool {
    let name = word.split_once('=').map(|(key, _)| format!("{key}="));
    lists.iter().any(|list| is_in(list, name.as_deref().unwrap_or(word)))
}
