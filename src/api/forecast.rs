//! The document of `GET /v1/plan`: the forecast of the next cycles.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::document::{SCHEMA_VERSION, WaitingStatus, waiting};
use crate::model::{Forecast, Report, Step};

/// The next stages, if every step succeeds and the target stays the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanDocument {
    pub schema_version: u32,
    /// Why there is no forecast; absent if there is one.
    pub engine_error: Option<String>,
    pub stages: Vec<StageStatus>,
    /// The waits at the end that neither time nor an operator's order ends.
    pub waiting: Vec<WaitingStatus>,
    /// Whether the forecast was cut: it is too long, or the next plan breaks a safety rule.
    pub is_cut: bool,
}

/// Steps that run together. The device is observed again after them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageStatus {
    /// The waits that must end before it begins.
    pub after: Vec<WaitingStatus>,
    pub steps: Vec<StepStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepStatus {
    /// One word: the journal's field `COTTER_STEP`.
    pub step: String,
    /// Uuid; absent for images.
    pub app: Option<String>,
    #[serde(default)]
    pub app_name: Option<String>,
    pub service: Option<String>,
    /// The step as text. A container that does not exist yet is called `new-` and a number.
    pub what: String,
}

/// Makes forecasts, one at a time, in the background.
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
    /// `make` may take long: it runs on a thread of its own.
    pub fn new(make: impl Fn() -> Forecast + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(make), turn: Arc::new(Semaphore::new(1)) }
    }

    /// Makes a forecast. It is empty if its thread panicked.
    pub(super) async fn forecast(&self) -> Forecast {
        let _turn = self.turn.acquire().await;
        let make = Arc::clone(&self.make);
        tokio::task::spawn_blocking(move || make()).await.unwrap_or_default()
    }
}

/// Makes the forecast document.
pub(super) fn plan_document(forecast: &Forecast, report: &Report) -> PlanDocument {
    let stage = |stage: &crate::model::ForeseenStage| StageStatus {
        after: stage.after.iter().map(waiting).collect(),
        steps: stage.steps.iter().map(|of| step(of, report)).collect(),
    };
    PlanDocument {
        schema_version: SCHEMA_VERSION,
        engine_error: report.engine_error.clone(),
        stages: forecast.stages.iter().map(stage).collect(),
        waiting: forecast.waiting.iter().map(waiting).collect(),
        is_cut: forecast.is_cut,
    }
}

fn step(step: &Step, report: &Report) -> StepStatus {
    let app_name = step.app().and_then(|app| report.app_name(app));
    StepStatus {
        step: step.verb().to_owned(),
        app: step.app().map(ToString::to_string),
        app_name: app_name.map(str::to_owned),
        service: step.service().map(|(_, service)| service.to_string()),
        what: step.for_people(app_name),
    }
}
