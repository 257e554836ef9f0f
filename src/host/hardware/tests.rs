use std::fs;

use super::*;

/// A machine of these files. It ends with the folder.
fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let machine = Machine { root: folder.path().to_owned(), default_address: || None, before: None };
    (folder, machine)
}

fn versions(os_release: &str) -> (Option<String>, Option<String>) {
    let (_folder, machine) = machine(&[("etc/os-release", os_release)]);
    let is = machine.hardware();
    (is.os_version, is.os_variant)
}

#[test]
fn the_version_of_the_system_is_one_with_which_a_device_can_be_moved() {
    for (text, version) in [
        (
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n",
            Some("12.0.0+debian"),
        ),
        ("ID=ubuntu\nVERSION_ID=\"24.04\"\n", Some("24.4.0+ubuntu")),
        ("ID=alpine\nVERSION_ID=3.19.1\n", Some("3.19.1+alpine")),
        ("ID=\"opensuse-leap\"\nVERSION_ID=\"15.5\"\n", Some("15.5.0+opensuse-leap")),
        ("ID='fedora'\nVERSION_ID='41_beta.x'\n", None),
        ("ID=\"amzn\"\nVERSION_ID=\"2\"\n", None),
        ("ID=arch\n", None),
        ("VERSION_ID=12\n", None),
        ("ID=(prod)\u{202e}\nVERSION_ID=99999999999999999999999\n", None),
        ("ID=\u{202e}()\nVERSION_ID=12\n", None),
        ("", None),
    ] {
        assert_eq!(versions(text).0.as_deref(), version, "{text:?}");
    }
    for (variant, reported) in
        [("dev", Some("dev")), ("\"prod\"", Some("prod")), ("container", None), ("", None)]
    {
        assert_eq!(versions(&format!("VARIANT_ID={variant}\n")).1.as_deref(), reported, "{variant}");
    }
}

const ROUTES: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
    eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
    eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
    docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
    br-44619ecbd000\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
    wg0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n\
    eth0\t0000630A\t010200C0\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
    nonsense\n";

const TREE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 4\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
    |-- 192.0.2.0\n /24 link UNICAST\n |-- 192.0.2.7\n /32 host LOCAL\n |-- 192.0.2.255\n /32 link BROADCAST\n\
    |-- 127.0.0.1\n /32 host LOCAL\n |-- 172.17.0.1\n /32 host LOCAL\n |-- 172.18.0.1\n /32 host LOCAL\n\
    |-- 10.1.2.3\n /32 host LOCAL\n |-- 203.0.113.9\n /32 host LOCAL\n |-- 10.99.0.1\n /24 link UNICAST\n\
    |-- not an address\n /32 host LOCAL\n\
    Local:\n |-- 192.0.2.7\n /32 host LOCAL\n";

const V6: &str = "00000000000000000000000000000001 01 80 10 80       lo\n\
    fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n\
    fd000000000000000000000000000020 04 40 00 82     eth0\n\
    20010db8000000000000000000000001 04 40 00 c0     eth0\n\
    fd000000000000000000000000000099 05 40 00 80  docker0\n\
    fd000000000000000000000000000098 05 40 00 80  veth12\n\
    zz 05 40 00 80 eth0\nfd00 04\n";

#[test]
#[cfg(target_endian = "little")]
fn addresses_are_those_of_own_interfaces() {
    let (_folder, machine) =
        machine(&[("proc/net/route", ROUTES), ("proc/net/fib_trie", TREE), ("proc/net/if_inet6", V6)]);
    let found: Vec<_> = machine.hardware().addresses.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["10.1.2.3", "192.0.2.7", "fd00::20"]);
}

#[test]
fn where_the_kernel_lists_none_the_address_of_the_default_route_is_reported() {
    let (_folder, machine) = machine(&[]);
    let own = || Some("192.0.2.1".parse().unwrap());
    let machine = Machine { default_address: own, ..machine };
    assert_eq!(machine.hardware().addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
}

#[test]
fn hardware_addresses_are_those_of_own_ethernet() {
    let net = |name: &str, kind: &str, address: &str| {
        [
            (format!("sys/class/net/{name}/type"), kind.to_owned()),
            (format!("sys/class/net/{name}/address"), address.to_owned()),
        ]
    };
    let mut files: Vec<(String, String)> = [
        net("eth0", "1\n", "dc:a6:32:00:00:01\n"),
        net("wlan0", "1\n", "dc:a6:32:00:00:02\n"),
        net("eth1", "1\n", "dc:a6:32:00:00:03\n"),
        net("lo", "772\n", "00:00:00:00:00:00\n"),
        net("docker0", "1\n", "02:42:00:00:00:01\n"),
        net("veth1", "1\n", "02:42:00:00:00:02\n"),
        net("br-44619ecbd000", "1\n", "02:42:00:00:00:03\n"),
        net("wg0", "65534\n", "\n"),
        net("odd0", "1\n", "dc:a6:32:00:00:zz\n"),
        net("odd1", "1\n", &"f".repeat(100_000)),
        net("odd2", "x\n", "dc:a6:32:00:00:04\n"),
        net("zero", "1\n", "00:00:00:00:00:00\n"),
    ]
    .into_iter()
    .flatten()
    .collect();
    files.push(("sys/class/net/eth1/master".to_owned(), String::new()));
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let (_folder, machine) = machine(&files);
    assert_eq!(machine.hardware().macs, ["DC:A6:32:00:00:01", "DC:A6:32:00:00:02"]);
}

#[test]
fn processors_are_busy_for_what_has_passed_since_the_last_sample() {
    let (folder, mut machine) = machine(&[("proc/stat", "cpu  50 0 0 40 10 0 0 0 7 7\ncpu0 1 1 1 1 1\n")]);
    assert_eq!(machine.load(None).cpu_usage, Some(50), "since the boot");
    let mut then = |text: &str| {
        fs::write(folder.path().join("proc/stat"), text).unwrap();
        machine.load(None).cpu_usage
    };
    assert_eq!(then("cpu  80 0 0 50 20 0 0 0 0 0\n"), Some(60));
    assert_eq!(then("cpu  80 0 0 50 20 0 0 0 0 0\n"), None, "no time has passed");
    for hostile in
        ["", "cpu  1 2\n", "cpu  a b c d e\n", "cpu  18446744073709551615 1 1 1 1\n", "cpu0 1 1 1 1 1\n"]
    {
        assert_eq!(then(hostile), None, "{hostile:?}");
    }
}

#[test]
fn memory_without_what_the_kernel_would_give_up() {
    let of = |text: &str| {
        let (_folder, mut machine) = machine(&[("proc/meminfo", text)]);
        let load = machine.load(None);
        (load.memory_usage, load.memory_total)
    };
    let text = "MemTotal: 1024000 kB\nMemFree: 102400 kB\nMemAvailable: 1 kB\nBuffers: 10240 kB\nCached: 204800 kB\n\
                SReclaimable: 10240 kB\n";
    assert_eq!(of(text), (Some(680), Some(1000)));
    assert_eq!(of("MemTotal: 10240 kB\nMemFree: 999999999 kB\n"), (Some(0), Some(10)));
    for bad in ["", "MemTotal: 1024 kB\n", "MemTotal: -1 kB\nMemFree: 1 kB\n", "MemTotal: 1024\nMemFree: 1\n"]
    {
        assert_eq!(of(bad), (None, None), "{bad:?}");
    }
}

#[test]
fn the_warmest_guess_is_the_zone_of_the_processor() {
    let zones = |zones: &[(&str, &str)]| {
        let files: Vec<_> = (0..)
            .zip(zones)
            .flat_map(|(at, (kind, temp))| {
                let path = |file: &str| format!("sys/class/thermal/thermal_zone{at}/{file}");
                [(path("type"), (*kind).to_owned()), (path("temp"), (*temp).to_owned())]
            })
            .collect();
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let (_folder, mut machine) = machine(&files);
        machine.load(None).cpu_temp
    };
    assert_eq!(zones(&[("gpu-thermal\n", "60000\n"), ("cpu-thermal\n", "48499\n")]), Some(48));
    assert_eq!(zones(&[("acpitz\n", "20000\n"), ("x86_pkg_temp\n", "55500\n")]), Some(56));
    assert_eq!(zones(&[("odd\n", "-1500\n")]), Some(-1));
    assert_eq!(zones(&[("cpu\n", "9999999\n"), ("cpu\n", "x\n"), ("cpu\n", "")]), None);
    assert_eq!(zones(&[]), None);
}

#[test]
fn the_serial_number_and_the_power_supply() {
    for (files, id, is_undervolted) in [
        (&[("proc/device-tree/serial-number", "10000000ABCD\0")][..], Some("10000000abcd"), None),
        (&[("sys/devices/soc0/serial_number", "7\n")], Some("7"), None),
        (&[("proc/device-tree/serial-number", "\u{1b}[31m")], None, None),
        (
            &[("proc/device-tree/serial-number", "\0\0"), ("proc/device-tree/product-sn", "A1\0")],
            Some("a1"),
            None,
        ),
        (
            &[
                ("sys/class/hwmon/hwmon0/name", "rpi_volt\n"),
                ("sys/class/hwmon/hwmon0/in0_lcrit_alarm", "1\n"),
            ],
            None,
            Some(true),
        ),
        (
            &[
                ("sys/class/hwmon/hwmon3/name", "rpi_volt\n"),
                ("sys/class/hwmon/hwmon3/in0_lcrit_alarm", "0\n"),
            ],
            None,
            Some(false),
        ),
        (&[("sys/devices/platform/soc/soc:firmware/get_throttled", "50000\n")], None, Some(true)),
        (&[("sys/devices/platform/soc/soc:firmware/get_throttled", "0x40000\n")], None, Some(false)),
        (&[("sys/devices/platform/soc/soc:firmware/get_throttled", "on fire\n")], None, None),
    ] {
        let (_folder, mut machine) = machine(files);
        assert_eq!(machine.load(None).cpu_id.as_deref(), id, "{files:?}");
        assert_eq!(machine.hardware().is_undervolted, is_undervolted, "{files:?}");
    }
    let long = "1".repeat(65);
    let (_folder, mut machine) = machine(&[("proc/device-tree/serial-number", long.as_str())]);
    assert_eq!(machine.load(None).cpu_id, None);
}

#[test]
fn the_disk_is_that_of_the_engine() {
    let mounts = "22 1 8:1 / / rw - ext4 /dev/mmcblk0p2 rw\n\
                  23 22 8:2 / /var/lib rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                  24 22 8:3 / /var/lib/docker\\040x rw - ext4 /dev/sdb1 rw\n\
                  25 22 0:5 / /run rw - tmpfs tmpfs rw\n\
                  26 22 8:9 / /evil rw - ext4 /dev/\u{1b}[31m rw\nnonsense\n";
    let (_folder, mut machine) = machine(&[("proc/self/mountinfo", mounts)]);
    let mut device = |path: &str| machine.load(Some(Path::new(path))).storage_block_device;
    assert_eq!(device("/var/lib/docker").as_deref(), Some("/dev/sda1"));
    assert_eq!(device("/var/lib/docker x/1").as_deref(), Some("/dev/sdb1"));
    assert_eq!(device("/srv").as_deref(), Some("/dev/mmcblk0p2"));
    assert_eq!(device("/run/engine"), None);
    assert_eq!(device("/evil"), None);
    let load = Machine::default().load(Some(Path::new("/")));
    let (used, total) = (load.storage_usage.unwrap(), load.storage_total.unwrap());
    assert!(used <= total && total > 0, "{used} of {total}");
    assert_eq!(Machine::default().load(Some(Path::new("/no/such/folder"))).storage_total, None);
}

/// Every file is as long as the kernel would never make it.
#[test]
fn endless_files_are_read_in_part() {
    let long = "cpu 1 1 1 1 1 ".repeat(100_000);
    let paths = [
        "etc/os-release",
        "proc/stat",
        "proc/meminfo",
        "proc/net/route",
        "proc/net/fib_trie",
        "proc/net/if_inet6",
    ];
    let files = paths.map(|path| (path, long.as_str()));
    let (_folder, mut machine) = machine(&files);
    let is = (machine.hardware(), machine.load(Some(Path::new("/"))));
    assert_eq!((is.0, is.1.memory_total), (Hardware::default(), None));
}
