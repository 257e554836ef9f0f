//! What the owner of a device allows, with the real agent: what goes further is refused and told, and what runs
//! stays.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, FakeCloud, Lab, eventually};

const APP: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn a_release_gets_what_the_owner_of_the_device_allows() {
    let lab = Lab::new("owner");
    let cloud = FakeCloud::start();
    let target = |commit: &str, image: &str, fields: Value| {
        let mut composition = json!({"ports": ["127.0.0.1::8080"]});
        composition.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let web = json!({"id": 1, "image_id": 1, "image": lab.image(image), "composition": composition});
        let release = json!({"id": 1, "services": {"web": web}});
        cloud.target(commit, &json!({APP: {"id": 1, "name": "shop", "releases": {commit: release}}}));
    };
    let told = |agent: &Agent<'_>| {
        eventually("the status says refused", Duration::from_secs(40), || {
            let waiting = agent.told("/waiting");
            let entry = waiting.as_array()?.iter().find(|w| w["reason"] == "refused")?.clone();
            Some(entry["why"].as_str()?.to_owned())
        })
    };
    let shared = lab.dir().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let bind = json!({"volumes": [format!("{}:/shared:ro", shared.display())]});

    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "till");
    agent.set("policy.capabilities=no");
    agent.set(&format!("policy.host_paths=/nowhere,{}", lab.dir().display()));
    agent.start_again();
    target("one", "r1", bind.clone());
    let container = agent.until_serves("web", "one", "r1");
    let mounts: Vec<_> = container.raw["Mounts"].as_array().unwrap().iter().collect();
    let mount = mounts.iter().find(|mount| mount["Destination"] == "/shared").expect("the folder is mounted");
    assert_eq!((mount["Source"].as_str(), mount["RW"].as_bool()), (shared.to_str(), Some(false)));

    target("two", "r2", json!({"cap_add": ["NET_ADMIN"]}));
    let why = told(&agent);
    assert!(
        why.contains(
            "services.web.composition.cap_add: this device does not let releases have it: remove it, or set \
                      policy.capabilities = \"yes\" on the device"
        ),
        "{why}"
    );
    assert_eq!(agent.service("web").expect("it stays").standing(), container.standing());

    // The owner thinks better of the path: what runs stays until a release that may run here comes.
    target("one", "r1", bind);
    eventually("what runs is wanted", Duration::from_secs(20), || {
        (agent.told("/waiting").as_array()?.is_empty()).then_some(())
    });
    agent.set("policy.host_paths=");
    agent.stop();
    agent.start_again();
    let why = told(&agent);
    assert!(why.contains("or add it to policy.host_paths on the device"), "{why}");
    assert_eq!(agent.service("web").expect("it stays").standing(), container.standing());
    target("three", "r3", json!({}));
    let next = agent.until_serves("web", "three", "r3");
    assert!(next.raw["Mounts"].as_array().unwrap().iter().all(|mount| mount["Destination"] != "/shared"));
}
