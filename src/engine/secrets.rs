//! Hides values that a release's author wrote in messages of the engine. Pure.
//!
//! An engine quotes what it could not use: the options of a volume that it could not mount, the address of a log server
//! with its login, a line of the environment. It quotes them completely, in part, or escaped, and its messages go into
//! the status, the journal, reports and bundles. So a message is searched for these values when it arrives, wherever in
//! the message they are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::NewContainer;
use crate::model::{MountSource, NetworkMode, NetworkSpec, Probe, ServiceSpec, VolumeSpec};

/// The replacement of a secret in a message.
const HIDDEN: &str = "(secret)";

/// The replacement of a message whose secrets are not known.
const WITHHELD: &str = "(its message is left out because it may contain secret values)";

/// The longest message that is shown, in characters, and the longest that is searched, in bytes.
const LONGEST: usize = 2000;
const LONGEST_READ: usize = 8 * 1024;

/// The most bytes of values that are searched for. With more, the message is left out.
const MOST: usize = 256 * 1024;

/// The shortest piece that is hidden of a driver's option, and of another value, in bytes.
const PIECE_OF_OPTION: usize = 6;
const PIECE_OF_VALUE: usize = 8;

/// The shortest value that is hidden everywhere, in bytes. A shorter one may be an ordinary word. It is hidden only after
/// its name and an equals sign, or as a part of a login.
const SHORTEST: usize = 3;

/// Paths that occur in many messages of an engine and are not secret.
const PATHS: [&str; 3] =
    ["/var/lib/docker/volumes/", "/var/run/docker.sock", "/usr/local/sbin:/usr/local/bin"];

/// The secrets of a call.
#[derive(Default)]
pub(super) struct Secrets {
    /// Options of drivers of volumes, networks, logs and devices, without their names.
    options: BTreeSet<String>,
    /// Variables, by name and value.
    environment: BTreeSet<(String, String)>,
    /// Arguments, probes, and values of labels and annotations.
    texts: BTreeSet<String>,
    /// Values that the status shows anyway. A secret that is a part of one is not hidden.
    public: BTreeSet<String>,
}

impl Secrets {
    /// The secrets of a container, and of the volumes and networks of its release.
    pub(super) fn of(new: NewContainer<'_>) -> Self {
        let mut secrets = Self::of_service(new.spec, new.volumes.values());
        let keys = new.introduction.variables.iter().filter(|(name, _)| name.ends_with("_API_KEY"));
        secrets.environment.extend(keys.cloned());
        new.networks.values().for_each(|spec| secrets.add_network(spec));
        let names =
            new.volumes.keys().map(|name| name.as_str()).chain(new.networks.keys().map(|n| n.as_str()));
        let number = new.app.number.to_string();
        for name in names.chain([new.service.as_str(), new.app.id.as_str(), &number]) {
            secrets.show(name);
        }
        secrets
    }

    /// The secrets of a service and of volumes.
    pub(super) fn of_service<'a>(
        spec: &ServiceSpec,
        volumes: impl IntoIterator<Item = &'a VolumeSpec>,
    ) -> Self {
        let mut secrets = Self::default();
        secrets.add_service(spec);
        secrets.add_options(volumes.into_iter().map(|spec| &spec.driver_opts));
        secrets
    }

    /// The secrets of a network.
    pub(super) fn of_network(name: &str, spec: &NetworkSpec) -> Self {
        let mut secrets = Self::default();
        secrets.add_network(spec);
        secrets.show(name);
        secrets
    }

    /// The password of a login at a registry, which may quote it.
    pub(super) fn of_login(password: &str) -> Self {
        Self { options: BTreeSet::from([password.to_owned()]), ..Self::default() }
    }

    /// The secrets of an existing container, from what the engine reports about it and about all volumes and networks.
    pub(super) fn of_inspected(container: &Value, volumes: &Value, networks: &Value) -> Self {
        let mut secrets = Self::default();
        let at = |path: &str| container.pointer(path).unwrap_or(&Value::Null);
        let pair =
            |line: String| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        secrets.environment.extend(texts(at("/Config/Env")).into_iter().filter_map(pair));
        for path in ["/Args", "/Config/Healthcheck/Test", "/Config/Labels", "/HostConfig/Annotations"] {
            secrets.texts.extend(texts(at(path)));
        }
        let (mounts, attached) = (items(at("/Mounts")), members(at("/NetworkSettings/Networks")));
        let is_mounted = |volume: &&Value| mounts.iter().any(|mount| mount["Name"] == volume["Name"]);
        let is_attached = |network: &&Value| attached.iter().any(|(name, _)| network["Name"] == **name);
        let volumes = items(&volumes["Volumes"]).iter().filter(is_mounted);
        let networks = items(networks).iter().filter(is_attached);
        let options = volumes.map(|volume| &volume["Options"]);
        let options =
            options.chain(networks.flat_map(|network| [&network["Options"], &network["IPAM"]["Options"]]));
        let options = options.chain(attached.iter().map(|(_, endpoint)| &endpoint["DriverOpts"]));
        let requests = items(at("/HostConfig/DeviceRequests")).iter().map(|request| &request["Options"]);
        let options = options.chain(requests).chain([at("/HostConfig/LogConfig/Config")]);
        secrets.options.extend(options.flat_map(texts));
        let ours =
            members(at("/Config/Labels")).into_iter().filter(|(name, _)| name.starts_with("io.cotter."));
        let places =
            mounts.iter().flat_map(|mount| [&mount["Name"], &mount["Source"], &mount["Destination"]]);
        let shown = ours.map(|(_, value)| value).chain(places);
        let shown = shown.chain([at("/Name"), at("/Path"), at("/Config/Image")]);
        secrets.public.extend(shown.flat_map(texts));
        secrets.public.extend(attached.into_iter().map(|(name, _)| name.clone()));
        secrets.public.extend(members(at("/HostConfig/PortBindings")).into_iter().flat_map(
            |(port, bindings)| {
                let host_ports = items(bindings).iter().flat_map(|binding| texts(&binding["HostPort"]));
                host_ports.chain([port.clone()]).collect::<Vec<_>>()
            },
        ));
        secrets
    }

    fn add_service(&mut self, spec: &ServiceSpec) {
        self.environment.extend(spec.environment.clone());
        self.texts.extend(spec.files.iter().map(|file| file.content.clone()));
        self.texts.extend(spec.labels.values().chain(spec.annotations.values()).cloned());
        for words in [&spec.command, &spec.entrypoint].into_iter().flatten() {
            let is_program = |word: &&String| !word.starts_with('-') && !word.contains(['=', ' ', '\n']);
            let program = words.first().filter(is_program);
            program.into_iter().for_each(|program| self.show(program));
            self.texts.extend(words.iter().skip(usize::from(program.is_some())).cloned());
        }
        match spec.healthcheck.as_ref().map(|check| &check.probe) {
            Some(Probe::Command(words)) => self.texts.extend(words.iter().cloned()),
            Some(Probe::Shell(line)) => drop(self.texts.insert(line.clone())),
            Some(Probe::Inherit | Probe::Disabled) | None => {}
        }
        self.add_options(spec.logging.as_ref().map(|logging| &logging.options));
        self.add_options(spec.isolation.device_requests.iter().map(|request| &request.options));
        if let NetworkMode::Networks(attachments) = &spec.network_mode {
            self.add_options(attachments.values().map(|attachment| &attachment.driver_opts));
        }
        for mount in &spec.mounts {
            self.show(&mount.target);
            if let MountSource::Host(path) = &mount.source {
                self.show(path);
            }
        }
        for port in spec.ports.iter().flat_map(|port| [Some(port.container_port), port.host_port]).flatten() {
            self.show(&port.to_string());
        }
        for text in [&spec.user, &spec.working_dir, &spec.hostname].into_iter().flatten() {
            self.show(text);
        }
        self.show(&spec.image.to_string());
    }

    fn add_network(&mut self, spec: &NetworkSpec) {
        self.add_options([&spec.driver_opts, &spec.ipam_options]);
    }

    fn add_options<'a>(&mut self, maps: impl IntoIterator<Item = &'a BTreeMap<String, String>>) {
        self.options.extend(maps.into_iter().flat_map(|map| map.values().cloned()));
    }

    fn show(&mut self, text: &str) {
        self.public.insert(text.to_owned());
    }

    /// Returns a message without the secrets, of limited length.
    pub(super) fn hide(&self, message: &str) -> String {
        let message = &message[..message.floor_char_boundary(LONGEST_READ)];
        let environment = self.environment.iter().map(|(_, value)| value);
        let all = self.options.iter().chain(&self.texts).chain(environment);
        if all.map(String::len).sum::<usize>() > MOST {
            return WITHHELD.to_owned();
        }
        let mut hunt = Hunt::new(message, &self.public);
        for option in &self.options {
            hunt.hide_alone(option);
            for part in option.split(|c: char| matches!(c, ',' | ';') || c.is_whitespace()) {
                match part.split_once('=') {
                    Some((name, value)) if is_name(name) => hunt.hide_value(name, value, PIECE_OF_OPTION),
                    Some(_) | None => hunt.hide(part, PIECE_OF_OPTION),
                }
            }
        }
        for (name, value) in self.environment.iter().filter(|(name, _)| name != "PATH") {
            hunt.hide_value(name, value, PIECE_OF_VALUE);
        }
        for text in &self.texts {
            text.lines().for_each(|line| hunt.hide(line, PIECE_OF_VALUE));
        }
        hunt.left()
    }
}

/// Replaces a message whose secrets are not known.
pub(super) fn withheld(_message: &str) -> String {
    WITHHELD.to_owned()
}

/// Returns the texts of a JSON value: of a string, a list, or the values of a map.
fn texts(value: &Value) -> Vec<String> {
    let named = members(value).into_iter().map(|(_, item)| item);
    let all = items(value).iter().chain(named).chain([value]);
    all.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn members(value: &Value) -> Vec<(&String, &Value)> {
    value.as_object().into_iter().flatten().collect()
}

/// A message, and the bytes of it that are secret.
struct Hunt<'a> {
    message: &'a str,
    /// The message in lower case: an engine may write the host of an address so.
    lower: Vec<u8>,
    is_secret: Vec<bool>,
    public: String,
    /// The positions of the pieces of the message, sorted by the pieces, for each length.
    pieces: BTreeMap<usize, Vec<usize>>,
}

impl<'a> Hunt<'a> {
    fn new(message: &'a str, public: &BTreeSet<String>) -> Self {
        let lower = message.to_ascii_lowercase().into_bytes();
        let public = public.iter().map(String::as_str).chain(PATHS).collect::<Vec<_>>().join("\n");
        let sorted = |piece: usize| {
            let mut places: Vec<_> = (0..(lower.len() + 1).saturating_sub(piece)).collect();
            places.sort_unstable_by_key(|at| &lower[*at..at + piece]);
            (piece, places)
        };
        let pieces = BTreeMap::from([PIECE_OF_OPTION, PIECE_OF_VALUE].map(sorted));
        let (is_secret, public) = (vec![false; lower.len()], public.to_ascii_lowercase());
        Self { message, lower, is_secret, public, pieces }
    }

    /// Hides a secret, the login in it, and all its pieces of at least `piece` bytes.
    fn hide(&mut self, secret: &str, piece: usize) {
        self.hide_alone(secret);
        for form in forms(secret) {
            self.hide_pieces(&form, piece);
        }
    }

    /// Hides a whole secret, and the name and password of a login in it.
    fn hide_alone(&mut self, secret: &str) {
        if secret.len() >= SHORTEST {
            forms(secret).iter().for_each(|form| self.hide_word(form));
        }
        if let Some(login) = login_of(secret) {
            for word in [login].into_iter().chain(login.split(':')) {
                forms(word).iter().for_each(|form| self.hide_word(form));
            }
        }
    }

    /// Hides a named value: all of it, each line, and any beginning of it after `name=`.
    fn hide_value(&mut self, name: &str, value: &str, piece: usize) {
        self.hide_alone(value);
        value.lines().for_each(|line| self.hide(line, piece));
        let name = format!("{}=", name.to_ascii_lowercase()).into_bytes();
        let of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        for at in found(&self.lower, &name) {
            if at > 0 && of_name(self.lower[at - 1]) {
                continue;
            }
            let begin = at + name.len();
            for form in forms(value) {
                let alike =
                    self.lower[begin..].iter().zip(form.bytes()).take_while(|(a, b)| **a == *b).count();
                self.is_secret[begin..begin + alike].fill(true);
            }
        }
    }

    /// Hides a text in lower case. A short one is hidden only if it is not part of a longer word.
    fn hide_word(&mut self, word: &str) {
        let is_part = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        if word.trim().is_empty() || self.public.contains(word) {
            return;
        }
        for at in found(&self.lower, word.as_bytes()) {
            let end = at + word.len();
            let goes_on = is_part(self.lower.get(end)) && is_part(word.as_bytes().last());
            let began = at > 0 && is_part(self.lower.get(at - 1)) && is_part(word.as_bytes().first());
            if word.len() >= PIECE_OF_OPTION || (!goes_on && !began) {
                self.is_secret[at..end].fill(true);
            }
        }
    }

    fn hide_pieces(&mut self, text: &str, piece: usize) {
        let Some(places) = self.pieces.get(&piece) else { return };
        for part in text.as_bytes().windows(piece) {
            let of = |at: &usize| &self.lower[*at..at + piece];
            let first = places.partition_point(|at| of(at) < part);
            let alike = places[first..].iter().take_while(|at| of(at) == part);
            if alike.clone().next().is_none() || self.public.as_bytes().windows(piece).any(|own| own == part)
            {
                continue;
            }
            alike.for_each(|at| self.is_secret[*at..at + piece].fill(true));
        }
    }

    /// Returns what is left of the message.
    fn left(self) -> String {
        let (mut left, mut was_secret, mut count) = (String::new(), false, 0);
        for (at, c) in self.message.char_indices() {
            let is_secret = self.is_secret[at..at + c.len_utf8()].contains(&true);
            if is_secret && !was_secret {
                left.push_str(HIDDEN);
            } else if !is_secret {
                left.push(c);
            }
            (was_secret, count) = (is_secret, count + 1);
            if count == LONGEST {
                left.push('…');
                break;
            }
        }
        left
    }
}

/// Returns `true` if a text can be the name of an option.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// Returns every position of `part`.
fn found(whole: &[u8], part: &[u8]) -> Vec<usize> {
    if part.is_empty() {
        return Vec::new();
    }
    whole.windows(part.len()).enumerate().filter(|(_, window)| *window == part).map(|(at, _)| at).collect()
}

/// Returns the name and password in an address: `ftp://joe:pw@host`, `//joe:pw@host`, `joe:pw@host`.
fn login_of(text: &str) -> Option<&str> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest).trim_start_matches('/');
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map(|(login, _)| login)
}

/// Returns the forms in which an engine may write a text, in lower case: unchanged, in quotes once or twice, as a part of
/// an address, or for a shell.
fn forms(text: &str) -> BTreeSet<String> {
    let text = text.to_ascii_lowercase();
    let quoted = |text: &str| {
        let json = Value::from(text).to_string();
        json[1..json.len() - 1].to_owned()
    };
    let in_address = text.bytes().fold(String::new(), |address, byte| match byte {
        b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => address + &char::from(b).to_string(),
        b => address + &format!("%{b:02x}"),
    });
    let (once, of_shell) = (quoted(&text), text.replace('\'', r"'\''"));
    BTreeSet::from([quoted(&once), once, text.escape_default().to_string(), in_address, of_shell, text])
}

#[cfg(test)]
mod tests;
