//! What the real engine quotes when it refuses, and what is passed on of it.

use std::collections::BTreeMap;

use cotter::engine::Operate;
use cotter::model::{ImageRef, Logging, NetworkSpec, ServiceSpec};

use crate::real::docker;
use crate::support::Lab;
use crate::{app, create, created, gone, network, pull, spec};

fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn an_engine_quotes_options_and_none_of_them_is_passed_on() {
    let lab = Lab::new("secrets");
    let image = ImageRef::parse(lab.image("r1")).unwrap();
    let engine = docker(lab.docker().socket(), &lab, &lab.instance("a"));
    pull(&engine, &image).await.unwrap();
    let logs = |driver: &str, pairs: &[(&str, &str)]| {
        let logging = Some(Logging { driver: driver.to_owned(), options: options(pairs) });
        ServiceSpec { logging, ..spec(&image, 40) }
    };
    let check = |what: &str, output: &str| {
        assert!(output.contains("(secret)") && !output.contains("hunter"), "{what}: {output}");
    };

    // At creation.
    let fluentd = logs("fluentd", &[("fluentd-address", "joe:hunter2")]);
    check("fluentd", &create(&engine, "web", &fluentd).await.unwrap_err().to_string());
    let config_hash = Some("c1".to_owned());
    let driver_opts = options(&[("com.docker.network.bridge.enable_icc", "hunter2")]);
    let strange = NetworkSpec { config_hash, driver_opts, ..NetworkSpec::default() };
    let refused = engine.create_network(&app(), &network("back"), &strange).await.unwrap_err();
    check("a network", &refused.to_string());

    // At the start, by a client that has not created the container, as after a restart of the agent.
    let splunk = [("splunk-token", "hunter2"), ("splunk-url", "https://joe:hunter3@127.0.0.1:1")];
    let gelf = [("gelf-address", "udp://127.0.0.1:1"), ("tag", "{{hunter4")];
    for (driver, pairs) in [("splunk", &splunk), ("gelf", &gelf)] {
        let id = created(&engine, "web", &logs(driver, pairs)).await;
        let other = docker(lab.docker().socket(), &lab, &lab.instance("a"));
        let output = other.start(&id).await.unwrap_err().to_string();
        check(driver, &output);
        assert!(!output.contains("joe"), "{output}");
        gone(&engine, &id).await;
    }

    // What the status shows anyway is left, so that people know what to mend.
    let missing = ServiceSpec {
        command: Some(vec!["/no/such/program".to_owned(), "--password=hunter2".to_owned()]),
        entrypoint: Some(Vec::new()),
        environment: BTreeMap::from([("PASSWORD".to_owned(), "hunter3".to_owned())]),
        ..spec(&image, 41)
    };
    let id = created(&engine, "web", &missing).await;
    let output = engine.start(&id).await.unwrap_err().to_string();
    assert!(output.contains("/no/such/program") && !output.contains("hunter"), "{output}");
    gone(&engine, &id).await;
}
