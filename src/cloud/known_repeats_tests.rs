//! What is repeated to a balena API, and what is not, when reports leave something out.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::known::{Repeats, SentReports};
use crate::wire::report_v3::DeviceReport;

fn report(text: &Value) -> DeviceReport {
    serde_json::from_value(text.clone()).unwrap()
}

fn with_apps(rest: &Value) -> DeviceReport {
    let service = json!({ "image": "web", "status": "Running", "download_progress": 100 });
    let apps = json!({ "a": { "releases": { "r": { "services": { "web": service } } } } });
    let mut all = json!({ "apps": apps });
    all.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    report(&all)
}

/// Reports `full`, and returns what is sent.
fn sent(known: &mut SentReports, full: &DeviceReport, now: Instant, repeats: &Repeats) -> Value {
    let news = known.next_report(full, now, Some(repeats));
    if news != DeviceReport::default() {
        known.took(full.clone(), &news, now, Some(repeats));
    }
    serde_json::to_value(&news).unwrap()
}

#[test]
fn what_a_report_leaves_out_the_cloud_still_has() {
    let (mut known, begin, repeats) = (SentReports::default(), Instant::now(), Repeats::default());
    sent(&mut known, &with_apps(&json!({ "ip_address": "a", "cpu_usage": 19 })), begin, &repeats);
    let without = report(&json!({ "ip_address": "b" }));
    assert_eq!(sent(&mut known, &without, begin, &repeats), json!({ "ip_address": "b" }));
    let again = with_apps(&json!({ "ip_address": "b", "cpu_usage": 19 }));
    assert_eq!(sent(&mut known, &again, begin, &repeats), json!({}));
}

#[test]
fn apps_that_are_not_known_when_they_are_due_are_repeated_later() {
    let (mut known, begin) = (SentReports::default(), Instant::now());
    let repeats = Repeats { sample: Duration::from_secs(1 << 20), ..Repeats::default() };
    let full = with_apps(&json!({}));
    sent(&mut known, &full, begin, &repeats);
    known.sampled(begin, &repeats);
    let due = begin + repeats.apps;
    assert_eq!(known.due(), Some(due));
    assert_eq!(
        sent(&mut known, &report(&json!({})), due, &repeats),
        json!({}),
        "e.g. the target is not read yet"
    );
    assert_eq!(known.due(), Some(due + repeats.apps), "and not at once, again and again");
    assert_ne!(sent(&mut known, &full, due + repeats.apps, &repeats), json!({}));
}

#[test]
fn the_daily_repeat_takes_no_sample_of_its_own() {
    let (mut known, begin) = (SentReports::default(), Instant::now());
    let repeats = Repeats { sample: Duration::from_secs(2 * 24 * 3600), ..Repeats::default() };
    let full = with_apps(&json!({ "ip_address": "a" }));
    sent(&mut known, &full, begin, &repeats);
    known.sampled(begin, &repeats);
    let due = begin + repeats.all;
    assert_eq!(sent(&mut known, &full, due, &repeats), serde_json::to_value(&full).unwrap());
    assert!(!known.is_sample_due(due));
}
