//! `cotter push`: from a compose project to a release, by this machine's docker.
//!
//! Everything that can be refused is refused before the first image is built, and the release is created last.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value};
use tokio::process::Command;

use super::build;
use super::client::{Client, Connection};
use super::compose::{self, Verdict};
use super::docker::{Builder, Docker, DockerError, Order};
use super::exit::{InTheWay, Usage};
use super::follow::{Scope, Wait};
use super::{print, release};
use crate::config::environment;
use crate::host;
use crate::http::Http;
use crate::model::{Commit, ImageRef, ReleaseStatus};
use crate::project::Build;
use crate::registry::{self, RegistryError};
use crate::wire::operator_api::{Composition, CreateRelease, FleetView, ReleaseView};

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
    /// Registry for the images: they become REGISTRY/FLEET/SERVICE:COMMIT. Needed unless each service with build has an image,
    /// whose name is used then
    #[arg(long, env = "COTTER_REGISTRY", value_name = "HOST[:PORT][/PATH]")]
    registry: Option<String>,
    /// Platforms to build for, e.g. linux/arm64; several need buildx [default: platform of the service, else platforms of its
    /// build, else that of docker]
    ///
    /// A fleet does not know of which type its devices are: name the platform of the devices if it is not this machine's.
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    platforms: Vec<String>,
    /// Id of the release [default: the Git commit of DIR, with -dirty-RANDOM if files have changed since; random outside of Git]
    #[arg(long)]
    commit: Option<String>,
    /// Creates a draft: no fleet tracks it, but fleets and devices can be pinned to it
    #[arg(long)]
    draft: bool,
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
    let client = Client::new(verb.connection)?;
    let fleet: FleetView = client.get(&["fleets", &verb.fleet], &[]).await?;
    let commit = commit_of(verb.commit, &directory).await?;
    check_is_new(&client, &fleet.name, &commit).await?;
    let mut targets = Vec::new();
    for (service, build) in builds {
        let own = images.remove(&service);
        let image = name_of(verb.registry.as_deref(), &fleet.name, &service, &commit, own)?;
        let fields = file.services.entry(service.clone()).or_default();
        let platforms = platforms(&verb.platforms, &service, fields, &build);
        targets.push(Target { service, build, image, platforms });
    }
    check_names(&targets)?;
    let http = Http::new()?;
    let mut exact = release::exact(&http, &images).await?;
    let mut docker = if targets.is_empty() { None } else { Some(Docker::find().await?) };
    if let Some(docker) = &mut docker {
        check_can_be_built(&targets, docker.builder)?;
        check_registries(docker, &http, &targets).await?;
        build_and_push(docker, &targets).await?;
        for Target { service, image, .. } in &targets {
            exact.insert(service.clone(), digest_of(docker, &http, service, image).await?.to_string());
        }
    }
    let body = CreateRelease {
        commit: commit.to_string(),
        status: ReleaseStatus::Success,
        is_final: !verb.draft,
        is_passing_tests: true,
        start_timestamp: None,
        composition: Composition { services: file.services, networks: file.networks, volumes: file.volumes },
        images: exact,
    };
    let created = release::post(&client, &fleet.name, &body, &warnings).await?;
    print::note(&format!("created release {commit} of {}", fleet.name));
    if verb.json {
        print::json("created", &created)?;
    } else {
        release::shown(&created.release, false)?;
    }
    let scope = Scope {
        fleet: Some(created.release.fleet.clone()),
        release: Some(created.release.commit.clone()),
        ..Scope::default()
    };
    let following = verb.wait.follow(&client, &scope);
    let exit = match &mut docker {
        Some(docker) => docker.unless_interrupted(following).await.context("the devices continue")??,
        None => following.await?,
    };
    Ok(exit.into())
}

/// The name under which an image is pushed.
fn name_of(
    registry: Option<&str>,
    fleet: &str,
    service: &str,
    commit: &Commit,
    own: Option<ImageRef>,
) -> anyhow::Result<ImageRef> {
    let Some(registry) = registry.map(|registry| registry.trim_end_matches('/')).filter(|r| !r.is_empty())
    else {
        return match own {
            Some(own) if own.digest().is_none() => Ok(own),
            Some(_) => Err(Usage(format!(
                "services.{service}.image has a digest, so no image can be pushed as it: write a tag, or use --registry"
            ))
            .into()),
            None => Err(Usage(format!(
                "it is not known where the image of {service} goes: name a registry with --registry or COTTER_REGISTRY, or \
                 write services.{service}.image"
            ))
            .into()),
        };
    };
    let host = registry.split('/').next().unwrap_or_default();
    if registry.contains("://") || !(host.contains(['.', ':']) || host == "localhost") {
        let why = format!(
            "--registry {registry:?} does not begin with a host: write e.g. registry.example.com/lab"
        );
        return Err(Usage(why).into());
    }
    let (fleet, service) = (build::component(fleet), build::component(service));
    Ok(ImageRef::parse(&format!("{registry}/{fleet}/{service}:{commit}"))
        .map_err(|bad| Usage(bad.to_string()))?)
}

/// Returns the platforms that an image is built for. An empty list means docker's own. Removes the platform of the service,
/// with a warning, if the image is not built for it.
fn platforms(given: &[String], service: &str, fields: &mut Map<String, Value>, build: &Build) -> Vec<String> {
    let own = fields.get("platform").and_then(Value::as_str).map(str::to_owned);
    let platforms = match (given, &own) {
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

/// Returns the id of the release: the given one, else the Git commit of the folder, else a random one.
async fn commit_of(given: Option<String>, directory: &Path) -> anyhow::Result<Commit> {
    if let Some(given) = given {
        return Ok(Commit::parse(given).map_err(|bad| Usage(format!("--commit: {bad}")))?);
    }
    let random =
        |bytes| host::random_hex(bytes).context("cannot generate a random commit; name one with --commit");
    let head = git(directory, &["rev-parse", "--verify", "--quiet", "HEAD"]).await;
    let Some(head) = head.filter(|head| !head.is_empty()) else {
        print::note("no Git commit is known here, so the release gets a random id");
        return Ok(Commit::parse(random(16)?)?);
    };
    if git(directory, &["status", "--porcelain"]).await.is_some_and(|changes| changes.is_empty()) {
        return Ok(Commit::parse(head.get(..40).unwrap_or(&head))?);
    }
    let commit = Commit::parse(format!("{}-dirty-{}", head.get(..12).unwrap_or(&head), random(4)?))?;
    print::note(&format!("warning: files have changed since the last Git commit: the release is {commit}"));
    Ok(commit)
}

/// What git prints; `None` if it fails or is not installed.
async fn git(directory: &Path, args: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).args(args).stdin(Stdio::null()).stderr(Stdio::null());
    let out = command.output().await.ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// Refuses a commit that the fleet has already, before images are built in vain.
async fn check_is_new(client: &Client, fleet: &str, commit: &Commit) -> anyhow::Result<()> {
    let releases: Vec<ReleaseView> = client.get(&["fleets", fleet, "releases"], &[]).await?;
    if releases.iter().any(|release| release.commit == commit.as_str()) {
        let why = format!(
            "{fleet} has a release {commit} already: commit your changes, or name another id with --commit"
        );
        return Err(InTheWay(why).into());
    }
    Ok(())
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
    for (n, Target { service, build, image, platforms }) in targets.iter().enumerate() {
        let platform =
            if platforms.is_empty() { String::new() } else { format!(" for {}", platforms.join(", ")) };
        print::note(&format!("building {service} ({}/{count}){platform}", n + 1));
        let order = build::order(build, docker.builder, &image.to_string(), platforms, &environment);
        let failed = |error: DockerError| {
            match error {
            DockerError::Missing | DockerError::NotRun(_) => anyhow::Error::new(error),
            DockerError::Failed(_) => anyhow::Error::new(error).context(format!(
                "the image of {service} is not built, so no release is created: correct what docker says above ({})",
                build.place
            )),
            DockerError::Interrupted(_) => {
                anyhow::Error::new(error).context(format!("the image of {service} is not built; no release is created"))
            }
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
                    "{name}, the image of {service}, is not pushed, so no release is created: see what docker says above; a \
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
