//! Text from outside that would do something to the terminal it is shown on, or to the journal.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::evil::Evil;
use crate::lab::{Victim, app, busybox, polite, service, shell, uuid};
use crate::support::{FleetServer, Lab, Program, eventually};

/// A text with all that a terminal would obey: it clears the screen, sets the title, forges a line, turns the order of
/// letters around, hides letters.
const EVIL: &str = "a\u{1b}[2J\u{1b}]0;t\u{7}b\r\nFORGED line\u{9b}31m\u{202e}c\u{2066}d\u{200f}e\u{200b}f\u{7f}g\u{8}h\u{61c}i\u{2028}j\u{feff}k\u{e0041}";

/// The part of it that is no control character: a name may hold it where only those are refused.
const MARKS: &str = "a\u{202e}c\u{2066}d\u{200f}e\u{200b}f\u{61c}i\u{feff}k\u{e0041}";

const DEVICE_KEY: &str = "key-9f3a1c7e5b2d4860key-9f3a1c7e5b2d4860";

/// Places of `bytes` that are no text of a terminal: control characters but line ends and tabs, C1 controls, marks of
/// direction, invisible letters, bytes that are not UTF-8; and lines that were forged.
pub fn unfit(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(error) => {
            found.push(format!("not UTF-8 at byte {}", error.valid_up_to()));
            String::from_utf8_lossy(bytes).into_owned()
        }
    };
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.trim_start().starts_with("FORGED") {
            found.push(format!("a forged line: {line:?}"));
        }
        let is_unfit = |c: char| {
            matches!(c, '\0'..='\x08' | '\x0b'..='\x1f' | '\x7f'..='\u{9f}' | '\u{61c}' | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
        };
        if let Some(c) = line.chars().find(|c| is_unfit(*c)) {
            let short: String = line.chars().take(160).collect();
            found.push(format!("U+{:04X} in {short:?}", u32::from(c)));
        }
    }
    found.truncate(20);
    found
}

/// What a command shows on a terminal of its own, colours left out as NO_COLOR says.
#[track_caller]
fn on_a_terminal(command: &Command) -> Vec<u8> {
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"));
    let words: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let out = script
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::null())
        .output()
        .expect("script runs (bsdutils)");
    assert!(!out.stdout.is_empty(), "{words:?} shows nothing");
    out.stdout
}

/// A command with this device's status socket.
fn device(victim: &Victim<'_>, words: &[&str]) -> Command {
    let mut command = Program::cotter();
    command.args(words).arg("--socket").arg(victim.agent.status_socket());
    command
}

#[test]
fn no_text_of_a_cloud_or_release_reaches_a_terminal_as_it_is() {
    let lab = Lab::new("terminal");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::start(&lab, &cloud, "till");
    let image = lab.image("r1");
    let web = |more| json!({ "web": service(image, &more) });
    let none = json!({});
    // Everything that is shown somewhere: names, and what a refusal or the engine quotes.
    let mut apps = serde_json::Map::new();
    let mut number = 0;
    let mut add = |app: &dyn Fn(usize) -> serde_json::Value| {
        number += 1;
        apps.insert(uuid(number), app(number));
    };
    add(&|n| app(n, EVIL, &web(json!({})), &none, &none));
    add(&|n| app(n, "one", &json!({ EVIL: service(image, &json!({})) }), &none, &none));
    add(&|n| app(n, "one", &json!({ "web": service(EVIL, &json!({})) }), &none, &none));
    add(&|n| {
        app(
            n,
            "one",
            &json!({ "web": service(&format!("{}/demo/{EVIL}", lab.parts.registry), &json!({})) }),
            &none,
            &none,
        )
    });
    add(&|n| app(n, "one", &web(json!({})), &json!({ EVIL: {} }), &none));
    add(&|n| app(n, "one", &web(json!({})), &none, &json!({ EVIL: {} })));
    add(&|n| app(n, "one", &web(json!({ "volumes": ["d:/d"] })), &none, &json!({ "d": { "driver": EVIL } })));
    add(&|n| app(n, "one", &web(json!({ "networks": ["n"] })), &json!({ "n": { "driver": EVIL } }), &none));
    for field in [
        json!({ EVIL: true }),
        json!({ "logging": { "driver": EVIL } }),
        json!({ "logging": { "driver": "json-file", "options": { EVIL: EVIL } } }),
        json!({ "hostname": EVIL }),
        json!({ "domainname": EVIL }),
        json!({ "user": EVIL }),
        json!({ "working_dir": EVIL }),
        json!({ "runtime": EVIL }),
        json!({ "stop_signal": EVIL }),
        json!({ "command": [EVIL] }),
        json!({ "entrypoint": [EVIL] }),
        json!({ "volumes": [format!("/{EVIL}:/x")] }),
        json!({ "devices": [format!("/dev/{EVIL}:/dev/x")] }),
        json!({ "network_mode": EVIL }),
        json!({ "ports": [EVIL] }),
        json!({ "depends_on": [EVIL] }),
        json!({ "labels": { "io.cotter.update.window": EVIL } }),
        json!({ "labels": { EVIL: EVIL } }),
        json!({ "environment": { EVIL: EVIL } }),
        json!({ "sysctls": { EVIL: EVIL } }),
        json!({ "cap_add": [EVIL] }),
        json!({ "extra_hosts": [EVIL] }),
        json!({ "dns": [EVIL] }),
        json!({ "mac_address": EVIL }),
        json!({ "restart": EVIL }),
        json!({ "security_opt": [EVIL] }),
        json!({ "platform": EVIL }),
        json!({ "cpuset": EVIL }),
        json!({ "healthcheck": { "test": ["CMD", EVIL], "interval": "1s", "retries": 1 } }),
    ] {
        add(&|n| app(n, "one", &web(field.clone()), &none, &none));
    }
    let count = apps.len();
    let apps = serde_json::Value::Object(apps);
    cloud.rule(move |asked, to| {
        if !crate::lab::is_poll(asked) {
            return crate::lab::politely(asked, to, &json!({}));
        }
        let uuid = asked.path.rsplit('/').nth(1).unwrap_or_default();
        let body = json!({ uuid: { "name": "fine", "config": { EVIL: EVIL }, "apps": apps } });
        to.answer(200, &format!("ETag: \"{}\"\r\n", uuid), body.to_string().as_bytes())
    });
    eventually("most apps have their answer", Duration::from_secs(120), || {
        let waiting = victim.agent.status_value("/waiting");
        let apps: std::collections::BTreeSet<_> =
            waiting.as_array()?.iter().filter_map(|w| w["app"].as_str()).collect();
        // Those whose text was only dropped run.
        (apps.len() * 2 > count).then_some(())
    });
    victim.agent.until_polled(5);
    // Names that are cleaned, so that the target counts, and the cloud's own words in an answer that is none.
    for (name, app_name) in [(EVIL, "fine"), ("fine", EVIL), (MARKS, "fine"), ("fine", MARKS)] {
        cloud.rule(move |asked, to| {
            if !crate::lab::is_poll(asked) {
                return crate::lab::politely(asked, to, &json!({}));
            }
            let device = asked.path.rsplit('/').nth(1).unwrap_or_default();
            let apps = json!({ uuid(1): { "id": 1, "name": app_name, "class": "fleet" } });
            to.answer(200, "", json!({ device: { "name": name, "apps": apps } }).to_string().as_bytes())
        });
        victim.agent.until_polled(2);
        assert_eq!(
            victim.agent.status_value("/cloud/error"),
            serde_json::Value::Null,
            "{name:?}, {app_name:?}"
        );
    }
    cloud.rule(|asked, to| {
        if crate::lab::is_poll(asked) {
            return to.answer(500, "", EVIL.as_bytes());
        }
        crate::lab::politely(asked, to, &json!({}))
    });
    victim.agent.until_status("/cloud/error", "500");
    let mut wrong = Vec::new();
    for words in [
        &["status"][..],
        &["explain"],
        &["history"],
        &["events"],
        &["plan"],
        &["explain", "web"],
        &["logs", "no-such-service"],
    ] {
        for found in unfit(&on_a_terminal(&device(&victim, words))) {
            wrong.push(format!("cotter {}: {found}", words.join(" ")));
        }
    }
    for found in unfit(victim.agent.log().as_bytes()) {
        wrong.push(format!("the log: {found}"));
    }
    assert!(wrong.is_empty(), "{} places:\n{}", wrong.len(), wrong.join("\n"));
    victim.cage.assert_held(victim.agent.program());
}

#[test]
fn a_log_is_shown_on_a_terminal_without_its_codes_and_piped_as_it_is() {
    let lab = Lab::new("logs");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let script = r"printf 'x\033[2J\033]0;t\007y\rz\302\2331m\342\200\256w\233\377q\n'; echo written end";
    let services = json!({ "web": shell(&busybox(&lab), script) });
    cloud.rule(polite(&json!({ uuid(1): app(1, "one", &services, &json!({}), &json!({})) })));
    let victim = Victim::start(&lab, &cloud, "till");
    eventually("the app has written", Duration::from_secs(90), || {
        let out = victim.agent.cli(&["logs", "web"]);
        String::from_utf8_lossy(&out.stdout).contains("written end").then_some(())
    });
    let piped = victim.agent.cli(&["logs", "web"]).stdout;
    let raw = b"x\x1b[2J\x1b]0;t\x07y\rz\xc2\x9b1m\xe2\x80\xaew\x9b\xffq\n";
    assert!(piped.windows(raw.len()).any(|w| w == raw), "piped: {:?}", String::from_utf8_lossy(&piped));
    let shown = on_a_terminal(&device(&victim, &["logs", "web"]));
    assert_eq!(unfit(&shown), Vec::<String>::new());
    assert!(String::from_utf8_lossy(&shown).contains("written end"));
}

#[test]
fn no_name_of_a_device_reaches_an_operators_terminal_as_it_is() {
    let lab = Lab::new("names");
    let server = FleetServer::start(&lab);
    let fleet = server.create_fleet(&lab, "shop");
    let key = std::fs::read_to_string(&fleet.key_file).unwrap();
    // What a device may say of itself: some of it is refused, and none of it is shown as it is.
    let uuid = "c".repeat(32);
    let fields = json!({ "application": fleet.number, "uuid": uuid, "device_type": EVIL, "device_name": EVIL, "api_key": DEVICE_KEY, "os_version": EVIL });
    let (status, _) = crate::client::ask(&server.url, "POST", "/device/register", key.trim(), &fields);
    if status != 201 {
        let fields = json!({ "application": fleet.number, "uuid": uuid, "device_type": "generic-amd64", "device_name": "fine", "api_key": DEVICE_KEY });
        let (status, answer) =
            crate::client::ask(&server.url, "POST", "/device/register", key.trim(), &fields);
        assert_eq!(status, 201, "{answer}");
    }
    let report = json!({ &uuid: { "status": EVIL, "os_version": EVIL, "os_variant": EVIL, "ip_address": EVIL, "mac_address": EVIL, "supervisor_version": EVIL, "provisioning_state": EVIL, EVIL: EVIL } });
    crate::client::ask(&server.url, "PATCH", "/device/v3/state", DEVICE_KEY, &report);
    // An operator who pastes.
    server.try_cli(&["device", "tag", &uuid, &format!("ring={EVIL}")]);
    server.try_cli(&["fleet", "create", EVIL]);
    let mut wrong = Vec::new();
    for words in [
        &["device", "list"][..],
        &["device", "show", &uuid],
        &["fleet", "list"],
        &["fleet", "show", "shop"],
        &["device", "show", EVIL],
        &["fleet", "show", EVIL],
    ] {
        let mut command = Program::cotter();
        command
            .args(words)
            .env("COTTER_FLEET_URL", &server.url)
            .env("COTTER_TOKEN_FILE", server.token_file());
        for found in unfit(&on_a_terminal(&command)) {
            wrong.push(format!("cotter {}: {found}", words.join(" ")));
        }
    }
    for found in unfit(server.log().as_bytes()) {
        wrong.push(format!("the log: {found}"));
    }
    assert!(wrong.is_empty(), "{} places:\n{}", wrong.len(), wrong.join("\n"));
}
