//! All records of a world, for a copy of it, and how new they are.

use super::{Change, World};
use crate::fleet::repeats::Repeats;

impl World {
    /// Returns the requests that are not done again.
    #[must_use]
    pub(in crate::fleet) fn repeats(&self) -> &Repeats {
        &self.repeats
    }

    /// Returns a change for each record, without the audit trail, which is on disk only, and without the remembered
    /// idempotency keys and messages to webhooks, because a copy may be restored days later. Applied to an empty world, they make this one.
    pub fn records(&self) -> impl Iterator<Item = Change> + '_ {
        std::iter::once(Change::Counters(self.counters))
            .chain(self.fleets().cloned().map(Change::PutFleet))
            .chain(self.releases().map(|release| Change::PutRelease(release.as_ref().clone())))
            .chain(self.keys.values().map(|key| Change::PutKey(key.as_ref().clone())))
            .chain(self.devices().cloned().map(Change::PutDevice))
            .chain(
                self.reports
                    .iter()
                    .map(|(uuid, reports)| Change::PutReports(uuid.clone(), reports.as_ref().clone())),
            )
            .chain(self.bars_after(None).cloned().map(Change::PutBar))
            .chain(self.accounts.records().map(Change::Access))
            .chain(
                self.variable_holders(None)
                    .map(|(holder, variables)| Change::PutVariables(holder.clone(), variables.clone())),
            )
            .chain(self.rollouts.records())
            .chain(self.webhooks.records())
            .chain(self.retired.iter().cloned().map(Change::RetireKey))
    }

    /// Returns a change that writes a record as it is, to try whether records can be written.
    #[must_use]
    pub fn unchanged(&self) -> Change {
        Change::Counters(self.counters)
    }

    /// Returns how far in the log of changes these records are; `None` if one server has them alone.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        self.position
    }

    /// Says how far in the log of changes these records are.
    pub fn set_position(&mut self, position: Option<u64>) {
        self.position = position;
    }
}
