//! Removes volumes on an operator's order. No other code removes a named volume.

use std::sync::Arc;

use tracing::{info, warn};

use crate::engine::{EngineError, Operate};
use crate::model::{Answer, ObservedService, Purge, Step, with_causes};
use crate::plan::{PurgePlan, plan_purge, record_intent};

use super::{HostAccess, Memory, Reconciler};

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    /// Carries out a purge. It lasts as long as the containers that use the volumes take to stop. After an interruption
    /// the containers are created again with the volumes that are left.
    pub(super) async fn purge(&mut self, purge: &Purge) -> Answer {
        let observations = async { Ok((self.engine.observe().await?, self.engine.volumes().await?)) };
        let (mut observed, volumes) = match observations.await {
            Ok(found) => found,
            Err(error) => return refused("the existing containers and volumes are not known", &error),
        };
        observed.take_over(self.delivered.as_ref().map(|delivered| &*delivered.target));
        self.observed = Arc::new(observed);
        self.observe_host();
        let plan = match plan_purge(&self.situation(), purge, &volumes) {
            Ok(plan) => plan,
            Err(answer) => return answer,
        };
        match self.carry_out(&plan).await {
            Ok(()) => Answer::Done(plan.summary),
            Err(error) => {
                warn!(%error, "purge not completed");
                refused("the purge is not complete; it may be ordered again", &error)
            }
        }
    }

    async fn carry_out(&mut self, plan: &PurgePlan) -> Result<(), EngineError> {
        // Recorded as stopped by us, the containers are started again if the purge fails halfway.
        let stops: Vec<_> = plan.containers.iter().map(stop).collect();
        record_intent(Arc::make_mut(&mut self.ledger), &self.observed, &stops);
        self.save_ledger().await;
        for seen in &plan.containers {
            self.engine.stop(&seen.container, seen.grace).await?;
            self.engine.remove(&seen.container).await?;
        }
        for volume in &plan.volumes {
            self.engine.remove_volume(volume).await?;
            info!(app = %volume.app, volume = %volume.volume, "volume removed");
        }
        Ok(())
    }
}

fn stop(seen: &ObservedService) -> Step {
    let (app, service) = (seen.app.clone(), seen.service.clone());
    Step::Stop { app, service, container: seen.container.clone(), grace: seen.grace }
}

fn refused(what: &str, error: &EngineError) -> Answer {
    Answer::Refused(format!("{what}: {}", with_causes(error)))
}
