//! What this machine is and how loaded it is, from the files of its kernel. Runs no program and opens no socket.

mod addresses;
mod files;
mod load;
mod os;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::model::{Hardware, Load};
use load::CpuTimes;

/// A machine whose files are read below a root, which is another folder in tests.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
    /// Finds the address of the interface with the default route, for machines whose kernel lists no other one.
    default_address: fn() -> Option<IpAddr>,
    /// The times of the processors at the last sample.
    before: Option<CpuTimes>,
}

impl Default for Machine {
    fn default() -> Self {
        Self { root: PathBuf::from("/"), default_address: super::address::own_v4, before: None }
    }
}

impl Machine {
    /// Reads what it is.
    #[must_use]
    pub fn hardware(&self) -> Hardware {
        let (os_version, os_variant) = os::version(&self.root);
        let mut addresses = addresses::ips(&self.root);
        if addresses.is_empty() {
            addresses.extend((self.default_address)());
        }
        let macs = addresses::macs(&self.root);
        let is_undervolted = load::is_undervolted(&self.root);
        Hardware { os_version, os_variant, addresses, macs, is_undervolted, supervisor: None }
    }

    /// Reads how loaded it is. `data_root` is the folder in which the engine keeps images and volumes.
    pub fn load(&mut self, data_root: Option<&Path>) -> Load {
        let now = load::cpu_times(&self.root);
        let before = std::mem::replace(&mut self.before, now);
        let (memory_usage, memory_total) = load::memory(&self.root).unzip();
        let (storage_usage, storage_total) = data_root.and_then(load::storage).unzip();
        Load {
            cpu_usage: now.and_then(|now| now.usage_since(before.unwrap_or_default())),
            cpu_temp: load::temperature(&self.root),
            cpu_id: load::cpu_id(&self.root),
            memory_usage,
            memory_total,
            storage_usage,
            storage_total,
            storage_block_device: data_root.and_then(|path| load::block_device(&self.root, path)),
        }
    }
}

#[cfg(test)]
mod tests;
