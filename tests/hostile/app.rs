//! A hostile app: what a container can do to the device from inside, without any right of its own.

use std::time::Duration;

use serde_json::json;

use crate::evil::Evil;
use crate::lab::{Victim, app, busybox, polite, shell, uuid};
use crate::support::{Lab, eventually};

/// A device on which the service `web` runs a script.
fn infected<'lab>(lab: &'lab Lab, cloud: &Evil, script: &str) -> Victim<'lab> {
    let services = json!({ "web": shell(&busybox(lab), script) });
    cloud.rule(polite(&json!({ uuid(1): app(1, "one", &services, &json!({}), &json!({})) })));
    let mut victim = Victim::start(lab, cloud, "till");
    eventually("the app runs", Duration::from_secs(90), || {
        (victim.agent.status_value("/apps/0/update") == "done").then_some(())
    });
    victim.cage.assert_held(victim.agent.program());
    victim
}

/// What the app has written, once it says `word`.
#[track_caller]
fn said(victim: &Victim<'_>, lab: &Lab, word: &str) -> String {
    eventually(word, Duration::from_secs(90), || {
        let log = lab.docker().logs(&victim.agent.service("web")?.id);
        log.contains(word).then_some(log)
    })
}

#[test]
fn a_lock_folder_takes_little_and_goes_with_its_service() {
    let lab = Lab::new("locks");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let script = "for i in 1 2 3 4; do dd if=/dev/zero of=/tmp/balena/fill$i bs=1M count=64 2>/dev/null; done; \
        mkdir -p /tmp/balena/d; i=0; while [ $i -lt 100000 ] && true >/tmp/balena/d/$i; do i=$((i+1)); done 2>/dev/null; \
        echo files $i; echo used $(du -sk /tmp/balena | cut -f1) end";
    let mut victim = infected(&lab, &cloud, script);
    let log = said(&victim, &lab, " end");
    let number = |word: &str| -> u64 {
        let after = log.split(word).nth(1).expect("it was said");
        after.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
    };
    let before = lab.docker().ids("volume", victim.agent.instance());
    assert!(number("used ") <= victim.lock_space.size >> 10, "{log}");
    assert!(number("files ") < victim.lock_space.files, "{log}");
    // An update with the lock folder full goes on all the same.
    let services = json!({ "web": shell(&busybox(&lab), "echo second end") });
    cloud.rule(polite(&json!({ uuid(1): app(1, "two", &services, &json!({}), &json!({})) })));
    eventually("the second release is done", Duration::from_secs(90), || {
        (victim.agent.status_value("/apps/0/current") == "two").then_some(())
    });
    // The service goes, and what it left goes with it.
    cloud.rule(polite(&json!({ uuid(1): app(1, "three", &json!({ "other": shell(&busybox(&lab), "echo third end") }), &json!({}), &json!({})) })));
    eventually("the service is gone", Duration::from_secs(90), || {
        (victim.agent.status_value("/apps/0/current") == "three").then_some(())
    });
    eventually("nothing of it is left on the host", Duration::from_secs(30), || {
        let run = lab.dir().join("till/run");
        let du = std::process::Command::new("du").arg("-sk").arg(&run).output().expect("du runs");
        let used: u64 = String::from_utf8_lossy(&du.stdout).split_whitespace().next()?.parse().ok()?;
        (used < 1024).then_some(())
    });
    let after = lab.docker().ids("volume", victim.agent.instance());
    assert!(after.len() <= before.len(), "{after:?}");
    victim.assert_on_duty(&cloud);
}

#[test]
fn nothing_in_a_lock_folder_is_followed_or_waited_for() {
    let lab = Lab::new("traps");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let secret = lab.file("secret", "must stay");
    let outside = lab.dir().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("kept"), "kept").unwrap();
    // While the agent's own locks stand the links cannot be made. A FIFO and links in all places where the agent looks or writes, a name of 255 bytes, a deep folder, a socket.
    let script = format!(
        "cd /tmp/balena; mkfifo handover-complete resin-kill-me .lock; \
         until ln -s {} updates.lock; do sleep 1; done; until ln -s {} resin-updates.lock; do sleep 1; done; \
         mkdir sub; cd sub; i=0; while [ $i -lt 500 ]; do mkdir d && cd d; i=$((i+1)); done; cd /tmp/balena; \
         ln -s / root; ln -s . self; : >{}; chmod 0 sub; echo trapped end",
        secret.display(),
        outside.display(),
        "n".repeat(255),
    );
    let mut victim = infected(&lab, &cloud, &script);
    said(&victim, &lab, " end");
    // A link with the name of a lock is a lock: the update waits, and says so.
    let services = json!({ "web": shell(&busybox(&lab), "echo second end") });
    cloud.rule(polite(&json!({ uuid(1): app(1, "two", &services, &json!({}), &json!({})) })));
    let why = victim.until_waiting(&uuid(1), &["locked"]);
    assert!(why.contains("updates.lock"), "{why}");
    // An operator passes over it.
    let (is_done, answer) = victim.agent.order(&["update", "--force"]);
    assert!(is_done, "{answer}");
    eventually("the second release is done", Duration::from_secs(90), || {
        (victim.agent.status_value("/apps/0/current") == "two").then_some(())
    });
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "must stay");
    assert_eq!(std::fs::read_to_string(outside.join("kept")).unwrap(), "kept");
    victim.assert_on_duty(&cloud);
}

#[test]
fn an_app_that_writes_without_an_end_hurts_no_reader() {
    let lab = Lab::new("writes");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    // A line of 64 MiB without an end, then many small ones.
    let script = "dd if=/dev/zero bs=1M count=64 2>/dev/null | tr '\\0' x; echo; i=0; \
        while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo written end";
    let mut victim = infected(&lab, &cloud, script);
    let mut readers = Vec::new();
    for _ in 0..8 {
        let socket = victim.agent.status_socket();
        readers.push(std::thread::spawn(move || {
            crate::support::unix_get(&socket, "/v1/logs?service=web&tail=10000").map(|a| a.body.len())
        }));
    }
    for reader in readers {
        let _ = reader.join().expect("no reader panics");
    }
    victim.cage.assert_held(victim.agent.program());
    victim.assert_on_duty(&cloud);
}

#[test]
fn an_app_that_dies_again_and_again_is_waited_for() {
    let lab = Lab::new("dies");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let image = busybox(&lab);
    let mut web = shell(&image, "exit 1");
    web["composition"]["restart"] = json!("always");
    // A probe that prints a megabyte of escape codes.
    let mut sick = shell(&image, "echo up");
    sick["composition"]["healthcheck"] = json!({
        "test": ["CMD", "/busybox", "sh", "-c", "PATH=/bb; i=0; while [ $i -lt 20000 ]; do printf '\\033]0;evil\\007\\033[2J\\n'; i=$((i+1)); done; exit 1"],
        "interval": "1s", "retries": 1, "timeout": "5s",
    });
    cloud.rule(polite(&json!({
        uuid(1): app(1, "one", &json!({ "web": web }), &json!({}), &json!({})),
        uuid(2): app(2, "two", &json!({ "web": sick }), &json!({}), &json!({})),
    })));
    let mut victim = Victim::start(&lab, &cloud, "till");
    eventually("the status shows both as ill", Duration::from_secs(90), || {
        let waiting = victim.agent.status_value("/waiting");
        let ill = |number: usize| {
            let mut of = waiting.as_array().into_iter().flatten().filter(|w| w["app"] == uuid(number));
            of.any(|w| w["reason"] != "downloading" && w["reason"] != "starting")
        };
        (ill(1) && ill(2)).then_some(())
    });
    victim.agent.until_polled(5);
    assert_eq!(crate::terminal::unfit(victim.agent.log().as_bytes()), Vec::<String>::new());
    victim.assert_on_duty(&cloud);
}
