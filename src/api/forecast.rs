//! The document of `GET /v1/plan`: what the next cycles would do.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::document::{SCHEMA_VERSION, WaitingStatus, waiting};
use crate::model::{Forecast, Report, Step};

/// The stages that are to come, if all goes well and the target stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanDocument {
    pub schema_version: u32,
    /// Why nothing can be foreseen; absent when it can.
    pub engine_error: Option<String>,
    pub stages: Vec<StageStatus>,
    /// What is waited for at the end, and does not end by itself or by an operator's word.
    pub waiting: Vec<WaitingStatus>,
    /// Whether more would follow than was looked for.
    pub is_cut: bool,
}

/// Steps that belong together: then the device is looked at again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageStatus {
    /// What must be over before it begins.
    pub after: Vec<WaitingStatus>,
    pub steps: Vec<StepStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepStatus {
    /// One word: the journal's field `COTTER_STEP`.
    pub step: String,
    /// Uuid; absent for images.
    pub app: Option<String>,
    pub service: Option<String>,
    /// The step in words. A container that is yet to be created is called `new-` and a number.
    pub what: String,
}

/// Makes forecasts, one at a time and beside everything else.
#[derive(Clone)]
pub struct Forecaster {
    make: Arc<dyn Fn() -> Forecast + Send + Sync>,
    turn: Arc<Semaphore>,
}

impl fmt::Debug for Forecaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forecaster").finish_non_exhaustive()
    }
}

impl Forecaster {
    /// `make` may take its time, and runs on a thread of its own.
    pub fn new(make: impl Fn() -> Forecast + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(make), turn: Arc::new(Semaphore::new(1)) }
    }

    /// The forecast of now; an empty one when its thread broke.
    pub(super) async fn forecast(&self) -> Forecast {
        let _turn = self.turn.acquire().await;
        let make = Arc::clone(&self.make);
        tokio::task::spawn_blocking(move || make()).await.unwrap_or_default()
    }
}

/// Puts the document together.
pub(super) fn plan_document(forecast: &Forecast, report: &Report) -> PlanDocument {
    let stage = |stage: &crate::model::ForeseenStage| StageStatus {
        after: stage.after.iter().map(waiting).collect(),
        steps: stage.steps.iter().map(step).collect(),
    };
    PlanDocument {
        schema_version: SCHEMA_VERSION,
        engine_error: report.engine_error.clone(),
        stages: forecast.stages.iter().map(stage).collect(),
        waiting: forecast.waiting.iter().map(waiting).collect(),
        is_cut: forecast.is_cut,
    }
}

fn step(step: &Step) -> StepStatus {
    StepStatus {
        step: step.verb().to_owned(),
        app: step.app().map(ToString::to_string),
        service: step.service().map(|(_, service)| service.to_string()),
        what: step.to_string(),
    }
}
