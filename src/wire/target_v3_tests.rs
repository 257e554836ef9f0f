use std::path::Path;

use serde_json::json;

use super::*;

const DEVICE: &str = "102136f5e3c7488d9309a9cde2cf5fbc";

fn device() -> DeviceUuid {
    DeviceUuid::parse(DEVICE).unwrap()
}

fn parsed(state: &Value) -> Result<Target, TargetError> {
    parse(json!({ DEVICE: state }).to_string().as_bytes(), &device(), &Policy::default())
}

/// A target with the given apps; panics when the body as a whole is refused.
fn apps(apps: &Value) -> BTreeMap<AppId, TargetApp> {
    parsed(&json!({"name": "d", "apps": apps})).unwrap().apps
}

/// Apps as text: `a: wanted r1`, or `a: refused r1 [path: why]`.
fn texts(given: &Value) -> Vec<String> {
    let line = |(id, app): (&AppId, &TargetApp)| match app {
        TargetApp::Wanted(wanted) => {
            let release = wanted.release.as_ref().map_or("nothing", |release| release.commit.as_str());
            format!("{id}: wanted {release}")
        }
        TargetApp::Refused(refused) => {
            let refusals: Vec<_> = refused.refusals.iter().map(ToString::to_string).collect();
            format!("{id}: refused {} [{}]", refused.release, refusals.join("; "))
        }
    };
    apps(given).iter().map(line).collect()
}

fn good_app() -> Value {
    json!({"id": 1, "name": "good", "releases": {"r1": {"id": 2, "services": {
        "web": {"id": 3, "image_id": 4, "image": "a"}
    }}}})
}

#[test]
fn every_recorded_target_parses() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/openbalena");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // the answer of the older v2 endpoint, which is another format and never asked for
        let is_v2 = name == "39b-state-v2.device-B.json";
        if !name.contains(".device-") || !name.ends_with(".json") || is_v2 {
            continue;
        }
        let body = std::fs::read(&path).unwrap();
        let raw: BTreeMap<String, Value> = serde_json::from_slice(&body).unwrap();
        let device = DeviceUuid::parse(raw.keys().next().unwrap()).unwrap();
        let target = parse(&body, &device, &Policy::default()).unwrap_or_else(|bad| panic!("{name}: {bad}"));
        assert!(target.poll_interval.is_some(), "{name}");
        for (app, state) in raw.values().next().unwrap()["apps"].as_object().unwrap() {
            let TargetApp::Wanted(wanted) = &target.apps[&AppId::parse(app).unwrap()] else {
                panic!("{name}: {app} is refused: {:?}", target.apps)
            };
            let commit = state.get("releases").and_then(|releases| releases.as_object()?.keys().next());
            assert_eq!(
                wanted.release.as_ref().map(|r| r.commit.as_str()),
                commit.map(String::as_str),
                "{name}"
            );
            seen += 1;
        }
    }
    assert_eq!(seen, 91);
}

#[test]
fn the_rich_recording_means_what_it_says() {
    let body = include_bytes!("../../tests/fixtures/openbalena/50-vars-labels-contract.device-B.json");
    let raw: BTreeMap<String, Value> = serde_json::from_slice(body).unwrap();
    let device = DeviceUuid::parse(raw.keys().next().unwrap()).unwrap();
    let target = parse(body, &device, &Policy::default()).unwrap();
    assert_eq!(
        (target.device_name.as_str(), target.poll_interval),
        ("delicate-meadow", Some(Duration::from_secs(30)))
    );
    let Some(TargetApp::Wanted(wanted)) = target.apps.values().next() else { panic!("{target:?}") };
    let release = wanted.release.as_ref().unwrap();
    let web = release.services.iter().find(|(name, _)| name.as_str() == "web").unwrap().1;
    let environment: Vec<_> = web.environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        environment,
        ["CLASH=device-service", "COMPOSE_LIST=1", "DEV=1", "FLEET_ONLY=1", "FROM_IMAGE=1", "SVC=1"]
    );
    let labels: Vec<_> = web.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        labels,
        [
            "compose.label=x",
            "img.label=service-wins?",
            "io.balena.update.requires-reboot=0",
            "io.balena.update.strategy=download-then-kill",
        ]
    );
    assert_eq!(web.command.as_ref().unwrap().join("|"), "sh|-c|sleep 100000");
    assert_eq!(web.memory_limit, Some(67_108_864));
    let networks: Vec<_> = release.networks.keys().map(ToString::to_string).collect();
    assert_eq!(networks, ["back", "default"], "db names no network and is on the default one");
    let warnings: Vec<_> = wanted.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["services.web.contract.requires: not honoured: requirements are not checked"]);
}

#[test]
fn a_body_that_is_no_target() {
    let state = json!({"name": "d"});
    let deep = format!("{{\"{DEVICE}\": {}", "[".repeat(90_000));
    for (body, path, why) in [
        (String::new(), "", "the body is not valid JSON: EOF while parsing a value at line 1 column 0"),
        ("{".into(), "", "the body is not valid JSON: EOF while parsing an object at line 1 column 1"),
        (deep, "", "the body is not valid JSON: recursion limit exceeded at line 1 column 164"),
        ("[]".into(), "", "the body is not an object: check that the endpoint is a balena API"),
        (
            "{}".into(),
            "",
            "the body does not name 102136f5e3c7488d9309a9cde2cf5fbc: check the device's uuid and key",
        ),
        (
            json!({DEVICE: state, "other": state}).to_string(),
            "",
            "the body names 2 devices: it must name exactly 102136f5e3c7488d9309a9cde2cf5fbc",
        ),
        (json!({DEVICE: {}}).to_string(), "", "missing field `name`"),
        (json!({DEVICE: {"name": 5}}).to_string(), "name", "invalid type: integer `5`, expected a string"),
        (json!({DEVICE: {"name": "d", "config": {"A": 5}}}).to_string(), "config.A", "it must be a text"),
        (
            json!({DEVICE: {"name": "d", "apps": []}}).to_string(),
            "apps",
            "invalid type: sequence, expected a map",
        ),
        (
            json!({DEVICE: {"name": "d", "apps": {"a/b": {}}}}).to_string(),
            "apps.a/b",
            "\"a/b\" is not a app uuid: it must be letters, digits, '_', '.' and '-', 64 at most",
        ),
    ] {
        let bad = parse(body.as_bytes(), &device(), &Policy::default()).unwrap_err();
        assert_eq!((bad.path.as_str(), bad.why.as_str()), (path, why));
    }
    let long = parse(&vec![b' '; 4_194_305], &device(), &Policy::default()).unwrap_err();
    assert_eq!(long.why, "the body has 4194305 bytes, and 4194304 are accepted: make the release smaller");
    let v2 = include_bytes!("../../tests/fixtures/openbalena/39b-state-v2.device-B.json");
    assert!(parse(v2, &device(), &Policy::default()).is_err());
}

/// A joiner in a name, which an emoji keyboard may leave, must not keep a device from its target.
#[test]
fn names_are_cleaned_of_invisible_characters() {
    for (given, device_name, app_name) in [
        ("Kiosk 7", "Kiosk 7", "Kiosk 7"),
        ("👩\u{200d}🔬 lab", "👩\u{200d}🔬 lab", "👩\u{200d}🔬 lab"),
        ("shop\u{200d}\u{fe0f}", "shop", "shop"),
        ("shop\u{202e}\u{1b}[2J\nb", "shop [2J b", "shop [2J b"),
        ("\u{200d}", DEVICE, "app"),
        ("", DEVICE, "app"),
    ] {
        let app = json!({"id": 1, "name": given, "releases": {}});
        let body = json!({DEVICE: {"name": given, "apps": {"app": app}}}).to_string();
        let target = parse(body.as_bytes(), &device(), &Policy::default()).unwrap();
        assert_eq!(target.device_name, device_name, "{given:?}");
        let TargetApp::Wanted(wanted) = target.apps.values().next().unwrap() else { panic!("{given:?}") };
        assert_eq!(wanted.app.name, app_name, "{given:?}");
    }
}

#[test]
fn trouble_in_one_app_refuses_that_app_only() {
    for (bad, line) in [
        (json!(5), "bad: refused  [: invalid type: integer `5`, expected struct AppState]"),
        (json!({"name": "n"}), "bad: refused  [: missing field `id`]"),
        (json!({"id": -1, "name": "n"}), "bad: refused  [id: an id must be a whole number of 0 or more]"),
        (
            json!({"id": 1, "name": "n", "releases": {"r1": {"id": 1}, "r2": {"id": 2}}}),
            "bad: refused r1 [releases: there are 2 releases, but an app has one at most: r1, r2]",
        ),
        (
            json!({"id": 1, "name": "n", "releases": {"r/1": {"id": 1}}}),
            "bad: refused r/1 [releases: \"r/1\" is not a release commit: it must be letters, digits, '_', '.' and \
             '-', 40 at most]",
        ),
        (
            json!({"id": 1, "name": "n", "releases": {"r1": {"id": 1, "services": {"web": {"id": 1}}}}}),
            "bad: refused r1 [services.web: missing field `image_id`]",
        ),
        (
            json!({"id": 1, "name": "n", "releases": {"r1": {"id": 1, "services": {"web": {
                "id": 1, "image_id": 1, "image": "a", "environment": {"PIN": 1234}
            }}}}}),
            "bad: refused r1 [services.web.environment.PIN: it must be a text]",
        ),
        (
            json!({"id": 1, "name": "n", "releases": {"r1": {"id": 1, "services": {
                "web": {"id": 1, "image_id": 1, "image": "a", "composition": {"ports": ["0"]}},
                "x y": {"id": 1, "image_id": 1, "image": "a b"},
            }}}}),
            "bad: refused r1 [services.web.composition.ports[0]: \"0\" is not accepted: write ports from 1 to 65535; \
             services.x y: \"x y\" is not a service name: it must be letters, digits, '_', '.' and '-', beginning \
             with a letter or digit, 255 at most; services.x y.image: \"a b\" is not an image reference: each \
             part of its path has lower-case letters and digits only, with '.', '_', '__' or '-' between them]",
        ),
    ] {
        assert_eq!(texts(&json!({"bad": bad, "good": good_app()})), [line, "good: wanted r1"]);
    }
}

#[test]
fn apps_that_are_not_ours_are_left_out() {
    let host = json!({"id": 1, "name": "host", "is_host": true, "releases": 5});
    assert_eq!(
        texts(&json!({
            "52e35121417640b1b28a680504e4039b": good_app(),
            "900de4f3cbac4b9bbd232885a35e407b": good_app(),
            "2e66a95795c149959c69472a8c2f92b8": good_app(),
            "531b357e155c480cbec0fdd33041a1f5": good_app(),
            "6822565f766e413e96d9bebe2227cdcc": 5,
            "host": host,
            "mine": good_app(),
        })),
        ["mine: wanted r1"]
    );
    // A supervisor that operators publish themselves has another uuid.
    let supervisor = |name: &str, service: &str| {
        let services =
            json!({ service: { "id": 1, "image_id": 1, "image": "r/s", "environment": {}, "labels": {} } });
        json!({ "id": 3, "name": name, "class": "app", "releases": { "r1": { "id": 4, "services": services } } })
    };
    let (theirs, named_alike) =
        (supervisor("aarch64-supervisor", "main"), supervisor("aarch64-supervisor", "web"));
    for (app, is_run) in [
        (&theirs, false),
        (&supervisor("rpi-supervisor", "balena-supervisor"), false),
        (&named_alike, true),
        (&supervisor("dive-supervisor", "main"), true),
        (&json!({ "id": 3, "name": "rpi-supervisor", "releases": { "r1": 5 } }), true),
    ] {
        assert_eq!(
            texts(&json!({ "mine": good_app(), "other": app })).len(),
            1 + usize::from(is_run),
            "{app}"
        );
    }
    assert_eq!(texts(&json!({ "mine": theirs })), ["mine: wanted r1"], "the only app is that of the fleet");
    let mut block = good_app();
    block["class"] = json!("block");
    assert_eq!(texts(&json!({ "block": block })), ["block: wanted r1"]);
}

#[test]
fn an_app_may_have_no_release() {
    for app in [json!({"id": "7", "name": "n"}), json!({"id": 7, "name": "n", "releases": {}})] {
        let parsed = apps(&json!({ "a": app }));
        let Some(TargetApp::Wanted(wanted)) = parsed.values().next() else { panic!("{parsed:?}") };
        assert_eq!((wanted.app.number, wanted.release.as_ref()), (7, None));
    }
    assert_eq!(parsed(&json!({"name": "d"})).unwrap().apps.len(), 0);
}

#[test]
fn null_is_absent_within_an_app() {
    let service = json!({"id": 3, "image_id": 4, "image": "a", "environment": null, "labels": null,
        "contract": null, "composition": null});
    let release = json!({"id": 2, "services": {"web": service}, "networks": null, "volumes": {"v": null}});
    assert_eq!(
        texts(&json!({
            "a": {"id": 1, "name": "n", "releases": {"r1": release}},
            "b": {"id": 1, "name": "n", "releases": {"r1": {"id": 2, "services": null}}},
            "c": {"id": 1, "name": "n", "releases": null},
        })),
        ["a: wanted r1", "b: wanted r1", "c: wanted nothing"]
    );
}

#[test]
fn running_false_is_honoured() {
    let mut app = good_app();
    app["releases"]["r1"]["services"]["web"]["running"] = json!(false);
    let parsed = apps(&json!({ "a": app }));
    let Some(TargetApp::Wanted(wanted)) = parsed.values().next() else { panic!("{parsed:?}") };
    let release = wanted.release.as_ref().unwrap();
    assert!(!release.services.values().next().unwrap().is_running);
}

#[test]
fn poll_intervals() {
    for (config, seconds) in [
        (json!({}), None),
        (json!({"RESIN_SUPERVISOR_POLL_INTERVAL": "600000"}), Some(600)),
        (
            json!({"RESIN_SUPERVISOR_POLL_INTERVAL": "600000", "BALENA_SUPERVISOR_POLL_INTERVAL": " 5000 "}),
            Some(5),
        ),
        (
            json!({"RESIN_SUPERVISOR_POLL_INTERVAL": "600000", "BALENA_SUPERVISOR_POLL_INTERVAL": "soon"}),
            Some(600),
        ),
        (json!({"BALENA_SUPERVISOR_POLL_INTERVAL": "-5"}), None),
        (json!({"BALENA_SUPERVISOR_POLL_INTERVAL": "0"}), Some(1)),
        (json!({"BALENA_SUPERVISOR_POLL_INTERVAL": "999999999999"}), Some(86_400)),
    ] {
        let target = parsed(&json!({"name": "d", "config": config})).unwrap();
        assert_eq!(target.poll_interval, seconds.map(Duration::from_secs), "{config}");
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_answered(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _ = parse(&body, &device(), &Policy::default());
    }

    /// A recorded body with one byte changed is read or refused, and never ends the agent.
    #[test]
    fn a_damaged_body_is_answered(at in 0_usize..2000, byte in proptest::prelude::any::<u8>()) {
        let body = include_bytes!("../../tests/fixtures/openbalena/50-vars-labels-contract.device-B.json");
        let mut body = body.to_vec();
        let at = at % body.len();
        body[at] = byte;
        let _ = parse(&body, &DeviceUuid::parse("ae30b919ec71409cb2c07e00661592b7").unwrap(), &Policy::default());
    }
}

#[test]
fn the_cloud_may_pass_over_update_locks() {
    for (config, expected) in [
        (json!({}), false),
        (json!({"BALENA_SUPERVISOR_OVERRIDE_LOCK": "1"}), true),
        (json!({"RESIN_SUPERVISOR_OVERRIDE_LOCK": "true"}), true),
        (json!({"RESIN_OVERRIDE_LOCK": " On "}), true),
        (json!({"BALENA_OVERRIDE_LOCK": "1"}), true),
        (json!({"BALENA_SUPERVISOR_OVERRIDE_LOCK": "0", "RESIN_SUPERVISOR_OVERRIDE_LOCK": "1"}), false),
        (json!({"BALENA_SUPERVISOR_OVERRIDE_LOCK": "perhaps", "RESIN_OVERRIDE_LOCK": "1"}), true),
        (json!({"BALENA_SUPERVISOR_OVERRIDE_LOCK": "yes"}), false),
    ] {
        let target = parsed(&json!({"name": "d", "config": config})).unwrap();
        assert_eq!(target.is_lock_overridden, expected, "{config}");
    }
}

#[test]
fn the_cloud_may_turn_metrics_off() {
    for (config, expected) in [
        (json!({}), true),
        (json!({"BALENA_SUPERVISOR_HARDWARE_METRICS": "false"}), false),
        (json!({"RESIN_SUPERVISOR_HARDWARE_METRICS": "0"}), false),
        (
            json!({"BALENA_SUPERVISOR_HARDWARE_METRICS": "true", "RESIN_SUPERVISOR_HARDWARE_METRICS": "0"}),
            true,
        ),
        (json!({"BALENA_SUPERVISOR_HARDWARE_METRICS": "perhaps"}), true),
    ] {
        let target = parsed(&json!({"name": "d", "config": config})).unwrap();
        assert_eq!(target.has_metrics, expected, "{config}");
    }
}
