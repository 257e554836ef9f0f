//! What the engine accepts when it creates a container, and refuses when it starts it (Docker Engine 20.10.24, runc). It is
//! refused before: at a start, the predecessor has stopped already.

use serde_json::{Value, json};

use super::*;

fn notes(composition: &Value) -> Notes {
    let state: ReleaseState = serde_json::from_value(json!({"id": 3, "services": {
        "web": {"id": 1, "image_id": 2, "image": "r.example/web:1", "composition": composition},
        "db": {"id": 2, "image_id": 3, "image": "r.example/db:1", "composition": {}},
    }}))
    .unwrap();
    read(&state, Form::File).1
}

fn shown(notes: &[Refusal]) -> Vec<String> {
    notes.iter().map(|note| note.to_string().replace("services.web", "~")).collect()
}

#[track_caller]
fn check(rows: &[(Value, &str)]) {
    for (composition, expected) in rows {
        let notes = notes(composition);
        let refusals = shown(&notes.refusals);
        if expected.is_empty() {
            assert_eq!(refusals, Vec::<String>::new(), "{composition}");
        } else {
            assert!(refusals.len() == 1 && refusals[0].contains(expected), "{composition}: {refusals:?}");
        }
    }
}

#[test]
fn what_no_kernel_takes() {
    let name = |letters: usize| "a".repeat(letters);
    check(&[
        (json!({"hostname": name(64)}), ""),
        (json!({"hostname": name(65)}), "~.hostname: it has 65 characters, and Linux accepts 64"),
        (json!({"networks": {"default": {"aliases": [name(70)]}}}), ""),
        (json!({"cpu_shares": 1}), "~.cpu_shares: 1 is not accepted: write a weight from 2"),
        (json!({"cpu_shares": 2}), ""),
        (json!({"cpuset": "3-1"}), "~.cpuset: \"3-1\" is not accepted"),
        (json!({"cpu_rt_runtime": 950_000}), ""),
        (
            json!({"cpu_rt_runtime": 950_000, "cpu_rt_period": 900_000}),
            "~.cpu_rt_runtime: it is more than cpu_rt_period",
        ),
        (json!({"pids_limit": 4_194_304}), ""),
        (json!({"pids_limit": 4_194_305}), "~.pids_limit: 4194305 is not accepted"),
        (json!({"user": "2147483647:2147483647"}), ""),
        (
            json!({"user": "4294967296"}),
            "~.user: \"4294967296\" is not accepted: write a number of 2147483647",
        ),
        (json!({"user": "0:4294967296"}), "~.user"),
        (json!({"user": "nobody2"}), ""),
        (json!({"group_add": ["audio", 4_294_967_296_u64]}), "~.group_add[1]"),
    ]);
}

#[test]
fn kernel_settings_by_their_names() {
    check(&[
        (json!({"sysctls": {"net.ipv4.conf.eth0/1.forwarding": 1}}), ""),
        (json!({"sysctls": {"net..x": 1}}), "~.sysctls.net..x: it is not the name of a kernel setting"),
        (json!({"sysctls": {"net.a b": 1}}), "it is not the name of a kernel setting"),
        (json!({"sysctls": {"net.x.": 1}}), "it is not the name of a kernel setting"),
        (json!({"sysctls": {"net.//x": 1}}), "it is not the name of a kernel setting"),
        (json!({"sysctls": {"kernel.msgmax": 1}, "ipc": "host"}), "with ipc host it would change the host"),
        (
            json!({"sysctls": {"fs.mqueue.msg_max": 1}, "ipc": "host"}),
            "with ipc host it would change the host",
        ),
        (json!({"sysctls": {"kernel.msgmax": 1}, "ipc": "private"}), ""),
    ]);
}

#[test]
fn options_of_log_drivers() {
    let with = |driver: &str, options: Value| json!({"logging": {"driver": driver, "options": options}});
    let at = |option: &str, why: &str| format!("~.logging.options.{option}: {why}");
    for (driver, options, expected) in [
        (
            "json-file",
            json!({"max-size": "10m", "max-file": "3", "compress": "true", "tag": "x"}),
            String::new(),
        ),
        ("json-file", json!({"max-size": "1.5 GiB", "max-file": 2}), String::new()),
        ("json-file", json!({"max-size": "abc"}), at("max-size", "write a number of bytes")),
        ("json-file", json!({"max-size": "0"}), at("max-size", "write a number of bytes")),
        ("json-file", json!({"max-size": "-1"}), at("max-size", "write a number of bytes")),
        ("json-file", json!({"max-file": 0}), at("max-file", "write a whole number of 1 or more")),
        ("json-file", json!({"max-file": "many"}), at("max-file", "write a whole number of 1 or more")),
        ("json-file", json!({"compress": true}), at("compress", "it needs max-size, and max-file of 2")),
        ("json-file", json!({"compress": "maybe"}), at("compress", "write true or false")),
        ("json-file", json!({"mode": "fast"}), at("mode", "write blocking or non-blocking")),
        ("json-file", json!({"max-buffer-size": "4m"}), at("max-buffer-size", "it needs mode: non-blocking")),
        (
            "json-file",
            json!({"mode": "non-blocking", "max-buffer-size": "zz"}),
            at("max-buffer-size", "write a number"),
        ),
        ("json-file", json!({"mode": "non-blocking", "max-buffer-size": "4m"}), String::new()),
        ("local", json!({"max-size": "0", "compress": "true"}), String::new()),
        ("local", json!({"max-file": 1, "compress": "true"}), at("compress", "it needs max-size")),
        ("local", json!({"max-size": "-1"}), at("max-size", "write a number of bytes")),
        ("syslog", json!({"syslog-address": "udp://10.0.0.1:514"}), String::new()),
        ("", json!({"mode": "fast"}), at("mode", "write blocking or non-blocking")),
        ("", json!({"anything": "1"}), String::new()),
    ] {
        check(&[(with(driver, options), expected.as_str())]);
    }
}

#[test]
fn a_dependency_that_is_not_required_may_be_missing() {
    let on = |name: &str, required: Value| json!({"depends_on": {name: {"condition": "service_started", "required": required}}});
    for (composition, refusal, warning) in [
        (on("db", json!(true)), "", ""),
        (
            on("db", json!(false)),
            "",
            "~.depends_on.db.required: not honoured: a dependency that the release has is required",
        ),
        (
            on("gone", json!(false)),
            "",
            "~.depends_on.gone.required: not honoured: the release has no such service",
        ),
        (on("gone", json!(true)), "~.depends_on.gone: there is no service gone", ""),
        (on("db", json!("no")), "~.depends_on.db.required: \"no\" is not accepted: write true or false", ""),
    ] {
        check(&[(composition.clone(), refusal)]);
        let warnings = shown(&notes(&composition).warnings);
        assert!(
            warnings.iter().all(|found| found.contains(warning)) && warnings.is_empty() == warning.is_empty(),
            "{warnings:?}"
        );
    }
}

#[test]
fn keys_in_another_spelling_are_shown_in_compose_s() {
    check(&[
        (json!({"readOnly": true}), "~.readOnly: unknown field: write read_only"),
        (
            json!({"healthcheck": {"test": "true", "startPeriod": "1s"}}),
            "~.healthcheck.startPeriod: unknown field: write start_period",
        ),
        (
            json!({"volumes": [{"type": "volume", "target": "/x", "readOnly": true}]}),
            "readOnly: unknown field: write read_only",
        ),
        (
            json!({"networks": {"default": {"ipv4Address": "10.0.0.1"}}}),
            "ipv4Address: unknown field: write ipv4_address",
        ),
        (json!({"logging": {"maxSize": 1}}), "maxSize: unknown field: write max_size"),
        (json!({"logging": {"size": 1}}), "it is not a field of logging"),
    ]);
}

#[test]
fn a_window_names_a_zone_that_exists() {
    let window = |text: &str| json!({"labels": {"io.cotter.update.window": text}});
    check(&[
        (window("02:00-04:00 Europe/Zurich"), ""),
        (window("02:00-04:00; Sun 00:00-24:00 UTC"), ""),
        (window("02:00-04:00 Europe/Zurihc"), "the time zone \"Europe/Zurihc\" is not known"),
    ]);
}
