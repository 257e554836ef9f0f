use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::key_file::key;
use super::knobs::{KNOBS, Kind, Knob};
use super::*;
use crate::model::Switch;

fn load(text: &str, environment: &[(&str, &str)], set: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    fs::write(&path, text).unwrap();
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let set = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let given = Given { file: Some(path), set };
    let shown = folder.path().display().to_string();
    Config::load(&given, &environment).map_err(|e| e.to_string().replace(&shown, "DIR"))
}

#[test]
fn the_shipped_file_is_the_defaults() {
    let shipped = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/agent.toml")).unwrap();
    assert_eq!(load(&shipped, &[], &[]).unwrap(), load("", &[], &[]).unwrap());
    let table: toml::Table = toml::from_str(&shipped).unwrap();
    for Knob { name, default, .. } in KNOBS {
        let key = name.split('.').next_back().unwrap();
        assert!(shipped.contains(&format!("{key} = ")), "{name} is not in the shipped file");
        let mut found = table.get(name.split('.').next().unwrap());
        if name.contains('.') {
            found = found.and_then(|section| section.get(key));
        }
        let number = |value: &toml::Value| value.as_integer().unwrap().to_string();
        let found = found.map(|value| value.as_str().map_or_else(|| number(value), str::to_owned));
        assert_eq!(found.as_deref(), *default, "the default of {name}");
    }
    for line in shipped.lines() {
        let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ") else { continue };
        let is_knob = KNOBS.iter().any(|knob| knob.name.split('.').next_back() == Some(key));
        assert!(is_knob, "{key} is in the shipped file, and neither variable nor flag sets it");
    }
}

#[test]
fn every_knob_is_read_from_environment_and_flag() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = |name: &str| {
        let path = folder.path().join(name);
        fs::write(&path, name).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let (one, other) = (key_file("one"), key_file("other"));
    let known = format!("uuid = \"{}\"\ndevice_key_file = \"{one}\"", "a".repeat(32));
    let joining = format!("fleet = 1\nprovisioning_key_file = \"{one}\"");
    let authority = key_file("authority");
    fs::write(&authority, "-----BEGIN CERTIFICATE-----\n").unwrap();
    for Knob { name: knob, kind, .. } in KNOBS {
        let how = if matches!(*knob, "cloud.uuid" | "cloud.device_key_file") { &known } else { &joining };
        let file = format!("[cloud]\nendpoint = \"http://a\"\n{how}\n");
        let value = match *knob {
            "cloud.uuid" => "b".repeat(32),
            "cloud.endpoint" => "http://b".to_owned(),
            key if key.ends_with("key_file") => other.clone(),
            "log.level" => "debug".to_owned(),
            "metrics.listen" => "127.0.0.1:9".to_owned(),
            "update.windows" => "02:00-04:00".to_owned(),
            "policy.host_paths" => "/srv".to_owned(),
            "policy.preset" => "strict".to_owned(),
            key if key.starts_with("policy.") => "no".to_owned(),
            "supervisor_api.port" => "9999".to_owned(),
            "update.disk_reserve" => "1GiB".to_owned(),
            "limits.environment" => "2KiB".to_owned(),
            "limits.values" => "2000".to_owned(),
            "cloud.tags" => "a=b".to_owned(),
            "logs.upload" => "on".to_owned(),
            "vpn.enabled" => "yes".to_owned(),
            "vpn.device" => "cotter-vpn2".to_owned(),
            "cloud.ca_file" => authority.clone(),
            key if *kind != Kind::Text || !key.contains('.') => "9".to_owned(),
            "engine.socket" | "cloud.device_type" | "cloud.device_name" => "x".to_owned(),
            _ => "77s".to_owned(),
        };
        let before = load(&file, &[], &[]).unwrap();
        let variable = format!("COTTER_{}", knob.to_uppercase().replace('.', "_"));
        let by_variable = load(&file, &[(&variable, &value)], &[]).unwrap();
        let by_flag = load(&file, &[], &[(knob, &value)]).unwrap();
        assert!(by_variable != before, "{variable} changes nothing");
        assert!(by_flag == by_variable, "--set {knob} is not {variable}");
    }
}

#[test]
fn hosts_that_may_see_the_key_are_named_with_a_port_or_as_plain() {
    let text = "[cloud]\nendpoint = \"http://a\"\nregistries = \"r.example:5000, http://lan.example:5000\"";
    let cloud = load(text, &[], &[]).unwrap().cloud.unwrap();
    assert_eq!(cloud.registries, ["r.example:5000", "http://lan.example:5000"]);
}

#[test]
fn a_text_may_hold_any_letter() {
    let text = "a \"b\" \\ 'c' # \u{e9}\u{7f}\u{1} \u{2028} \u{1f980}\n= [d]";
    let config = load("state_dir = \"/before\"", &[], &[("state_dir", text)]).unwrap();
    assert_eq!(config.state_dir, Path::new(text));
}

#[test]
fn a_key_may_be_a_credential_of_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cotter.provisioning-key");
    fs::write(&path, "secret\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    let key = "provisioning_key_file = \"$CREDENTIALS_DIRECTORY/cotter.provisioning-key\"";
    let text = format!("[cloud]\nendpoint = \"http://a\"\nfleet = 7\n{key}\n");
    let given = folder.path().display().to_string();
    let config = load(&text, &[("CREDENTIALS_DIRECTORY", &given)], &[]).unwrap();
    let Joining::Register { fleet, key_file } = config.cloud.unwrap().joining else { panic!("it registers") };
    assert_eq!((fleet, key_file.read().unwrap()), (FleetRef::Number(7), "secret".to_owned()));
    assert_eq!(key_file.path(), path);
    // Who looks from outside of the unit finds it where systemd has it.
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    let found = |folders: &[&str]| {
        let folders = folders.iter().map(|folder| (*folder).to_owned()).collect::<Vec<_>>();
        sources::with_folder(BTreeMap::new(), &folders).into_values().collect::<Vec<_>>()
    };
    assert_eq!(found(&["/nowhere", empty, given.as_str(), "/"]), [given.as_str()]);
    assert_eq!(found(&["/nowhere", empty]), Vec::<String>::new());
    let unit = BTreeMap::from([("CREDENTIALS_DIRECTORY".to_owned(), "/its".to_owned())]);
    assert_eq!(sources::with_folder(unit.clone(), &[given]), unit, "what systemd says counts");
    let first = |file: Option<&str>, instance: Option<&str>| {
        let set = instance.map(|name| ("instance".to_owned(), name.to_owned())).into_iter().collect();
        sources::credentials(&Given { file: file.map(PathBuf::from), set }).remove(0)
    };
    assert_eq!(first(None, None), "/run/credentials/cotter-agent.service");
    let lab = "/run/credentials/cotter-agent@lab.service";
    assert_eq!(first(Some("/etc/cotter/lab/agent.toml"), None), lab);
    assert_eq!(first(Some("/etc/cotter/b/agent.toml"), Some("lab")), lab);
    // A credential that was taken away once the device was registered is no mistake until it is needed again.
    let Some(Joining::Register { key_file, .. }) = load(&text, &[], &[]).unwrap().cloud.map(|c| c.joining)
    else {
        panic!("it registers")
    };
    assert!(!key_file.has_key());
    assert_eq!(
        key_file.read().unwrap_err().to_string(),
        "cloud.provisioning_key_file: key file $CREDENTIALS_DIRECTORY/cotter.provisioning-key cannot be used: \
         systemd sets no $CREDENTIALS_DIRECTORY here; add LoadCredential= to the unit, or name a file"
    );
}

#[test]
fn what_is_nearer_wins() {
    let file = "instance = \"file\"\n[update]\nparallel_pulls = 3\nparallel_swaps = 5\n";
    let config = load(
        file,
        &[("COTTER_INSTANCE", "variable"), ("COTTER_UPDATE_PARALLEL_PULLS", "4")],
        &[("instance", "flag")],
    );
    let config = config.unwrap();
    assert_eq!(config.instance.as_str(), "flag");
    assert_eq!((config.plan.parallel_pulls, config.plan.parallel_swaps), (4, 5));
}

#[test]
fn the_folder_beside_the_file_is_laid_over_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    fs::write(&path, "instance = \"one\"\n[engine]\nresync = \"1min\"").unwrap();
    fs::create_dir(folder.path().join("agent.d")).unwrap();
    fs::write(folder.path().join("agent.d/20.toml"), "instance = \"three\"").unwrap();
    fs::write(folder.path().join("agent.d/10.toml"), "instance = \"two\"").unwrap();
    fs::write(folder.path().join("agent.d/30.txt"), "not read").unwrap();
    let config = Config::load(&Given { file: Some(path), set: Vec::new() }, &BTreeMap::new()).unwrap();
    assert_eq!((config.instance.as_str(), config.resync), ("three", Duration::from_secs(60)));
}

#[test]
fn an_error_names_its_place() {
    for (text, expected) in [
        (
            "colour = 1",
            "settings in DIR/agent.toml, line 1 are invalid: unknown field `colour`, expected one of",
        ),
        (
            "\n\n[cloud]\nreport_lines = \"x\"",
            "settings in DIR/agent.toml, line 4 are invalid: invalid type: string \"x\", expected a whole number",
        ),
        ("instance = ", "settings in DIR/agent.toml, line 1 are invalid: "),
        ("instance = \"A B\"", "instance = \"A B\" is not accepted: it must be lower-case letters"),
        (
            "[cloud]\npoll_interval = \"1ms\"",
            "cloud.poll_interval = \"1ms\" is not accepted: it must be a duration such as 15min, from 1s to 1day",
        ),
        (
            "[policy]\npreset = \"lax\"",
            "policy.preset = \"lax\" is not accepted: it must be balena or strict; it is set in DIR/agent.toml, line 2",
        ),
        ("[policy]\ndevices = \"maybe\"", "policy.devices = \"maybe\" is not accepted: it must be yes or no"),
        (
            "[policy]\nhost_paths = \"srv\"",
            "policy.host_paths = \"srv\" is not accepted: it must be absolute paths such as /srv,/media, separated \
             by commas, or empty",
        ),
        ("[cloud]\npoll_interval = \"12parsecs\"", "cloud.poll_interval = \"12parsecs\" is not accepted"),
        (
            "[cloud]\nendpoint = \"https://münchen.example\"",
            "cloud.endpoint = \"https://münchen.example\" is not accepted: it must be a URL whose host is \
             in ASCII, e.g. xn--mnchen-3ya.example",
        ),
        ("[cloud]\nendpoint = \"ftp://x\"", "cloud.endpoint = \"ftp://x\" is not accepted: it must be a URL"),
        ("[cloud]\nfleet = 1", "cloud.fleet and cloud.provisioning_key_file go together"),
        ("[cloud]\nuuid = \"1\"", "cloud.uuid and cloud.device_key_file go together"),
        (
            "[cloud]\nuuid = \"0123456789abcdef0123456789abcdef\"\ndevice_key_file = \"/nowhere\"",
            "cloud.device_key_file: key file /nowhere cannot be used: No such file",
        ),
        (
            "[update]\nparallel_pulls = 0",
            "update.parallel_pulls = \"0\" is not accepted: it must be a whole number from 1 to 16",
        ),
        (
            "[update]\nwindows = \"02:00-04:00; at night\"",
            "update.windows = \"02:00-04:00; at night\" is not accepted: it must be windows such as \
             Mon-Fri 02:00-04:00 Europe/Zurich, separated by ;, or empty (\"at night\" is not a \
             maintenance window: its days must be like Mon-Fri or Sat,Sun)",
        ),
        (
            "[update]\ndisk_reserve = \"2TiB\"",
            "update.disk_reserve = \"2TiB\" is not accepted: it must be a size such as 64MiB, from 0 to 1TiB",
        ),
        (
            "[heal]\nrestarts = 101",
            "heal.restarts = \"101\" is not accepted: it must be a whole number from 0 to 100",
        ),
        (
            "[limits]\nservices = 0",
            "limits.services = \"0\" is not accepted: it must be a whole number from 1 to 5000",
        ),
        (
            "[limits]\nenvironment = \"1000\"",
            "limits.environment = \"1000\" is not accepted: it must be a size such as 1MiB, from 1KiB to 4MiB",
        ),
        (
            "[cloud]\nendpoint = \"http://a\"\nregistries = \"https://r.example\"",
            "cloud.registries = \"https://r.example\" is not accepted: it must be hosts such as \
             registry.example.com:5000, separated by commas, with http:// before one without TLS",
        ),
        (
            "[cloud]\nendpoint = \"http://a\"\nregistries = \"http://\"",
            "cloud.registries = \"http://\" is not accepted",
        ),
        (
            "[heal]\nwindow = \"9s\"",
            "heal.window = \"9s\" is not accepted: it must be a duration such as 1h, from 10s to 1day",
        ),
    ] {
        let error = load(text, &[], &[]).unwrap_err();
        assert!(error.starts_with(expected), "{text}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_missing_file_is_an_error_only_when_it_was_named() {
    let given = Given { file: Some("/nowhere/agent.toml".into()), set: Vec::new() };
    let error = Config::load(&given, &BTreeMap::new()).unwrap_err().to_string();
    assert!(error.contains("/nowhere/agent.toml cannot be read"), "{error}");
}

#[test]
fn only_a_regular_file_of_a_bounded_size_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (pipe, long) = (folder.path().join("pipe"), folder.path().join("long"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::write(&long, "#".repeat((1 << 20) + 1)).unwrap();
    for (file, why) in [
        (pipe, "it is not a regular file"),
        ("/dev/zero".into(), "it is not a regular file"),
        (folder.path().to_owned(), "it is not a regular file"),
        (long, "it has more than 1048576 bytes"),
    ] {
        let given = Given { file: Some(file), set: Vec::new() };
        let error = Config::load(&given, &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn no_settings_have_a_name() {
    let given = Given { file: Some("/dev/null".into()), set: Vec::new() };
    let (named, default) =
        (Config::load(&given, &BTreeMap::new()), Config::load(&Given::default(), &BTreeMap::new()));
    assert_eq!(named.unwrap().plan, default.unwrap().plan);
}

#[test]
fn keys_are_for_our_eyes_only() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "secret").unwrap();
    assert_eq!(key("k", file.path()).unwrap(), "secret");
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(key("k", file.path()).unwrap_err().to_string().contains("chmod 600"));
}

#[test]
fn what_a_plan_may_do_is_set() {
    let file = "[update]\nwindows = \"Sun 02:00-04:00; 12:00-13:00\"\ndisk_reserve = \"0\"\n\
                [heal]\nrestarts = 0\nwindow = \"10min\"";
    let plan = load(file, &[], &[]).unwrap().plan;
    let windows: Vec<_> = plan.windows.iter().map(ToString::to_string).collect();
    assert_eq!(windows, ["Sun 02:00-04:00 UTC", "12:00-13:00 UTC"]);
    assert_eq!((plan.disk_reserve, plan.heals, plan.heal_window), (0, 0, Duration::from_secs(600)));
    let defaults = load("", &[], &[]).unwrap().plan;
    assert_eq!(defaults, PlanSettings::default());
}

#[test]
fn a_preset_sets_all_switches_and_a_switch_of_its_own_goes_before() {
    let policy = |text: &str| load(text, &[], &[]).unwrap().policy;
    assert_eq!(policy(""), Policy::balena());
    assert_eq!(policy("[policy]\npreset = \"balena\""), Policy::balena());
    assert_eq!(policy("[policy]\npreset = \"strict\""), Policy::strict());
    let strict = policy("[policy]\npreset = \"strict\"\ndevices = \"yes\"\nhost_paths = \"/srv\"");
    assert_eq!((strict.allowed, strict.host_paths), (vec![Switch::Devices], vec!["/srv".to_owned()]));
    let balena = policy("engine.socket = \"/e.sock\"\n[policy]\ndevices = \"no\"");
    assert_eq!(balena.allowed.len(), Switch::ALL.len() - 1);
    assert_eq!((balena.allows(Switch::Devices), balena.engine_socket.as_str()), (false, "/e.sock"));
    for switch in Switch::ALL {
        let one = policy(&format!("[policy]\npreset = \"strict\"\n{} = \"yes\"", switch.as_str()));
        assert_eq!(one.allowed, [switch]);
    }
}

#[test]
fn sizes() {
    for (text, expected) in [
        ("0", 0),
        ("1024", 1024),
        ("10b", 10),
        ("2 KiB", 2048),
        ("64MiB", 67_108_864),
        ("3gib", 3_221_225_472),
        ("1TiB", 1_099_511_627_776),
    ] {
        assert_eq!(bytes("k", Some(text.to_owned())).ok(), Some(expected), "{text}");
    }
    for bad in ["", "MiB", "-1", "1.5GiB", "64MB", "1 2", "1025GiB", "18446744073709551615TiB", "1e3", "٣MiB"]
    {
        assert!(bytes("k", Some(bad.to_owned())).is_err(), "{bad}");
    }
}

#[test]
fn where_a_cloud_may_move_its_device_to() {
    let hosts = |hosts: &[&str]| Some(MoveTo::Hosts(hosts.iter().map(|host| (*host).to_owned()).collect()));
    for (given, expected) in [
        ("policy", Some(MoveTo::AsPolicyAllows)),
        ("any", Some(MoveTo::Anywhere)),
        ("none", hosts(&[])),
        ("Fleet.example.com, [::1]:7300", hosts(&["fleet.example.com", "[::1]:7300"])),
        ("", None),
        ("https://fleet.example.com", None),
        ("fleet.example.com/x", None),
    ] {
        assert_eq!(cloud::move_to(given).ok(), expected, "{given:?}");
    }
}
