//! `cotter release`: creates and manages releases on a fleet server.

use std::collections::BTreeMap;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::client::{Client, Plain};
use super::compose::{self, Verdict};
use super::consent::agree;
use super::exit::Exit;
use super::follow::{self, Output, Patience, Scope, Wait};
use super::{build_log, image_warnings, print};
use crate::host;
use crate::http::{Http, Method};
use crate::model::{ImageRef, ReleaseStatus};
use crate::project::Finding;
use crate::registry;
use crate::wire::operator_api::{
    Composition, CreateRelease, DeviceState, DeviceView, Nothing, PatchRelease, RefusalView, ReleaseCreated,
    ReleaseDetail, ReleaseView,
};

/// How many of the pinned devices are named.
const MOST_NAMED: usize = 20;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Creates a release from a compose project; its images must be pushed already
    #[command(
        after_help = "Example: cotter release create greenhouse --file compose.yaml --commit $(git rev-parse HEAD)"
    )]
    Create(Create),
    /// Checks a compose project without a server, a registry or a network: all errors and warnings, with their lines
    #[command(
        after_help = "Example: cotter release check compose.yaml --device-policy /etc/cotter/agent.toml"
    )]
    Check(compose::Check),
    /// Lists releases
    List(List),
    /// Shows a release
    Show(One),
    /// Waits until the devices that should run a release run it, and says where each stands
    Wait(WaitFor),
    /// Makes a draft final, so that fleets can track it; this cannot be undone
    Finalize(Change),
    /// Invalidates a release: fleets that track latest fall back to the one before
    Invalidate(Change),
    /// Makes an invalidated release valid again
    Validate(Change),
    /// Sets how the build of a release ended
    SetStatus(SetStatus),
    /// Deletes a release that is no fleet's target and that no device is pinned to, after a question
    Delete(Delete),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Status {
    Running,
    Success,
    Failed,
}

impl From<Status> for ReleaseStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Running => Self::Running,
            Status::Success => Self::Success,
            Status::Failed => Self::Failed,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    #[command(flatten)]
    location: compose::Location,
    /// Id of the release, e.g. a git commit [default: random]
    #[arg(long)]
    commit: Option<String>,
    /// Creates a draft: no fleet tracks it, but fleets and devices can be pinned to it
    #[arg(long, conflicts_with = "wait")]
    draft: bool,
    /// How the build of the release ended
    #[arg(long, value_enum, default_value = "success")]
    status: Status,
    /// When the build began, e.g. 2026-01-31T12:00:00Z; the newest release is the one with the latest [default: now]
    #[arg(long, value_name = "RFC3339")]
    start_timestamp: Option<Timestamp>,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only releases of this fleet
    #[arg(value_name = "FLEET")]
    fleet: Option<String>,
    /// Prints one JSON object per line, each as soon as it is there
    #[arg(long, conflicts_with = "json")]
    json_lines: bool,
    /// The same as FLEET, as for devices and variables
    #[arg(long = "fleet", id = "of_fleet", value_name = "NAME", conflicts_with = "fleet")]
    of_fleet: Option<String>,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// Commit of the release, or the first 4 or more characters of it
    #[arg(value_name = "COMMIT")]
    release: String,
    /// Fleet of the release; needed only if several fleets have this commit
    #[arg(long)]
    fleet: Option<String>,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    #[command(flatten)]
    one: One,
    /// Deletes without a question
    #[arg(long)]
    yes: bool,
}

/// A change of a release, which may move devices.
#[derive(Debug, Args)]
pub(super) struct Change {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Debug, Args)]
pub(super) struct WaitFor {
    /// Commit of the release, or the first 4 or more characters of it
    #[arg(value_name = "COMMIT")]
    release: String,
    /// Fleet of the release; needed only if several fleets have this commit
    #[arg(long)]
    fleet: Option<String>,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct SetStatus {
    #[command(flatten)]
    change: Change,
    /// How the build ended
    #[arg(value_enum)]
    status: Status,
}

pub(super) async fn run(verb: Verb) -> anyhow::Result<Exit> {
    let answered = match verb {
        Verb::Create(verb) => return create(verb).await,
        Verb::Check(verb) => compose::check(verb),
        Verb::List(List { fleet, of_fleet, json_lines, plain }) => {
            let fleet = fleet.or(of_fleet);
            let query = [("fleet", fleet.as_deref())];
            let client = Client::new(plain.connection)?;
            if json_lines {
                client.print_lines(&["releases"], &query, None).await?;
                return Ok(Exit::Done);
            }
            let releases: Vec<ReleaseView> = client.list(&["releases"], &query, None).await?;
            if plain.json { print::json("releases", &releases) } else { list(&releases) }
        }
        Verb::Show(One { release, fleet, plain }) => {
            let query = [("fleet", fleet.as_deref())];
            let client = Client::new(plain.connection)?;
            let detail: ReleaseDetail = client.get(&["releases", &release], &query).await?;
            if plain.json {
                print::json("release", &detail)
            } else {
                shown(&detail.release, false)?;
                pinned(&client, &detail.release).await?;
                detail.build_log.as_deref().map_or(Ok(()), build_log::print)
            }
        }
        Verb::Wait(verb) => return wait(verb).await,
        Verb::Finalize(change) => {
            return patch(change, PatchRelease { is_final: Some(true), ..PatchRelease::default() }).await;
        }
        Verb::Invalidate(change) => {
            return patch(change, PatchRelease { is_invalidated: Some(true), ..PatchRelease::default() })
                .await;
        }
        Verb::Validate(change) => {
            return patch(change, PatchRelease { is_invalidated: Some(false), ..PatchRelease::default() })
                .await;
        }
        Verb::SetStatus(SetStatus { change, status }) => {
            return patch(change, PatchRelease { status: Some(status.into()), ..PatchRelease::default() })
                .await;
        }
        Verb::Delete(verb) => delete(verb).await,
    };
    answered.map(|()| Exit::Done)
}

async fn create(verb: Create) -> anyhow::Result<Exit> {
    let verdict = compose::judge(verb.location, None)?;
    verdict.print();
    verdict.result()?;
    let Verdict { file, images: wanted, warnings, .. } = verdict;
    let client = Client::new(verb.plain.connection)?;
    let http = Http::new()?;
    let exact = exact(&http, &wanted).await?;
    image_warnings::print(&http, &file.services, &found(&wanted, &exact)).await;
    let images = exact.iter().map(|(service, image)| (service.clone(), image.to_string())).collect();
    let commit = match verb.commit {
        Some(commit) => commit,
        None => host::random_hex(16).context("cannot generate a random commit; name one with --commit")?,
    };
    let body = CreateRelease {
        commit,
        status: verb.status.into(),
        is_final: !verb.draft,
        is_passing_tests: true,
        start_timestamp: verb.start_timestamp,
        composition: Composition { services: file.services, networks: file.networks, volumes: file.volumes },
        images,
        build_log: None,
    };
    let created = post(&client, &verb.fleet, &body, &warnings).await?;
    if verb.plain.json {
        print::json("created", &created)?;
    } else {
        shown(&created.release, false)?;
    }
    verb.wait.follow(&client, &Scope::of_release(&created.release)).await
}

/// The images of services, each with the digest that its registry has for it now.
pub(super) async fn exact(
    http: &Http,
    images: &BTreeMap<String, ImageRef>,
) -> anyhow::Result<BTreeMap<String, ImageRef>> {
    let mut exact = BTreeMap::new();
    for (service, image) in images {
        let found =
            registry::resolve(http, image).await.with_context(|| format!("services.{service}.image"))?;
        exact.insert(service.clone(), found);
    }
    Ok(exact)
}

/// The exact images that their registries were just asked for: those that were named by a tag.
pub(super) fn found(
    wanted: &BTreeMap<String, ImageRef>,
    exact: &BTreeMap<String, ImageRef>,
) -> BTreeMap<String, ImageRef> {
    let by_tag = |service: &String| wanted.get(service).is_none_or(|image| image.digest().is_none());
    exact.iter().filter(|(service, _)| by_tag(service)).map(|(s, i)| (s.clone(), i.clone())).collect()
}

/// Creates a release. Prints the warnings that are not among those that are known.
pub(super) async fn post(
    client: &Client,
    fleet: &str,
    body: &CreateRelease,
    known: &[Finding],
) -> anyhow::Result<ReleaseCreated> {
    let created: ReleaseCreated = client.post(&["fleets", fleet, "releases"], body).await?;
    // A newer server may know more.
    for RefusalView { path, why } in &created.warnings {
        if !known.iter().any(|known| known.path == *path && known.why == *why) {
            print::note(&format!("warning: {path}: {why}"));
        }
    }
    Ok(created)
}

async fn delete(Delete { one, yes }: Delete) -> anyhow::Result<()> {
    let One { mut release, mut fleet, plain } = one;
    let client = Client::new(plain.connection)?;
    if !yes {
        let query = [("fleet", fleet.as_deref())];
        let detail: ReleaseDetail = client.get(&["releases", &release], &query).await?;
        let ReleaseView { commit, fleet: its, .. } = detail.release;
        let what = format!("Release {commit} of fleet {its} will be deleted.");
        agree(&what, "nothing was deleted", plain.json)?;
        (release, fleet) = (commit, Some(its));
    }
    let query = [("fleet", fleet.as_deref())];
    let path = ["releases", release.as_str()];
    let gone: ReleaseView = client.ask(Method::DELETE, &path, &query, None::<&Nothing>).await?;
    if plain.json {
        return print::json("deleted", &gone);
    }
    print::line(&format!("deleted {} of {}", gone.commit, gone.fleet))
}

async fn patch(Change { one, wait }: Change, body: PatchRelease) -> anyhow::Result<Exit> {
    let One { release, fleet, plain } = one;
    let client = Client::new(plain.connection)?;
    let query = [("fleet", fleet.as_deref())];
    let view: ReleaseView = client.ask(Method::PATCH, &["releases", &release], &query, Some(&body)).await?;
    shown(&view, plain.json)?;
    // Devices may have moved to this release, or from it to another one.
    wait.follow(&client, &Scope { fleet: Some(view.fleet), ..Scope::default() }).await
}

async fn wait(verb: WaitFor) -> anyhow::Result<Exit> {
    let client = Client::new(verb.plain.connection)?;
    let query = [("fleet", verb.fleet.as_deref())];
    let detail: ReleaseDetail = client.get(&["releases", &verb.release], &query).await?;
    let scope = Scope { is_any_required: true, ..Scope::of_release(&detail.release) };
    let output = Output::answer(verb.plain.json);
    follow::follow(&client, &scope, &[DeviceState::OnTarget], &verb.patience, output).await
}

/// Prints releases. On a narrow terminal only the beginnings of their commits and times.
fn list(releases: &[ReleaseView]) -> anyhow::Result<()> {
    let headers = ["COMMIT", "FLEET", "STATE", "STARTED", "TARGET OF", "PINNED", "RUNNING"];
    let rows = |is_narrow: bool| -> Vec<Vec<String>> {
        let cut = |text: String, length| if is_narrow { text.chars().take(length).collect() } else { text };
        let cells = |release: &ReleaseView| {
            vec![
                cut(release.commit.clone(), 12),
                release.fleet.clone(),
                state(release),
                cut(release.start_timestamp.to_string(), "2026-12-01".len()),
                if release.is_fleet_target { "fleet" } else { "-" }.to_owned(),
                release.pinned_devices.to_string(),
                release.running_devices.to_string(),
            ]
        };
        std::iter::once(headers.map(str::to_owned).to_vec()).chain(releases.iter().map(cells)).collect()
    };
    let whole = rows(false);
    let rows = if print::fits(&whole, "RUNNING".len()) { whole } else { rows(true) };
    print::hinted(&rows, "there is no release; create one with `cotter release create FLEET`", None)
}

/// Returns the status of a release, and every reason why fleets do not track it.
fn state(release: &ReleaseView) -> String {
    let marks = [
        (!release.is_final, "draft"),
        (release.is_invalidated, "invalidated"),
        (!release.is_passing_tests, "failing tests"),
    ];
    let marks = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| (*mark).to_owned());
    std::iter::once(release.status.to_string()).chain(marks).collect::<Vec<_>>().join(", ")
}

/// Prints which devices are pinned to a release.
async fn pinned(client: &Client, release: &ReleaseView) -> anyhow::Result<()> {
    if release.pinned_devices == 0 {
        return Ok(());
    }
    let query = [("fleet", Some(release.fleet.as_str()))];
    let devices: Vec<DeviceView> = client.list(&["devices"], &query, None).await?;
    let is_pinned = |device: &&DeviceView| device.pin.as_ref() == Some(&release.commit);
    let names: Vec<_> = devices.iter().filter(is_pinned).map(|device| device.name.as_str()).collect();
    let more = names.len().saturating_sub(MOST_NAMED);
    let more =
        if more == 0 { String::new() } else { format!(" and {more} more: `cotter device list --pinned`") };
    print::line("")?;
    let names = names.into_iter().take(MOST_NAMED).collect::<Vec<_>>().join(", ");
    print::hanging(2, &format!("pinned to it: {names}{more}"))
}

pub(super) fn shown(release: &ReleaseView, json: bool) -> anyhow::Result<()> {
    if json {
        return print::json("release", release);
    }
    print::facts(&[
        ("release", release.commit.clone()),
        ("number", release.number.to_string()),
        ("fleet", release.fleet.clone()),
        ("state", state(release)),
        ("started", release.start_timestamp.to_string()),
        ("fleet target", if release.is_fleet_target { "yes" } else { "no" }.to_owned()),
        ("pinned devices", release.pinned_devices.to_string()),
        ("running devices", release.running_devices.to_string()),
    ])?;
    print::line("")?;
    let rows = release.services.iter().map(|(service, image)| [service.clone(), image.clone()]);
    print::table(["SERVICE", "IMAGE"], rows, "no service")
}
