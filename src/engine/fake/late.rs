//! Calls that outlive their caller: the agent was killed or gave up, and the engine executes the call later.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::NewContainer;
use crate::model::{
    App, Commit, ContainerId, Introduction, NetworkName, NetworkSpec, ServiceName, ServiceSpec, VolumeName,
    VolumeSpec,
};

use super::Fake;
use super::inside::{Inside, LateCall};

impl LateCall {
    /// Returns `true` if the engine makes another call wait for this one: it executes one call on a container at a time.
    /// It creates two networks with one name, and answers observations at any time.
    fn is_before(&self, verb: &str, what: &str) -> bool {
        let is_look = verb == "list" || verb.starts_with("list-") || verb == "info";
        self.what == what && !is_look && self.verb != "create-network"
    }
}

impl Inside {
    /// Executes the late calls that are due, in the order of their times. Returns `true` if there were any.
    pub(super) fn finish_late_calls(&mut self) -> bool {
        let now = Instant::now();
        let (mut due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.late).into_iter().partition(|call| call.due <= now);
        self.late = later;
        due.sort_by_key(|call| call.due);
        let has_any = !due.is_empty();
        self.is_late = true;
        due.into_iter().for_each(|call| (call.act)(self));
        self.is_late = false;
        has_any
    }

    /// Returns when the next late call ends for which `waits` is true.
    fn next_end(&self, waits: impl Fn(&LateCall) -> bool) -> Option<Instant> {
        self.late.iter().filter(|call| waits(call)).map(|call| call.due).min()
    }
}

impl Fake {
    /// Notes a call that is executed after its caller is gone.
    pub(super) fn outlive(
        &self,
        verb: &'static str,
        what: &str,
        after: Duration,
        act: impl FnOnce(&mut Inside) + Send + 'static,
    ) {
        let (what, due) = (what.to_owned(), Instant::now() + after);
        self.inside().late.push(LateCall { verb, what, due, act: Box::new(act) });
        self.outlived.send_modify(|n| *n += 1);
    }

    /// Waits until a call outlives its caller, or is about to.
    pub async fn outlived(&self) {
        // The sender lives as long as the fake.
        let _ = self.outlived.subscribe().wait_for(|n| *n > 0).await;
    }

    /// Waits until the engine has finished all earlier calls on the same container.
    pub(super) async fn wait_for_late_calls(&self, verb: &str, what: &str) {
        loop {
            let Some(end) = self.inside().next_end(|call| call.is_before(verb, what)) else { return };
            tokio::time::sleep_until(end).await;
            self.inside().finish_late_calls();
        }
    }

    /// Waits until a late call has been executed.
    pub(super) async fn late_call(&self) {
        let mut outlived = self.outlived.subscribe();
        loop {
            outlived.mark_unchanged();
            let end = self.inside().next_end(|_| true);
            let due = async {
                match end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {
                    self.inside().finish_late_calls();
                    return;
                }
                _ = outlived.changed() => {}
            }
        }
    }
}

/// A [`NewContainer`] that owns its parts, for a late call.
pub(super) struct OwnedContainer {
    app: App,
    release: Commit,
    service: ServiceName,
    spec: ServiceSpec,
    networks: BTreeMap<NetworkName, NetworkSpec>,
    volumes: BTreeMap<VolumeName, VolumeSpec>,
    joined: BTreeMap<ServiceName, ContainerId>,
    introduction: Introduction,
}

impl From<NewContainer<'_>> for OwnedContainer {
    fn from(new: NewContainer<'_>) -> Self {
        Self {
            app: new.app.clone(),
            release: new.release.clone(),
            service: new.service.clone(),
            spec: new.spec.clone(),
            networks: new.networks.clone(),
            volumes: new.volumes.clone(),
            joined: new.joined.clone(),
            introduction: new.introduction.clone(),
        }
    }
}

impl OwnedContainer {
    pub(super) fn as_new(&self) -> NewContainer<'_> {
        NewContainer {
            app: &self.app,
            release: &self.release,
            service: &self.service,
            spec: &self.spec,
            networks: &self.networks,
            volumes: &self.volumes,
            joined: &self.joined,
            introduction: &self.introduction,
        }
    }
}
