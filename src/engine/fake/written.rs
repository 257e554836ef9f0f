//! What the containers of the fake engine write.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use crate::engine::{EngineError, FollowedLog};
use crate::model::{ContainerId, LogLine, LogTime};

/// The logs of all containers, and how many readers were opened.
#[derive(Debug)]
pub(super) struct Written {
    logs: Mutex<BTreeMap<ContainerId, Log>>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Log {
    lines: Vec<LogLine>,
    opened: usize,
    /// Changes when the engine ends all readers.
    ends: usize,
    /// What the engine says when it is opened.
    refusal: Option<&'static str>,
}

impl Default for Written {
    fn default() -> Self {
        Self { logs: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Written {
    fn with<T>(&self, container: &ContainerId, act: impl FnOnce(&mut Log) -> T) -> T {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        act(logs.entry(container.clone()).or_default())
    }

    fn notify(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    pub(super) fn write(&self, container: &ContainerId, line: LogLine) {
        self.with(container, |log| log.lines.push(line));
        self.notify();
    }

    pub(super) fn end(&self, container: &ContainerId) {
        self.with(container, |log| log.ends += 1);
        self.notify();
    }

    pub(super) fn refuse(&self, container: &ContainerId, message: &'static str) {
        self.with(container, |log| log.refusal = Some(message));
    }

    pub(super) fn opened(&self, container: &ContainerId) -> usize {
        self.with(container, |log| log.opened)
    }

    pub(super) fn follow(
        self: &Arc<Self>,
        container: &ContainerId,
        since: Option<LogTime>,
        tail: u32,
    ) -> Result<FollowedLog, EngineError> {
        let (next, ends, refusal) = self.with(container, |log| {
            log.opened += 1;
            (log.lines.len().saturating_sub(tail as usize), log.ends, log.refusal)
        });
        if let Some(message) = refusal {
            return Err(EngineError::Refused { call: "logs", status: 500, message: message.to_owned() });
        }
        let (written, container) = (Arc::clone(self), container.clone());
        let begin = (written, container, next, self.changed.subscribe());
        let lines = stream::unfold(begin, move |(written, container, mut next, mut changed)| async move {
            loop {
                changed.borrow_and_update();
                let (line, is_over) =
                    written.with(&container, |log| (log.lines.get(next).cloned(), log.ends != ends));
                match line {
                    Some(line) => {
                        next += 1;
                        if since.is_none_or(|since| line.at >= since) {
                            return Some((Ok(line), (written, container, next, changed)));
                        }
                    }
                    None if is_over => return None,
                    None => changed.changed().await.ok()?,
                }
            }
        });
        Ok(lines.boxed())
    }
}
