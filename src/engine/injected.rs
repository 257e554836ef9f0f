//! What every container gets in addition to what its author wrote: its lock folder, and the environment variables that
//! software made for balena reads. Pure. None of it is part of the spec hash.

use std::path::Path;

use bollard::models::{ContainerCreateBody, HostConfig};

use super::NewContainer;

/// The paths of the lock folder inside a container; the second is the older name.
const FOLDERS: [&str; 2] = ["/tmp/balena", "/tmp/resin"];

/// Adds the lock folder below `services_dir` and the environment to a container about to be created.
/// What its author wrote wins, including a mount at the same path.
pub(super) fn into(body: &mut ContainerCreateBody, services_dir: &Path, new: NewContainer<'_>) {
    let folder = services_dir.join(new.app.number.to_string()).join(new.service.as_str());
    let is_free = |target: &&str| {
        let author = new.spec.mounts.iter().map(|mount| &mount.target).chain(new.spec.tmpfs.keys());
        author.into_iter().all(|taken| taken.trim_end_matches('/') != *target)
    };
    // As binds and not as mounts: the engine creates the missing source of a bind at every start. So containers start
    // after a reboot, when the folders are gone and the agent does not run yet.
    let binds = FOLDERS.into_iter().filter(is_free).map(|target| format!("{}:{target}", folder.display()));
    let host = body.host_config.get_or_insert_with(HostConfig::default);
    host.binds.get_or_insert_default().extend(binds);
    let written = environment(new).into_iter().filter(|(name, _)| !new.spec.environment.contains_key(name));
    body.env.get_or_insert_default().extend(written.map(|(name, value)| format!("{name}={value}")));
}

/// The variables of docs/dev/protocol.md, "Environment of containers", whose values are known here.
fn environment(new: NewContainer<'_>) -> Vec<(String, String)> {
    let handed_over = "/tmp/balena/handover-complete";
    let mut all = vec![
        ("BALENA".to_owned(), "1".to_owned()),
        ("RESIN".to_owned(), "1".to_owned()),
        ("BALENA_SERVICE_HANDOVER_COMPLETE_PATH".to_owned(), handed_over.to_owned()),
        ("RESIN_SERVICE_KILL_ME_PATH".to_owned(), handed_over.to_owned()),
    ];
    for prefix in ["BALENA", "RESIN"] {
        for (name, value) in [
            ("APP_ID", new.app.number.to_string()),
            ("APP_UUID", new.app.id.to_string()),
            ("APP_NAME", new.app.name.clone()),
            ("SERVICE_NAME", new.service.to_string()),
            ("APP_LOCK_PATH", "/tmp/balena/updates.lock".to_owned()),
        ] {
            all.push((format!("{prefix}_{name}"), value));
        }
    }
    // Software reads its user name here. The value of an author who sets another user is kept.
    all.extend(new.introduction.variables.iter().cloned());
    if new.spec.user.is_none() {
        all.push(("USER".to_owned(), "root".to_owned()));
    }
    all
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::engine::sample::Sample;
    use crate::model::{ImageRef, Mount, MountOptions, MountSource, ServiceSpec, SpecHash};

    fn injected(change: impl FnOnce(&mut ServiceSpec)) -> (Vec<String>, Vec<String>) {
        let mut spec =
            ServiceSpec::bare(SpecHash::from_sha256(1, [1; 32]), ImageRef::parse("r.example/a:1").unwrap());
        change(&mut spec);
        let sample = Sample::new("web");
        let env = spec.environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let mut body = ContainerCreateBody { env: Some(env), ..ContainerCreateBody::default() };
        into(&mut body, Path::new("/run/cotter/services"), sample.container(&spec));
        let mut env = body.env.unwrap();
        env.sort();
        (body.host_config.unwrap().binds.unwrap(), env)
    }

    #[test]
    fn software_for_balena_finds_its_variables() {
        let (binds, env) = injected(|_| {});
        assert_eq!(
            binds,
            ["/run/cotter/services/7/web:/tmp/balena", "/run/cotter/services/7/web:/tmp/resin"]
        );
        let expected = [
            "BALENA=1",
            "BALENA_APP_ID=7",
            "BALENA_APP_LOCK_PATH=/tmp/balena/updates.lock",
            "BALENA_APP_NAME=demo",
            "BALENA_APP_UUID=0123456789abcdef0123456789abcdef",
            "BALENA_SERVICE_HANDOVER_COMPLETE_PATH=/tmp/balena/handover-complete",
            "BALENA_SERVICE_NAME=web",
            "RESIN=1",
            "RESIN_APP_ID=7",
            "RESIN_APP_LOCK_PATH=/tmp/balena/updates.lock",
            "RESIN_APP_NAME=demo",
            "RESIN_APP_UUID=0123456789abcdef0123456789abcdef",
            "RESIN_SERVICE_KILL_ME_PATH=/tmp/balena/handover-complete",
            "RESIN_SERVICE_NAME=web",
            "USER=root",
        ];
        assert_eq!(env, expected);
    }

    #[test]
    fn what_the_author_wrote_wins() {
        let (binds, env) = injected(|spec| {
            spec.user = Some("1000".to_owned());
            spec.environment.insert("BALENA".to_owned(), "2".to_owned());
            spec.environment.insert("BALENA_APP_NAME".to_owned(), String::new());
            let source = MountSource::Anonymous;
            spec.mounts.push(Mount {
                source,
                target: "/tmp/balena/".to_owned(),
                is_read_only: false,
                options: MountOptions::default(),
            });
            spec.tmpfs.insert("/tmp".to_owned(), String::new());
        });
        assert_eq!(binds, ["/run/cotter/services/7/web:/tmp/resin"]);
        let of =
            |name: &str| env.iter().filter(|line| line.starts_with(&format!("{name}="))).collect::<Vec<_>>();
        assert_eq!(of("BALENA"), ["BALENA=2"]);
        assert_eq!(of("BALENA_APP_NAME"), ["BALENA_APP_NAME="]);
        assert_eq!(of("BALENA_APP_ID"), ["BALENA_APP_ID=7"]);
        assert_eq!(of("USER"), Vec::<&String>::new());
        let (binds, _) = injected(|spec| drop(spec.tmpfs.insert("/tmp/resin".to_owned(), String::new())));
        assert_eq!(binds, ["/run/cotter/services/7/web:/tmp/balena"]);
    }
}
