//! Service specs by hand, each with what its app must find.

/// One service, and what is seen of it.
pub(crate) struct Case {
    pub(crate) why: &'static str,
    /// Compose fields as JSON. `{DIR}` is a folder of the host that may be mounted.
    pub(crate) fields: &'static str,
    /// What the container runs by its shell; empty: what the fields say.
    pub(crate) script: &'static str,
    /// Where in `docker inspect` to look; empty: at what the container writes.
    pub(crate) pointer: &'static str,
    pub(crate) expected: &'static str,
}

/// Functions for the scripts. Limits stand at other places under cgroup v1 and v2.
pub(crate) const PRELUDE: &str = r#"
cd / 2>/dev/null
v2() { [ -e /sys/fs/cgroup/cgroup.controllers ]; }
limit() { if v2; then cat /sys/fs/cgroup/$2; else cat /sys/fs/cgroup/$1; fi; }
cpu() { if v2; then cat /sys/fs/cgroup/cpu.max; else
    echo $(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us) $(cat /sys/fs/cgroup/cpu/cpu.cfs_period_us); fi; }
status() { grep "^$1:" /proc/self/status | cut -f2; }
mounted() { grep " $1 " /proc/mounts | tail -n 1 | cut -d' ' -f4 | tr , '\n' | grep -E "$2" | tr '\n' ' '; }
"#;

/// Seen from inside.
const fn inside(
    why: &'static str,
    fields: &'static str,
    script: &'static str,
    expected: &'static str,
) -> Case {
    Case { why, fields, script, pointer: "", expected }
}

/// What cannot be seen from inside, as the engine tells it.
const fn configured(
    why: &'static str,
    fields: &'static str,
    pointer: &'static str,
    expected: &'static str,
) -> Case {
    Case { why, fields, script: "true", pointer, expected }
}

/// The case whose networks have an order.
pub(crate) const FIRST: &str = "the network that comes first";

pub(crate) const CASES: &[Case] = &[
    // processors
    inside("half a processor", r#"{"cpus": 0.5}"#, "cpu", "50000 100000"),
    inside("a part of one, as text", r#"{"cpus": "0.25"}"#, "cpu", "25000 100000"),
    inside("quota and period", r#"{"cpu_quota": 20000, "cpu_period": 50000}"#, "cpu", "20000 50000"),
    inside("as durations", r#"{"cpu_quota": "15ms", "cpu_period": "60ms"}"#, "cpu", "15000 60000"),
    inside(
        "limits of deploy",
        r#"{"deploy": {"resources": {"limits": {"cpus": "0.75", "memory": "48M", "pids": 33}}}}"#,
        "cpu; limit memory/memory.limit_in_bytes memory.max; limit pids/pids.max pids.max",
        "75000 100000\n50331648\n33",
    ),
    inside(
        "less weight than the usual",
        r#"{"cpu_shares": 128}"#,
        "if v2; then [ $(cat /sys/fs/cgroup/cpu.weight) -lt 100 ] && echo less; \
         else [ $(cat /sys/fs/cgroup/cpu/cpu.shares) = 128 ] && echo less; fi",
        "less",
    ),
    inside("one processor only", r#"{"cpuset": "0"}"#, "status Cpus_allowed_list", "0"),
    configured(
        "slow writing",
        r#"{"blkio_config": {"device_write_bps": [{"path": "{DISK}", "rate": "1mb"}]}}"#,
        "/HostConfig/BlkioDeviceWriteBps",
        "[{\"Path\":\"{DISK}\",\"Rate\":1048576}]",
    ),
    // memory and processes
    inside("memory", r#"{"mem_limit": "64m"}"#, "limit memory/memory.limit_in_bytes memory.max", "67108864"),
    inside(
        "memory in odd words",
        r#"{"mem_limit": "0.03125gb"}"#,
        "limit memory/memory.limit_in_bytes memory.max",
        "33554432",
    ),
    inside(
        "memory that is left to it",
        r#"{"mem_reservation": "32m"}"#,
        "limit memory/memory.soft_limit_in_bytes memory.low",
        "33554432",
    ),
    inside(
        "swap beside memory",
        r#"{"mem_limit": "64m", "memswap_limit": "96m"}"#,
        "if v2; then echo $(($(cat /sys/fs/cgroup/memory.swap.max) + 67108864)); \
         else cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes; fi",
        "100663296",
    ),
    configured("swappiness", r#"{"mem_swappiness": 10}"#, "/HostConfig/MemorySwappiness", "10"),
    configured(
        "no kill for want of memory",
        r#"{"oom_kill_disable": true, "mem_limit": "64m"}"#,
        "/HostConfig/OomKillDisable",
        "true",
    ),
    inside("killed first", r#"{"oom_score_adj": 500}"#, "cat /proc/self/oom_score_adj", "500"),
    inside("few processes", r#"{"pids_limit": 42}"#, "limit pids/pids.max pids.max", "42"),
    inside("shared memory", r#"{"shm_size": "1m"}"#, "mounted /dev/shm size=", "size=1024k"),
    inside("large shared memory", r#"{"shm_size": 134217728}"#, "mounted /dev/shm size=", "size=131072k"),
    inside(
        "limits of processes",
        r#"{"ulimits": {"nofile": {"soft": 1000, "hard": 2000}, "core": 0, "nproc": 300}}"#,
        "ulimit -n; ulimit -Hn; ulimit -c; grep 'Max processes' /proc/self/limits | tr -s ' ' | cut -d' ' -f3",
        "1000\n2000\n0\n300",
    ),
    // users, groups, capabilities
    inside("a user by number", r#"{"user": "1000:44"}"#, "id -u; id -g", "1000\n44"),
    inside("a number that is no text", r#"{"user": 1000}"#, "id -u", "1000"),
    inside("a user by name", r#"{"user": "app"}"#, "id -u; id -g", "1000\n1000"),
    inside(
        "more groups",
        r#"{"user": "app", "group_add": ["video", 77]}"#,
        "id -G | tr ' ' '\\n' | sort -n",
        "44\n77\n1000",
    ),
    inside("no capability", r#"{"cap_drop": ["ALL"]}"#, "status CapEff", "0000000000000000"),
    inside(
        "one capability",
        r#"{"cap_drop": ["all"], "cap_add": ["CAP_NET_ADMIN"]}"#,
        "status CapEff",
        "0000000000001000",
    ),
    inside("one less", r#"{"cap_drop": ["CHOWN"]}"#, "status CapEff", "00000000a80425fa"),
    inside("no new privileges", r#"{"security_opt": ["no-new-privileges:true"]}"#, "status NoNewPrivs", "1"),
    inside("no filter of calls", r#"{"security_opt": ["seccomp:unconfined"]}"#, "status Seccomp", "0"),
    inside("the usual filter", r#"{"security_opt": ["label=disable"]}"#, "status Seccomp", "2"),
    inside(
        "a filter of its own",
        r#"{"security_opt": ["seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"mkdir\",\"mkdirat\"],\"action\":\"SCMP_ACT_ERRNO\"}]}"]}"#,
        "mkdir /tmp/x 2>/dev/null || echo refused; status Seccomp",
        "refused\n2",
    ),
    inside(
        "no hidden paths",
        r#"{"security_opt": ["systempaths=unconfined"]}"#,
        "grep -c ' /proc/' /proc/mounts",
        "0",
    ),
    inside(
        "a root that is not written",
        r#"{"read_only": true}"#,
        "touch /x 2>/dev/null || echo refused",
        "refused",
    ),
    // namespaces
    inside("the host's shared memory", r#"{"ipc": "host"}"#, "readlink /proc/self/ns/ipc", "{HOST_IPC}"),
    inside("no shared memory", r#"{"ipc": "none"}"#, "grep -c ' /dev/shm ' /proc/mounts", "0"),
    configured(
        "memory that others may share",
        r#"{"ipc": "shareable"}"#,
        "/HostConfig/IpcMode",
        "\"shareable\"",
    ),
    inside("the host's processes", r#"{"pid": "host"}"#, "readlink /proc/self/ns/pid", "{HOST_PID}"),
    inside("the host's name", r#"{"uts": "host"}"#, "readlink /proc/self/ns/uts", "{HOST_UTS}"),
    inside("the host's network", r#"{"network_mode": "host"}"#, "readlink /proc/self/ns/net", "{HOST_NET}"),
    configured("the host's users", r#"{"userns_mode": "host"}"#, "/HostConfig/UsernsMode", "\"host\""),
    inside(
        "groups of limits of its own",
        r#"{"cgroup": "private"}"#,
        "cut -d: -f3 /proc/self/cgroup | sort -u",
        "/",
    ),
    inside("a first process that reaps", r#"{"init": true}"#, "cat /proc/1/comm", "docker-init"),
    inside("and none", r#"{"init": false}"#, "cat /proc/1/comm; true", "busybox"),
    configured("a runtime", r#"{"runtime": "runc"}"#, "/HostConfig/Runtime", "\"runc\""),
    configured(
        "kinds of devices",
        r#"{"device_cgroup_rules": ["c 188:* rwm"]}"#,
        "/HostConfig/DeviceCgroupRules",
        "[\"c 188:* rwm\"]",
    ),
    inside(
        "a device",
        r#"{"devices": ["/dev/kmsg:/dev/log0:r"]}"#,
        "stat -c '%F %t:%T' /dev/log0",
        "character special file 1:b",
    ),
    inside(
        "a device in long form",
        r#"{"devices": [{"source": "/dev/full", "target": "/dev/brim", "permissions": "rw"}]}"#,
        "echo x 2>/dev/null >/dev/brim || echo full",
        "full",
    ),
    inside(
        "settings of the kernel",
        r#"{"sysctls": {"net.core.somaxconn": 256, "net.ipv4.ip_default_ttl": "99"}}"#,
        "cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/ip_default_ttl",
        "256\n99",
    ),
    inside("as a list", r#"{"sysctls": ["kernel.msgmax=9000"]}"#, "cat /proc/sys/kernel/msgmax", "9000"),
    // names
    inside(
        "a name",
        r#"{"hostname": "kitchen"}"#,
        "hostname; cat /proc/sys/kernel/hostname",
        "kitchen\nkitchen",
    ),
    inside(
        "a domain",
        r#"{"hostname": "kitchen", "domainname": "home.lan"}"#,
        "cat /proc/sys/kernel/domainname",
        "home.lan",
    ),
    inside(
        "name servers, in their order",
        r#"{"network_mode": "bridge", "dns": ["9.9.9.9", "1.1.1.1"]}"#,
        "grep nameserver /etc/resolv.conf",
        "nameserver 9.9.9.9\nnameserver 1.1.1.1",
    ),
    inside(
        "how names are completed",
        r#"{"network_mode": "bridge", "dns": "9.9.9.9", "dns_search": ["a.lan", "b.lan"], "dns_opt": ["ndots:2"]}"#,
        "grep -E 'search|options' /etc/resolv.conf",
        "search a.lan b.lan\noptions ndots:2",
    ),
    inside(
        "names of others",
        r#"{"extra_hosts": ["printer=192.0.2.9", "scanner:2001:db8::9"], "network_mode": "bridge"}"#,
        "grep -E 'printer|scanner' /etc/hosts | tr '\\t' ' ' | sort",
        "192.0.2.9 printer\n2001:db8::9 scanner",
    ),
    // networks
    inside("no network", r#"{"network_mode": "none"}"#, "ls /sys/class/net", "lo"),
    inside(
        "an address of its own",
        r#"{"networks": {"ranged": {"ipv4_address": "10.213.{THIRD}.20"}}}"#,
        "ip -4 -o addr show eth0 | tr -s ' ' | cut -d' ' -f4; ip route | grep default | cut -d' ' -f3",
        "10.213.{THIRD}.20/24\n10.213.{THIRD}.1",
    ),
    inside(
        "an address of the range, and not that of another",
        r#"{"networks": ["ranged"]}"#,
        "ip -4 -o addr show eth0 | tr -s ' ' | cut -d' ' -f4 | cut -d/ -f1 | cut -d. -f4 | \
         { read n; [ $n -gt 130 ] && echo within; }",
        "within",
    ),
    inside(
        FIRST,
        r#"{"networks": {"inner": null, "other": {"priority": 10}, "ranged": {"priority": 5}}}"#,
        "ls -d /sys/class/net/eth* | wc -l; cat /sys/class/net/eth*/mtu | sort -u",
        "3\n1400\n1500",
    ),
    inside(
        "an address of the link",
        r#"{"networks": {"other": {"link_local_ips": ["169.254.77.7"]}}}"#,
        "ip -4 -o addr show eth0 | grep -c 169.254.77.7",
        "1",
    ),
    inside(
        "the address of its link",
        r#"{"networks": ["other"], "mac_address": "02-42-AC-11-65-43"}"#,
        "cat /sys/class/net/eth0/address",
        "02:42:ac:11:65:43",
    ),
    configured(
        "ports in long form",
        r#"{"networks": ["other"], "ports": [{"target": 80, "published": "", "host_ip": "127.0.0.1", "protocol": "udp", "mode": "host"}]}"#,
        "/HostConfig/PortBindings",
        "{\"80/udp\":[{\"HostIp\":\"127.0.0.1\",\"HostPort\":\"\"}]}",
    ),
    // mounts
    inside(
        "a volume begins with what the image has",
        r#"{"volumes": ["seeds:/seeded"]}"#,
        "ls /seeded",
        "seed",
    ),
    inside("and does not", r#"{"volumes": ["empty:/seeded:nocopy"]}"#, "ls /seeded | wc -l", "0"),
    inside(
        "nor in long form",
        r#"{"volumes": [{"type": "volume", "source": "bare", "target": "/seeded", "volume": {"nocopy": true}}]}"#,
        "ls /seeded | wc -l",
        "0",
    ),
    inside(
        "a volume without a name",
        r#"{"volumes": ["/seeded"]}"#,
        "ls /seeded; mounted /seeded '^rw$'",
        "seed\nrw",
    ),
    inside(
        "a volume that is only read",
        r#"{"volumes": ["data:/data:ro"]}"#,
        "touch /data/x 2>/dev/null || echo refused",
        "refused",
    ),
    inside(
        "the same in long form",
        r#"{"volumes": [{"source": "data", "target": "/data", "read_only": true}], "environment": {"LONG": "1"}}"#,
        "touch /data/x 2>/dev/null || echo refused; mounted /data '^ro$'",
        "refused\nro",
    ),
    inside(
        "a volume with options",
        r#"{"volumes": ["small:/small"]}"#,
        "mounted /small 'size|uid'; stat -c %u /small",
        "size=1024k uid=1000 1000",
    ),
    inside(
        "a tmpfs with options",
        r#"{"tmpfs": "/t:size=2m,mode=1770,uid=1000,noexec"}"#,
        "mounted /t 'size|mode|uid=|^noexec'; stat -c %a /t",
        "noexec size=2048k mode=1770 uid=1000 1770",
    ),
    inside(
        "two of them",
        r#"{"tmpfs": ["/a:ro", "/b:size=64k"]}"#,
        "mounted /a '^ro$'; mounted /b size",
        "ro size=64k",
    ),
    inside(
        "a tmpfs in long form",
        r#"{"volumes": [{"type": "tmpfs", "target": "/t", "tmpfs": {"size": "1m", "mode": 448}}]}"#,
        "mounted /t size; stat -c %a /t",
        "size=1024k 700",
    ),
    inside(
        "a path of the host",
        r#"{"volumes": ["{DIR}/shared:/shared:ro"]}"#,
        "cat /shared/greeting; touch /shared/x 2>/dev/null || echo refused",
        "hello from the host\nrefused",
    ),
    inside(
        "the same in long form",
        r#"{"volumes": [{"type": "bind", "source": "{DIR}/shared", "target": "/shared", "bind": {"create_host_path": false}}]}"#,
        "cat /shared/greeting",
        "hello from the host",
    ),
    inside(
        "a path of the host that is made",
        r#"{"volumes": ["{DIR}/fresh/deep:/fresh"]}"#,
        "ls -d /fresh",
        "/fresh",
    ),
    // what runs
    inside(
        "files of the release",
        r#"{"configs": [{"source": "c", "target": "/etc/deep/c", "content": "port 80\n"}, {"source": "s", "target": "/run/secrets/s", "content": "x", "mode": "0400", "uid": "7"}]}"#,
        "cat /etc/deep/c; stat -c '%a %u' /etc/deep/c /run/secrets/s",
        "port 80\n444 0\n400 7",
    ),
    inside(
        "an environment of all kinds",
        r#"{"environment": {"N": 5, "B": true, "SPACE": " a  b ", "QUOTE": "it's \"x\"", "DOLLAR": "$HOME", "LINES": "a\nb", "U": "é→", "EMPTY": ""}}"#,
        r#"printf '%s|' "$N" "$B" "$SPACE" "$QUOTE" "$DOLLAR" "$LINES" "$U" "${EMPTY-unset}""#,
        "5|true| a  b |it's \"x\"|$HOME|a\nb|é→||",
    ),
    Case {
        why: "words of a list",
        fields: r#"{"entrypoint": ["/bin/busybox", "printf", "<%s>"], "command": ["a b", "", "$HOME", "*", "é", 5]}"#,
        script: "",
        pointer: "",
        expected: "<a b><><$HOME><*><é><5>",
    },
    Case {
        why: "words of a text",
        fields: r#"{"entrypoint": "/bin/busybox printf <%s>", "command": "a 'b c' \"d\\\"e\" f\\ g $HOME | h"}"#,
        script: "",
        pointer: "",
        expected: "<a><b c><d\"e><f g><$HOME><|><h>",
    },
    Case {
        why: "a folder to begin in",
        fields: r#"{"entrypoint": ["/bin/busybox", "pwd"], "working_dir": "/seeded"}"#,
        script: "",
        pointer: "",
        expected: "/seeded",
    },
    inside("a terminal", r#"{"tty": true}"#, "[ -t 1 ] && echo terminal", "terminal"),
    inside(
        "none",
        r#"{"tty": "false"}"#,
        "[ -t 1 ] || echo none; readlink /proc/self/fd/0",
        "none\n/dev/null",
    ),
    configured("an open input", r#"{"stdin_open": true}"#, "/Config/OpenStdin", "true"),
    // labels
    inside(
        "a label of features",
        r#"{"labels": {"io.balena.features.dbus": "1"}}"#,
        "ls -d /host/run/dbus",
        "/host/run/dbus",
    ),
    inside(
        "the engine's socket",
        r#"{"labels": {"io.resin.features.balena-socket": "true"}}"#,
        "for s in /var/run/docker.sock /var/run/balena.sock ${DOCKER_HOST#unix://}; do [ -S $s ] && echo $s; done",
        "/var/run/docker.sock\n/var/run/balena.sock\n/host/run/balena-engine.sock",
    ),
    inside(
        "the host's devices as files",
        r#"{"labels": {"io.balena.features.sysfs": "on"}}"#,
        "mounted /sys '^rw$'",
        "rw",
    ),
    inside(
        "a label that says no",
        r#"{"labels": {"io.balena.features.sysfs": "0"}}"#,
        "mounted /sys '^ro$'",
        "ro",
    ),
    // what the engine tells
    configured(
        "logs that rotate",
        r#"{"environment": {"CHATTY": "1"}}"#,
        "/HostConfig/LogConfig",
        "{\"Config\":{\"max-file\":\"3\",\"max-size\":\"10m\"},\"Type\":\"local\"}",
    ),
    configured(
        "logs as the author has them",
        r#"{"logging": {"driver": "json-file", "options": {"max-size": "1m", "max-file": 2}}}"#,
        "/HostConfig/LogConfig",
        "{\"Config\":{\"max-file\":\"2\",\"max-size\":\"1m\"},\"Type\":\"json-file\"}",
    ),
    configured("no logs", r#"{"logging": {"driver": "none"}}"#, "/HostConfig/LogConfig/Type", "\"none\""),
    configured(
        "a signal",
        r#"{"stop_signal": "usr1", "stop_grace_period": "1m30s"}"#,
        "/Config/StopSignal",
        "\"SIGUSR1\"",
    ),
    configured("a time to stop", r#"{"stop_grace_period": "2500ms"}"#, "/Config/StopTimeout", "3"),
    configured(
        "restarts that are counted",
        r#"{"restart": "on-failure:3"}"#,
        "/HostConfig/RestartPolicy",
        "{\"MaximumRetryCount\":3,\"Name\":\"on-failure\"}",
    ),
    configured(
        "restarts of deploy",
        r#"{"restart": null, "deploy": {"restart_policy": {"condition": "on-failure", "max_attempts": 2}}}"#,
        "/HostConfig/RestartPolicy",
        "{\"MaximumRetryCount\":2,\"Name\":\"on-failure\"}",
    ),
    configured(
        "a label of its own",
        r#"{"labels": ["traefik.http.routers.web.rule=Host(`a.lan`)"]}"#,
        "/Config/Labels/traefik.http.routers.web.rule",
        "\"Host(`a.lan`)\"",
    ),
    configured(
        "a probe",
        r#"{"healthcheck": {"test": ["CMD", "true"], "interval": "1m30s", "retries": 7, "start_period": "5s"}}"#,
        "/Config/Healthcheck",
        "{\"Interval\":90000000000,\"Retries\":7,\"StartPeriod\":5000000000,\"Test\":[\"CMD\",\"true\"]}",
    ),
    configured("no probe", r#"{"healthcheck": {"disable": true}}"#, "/Config/Healthcheck/Test", "[\"NONE\"]"),
    configured(
        "a note that an old engine passes over",
        r#"{"annotations": {"a": "b"}}"#,
        "/State/ExitCode",
        "0",
    ),
];
