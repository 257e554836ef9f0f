//! The definition of a rollout, from a file and from options, which override the file.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Map, Value};

/// Arguments of `cotter-fleet simulate`, and of `cotter rollout start`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Definition of the rollout")]
pub(super) struct DefinitionArgs {
    /// File with the definition (TOML, or JSON if its name ends with .json); the options below override it
    #[arg(long, value_name = "FILE")]
    definition: Option<PathBuf>,
    /// Only devices with these tags take part
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// The waves, in rising order: a filter of tags (with & between conditions), a share, or a number of devices;
    /// the last is 100%. 'approve' after a wave: a person must approve before the next one begins
    #[arg(long, value_name = "WAVES")]
    waves: Option<String>,
    /// How long to wait, before the next wave, after enough devices have accepted the release [default: 30m]
    #[arg(long, value_name = "TIME")]
    soak: Option<String>,
    /// The share that is enough, of the reachable devices of all waves so far [default: 95%]
    #[arg(long, value_name = "SHARE")]
    advance: Option<String>,
    /// The maximum number of devices that get the release in a time: 500/h, 20/min, 1000/d
    #[arg(long, value_name = "RATE")]
    rate: Option<String>,
    /// The maximum number of devices that update at the same time
    #[arg(long, value_name = "NUMBER")]
    at_once: Option<u32>,
    /// When devices may get the release: 'Mon-Fri 02:00-04:00 Europe/Zurich'; can be repeated
    #[arg(long = "window", value_name = "WINDOW")]
    windows: Vec<String>,
    /// A release that a device must accept before it gets the new one; can be repeated, the oldest first
    #[arg(long = "barrier", value_name = "COMMIT")]
    barriers: Vec<String>,
    /// A tag whose values are judged by themselves: hw, site; can be repeated
    #[arg(long = "segment-by", value_name = "TAG")]
    segments: Vec<String>,
    /// The failure rate that must be detected [default: 5%]
    #[arg(long, value_name = "SHARE")]
    detect: Option<String>,
    /// Pauses after a wave if a device has failed and the verdicts do not prove the release good
    #[arg(long)]
    strict: bool,
    /// Halts when so many devices have failed
    #[arg(long, value_name = "NUMBER")]
    max_failures: Option<u32>,
    /// Halts when more than this share of at least 20 devices has failed
    #[arg(long, value_name = "SHARE")]
    max_failure_rate: Option<String>,
    /// After this time without contact, a device that was reachable before counts as failed [default: 1day]
    #[arg(long, value_name = "TIME")]
    silent_after: Option<String>,
    /// How long all devices are watched after the last wave [default: 1h]
    #[arg(long, value_name = "TIME")]
    observe: Option<String>,
    /// What happens to devices that have the release when the rollout halts [default: pause]
    #[arg(long, value_name = "WHAT", value_parser = ["pause", "pull-back"])]
    on_halt: Option<String>,
    /// Name of a webhook that must let each wave begin: it is asked, and answers {"proceed": true}
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
}

impl DefinitionArgs {
    /// Returns the definition as a document. Only whoever uses it knows what is right in it.
    pub(super) fn document(&self) -> anyhow::Result<Value> {
        let mut document = match &self.definition {
            Some(path) => read(path).with_context(|| format!("in {}", path.display()))?,
            None => Map::new(),
        };
        let texts = [
            ("filter", &self.filter),
            ("soak", &self.soak),
            ("advance", &self.advance),
            ("rate", &self.rate),
            ("max_failure_rate", &self.max_failure_rate),
            ("silent_after", &self.silent_after),
            ("observe", &self.observe),
            ("on_halt", &self.on_halt),
            ("confirm", &self.confirm),
        ];
        for (field, text) in texts {
            document.extend(text.clone().map(|text| (field.to_owned(), Value::from(text))));
        }
        for (field, number) in [("at_once", self.at_once), ("max_failures", self.max_failures)] {
            document.extend(number.map(|number| (field.to_owned(), number.into())));
        }
        let lists = [("windows", &self.windows), ("barriers", &self.barriers), ("segments", &self.segments)];
        for (field, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            document.insert(field.to_owned(), list.clone().into());
        }
        if let Some(waves) = &self.waves {
            let waves: Vec<&str> = waves.split(',').map(str::trim).collect();
            document.insert("waves".to_owned(), waves.into());
        }
        if self.strict {
            document.insert("strict".to_owned(), true.into());
        }
        if let Some(detect) = &self.detect {
            let test = document.entry("test").or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(test) = test else { bail!("`test` in the definition must be a table") };
            test.insert("detect".to_owned(), detect.clone().into());
        }
        Ok(Value::Object(document))
    }
}

/// Maximum number of bytes of a file.
const LONGEST: u64 = 64 * 1024;

fn read(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > LONGEST {
        bail!("it is larger than 64 KiB, which no definition is");
    }
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    Ok(if is_json { serde_json::from_str(&text)? } else { toml::from_str(&text)? })
}
