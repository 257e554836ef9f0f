//! Roles, and what each may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a token may do. Each role may do all that the one before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    ReadOnly,
    ReleaseEngineer,
    Operator,
    Admin,
}

/// What a request needs. docs/access.md, "Roles", has the same table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// Read fleets, devices, releases, variables that are not secret, metrics, and the ids of provisioning keys.
    See,
    /// Create, change and delete releases.
    Release,
    /// Pin fleets and devices, and let them track.
    RollOut,
    /// Tag, rename, move and delete devices, and allow deleted ones again.
    Devices,
    /// Create and revoke provisioning keys.
    Keys,
    /// Create, change, rename and delete fleets.
    Fleets,
    /// Set and remove variables.
    Variables,
    /// Read the audit trail.
    Audit,
    /// Manage users, tokens and webhooks, back up all records, export secrets, import, and send devices to another server.
    Administer,
}

/// Whether a token for some fleets may make a request. Such a token is shown its own fleets only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// A token for some fleets may, for what is in its fleets.
    Fleets,
    /// It concerns the server as one.
    Server,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::ReadOnly, Self::ReleaseEngineer, Self::Operator, Self::Admin];

    /// Returns its name in commands and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::ReleaseEngineer => "release-engineer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    #[must_use]
    pub fn may(self, permission: Permission) -> bool {
        self >= permission.least()
    }
}

impl Permission {
    pub const ALL: [Self; 9] = [
        Self::See,
        Self::Release,
        Self::RollOut,
        Self::Devices,
        Self::Keys,
        Self::Fleets,
        Self::Variables,
        Self::Audit,
        Self::Administer,
    ];

    /// Returns the lowest role that has it.
    #[must_use]
    pub fn least(self) -> Role {
        match self {
            Self::See => Role::ReadOnly,
            Self::Release | Self::RollOut => Role::ReleaseEngineer,
            Self::Devices | Self::Keys | Self::Fleets | Self::Variables | Self::Audit => Role::Operator,
            Self::Administer => Role::Admin,
        }
    }

    /// Returns its words in docs/access.md.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::See => {
                "see fleets, devices and their logs, releases, rollouts and metrics; export without secrets"
            }
            Self::Release => "create, change and delete releases",
            Self::RollOut => "pin fleets and devices, let them track, and start and steer rollouts",
            Self::Devices => "tag, rename, move, delete and allow devices",
            Self::Keys => "create and revoke provisioning keys",
            Self::Fleets => "create, change, rename and delete fleets",
            Self::Variables => "set and remove variables",
            Self::Audit => "read the audit trail",
            Self::Administer => {
                "manage users, tokens and webhooks, back up, import, and send devices to another server"
            }
        }
    }
}

/// A text that is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no role {given:?}; the roles are read-only, release-engineer, operator and admin")]
pub struct UnknownRole {
    given: String,
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| UnknownRole { given: text.chars().take(64).collect() })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page for people has the table that the code decides by.
    #[test]
    fn the_page_has_the_table_of_roles() {
        let page = include_str!("../../../docs/access.md");
        let section = page.split("\n## ").find(|section| section.starts_with("Roles\n")).unwrap();
        let mut rows = section.lines().filter(|line| line.starts_with("| ")).map(|line| {
            line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
        });
        let names: Vec<_> = Role::ALL.iter().map(|role| format!("`{role}`")).collect();
        assert_eq!(rows.next().unwrap()[1..], names);
        assert!(rows.next().unwrap()[0].starts_with("---"));
        let expected: Vec<Vec<String>> = Permission::ALL
            .iter()
            .map(|permission| {
                let marks = Role::ALL.map(|role| if role.may(*permission) { "yes" } else { "–" }.to_owned());
                [permission.as_str().to_owned()].into_iter().chain(marks).collect()
            })
            .collect();
        assert_eq!(rows.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_role_is_written_and_read_the_same() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        assert!("root".parse::<Role>().is_err());
    }
}
