//! Keys and names: what a provisioning key that is known to all can do, and what becomes of a stolen device.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{ask, device, register};
use crate::support::{Agent, FleetServer, Lab, eventually};

#[test]
fn a_provisioning_key_does_not_flood_a_fleet() {
    let lab = Lab::new("flood");
    let server = FleetServer::start(&lab);
    let fleet = server.create_fleet(&lab, "shop");
    // 5,000 came in 13 s.
    let begun = Instant::now();
    let mut answers = std::collections::BTreeMap::<u16, usize>::new();
    for number in 0..1500 {
        let (uuid, key) = device(number);
        *answers
            .entry(register(&server.url, &fleet, &json!({ "uuid": uuid, "api_key": key })).0)
            .or_default() += 1;
        if begun.elapsed() > Duration::from_secs(20) {
            break;
        }
    }
    assert!(answers.get(&201).copied().unwrap_or_default() > 0, "{answers:?}");
    assert!(answers.get(&429).copied().unwrap_or_default() > 0, "nothing slowed it down: {answers:?}");
    assert!(server.try_cli(&["fleet", "list"]).status.success());
}

#[test]
fn a_provisioning_key_is_listed_limited_and_revoked() {
    let lab = Lab::new("revoke");
    let server = FleetServer::start(&lab);
    let fleet = server.create_fleet(&lab, "shop");
    let listed = server.cli_json(&["fleet", "provisioning-key", "list", "shop"]);
    assert!(
        !listed.to_string().contains(&std::fs::read_to_string(&fleet.key_file).unwrap()),
        "the key is not shown again"
    );
    let (uuid, key) = device(1);
    assert_eq!(register(&server.url, &fleet, &json!({ "uuid": uuid, "api_key": key })).0, 201);
    let keys = server.cli_json(&["fleet", "provisioning-key", "list", "shop"]);
    let first = keys
        .as_array()
        .or_else(|| keys["keys"].as_array())
        .and_then(|keys| keys.first().cloned())
        .expect("a key is listed");
    let name = ["name", "id"].iter().find_map(|f| first[f].as_str()).expect("it has a name").to_owned();
    server.cli(&["fleet", "provisioning-key", "revoke", "shop", &name]);
    let (uuid, key) = device(2);
    let (status, _) = register(&server.url, &fleet, &json!({ "uuid": uuid, "api_key": key }));
    assert!([401, 403].contains(&status), "a revoked key registers no device: {status}");
    // Those that came with it stay, and can be found and taken away at once.
    let devices = server.cli_json(&["device", "list"]);
    assert!(devices.to_string().contains(&name), "it is shown by which key a device came: {devices}");
    let help = server.try_cli(&["device", "delete", "--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("--filter"));
}

#[test]
fn a_deleted_device_does_not_come_back_by_itself() {
    let lab = Lab::new("stolen");
    let server = FleetServer::start(&lab);
    let fleet = server.create_fleet(&lab, "shop");
    let (uuid, key) = device(1);
    assert_eq!(register(&server.url, &fleet, &json!({ "uuid": uuid, "api_key": key })).0, 201);
    server.cli(&["device", "delete", &uuid, "--yes"]);
    for (why, fields) in [
        ("the same", json!({ "uuid": uuid, "api_key": key })),
        ("its uuid with another key", json!({ "uuid": uuid, "api_key": "other-".repeat(10) })),
        ("its key with another uuid", json!({ "uuid": device(2).0, "api_key": key })),
        ("its uuid in capitals", json!({ "uuid": uuid.to_uppercase(), "api_key": "other-".repeat(10) })),
    ] {
        let (status, answer) = register(&server.url, &fleet, &fields);
        assert!(status >= 400, "{why}: {status} {answer}");
        let state = ask(&server.url, "GET", &format!("/device/v3/{uuid}/state"), &key, &Value::Null).0;
        assert_ne!(state, 200, "{why}");
    }
    // The bar stays over a restart.
    let mut server = server;
    server.stop();
    server.start_again();
    assert!(register(&server.url, &fleet, &json!({ "uuid": uuid, "api_key": key })).0 >= 400);
    assert!(!server.cli_json(&["device", "list"]).to_string().contains(&uuid));
}

#[test]
fn a_stolen_device_has_no_provisioning_key_any_more() {
    let lab = Lab::new("thief");
    let server = FleetServer::start(&lab);
    let fleet = server.create_fleet(&lab, "shop");
    let secret = std::fs::read_to_string(&fleet.key_file).unwrap().trim().to_owned();
    let mut agent = Agent::prepare(&lab, &server.url, &fleet, "till");
    agent.start_again();
    eventually("it is registered", Duration::from_secs(30), || {
        (agent.status_value("/has_target") == true).then_some(())
    });
    let uuid = agent.status_value("/device/uuid").as_str().unwrap().to_owned();
    let holds = || {
        let mut find = std::process::Command::new("grep");
        find.args(["-rlF", "--", &secret]).arg(agent.dir());
        String::from_utf8_lossy(&find.output().expect("grep runs").stdout).into_owned()
    };
    eventually("the key is gone from the device", Duration::from_secs(20), || {
        holds().is_empty().then_some(())
    });
    // It goes on without it, over a restart, too.
    agent.stop();
    agent.start_again();
    agent.until_polled(2);
    assert!(agent.status_value("/cloud/error").is_null(), "{}", agent.status_value("/cloud/error"));
    // Deleted, it is out; with the same folder it does not come back.
    server.cli(&["device", "delete", &uuid, "--yes"]);
    agent.stop();
    agent.start_again();
    eventually("the agent reports that the cloud does not know it", Duration::from_secs(30), || {
        (!agent.status_value("/cloud/error").is_null()).then_some(())
    });
    assert!(!server.cli_json(&["device", "list"]).to_string().contains(&uuid));
}

#[test]
fn names_and_keys_that_mislead_are_refused() {
    let lab = Lab::new("misleading");
    let server = FleetServer::start(&lab);
    let fleet = server.create_fleet(&lab, "shop");
    let (uuid, key) = device(1);
    let first = json!({ "uuid": uuid, "api_key": key, "device_name": "kitchen" });
    assert_eq!(register(&server.url, &fleet, &first).0, 201);
    let mut wrong = Vec::new();
    let mut number = 1;
    let mut tried = |what: &str, word: &str, name: Option<&str>, key: Option<&str>| {
        // Each with a new uuid and a new key.
        number += 1;
        let (uuid, fresh) = device(number);
        let mut fields = json!({ "uuid": uuid, "api_key": key.unwrap_or(&fresh) });
        if let Some(name) = name {
            fields["device_name"] = json!(name);
        }
        let (status, answer) = register(&server.url, &fleet, &fields);
        if status == 201 {
            wrong.push(format!("{what} was accepted"));
        } else if !answer.contains(word) {
            wrong.push(format!("{what} is refused without saying so: {status} {answer}"));
        }
    };
    let names = [
        uuid.as_str(),
        &uuid[..8],
        &"d".repeat(32),
        "Kitchen\u{202e}",
        "kitchen\u{200b}",
        "kitchen\u{e0041}",
        "\u{feff}kitchen",
        "a\nb",
        "\u{1b}[31m",
        " ",
        "kitchen ",
    ];
    for name in names {
        tried(&format!("name {name:?}"), "name", Some(name), None);
    }
    for key in ["x", "short", "\u{1b}[31mxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", &"k".repeat(16).replace('k', " ")]
    {
        tried(&format!("key {key:?}"), "key", None, Some(key));
    }
    // Devices that were set up from one image all bring the same name, so a name that is taken gets a number behind it.
    let (second, fresh) = device(100);
    let same = json!({ "uuid": second, "api_key": fresh, "device_name": "kitchen" });
    assert_eq!(register(&server.url, &fleet, &same).0, 201);
    let shown = server.cli_json(&["device", "show", &second]);
    assert_ne!(shown["name"], "kitchen", "two devices have one name");
    assert!(wrong.is_empty(), "{} were accepted:\n{}", wrong.len(), wrong.join("\n"));
}
