//! Which apps of another cloud continue the apps of this device. Pure.

use std::collections::BTreeMap;

use super::{App, AppId, LocalApp, LocalApps, Target, TargetApp};

impl Target {
    /// Gives apps the names that they have on this device.
    pub fn localize(&mut self, names: &LocalApps) {
        let named = std::mem::take(&mut self.apps).into_iter().map(|(id, mut app)| match names.get(&id) {
            Some(local) => {
                if let TargetApp::Wanted(wanted) = &mut app {
                    (wanted.app.id, wanted.app.number) = (local.id.clone(), local.number);
                }
                (local.id.clone(), app)
            }
            None => (id, app),
        });
        self.apps = named.collect();
    }

    /// Returns the names for the apps of `there`, the target of another cloud, so that each continues an app of this target,
    /// with its containers and volumes: the one with the same uuid, and else the only one that is left.
    ///
    /// # Errors
    ///
    /// In words, if an app of this target has no successor there, or a successor has no release that can run here.
    pub fn successors(&self, there: &Self) -> Result<LocalApps, String> {
        let mut left = BTreeMap::new();
        for (id, app) in &self.apps {
            match app {
                TargetApp::Wanted(wanted) => drop(left.insert(id, &wanted.app)),
                TargetApp::Refused(refused) => {
                    return Err(format!("this device cannot read its present target for {}", refused.name));
                }
            }
        }
        let mut names = LocalApps::new();
        let (same, mut others): (Vec<_>, Vec<_>) =
            there.apps.iter().partition(|(id, _)| left.contains_key(id));
        for (id, app) in same {
            check(app)?;
            names.extend(left.remove(id).and_then(|local| local_name(id, app, local)));
        }
        match (left.len(), others.len()) {
            (0, _) => Ok(names),
            (1, 1) => {
                if let (Some((_, local)), Some((id, app))) = (left.pop_first(), others.pop()) {
                    check(app)?;
                    names.extend(local_name(id, app, local));
                }
                Ok(names)
            }
            _ => {
                let missing: Vec<_> = left.values().map(|app| app.name.clone()).collect();
                Err(format!("it has no app that could continue {}", missing.join(", ")))
            }
        }
    }
}

/// Refuses an app without a release that can run here: the device would stop what it runs.
fn check(app: &TargetApp) -> Result<(), String> {
    match app {
        TargetApp::Wanted(wanted) if wanted.release.is_some() => Ok(()),
        TargetApp::Wanted(wanted) => {
            Err(format!("its fleet {} has no release for this device", wanted.app.name))
        }
        TargetApp::Refused(refused) => {
            Err(format!("this device refuses the release of its fleet {}", refused.name))
        }
    }
}

/// Returns the name of an app on this device, if it is another one than in the cloud.
fn local_name(id: &AppId, app: &TargetApp, local: &App) -> Option<(AppId, LocalApp)> {
    let is_same = *id == local.id && app.number() == Some(local.number);
    (!is_same).then(|| (id.clone(), LocalApp { id: local.id.clone(), number: local.number }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Commit, RefusedApp, Release, TrialSpec, WantedApp};

    /// A target of apps as `uuid/number`, with `-` at the end without a release, and with `!` refused.
    fn target(apps: &[&str]) -> Target {
        let app = |text: &&str| {
            let (id, number) = text.trim_end_matches(['-', '!']).split_once('/').unwrap();
            let id = AppId::parse(id.repeat(32)).unwrap();
            let app = App { id: id.clone(), number: number.parse().unwrap(), name: "shop".into() };
            let release = Release {
                commit: Commit::parse("1111").unwrap(),
                number: 1,
                services: BTreeMap::new(),
                networks: BTreeMap::new(),
                volumes: BTreeMap::new(),
                trial: TrialSpec::default(),
                windows: Default::default(),
            };
            let release = (!text.ends_with('-')).then_some(release);
            let refused = || RefusedApp { name: "shop".into(), release: "1".into(), refusals: Vec::new() };
            let app = match text.ends_with('!') {
                true => TargetApp::Refused(refused()),
                false => TargetApp::Wanted(WantedApp { app, release, warnings: Vec::new() }),
            };
            (id, app)
        };
        Target {
            device_name: "till".into(),
            apps: apps.iter().map(app).collect(),
            poll_interval: None,
            is_lock_overridden: false,
            has_logs: true,
            has_instant_updates: true,
            has_metrics: true,
            has_vpn: true,
            moves_to: None,
            variables: Vec::new(),
            left_alone: Vec::new(),
        }
    }

    /// The apps after a move, as `uuid/number`; or why there is none.
    fn moved(here: &[&str], there: &[&str]) -> String {
        let (here, mut there) = (target(here), target(there));
        match here.successors(&there) {
            Err(why) => why,
            Ok(names) => {
                there.localize(&names);
                let shown = there.apps.iter().map(|(id, app)| {
                    let TargetApp::Wanted(wanted) = app else { return "refused".to_owned() };
                    assert_eq!(*id, wanted.app.id);
                    format!("{}/{}", &id.as_str()[..1], wanted.app.number)
                });
                shown.collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn an_app_goes_on_under_the_names_that_the_engine_knows() {
        for (reason, here, there, expected) in [
            ("the same uuid and number", &["a/1"][..], &["a/1"][..], "a/1"),
            ("another number", &["a/1"], &["a/7"], "a/1"),
            ("another uuid and number", &["a/1"], &["b/7"], "a/1"),
            ("one by its uuid, and the other is left", &["a/1", "b/2"], &["a/5", "c/6"], "a/1 b/2"),
            ("a new app beside it", &["a/1"], &["a/5", "c/6"], "a/1 c/6"),
            ("nothing runs yet", &[], &["c/6"], "c/6"),
            ("which of both?", &["a/1"], &["b/5", "c/6"], "it has no app that could continue shop"),
            ("nothing continues it", &["a/1"], &[], "it has no app that could continue shop"),
            ("no release", &["a/1"], &["b/7-"], "its fleet shop has no release for this device"),
            ("no release, by its uuid", &["a/1"], &["a/7-"], "its fleet shop has no release for this device"),
            ("refused there", &["a/1"], &["b/7!"], "this device refuses the release of its fleet shop"),
            ("refused here", &["a/1!"], &["b/7"], "this device cannot read its present target for shop"),
        ] {
            assert_eq!(moved(here, there), expected, "{reason}");
        }
    }
}
