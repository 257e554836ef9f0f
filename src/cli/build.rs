//! Writes how an image is built as the arguments of docker. It runs nothing.

use std::collections::BTreeMap;

use super::docker::{Builder, Order};
use crate::model::ImageRef;
use crate::project::{Build, Field, SecretFrom};

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
    args.extend(build.fields.iter().flat_map(words_of));
    // No context becomes an option.
    args.extend(["--".to_owned(), build.context.clone()]);
    order.args = args.into_iter().map(Into::into).collect();
    order
}

/// The words of docker for a field.
fn words_of(field: &Field) -> Vec<String> {
    let Some((_, option, _)) = OPTIONS.iter().find(|(name, ..)| *name == field.name) else {
        return Vec::new();
    };
    match field.name {
        "no_cache" | "pull" => vec![(*option).to_owned()],
        "privileged" => vec![(*option).to_owned(), "security.insecure".to_owned()],
        // These also exist without a value, so their value is in the same word.
        "provenance" | "sbom" => field.values.iter().map(|value| format!("{option}={value}")).collect(),
        _ => field.values.iter().flat_map(|value| [(*option).to_owned(), value.clone()]).collect(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::{BUILD_FIELDS, Place, Secret};

    fn place() -> Place {
        Place { file: "compose.yaml".into(), line: 3 }
    }

    fn build() -> Build {
        Build {
            place: place(),
            context: "/p/web".into(),
            dockerfile: None,
            inline: None,
            args: BTreeMap::new(),
            platforms: Vec::new(),
            secrets: Vec::new(),
            fields: Vec::new(),
        }
    }

    fn field(name: &'static str, values: &[&str]) -> Field {
        Field { name, place: place(), values: values.iter().map(|value| (*value).to_owned()).collect() }
    }

    fn words(build: &Build, builder: Builder, platforms: &[&str]) -> String {
        let platforms: Vec<_> = platforms.iter().map(|p| (*p).to_owned()).collect();
        let environment =
            BTreeMap::from([("SAME".to_owned(), "1".to_owned()), ("OTHER".to_owned(), "1".to_owned())]);
        let order = order(build, builder, "r/web:1", &platforms, &environment);
        let words: Vec<_> = order.args.iter().map(|word| word.to_str().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn every_field_of_a_build_has_an_option() {
        let options: Vec<_> = OPTIONS.iter().map(|(name, ..)| *name).collect();
        assert_eq!(options, BUILD_FIELDS);
    }

    #[test]
    fn the_builder_and_the_platforms_decide_where_an_image_goes() {
        for (builder, platforms, wanted) in [
            (Builder::Classic, &[][..], "build --tag r/web:1 -- /p/web"),
            (Builder::Classic, &["linux/arm64"], "build --tag r/web:1 --platform linux/arm64 -- /p/web"),
            (Builder::Buildx, &[], "buildx build --load --tag r/web:1 -- /p/web"),
            (Builder::Buildx, &["a", "b"], "buildx build --push --tag r/web:1 --platform a,b -- /p/web"),
        ] {
            assert_eq!(words(&build(), builder, platforms), wanted);
        }
    }

    #[test]
    fn all_fields_are_passed_on() {
        let mut build = build();
        build.context = "--privileged".into();
        build.dockerfile = Some("/p/Other".into());
        build.args = BTreeMap::from([("A".into(), "x y".into())]);
        build.fields = vec![
            field("additional_contexts", &["a=/b"]),
            field("cache_from", &["c", "d"]),
            field("no_cache", &["true"]),
            field("privileged", &["true"]),
            field("provenance", &["mode=max"]),
            field("sbom", &["true"]),
            field("target", &["t"]),
        ];
        let wanted = "build --tag r/web:1 --file /p/Other --build-arg A --build-context a=/b --cache-from c \
                      --cache-from d --no-cache --allow security.insecure --provenance=mode=max --sbom=true --target t \
                      -- --privileged";
        assert_eq!(words(&build, Builder::Classic, &[]), wanted);
    }

    #[test]
    fn values_stay_off_the_command_line_unless_docker_would_read_them_itself() {
        for (name, value, wanted) in [
            ("TOKEN", "secret", "TOKEN"),
            ("GITHUB_TOKEN", "secret", "GITHUB_TOKEN"),
            ("SAME", "1", "SAME"),
            ("OTHER", "2", "OTHER=2"),
            ("DOCKER_HOST", "tcp://a", "DOCKER_HOST=tcp://a"),
            ("https_proxy", "a", "https_proxy=a"),
            ("PATH", "/x", "PATH=/x"),
            ("a-b", "1", "a-b=1"),
        ] {
            let mut build = build();
            build.args = BTreeMap::from([(name.into(), value.into())]);
            let wanted = format!("build --tag r/web:1 --build-arg {wanted} -- /p/web");
            assert_eq!(words(&build, Builder::Classic, &[]), wanted);
        }
        let mut build = build();
        let secret = |id: &str, from| Secret { place: place(), id: id.into(), from };
        build.secrets = vec![
            secret("a", SecretFrom::File("/p/a".into())),
            secret("b", SecretFrom::Value("hidden".into())),
        ];
        let order = order(&build, Builder::Buildx, "i", &[], &BTreeMap::new());
        assert!(!format!("{:?}", order.args).contains("hidden"));
        assert_eq!(order.variables, [("COTTER_BUILD_SECRET_1".to_owned(), "hidden".to_owned())]);
        let wanted = "buildx build --load --tag r/web:1 --secret id=a,src=/p/a --secret id=b,env=COTTER_BUILD_SECRET_1 \
                      -- /p/web";
        assert_eq!(words(&build, Builder::Buildx, &[]), wanted);
    }

    #[test]
    fn what_needs_buildx_is_known() {
        let mut build = build();
        build.fields = vec![
            field("cache_from", &["image"]),
            field("labels", &["a=b"]),
            field("ssh", &["default"]),
            field("sbom", &["true"]),
        ];
        let fields = |build: &Build, platforms: &[String]| {
            needs_buildx(build, platforms).into_iter().map(|(field, _)| field).collect::<Vec<_>>()
        };
        assert_eq!(fields(&build, &["a".into()]), ["build.ssh", "build.sbom"]);
        build.fields = vec![field("cache_from", &["type=registry,ref=a"])];
        assert_eq!(fields(&build, &["a".into(), "b".into()]), ["build.cache_from", "build.platforms"]);
    }

    #[test]
    fn any_name_becomes_a_part_of_an_image_name() {
        for (text, wanted) in [
            ("web", "web"),
            ("Api_2", "api_2"),
            ("Lab of plants", "lab-of-plants"),
            ("a/b:c", "a-b-c"),
            ("-x-", "x"),
        ] {
            assert_eq!(component(text), wanted);
        }
    }
}
