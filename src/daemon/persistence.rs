//! What the agent remembers: who it is and the target that was in force, and how both and the ledger are saved.

use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tracing::warn;

use crate::config::{CloudConfig, Config, Joining};
use crate::host;
use crate::model::{
    Delivered, DeviceUuid, Identity, Ledger, Policy, Registration as Known, StoredTarget, with_causes,
};
use crate::reconcile::{Memory, SaveError};
use crate::store::{Recovery, Remembered, Store, StoreError};
use crate::wire::target_v3;

use super::DaemonError;

/// Who this device is: as the settings say, else as remembered, else new, but only if nothing that
/// is merely out of sight may say it.
pub(super) async fn identity(
    config: &Config,
    store: &Store,
    remembered: &Remembered,
    notes: &[Recovery],
) -> Result<Identity, DaemonError> {
    let given = config.cloud.as_ref().and_then(|cloud| match &cloud.joining {
        Joining::Known { uuid, key } => Some((uuid.clone(), key.clone())),
        Joining::Register { .. } | Joining::Remembered => None,
    });
    let identity = match (given, &remembered.identity) {
        (Some((uuid, device_key)), _) => {
            let endpoint = config.cloud.as_ref().map(|c| c.endpoint.clone()).unwrap_or_default();
            Identity { uuid, device_key, registered: Some(Known { endpoint, device_id: None }) }
        }
        (None, Some(identity)) => identity.clone(),
        (None, None) if config.cloud.as_ref().is_some_and(|cloud| cloud.joining == Joining::Remembered) => {
            return Err(DaemonError::NotJoined);
        }
        (None, None) => loop {
            if let Some(why) = out_of_sight(notes) {
                let (folder, why) = (config.state_dir.clone(), why.to_owned());
                return Err(DaemonError::IdentityUnknown { folder, why });
            }
            let uuid = host::random_hex(16).map_err(DaemonError::Random)?;
            let Ok(uuid) = DeviceUuid::parse(uuid) else { continue };
            let device_key = host::random_hex(16).map_err(DaemonError::Random)?;
            break Identity { uuid, device_key, registered: None };
        },
    };
    if remembered.identity.as_ref() != Some(&identity)
        && let Err(error) = save_identity(store, &identity).await
    {
        warn!(error = with_causes(&error), "identity is not on disk yet");
    }
    Ok(identity)
}

/// Why nothing of the store could be read, though it may be there.
fn out_of_sight(notes: &[Recovery]) -> Option<&str> {
    notes.iter().find_map(|note| {
        if let Recovery::Unavailable { from: None, why } = note { Some(why.as_str()) } else { None }
    })
}

/// The target that was last received, if it is this cloud's and can still be read. Without a cloud
/// it is in force whoever gave it.
pub(super) fn saved_target(
    cloud: Option<&CloudConfig>,
    uuid: &DeviceUuid,
    policy: &Policy,
    remembered: &Remembered,
) -> Option<Delivered> {
    let record = remembered.target.as_ref()?;
    if let Some(cloud) = cloud.filter(|cloud| cloud.endpoint != record.endpoint) {
        let (of, now) = (&record.endpoint, &cloud.endpoint);
        warn!(of, now, "the target in the store is another cloud's; waiting for this one's");
        return None;
    }
    match target_v3::parse(record.body.as_bytes(), uuid, policy) {
        Ok(target) => Some(Delivered { target, record: None }),
        Err(error) => {
            warn!(%error, "the target in the store cannot be read; waiting for the cloud's");
            None
        }
    }
}

/// The disk may take so long for a save; opening the store anew, which a save may have to do, is given 30 s.
const PATIENCE: Duration = Duration::from_secs(40);

/// The store for who may not wait for a disk that hangs.
pub(super) struct Disk {
    store: Store,
    /// The save that the disk has not answered.
    late: Option<JoinHandle<Result<(), StoreError>>>,
    /// What the store has not heard of yet because of that.
    target: Option<StoredTarget>,
}

impl Disk {
    pub(super) fn new(store: Store) -> Self {
        Self { store, late: None, target: None }
    }

    async fn save(&mut self, ledger: Option<Ledger>) -> Result<(), SaveError> {
        if self.late.as_ref().is_some_and(|late| !late.is_finished()) {
            return Err(SaveError::Busy);
        }
        let target = self.target.clone();
        let mut saving = beside(&self.store, move |store| {
            // Both, whatever becomes of the first: the store remembers what it cannot write, and writes it with the next.
            let saved = target.map_or(Ok(()), |target| store.save_target(&target));
            ledger.map_or(saved, |ledger| store.save_ledger(&ledger))
        });
        let Ok(saved) = tokio::time::timeout(PATIENCE, &mut saving).await else {
            self.late = Some(saving);
            return Err(SaveError::Late { waited: PATIENCE });
        };
        self.target = None;
        save_result(saved)
    }
}

impl Memory for Disk {
    async fn save_target(&mut self, record: &StoredTarget) -> Result<(), SaveError> {
        self.target = Some(record.clone());
        self.save(None).await
    }

    async fn save_ledger(&mut self, ledger: &Ledger) -> Result<(), SaveError> {
        self.save(Some(ledger.clone())).await
    }
}

/// Saves in a thread of its own: a disk may take its time, and all else here shares one thread.
fn beside(
    store: &Store,
    save: impl FnOnce(&Store) -> Result<(), StoreError> + Send + 'static,
) -> JoinHandle<Result<(), StoreError>> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || save(&store))
}

fn save_result(saved: Result<Result<(), StoreError>, JoinError>) -> Result<(), SaveError> {
    match saved {
        Ok(saved) => saved.map_err(SaveError::Store),
        Err(error) => Err(SaveError::Ended(error)),
    }
}

/// Saves who the device is, for as long as the disk takes.
pub(super) async fn save_identity(store: &Store, identity: &Identity) -> Result<(), SaveError> {
    let identity = identity.clone();
    save_result(beside(store, move |store| store.save_identity(&identity)).await)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::mpsc;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::model::{AppId, AppLedger};

    /// Pipes in place of files: who opens one to write waits until somebody reads, here until this is dropped.
    struct Hung([PathBuf; 2]);

    impl Drop for Hung {
        fn drop(&mut self) {
            for pipe in &self.0 {
                std::mem::forget(File::options().read(true).write(true).open(pipe));
            }
        }
    }

    fn ledger(app: &str) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.apps.insert(AppId::parse(app).unwrap(), AppLedger::default());
        ledger
    }

    /// There is one thread for all else: a save that held it would wait for what can never come.
    #[tokio::test]
    async fn what_the_disk_delays_delays_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        let (meanwhile, heard) = mpsc::channel();
        let slow = async {
            let saving = beside(&store, move |_| {
                heard.recv_timeout(Duration::from_secs(20)).expect("the runtime goes on");
                Ok(())
            });
            saving.await
        };
        let (saved, ()) = tokio::join!(slow, async { meanwhile.send(()).unwrap() });
        save_result(saved).unwrap();
    }

    /// A disk that hangs is told of, like one that is full, and what it missed is saved when it comes back.
    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_holds_the_writer_up_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        let mut disk = Disk::new(store.clone());
        let pipes = ["mirror-a.json.tmp", "mirror-b.json.tmp"].map(|name| folder.path().join(name));
        assert!(Command::new("mkfifo").args(&pipes).status().unwrap().success());
        let hung = Hung(pipes.clone());
        let target = |body: &str| StoredTarget { endpoint: "http://a".into(), etag: None, body: body.into() };
        let first = target("1");
        let (saved, ()) = tokio::join!(disk.save_target(&first), tokio::time::advance(PATIENCE));
        let late = saved.unwrap_err();
        assert!(matches!(late, SaveError::Late { waited: PATIENCE }), "{late}");
        assert_eq!(late.to_string(), "the disk has not answered for 40 s");
        let target_saved = disk.save_target(&target("2")).now_or_never();
        assert!(matches!(target_saved, Some(Err(SaveError::Busy))), "{target_saved:?}");
        let ledger_saved = disk.save_ledger(&ledger("a")).now_or_never();
        assert!(matches!(ledger_saved, Some(Err(SaveError::Busy))), "{ledger_saved:?}");
        drop(hung);
        save_result(disk.late.as_mut().unwrap().await).unwrap_err(); // a pipe is no file to be synced
        pipes.iter().for_each(|pipe| drop(fs::remove_file(pipe))); // the store removed what it could not use
        disk.late = None;
        disk.save_ledger(&ledger("b")).await.unwrap();
        drop((disk, store));
        let held = Store::open(folder.path()).unwrap().0.load();
        assert_eq!((held.target, held.ledger), (Some(target("2")), ledger("b")));
    }
}
