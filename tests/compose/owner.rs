//! What the owner of a device allows, with the real agent: what goes further is refused and reported, and what runs
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
    let why_refused = |agent: &Agent<'_>| {
        eventually("the status says refused", Duration::from_secs(40), || {
            let waiting = agent.status_value("/waiting");
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
    let why = why_refused(&agent);
    assert!(
        why.contains(
            "services.web.composition.cap_add: this device does not allow it: remove it, or set \
                      policy.capabilities = \"yes\" on the device"
        ),
        "{why}"
    );
    assert_eq!(agent.service("web").expect("it stays").standing(), container.standing());

    // The owner thinks better of the path: what runs stays until a release that may run here comes.
    target("one", "r1", bind);
    eventually("what runs is wanted", Duration::from_secs(20), || {
        (agent.status_value("/waiting").as_array()?.is_empty()).then_some(())
    });
    agent.set("policy.host_paths=");
    agent.stop();
    agent.start_again();
    let why = why_refused(&agent);
    assert!(why.contains("or add it to policy.host_paths on the device"), "{why}");
    assert_eq!(agent.service("web").expect("it stays").standing(), container.standing());
    target("three", "r3", json!({}));
    let next = agent.until_serves("web", "three", "r3");
    assert!(next.raw["Mounts"].as_array().unwrap().iter().all(|mount| mount["Destination"] != "/shared"));
}

/// A device whose owner allows `paths` and nothing else, and what tests do with it.
struct Guarded<'lab> {
    cloud: &'lab FakeCloud,
    agent: Agent<'lab>,
}

impl<'lab> Guarded<'lab> {
    fn new(lab: &'lab Lab, cloud: &'lab FakeCloud, device: &str, paths: &str) -> Self {
        let mut agent = Agent::prepare(lab, &cloud.url, &cloud.fleet(lab), device);
        agent.set("policy.preset=strict");
        agent.set(&format!("policy.host_paths={paths}"));
        agent.start_again();
        Self { cloud, agent }
    }

    /// Makes a release the target: these fields of its service, and these of the release.
    fn wants(&self, commit: &str, image: &str, fields: &Value, rest: &Value) {
        let mut composition = json!({"ports": ["127.0.0.1::8080"]});
        composition.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let web = json!({"id": 1, "image_id": 1, "image": image, "composition": composition});
        let mut release = json!({"id": 1, "services": {"web": web}});
        release.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        self.cloud.target(commit, &json!({APP: {"id": 1, "name": "shop", "releases": {commit: release}}}));
    }

    /// Waits until the status says why something is waited for.
    fn until_waits(&self, why: &str) {
        eventually(&format!("the status says {why}"), Duration::from_secs(40), || {
            let waiting = self.agent.status_value("/waiting");
            waiting.as_array()?.iter().any(|w| w["why"].as_str().unwrap().contains(why)).then_some(())
        });
    }
}

/// Each of these reached the host of a device whose every switch said no.
#[test]
fn a_strict_policy_keeps_a_release_off_the_host() {
    let (lab, cloud) = (Lab::new("strict"), FakeCloud::start());
    let device = Guarded::new(&lab, &cloud, "till", "");
    device.wants("one", lab.image("r1"), &json!({}), &json!({}));
    let container = device.agent.until_serves("web", "one", "r1");
    let volume = |options: Value| json!({"volumes": {"v": {"driver_opts": options}}});
    let network =
        |driver: &str, options: Value| json!({"networks": {"n": {"driver": driver, "driver_opts": options}}});
    let (mounts, on) = (json!({"volumes": ["v:/v"]}), json!({"networks": ["n"]}));
    for (n, (fields, rest, why)) in [
        (
            mounts.clone(),
            volume(json!({"type": "overlay", "device": "overlay", "o": "lowerdir=/etc:/opt"})),
            "volumes.v.driver_opts: this device does not allow it: remove it, or set policy.privileged",
        ),
        (mounts, volume(json!({"type": "ext4", "device": "/dev/vda"})), "or set policy.devices = \"yes\""),
        (
            on.clone(),
            network("bridge", json!({"com.docker.network.bridge.name": "docker0"})),
            "networks.n.driver_opts: this device does not allow it: remove it, or set policy.host_network",
        ),
        (on.clone(), network("macvlan", json!({"parent": "eth0"})), "networks.n.driver: "),
        (
            on,
            json!({"networks": {"n": {"ipam": {"config": [{"subnet": "198.51.100.0/24"}]}}}}),
            "networks.n.ipam.config: this device does not allow it",
        ),
        (json!({"runtime": "other"}), json!({}), "or set policy.runtimes = \"yes\""),
        (json!({"security_opt": ["label=disable"]}), json!({}), "or set policy.privileged = \"yes\""),
        (json!({"oom_score_adj": -1000}), json!({}), "or set policy.capabilities = \"yes\""),
        (json!({"annotations": {"a": "b"}}), json!({}), "or set policy.runtimes = \"yes\""),
    ]
    .into_iter()
    .enumerate()
    {
        device.wants(&format!("bad{n}"), lab.image("r2"), &fields, &rest);
        device.until_waits(why);
        assert_eq!(device.agent.service("web").expect("it stays").standing(), container.standing());
    }
}

/// A container that may write into a folder puts a link there, and the next release mounts the link.
#[test]
fn a_link_that_leads_out_of_the_allowed_paths_is_not_mounted() {
    let (lab, cloud) = (Lab::new("link"), FakeCloud::start());
    let shared = lab.dir().join("shared");
    std::fs::create_dir_all(shared.join("app")).unwrap();
    let device = Guarded::new(&lab, &cloud, "till", &shared.display().to_string());
    let mounts = |name: &str| json!({"volumes": [format!("{}:/x", shared.join(name).display())]});
    device.wants("one", lab.image("r1"), &mounts("app"), &json!({}));
    let container = device.agent.until_serves("web", "one", "r1");

    std::os::unix::fs::symlink("/", shared.join("out")).unwrap();
    std::os::unix::fs::symlink("app", shared.join("in")).unwrap();
    device.wants("two", lab.image("r2"), &mounts("out"), &json!({}));
    let link = shared.join("out").display().to_string();
    device.until_waits(&format!("{link:?} leads to \"/\" on this device by the link {link:?}"));
    assert_eq!(device.agent.service("web").expect("it stays").standing(), container.standing());
    let made = device.agent.containers();
    assert_eq!(made.iter().map(|c| c.service().to_owned()).collect::<Vec<_>>(), ["web"], "nothing was made");

    let volume = json!({"volumes": {"v": {"driver_opts": {"type": "none", "o": "bind", "device": link}}}});
    device.wants("three", lab.image("r2"), &json!({"volumes": ["v:/x"]}), &volume);
    device.until_waits(&format!("{link:?} leads to \"/\" on this device"));
    let below = json!({"volumes": [format!("{}:/a", shared.display()), format!("{}:/b", shared.join("app").display())]});
    device.wants("four", lab.image("r2"), &below, &json!({}));
    device.until_waits("it could create a link there that leads out");
    assert_eq!(device.agent.service("web").expect("it stays").standing(), container.standing());

    // Made while the path is a folder, and started when it is a link.
    std::fs::create_dir(shared.join("late")).unwrap();
    let (is_done, lock) = device.agent.order(&["lock", "acquire", "--reason", "the test", "--ttl", "5min"]);
    assert!(is_done, "{lock}");
    device.wants("late", lab.image("r2"), &mounts("late"), &json!({}));
    eventually("the successor is made", Duration::from_secs(40), || {
        (device.agent.containers().len() == 2).then_some(())
    });
    std::fs::remove_dir(shared.join("late")).unwrap();
    std::os::unix::fs::symlink("/etc", shared.join("late")).unwrap();
    let (is_done, output) = device.agent.order(&["lock", "release", lock.lines().next().expect("its id")]);
    assert!(is_done, "{output}");
    device.until_waits("release late was rejected: web does not start: ");
    assert_eq!(device.agent.service("web").expect("it stays").standing(), container.standing());

    device.wants("five", lab.image("r2"), &mounts("in"), &json!({}));
    let next = device.agent.until_serves("web", "five", "r2");
    assert!(next.raw["Mounts"].to_string().contains("/shared/in"), "{}", next.raw["Mounts"]);
}

/// Labels by which the agent knows its own, from an author and from an image: with `io.cotter.joins` believed, the
/// container was removed and made again without end.
#[test]
fn labels_of_the_agent_are_reserved() {
    let (lab, cloud) = (Lab::new("labels"), FakeCloud::start());
    let device = Guarded::new(&lab, &cloud, "till", "");
    let joins = format!("network:{}", "ab".repeat(32));
    let image = lab.altered_image("r1", |config| {
        config["config"]["Labels"]["io.cotter.joins"] = joins.clone().into();
        config["config"]["Labels"]["io.cotter.app"] = "0".repeat(32).into();
    });
    let labels = json!({"labels": {"io.cotter.joins": joins, "io.cotter.instance": "other", "io.cotter.trial.soak": "1s"}});
    device.wants("one", &image, &labels, &json!({}));
    let container = device.agent.until_serves("web", "one", "r1");
    eventually("the release is good", Duration::from_secs(40), || {
        device.agent.status_value("/waiting").as_array()?.is_empty().then_some(())
    });
    assert_eq!(device.agent.service("web").expect("it stays").standing(), container.standing());
    let given = &container.raw["Config"]["Labels"];
    assert_eq!((&given["io.cotter.joins"], &given["io.cotter.app"]), (&json!(""), &json!(APP)));
    assert_eq!(given["io.cotter.instance"], device.agent.instance());
    assert_eq!(given["io.cotter.trial.soak"], "1s");
}
