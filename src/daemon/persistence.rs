//! Restores the device's identity and its last target at a start, and saves them and the ledger without blocking.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tracing::warn;

use crate::config::{CloudConfig, Config, Joining};
use crate::host;
use crate::model::{
    Delivered, DeviceUuid, Identity, Ledger, LocalApps, Moves, Policy, Registration as Known, StoredTarget,
    with_causes,
};
use crate::reconcile::{Memory, SaveError};
use crate::store::{Recovery, Remembered, Store, StoreError};
use crate::wire::target_v3;

use super::DaemonError;

/// Returns the device's identity: that of the settings, else the saved one, else a new one. No new one is made while an
/// unreadable store may hold one.
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
            let same = remembered.identity.as_ref().filter(|identity| identity.uuid == uuid);
            let moves = same.map(|identity| identity.moves.clone()).unwrap_or_default();
            Identity { uuid, device_key, registered: Some(Known { endpoint, device_id: None }), moves }
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
            break Identity { uuid, device_key, registered: None, moves: Moves::default() };
        },
    };
    if remembered.identity.as_ref() != Some(&identity)
        && let Err(error) = save_identity(store, &identity).await
    {
        warn!(error = with_causes(&error), "identity is not on disk yet");
    }
    Ok(identity)
}

/// Returns why the store could not be read, if it may still hold an identity.
fn out_of_sight(notes: &[Recovery]) -> Option<&str> {
    notes.iter().find_map(|note| {
        if let Recovery::Unavailable { from: None, why } = note { Some(why.as_str()) } else { None }
    })
}

/// Returns the target that was last received, if it is this cloud's and can still be read. Without a cloud, the target of
/// any cloud stays in force.
pub(super) fn saved_target(
    cloud: Option<&CloudConfig>,
    (uuid, apps): (&DeviceUuid, &LocalApps),
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
        Ok(mut target) => {
            target.localize(apps);
            Some(Delivered { target: Arc::new(target), record: None, etag: record.etag.clone() })
        }
        Err(error) => {
            warn!(%error, "the target in the store cannot be read; waiting for the cloud's");
            None
        }
    }
}

/// Longest time for a save. A save may have to reopen the store, which may take 30 s.
const PATIENCE: Duration = Duration::from_secs(40);

/// The store, with saves that return in bounded time even if the disk hangs.
pub(super) struct Disk {
    store: Store,
    /// A save that the disk has not answered yet.
    late: Option<JoinHandle<Result<(), StoreError>>>,
    /// A target that the store has not received because of it.
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
        let mut saving = spawn_save(&self.store, move |store| {
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

/// Saves in a separate thread, because a slow disk would otherwise block all other tasks: they share one thread.
fn spawn_save(
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

/// Saves the device's identity. Waits for the disk without a time limit.
pub(super) async fn save_identity(store: &Store, identity: &Identity) -> Result<(), SaveError> {
    let identity = identity.clone();
    save_result(spawn_save(store, move |store| store.save_identity(&identity)).await)
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

    /// Pipes in place of files: a writer that opens one waits for a reader, here until this is dropped.
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
            let saving = spawn_save(&store, move |_| {
                heard.recv_timeout(Duration::from_secs(20)).expect("the runtime goes on");
                Ok(())
            });
            saving.await
        };
        let (saved, ()) = tokio::join!(slow, async { meanwhile.send(()).unwrap() });
        save_result(saved).unwrap();
    }

    /// A hanging disk is reported like a full one, and what it missed is saved when it answers again.
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
