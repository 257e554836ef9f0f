//! Fields that forms of the settings share: the fleets that a thing is for, and numbers.

use maud::{Markup, html};

use crate::fleet::pages::fields::Fields;
use crate::fleet::pages::parts::{grouped, named};
use crate::fleet::pages::trouble::Trouble;
use crate::model::text::shortened;
use crate::wire::operator_api::{Code, FleetView};

/// Asks for all fleets or some. Nothing is chosen at first, so that no token reaches more than a person meant.
pub(super) fn scope(given: &Fields, fleets: &[FleetView], has_more: bool) -> Markup {
    let (scope, chosen) = (given.text("scope"), given.all("fleet"));
    html! {
        fieldset.options {
            legend.label { "Fleets" }
            label.option {
                input type="radio" name="scope" value="all" required checked[scope == "all"];
                strong { "All fleets" }
                span.muted { "also those that are created later" }
            }
            label.option {
                input type="radio" name="scope" value="some" required checked[scope == "some"];
                strong { "Only these" }
            }
            div.menu-of-releases {
                @for fleet in fleets {
                    label.option {
                        input type="checkbox" name="fleet" value=(fleet.name) checked[chosen.contains(&fleet.name)];
                        span { (named(&fleet.name)) }
                    }
                }
            }
            @if has_more { p.muted { "These are the first " (grouped(fleets.len())) " fleets; " code { "cotter" } " takes any." } }
        }
    }
}

/// Reads what [`scope`] asks for; `None`: all fleets.
///
/// # Errors
///
/// If it contradicts itself.
pub(super) fn read_scope(fields: &Fields) -> Result<Option<Vec<String>>, Trouble> {
    let bad = |message: &str| Err(Trouble::new(Code::BadRequest, message));
    let fleets = fields.all("fleet");
    match fields.text("scope").as_str() {
        "all" if fleets.is_empty() => Ok(None),
        "all" => bad("all fleets and some are chosen; choose one of both"),
        "some" if fleets.is_empty() => bad("no fleet is chosen; choose some, or all fleets"),
        "some" => Ok(Some(fleets)),
        _ => bad("it is not said which fleets; choose all fleets, or some"),
    }
}

/// Reads a number that may be left out.
///
/// # Errors
///
/// If the field has another text.
pub(super) fn number<T: std::str::FromStr>(
    fields: &Fields,
    name: &str,
    label: &str,
) -> Result<Option<T>, Trouble> {
    let Some(text) = fields.get(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let message = format!("{label} is {:?}; write a number, or leave it empty", shortened(text, 40));
        Trouble::new(Code::BadRequest, message)
    })
}

/// Reads a text that may be left out.
pub(super) fn given(fields: &Fields, name: &str) -> Option<String> {
    fields.get(name).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fleets_are_all_or_some_and_never_guessed() {
        let read = |text: &str| read_scope(&Fields::parse(text)).map_err(|trouble| trouble.failure.message);
        assert_eq!(read("scope=all"), Ok(None));
        assert_eq!(read("scope=some&fleet=a&fleet=b"), Ok(Some(vec!["a".to_owned(), "b".to_owned()])));
        for bad in ["", "fleet=a", "scope=some", "scope=all&fleet=a", "scope=none"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_is_a_number_or_left_out() {
        let read = |text: &str| {
            number::<u32>(&Fields::parse(text), "uses", "Uses").map_err(|trouble| trouble.failure.message)
        };
        assert_eq!((read(""), read("uses=+"), read("uses=12")), (Ok(None), Ok(None), Ok(Some(12))));
        assert!(read("uses=-1").unwrap_err().starts_with("Uses is \"-1\"; write a number"));
    }
}
