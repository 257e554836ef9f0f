//! A device moves to another fleet server, in which its fleet has another uuid and another number: its containers and volumes
//! stay as they are, whatever happens on the way.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, Chance, FakeCloud, Fleet, FleetServer, Lab, Reply, eventually};
use crate::{compose, release, running, until_done, uuid};

const TO_MOVE: Duration = Duration::from_secs(60);

/// Another server, whose fleet `shop` has another uuid and number, with this release.
fn other(lab: &Lab, dir: &str, commit: &str, release: &str) -> (FleetServer, Fleet) {
    let dir = lab.dir().join(dir);
    std::fs::create_dir_all(&dir).expect("a folder");
    let server = FleetServer::start_in(&dir, Vec::new());
    server.cli(&["fleet", "create", "first"]);
    server.cli(&["fleet", "create", "second"]);
    let fleet = server.create_fleet(lab, "shop");
    // The name of the key's file is that of the fleet.
    let key_file = dir.join("shop.key");
    std::fs::rename(&fleet.key_file, &key_file).expect("the same disk");
    let fleet = Fleet { key_file, ..fleet };
    if !commit.is_empty() {
        let file = compose(lab, &format!("other-{commit}"), &[("web", release), ("db", "r1")]);
        server.create_release(&fleet, commit, &file);
    }
    (server, fleet)
}

fn migrate(from: &FleetServer, to: &FleetServer, fleet: &Fleet) {
    let key = fleet.key_file.to_str().expect("text");
    from.cli(&["device", "migrate", "till", "--to", &to.url, "--to-fleet", "shop", "--key-file", key]);
}

fn migration(server: &FleetServer) -> Value {
    server.cli_json(&["device", "show", "till"])["device"]["migration"].clone()
}

#[track_caller]
fn until_at(agent: &Agent<'_>, server: &FleetServer) {
    eventually("the device is at the other server", TO_MOVE, || {
        (agent.status_value("/cloud/endpoint") == server.url.as_str()).then_some(())
    });
}

#[track_caller]
fn until_on_target(server: &FleetServer) {
    eventually("the other server knows that its target runs", TO_MOVE, || {
        let device = server.cli_json(&["device", "list", "--fleet", "shop"])["devices"][0].clone();
        (device["state"] == "on-target").then_some(())
    });
}

/// How often the service wrote to its volume.
fn count(agent: &Agent<'_>) -> Value {
    let answer = agent.get("web", "/").expect("it answers").json();
    answer["count"].clone()
}

#[test]
fn a_device_moves_with_its_containers_and_volumes() {
    let lab = Lab::new("moves");
    let (old, _, mut agent) = running(&lab, "one", &[("web", "r1"), ("db", "r1")]);
    until_done(&agent, "one");
    assert_eq!(agent.get("web", "/write?1").expect("an answer").status, 200);
    let (standing, written) = (agent.standing(), count(&agent));
    let (new, fleet) = other(&lab, "new", "one", "r1");
    assert_ne!(fleet.number, 1);

    migrate(&old, &new, &fleet);
    until_at(&agent, &new);
    until_on_target(&new);
    until_done(&agent, "one");
    assert_eq!(agent.standing(), standing, "no container was touched");
    assert_eq!(count(&agent), written);
    eventually("the old server knows it", TO_MOVE, || (migration(&old)["state"] == "moved").then_some(()));
    let said = old.cli(&["device", "show", "till"]);
    assert!(said.contains(&format!("moved, to fleet shop at {}", new.url)), "{said}");

    // It is the other server's now, also after a restart, and its volumes go on.
    agent.cut();
    agent.start_again();
    until_at(&agent, &new);
    release(&lab, &new, &fleet, "two", &[("web", "r2"), ("db", "r1")]);
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    assert_eq!(count(&agent), written, "the new container has the old volume");
    until_on_target(&new);
    old.cli(&["fleet", "pin", "shop", "one"]);
    agent.until_polled(2);
    assert_eq!(agent.serves("web").as_deref(), Some("r2"), "the old server decides nothing any more");
    // An owner who sets another cloud ends the move; the settings stay as they were.
    assert!(std::fs::read_to_string(agent.settings_file()).expect("settings").contains(&old.url));
    // No key is in a log or an answer.
    let key = std::fs::read_to_string(&fleet.key_file).expect("a key");
    for text in [
        old.log(),
        new.log(),
        agent.log(),
        old.cli(&["audit", "--json"]),
        old.cli(&["device", "list", "--json"]),
    ] {
        assert!(!text.contains(key.trim()), "{text}");
    }
}

#[test]
fn a_device_that_cannot_move_stays_and_says_why() {
    let lab = Lab::new("staysput");
    let (old, fleet_here, mut agent) = running(&lab, "one", &[("web", "r1"), ("db", "r1")]);
    until_done(&agent, "one");
    let standing = agent.standing();
    let (mut new, fleet) = other(&lab, "new", "", "");

    // A fleet without a release would stop all that runs.
    migrate(&old, &new, &fleet);
    let why = "its fleet shop has no release for this device";
    agent.until_status("/cloud/moving/why", why);
    let explained = String::from_utf8(agent.cli(&["explain"]).stdout).expect("text");
    assert!(explained.contains("this device is to move to") && explained.contains(why), "{explained}");
    let status = String::from_utf8(agent.cli(&["status"]).stdout).expect("text");
    assert!(status.contains(&format!("to {}, not yet: ", new.url)), "{status}");
    eventually("the old server knows it", TO_MOVE, || {
        let migration = migration(&old);
        (migration["state"] == "failing" && migration["why"].as_str()?.contains(why)).then_some(())
    });
    assert_eq!((agent.standing(), agent.status_value("/cloud/endpoint")), (standing, json!(old.url)));

    // Its owner may forbid it.
    let settings = std::fs::read_to_string(agent.settings_file()).expect("settings");
    for (setting, more) in [
        ("move_to = \"none\"", ""),
        ("", "[policy]\npreset = \"strict\"\n"),
        ("move_to = \"fleet.example.com\"", ""),
    ] {
        agent.stop();
        agent.write_settings(&format!("{settings}{setting}\n{more}"));
        agent.start_again();
        agent.until_status("/cloud/moving/why", "the settings of this device do not allow it: cloud.move_to");
    }
    agent.stop();
    let host = new.url.trim_start_matches("http://");
    agent.write_settings(&format!("{settings}move_to = \"{host}\"\n[policy]\npreset = \"strict\"\n"));
    agent.start_again();
    agent.until_status("/cloud/moving/why", why);

    // It goes on working for its server, and goes when it can.
    release(&lab, &old, &fleet_here, "two", &[("web", "r2"), ("db", "r1")]);
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    new.stop();
    agent.order(&["update"]);
    agent.until_status("/cloud/moving/why", "cannot be reached");
    old.cli(&["device", "migrate", "till", "--cancel"]);
    eventually("it is not to move any more", TO_MOVE, || {
        agent.status_value("/cloud/moving").is_null().then_some(())
    });
    assert_eq!(migration(&old), Value::Null);
    new.start_again();
    let file = compose(&lab, "two", &[("web", "r2"), ("db", "r1")]);
    new.create_release(&fleet, "two", &file);
    migrate(&old, &new, &fleet);
    until_at(&agent, &new);
    until_on_target(&new);
}

#[test]
fn power_cuts_on_the_way_leave_a_device_at_one_server_and_it_arrives() {
    let (mut chance, seed) = Chance::seeded("COTTER_CUT_SEED");
    eprintln!("COTTER_CUT_SEED={seed}");
    let lab = Lab::new("cutmoves");
    let (first, fleet, mut agent) = running(&lab, "one", &[("web", "r1"), ("db", "r1")]);
    until_done(&agent, "one");
    assert_eq!(agent.get("web", "/write?1").expect("an answer").status, 200);
    let (standing, written) = (agent.standing(), count(&agent));
    let (second, there) = other(&lab, "new", "one", "r1");
    let mut servers = [(first, fleet), (second, there)];
    for _ in 0..6 {
        let [(from, _), (to, fleet)] = &servers;
        // A key for one device: a second registration would be refused.
        let created = to.cli_json(&["fleet", "provisioning-key", "create", "shop", "--uses", "1"]);
        let text = created.to_string();
        let key = text.split("\"provisioning_key\":\"").nth(1).and_then(|rest| rest.split('"').next());
        std::fs::write(&fleet.key_file, key.unwrap_or_else(|| panic!("{text}"))).expect("a file");
        migrate(from, to, fleet);
        for _ in 0..chance.below(4) {
            std::thread::sleep(Duration::from_millis(chance.below(120)));
            agent.cut();
            agent.start_again();
        }
        until_at(&agent, to);
        until_on_target(to);
        let devices = to.cli_json(&["device", "list", "--fleet", "shop"])["devices"].clone();
        assert_eq!(devices.as_array().map(Vec::len), Some(1), "{devices}");
        assert_eq!((agent.standing(), count(&agent)), (standing.clone(), written.clone()));
        // So that it can come back.
        let name = from.cli_json(&["device", "list", "--fleet", "shop"])["devices"][0]["uuid"].clone();
        from.cli(&["device", "delete", name.as_str().expect("a uuid"), "--yes"]);
        from.cli(&["device", "allow", name.as_str().expect("a uuid")]);
        servers.reverse();
    }
}

/// The target of a balena API: its numbers and its uuid of the fleet, with the services of this release, and config.
fn of_balena(server: &FleetServer, commit: &str, config: &Value) -> Reply {
    let shown = server.cli_json(&["release", "show", commit])["release"].clone();
    let services = shown["services"].as_object().expect("services").iter().map(|(name, image)| {
        let composition = shown["composition"]["services"][name].clone();
        let service = json!({
            "id": 411, "image_id": 421, "image": image, "running": true, "environment": {}, "labels": {},
            "composition": composition,
        });
        (name.clone(), service)
    });
    let services: serde_json::Map<_, _> = services.collect();
    let release = json!({
        "id": 401, "services": services, "networks": {}, "volumes": shown["composition"]["volumes"],
    });
    let app = json!({ "id": 40, "name": "shop", "is_host": false, "class": "fleet", "releases": { commit: release } });
    let body =
        json!({ "UUID": { "name": "till", "config": config, "apps": { uuid(0xb4): app } } }).to_string();
    Reply { status: 200, headers: vec![("ETag", format!("\"{}\"", config.to_string().len()))], body }
}

#[test]
fn a_device_moves_to_a_balena_api_and_back() {
    let lab = Lab::new("tobalena");
    let (server, fleet, agent) = running(&lab, "c0ffee", &[("web", "r1"), ("db", "r1")]);
    until_done(&agent, "c0ffee");
    assert_eq!(agent.get("web", "/write?1").expect("an answer").status, 200);
    let (standing, written) = (agent.standing(), count(&agent));
    let balena = FakeCloud::start();
    balena.say(of_balena(&server, "c0ffee", &json!({})));
    let key = lab.file("balena.key", "a-key-of-balena");
    let key = key.to_str().expect("text");
    server.cli(&["device", "migrate", "till", "--to", &balena.url, "--to-fleet", "40", "--key-file", key]);
    eventually("the device is at balena's API", TO_MOVE, || {
        (agent.status_value("/cloud/endpoint") == balena.url.as_str()).then_some(())
    });
    let asked: Value = serde_json::from_str(&balena.registrations()[0]).expect("JSON");
    assert_eq!(asked["application"], 40);
    let report = eventually("a report to balena's API", TO_MOVE, || {
        balena.reports().into_iter().find(|report| report.contains("c0ffee"))
    });
    assert!(report.contains(&uuid(0xb4)) && !report.contains(&fleet.uuid), "{report}");
    assert!(!report.contains("\"cotter\""), "{report}");
    until_done(&agent, "c0ffee");
    assert_eq!((agent.standing(), count(&agent)), (standing.clone(), written.clone()));

    // Back, by configuration variables.
    let device = server.cli_json(&["device", "list"])["devices"][0]["uuid"].clone();
    let device = device.as_str().expect("a uuid");
    server.cli(&["device", "delete", device, "--yes"]);
    server.cli(&["device", "allow", device]);
    let key = std::fs::read_to_string(&fleet.key_file).expect("a key");
    let order = json!({
        "BALENA_COTTER_MOVE_ENDPOINT": server.url, "BALENA_COTTER_MOVE_FLEET": "shop", "BALENA_COTTER_MOVE_KEY": key.trim(),
    });
    balena.say(of_balena(&server, "c0ffee", &order));
    until_at(&agent, &server);
    until_on_target(&server);
    assert_eq!((agent.standing(), count(&agent)), (standing, written));
}
