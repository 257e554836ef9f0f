//! What is too much, with its number and the setting that would allow it.

use serde_json::{Value, json};

use super::*;
use crate::model::{DeviceUuid, ImageRef, Policy, TargetApp};
use crate::wire::{compose_file, target_v3};

fn app(services: usize, composition: &Value) -> Value {
    let service = json!({"id": 1, "image_id": 2, "image": "r.example/a:1", "composition": composition});
    let services: serde_json::Map<_, _> = (0..services).map(|n| (format!("s{n}"), service.clone())).collect();
    json!({"id": 1, "name": "a", "releases": {"r1": {"id": 1, "services": services}}})
}

fn parse(apps: &Value, bounds: ReleaseLimits) -> Result<Vec<String>, String> {
    let uuid = DeviceUuid::parse("0".repeat(32)).unwrap();
    let body = json!({ uuid.as_str(): {"name": "d", "apps": apps} }).to_string();
    let policy = Policy { limits: bounds, ..Policy::default() };
    let target = target_v3::parse(body.as_bytes(), &uuid, &policy).map_err(|error| error.to_string())?;
    let text = |(id, app): (&crate::model::AppId, &TargetApp)| match app {
        TargetApp::Wanted(_) => format!("{id}: wanted"),
        TargetApp::Refused(refused) => {
            let refusals: Vec<_> = refused.refusals.iter().map(ToString::to_string).collect();
            format!("{id}: {}", refusals.join("; "))
        }
    };
    Ok(target.apps.iter().map(text).collect())
}

/// One app's refusal, whatever the bound is that it exceeds.
fn refused(services: usize, composition: &Value, bounds: ReleaseLimits) -> String {
    parse(&json!({"app": app(services, composition)}), bounds).unwrap().remove(0)
}

#[test]
fn each_bound_tells_its_number_and_its_setting() {
    let few = ReleaseLimits {
        services: 3,
        networks: 2,
        volumes: 2,
        ports: 4,
        labels: 2,
        variables: 2,
        environment: 20,
        ..ReleaseLimits::default()
    };
    let mounts: Vec<_> = ["a", "b", "c"].iter().map(|name| format!("{name}:/{name}")).collect();
    let in_all = |what: &str, number: usize, most: usize| {
        format!(
            "app: {what}: it has {number} {what}, and a device accepts {most} in total: use fewer, or raise limits.{what} on \
             the device"
        )
    };
    let of_one = |what: &str, setting: &str, number: usize, most: usize| {
        format!(
            "app: {what}, and a device accepts {most}: use fewer, or raise limits.{setting} on the device"
        )
        .replace("N", &number.to_string())
    };
    for (services, composition, expected) in [
        (3, json!({}), "app: wanted".to_owned()),
        (4, json!({}), in_all("services", 4, 3)),
        (1, json!({"networks": ["a", "b"]}), "app: wanted".into()),
        (1, json!({"networks": ["a", "b", "c"]}), in_all("networks", 3, 2)),
        (1, json!({"volumes": mounts}), in_all("volumes", 3, 2)),
        (1, json!({"ports": ["1000-1003:1000-1003"]}), "app: wanted".into()),
        (1, json!({"ports": ["1000-1004:1000-1004"]}), in_all("ports", 5, 4)),
        (
            1,
            json!({"labels": ["a=1", "b=2", "c=3"]}),
            of_one("services.s0.labels: it has N labels", "labels", 3, 2),
        ),
        (
            1,
            json!({"environment": {"A": "", "B": "", "C": ""}}),
            of_one("services.s0.environment: it has N variables", "variables", 3, 2),
        ),
        (1, json!({"environment": {"A": "0123456789012345678"}}), "app: wanted".into()),
        (
            1,
            json!({"environment": {"A": "01234567890123456789"}}),
            of_one("services.s0.environment: it has N bytes", "environment", 21, 20),
        ),
    ] {
        assert_eq!(refused(services, &composition, few.clone()), expected, "{composition}");
    }
    let declared = json!({"app": {"id": 1, "name": "a", "releases": {"r1": {"id": 1,
        "networks": {"n": {"labels": {"a": "", "b": "", "c": ""}}, "m": {}, "o": {}},
        "volumes": {"v": {}, "w": {}, "x": {}}}}}});
    assert_eq!(
        parse(&declared, few.clone()).unwrap()[0],
        "app: networks: it has 3 networks, and a device accepts 2 in total: use fewer, or raise limits.networks on the device; \
         volumes: it has 3 volumes, and a device accepts 2 in total: use fewer, or raise limits.volumes on the device"
    );
}

#[test]
fn apps_share_what_the_device_has_and_an_app_that_is_refused_takes_nothing() {
    let bounds = || ReleaseLimits { services: 5, apps: 4, ..ReleaseLimits::default() };
    let bad = app(4, &json!({"restart": "maybe"}));
    let apps = json!({"a": app(3, &json!({})), "b": bad, "c": app(3, &json!({})), "d": app(2, &json!({}))});
    let found = parse(&apps, bounds()).unwrap();
    assert_eq!(
        [&found[0], &found[2], &found[3]],
        [
            "a: wanted",
            "c: services: it has 3 services, and apps before it have 3, and a device accepts 5 in total: use fewer, or raise \
             limits.services on the device",
            "d: wanted",
        ]
    );
    let many: serde_json::Map<_, _> = (0..5).map(|n| (format!("a{n}"), app(1, &json!({})))).collect();
    assert_eq!(
        parse(&Value::Object(many), bounds()).unwrap_err(),
        "at \"apps\": there are 5 apps, and this device accepts 4: remove some, or raise limits.apps on the \
         device"
    );
}

#[test]
fn two_hundred_services_are_usual_and_nine_thousand_are_not_even_read() {
    assert_eq!(refused(200, &json!({}), ReleaseLimits::default()), "app: wanted");
    let found = refused(201, &json!({}), ReleaseLimits::default());
    assert!(found.contains("it has 201 services, and a device accepts 200 in total"), "{found}");
    let found = parse(&json!({"app": app(9000, &json!({}))}), ReleaseLimits::default());
    assert!(found.unwrap()[0].contains("it has 9000 services"));
    let found = parse(&json!({"app": app(30_000, &json!({}))}), ReleaseLimits::default()).unwrap_err();
    let expected = "values, and this device accepts 100000: make the release smaller, or raise limits.values on the device";
    assert!(found.contains(expected), "{found}");
}

#[test]
fn values_are_counted_outside_of_texts() {
    for (json, count) in [
        (r#""a""#, 1),
        ("[]", 2),
        ("[0,0,0]", 4),
        (r#"{"a":1,"b":[2,3]}"#, 5),
        (r#"["a,[{\"b\\",1]"#, 3),
        (r#"["never closed,,,"#, 2),
    ] {
        assert_eq!(values(json.as_bytes()), count, "{json}");
    }
    let dense = format!("[{}]", "[0],".repeat(1_000_000));
    assert!(values(dense.as_bytes()) > 2_000_000);
}

#[test]
fn the_kernels_bound_holds_for_every_device() {
    let (fits, none) = ("x".repeat(131_069), ReleaseLimits::HIGHEST);
    let environment = |value: &str| json!({"environment": {"A": value}});
    assert_eq!(refused(1, &environment(&fits), none.clone()), "app: wanted");
    assert_eq!(
        refused(1, &environment(&format!("{fits}x")), none.clone()),
        "app: services.s0.environment.A: it has 131073 bytes with its name, and Linux accepts 131072: put it into a file"
    );
    assert_eq!(refused(1, &json!({"command": ["x".repeat(131_071)]}), none.clone()), "app: wanted");
    assert_eq!(
        refused(1, &json!({"command": ["x".repeat(131_072)]}), none),
        "app: services.s0.composition.command: an argument has 131073 bytes, and Linux accepts 131072: put it into a file"
    );
}

#[test]
fn a_compose_file_is_warned_of_what_devices_usually_refuse_and_refused_what_all_do() {
    let check = |services: usize| {
        let fields = json!({"image": "a"}).as_object().cloned().unwrap();
        let services = (0..services).map(|n| (format!("s{n}"), fields.clone())).collect();
        let file = compose_file::ComposeFile { services, ..Default::default() };
        let image = ImageRef::parse("r.example/a:1").unwrap();
        let images = file.services.keys().map(|name| (name.clone(), image.clone())).collect();
        compose_file::check(&file, &images, None)
    };
    assert_eq!(check(200), Ok(Vec::new()));
    let warned = check(201).unwrap();
    let found = "services: devices refuse it unless their settings allow it: it has 201 services, and a device accepts 200 in \
                total: use fewer, or raise limits.services on the device";
    assert_eq!(warned.iter().map(ToString::to_string).collect::<Vec<_>>(), [found]);
    let refused = check(5001).unwrap_err();
    assert!(refused[0].to_string().contains("it has 5001 services, and a device accepts 5000 in total"));
}

/// As many services as fit, each bound to those before it in every way there is.
#[test]
fn what_fits_is_read_in_no_time() {
    let service = |n: usize| {
        let before: Vec<_> = (n.saturating_sub(100)..n).map(|n| format!("s{n}")).collect();
        let mut composition = json!({"depends_on": before});
        if n > 0 {
            let joined = format!("service:s{}", n - 1);
            composition["network_mode"] = joined.clone().into();
            composition["pid"] = joined.into();
        }
        json!({"id": 1, "image_id": 2, "image": "r.example/a:1", "composition": composition})
    };
    let services: serde_json::Map<_, _> = (0..200).map(|n| (format!("s{n}"), service(n))).collect();
    let app = json!({"id": 1, "name": "a", "releases": {"r1": {"id": 1, "services": services}}});
    let found = parse(&json!({"app": app}), ReleaseLimits::default()).unwrap();
    assert_eq!(found, ["app: wanted"]);
}
