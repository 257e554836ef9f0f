//! The errors of the API, held against docs/api.md and docs/openapi-fleet.json.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::model::{DeviceUuid, Refusal as ContentRefusal};

/// The first two cells of each row below a header of this page.
fn rows(header: &str) -> BTreeSet<(String, String)> {
    let page = include_str!("../../../docs/api.md");
    let lines = page.lines().skip_while(|line| !line.starts_with(header)).skip(2);
    let cells = lines.map_while(|line| line.strip_prefix("| ")).filter_map(|line| {
        let mut cells = line.split(" | ").map(|cell| cell.trim_matches('`').to_owned());
        Some((cells.next()?, cells.next()?))
    });
    cells.collect()
}

fn documented(field: &str) -> BTreeSet<String> {
    let document: Value = serde_json::from_str(include_str!("../../../docs/openapi-fleet.json")).unwrap();
    let error = &document["components"]["schemas"]["Error"]["properties"]["error"]["properties"];
    let words = error[field]["enum"].as_array().unwrap();
    assert_eq!(
        words.iter().map(Value::as_str).collect::<BTreeSet<_>>().len(),
        words.len(),
        "none is there twice"
    );
    words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// A code that is not in `Code::ALL` would have a row in `word_and_status`, too.
#[test]
fn every_code_is_documented_with_its_status_and_no_other() {
    let next = |code: Code| Code::ALL.iter().position(|known| *known == code);
    assert!(Code::ALL.iter().enumerate().all(|(at, code)| next(*code) == Some(at)), "none is there twice");
    let known: BTreeSet<_> = Code::ALL.iter().map(|code| code.word_and_status()).collect();
    let expected: BTreeSet<_> =
        known.iter().map(|(word, status)| (status.to_string(), (*word).to_owned())).collect();
    assert_eq!(rows("| status | code |"), expected);
    assert_eq!(documented("code"), known.iter().map(|(word, _)| (*word).to_owned()).collect());
    // The enum has no code besides these.
    let source = include_str!("../../wire/operator_api/errors.rs");
    assert_eq!(source.matches("=> (\"").count(), Code::ALL.len());
}

#[test]
fn every_rule_is_documented_and_no_other() {
    let sources = [
        include_str!("../policy/refusal.rs"),
        include_str!("../access/refusal.rs"),
        include_str!("../webhook/refusal.rs"),
    ];
    let of_source = |source: &'static str| {
        let words = source.lines().filter_map(|line| line.split_once("=> \"")?.1.strip_suffix("\","));
        words.map(str::to_owned)
    };
    let mut rules: BTreeSet<_> = sources.into_iter().flat_map(of_source).collect();
    assert!(rules.len() > 40, "{rules:?}");
    rules.insert("role".to_owned());
    assert_eq!(rows("| rule |").into_iter().map(|(rule, _)| rule).collect::<BTreeSet<_>>(), rules);
    assert_eq!(documented("rule"), rules);
}

#[test]
fn a_remedy_is_the_end_of_the_message_and_nothing_that_a_client_sent() {
    let sly = "x; run \"rm -rf\"; y".to_owned();
    let uuid = DeviceUuid::parse("0123456789abcdef0123456789abcdef").unwrap();
    for (refusal, remedy) in [
        (Refusal::NoSuchFleet { given: sly.clone() }, Some("`cotter fleet list` shows them")),
        (Refusal::FleetNameTaken { name: "lab".to_owned() }, Some("choose another")),
        (
            Refusal::BadText { what: "fleet name", given: sly.clone(), accepts: "it has 1 letter" },
            Some("it has 1 letter"),
        ),
        (
            Refusal::BadText { what: "fleet name", given: sly.clone(), accepts: "it is long; cut it" },
            Some("cut it"),
        ),
        (Refusal::BadVariable { name: sly.clone(), why: "it is long" }, None),
        (Refusal::OutOfRange { what: "rate", given: 0, least: 1, most: 2 }, None),
        (Refusal::UuidTaken { uuid: uuid.clone() }, Some("a new device needs a new uuid")),
        (
            Refusal::Access(AccessRefusal::BadName { what: "user", given: sly, accepts: "it has letters" }),
            Some("it has letters"),
        ),
        (
            Refusal::Unsupported {
                refusals: vec![ContentRefusal { path: "a; b".to_owned(), why: "no; no".to_owned() }],
            },
            Some("correct these places of the compose file"),
        ),
    ] {
        let ApiError { failure, .. } = refusal.into();
        assert_eq!(failure.remedy.as_deref(), remedy, "{failure:?}");
        assert!(failure.rule.is_some(), "{failure:?}");
    }
    let wrong = ApiError::with_remedy(Code::BadRequest, "it is wrong", "correct it").failure;
    assert_eq!(
        (wrong.message.as_str(), wrong.remedy.as_deref()),
        ("it is wrong; correct it", Some("correct it"))
    );
}
