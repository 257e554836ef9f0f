//! What of the host the containers, networks and volumes of an instance reach, as the engine itself shows them.

use serde_json::Value;

use crate::harmless;
use crate::support::{Docker, Lab};

/// Everything of the host that is in reach of what bears `instance`, in words. `own` is the agent's own folder, of
/// which a service gets its lock folder.
#[track_caller]
pub fn of(lab: &Lab, instance: &str, own: &str) -> Vec<String> {
    let docker = lab.docker();
    let usual = docker.run(&["info", "--format", "{{.DefaultRuntime}} {{.CgroupVersion}}"]);
    let (runtime, cgroups) = usual.split_once(' ').expect("two words");
    let mut found = Vec::new();
    for container in docker.containers(instance) {
        let name = format!("{} of {}", container.service(), container.label("io.cotter.app"));
        let reached = in_container(&container.raw, own, runtime, cgroups == "1");
        found.extend(reached.into_iter().map(|what| format!("{name}: {what}")));
    }
    for id in docker.ids("network", instance) {
        let shown = inspected(docker, "network", &id);
        found.extend(
            harmless::network(&shown).iter().map(|what| format!("network {}: {what}", shown["Name"])),
        );
    }
    for id in docker.ids("volume", instance) {
        let shown = inspected(docker, "volume", &id);
        let reached = harmless::volume(shown["Driver"].as_str().unwrap_or_default(), &shown["Options"]);
        found.extend(reached.iter().map(|what| format!("volume {id}: {what}")));
    }
    found
}

fn inspected(docker: &Docker, kind: &str, id: &str) -> Value {
    let list: Value = serde_json::from_str(&docker.run(&[kind, "inspect", id])).expect("inspect prints JSON");
    list[0].clone()
}

fn in_container(raw: &Value, own: &str, runtime: &str, is_v1: bool) -> Vec<String> {
    let mut host = raw["HostConfig"].clone();
    // Without namespaces of control groups (v1) every container has the host's.
    if is_v1 && host["CgroupnsMode"] == "host" {
        host["CgroupnsMode"] = Value::Null;
    }
    let is_own = |source: &str| source.starts_with(own) && source.contains("/services/");
    // What is asked for is seen below as what became of it.
    if let Some(binds) = host["Binds"].as_array_mut() {
        binds.retain(|bind| !is_own(bind.as_str().unwrap_or_default()));
    }
    let mut found = harmless::host_config(&host, runtime);
    for field in ["MaskedPaths", "ReadonlyPaths"] {
        if host[field].as_array().is_none_or(Vec::is_empty) {
            found.push(format!("{field} is {}", host[field]));
        }
    }
    for mount in raw["Mounts"].as_array().into_iter().flatten() {
        let is_harmless = match mount["Type"].as_str().unwrap_or_default() {
            "tmpfs" => true,
            "volume" => mount["Driver"] == "local",
            "bind" => is_own(mount["Source"].as_str().unwrap_or_default()),
            _ => false,
        };
        if !is_harmless {
            found.push(format!("it mounts {mount}"));
        }
    }
    found
}
