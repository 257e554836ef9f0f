//! Writes how an image is built as the arguments of docker. It runs nothing.

use std::collections::BTreeMap;

use super::docker::{Builder, Order};
use crate::model::ImageRef;
use crate::project::{Build, SecretFrom};

/// The option of docker for each field, and whether only buildx has it.
const OPTIONS: &[(&str, &str, bool)] = &[
    ("additional_contexts", "--build-context", true),
    ("cache_from", "--cache-from", false),
    ("cache_to", "--cache-to", true),
    ("entitlements", "--allow", true),
    ("extra_hosts", "--add-host", false),
    ("labels", "--label", false),
    ("network", "--network", false),
    ("no_cache", "--no-cache", false),
    ("no_cache_filter", "--no-cache-filter", true),
    ("privileged", "--allow", true),
    ("provenance", "--provenance", true),
    ("pull", "--pull", false),
    ("sbom", "--sbom", true),
    ("shm_size", "--shm-size", false),
    ("ssh", "--ssh", true),
    ("tags", "--tag", false),
    ("target", "--target", false),
    ("ulimits", "--ulimit", false),
];

/// Beginnings of the names of variables that docker, buildx or what they run may read themselves.
const OF_DOCKER: &[&str] = &[
    "BUILDKIT",
    "BUILDX",
    "COMPOSE",
    "DBUS",
    "DOCKER",
    "GIT_",
    "GODEBUG",
    "GOGC",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "HOME",
    "LANG",
    "LC_",
    "LD_",
    "LOGNAME",
    "NO_COLOR",
    "OTEL",
    "PATH",
    "PWD",
    "SHELL",
    "SOURCE_DATE_EPOCH",
    "SSH",
    "SSL",
    "TERM",
    "TMP",
    "TZ",
    "USER",
    "XDG",
];

/// The variable with the content of a secret, before its number.
const SECRET: &str = "COTTER_BUILD_SECRET_";

/// Where a built image goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// Into the machine's engine.
    Engine,
    /// To the registry, because an engine has no place for images of several platforms.
    Registry,
}

/// The words of `docker` that build an image with this name.
pub(super) fn order(
    build: &Build,
    builder: Builder,
    name: &str,
    platforms: &[String],
    environment: &BTreeMap<String, String>,
) -> Order {
    let mut order = Order::default();
    let mut args: Vec<String> = match builder {
        Builder::Buildx => vec!["buildx".into(), "build".into()],
        Builder::Classic => vec!["build".into()],
    };
    if builder == Builder::Buildx {
        args.push(if output(platforms) == Output::Engine { "--load" } else { "--push" }.into());
    }
    args.extend(["--tag".to_owned(), name.to_owned()]);
    if !platforms.is_empty() {
        args.extend(["--platform".to_owned(), platforms.join(",")]);
    }
    match (&build.inline, &build.dockerfile) {
        (Some(text), _) => {
            args.extend(["--file".to_owned(), "-".to_owned()]);
            order.input = Some(text.clone());
        }
        (None, Some(file)) => args.extend(["--file".to_owned(), file.clone()]),
        (None, None) => {}
    }
    for (name, value) in &build.args {
        args.push("--build-arg".into());
        if may_be_variable(name, value, environment) {
            order.variables.push((name.clone(), value.clone()));
            args.push(name.clone());
        } else {
            args.push(format!("{name}={value}"));
        }
    }
    for (n, secret) in build.secrets.iter().enumerate() {
        args.push("--secret".into());
        args.push(match &secret.from {
            SecretFrom::File(file) => format!("id={},src={}", secret.id, file.display()),
            SecretFrom::Value(value) => {
                order.variables.push((format!("{SECRET}{n}"), value.clone()));
                format!("id={},env={SECRET}{n}", secret.id)
            }
        });
    }
    for field in &build.fields {
        let Some((_, option, _)) = OPTIONS.iter().find(|(name, ..)| *name == field.name) else { continue };
        match field.name {
            "no_cache" | "pull" => args.push((*option).to_owned()),
            "privileged" => args.extend([(*option).to_owned(), "security.insecure".to_owned()]),
            // These also exist without a value, so their value is in the same word.
            "provenance" | "sbom" => {
                args.extend(field.values.iter().map(|value| format!("{option}={value}")))
            }
            _ => args.extend(field.values.iter().flat_map(|value| [(*option).to_owned(), value.clone()])),
        }
    }
    // No context becomes an option.
    args.extend(["--".to_owned(), build.context.clone()]);
    order.args = args.into_iter().map(Into::into).collect();
    order
}

pub(super) fn output(platforms: &[String]) -> Output {
    if platforms.len() > 1 { Output::Registry } else { Output::Engine }
}

/// What only buildx can do: the path of each field, below `build`, with its line.
pub(super) fn needs_buildx(build: &Build, platforms: &[String]) -> Vec<(String, crate::project::Place)> {
    let mut fields: Vec<_> = build
        .fields
        .iter()
        .filter(|field| {
            let is_of_buildx =
                OPTIONS.iter().any(|(name, _, is_of_buildx)| *name == field.name && *is_of_buildx);
            // The classic builder takes names of images only.
            is_of_buildx
                || (field.name == "cache_from" && field.values.iter().any(|value| value.contains('=')))
        })
        .map(|field| (format!("build.{}", field.name), field.place.clone()))
        .collect();
    fields.extend(build.secrets.first().map(|secret| ("build.secrets".to_owned(), secret.place.clone())));
    if output(platforms) == Output::Registry {
        fields.push(("build.platforms".to_owned(), build.place.clone()));
    }
    fields
}

/// Whether an argument can be given as a variable of docker, so that its value is in no list of processes.
fn may_be_variable(name: &str, value: &str, environment: &BTreeMap<String, String>) -> bool {
    let is_name = !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let upper = name.to_ascii_uppercase();
    let is_of_docker = OF_DOCKER.iter().any(|start| upper.starts_with(start)) || upper.ends_with("_PROXY");
    is_name
        && !value.contains('\0')
        && match environment.get(name) {
            Some(present) => present == value,
            None => !is_of_docker,
        }
}

/// A part of an image's name made of any text: lower case, with '-' for what a name cannot have.
pub(super) fn component(text: &str) -> String {
    let lower = text.to_lowercase();
    let is_fine = !lower.contains(['/', ':', '@']) && ImageRef::parse(&format!("localhost/{lower}")).is_ok();
    if is_fine {
        return lower;
    }
    let parts = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-")
}
