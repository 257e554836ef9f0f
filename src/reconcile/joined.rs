//! Watches containers that share namespaces of others. When the other container is restarted, they lose the namespaces and
//! must be created again.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::{EngineError, Operate};
use crate::model::{ContainerId, ContainerState, ObservedService, Starts};

use super::{HostAccess, Memory, Reconciler};

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    /// Asks the engine when containers with shared namespaces were started (two calls for each running one). Notes those
    /// that have lost their namespaces, and records the start times of the others in the ledger.
    pub(super) async fn watch_joined(&mut self) -> Result<(), EngineError> {
        self.facts.known_mut().left_behind.clear();
        let here = |id: &ContainerId| self.observed.services.iter().any(|s| s.container == *id);
        let mut has_changed = false;
        for app in Arc::make_mut(&mut self.ledger).apps.values_mut() {
            let count = app.starts.len();
            app.starts.retain(|id, _| here(id));
            has_changed |= app.starts.len() != count;
        }
        let joined: Vec<ObservedService> =
            self.observed.services.iter().filter(|s| !s.joins.is_empty()).cloned().collect();
        for seen in joined {
            let Some(now) = self.starts(&seen).await? else { continue };
            let app = Arc::make_mut(&mut self.ledger).apps.entry(seen.app.clone()).or_default();
            let before = app.starts.get(&seen.container);
            if now.is_left_behind(before) {
                self.facts.known_mut().left_behind.insert(seen.container);
            } else if before != Some(&now) {
                app.starts.insert(seen.container, now);
                has_changed = true;
            }
        }
        if has_changed {
            self.save_ledger().await;
        }
        Ok(())
    }

    /// Returns when a container and those that it joins were started; `None` while one of them does not run.
    async fn starts(&self, seen: &ObservedService) -> Result<Option<Starts>, EngineError> {
        let runs = |id: &ContainerId| {
            let mut all = self.observed.services.iter();
            all.any(|s| s.container == *id && s.state == ContainerState::Running)
        };
        if !runs(&seen.container) || !seen.joins.values().all(runs) {
            return Ok(None);
        }
        let Some(own) = self.started(&seen.container).await? else { return Ok(None) };
        let mut of = BTreeMap::new();
        for id in seen.joins.values() {
            let Some(at) = self.started(id).await? else { return Ok(None) };
            of.insert(id.clone(), at);
        }
        Ok(Some(Starts { own, of }))
    }

    async fn started(&self, id: &ContainerId) -> Result<Option<String>, EngineError> {
        match self.engine.started(id).await {
            Err(error @ EngineError::Unreachable { .. }) => Err(error),
            // One container that cannot be inspected must not stop everything else.
            Err(_) => Ok(None),
            answer => answer,
        }
    }
}
