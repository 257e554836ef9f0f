//! `cotter device logs`: what services of a device wrote, as the fleet server has it.

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Deserialize;

use super::client::{Client, Plain};
use super::print;
use crate::model::DeviceUuid;
use crate::wire::operator_api::DeviceDetail;

/// Longest line of an answer in bytes.
const LONGEST: usize = 1 << 20;

/// Arguments of `cotter device logs`.
#[derive(Debug, Args)]
pub(super) struct DeviceLogs {
    /// Name or uuid of the device, or the first 4 or more digits of the uuid
    #[arg(value_name = "DEVICE")]
    device: String,
    /// Only these services, and the messages of the device's agent [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Continues with new lines
    #[arg(short, long)]
    follow: bool,
    /// How many of the last lines to show, 10000 at most
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    lines: u32,
    #[command(flatten)]
    plain: Plain,
}

/// A line of an answer.
#[derive(Debug, Deserialize)]
struct Line {
    at: jiff::Timestamp,
    /// Absent: of the device's agent.
    service: Option<String>,
    message: String,
}

pub(super) async fn run(logs: DeviceLogs) -> anyhow::Result<()> {
    let DeviceLogs { device, services, follow, lines, plain } = logs;
    let client = Client::new(plain.connection)?;
    // Of several servers only one has the logs. A proxy finds it by the uuid.
    let device = match DeviceUuid::parse(&device) {
        Ok(uuid) => uuid.to_string(),
        Err(_) => client.get::<DeviceDetail>(&["devices", &device], &[]).await?.device.uuid,
    };
    let (services, lines) = (services.join(","), lines.to_string());
    let query = [
        ("service", Some(services.as_str()).filter(|names| !names.is_empty())),
        ("lines", Some(lines.as_str())),
        ("follow", follow.then_some("true")),
    ];
    let mut answer = client.stream_of(&["devices", &device, "logs"], &query).await?;
    let (mut rest, mut has_any) = (Vec::new(), false);
    while let Some(piece) = answer.next().await.context("the server stopped sending")? {
        rest.extend_from_slice(&piece);
        if rest.len() > LONGEST + piece.len() {
            bail!("the server sends a line of more than {} MiB", LONGEST >> 20);
        }
        let complete = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = rest.drain(..complete).collect();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            has_any = true;
            let line = std::str::from_utf8(line).context("the server sends a line that is not UTF-8")?;
            if !print_line(line, plain.json)? {
                return Ok(());
            }
        }
    }
    if !has_any && !plain.json {
        print::note(
            "the server has no lines of this device; if it is online, `cotter device show` says so, and it may have logs.upload = \"off\"",
        );
    }
    Ok(())
}

/// Prints a line. Returns `false` once nothing reads the output any more.
fn print_line(line: &str, json: bool) -> anyhow::Result<bool> {
    if json {
        return Ok(print::json_reaches(line));
    }
    let Line { at, service, message } =
        serde_json::from_str(line).context("the server sends a line that cannot be read")?;
    let service = service.unwrap_or_else(|| "cotter".to_owned());
    Ok(print::reaches(&format!("{at:.3} {service}: {message}")))
}
