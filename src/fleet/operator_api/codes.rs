//! The code of each refusal.

use crate::fleet::access::AccessRefusal;
use crate::fleet::policy::Refusal;
use crate::fleet::webhook::WebhookRefusal;
use crate::wire::operator_api::Code;

/// Returns the code of a refusal of the policy.
pub(super) fn of(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::NoSuchFleet { .. }
        | Refusal::NotOfKey { .. }
        | Refusal::NoSuchDevice { .. }
        | Refusal::NoSuchBar { .. }
        | Refusal::NoSuchKey { .. }
        | Refusal::NoSuchService { .. }
        | Refusal::NoSuchVariable { .. }
        | Refusal::NoRollout { .. }
        | Refusal::NoSuchRelease { .. } => Code::NotFound,
        Refusal::NoDeviceMatches { .. } => Code::NoMatch,
        Refusal::OutOfScope { .. } => Code::Forbidden,
        Refusal::Access(refusal) => of_access(refusal),
        Refusal::Webhook(refusal) => of_webhook(refusal),
        Refusal::Ambiguous { .. } => Code::Ambiguous,
        Refusal::BadText { .. }
        | Refusal::BadVariable { .. }
        | Refusal::BadVariableName { .. }
        | Refusal::VariablesTooLarge { .. }
        | Refusal::BadDeviceKey { .. }
        | Refusal::BadRollout { .. }
        | Refusal::OutOfRange { .. } => Code::BadRequest,
        Refusal::NotAsExpected { .. } => Code::PreconditionFailed,
        Refusal::KeyReused => Code::KeyReused,
        Refusal::DoneAlready { .. } => Code::DoneAlready,
        Refusal::ShownOnce { .. } => Code::ShownOnce,
        Refusal::Unsupported { .. } => Code::Unsupported,
        Refusal::FleetNameTaken { .. }
        | Refusal::FleetHasDevices { .. }
        | Refusal::FleetGone { .. }
        | Refusal::NotSuccessful { .. }
        | Refusal::OtherFleet { .. }
        | Refusal::FinalIsForGood { .. }
        | Refusal::InUse { .. }
        | Refusal::CommitTaken { .. }
        | Refusal::NoImages { .. }
        | Refusal::TooManyReleases { .. }
        | Refusal::ReleasesTooLarge { .. }
        | Refusal::TooManyServices { .. }
        | Refusal::NameTaken { .. }
        | Refusal::NameTakenBeyond { .. }
        | Refusal::KeyNameTaken { .. }
        | Refusal::KeyEnded { .. }
        | Refusal::TooManyRegistrations { .. }
        | Refusal::Barred { .. }
        | Refusal::TooManyBars { .. }
        | Refusal::MatchChanged { .. }
        | Refusal::UuidTaken { .. }
        | Refusal::Differs { .. }
        | Refusal::NotImported { .. }
        | Refusal::CannotRollOut { .. }
        | Refusal::RolloutGoesOn { .. }
        | Refusal::NotNow { .. }
        | Refusal::RolledOut { .. }
        | Refusal::KeyTaken => Code::Refused,
    }
}

fn of_webhook(refusal: &WebhookRefusal) -> Code {
    match refusal {
        WebhookRefusal::NoSuchWebhook { .. } => Code::NotFound,
        WebhookRefusal::Address(_) => Code::BadRequest,
        WebhookRefusal::Taken { .. }
        | WebhookRefusal::NotEncrypted { .. }
        | WebhookRefusal::TooMany { .. }
        | WebhookRefusal::Needed { .. } => Code::Refused,
    }
}

fn of_access(refusal: &AccessRefusal) -> Code {
    match refusal {
        AccessRefusal::NoSuchUser { .. } | AccessRefusal::NoSuchToken { .. } => Code::NotFound,
        AccessRefusal::TokenEnded { .. } => Code::TokenEnded,
        AccessRefusal::Ambiguous { .. } => Code::Ambiguous,
        AccessRefusal::BadName { .. } | AccessRefusal::NoFleets => Code::BadRequest,
        AccessRefusal::UserTaken { .. }
        | AccessRefusal::TokenTaken { .. }
        | AccessRefusal::Disabled { .. }
        | AccessRefusal::AdminOfSome
        | AccessRefusal::TooMany { .. } => Code::Refused,
    }
}
