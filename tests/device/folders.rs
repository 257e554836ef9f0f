//! Lock folders of services, filled by apps that mean harm.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, FakeCloud, Lab, eventually};
use crate::{app, service, until_done, uuid};

#[test]
fn a_lock_folder_holds_little_and_goes_with_its_service() {
    let lab = Lab::new("folders");
    let cloud = FakeCloud::start();
    let web = || ("web", service(lab.image("r1"), json!({})));
    let api = || ("api", service(lab.image("r2"), json!({ "volumes": [] })));
    let target = |commit: &str, services: &[(&str, Value)]| {
        cloud.target(commit, &json!({ uuid(1): app(1, "shop", commit, services) }));
    };
    target("one", &[web(), api()]);
    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "till");
    agent.start_again();
    until_done(&agent, "one");
    let folders = agent.status_socket().with_file_name("services/1");
    let folder = |service: &str| -> PathBuf { folders.join(service) };
    let (of_web, of_api) = (folder("web"), folder("api"));

    // An app that writes what it likes, and locks; another one that only locks.
    let big = lab.dir().join("big");
    fs::write(&big, vec![1; 1 << 20]).unwrap();
    let before = agent.standing();
    let id = agent.service("web").unwrap().id;
    lab.docker().run(&["cp", big.to_str().unwrap(), &format!("{id}:/tmp/balena/big")]);
    for name in ["web", "api"] {
        assert_eq!(agent.get(name, "/make?/tmp/balena/updates.lock").unwrap().status, 200);
    }
    assert_eq!(fs::metadata(of_web.join("big")).unwrap().len(), 1 << 20);
    // The first look of an agent is at its start.
    agent.cut();
    agent.start_again();
    eventually("it is emptied", Duration::from_secs(20), || (!of_web.join("big").exists()).then_some(()));
    assert!(of_web.join("updates.lock").exists() && of_api.join("updates.lock").exists(), "locks stay");
    // The log comes after the removal.
    let emptied = "a lock folder held too much and was emptied folder=\"1/web\"";
    eventually("it is logged", Duration::from_secs(20), || agent.log().contains(emptied).then_some(()));
    assert_eq!(agent.standing(), before, "no container was touched");
    for name in ["web", "api"] {
        assert_eq!(agent.get(name, "/take?/tmp/balena/updates.lock").unwrap().status, 200);
    }

    // What a crash has left, and a service that leaves the release while its folder is full.
    let left = folder("left");
    fs::create_dir_all(left.join("deep/er")).unwrap();
    let id = agent.service("api").unwrap().id;
    lab.docker().run(&["cp", big.to_str().unwrap(), &format!("{id}:/tmp/balena/big")]);
    target("two", &[web()]);
    until_done(&agent, "two");
    eventually("its folder is gone", Duration::from_secs(20), || {
        (!of_api.exists() && !left.exists() && of_web.exists()).then_some(())
    });
    // And it comes back to an empty one.
    target("three", &[web(), api()]);
    until_done(&agent, "three");
    assert_eq!(fs::read_dir(&of_api).unwrap().count(), 0);
    assert_eq!(agent.get("api", "/make?/tmp/balena/updates.lock").unwrap().status, 200);
    assert!(of_api.join("updates.lock").exists(), "the container has this very folder");
}
