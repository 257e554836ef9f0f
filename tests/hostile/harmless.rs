//! What is harmless in what an engine is asked for or shows: bodies of `create`, answers of `inspect`. Everything that
//! is not known to be harmless reaches the host. Pure; the fuzz target `policy` uses it, too.

use serde_json::Value;

/// Fields of `HostConfig`, each with what is harmless; null, empty and zero are harmless in all of them.
const FIELDS: &[(&str, &[&str])] = &[
    ("Annotations", &[]),
    ("BlkioDeviceReadBps", &[]),
    ("BlkioDeviceReadIOps", &[]),
    ("BlkioDeviceWriteBps", &[]),
    ("BlkioDeviceWriteIOps", &[]),
    ("BlkioWeightDevice", &[]),
    ("CapAdd", &[]),
    ("Cgroup", &[]),
    ("CgroupParent", &[]),
    ("CgroupnsMode", &["private"]),
    ("ContainerIDFile", &[]),
    ("CpuRealtimePeriod", &[]),
    ("CpuRealtimeRuntime", &[]),
    ("DeviceCgroupRules", &[]),
    ("DeviceRequests", &[]),
    ("Devices", &[]),
    ("IpcMode", &["private", "shareable", "none"]),
    ("Links", &[]),
    ("OomKillDisable", &["false"]),
    ("PidMode", &[]),
    ("Privileged", &["false"]),
    ("PublishAllPorts", &["false"]),
    ("UTSMode", &[]),
    ("UsernsMode", &[]),
    ("VolumeDriver", &[]),
    ("VolumesFrom", &[]),
];

/// Options of a network that touch nothing of the host.
const NETWORK_OPTIONS: &[&str] = &[
    // The address that a published port has without one of its own, which a release may name for each port.
    "com.docker.network.bridge.host_binding_ipv4",
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.bridge.enable_ip_masquerade",
    // The beginning of an interface's name, inside of the container.
    "com.docker.network.container_iface_prefix",
    "com.docker.network.driver.mtu",
    "com.docker.network.enable_ipv4",
    "com.docker.network.enable_ipv6",
];

/// What of a `HostConfig` reaches the host, in words. `runtime` is the engine's usual one.
pub fn host_config(host: &Value, runtime: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut expect = |field: &str, is_fine: bool| {
        if !is_fine {
            found.push(format!("{field} is {}", host[field]));
        }
    };
    for (field, harmless) in FIELDS {
        let value = &host[field];
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        expect(field, is_nothing(value) || harmless.contains(&text.as_str()));
    }
    let text = |field: &str| host[field].as_str().unwrap_or_default();
    let list = |field: &str| host[field].as_array().cloned().unwrap_or_default();
    expect("Runtime", text("Runtime") == runtime || text("Runtime").is_empty());
    expect("NetworkMode", text("NetworkMode") != "host");
    expect("OomScoreAdj", host["OomScoreAdj"].as_i64().unwrap_or_default() >= 0);
    expect(
        "SecurityOpt",
        list("SecurityOpt").iter().all(|o| takes_nothing_away(o.as_str().unwrap_or_default())),
    );
    let log = host["LogConfig"]["Type"].as_str().unwrap_or_default();
    expect("LogConfig", ["", "local", "json-file", "none"].contains(&log));
    // Without a right of its own a process may run before all others of the host, or keep its memory.
    let limits = list("Ulimits");
    let is_fair =
        |limit: &Value| !["rtprio", "memlock", "nice"].contains(&limit["Name"].as_str().unwrap_or_default());
    expect("Ulimits", limits.iter().all(is_fair));
    expect("Binds", list("Binds").iter().all(|bind| !bind.as_str().unwrap_or_default().starts_with('/')));
    for mount in list("Mounts") {
        if !is_harmless_mount(&mount) {
            found.push(format!("it mounts {mount}"));
        }
    }
    found
}

fn takes_nothing_away(option: &str) -> bool {
    ["no-new-privileges", "no-new-privileges=true", "no-new-privileges:true"].contains(&option)
}

/// A mount as it is asked for.
fn is_harmless_mount(mount: &Value) -> bool {
    let volume = &mount["VolumeOptions"]["DriverConfig"];
    match mount["Type"].as_str() {
        Some("tmpfs") => true,
        Some("volume") => is_nothing(&volume["Options"]) && is_nothing(&volume["Name"]),
        _ => false,
    }
}

/// What a network reaches of the host, as it is asked for or shown.
pub fn network(network: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let driver = network["Driver"].as_str().unwrap_or_default();
    if !["bridge", ""].contains(&driver) {
        found.push(format!("its driver is {driver}"));
    }
    for (option, value) in network["Options"].as_object().into_iter().flatten() {
        if !NETWORK_OPTIONS.contains(&option.as_str()) {
            found.push(format!("its option {option} is {value}"));
        }
    }
    let ipam = &network["IPAM"];
    if !["default", ""].contains(&ipam["Driver"].as_str().unwrap_or_default())
        || !is_nothing(&ipam["Options"])
    {
        found.push(format!("its addresses are given by {ipam}"));
    }
    for config in ipam["Config"].as_array().into_iter().flatten() {
        let subnet = config["Subnet"].as_str().unwrap_or_default();
        if !subnet.is_empty() && !is_private(subnet) {
            found.push(format!("its subnet {subnet} takes addresses of the world from the host"));
        }
    }
    found
}

/// Returns `true` if a subnet lies in a range that is not routed in the internet.
fn is_private(subnet: &str) -> bool {
    let Some((address, bits)) = subnet.split_once('/') else { return false };
    let Ok(bits) = bits.parse::<u8>() else { return false };
    match address.parse() {
        Ok(std::net::IpAddr::V4(address)) => {
            let [a, b, ..] = address.octets();
            (a == 10 && bits >= 8)
                || (a == 172 && (16..32).contains(&b) && bits >= 12)
                || (a == 192 && b == 168 && bits >= 16)
                || (a == 100 && (64..128).contains(&b) && bits >= 10)
        }
        Ok(std::net::IpAddr::V6(address)) => address.segments()[0] & 0xfe00 == 0xfc00 && bits >= 7,
        Err(_) => false,
    }
}

/// What a volume of this driver with these options reaches of the host.
pub fn volume(driver: &str, options: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if !["local", ""].contains(&driver) {
        found.push(format!("its driver is {driver}"));
    }
    let option = |name: &str| options[name].as_str().unwrap_or_default();
    let names: Vec<_> = options.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let is_known =
        |o: &str| ["size", "mode", "uid", "gid", ""].contains(&o.split('=').next().unwrap_or_default());
    let is_tmpfs = option("type") == "tmpfs"
        && names.iter().all(|name| ["type", "device", "o"].contains(name))
        && option("o").split(',').all(is_known);
    if !is_nothing(options) && !is_tmpfs {
        found.push(format!("its options are {options}"));
    }
    found
}

pub fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(_) => false,
    }
}
