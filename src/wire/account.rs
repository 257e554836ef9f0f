//! What a device reports to our own fleet server besides the fields of the protocol: what it waits for, and how services
//! failed. Clouds that speak only the protocol are not sent it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::text::cleaned;
use crate::model::{self, Report};

/// The field of a report that has the account.
pub const FIELD: &str = "cotter";

/// Bounds of an account. The agent keeps them, and the server cuts what exceeds them.
const MOST_WAITS: usize = 16;
const MOST_EVIDENCE: usize = 4;
const MOST_LINES: usize = 20;
const LONGEST_WORD: usize = 128;
const LONGEST_WHY: usize = 600;
const LONGEST_LINE: usize = 300;

/// The account of a device. A report has it whole or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The version of the agent.
    #[serde(default)]
    pub agent: String,
    /// Commit of the release that the device takes for its target, by which the rest is to be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The etag of that target, by which the server knows whether it has the variables of now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Wait>,
    /// Newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// IP address and port where its metrics are served, if other machines may reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// The move to another cloud that was ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<Moving>,
}

/// A move to another cloud, as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// The other cloud.
    pub to: String,
    /// Whether the device is there now. It reports no more to this one.
    #[serde(default)]
    pub is_done: bool,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl From<&model::MoveReport> for Moving {
    fn from(report: &model::MoveReport) -> Self {
        Self { to: report.to.clone(), is_done: report.is_done, why: report.why.clone() }
    }
}

/// What a device waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// One of the stable words of docs/operations.md.
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// RFC 3339, UTC, by the device's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// How one service of a release failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub service: String,
    /// Commit.
    pub release: String,
    /// RFC 3339, UTC, by the device's clock: when it was collected.
    pub at: String,
    #[serde(default, deserialize_with = "whole")]
    pub restarts: u64,
    /// How the container ended, or how its healthcheck failed, as the predicate of a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The last lines that the service wrote, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

/// Reads a whole number. JSON has one type of numbers, so `3.0` is one, too.
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let number = f64::deserialize(from)?;
    if number < 0.0 || number.fract() != 0.0 {
        return Err(D::Error::custom("it is no whole number"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole and not negative"
    )]
    Ok(number as u64)
}

impl Account {
    /// Returns the account without anything about releases: for a device that was moved to another fleet.
    #[must_use]
    pub fn without_releases(&self) -> Self {
        let Self { agent, target: _, etag: _, waiting: _, evidence: _, metrics, moving } = self.clone();
        Self { agent, metrics, moving, ..Self::default() }
    }

    /// Makes the account of a device. `lines`: how many of a service's last lines it may have; 0: nothing at all that
    /// services or their healthchecks wrote.
    #[must_use]
    pub fn new(report: &Report, lines: usize) -> Self {
        let of_device = |reason: &str, why: &Option<String>| {
            let why = why.clone()?;
            Some(Wait { reason: reason.to_owned(), why, ..Wait::default() })
        };
        let of_device = [of_device("engine", &report.engine_error), of_device("store", &report.store_error)];
        let waits = report.waiting.iter().map(|waiting| Wait {
            service: waiting.service.as_ref().map(ToString::to_string),
            reason: waiting.reason.as_str().to_owned(),
            why: if lines == 0 { without_quotes(&waiting.why, report) } else { waiting.why.clone() },
            since: waiting.since.clone(),
        });
        let evidence = report.present_evidence().map(|one| evidence(one, lines));
        Self {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            target: report.apps.values().find_map(|app| app.target.as_ref()).map(ToString::to_string),
            etag: report.delivered.as_ref().and_then(|delivered| delivered.etag.clone()),
            waiting: of_device.into_iter().flatten().chain(waits).collect(),
            evidence: evidence.collect(),
            metrics: None,
            moving: None,
        }
        .bounded()
    }

    /// Cuts everything that exceeds the bounds, and makes all texts safe to show.
    #[must_use]
    pub fn bounded(self) -> Self {
        let word = |text: String| cleaned(&text, LONGEST_WORD);
        let waiting = self.waiting.into_iter().take(MOST_WAITS).map(|wait| Wait {
            service: wait.service.map(word),
            reason: word(wait.reason),
            why: cleaned(&wait.why, LONGEST_WHY),
            since: wait.since.map(word),
        });
        let surplus = self.evidence.len().saturating_sub(MOST_EVIDENCE);
        let evidence = self.evidence.into_iter().skip(surplus).map(|one| Evidence {
            service: word(one.service),
            release: word(one.release),
            at: word(one.at),
            restarts: one.restarts,
            cause: one.cause.map(|cause| cleaned(&cause, LONGEST_WHY)),
            lines: one.lines.into_iter().take(MOST_LINES).map(|line| cleaned(&line, LONGEST_LINE)).collect(),
        });
        Self {
            agent: word(self.agent),
            target: self.target.map(word),
            etag: self.etag.map(word),
            waiting: waiting.collect(),
            evidence: evidence.collect(),
            metrics: self.metrics.filter(|address| is_reachable(address)),
            moving: self.moving.map(|moving| Moving {
                to: cleaned(&moving.to, LONGEST_WHY),
                is_done: moving.is_done,
                why: moving.why.map(|why| cleaned(&why, LONGEST_WHY)),
            }),
        }
    }
}

/// Returns whether a text is an address and port of a device that another machine could reach. Whoever reads it may connect
/// there, so only the ranges that devices have are accepted, and of them none that leads to the reader's own machine or to a
/// metadata service of its hoster.
#[must_use]
pub fn is_reachable(text: &str) -> bool {
    text.parse().is_ok_and(|address: SocketAddr| {
        address.port() != 0
            && match address.ip().to_canonical() {
                IpAddr::V4(ip) => of_v4(ip),
                IpAddr::V6(ip) => of_v6(ip),
            }
    })
}

fn of_v4(ip: Ipv4Addr) -> bool {
    let is_of_no_host = ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast();
    !is_of_no_host
        && match ip.octets() {
            // This network, IETF protocols (Oracle's metadata), and those for later use.
            [0, ..] | [192, 0, 0, _] | [240..=255, ..] => false,
            // Metadata of Alibaba and of Azure.
            [100, 100, 100, _] | [168, 63, 129, 16] => false,
            _ => true,
        }
}

fn of_v6(ip: Ipv6Addr) -> bool {
    match ip.segments() {
        // Teredo and 6to4 have an IPv4 address inside.
        [0x2001, 0, ..] | [0x2002, ..] => false,
        // Metadata of Amazon and of Google.
        [0xfd00, 0xec2, ..] | [0xfd20, 0xce, ..] => false,
        // Global and private addresses. Others are for one machine, one link or many hosts, or have an IPv4 address inside.
        [0x2000..=0x3fff | 0xfc00..=0xfdff, ..] => true,
        _ => false,
    }
}

/// Returns a reason without the line that evidence has added to its end.
fn without_quotes(why: &str, report: &Report) -> String {
    let mut quotes = report.evidence.iter().filter_map(model::Evidence::quote);
    let rest = quotes.find_map(|quote| why.strip_suffix(&quote)?.strip_suffix("; "));
    rest.unwrap_or(why).to_owned()
}

fn evidence(evidence: &model::Evidence, lines: usize) -> Evidence {
    let silent = (lines == 0).then(|| evidence.without_output());
    let evidence = silent.as_ref().unwrap_or(evidence);
    let surplus = evidence.lines.len().saturating_sub(lines);
    Evidence {
        service: evidence.service.to_string(),
        release: evidence.release.to_string(),
        at: evidence.at.clone(),
        restarts: evidence.restarts,
        cause: evidence.cause(),
        lines: evidence.lines[surplus..].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AppId, Commit, FailedProbe, LastEnd, Reason, ServiceName, Waiting};

    #[test]
    fn without_lines_an_account_has_nothing_that_services_wrote() {
        let of = |service: &str, end, probe| model::Evidence {
            app: AppId::parse("app").unwrap(),
            release: Commit::parse("one").unwrap(),
            service: ServiceName::parse(service).unwrap(),
            at: String::new(),
            restarts: 3,
            end,
            probe,
            lines: vec!["first".to_owned(), "the SECRET".to_owned()],
        };
        let ended = of("web", Some(LastEnd::with_code(1)), None);
        let ill = of("db", None, Some(FailedProbe::new(7, "SECRET of a healthcheck")));
        let why = |evidence: &model::Evidence| format!("it failed; {}", evidence.quote().unwrap());
        let wait = |why: String| Waiting {
            app: None,
            service: None,
            reason: Reason::Rejected,
            why,
            retry_in: None,
            since: None,
        };
        let waiting = vec![wait(why(&ended)), wait(why(&ill)), wait("another reason".to_owned())];
        let report = Report { waiting, evidence: vec![ended, ill], ..Report::default() };
        let text = |lines| serde_json::to_string(&Account::new(&report, lines)).unwrap();
        assert_eq!(text(1).matches("SECRET").count(), 5, "{}", text(1));
        assert!(!text(1).contains("first"), "only the last one: {}", text(1));
        let silent = Account::new(&report, 0);
        assert!(!text(0).contains("SECRET"), "{}", text(0));
        let whys: Vec<_> = silent.waiting.iter().map(|wait| wait.why.as_str()).collect();
        assert_eq!(whys, ["it failed", "it failed", "another reason"]);
        let causes: Vec<_> = silent.evidence.iter().map(|one| one.cause.as_deref().unwrap_or("")).collect();
        assert_eq!(causes, ["exited with code 1", "its healthcheck exited with code 7"]);
    }

    #[test]
    fn an_account_is_bounded_and_safe_to_show() {
        let long = || "\u{1b}[31m".to_owned() + &"x".repeat(5000);
        let wait = || Wait { service: Some(long()), reason: long(), why: long(), since: Some(long()) };
        let evidence = |at: usize| Evidence {
            service: long(),
            release: long(),
            at: at.to_string(),
            restarts: u64::MAX,
            cause: Some(long()),
            lines: vec![long(); 100],
        };
        let account = Account {
            moving: None,
            agent: long(),
            target: Some(long()),
            etag: Some(long()),
            waiting: std::iter::repeat_with(wait).take(100).collect(),
            evidence: (0..50).map(evidence).collect(),
            metrics: Some(long()),
        };
        let account = account.bounded();
        let text = serde_json::to_string(&account).unwrap();
        assert!(text.len() < 48 * 1024, "{}", text.len());
        assert!(!text.contains("\\u001b"));
        assert_eq!(account.metrics, None);
        for (address, is_kept) in [
            ("192.0.2.7:9599", true),
            ("[2001:db8::7]:9599", true),
            ("127.0.0.1:9599", false),
            ("0.0.0.0:9599", false),
            ("0.0.0.1:9599", false),
            ("255.255.255.255:9599", false),
            ("169.254.169.254:80", false),
            ("[fe80::1%2]:9599", false),
            ("[::1]:9599", false),
            ("[::ffff:127.0.0.1]:9599", false),
            ("[::ffff:169.254.169.254]:80", false),
            ("[::ffff:0.0.0.0]:9599", false),
            ("[::127.0.0.1]:9599", false),
            ("[64:ff9b::7f00:1]:9599", false),
            ("[::ffff:192.0.2.7]:9599", true),
            ("10.0.0.7:9599", true),
            ("172.16.0.7:9599", true),
            ("192.168.0.7:9599", true),
            ("100.64.0.7:9599", true),
            ("[fd12:3456::7]:9599", true),
            ("100.100.100.200:80", false),
            ("168.63.129.16:80", false),
            ("192.0.0.192:80", false),
            ("224.0.0.1:80", false),
            ("240.0.0.1:80", false),
            ("[fd00:ec2::254]:80", false),
            ("[fd20:ce::254]:80", false),
            ("[ff02::1]:80", false),
            ("[fec0::1]:80", false),
            ("[2002:7f00:1::]:80", false),
            ("[2001:0:7f00:1::1]:80", false),
            ("[64:ff9b:1::a9fe:a9fe]:80", false),
            ("192.0.2.7:0", false),
            ("192.0.2.7", false),
            ("metadata.example.com:80", false),
        ] {
            let account = Account { metrics: Some(address.to_owned()), ..Account::default() };
            assert_eq!(account.bounded().metrics.is_some(), is_kept, "{address}");
        }
        let kept: Vec<_> = account.evidence.iter().map(|one| one.at.as_str()).collect();
        assert_eq!(kept, ["46", "47", "48", "49"], "the newest are kept");
        assert_eq!(account.clone().bounded(), account, "once is enough");
    }
}
