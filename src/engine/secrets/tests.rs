//! Messages of an engine, and what is shown of them. Those with the comment "Docker 20.10" are real.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::engine::sample::Sample;
use crate::model::{
    Healthcheck, ImageRef, Logging, NetworkAttachment, NetworkName, PortMapping, Protocol, SpecHash,
};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn of_options(options: &[&str]) -> Secrets {
    Secrets { options: options.iter().map(|text| (*text).to_owned()).collect(), ..Secrets::default() }
}

fn of_environment(pairs: &[&str]) -> Secrets {
    let pair = |text: &&str| text.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap();
    Secrets { environment: pairs.iter().map(pair).collect(), ..Secrets::default() }
}

#[test]
fn the_options_of_a_volume() {
    let secrets = of_options(&["cifs", "//127.0.0.1/share", "username=u,password=hunter2,vers=3.0"]);
    for (message, left) in [
        // Docker 20.10
        (
            "error while mounting volume '/var/lib/docker/volumes/7_data/_data': failed to mount local volume: \
             mount //127.0.0.1/share:/var/lib/docker/volumes/7_data/_data, data: \
             username=u,password=hunter2,vers=3.0: no such device",
            "error while mounting volume '/var/lib/docker/volumes/7_data/_data': failed to mount local volume: \
             mount (secret):/var/lib/docker/volumes/7_data/_data, data: (secret): no such device",
        ),
        ("bad option \"password=hunter2\"", "bad option \"password=(secret)\""),
        ("bad option username=u", "bad option username=(secret)"),
        ("map[o:username=u,password=hunter2,vers=3.0 type:cifs]", "map[o:(secret) type:(secret)]"),
        ("password hunter2 is wrong", "password (secret) is wrong"),
        ("password=hun...", "password=(secret)..."),
        ("...unter2,vers=3", "...(secret),vers=(secret)"),
        ("o=username%3Du%2Cpassword%3Dhunter2%2Cvers%3D3.0", "o=(secret)"),
        ("mount error(13): permission denied", "mount error(13): permission denied"),
    ] {
        assert_eq!(secrets.hide(message), left);
    }
}

#[test]
fn every_way_to_write_a_secret() {
    let secrets = of_options(&["password=a\"b\\c'd é,x y"]);
    for written in [
        r#"a"b\c'd é"#,
        r#"a\"b\\c'd é"#,
        r#"a\\\"b\\\\c'd é"#,
        r#"a"b\c'\''d é"#,
        "a%22b%5Cc%27d%20%C3%A9",
        r#"a\"b\\c\'d \u{e9}"#,
    ] {
        let left = secrets.hide(&format!("it says {written}, and ends"));
        for rest in ["a\"b", "b\\c", "c'd", "%22b", "%5c"] {
            assert!(!left.to_lowercase().contains(rest), "{written}: {left}");
        }
        assert!(left.starts_with("it says ") && left.ends_with(", and ends"), "{left}");
    }
}

#[test]
fn addresses_with_a_login() {
    let secrets = of_options(&["tcp://joe:pw@logs.example:514", "https://u:hunter3@127.0.0.1:1"]);
    for (message, left) in [
        // Docker 20.10 hides the password itself, and not the name.
        (
            "failed to initialize logging driver: Options \"https://u:***@127.0.0.1:1/services/collector/event/1.0\": \
             dial tcp 127.0.0.1:1: connect: connection refused",
            "failed to initialize logging driver: Options \"(secret)***(secret)/services/collector/event/1.0\": \
             dial tcp (secret): connect: connection refused",
        ),
        ("no login joe:pw there", "no login (secret) there"),
        ("wrong password pw for joe", "wrong password (secret) for (secret)"),
        ("lookup Logs.Example: no such host", "lookup (secret) no such host"),
    ] {
        assert_eq!(secrets.hide(message), left);
    }
}

#[test]
fn the_options_of_networks_and_logs() {
    // Docker 20.10
    let message = "failed to parse com.docker.network.bridge.enable_icc value: hunter2 (strconv.ParseBool: parsing \
                   \"hunter2\": invalid syntax)";
    let left = "failed to parse com.docker.network.bridge.enable_icc value: (secret) (strconv.ParseBool: parsing \
                \"(secret)\": invalid syntax)";
    assert_eq!(of_options(&["hunter2"]).hide(message), left);
    let message = "invalid fluentd-address user:hunter2: strconv.Atoi: parsing \"hunter2\": invalid syntax";
    let left = "invalid fluentd-address (secret): strconv.Atoi: parsing \"(secret)\": invalid syntax";
    assert_eq!(of_options(&["user:hunter2"]).hide(message), left);
}

#[test]
fn the_environment() {
    let secrets = of_environment(&[
        "PIN=1234",
        "X=1",
        "TOKEN=abcdefghijkl",
        "KEY=-----BEGIN-----\nMIIEvQIB\n-----END-----",
        "DATABASE_URL=postgres://joe:pw@db/shop",
    ]);
    for (message, left) in [
        ("invalid environment variable: PIN=1234", "invalid environment variable: PIN=(secret)"),
        ("X=1 and 1", "X=(secret) and 1"),
        ("TOKEN=abc (cut)", "TOKEN=(secret) (cut)"),
        ("pin 1234, port 12345", "pin (secret), port 12345"),
        ("...efghijkl", "...(secret)"),
        (r"line -----BEGIN-----\nMIIEvQIB\n-----END-----", "line (secret)"),
        ("MIIEvQIB is no key", "(secret) is no key"),
        ("database DATABASE_URL is down: pw", "database DATABASE_URL is down: (secret)"),
        ("cannot reach postgres://joe:pw@db/shop", "cannot reach (secret)"),
    ] {
        assert_eq!(secrets.hide(message), left);
    }
}

#[test]
fn values_that_the_status_shows_are_not_hidden() {
    let mut spec =
        ServiceSpec::bare(SpecHash::from_sha256(1, [1; 32]), ImageRef::parse("r.example/shop:1").unwrap());
    spec.environment =
        map(&[("SERVICE", "web"), ("PORT", "8080"), ("DATA", "/data/shop"), ("PW", "hunter2")]);
    spec.command = Some(["/usr/bin/server", "--password=hunter3"].map(str::to_owned).into());
    spec.entrypoint = Some(vec!["--token=hunter4".to_owned()]);
    spec.labels = map(&[("auth", "hunter5")]);
    spec.annotations = map(&[("run.oci.x", "hunter6")]);
    spec.healthcheck = Some(Healthcheck {
        probe: Probe::Shell("curl -u joe:hunter7 localhost".to_owned()),
        interval: None,
        timeout: None,
        start_period: None,
        start_interval: None,
        retries: None,
    });
    spec.logging =
        Some(Logging { driver: "splunk".to_owned(), options: map(&[("splunk-token", "hunter8")]) });
    spec.ports.push(PortMapping {
        host_ip: String::new(),
        host_port: Some(8080),
        container_port: 80,
        protocol: Protocol::Tcp,
    });
    let attachment =
        NetworkAttachment { driver_opts: map(&[("a", "hunter9")]), ..NetworkAttachment::default() };
    spec.network_mode =
        NetworkMode::Networks(BTreeMap::from([(NetworkName::parse("back").unwrap(), attachment)]));
    let sample = Sample::new("web");
    let secrets = Secrets::of(sample.container(&spec));
    for message in [
        "Conflict. The container name \"/7_web_01010101\" is already in use",
        "driver failed programming external connectivity on endpoint 7_web_01010101: Bind for 0.0.0.0:8080 failed: \
         port is already allocated",
        "No such image: r.example/shop:1",
        "exec: \"/usr/bin/server\": stat /usr/bin/server: no such file or directory: unknown",
        "network 7_back not found",
    ] {
        assert_eq!(secrets.hide(message), message);
    }
    for n in 2..=9 {
        let left = secrets.hide(&format!("bad hunter{n}"));
        assert!(left.starts_with("bad") && left.contains(HIDDEN) && !left.contains("hunter"), "{n}: {left}");
    }
    assert_eq!(secrets.hide("bad --password=hunter3"), "bad (secret)");
}

#[test]
fn of_what_the_engine_has() {
    let container = json!({
        "Name": "/7_web_01", "Path": "/server", "Args": ["--password", "hunter1"],
        "Config": {
            "Image": "r.example/shop:1", "Env": ["PATH=/usr/sbin:/usr/bin", "PW=hunter2", "NAME=shop"],
            "Labels": {"io.cotter.service": "web", "auth": "hunter3"}, "Healthcheck": {"Test": ["CMD-SHELL", "echo hunter4"]},
        },
        "HostConfig": {
            "LogConfig": {"Type": "splunk", "Config": {"splunk-token": "hunter5"}}, "Annotations": {"a": "hunter6"},
            "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
            "DeviceRequests": [{"Options": {"a": "hunter7"}}],
        },
        "Mounts": [{"Type": "volume", "Name": "7_data", "Source": "/var/lib/docker/volumes/7_data/_data", "Destination": "/data"}],
        "NetworkSettings": {"Networks": {"7_back": {"DriverOpts": {"a": "hunter8"}}}},
    });
    let volumes = json!({"Volumes": [
        {"Name": "7_data", "Options": {"o": "username=u,password=hunter9"}},
        {"Name": "other", "Options": {"o": "password=stranger"}},
    ]});
    let networks = json!([
        {"Name": "7_back", "Options": {"a": "hunter10"}, "IPAM": {"Options": {"b": "hunter11"}}},
        {"Name": "bridge", "Options": {"a": "stranger"}},
    ]);
    let secrets = Secrets::of_inspected(&container, &volumes, &networks);
    for n in 1..=11 {
        let left = secrets.hide(&format!("bad hunter{n}!"));
        assert!(left.starts_with("bad") && left.contains(HIDDEN) && !left.contains("hunter"), "{n}: {left}");
    }
    for message in [
        "exec: \"/server\": executable file not found in $PATH: unknown",
        "error while mounting volume '/var/lib/docker/volumes/7_data/_data': stranger things",
        "driver failed programming external connectivity on endpoint 7_web_01: Bind for 0.0.0.0:8080 failed",
        "No such image: r.example/shop:1",
    ] {
        assert_eq!(secrets.hide(message), message);
    }
    // The engine may answer anything.
    for odd in [json!(null), json!([1, {"Name": 2}]), json!({"Mounts": 3, "Config": {"Env": {"a": [4]}}})] {
        assert_eq!(Secrets::of_inspected(&odd, &odd, &odd).hide("as it is"), "as it is");
    }
}

#[test]
fn a_message_is_bounded_and_so_is_the_search() {
    let secrets = of_options(&["hunter2hunter2"]);
    let long = secrets.hide(&"ab ".repeat(100_000));
    assert_eq!((long.chars().count(), long.ends_with('…')), (LONGEST + 1, true));
    let many: Vec<String> = (0..5000).map(|n| format!("NAME_{n}={n:060}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(of_environment(&many).hide("some message"), WITHHELD);
    let fewer = of_environment(&many[..2000]);
    assert_eq!(fewer.hide(&format!("NAME_7={:060} is bad", 7)), "NAME_7=(secret) is bad");
}

proptest! {
    /// No option or variable remains in a message, in any form of writing.
    #[test]
    fn nothing_of_six_bytes_and_more_is_left(secret in "[ -~éß]{6,40}", before in "[ -~]{0,20}", after in "[ -~]{0,20}") {
        prop_assume!(!secret.trim().is_empty());
        let json = json!(secret).to_string();
        let forms = [secret.clone(), json[1..json.len() - 1].to_owned(), secret.to_ascii_uppercase()];
        for secrets in [of_options(&[&secret]), of_environment(&[&format!("NAME={secret}")])] {
            for form in &forms {
                let left = secrets.hide(&format!("{before}{form}{after}"));
                let (left, form) = (left.to_ascii_lowercase(), form.to_ascii_lowercase());
                prop_assert!(!left.contains(&form), "{left}");
            }
        }
    }
}
