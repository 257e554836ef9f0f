//! Translates the engine's events into notices. It knows events, and nothing of the containers that exist. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::models::EventMessage;

use crate::model::{AppId, ContainerId, LastEnd, ServiceName};

use super::Notice;
use super::docker_spec::label;

/// The kinds of events that are read. `died` and `remove` are podman's words for two of them.
pub(super) const KINDS: [&str; 10] =
    ["start", "die", "died", "oom", "stop", "destroy", "remove", "pause", "unpause", "health_status"];

/// Reads events in their order. A lost event may hide a restart, but cannot produce a false one.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// podman sends an event for each restart, and not for each stop.
    is_podman: bool,
    /// Containers that ended or were stopped, and have not been started since.
    down: BTreeMap<String, Down>,
}

/// The events of a container since its last start. The event of its stop may come before the one of its end.
#[derive(Debug, Default)]
struct Down {
    has_ended: bool,
    is_stopped: bool,
    /// The kernel killed one of its processes because its memory ran out. This event comes before the end.
    is_out_of_memory: bool,
}

impl Notices {
    pub(super) fn new(is_podman: bool) -> Self {
        Self { is_podman, down: BTreeMap::new() }
    }

    /// Reads an event. Returns `None` if another event says the same.
    pub(super) fn read(&mut self, event: &EventMessage) -> Option<Notice> {
        let action = event.action.as_deref().unwrap_or_default();
        // An action may have details after a colon.
        let is_restart = self.is_podman && action == "restart";
        if !is_restart && !KINDS.contains(&action.split(':').next().unwrap_or_default()) {
            return None;
        }
        let actor = event.actor.as_ref();
        let Some(id) = actor.and_then(|actor| actor.id.as_ref()) else { return Some(Notice::Changed) };
        match action {
            "restart" => {
                self.down.entry(id.clone()).or_default().has_ended = true;
                return None;
            }
            "oom" => {
                self.down.entry(id.clone()).or_default().is_out_of_memory = true;
                return None;
            }
            "die" | "died" => {
                let down = self.down.entry(id.clone()).or_default();
                down.has_ended |= !self.is_podman;
                let is_out_of_memory = std::mem::take(&mut down.is_out_of_memory);
                return Some(ended(event, id, is_out_of_memory).unwrap_or(Notice::Changed));
            }
            "stop" => {
                self.down.entry(id.clone()).or_default().is_stopped = true;
                return None;
            }
            "destroy" | "remove" => drop(self.down.remove(id)),
            "start" => {
                let down = self.down.remove(id).unwrap_or_default();
                if down.has_ended && !down.is_stopped {
                    return Some(restarted(event).unwrap_or(Notice::Changed));
                }
            }
            _ => {}
        }
        Some(Notice::Changed)
    }
}

/// Makes the notice of an end; `None` if the event has no exit code.
fn ended(event: &EventMessage, id: &str, is_out_of_memory: bool) -> Option<Notice> {
    let labels = event.actor.as_ref()?.attributes.as_ref()?;
    // The second one is podman's.
    let code = labels.get("exitCode").or_else(|| labels.get("containerExitCode"))?;
    let end = LastEnd { is_out_of_memory, ..LastEnd::with_code(code.parse().ok()?) };
    Some(Notice::Ended { container: ContainerId::parse(id).ok()?, end })
}

/// The kinds of events that show the end of a container that is being stopped.
pub(super) const ENDING: [&str; 2] = ["kill", "die"];

/// By how much an event may be newer than the clock says, because the two are read one after the other.
const MOMENT: Duration = Duration::from_millis(100);

/// Reads the events of one container that is being stopped since a moment of the engine's clock.
#[derive(Debug)]
pub(super) struct Ending {
    since: Duration,
    is_asked: bool,
}

impl Ending {
    pub(super) fn new(since: Duration) -> Self {
        Self { since, is_asked: false }
    }

    /// Reads the next event, which came `elapsed` after the moment, and returns `true` once the stop has ended the
    /// container's processes. An end without a signal before it does not count, because the engine may be about to
    /// start the container again; neither does an event from outside of this time, after a jump of the clock.
    pub(super) fn read(&mut self, event: &EventMessage, elapsed: Duration) -> bool {
        let at = event.time_nano.and_then(|at| u64::try_from(at).ok()).map(Duration::from_nanos);
        let is_new = at.is_some_and(|at| (self.since..=self.since + elapsed + MOMENT).contains(&at));
        match event.action.as_deref() {
            Some("kill") => self.is_asked = is_new,
            Some("die") => return self.is_asked && is_new,
            _ => {}
        }
        false
    }
}

/// Makes the notice of a restart from the labels of the container; `None` if one is missing or invalid.
fn restarted(event: &EventMessage) -> Option<Notice> {
    let labels = event.actor.as_ref()?.attributes.as_ref()?;
    let app = AppId::parse(labels.get(label::APP)?).ok()?;
    let service = ServiceName::parse(labels.get(label::SERVICE)?).ok()?;
    Some(Notice::Restarted { app, service })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bollard::models::EventActor;

    use super::*;

    /// An event of a service's container. The container has the name of the service.
    fn event(action: &str, service: &str) -> EventMessage {
        let labels = [(label::APP, "0123456789abcdef0123456789abcdef"), (label::SERVICE, service)];
        let attributes: HashMap<_, _> =
            labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let actor = EventActor { id: Some(service.to_owned()), attributes: Some(attributes) };
        EventMessage { action: Some(action.to_owned()), actor: Some(actor), ..EventMessage::default() }
    }

    #[test]
    fn a_restart_is_a_start_after_an_end_without_a_stop() {
        for (why, events, noticed) in [
            ("it is only started", "start web", "changed"),
            ("it crashes and comes back", "start web, die web, start web", "changed, changed, web"),
            ("each time counts", "die web, start web, die web, start web", "changed, web, changed, web"),
            ("it was stopped", "die web, stop web, start web", "changed, changed"),
            (
                "the event of the end comes after that of the stop",
                "stop web, die web, start web",
                "changed, changed",
            ),
            (
                "a stop ends with the next start",
                "stop web, start web, die web, start web",
                "changed, changed, web",
            ),
            ("another one starts", "die web, start db, start web", "changed, changed, web"),
            ("it has gone", "die web, destroy web, start web", "changed, changed, changed"),
            (
                "podman's words",
                "died web, init web, start web, died web, remove web",
                "changed, web, changed, changed",
            ),
            ("it was paused", "pause web, unpause web, start web", "changed, changed, changed"),
            ("its health", "die web, health_status:-healthy web, start web", "changed, changed, web"),
        ] {
            let mut notices = Notices::default();
            let mut seen = Vec::new();
            for word in events.split(", ") {
                let (action, service) = word.split_once(' ').unwrap();
                seen.extend(notices.read(&event(action, service)).map(|notice| match notice {
                    Notice::Changed => "changed".to_owned(),
                    Notice::Restarted { service, .. } => service.to_string(),
                    Notice::Ended { container, end } => format!("{container} {end}"),
                }));
            }
            assert_eq!(seen.join(", "), noticed, "{why}");
            assert!(notices.down.values().all(|down| down.has_ended || down.is_stopped), "{why}");
        }
    }

    #[test]
    fn an_end_is_noticed_with_its_exit_code_and_its_cause() {
        let with = |action: &str, name: &str, code: &str| {
            let mut event = event(action, "web");
            let attributes = event.actor.as_mut().and_then(|actor| actor.attributes.as_mut()).unwrap();
            attributes.insert(name.to_owned(), code.to_owned());
            event
        };
        let container = || ContainerId::parse("web").unwrap();
        let ended = |exit_code, is_out_of_memory| {
            let end = LastEnd { is_out_of_memory, ..LastEnd::with_code(exit_code) };
            Some(Notice::Ended { container: container(), end })
        };
        let mut notices = Notices::default();
        assert_eq!(notices.read(&with("die", "exitCode", "3")), ended(3, false));
        assert_eq!(notices.read(&event("start", "web")).map(|notice| notice == Notice::Changed), Some(false));
        assert_eq!(notices.read(&event("oom", "web")), None);
        assert_eq!(notices.read(&with("die", "exitCode", "137")), ended(137, true));
        assert_eq!(notices.read(&with("die", "exitCode", "137")), ended(137, false), "that was another end");
        assert_eq!(notices.read(&with("die", "exitCode", "many")), Some(Notice::Changed));
        let mut notices = Notices::new(true);
        assert_eq!(notices.read(&with("died", "containerExitCode", "4")), ended(4, false));
    }

    #[test]
    fn an_end_counts_only_after_a_signal_of_this_stop() {
        for (why, events, is_ended) in [
            ("it is stopped", "kill 10.01, die 10.2", true),
            ("it takes its time", "kill 10.01, die 13", true),
            ("a clock that is read a moment later", "kill 10, die 13.05", true),
            ("it ends by itself", "die 10.1", false),
            ("it ends by itself, and is stopped then", "die 10.1, kill 10.2", false),
            ("it is stopped, and not down yet", "kill 10.01", false),
            ("that was another stop", "kill 9, die 9.1", false),
            ("that was another stop, and it ends by itself", "kill 9, die 10.1", false),
            ("that was another stop, before the clock went back", "kill 90, die 90.1", false),
            ("the clock jumps meanwhile", "kill 10.01, die 90", false),
        ] {
            let mut ending = Ending::new(Duration::from_secs(10));
            let ended = events.split(", ").map(|word| {
                let (action, at) = word.split_once(' ').unwrap();
                let at = Duration::from_secs_f64(at.parse().unwrap());
                let time_nano = i64::try_from(at.as_nanos()).ok();
                let event = EventMessage { time_nano, ..event(action, "web") };
                ending.read(&event, Duration::from_secs(3))
            });
            assert_eq!(ended.collect::<Vec<_>>().contains(&true), is_ended, "{why}");
        }
    }

    #[test]
    fn podman_sends_an_event_for_a_restart_and_not_for_each_stop() {
        let mut notices = Notices::new(true);
        let words = ["die", "restart", "init", "start", "die", "cleanup", "start", "died", "remove"];
        let read: Vec<_> = words.iter().filter_map(|word| notices.read(&event(word, "web"))).collect();
        let is_restart = |notice: &Notice| matches!(notice, Notice::Restarted { .. });
        assert_eq!(
            read.iter().map(is_restart).collect::<Vec<_>>(),
            [false, true, false, false, false, false]
        );
        assert!(notices.down.is_empty());
    }

    #[test]
    fn events_without_our_labels_count_as_a_change_and_not_as_a_restart() {
        let mut notices = Notices::default();
        for action in ["die", "start"] {
            let bare = EventMessage {
                actor: Some(EventActor { id: Some("web".to_owned()), attributes: None }),
                ..event(action, "web")
            };
            assert_eq!(notices.read(&bare), Some(Notice::Changed), "{action}");
        }
        assert!(notices.down.is_empty(), "a container that was started again is forgotten");
    }
}
