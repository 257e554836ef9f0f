//! What a reporter sends to a cloud, and when.

use super::*;
use crate::http::sample::{Server, answer};
use crate::http::{Failure, Http};

const GAP: Duration = Duration::from_secs(10);

/// A reporter to this server, and the sender of its reports.
fn reporter(server: &Server, takes_accounts: Option<bool>) -> (Reporter, watch::Sender<Report>) {
    let (reports, report) = watch::channel(Report { has_target: true, ..Report::default() });
    let reporter = Reporter {
        client: Client::new(Http::new().unwrap(), &server.url(""), Duration::from_secs(10)),
        uuid: DeviceUuid::parse("0".repeat(32)).unwrap(),
        device_key: "hunter2".to_owned(),
        report,
        cloud: watch::Sender::new(CloudReport::default()),
        hardware: Box::new(Hardware::default),
        load: Box::new(Load::default),
        repeats: Repeats::default(),
        gap: GAP,
        longest_wait: Duration::from_secs(1),
        lines: 0,
        metrics: Box::new(|| None),
        takes_accounts,
        apps: LocalApps::new(),
    };
    (reporter, reports)
}

#[tokio::test]
async fn an_account_follows_at_once_when_the_cloud_says_that_it_takes_it() {
    for (headers, is_next) in [(vec!["cotter-takes: account".to_owned()], true), (Vec::new(), false)] {
        let server = Server::start(move |_| answer("200 OK", &headers, b""));
        let (mut reporter, _reports) = reporter(&server, None);
        reporter.send_changes(&mut SentReports::default()).await.unwrap();
        assert_eq!(reporter.takes_accounts, Some(is_next));
        assert_eq!(reporter.report.has_changed().unwrap(), is_next);
    }
}

#[tokio::test]
async fn a_refused_report_without_releases_is_not_sent_again_at_once() {
    let server = Server::start(|_| answer("401 Who", &[], b""));
    let (mut reporter, _reports) = reporter(&server, Some(false));
    let refused = reporter.send_changes(&mut SentReports::default()).await.unwrap_err();
    assert!(matches!(refused, CloudError::Denied { .. }), "{refused}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_report_that_failed_waits_at_least_the_gap() {
    let server = Server::start(|_| answer("200 OK", &[], b""));
    let (mut reporter, _reports) = reporter(&server, Some(false));
    let mut retry = Retry::up_to(reporter.longest_wait);
    let lost = CloudError::Unreachable { endpoint: server.url(""), why: Failure::Late };
    assert_eq!(reporter.outcome(Err(lost), &mut retry), GAP);
    assert!(reporter.report.has_changed().unwrap(), "and is sent then");
}
