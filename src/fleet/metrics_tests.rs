use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::fleet::policy::Tagging;
use crate::fleet::standing::tests::world;
use crate::wire::account::Account;

fn account(metrics: Option<&str>) -> Option<Arc<Account>> {
    let metrics = metrics.map(str::to_owned);
    Some(Arc::new(Account {
        agent: "1.2.3".into(),
        target: Some("two".into()),
        metrics,
        ..Account::default()
    }))
}

fn tag(world: &mut World, tags: &[(&str, &str)]) {
    let set = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let device = world.find_device("board").unwrap().clone();
    let changes = world.tag_device(&device, &Tagging { set, remove: Vec::new() }).unwrap();
    changes.into_iter().for_each(|change| world.apply(change));
}

fn logs() -> Logs {
    Logs::open("/nonexistent".into(), (crate::fleet::LogMode::Off, 0), 16, &Parked::new(8), |_| false)
}

/// The names of the server's metrics in a text, without the ends of a histogram and a summary.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let words = words
        .map(|word| word.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count"));
    words.filter(|word| word.starts_with("cotter_fleet_")).collect()
}

#[test]
fn the_document_and_the_dashboard_have_every_metric_and_no_other() {
    let all: BTreeSet<_> = ALL.iter().map(|(name, _, _)| *name).collect();
    assert_eq!(named(include_str!("../../docs/metrics.md")), all);
    assert_eq!(named(include_str!("../../docs/grafana.json")), all);
}

/// `tests/alerts.rs` checks the rules themselves.
#[test]
fn an_alert_is_about_metrics_that_there_are() {
    let all: BTreeSet<_> = ALL.iter().map(|(name, _, _)| *name).collect();
    let alerts = named(include_str!("../../docs/alerts.yml"));
    assert!(alerts.len() > 4 && alerts.is_subset(&all), "{alerts:?}");
}

#[test]
fn the_number_of_series_is_bounded_whatever_devices_report() {
    let labels: Vec<_> = (0..100).map(|n| format!("v{n:02}")).collect();
    let counts = labels.iter().enumerate().map(|(n, label)| ((1, label.as_str()), n + 1));
    let counts = counts.chain([((2, "v00"), 7), ((1, OTHERS), 1)]);
    let bounded = bounded(counts);
    assert_eq!(bounded.len(), MOST_OF_A_FLEET + 2);
    assert_eq!(bounded[&(1, "v99")], 100);
    assert_eq!(bounded[&(1, "v80")], 81);
    assert!(!bounded.contains_key(&(1, "v79")));
    assert_eq!(bounded[&(2, "v00")], 7);
    // No device is lost.
    let of_first: usize = bounded.iter().filter(|((fleet, _), _)| *fleet == 1).map(|(_, count)| count).sum();
    assert_eq!(of_first, 100 * 101 / 2 + 1);
}

#[test]
fn devices_are_counted_by_state_release_and_agent() {
    let world = world(|reported| (reported.running, reported.account) = (Some(1), account(None)));
    let lines = |contact| {
        let text =
            page(&world, &Requests::default(), &Work::default(), (&Parked::new(8), &logs()), |_| contact);
        let is_wanted = |line: &&str| !line.starts_with('#') && !line.ends_with(" 0");
        text.lines().filter(is_wanted).map(str::to_owned).collect::<Vec<_>>()
    };
    let version = env!("CARGO_PKG_VERSION");
    let expected = |state| {
        vec![
            format!("cotter_fleet_build_info{{version=\"{version}\"}} 1"),
            format!("cotter_fleet_devices{{fleet=\"lab\",state=\"{state}\"}} 1"),
            "cotter_fleet_release_target_devices{fleet=\"lab\",release=\"two\"} 1".to_owned(),
            "cotter_fleet_release_running_devices{fleet=\"lab\",release=\"one\"} 1".to_owned(),
            "cotter_fleet_agent_devices{fleet=\"lab\",version=\"1.2.3\"} 1".to_owned(),
            "cotter_fleet_store_up 1".to_owned(),
            "cotter_fleet_parked_polls_limit 7".to_owned(),
        ]
    };
    assert_eq!(lines(Contact::Recent), expected("updating"));
    assert_eq!(lines(Contact::Old), expected("offline"));
    let text =
        page(&world, &Requests::default(), &Work::default(), (&Parked::new(8), &logs()), |_| Contact::Recent);
    assert_eq!(text.matches("cotter_fleet_devices{").count(), DeviceState::ALL.len(), "{text}");
}

#[test]
fn requests_and_acts_are_counted() {
    let (requests, work) = (Requests::default(), Work::default());
    requests.count("/ping", "GET", 200, Some(std::time::Duration::from_millis(50)));
    work.done.store(3, Ordering::Relaxed);
    work.commits.store(2, Ordering::Relaxed);
    work.commit_micros.store(1_500_000, Ordering::Relaxed);
    work.decisions.store(4, Ordering::Relaxed);
    work.decision_micros.store(20_000, Ordering::Relaxed);
    let text = page(&World::default(), &requests, &work, (&Parked::new(8), &logs()), |_| Contact::Never);
    for line in [
        "cotter_fleet_requests_total{route=\"/ping\",method=\"GET\",status=\"200\"} 1",
        "cotter_fleet_request_duration_seconds_bucket{route=\"/ping\",method=\"GET\",le=\"0.02\"} 0",
        "cotter_fleet_request_duration_seconds_bucket{route=\"/ping\",method=\"GET\",le=\"0.1\"} 1",
        "cotter_fleet_request_duration_seconds_bucket{route=\"/ping\",method=\"GET\",le=\"+Inf\"} 1",
        "cotter_fleet_request_duration_seconds_sum{route=\"/ping\",method=\"GET\"} 0.05",
        "cotter_fleet_acts_total{result=\"done\"} 3",
        "cotter_fleet_commit_seconds_sum 1.5",
        "cotter_fleet_rollout_decision_seconds_count 4",
        "cotter_fleet_rollout_decision_seconds_sum 0.02",
        "cotter_fleet_store_up 1",
    ] {
        assert!(text.lines().any(|said| said == line), "{line}: {text}");
    }
}

#[test]
fn a_device_is_scraped_where_it_says_and_not_without_an_address() {
    assert_eq!(targets(&world(|reported| reported.account = account(None))), []);
    assert_eq!(targets(&world(|_| {})), []);
    let metadata = account(Some("169.254.169.254:80"));
    assert_eq!(targets(&world(|reported| reported.account = metadata)), [], "a record from before the rule");
    let mut world = world(|reported| reported.account = account(Some("192.0.2.7:9599")));
    tag(&mut world, &[("ring", "canary"), ("a-b", "first"), ("a.b", "second")]);
    let uuid = "a".repeat(32);
    let labels = [
        ("__meta_cotter_device_type", "generic-amd64"),
        ("__meta_cotter_fleet", "lab"),
        ("__meta_cotter_name", "board"),
        ("__meta_cotter_tag_a_b", "first"),
        ("__meta_cotter_tag_ring", "canary"),
        ("__meta_cotter_uuid", &uuid),
    ];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(targets(&world), [Scraped { targets: ["192.0.2.7:9599".to_owned()], labels }]);
}
