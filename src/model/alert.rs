//! The kinds of alerts: events that a person should see. Their names and ids are stable.

/// A kind of alert; `docs/journal.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alert {
    /// A release was accepted and is the good one from now on.
    UpdateDone,
    /// A release was rejected.
    Rejected,
    /// After a rejection all services of the good release run again.
    RolledBack,
    /// A release does not run well, and there is none to roll back to, or the rollback fails.
    Degraded,
    /// A release cannot run here:
    Blocked,
    /// The engine cannot stop or remove a container.
    EngineStuck,
    /// The engine does not answer.
    EngineLost,
    /// The store was damaged, and was repaired from a copy or started empty.
    StoreRecovered,
    /// The store cannot be written.
    StoreFailing,
    /// At a reload the settings were not accepted.
    SettingsWrong,
}

impl Alert {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::UpdateDone,
        Self::Rejected,
        Self::RolledBack,
        Self::Degraded,
        Self::Blocked,
        Self::EngineStuck,
        Self::EngineLost,
        Self::StoreRecovered,
        Self::StoreFailing,
        Self::SettingsWrong,
    ];

    /// The stable name, the field `alert` of a journal entry.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpdateDone => "update_done",
            Self::Rejected => "rejected",
            Self::RolledBack => "rolled_back",
            Self::Degraded => "degraded",
            Self::Blocked => "blocked",
            Self::EngineStuck => "engine_stuck",
            Self::EngineLost => "engine_lost",
            Self::StoreRecovered => "store_recovered",
            Self::StoreFailing => "store_failing",
            Self::SettingsWrong => "settings_wrong",
        }
    }

    /// The `MESSAGE_ID` for systemd, 32 hex digits.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::UpdateDone => "9d146db3d8604572821db671adfff0b2",
            Self::Rejected => "d7486aa294c347a4a7fd80e39f214d53",
            Self::RolledBack => "b6ad55ce205c4a3780f71c5b6a2388f1",
            Self::Degraded => "ee3eec9e630a4765ba9af4f39a482a6a",
            Self::Blocked => "91b0971fd3ad49fcbf2abc82cd156078",
            Self::EngineStuck => "f1dda223969c4bfdbaabca6220f58d18",
            Self::EngineLost => "53573947dd464c51817a5eb089d7cadf",
            Self::StoreRecovered => "5c0beecd1472402784c10a209bf74624",
            Self::StoreFailing => "b941b82744d14173816e0534b902b1fd",
            Self::SettingsWrong => "74dc7577bd514758a5ad32a002bdcb79",
        }
    }

    /// The message of the journal entry.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::UpdateDone => "update done",
            Self::Rejected => "release rejected",
            Self::RolledBack => "rolled back",
            Self::Degraded => "release degraded",
            Self::Blocked => "update blocked",
            Self::EngineStuck => "engine stuck",
            Self::EngineLost => "engine does not answer",
            Self::StoreRecovered => "store repaired",
            Self::StoreFailing => "store cannot be written; going on without it",
            Self::SettingsWrong => "settings are wrong, those in force stay",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_have_every_event() {
        let read =
            |path: &str| std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let (page, catalog) = (read("docs/journal.md"), read("systemd/cotter.catalog"));
        for alert in Alert::ALL {
            let row = format!("| `{}` | `{}` |", alert.as_str(), alert.id());
            assert!(page.contains(&row), "docs/journal.md has no row {row}");
            let entry = format!("-- {}\nSubject: Cotter: {}\n", alert.id(), alert.message());
            assert!(catalog.contains(&entry), "the catalog has no entry {entry}");
        }
        assert_eq!(catalog.matches("\n-- ").count(), Alert::ALL.len());
    }
}
