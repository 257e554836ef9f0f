//! The form of a rollout: its fields, and the definition that they make.

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::fields::Fields;
use super::panel::{choices, field, tick};
use super::trouble::Trouble;
use crate::model::text::{one_line, shortened};
use crate::wire::operator_api::Code;

/// Fields of the definition that are plain texts, by their names in it.
const TEXTS: [&str; 7] = ["filter", "soak", "rate", "advance", "observe", "on_halt", "confirm"];

/// Fields with numbers, and their labels.
const NUMBERS: [(&str, &str); 2] = [("at_once", "At once"), ("max_failures", "Most failures")];

/// What follows a wave that a person must approve.
const APPROVAL: &str = "approve";

/// Reads the definition of a rollout. What a field may be is decided by the API.
///
/// # Errors
///
/// If a number is none.
pub(super) fn definition(fields: &Fields) -> Result<Value, Trouble> {
    let mut definition = Map::new();
    for name in TEXTS {
        if let Some(text) = fields.get(name) {
            definition.insert(name.to_owned(), text.into());
        }
    }
    for (name, label) in NUMBERS {
        if let Some(text) = fields.get(name) {
            let number: u32 = text.parse().map_err(|_| {
                let wrong =
                    format!("{label} is {:?}; write a number, or leave it empty", shortened(text, 40));
                Trouble::new(Code::BadRequest, wrong)
            })?;
            definition.insert(name.to_owned(), number.into());
        }
    }
    let waves = waves(&fields.text("waves"), fields.get("approve").is_some());
    definition.insert("waves".to_owned(), waves.into());
    let segments = listed(&fields.text("segments"));
    definition.insert("segments".to_owned(), segments.into());
    let windows: Vec<String> = fields.get("window").map(str::to_owned).into_iter().collect();
    definition.insert("windows".to_owned(), windows.into());
    definition.insert("strict".to_owned(), fields.get("strict").is_some().into());
    Ok(Value::Object(definition))
}

fn listed(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Reads waves with commas between them. With `has_approvals` each but the last one needs an approval before the next begins.
fn waves(text: &str, has_approvals: bool) -> Vec<String> {
    let mut waves = listed(text);
    let last = waves.len().saturating_sub(1);
    for wave in waves.iter_mut().take(last).filter(|_| has_approvals) {
        if wave.split_whitespace().last() != Some(APPROVAL) {
            wave.push_str(" approve");
        }
    }
    waves
}

/// The fields of the form besides the release. `webhooks` has the names to choose from, if the user may see them.
pub(super) fn shown(fields: &Fields, webhooks: Option<&[String]>) -> Markup {
    let is_first = fields.get("plan").is_none();
    let or = |name: &str, usual: &str| match fields.get(name) {
        None if is_first => usual.to_owned(),
        given => given.unwrap_or_default().to_owned(),
    };
    let on_halt = if fields.text("on_halt").is_empty() { "pause".to_owned() } else { fields.text("on_halt") };
    html! {
        (field("waves", "Waves", &or("waves", "1, 10%, 100%"), "In rising order, with commas: a number of devices, a share of the fleet, or tags such as ring=canary. The last is 100%."))
        (tick("approve", "1", fields.get("approve").is_some(), &html! { "A person must approve before each further wave begins" }))
        (field("soak", "Soak time", &or("soak", "30min"), "How long the rollout waits, before the next wave, after enough devices have accepted the release."))
        (field("rate", "Rate", &fields.text("rate"), "The maximum number of devices that get the release in a time, such as 500/h. Empty: no limit."))
        (choices("on_halt", "If too many devices fail", &on_halt, &[
            ("pause", "Halt", "no further device gets the release; those that have it keep it"),
            ("pull-back", "Halt and pull back", "those that have it also return to the target of the fleet"),
        ]))
        (webhook_field(fields, webhooks))
        (further(fields))
    }
}

fn webhook_field(fields: &Fields, webhooks: Option<&[String]>) -> Markup {
    let chosen = fields.text("confirm");
    html! {
        @match webhooks {
            None => (field("confirm", "Webhook that must let each wave begin", &chosen, "Its name. Empty: none.")),
            Some([]) => {},
            Some(names) => div.field {
                label for="confirm" { "Webhook that must let each wave begin" }
                select #confirm name="confirm" {
                    option value="" { "None" }
                    @for name in names { option value=(name) selected[*name == chosen] { (one_line(name)) } }
                }
            },
        }
    }
}

fn further(fields: &Fields) -> Markup {
    let names = ["filter", "advance", "observe", "at_once", "max_failures", "window", "segments", "strict"];
    let is_open = names.iter().any(|name| fields.get(name).is_some());
    let text = |name: &str, label: &str, hint: &str| field(name, label, &fields.text(name), hint);
    html! {
        details.help open[is_open] {
            summary { "More settings" }
            (text("filter", "Only devices with these tags", "Such as site=north,!lab. Empty: all devices."))
            (text("advance", "Must have accepted it", "The share of the reachable devices, such as 95%. Empty: 95%."))
            (text("max_failures", "Most failures", "It halts at this number of failed devices. Empty: a test of the failure rate decides."))
            (text("at_once", "At once", "The maximum number of devices that update at the same time. Empty: no limit."))
            (text("window", "Window", "When devices may get it, such as Mon-Fri 22:00-04:00 Europe/Zurich. Empty: always."))
            (text("segments", "Segments", "Tags whose values are judged by themselves, such as hw. Empty: none."))
            (text("observe", "Observation", "How long all devices are watched after the last wave. Empty: 1h."))
            (tick("strict", "1", fields.get("strict").is_some(), &html! { "Pause after a wave if a device has failed and the verdicts do not prove the release good" }))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fleet::rollout::Definition;

    #[test]
    fn fields_make_the_definition_that_the_api_reads() {
        let text = "waves=ring%3Dcanary%2C+10%25+approve%2C100%25&approve=1&soak=30min&rate=500%2Fh&on_halt=pull-back\
                    &confirm=freeze&filter=site%3Dnorth%2C!lab&advance=90%25&observe=2h&at_once=20&max_failures=3\
                    &window=Mon-Fri+22%3A00-04%3A00+Europe%2FZurich&segments=hw%2C+site&strict=1&release=x&csrf=y";
        let made = definition(&Fields::parse(text)).unwrap();
        let expected = json!({
            "waves": ["ring=canary approve", "10% approve", "100%"], "soak": "30min", "rate": "500/h",
            "on_halt": "pull-back", "confirm": "freeze", "filter": "site=north,!lab", "advance": "90%",
            "observe": "2h", "at_once": 20, "max_failures": 3, "windows": ["Mon-Fri 22:00-04:00 Europe/Zurich"],
            "segments": ["hw", "site"], "strict": true,
        });
        assert_eq!(made, expected);
        serde_json::from_value::<Definition>(made).unwrap().check().unwrap();
        let least = definition(&Fields::parse("waves=100%25&approve=1")).unwrap();
        assert_eq!(serde_json::from_value::<Definition>(least).unwrap().waves.len(), 1);
    }

    #[test]
    fn a_text_that_is_no_number_is_refused_with_its_field() {
        for (text, wrong) in
            [("at_once=many", "At once is \"many\""), ("max_failures=-1", "Most failures is \"-1\"")]
        {
            assert!(definition(&Fields::parse(text)).unwrap_err().failure.message.starts_with(wrong));
        }
    }
}
