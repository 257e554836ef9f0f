//! `cotter join URL`: the address, the fleet and the key; what the cloud says of them; and the first poll.

use std::fs::{self, File};
use std::io::{self, BufRead as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use super::exit::{Denied, Exit, InTheWay, Unanswered, Unknown, Usage};
use super::print;
use crate::api::{self, StatusDocument};
use crate::cloud::{Admitted, Client, CloudError};
use crate::config::Setting;
use crate::http::{Failure, Http, Url};
use crate::model::text::is_one_line;
use crate::model::{Admission, Enrolment, FleetRef, Identity, exposed_host, parse_tags};

/// Longest time for one request.
const WITHIN: Duration = Duration::from_secs(20);

/// How long the target is waited for once the agent has polled.
const FIRST_TARGET: Duration = Duration::from_secs(5);

/// Maximum number of bytes of a file with certificates, or with a key.
const LARGEST: u64 = 1 << 20;

/// The options that go with the address of a cloud.
#[derive(Debug, Args)]
pub(super) struct Address {
    /// Name of the fleet at a Cotter fleet server, or its number
    #[arg(long, value_name = "NAME|NUMBER")]
    fleet: Option<String>,
    /// A provisioning key of the fleet: - for one line on standard input, a file that has it, or the key
    #[arg(long, value_name = "-|FILE|KEY")]
    key: Option<String>,
    /// Certificate, as PEM, of the authority that signed the cloud's; it is copied
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Name of the device
    #[arg(long)]
    name: Option<String>,
    /// Tag that a Cotter fleet server gives the device; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<String>,
    /// Sends the keys over http:// to another machine, so that anyone on the network path can read them
    #[arg(long)]
    insecure: bool,
}

impl Address {
    /// Returns how to join with the address `given`; `None` if it is a file.
    pub(super) fn enrolment(&self, given: &str) -> anyhow::Result<Option<Enrolment>> {
        let is_asked = self.fleet.is_some() || self.key.is_some() || self.ca_file.is_some();
        let is_url = given.contains("://");
        if !is_url && !is_asked && self.name.is_none() && self.tags.is_empty() && !self.insecure {
            return Ok(None);
        }
        if !is_url {
            let why = format!("{given:?} is not the address of a cloud; write https://{given}");
            let of_file = "--fleet, --key and the other options of an address do not go with a config.json";
            let is_file = given == "-" || Path::new(given).is_file();
            return Err(Usage(if is_file { format!("{of_file}: {given}") } else { why }).into());
        }
        let endpoint = self.endpoint(given)?;
        let (Some(fleet), Some(key)) = (&self.fleet, &self.key) else {
            let why = "an address needs --fleet and --key; `cotter fleet join-file FLEET --line` at the fleet server \
                       prints the complete command";
            return Err(Usage(why.to_owned()).into());
        };
        let fleet = FleetRef::parse(fleet)
            .map_err(|accepts| Usage(format!("--fleet {fleet:?} is not accepted: it must be {accepts}")))?;
        let tags = parse_tags(self.tags.iter().map(String::as_str))
            .map_err(|(tag, accepts)| Usage(format!("--tag {tag:?} is not accepted: {accepts}")))?;
        if let Some(name) = self.name.as_ref().filter(|name| !is_name(name)) {
            return Err(Usage(format!(
                "--name {name:?} is not accepted: write one line of 1 to 255 characters"
            ))
            .into());
        }
        let authority = self.ca_file.as_deref().map(authority).transpose()?;
        Ok(Some(Enrolment {
            endpoint,
            admission: Admission::Register { fleet, key: key_of(key)? },
            device_type: None,
            device_name: self.name.clone(),
            registry: None,
            poll_interval: None,
            tags,
            authority,
        }))
    }

    fn endpoint(&self, given: &str) -> Result<String, Usage> {
        let is_http = given.starts_with("https://") || given.starts_with("http://");
        let url = Url::parse(given).ok().filter(|url| is_http && url.host().is_some());
        let Some(url) = url else {
            return Err(Usage(format!(
                "{given:?} is not the address of a cloud; write e.g. https://fleet.example.com"
            )));
        };
        let has_user = !url.username().is_empty() || url.password().is_some();
        if has_user || url.query().is_some() || url.fragment().is_some() {
            // It is not repeated: there may be a password in it.
            let why = "the address of a cloud has no user, password, query or fragment; write e.g. https://fleet.example.com";
            return Err(Usage(why.to_owned()));
        }
        match exposed_host(given) {
            Some(host) if !self.insecure => Err(Usage(format!(
                "the keys of this device would go to {host} unencrypted, because http:// has no TLS; use https://, or \
                 --insecure on a network you trust"
            ))),
            Some(_) | None => Ok(given.trim_end_matches('/').to_owned()),
        }
    }

    /// The file that the key was read from.
    pub(super) fn key_file(&self) -> Option<String> {
        self.key.clone().filter(|key| key != "-" && Path::new(key).is_file())
    }
}

/// Returns whether a device may have this name in its settings. Its server has rules of its own.
fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.chars().count() <= 255 && is_one_line(name)
}

/// Reads the key: from standard input, from a file, or as it is.
fn key_of(given: &str) -> Result<String, Usage> {
    let wrong = |why: String| Usage(format!("--key: {why}"));
    let first = |text: String| text.lines().next().unwrap_or_default().trim().to_owned();
    let mut text = String::new();
    let key = if given == "-" {
        let read = io::stdin().lock().take(LARGEST).read_line(&mut text);
        read.map_err(|error| wrong(format!("standard input cannot be read: {error}")))?;
        first(text)
    } else if Path::new(given).is_dir() {
        return Err(wrong(format!("{given} is a folder; give the key, a file that has it, or -")));
    } else if Path::new(given).exists() {
        // A pipe has it, too: `--key <(command)`.
        let read = File::open(given).and_then(|file| file.take(LARGEST).read_to_string(&mut text));
        read.map_err(|error| wrong(format!("{given} cannot be read: {error}")))?;
        first(text)
    } else if given.contains('/') || given.contains('.') {
        return Err(wrong(format!("there is no file {given}; give the key, a file that has it, or -")));
    } else {
        given.to_owned()
    };
    let is_key = (8..=512).contains(&key.len()) && key.chars().all(|c| c.is_ascii_graphic());
    let why = "it is not a provisioning key, which is one word of 8 to 512 characters; make one with `cotter fleet \
               provisioning-key create FLEET`";
    if is_key { Ok(key) } else { Err(wrong(why.to_owned())) }
}

fn authority(path: &Path) -> Result<String, Usage> {
    let wrong = |why: String| Usage(format!("--ca-file {}: {why}", path.display()));
    let size = fs::metadata(path).map(|metadata| metadata.len()).unwrap_or(0);
    if size > LARGEST {
        return Err(wrong("it is larger than 1 MiB, and so no certificate".to_owned()));
    }
    let pem = fs::read_to_string(path).map_err(|error| wrong(format!("it cannot be read: {error}")))?;
    if !pem.contains("-----BEGIN CERTIFICATE-----") {
        return Err(wrong("it has no certificate; give the authority's, as PEM".to_owned()));
    }
    Http::trusting(Some(pem.as_bytes())).map_err(|error| wrong(format!("it cannot be used: {error}")))?;
    Ok(pem)
}

/// Checks fleet and key against the cloud, as far as it can tell. Changes nothing there. Returns the fleet, as a Cotter
/// fleet server knows it.
pub(super) async fn ask(enrolment: &Enrolment, notes: &mut Vec<String>) -> anyhow::Result<Option<Admitted>> {
    let Admission::Register { fleet, key } = &enrolment.admission else { return Ok(None) };
    let client = Client::new(
        Http::trusting(enrolment.authority.as_ref().map(String::as_bytes))?,
        &enrolment.endpoint,
        WITHIN,
    );
    if let Some(found) = client.may_register(fleet, key).await.map_err(explained)? {
        return Ok(Some(found));
    }
    client.try_key(key).await.map_err(explained)?;
    if matches!(fleet, FleetRef::Name(_)) || !enrolment.tags.is_empty() {
        let what = if enrolment.tags.is_empty() { "a fleet by name" } else { "tags at registration" };
        return Err(Usage(format!(
            "{} is no Cotter fleet server of this version, and takes no {}; give the number of the fleet with --fleet, and no --tag",
            enrolment.endpoint,
            what.trim_start_matches("a "),
        ))
        .into());
    }
    notes.push(format!(
        "{} is no Cotter fleet server of this version, so whether the key is one of fleet {fleet} shows when the device registers",
        enrolment.endpoint
    ));
    Ok(None)
}

/// Finds out whether the cloud still has this device, which has registered there: it may have been deleted, or the cloud's
/// records restored from before. A cloud that does not answer leaves that open.
///
/// # Errors
///
/// If the cloud says that it does not have the device.
pub(super) async fn check_known(enrolment: &Enrolment, identity: Option<&Identity>) -> anyhow::Result<()> {
    let Some(identity) = identity else { return Ok(()) };
    let http = Http::trusting(enrolment.authority.as_ref().map(String::as_bytes))?;
    let client = Client::new(http, &enrolment.endpoint, WITHIN);
    match client.find(&identity.uuid, &identity.device_key).await {
        Ok(None) => Err(InTheWay(format!(
            "this device ({}) has registered with {}, which does not have it any more; --force registers it once more",
            identity.uuid, enrolment.endpoint
        ))
        .into()),
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}

/// Returns the status socket of an agent with these settings.
pub(super) fn socket(set: &[Setting]) -> PathBuf {
    let runtime = set.iter().find(|setting| setting.key == "runtime_dir");
    let runtime = runtime.and_then(|setting| setting.value.as_deref()).unwrap_or("/run/cotter");
    Path::new(runtime).join("status.sock")
}

/// Adds what to do to an error of the cloud.
fn explained(error: CloudError) -> anyhow::Error {
    let remedy = match &error {
        CloudError::Unreachable { why: Failure::Unreachable(broken), .. } if broken.is_by_certificate() => {
            "or name your own authority's certificate with --ca-file"
        }
        CloudError::Unreachable { .. } => "check the address and the network",
        CloudError::Denied { endpoint, status, .. } => {
            return Denied(format!(
                "cloud {endpoint} does not accept the key (status {status}): make another there (at a Cotter fleet server \
                 with `cotter fleet provisioning-key create FLEET`)"
            ))
            .into();
        }
        CloudError::NotAdmitted { is_other_fleet: true, message, .. } => {
            return Unknown(message.clone()).into();
        }
        CloudError::NotAdmitted { message, .. } => return Denied(message.clone()).into(),
        CloudError::Redirected { .. } => "check the address",
        CloudError::Conflict { .. }
        | CloudError::NumbersOnly { .. }
        | CloudError::Refused { .. }
        | CloudError::Deleted { .. }
        | CloudError::Unknown { .. } => "check that this is the address of a cloud",
    };
    anyhow::Error::new(Unanswered { error, remedy })
}

/// Waits for the first poll of an agent that was just started, and says what the device will run.
pub(super) async fn wait(
    set: &[Setting],
    enrolment: &Enrolment,
    found: Option<Admitted>,
    within: Duration,
) -> anyhow::Result<Exit> {
    let socket = socket(set);
    let begun = Instant::now();
    let mut last = None;
    while begun.elapsed() < within {
        match api::status(&socket).await {
            Ok(status) if has_polled(&status, enrolment) => {
                let status = with_target(&socket, status).await;
                return say_target(&status, enrolment, found.as_ref());
            }
            Ok(status) => last = status.cloud.and_then(|cloud| cloud.error),
            Err(error) => last = Some(error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let why = last.map_or_else(String::new, |why| format!(" ({why})"));
    print::note(&format!(
        "error: the agent has not reached its cloud within {}{why}; it goes on trying: see `cotter status` and `cotter check`",
        humantime::format_duration(within)
    ));
    Ok(Exit::TimedOut)
}

fn has_polled(status: &StatusDocument, enrolment: &Enrolment) -> bool {
    status.cloud.as_ref().is_some_and(|cloud| {
        cloud.endpoint == enrolment.endpoint && cloud.last_contact.is_some() && cloud.polls > 0
    })
}

/// Waits a little for the target of the first poll. A fleet without a release has none.
async fn with_target(socket: &Path, first: StatusDocument) -> StatusDocument {
    let until = Instant::now() + FIRST_TARGET;
    let mut status = first;
    while status.apps.iter().all(|app| app.target.is_none()) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(500)).await;
        status = api::status(socket).await.unwrap_or(status);
    }
    status
}

fn say_target(
    status: &StatusDocument,
    enrolment: &Enrolment,
    found: Option<&Admitted>,
) -> anyhow::Result<Exit> {
    let name = status.device.name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
    let at = status.cloud.as_ref().and_then(|cloud| cloud.last_contact.as_deref()).unwrap_or_default();
    print::line(&format!(
        "this device is {}{name} of {}; its first poll was at {at}",
        status.device.uuid, enrolment.endpoint
    ))?;
    let mut targets = status.apps.iter().filter_map(|app| Some((&app.name, app.target.as_ref()?))).peekable();
    if targets.peek().is_none() {
        let fleet = found.map_or_else(|| "its fleet".to_owned(), |fleet| format!("fleet {}", fleet.name));
        return print::line(&format!("{fleet} has no release for it yet")).map(|()| Exit::Done);
    }
    for (app, release) in targets {
        print::line(&format!(
            "it will run release {release} of {app}; `cotter status --watch` shows how it gets there"
        ))?;
    }
    Ok(Exit::Done)
}
