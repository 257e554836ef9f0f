use std::sync::Arc;

use super::*;
use crate::model::{Health, History, ServiceReport, Waiting};

fn app() -> AppId {
    AppId::parse("shop").unwrap()
}

fn commit(name: &str) -> Commit {
    Commit::parse(name).unwrap()
}

/// "one two! web@one web@two- ? degraded": the good release, the wanted one (! when it is rejected),
/// services that run (or do not, -), and after ? what is waited for; before / what has happened.
fn report(text: &str) -> Report {
    let mut report = Report::default();
    let (happened, now) = text.split_once(" / ").unwrap_or(("", text));
    let mut history = History::default();
    for (at, words) in happened.split(", ").filter(|words| !words.is_empty()).enumerate() {
        let (what, release) = words.split_once(' ').unwrap();
        let what = [What::Tried, What::Accepted, What::Rejected].into_iter().find(|w| w.as_str() == what);
        let (at, why) = (at.to_string(), String::new());
        history.add(Happening { at, app: app(), release: commit(release), what: what.unwrap(), why });
    }
    report.history = Arc::new(history);
    let (now, waits) = now.split_once(" ? ").unwrap_or((now, ""));
    let mut words = now.split(' ');
    let mut shop = AppReport { current: Some(commit(words.next().unwrap())), ..AppReport::default() };
    let target = words.next().unwrap();
    let status = if target.ends_with('!') { UpdateStatus::Rejected } else { UpdateStatus::Done };
    let target = commit(target.trim_end_matches('!'));
    shop.update.insert(target.clone(), status);
    shop.target = Some(target);
    for word in words {
        let (service, release) = word.split_once('@').unwrap();
        let status = if release.ends_with('-') { ServiceStatus::Exited } else { ServiceStatus::Running };
        shop.services.push(ServiceReport {
            service: ServiceName::parse(service).unwrap(),
            release: commit(release.trim_end_matches('-')),
            image: String::new(),
            status,
            detail: String::new(),
            since: None,
            container: None,
            progress: None,
            health: Health::Unchecked,
        });
    }
    for word in waits.split(' ').filter(|word| !word.is_empty()) {
        let reason = *Reason::ALL.iter().find(|reason| reason.as_str() == word).unwrap();
        let (why, app) = (String::new(), Some(app()));
        report.waiting.push(Waiting { app, service: None, reason, why, retry_in: None, since: None });
    }
    report.apps.insert(app(), shop);
    report
}

fn shown(event: &RaisedAlert) -> String {
    let release = event.release.iter().map(Commit::to_string);
    let words = release.chain(event.reason.map(|reason| reason.as_str().to_owned()));
    words.fold(event.alert.as_str().to_owned(), |text, word| format!("{text} {word}"))
}

#[test]
fn reports_raise_alerts() {
    for (why, reports) in [
        ("what was so at a start is none", &[("rejected two / one two! web@one", "")][..]),
        (
            "an update",
            &[
                ("one one web@one", ""),
                ("tried two / one two web@one- web@two", ""),
                ("tried two, accepted two / two two web@two", "update_done two"),
                ("tried two, accepted two / two two web@two", ""),
            ],
        ),
        (
            "a rollback, once",
            &[
                ("one one web@one", ""),
                ("rejected two / one two! web@one- web@two", "rejected two rejected"),
                ("rejected two / one two! web@one- web@two-", ""),
                ("rejected two / one two! web@one web@two-", "rolled_back one"),
                ("rejected two / one two! web@one-", ""),
                ("rejected two / one two! web@one", ""),
            ],
        ),
        (
            "a rollback with a half of it already up",
            &[
                ("one one db@one web@one", ""),
                ("rejected two / one two! db@one web@one- web@two-", "rejected two rejected"),
                ("rejected two / one two! db@one web@one", "rolled_back one"),
            ],
        ),
        (
            "a newer release in a rollback is none of it",
            &[
                ("one one web@one", ""),
                ("rejected two / one two! web@one-", "rejected two rejected"),
                ("rejected two / one three web@one", ""),
            ],
        ),
        (
            "what is waited for, when it begins",
            &[
                ("one two web@one ? downloading insufficient_disk", "blocked two insufficient_disk"),
                ("one two web@one ? insufficient_disk", ""),
                ("one two web@one ? downloading", ""),
                ("one two web@one ? insufficient_disk", "blocked two insufficient_disk"),
                (
                    "one two web@one ? degraded engine_stuck",
                    "degraded two degraded, engine_stuck two engine_stuck",
                ),
            ],
        ),
    ] {
        let mut alerts = Alerts::default();
        for (text, expected) in reports {
            let found: Vec<_> = alerts.raise(&report(text)).iter().map(shown).collect();
            assert_eq!(found.join(", "), *expected, "{why}: {text}");
        }
    }
}
