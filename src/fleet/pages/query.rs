//! The selection of devices in the address of a page, so that it can be linked to and shared. Pure.

use super::fields::{Fields, query};
use crate::fleet::operator_api::Selection;

/// The fields of the address of a fleet's page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TableQuery {
    pub(super) filter: String,
    pub(super) state: String,
    pub(super) name: String,
    pub(super) sort: String,
    pub(super) after: String,
}

impl TableQuery {
    pub(super) fn of(fields: &Fields) -> Self {
        Self {
            filter: fields.text("filter"),
            state: fields.text("state"),
            name: fields.text("name"),
            sort: fields.text("sort"),
            after: fields.text("after"),
        }
    }

    /// The same, from its first page.
    pub(super) fn at_start(&self) -> Self {
        Self { after: String::new(), ..self.clone() }
    }

    pub(super) fn is_narrowed(&self) -> bool {
        [&self.filter, &self.state, &self.name].into_iter().any(|text| !text.is_empty())
    }

    /// All fields, by name.
    pub(super) fn fields(&self) -> [(&'static str, &str); 5] {
        let Self { filter, state, name, sort, after } = self;
        [("filter", filter), ("state", state), ("name", name), ("sort", sort), ("after", after)]
    }

    /// The address of a fleet's page with these fields.
    pub(super) fn address(&self, fleet: u64) -> String {
        let query = query(self.fields());
        let mark = if query.is_empty() { "" } else { "?" };
        format!("/fleets/{fleet}{mark}{query}")
    }

    pub(super) fn selection(&self, fleet: u64) -> Selection {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        Selection {
            fleet: fleet.to_string(),
            filter: given(&self.filter),
            state: given(&self.state),
            name: given(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_was_written() {
        let fields = Fields::parse("filter=site%3Dnorth%2C!beta&state=failing&sort=-seen&other=1");
        let query = TableQuery::of(&fields);
        let address = query.address(7);
        assert_eq!(address, "/fleets/7?filter=site%3Dnorth%2C%21beta&state=failing&sort=-seen");
        assert_eq!(TableQuery::of(&Fields::parse(address.split_once('?').unwrap().1)), query);
        assert!(query.is_narrowed() && !TableQuery::default().is_narrowed());
    }
}
