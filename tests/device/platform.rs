//! Images for several machines: each service has the one of its platform, and one that has none costs nothing.

use serde_json::{Value, json};

use crate::bad::why_waiting;
use crate::support::{Agent, FakeCloud, Lab};
use crate::{app, service, until_done, uuid};

#[test]
fn the_image_of_its_platform_runs_and_without_one_nothing_stops() {
    let lab = Lab::new("platform");
    let ours = lab.docker().run(&["version", "--format", "{{.Server.Arch}}"]);
    // What a machine runs besides its own programs.
    let second = match ours.as_str() {
        "amd64" => "386",
        "arm64" => "arm",
        other => panic!("no second platform of {other} is known to this test"),
    };
    let own = lab.dir().display().to_string();
    let image = |release: &str, architecture: &str| {
        lab.altered_image(release, |config: &mut Value| {
            config["architecture"] = architecture.into();
            // No engine has it yet.
            config["config"]["Labels"]["io.cotter.fresh"] = own.clone().into();
        })
    };
    let index = |images: &[(&str, &str)]| {
        let images: Vec<_> = images.iter().map(|(arch, release)| (*arch, image(release, arch))).collect();
        lab.index(&images.iter().map(|(arch, image)| (*arch, image.as_str())).collect::<Vec<_>>())
    };
    let cloud = FakeCloud::start();
    let target = |commit: &str, image: &str, platform: Option<&str>| {
        let more = platform.map_or(json!({}), |platform| json!({ "platform": format!("linux/{platform}") }));
        let apps = app(1, "shop", commit, &[("web", service(image, more))]);
        cloud.target(commit, &json!({ uuid(1): apps }));
    };
    let made_for =
        |image: &str| lab.docker().run(&["image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", image]);

    let both = index(&[(&ours, "r1"), (second, "r2")]);
    target("one", &both, Some(second));
    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "till");
    agent.start_again();
    agent.until_serves("web", "one", "r2");
    until_done(&agent, "one");
    assert_eq!(made_for(&both), format!("linux/{second}"));

    let both = index(&[(second, "r4"), (&ours, "r3")]);
    target("two", &both, None);
    agent.until_serves("web", "two", "r3");
    until_done(&agent, "two");
    assert_eq!(made_for(&both), format!("linux/{ours}"));

    let before = agent.standing();
    let pulls = || agent.log().matches("what=pull ").count();
    let pulled = pulls();
    let (both, foreign) =
        (index(&[(&ours, "r1"), (second, "r1")]), index(&[("riscv64", "r1"), ("s390x", "r1")]));
    let alone = index(&[(&ours, "r2")]);
    for (commit, image, platform, words) in [
        (
            "three",
            &both,
            Some("riscv64"),
            format!("its platform is linux/riscv64, and this device is {ours}: remove platform"),
        ),
        (
            "four",
            &alone,
            Some(second),
            format!("its platform is linux/{second}, and {alone} is made for {ours}"),
        ),
        ("five", &foreign, None, format!("{foreign} is made for riscv64, s390x, and this device is {ours}")),
    ] {
        target(commit, image, platform);
        agent.until_status("/waiting", &words);
        assert!(why_waiting(&agent, "wrong_architecture").starts_with(&words));
        agent.until_polled(2);
        assert_eq!(
            (agent.standing(), pulls()),
            (before.clone(), pulled),
            "{commit}: nothing was pulled or stopped"
        );
    }
}
