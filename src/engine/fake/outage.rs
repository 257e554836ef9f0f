//! What goes wrong for long: an engine that is gone or answers nobody, containers that do not end, and
//! registries that are slow or away.

use std::time::Duration;

use crate::engine::docker_spec;
use crate::model::{ContainerId, ContainerState, ImageRef};

use super::Fake;
use super::inside::Inside;

impl Inside {
    fn cut_short(&mut self, id: &ContainerId) {
        if let Some(name) = self.names.get_mut(id) {
            name.push_str(docker_spec::PARTIAL);
        }
        if let Some(seen) = self.find(id) {
            seen.state = ContainerState::Dead;
        }
    }

    /// Makes the container that was created last look so.
    pub(super) fn cut_last_short(&mut self) {
        if let Some(id) = self.observed.services.last().map(|seen| seen.container.clone()) {
            self.cut_short(&id);
        }
    }
}

impl Fake {
    /// Makes the registry of an image one that does not answer.
    pub fn cut_registry(&self, image: &ImageRef) {
        self.inside().unreachable.insert(image.clone());
    }

    /// Makes downloads of an image take so long.
    pub fn slow(&self, image: &ImageRef, time: Duration) {
        self.inside().slow.insert(image.clone(), time);
    }

    /// Makes every call `verb` for this container fail, as for a process that cannot be ended.
    pub fn refuse_for_good(&self, call: &str) {
        self.inside().wrong.insert(call.to_owned());
    }

    pub fn never(&self, verb: &str, id: &ContainerId) {
        self.inside().never.insert(format!("{verb} {id}"));
    }

    /// Makes the registry of an image one that answers again.
    pub fn mend_registry(&self, image: &ImageRef) {
        self.inside().unreachable.remove(image);
    }

    /// Makes a container look as if the power went while it was created.
    pub fn cut_short(&self, id: &ContainerId) {
        self.inside().cut_short(id);
    }

    /// Services of which two containers ever ran at once, with the releases they were created for.
    #[must_use]
    pub fn doubles(&self) -> Vec<String> {
        self.inside().doubles.clone()
    }

    /// Takes all volumes away, as somebody does by hand.
    pub fn lose_volumes(&self) {
        self.inside().volumes.clear();
    }

    /// Stops a container and starts it again, as somebody else does behind our back.
    pub fn restart(&self, id: &ContainerId) {
        let mut inside = self.inside();
        inside.end(id, 0);
        // One that cannot be started stays down, as it does on a real engine.
        let _ = inside.start(id);
        drop(inside);
        self.tell();
    }

    /// Ends the engine as SIGKILL does, until [`revive`](Self::revive).
    pub fn go_down(&self) {
        let mut inside = self.inside();
        inside.is_down = true;
        inside.late.clear();
        drop(inside);
        self.thaw();
        // Whoever listens to its events is cut off.
        self.tell();
    }

    /// Starts the engine, as one that does not keep containers alive without it: those that ran and that
    /// it restarts come back, the others have ended with code 137.
    pub fn revive(&self) {
        self.inside().come_up();
        self.thaw();
        self.tell();
    }

    /// From now on the engine answers nobody, until [`thaw`](Self::thaw).
    pub fn freeze(&self) {
        self.is_frozen.send_replace(true);
    }

    /// Ends a freeze.
    pub fn thaw(&self) {
        self.is_frozen.send_replace(false);
    }

    /// Returns once the engine is frozen.
    pub async fn frozen(&self) {
        // The sender lives as long as this.
        let _ = self.is_frozen.subscribe().wait_for(|is_frozen| *is_frozen).await;
    }
}
