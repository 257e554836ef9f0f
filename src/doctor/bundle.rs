//! Collects diagnostics for support from another place, as files.
//!
//! The bundle contains only fields that are named here or in the types that are serialized. Nothing is copied as it
//! is, and nothing is filtered afterwards. So no key, no value of an environment variable, no command and no author's
//! label gets into it, unless a service that failed wrote one in its last lines, which the status has.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::engine::docker;
use super::{Finding, Subject};
use crate::api;
use crate::config::{Config, Place, settings};
use crate::host;
use crate::model::text;
use crate::tar;

/// How far back the journal is read, and how many lines of it at most.
const JOURNAL: [&str; 4] = ["--since=-24h", "--lines=5000", "--output=json", "--no-pager"];

/// Fields of the journal that the bundle contains: the name there, and the name in the bundle.
const FIELDS: [(&str, &str); 17] = [
    ("__REALTIME_TIMESTAMP", "at_us"),
    ("PRIORITY", "priority"),
    ("MESSAGE", "message"),
    ("UNIT", "unit"),
    ("COTTER_APP", "app"),
    ("COTTER_SERVICE", "service"),
    ("COTTER_RELEASE", "release"),
    ("COTTER_STEP", "step"),
    ("COTTER_REASON", "reason"),
    ("COTTER_WHAT", "what"),
    ("COTTER_WHY", "why"),
    ("COTTER_ERROR", "error"),
    ("COTTER_IMAGE", "image"),
    ("COTTER_VERSION", "version"),
    ("COTTER_UUID", "uuid"),
    ("COTTER_INSTANCE", "instance"),
    ("COTTER_RETRY_AFTER_S", "retry_after_s"),
];

/// Longest time to wait for the engine.
const WITHIN: Duration = Duration::from_secs(30);

/// A file of the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub name: String,
    pub content: Vec<u8>,
}

impl Page {
    /// Makes a page of JSON.
    #[must_use]
    pub fn json(name: &str, value: &impl Serialize) -> Self {
        let text = serde_json::to_string_pretty(value).unwrap_or_else(|error| error.to_string());
        Self { name: format!("{name}.json"), content: text::json(&text).into_bytes() }
    }
}

/// Collects the pages of a device: facts about it, its checks, its settings, the agent's and the engine's answers, and
/// the journal. A page that cannot be collected says why.
pub async fn pages(subject: &Subject) -> Vec<Page> {
    let findings = Box::pin(super::examine(subject)).await;
    let mut pages = vec![about(), checks(&findings)];
    pages.push(match settings(&subject.given, &subject.environment) {
        Ok(settings) => {
            let setting = |s: &crate::config::Setting| {
                json!({ "key": s.key, "value": s.value, "from": s.place.as_ref().map(Place::to_string) })
            };
            Page::json("settings", &settings.iter().map(setting).collect::<Vec<_>>())
        }
        Err(error) => absent("settings", &error.to_string()),
    });
    let Ok(config) = Config::load(&subject.given, &subject.environment) else { return pages };
    let socket = config.runtime_dir.join("status.sock");
    pages.push(match api::status(&socket).await {
        Ok(status) => Page::json("status", &status),
        Err(error) => absent("status", &error.to_string()),
    });
    pages.push(match api::history(&socket).await {
        Ok(history) => Page::json("history", &history),
        Err(error) => absent("history", &error.to_string()),
    });
    pages.push(match api::plan(&socket).await {
        Ok(plan) => Page::json("plan", &plan),
        Err(error) => absent("plan", &error.to_string()),
    });
    pages.extend(engine(&config).await);
    pages.push(journal(&config).await);
    pages
}

/// Packs the pages into one tar file, in a folder called `folder`.
#[must_use]
pub fn archive(folder: &str, pages: &[Page]) -> Vec<u8> {
    let named: Vec<_> = pages.iter().map(|page| (format!("{folder}/{}", page.name), &page.content)).collect();
    let entries: Vec<_> = named.iter().map(|(name, content)| tar::Entry::private(name, content)).collect();
    tar::archive(&entries, u64::try_from(host::now().as_second()).unwrap_or(0))
}

fn absent(name: &str, why: &str) -> Page {
    Page::json(name, &json!({ "absent": why }))
}

fn about() -> Page {
    let memory = host::memory();
    Page::json(
        "about",
        &json!({
            "made_at": host::time_in(Duration::ZERO),
            "cotter": env!("CARGO_PKG_VERSION"),
            "architecture": std::env::consts::ARCH,
            "uptime_s": host::uptime().as_secs(),
            "memory_bytes": memory.map(|memory| memory.total),
            "memory_available_bytes": memory.map(|memory| memory.available),
        }),
    )
}

fn checks(findings: &[Finding]) -> Page {
    Page::json("checks", &findings)
}

async fn engine(config: &Config) -> Vec<Page> {
    let docker = docker(config);
    let answers = async { (docker.survey().await, docker.inspections().await) };
    let Ok((survey, containers)) = tokio::time::timeout(WITHIN, answers).await else {
        return ["engine", "containers"].map(|name| absent(name, "the engine did not answer in time")).into();
    };
    vec![
        survey.map_or_else(|e| absent("engine", &e.to_string()), |survey| Page::json("engine", &survey)),
        containers
            .map_or_else(|e| absent("containers", &e.to_string()), |all| Page::json("containers", &all)),
    ]
}

/// Returns the journal of the agent's unit, one JSON object per line.
async fn journal(config: &Config) -> Page {
    let (unit, _) = super::agent::unit_of(config.instance.as_str()).await;
    let mut arguments = JOURNAL.to_vec();
    arguments.extend(["--unit", &unit]);
    match host::ask("journalctl", &arguments).await {
        Ok(text) => {
            Page { name: "journal.jsonl".to_owned(), content: text::json(&entries(&text)).into_bytes() }
        }
        Err(why) => absent("journal", &why),
    }
}

/// Selects the known fields from lines in the JSON format of `journalctl`. Drops lines that are not JSON objects.
fn entries(text: &str) -> String {
    let mut evidence = String::new();
    for line in text.lines() {
        let Ok(entry) = serde_json::from_str::<BTreeMap<String, Value>>(line) else { continue };
        let known = FIELDS.iter().filter_map(|(theirs, ours)| {
            // journalctl prints a text that is not UTF-8 as numbers. We never write one.
            Some(((*ours).to_owned(), entry.get(*theirs).filter(|value| value.is_string())?.clone()))
        });
        evidence.push_str(&Value::Object(known.collect::<Map<_, _>>()).to_string());
        evidence.push('\n');
    }
    evidence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_fields_of_the_journal_are_handed_on() {
        let text = "{\"MESSAGE\":\"step done\",\"COTTER_STEP\":\"start web\",\"_CMDLINE\":\"x SECRET\",\
                    \"COTTER_TOKEN\":\"SECRET\",\"PRIORITY\":\"6\"}\nSECRET\n{\"MESSAGE\":[83,69]}\n";
        let expected = "{\"message\":\"step done\",\"priority\":\"6\",\"step\":\"start web\"}\n{}\n";
        assert_eq!(entries(text), expected);
    }
}
