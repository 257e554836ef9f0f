//! `cotter webhook`: where a fleet server announces what becomes of rollouts.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::client::{Client, Plain};
use super::exit::{Exit, InTheWay};
use super::print;
use super::private_file;
use super::quantity::ago;
use crate::host;
use crate::http::Method;
use crate::wire::operator_api::{CreateWebhook, Nothing, WebhookCreated, WebhookTested, WebhookView};

/// The events of rollouts, as the server names them.
const EVENTS: [&str; 8] = ["start", "wave", "pause", "halt", "resume", "complete", "abort", "pull-back"];

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Creates a webhook, and prints its secret; it is not shown again
    #[command(
        after_help = "Example: cotter webhook create ci https://ci.example.com/cotter --event halt --event complete"
    )]
    Create(Create),
    /// Lists webhooks, and what waits for them
    #[command(after_help = "Example: cotter webhook list")]
    List(Plain),
    /// Shows a webhook: its last success, its last failure, and what waits
    #[command(after_help = "Example: cotter webhook show ci")]
    Show(Of),
    /// Sends a message to a webhook now, and prints its answer
    #[command(after_help = "Example: cotter webhook test ci")]
    Test(Of),
    /// Deletes a webhook with the messages that wait for it
    #[command(after_help = "Example: cotter webhook delete ci")]
    Delete(Of),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Its name, for `--confirm` and for `cotter webhook show`
    #[arg(value_name = "NAME")]
    name: String,
    /// Where messages are sent to; https, or http to the server's own machine
    #[arg(value_name = "URL")]
    to: String,
    /// An event that it hears of; give it several times for several events [default: all events]
    #[arg(long = "event", value_name = "EVENT", value_parser = EVENTS)]
    events: Vec<String>,
    /// It hears of no event, and is only for `cotter rollout start --confirm`
    #[arg(long, conflicts_with = "events")]
    no_events: bool,
    /// A fleet whose rollouts it hears of; give it several times for several fleets [default: all fleets]
    #[arg(long, value_name = "FLEET")]
    fleet: Vec<String>,
    /// Lets the URL be http to another machine: whoever is on the way reads the messages
    #[arg(long)]
    allow_http: bool,
    /// Writes the secret into this new file, for its owner alone, instead of printing it
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    out: Option<PathBuf>,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct Of {
    /// Name of the webhook
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    plain: Plain,
}

pub(super) async fn run(verb: Verb) -> anyhow::Result<Exit> {
    match verb {
        Verb::Create(create) => self::create(create).await?,
        Verb::List(plain) => list(plain).await?,
        Verb::Show(Of { name, plain }) => {
            let client = Client::new(plain.connection)?;
            let webhook: WebhookView = client.get(&["webhooks", &name], &[]).await?;
            shown(&webhook, plain.json)?;
        }
        Verb::Test(of) => return test(of).await,
        Verb::Delete(Of { name, plain }) => {
            let client = Client::new(plain.connection)?;
            let webhook: WebhookView =
                client.ask(Method::DELETE, &["webhooks", &name], &[], None::<&Nothing>).await?;
            if plain.json {
                print::json("webhook", &webhook)?;
            } else {
                print::line(&format!("deleted webhook {}", webhook.name))?;
            }
        }
    }
    Ok(Exit::Done)
}

async fn create(create: Create) -> anyhow::Result<()> {
    let Create { name, to, events, no_events, fleet, allow_http, out, plain } = create;
    if let Some(there) = out.as_ref().filter(|file| file.exists()) {
        return Err(InTheWay(format!("{} exists already; name a new file", there.display())).into());
    }
    let events = (no_events || !events.is_empty()).then_some(events);
    let fleets = (!fleet.is_empty()).then_some(fleet);
    let wanted = CreateWebhook { name, url: to, allow_http, fleets, events };
    let created: WebhookCreated = Client::new(plain.connection)?.post(&["webhooks"], &wanted).await?;
    if let Some(file) = out {
        private_file::write(&file, &format!("{}\n", created.secret))?;
        print::note(&format!("wrote {}", file.display()));
        return Ok(());
    }
    // Nothing else is printed, for scripts.
    if plain.json { print::json("created", &created) } else { print::line(&created.secret) }
}

async fn list(plain: Plain) -> anyhow::Result<()> {
    let webhooks: Vec<WebhookView> = Client::new(plain.connection)?.get(&["webhooks"], &[]).await?;
    if plain.json {
        return print::json("webhooks", &webhooks);
    }
    let now = host::now();
    let or_never = |at: Option<Timestamp>| at.map_or_else(|| "never".to_owned(), |at| ago(at, now));
    let rows = webhooks.iter().map(|webhook| {
        [
            webhook.name.clone(),
            webhook.url.clone(),
            fleets(webhook),
            webhook.waiting.to_string(),
            webhook.given_up.to_string(),
            or_never(webhook.last_success),
            or_never(webhook.last_failure.as_ref().map(|last| last.at)),
        ]
    });
    let headers = ["NAME", "URL", "FLEETS", "WAITING", "GIVEN UP", "LAST SUCCESS", "LAST FAILURE"];
    print::table(headers, rows, "there is no webhook; create one with `cotter webhook create`")
}

fn fleets(webhook: &WebhookView) -> String {
    webhook.fleets.as_ref().map_or_else(|| "all".to_owned(), |fleets| fleets.join(","))
}

fn shown(webhook: &WebhookView, json: bool) -> anyhow::Result<()> {
    if json {
        return print::json("webhook", webhook);
    }
    let or_never = |at: Option<Timestamp>| at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    let events = if webhook.events.is_empty() { "none".to_owned() } else { webhook.events.join(", ") };
    let next = webhook.next.map_or_else(String::new, |next| format!(", the next is sent at {next}"));
    let failure = webhook.last_failure.as_ref();
    print::facts(&[
        ("webhook", webhook.name.clone()),
        ("url", webhook.url.clone()),
        ("fleets", fleets(webhook)),
        ("events", events),
        ("created", webhook.created.to_string()),
        ("waiting", format!("{}{next}", webhook.waiting)),
        ("delivered", webhook.delivered.to_string()),
        ("failed", webhook.failed.to_string()),
        ("given up", webhook.given_up.to_string()),
        ("last success", or_never(webhook.last_success)),
        (
            "last failure",
            failure.map_or_else(|| "never".to_owned(), |last| format!("{}: {}", last.at, last.why)),
        ),
    ])
}

async fn test(Of { name, plain }: Of) -> anyhow::Result<Exit> {
    let client = Client::new(plain.connection)?;
    let tested: WebhookTested = client.post(&["webhooks", &name, "test"], &Nothing {}).await?;
    if plain.json {
        print::json("tested", &tested)?;
    } else {
        let WebhookTested { webhook, status, why, took_ms, .. } = &tested;
        let status = status.map_or_else(String::new, |status| format!("it answered {status}"));
        print::line(&format!("{webhook}: {}, after {took_ms} ms", why.as_ref().unwrap_or(&status)))?;
    }
    Ok(if tested.delivered { Exit::Done } else { Exit::Unreachable })
}
