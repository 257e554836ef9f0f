//! `cotter fleet join-file`: makes what a device needs to join a fleet, with a new provisioning key that expires.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::client::{Client, Plain};
use super::exit::{InTheWay, Usage};
use super::print;
use super::private_file;
use crate::http::Url;
use crate::model::{exposed_host, is_loopback};
use crate::wire::operator_api::{CreateKey, FleetView, KeyCreated};

/// Arguments of `cotter fleet join-file`.
#[derive(Debug, Args)]
pub(super) struct JoinFile {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    /// How long the key can register devices, e.g. 1h or 7d
    #[arg(long, alias = "expires", value_name = "TIME", default_value = "24h")]
    expires_in: String,
    /// How many devices the key can register in total [default: any number]
    #[arg(long, value_name = "NUMBER")]
    uses: Option<u64>,
    /// Name of the key, shown with it and with its devices
    #[arg(long)]
    name: Option<String>,
    /// Address of the fleet server for devices [default: that of --url]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Prints a command to paste on a device instead of a config.json
    #[arg(long, conflicts_with = "out")]
    line: bool,
    /// Writes the config.json into this new file, for its owner alone, instead of printing it
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    out: Option<PathBuf>,
    #[command(flatten)]
    plain: Plain,
}

/// The config.json, with the names that balena's clouds use.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigJson<'a> {
    api_endpoint: &'a str,
    application_id: u64,
    application_name: &'a str,
    api_key: &'a str,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Join<'a> {
    config: ConfigJson<'a>,
    line: String,
    key: &'a str,
    expires: Option<Timestamp>,
}

pub(super) async fn run(asked: JoinFile) -> anyhow::Result<()> {
    let JoinFile { fleet, expires_in, uses, name, endpoint, line, out, plain } = asked;
    let endpoint = endpoint.unwrap_or_else(|| plain.connection.url().to_owned());
    let endpoint = endpoint.trim_end_matches('/').to_owned();
    let url = Url::parse(&endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let Some(host) = url.as_ref().and_then(Url::host_str) else {
        let why = format!(
            "{endpoint:?} is not the address of a fleet server; write e.g. https://fleet.example.com"
        );
        return Err(Usage(why).into());
    };
    if let Some(there) = out.as_ref().filter(|file| file.exists()) {
        return Err(InTheWay(format!("{} exists already; name a new file", there.display())).into());
    }
    let authority = plain.connection.ca_file().map(Path::to_owned);
    let client = Client::new(plain.connection)?;
    let view: FleetView = client.get(&["fleets", &fleet], &[]).await?;
    let wanted = CreateKey { name, expires_in: Some(expires_in), uses, per_minute: None };
    let made: KeyCreated = client.post(&["fleets", &fleet, "provisioning-keys"], &wanted).await?;
    let config = ConfigJson {
        api_endpoint: &endpoint,
        application_id: view.number,
        application_name: &view.name,
        api_key: &made.provisioning_key,
    };
    let command = command(&config, authority.as_deref());
    match (&out, line, plain.json) {
        (Some(file), ..) => write(file, &config)?,
        (None, true, false) => print::line(&command)?,
        (None, _, true) => {
            let expires = made.details.expires;
            print::json("join", &Join { config, line: command, key: &made.details.id, expires })?;
        }
        (None, false, false) => print::document(&config)?,
    }
    let until = made.details.expires.map_or_else(|| "is revoked".to_owned(), |at| at.to_string());
    let revoke =
        shell_words::join(["cotter", "fleet", "provisioning-key", "revoke", &fleet, &made.details.id]);
    print::note(&format!("note: the key registers devices until {until}; to end that sooner: {revoke}"));
    if let Some(path) = authority.filter(|_| line) {
        print::note(&format!("note: copy {} to the device first, for --ca-file", path.display()));
    }
    if is_loopback(host) {
        print::note(&format!(
            "note: {endpoint} is this machine alone; for other devices name the server's address with --endpoint"
        ));
    }
    Ok(())
}

/// Returns the command that joins a device.
fn command(config: &ConfigJson<'_>, authority: Option<&Path>) -> String {
    let mut words = vec!["cotter", "join", config.api_endpoint, "--fleet", config.application_name];
    words.extend(["--key", config.api_key]);
    words.extend(exposed_host(config.api_endpoint).map(|_| "--insecure"));
    // The file is called so on the device, too, where it must be copied first.
    let authority = authority.map(|path| path.display().to_string());
    words.extend(authority.iter().flat_map(|path| ["--ca-file", path.as_str()]));
    shell_words::join(words)
}

fn write(file: &Path, config: &ConfigJson<'_>) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(config)? + "\n";
    private_file::write(file, &text)?;
    print::note(&format!(
        "wrote {}: copy it to the device, and run `cotter join {}` there",
        file.display(),
        file.display()
    ));
    Ok(())
}
