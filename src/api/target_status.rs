//! What the status says about the target beside its apps: the cloud's variables, and apps that are left alone.

use serde::{Deserialize, Serialize};

use crate::model::{AnsweredVariable, LeftAlone, Report, Target};

/// The answer to one configuration variable of the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariableStatus {
    /// As the cloud sent it.
    pub name: String,
    /// `honoured`, `not_applicable`, `unknown` or `bad_value`.
    pub standing: String,
    /// What it does on this device; or why it does nothing, and what to do.
    pub what: String,
}

/// An app of the target that the device does not run and does not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftAloneStatus {
    pub uuid: String,
    pub name: String,
    pub why: String,
}

impl VariableStatus {
    /// Returns `true` if the variable does what it says.
    #[must_use]
    pub fn is_honoured(&self) -> bool {
        self.standing == "honoured"
    }

    /// The variable and its answer, for people.
    #[must_use]
    pub fn line(&self) -> String {
        let standing = if self.standing == "not_applicable" { "not applicable here: " } else { "" };
        format!("{}: {standing}{}", self.name, self.what)
    }
}

fn target(report: &Report) -> Option<&Target> {
    report.delivered.as_ref().map(|delivered| &*delivered.target)
}

pub(super) fn variables(report: &Report) -> Vec<VariableStatus> {
    let of = |answer: &AnsweredVariable| VariableStatus {
        name: answer.name.clone(),
        standing: answer.standing.as_str().to_owned(),
        what: answer.what.clone(),
    };
    target(report).into_iter().flat_map(|target| &target.variables).map(of).collect()
}

pub(super) fn left_alone(report: &Report) -> Vec<LeftAloneStatus> {
    let of = |app: &LeftAlone| LeftAloneStatus {
        uuid: app.uuid.clone(),
        name: app.name.clone(),
        why: app.why.to_owned(),
    };
    target(report).into_iter().flat_map(|target| &target.left_alone).map(of).collect()
}
