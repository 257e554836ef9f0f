//! What a release's author means for a container alone, and an engine that quotes it.

use super::*;

/// Release 2, whose `web` mounts a share of another machine that cannot be mounted.
fn with_share() -> Target {
    let mut target = target(2);
    let TargetApp::Wanted(wanted) = target.apps.get_mut(&app_id("app")).unwrap() else { unreachable!() };
    let release = wanted.release.as_mut().unwrap();
    let options = [("type", "cifs"), ("device", "//nas/share"), ("o", "username=joe,password=hunter2")];
    let driver_opts = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let share = VolumeName::parse("share").unwrap();
    release.volumes.insert(share.clone(), VolumeSpec { driver_opts, ..VolumeSpec::default() });
    let web = release.services.get_mut(&ServiceName::parse("web").unwrap()).unwrap();
    web.environment.insert("PASSWORD".to_owned(), "hunter3".to_owned());
    let (target_path, options) = ("/share".to_owned(), MountOptions::default());
    web.mounts.push(Mount {
        source: MountSource::Volume(share),
        target: target_path,
        is_read_only: false,
        options,
    });
    target
}

#[tokio::test(start_paused = true)]
async fn it_gets_into_no_report_no_event_and_no_word_of_the_history() {
    let lab = Lab::new();
    lab.deliver(target(1));
    lab.pass(20).await;
    lab.deliver(with_share());
    let mut shown = String::new();
    // While it is tried again, when it is given up, and in a rollback.
    for _ in 0..40 {
        lab.pass(10).await;
        shown += &format!("{:?}\n{:?}\n", *lab.report.borrow(), *lab.events.borrow());
    }
    assert!(shown.contains("data: (secret): no such device"), "the engine quoted it: {shown}");
    assert_eq!(lab.runs().await, "db@1 web@1", "and the device went back");
    let page = lab.notebook.0.lock().unwrap();
    shown += &format!("{:?}", page.ledger);
    for secret in ["hunter", "username=", "nas/share", "joe"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}
