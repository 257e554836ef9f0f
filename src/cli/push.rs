//! `cotter push`: from a compose project to a release, by this machine's docker.
//!
//! Everything that can be refused is refused before the first image is built, and the release is created last.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value};

use super::build;
use super::client::{Client, Connection};
use super::compose::{self, Verdict};
use super::docker::{Builder, Docker, DockerError, Order};
use super::exit::Usage;
use super::follow::{Scope, Wait};
use super::{commit, image_warnings, print, push_platforms, release};
use crate::config::environment;
use crate::http::Http;
use crate::model::{Commit, ImageRef, RegistryPrefix, ReleaseStatus};
use crate::project::Build;
use crate::registry::{self, RegistryError};
use crate::wire::operator_api::{Composition, CreateRelease, FleetView};

/// `cotter push`
#[derive(Debug, Args)]
pub(super) struct Push {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    /// Folder of the project [default: that of the first compose file, or this one]
    #[arg(value_name = "DIR", conflicts_with = "project_directory")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    location: compose::Location,
    /// Registry for the images: they become REGISTRY/FLEET/SERVICE:COMMIT [default: the registry of the fleet, which
    /// `cotter fleet set` sets; without one, the image that a service names is pushed]
    #[arg(long, env = "COTTER_REGISTRY", value_name = "HOST[:PORT][/PATH]")]
    registry: Option<String>,
    /// Platforms to build for, e.g. linux/arm64; several need buildx [default: platform of the service, else platforms of its
    /// build, else those of the fleet's devices, else that of docker]
    ///
    /// Name the platform if the fleet has no device yet that is not of this machine's kind.
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    platforms: Vec<String>,
    /// Id of the release [default: the Git commit of DIR, with -dirty-RANDOM if files have changed since; random outside of Git]
    #[arg(long)]
    commit: Option<String>,
    /// Creates a draft: no fleet tracks it, but fleets and devices can be pinned to it
    #[arg(long, conflicts_with = "wait")]
    draft: bool,
    /// If a build or a push fails, creates a release with status failed that has the end of docker's output. `cotter release
    /// show` prints it; no device gets the release
    ///
    /// The output may contain values of build arguments. A later push of the same commit replaces the release.
    #[arg(long)]
    record_failure: bool,
    #[command(flatten)]
    wait: Wait,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// An image to build and push.
#[derive(Debug)]
struct Target {
    service: String,
    build: Build,
    /// With a tag.
    image: ImageRef,
    platforms: Vec<String>,
}

pub(super) async fn run(verb: Push) -> anyhow::Result<ExitCode> {
    let verdict = compose::judge_to_build(verb.location.in_folder(verb.dir))?;
    verdict.print();
    verdict.result()?;
    let Verdict { mut file, mut images, warnings, builds, directory, .. } = verdict;
    // What is wrong with the arguments is said before anything is asked of the server.
    let given = registry_from(verb.registry.as_deref(), "--registry")?;
    let commit = verb.commit.map(commit::given).transpose()?;
    let client = Client::new(verb.connection)?;
    let fleet: FleetView = client.get(&["fleets", &verb.fleet], &[]).await?;
    let commit = commit::of(commit, &directory).await?;
    commit::check_is_new(&client, &fleet.name, &commit).await?;
    let own = registry_from(fleet.registry.as_deref(), "the registry of the fleet");
    let registry = given.map_or(own, |given| Ok(Some(given)))?;
    let is_asked = verb.platforms.is_empty() && !builds.is_empty();
    let of_devices = push_platforms::of_devices(&client, &fleet.name, is_asked).await?;
    let mut targets = Vec::new();
    for (service, build) in builds {
        let own = images.remove(&service);
        let image = name_of(registry.as_ref(), &fleet.name, &service, &commit, own)?;
        let fields = file.services.entry(service.clone()).or_default();
        let platforms = platforms((&verb.platforms, &of_devices), &service, fields, &build);
        targets.push(Target { service, build, image, platforms });
    }
    check_names(&targets)?;
    let http = Http::new()?;
    let mut exact = release::exact(&http, &images).await?;
    let mut docker = if targets.is_empty() { None } else { Some(Docker::find().await?) };
    if let Some(docker) = &mut docker {
        if verb.record_failure {
            docker.record();
        }
        let built = build_all(docker, &http, &targets).await;
        if let (Err(error), Some(log)) = (&built, docker.recorded()) {
            record_failure(&client, &fleet.name, failed_release(&commit, !verb.draft, log), error).await?;
        }
        exact.extend(built?);
    }
    image_warnings::print(&http, &file.services, &release::found(&images, &exact)).await;
    let body = CreateRelease {
        composition: Composition { services: file.services, networks: file.networks, volumes: file.volumes },
        images: exact.iter().map(|(service, image)| (service.clone(), image.to_string())).collect(),
        ..empty_release(&commit, !verb.draft)
    };
    let created = release::post(&client, &fleet.name, &body, &warnings).await?;
    print::note(&format!("created release {commit} of {}", fleet.name));
    if verb.json {
        print::json("created", &created)?;
    } else {
        release::shown(&created.release, false)?;
    }
    let scope = Scope::of_release(&created.release);
    let following = verb.wait.follow(&client, &scope);
    let exit = match &mut docker {
        Some(docker) => docker.unless_interrupted(following).await.context("the devices continue")??,
        None => following.await?,
    };
    Ok(exit.into())
}

/// Builds and pushes all images. Returns them with their digests, by service.
async fn build_all(
    docker: &mut Docker,
    http: &Http,
    targets: &[Target],
) -> anyhow::Result<BTreeMap<String, ImageRef>> {
    check_can_be_built(targets, docker.builder)?;
    check_registries(docker, http, targets).await?;
    build_and_push(docker, targets).await?;
    let mut exact = BTreeMap::new();
    for Target { service, image, .. } in targets {
        exact.insert(service.clone(), digest_of(docker, http, service, image).await?);
    }
    Ok(exact)
}

/// The registry that `text` names, if there is one. `from`: where it is written.
fn registry_from(text: Option<&str>, from: &str) -> anyhow::Result<Option<RegistryPrefix>> {
    let text = text.filter(|text| !text.is_empty());
    let parsed = text.map(RegistryPrefix::parse).transpose();
    parsed.map_err(|bad| Usage(format!("{from}: {bad}")).into())
}

/// Whether docker itself said no, and not a person who interrupted it.
fn is_failure(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(DockerError::Failed(_))))
}

/// Creates the release of a build that failed, if docker itself said no. It may not be possible, either.
async fn record_failure(
    client: &Client,
    fleet: &str,
    failed: CreateRelease,
    error: &anyhow::Error,
) -> anyhow::Result<()> {
    if !is_failure(error) {
        return Ok(());
    }
    let posted = release::post(client, fleet, &failed, &[]).await;
    posted.with_context(|| format!("{error:#}; and the failure is not recorded"))?;
    let commit = &failed.commit;
    print::note(&format!("recorded as failed: `cotter release show {commit}` prints the end of this log"));
    Ok(())
}

/// A release without content whose build was successful.
fn empty_release(commit: &Commit, is_final: bool) -> CreateRelease {
    CreateRelease {
        commit: commit.to_string(),
        status: ReleaseStatus::Success,
        is_final,
        is_passing_tests: true,
        start_timestamp: None,
        composition: Composition::default(),
        images: BTreeMap::new(),
        build_log: None,
    }
}

/// The record of a build that failed.
fn failed_release(commit: &Commit, is_final: bool, log: String) -> CreateRelease {
    CreateRelease { status: ReleaseStatus::Failed, build_log: Some(log), ..empty_release(commit, is_final) }
}

/// The name under which an image is pushed.
fn name_of(
    registry: Option<&RegistryPrefix>,
    fleet: &str,
    service: &str,
    commit: &Commit,
    own: Option<ImageRef>,
) -> anyhow::Result<ImageRef> {
    let Some(registry) = registry else {
        return match own {
            Some(own) if own.digest().is_none() => Ok(own),
            Some(_) => Err(Usage(format!(
                "services.{service}.image has a digest, so no image can be pushed as it: write a tag, or use --registry"
            ))
            .into()),
            None => Err(Usage(format!(
                "it is not known where the image of {service} goes: name a registry with --registry or COTTER_REGISTRY, set \
                 that of the fleet with `cotter fleet set {fleet} --registry`, or write services.{service}.image"
            ))
            .into()),
        };
    };
    let (fleet, service) = (build::component(fleet), build::component(service));
    Ok(ImageRef::parse(&format!("{registry}/{fleet}/{service}:{commit}"))
        .map_err(|bad| Usage(bad.to_string()))?)
}

/// Returns the platforms that an image is built for. An empty list means docker's own. Removes the platform of the service,
/// with a warning, if the image is not built for it.
///
/// `of_devices`: the platforms of the fleet's devices. They are used if neither the command line nor the project has any.
fn platforms(
    (given, of_devices): (&[String], &[String]),
    service: &str,
    fields: &mut Map<String, Value>,
    build: &Build,
) -> Vec<String> {
    let own = fields.get("platform").and_then(Value::as_str).map(str::to_owned);
    let platforms = match (given, &own) {
        ([], None) if build.platforms.is_empty() => of_devices.to_vec(),
        ([], None) => build.platforms.clone(),
        ([], Some(own)) => vec![own.clone()],
        (given, _) => given.to_vec(),
    };
    if let Some(own) = own.filter(|own| !platforms.contains(own)) {
        let why = format!("{own} is replaced by --platform {}", platforms.join(","));
        print::note(&format!("warning: services.{service}.platform: {why}"));
        fields.remove("platform");
    }
    platforms
}

/// Refuses two services whose images have the same name.
fn check_names(targets: &[Target]) -> anyhow::Result<()> {
    for (n, target) in targets.iter().enumerate() {
        if let Some(same) = targets[..n].iter().find(|other| other.image == target.image) {
            let why = format!(
                "{} and {} would both be pushed as {}: rename a service, or give each another image",
                same.service, target.service, target.image
            );
            return Err(Usage(why).into());
        }
    }
    Ok(())
}

/// Refuses what the builder of this machine cannot do. Prints all such fields.
fn check_can_be_built(targets: &[Target], builder: Builder) -> anyhow::Result<()> {
    if builder == Builder::Buildx {
        return Ok(());
    }
    let mut refused = 0;
    for Target { service, build, platforms, .. } in targets {
        for (field, place) in build::needs_buildx(build, platforms) {
            print::note(&format!(
                "error: {place}: services.{service}.{field}: docker's classic builder cannot do this: install buildx \
                 (docker-buildx-plugin or docker-buildx), or remove it"
            ));
            refused += 1;
        }
    }
    match refused {
        0 => Ok(()),
        _ => Err(Usage("docker has no buildx, which these builds need: no image was built".into()).into()),
    }
}

/// Refuses a registry that does not answer. An image that does not exist yet, or is hidden, is not an error.
async fn check_registries(docker: &mut Docker, http: &Http, targets: &[Target]) -> anyhow::Result<()> {
    for Target { service, image, .. } in targets {
        match docker.unless_interrupted(registry::resolve(http, image)).await? {
            Err(error @ RegistryError::Unreachable { .. }) => {
                return Err(error)
                    .with_context(|| format!("the image of {service} has no place; no image was built"));
            }
            Ok(_)
            | Err(
                RegistryError::NotFound { .. }
                | RegistryError::Denied { .. }
                | RegistryError::ForeignRealm { .. },
            ) => {}
        }
    }
    Ok(())
}

/// Builds all images, then pushes them.
async fn build_and_push(docker: &mut Docker, targets: &[Target]) -> anyhow::Result<()> {
    let environment = environment();
    let count = targets.len();
    // A failure that is recorded makes a release: a failed one.
    let outcome = if docker.recorded().is_some() { "" } else { ", so no release is created" };
    for (n, Target { service, build, image, platforms }) in targets.iter().enumerate() {
        let platform =
            if platforms.is_empty() { String::new() } else { format!(" for {}", platforms.join(", ")) };
        print::note(&format!("building {service} ({}/{count}){platform}", n + 1));
        let order = build::order(build, docker.builder, &image.to_string(), platforms, &environment);
        let failed = |error: DockerError| match error {
            DockerError::Missing | DockerError::NotRun(_) => anyhow::Error::new(error),
            DockerError::Failed(_) => anyhow::Error::new(error).context(format!(
                "the image of {service} is not built{outcome}: correct what docker says above ({})",
                build.place
            )),
            DockerError::Interrupted(_) => {
                anyhow::Error::new(error).context(format!("the image of {service} is not built{outcome}"))
            }
        };
        docker.run(order).await.map_err(failed)?;
    }
    for (n, Target { service, build, image, platforms }) in targets.iter().enumerate() {
        let tags = build.fields.iter().filter(|field| field.name == "tags").flat_map(|field| &field.values);
        let names: Vec<String> = match build::output(platforms) {
            build::Output::Engine => std::iter::once(image.to_string()).chain(tags.cloned()).collect(),
            build::Output::Registry => Vec::new(),
        };
        for name in names {
            print::note(&format!("pushing {service} ({}/{count}) as {name}", n + 1));
            let order = Order { args: vec!["push".into(), name.clone().into()], ..Order::default() };
            docker.run(order).await.with_context(|| {
                format!(
                    "{name}, the image of {service}, is not pushed{outcome}: see what docker says above; a \
                     registry that wants a login needs `docker login`"
                )
            })?;
        }
    }
    Ok(())
}

/// The image with the digest that the registry has for it.
async fn digest_of(
    docker: &mut Docker,
    http: &Http,
    service: &str,
    image: &ImageRef,
) -> anyhow::Result<ImageRef> {
    let found = docker.unless_interrupted(registry::resolve(http, image)).await;
    let found =
        found.with_context(|| format!("no release is created: the digest of {service} is not known"))?;
    let denied = match found {
        Err(denied @ RegistryError::Denied { .. }) => denied,
        found => {
            return found
                .with_context(|| format!("the image of {service} is pushed, and no release is created"));
        }
    };
    // Docker has a login where we have none, and it knows the digest of what it pushed.
    let name = image.to_string();
    let known = docker.ask(&["image", "inspect", "--format", "{{json .RepoDigests}}", &name]).await;
    let known: Vec<String> = known.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let known = known.iter().filter_map(|known| ImageRef::parse(known).ok());
    let Some(known) = known.into_iter().find(|known| known.repository() == image.repository()) else {
        return Err(denied)
            .with_context(|| format!("the image of {service} is pushed, and no release is created"));
    };
    print::note(&format!("warning: {image} can only be read with a login: devices need one, too"));
    Ok(known)
}
