//! Faults that last: an engine that is down or does not answer, containers that cannot be ended, and registries that are
//! slow or unreachable.

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

    /// Makes the last created container look as if the power failed during its creation.
    pub(super) fn cut_last_short(&mut self) {
        if let Some(id) = self.observed.services.last().map(|seen| seen.container.clone()) {
            self.cut_short(&id);
        }
    }
}

impl Fake {
    /// Makes the registry of an image unreachable.
    pub fn cut_registry(&self, image: &ImageRef) {
        self.inside().unreachable.insert(image.clone());
    }

    /// Sets the time that downloads of an image take.
    pub fn slow(&self, image: &ImageRef, time: Duration) {
        self.inside().slow.insert(image.clone(), time);
    }

    /// Makes the engine refuse a call as invalid every time, as one that can never succeed.
    pub fn refuse_for_good(&self, call: &str) {
        self.inside().wrong.insert(call.to_owned());
    }

    /// Makes every call `verb` for this container fail, as if its process could not be ended.
    pub fn never(&self, verb: &str, id: &ContainerId) {
        self.inside().never.insert(format!("{verb} {id}"));
    }

    /// Makes the registry of an image reachable again.
    pub fn mend_registry(&self, image: &ImageRef) {
        self.inside().unreachable.remove(image);
    }

    /// Makes a container look as if the power failed during its creation.
    pub fn cut_short(&self, id: &ContainerId) {
        self.inside().cut_short(id);
    }

    /// The services that ever had two running containers at once, with the releases of these.
    #[must_use]
    pub fn doubles(&self) -> Vec<String> {
        self.inside().doubles.clone()
    }

    /// Removes all volumes, as a person might do by hand.
    pub fn lose_volumes(&self) {
        self.inside().volumes.clear();
    }

    /// Stops a container and starts it again, as another program might do.
    pub fn restart(&self, id: &ContainerId) {
        let mut inside = self.inside();
        inside.end(id, 0);
        // A container that cannot be started stays down, as on a real engine.
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
        // Streams of events end.
        self.tell();
    }

    /// Starts the engine again. It does not keep containers alive while it is down: those with a restart policy come
    /// back, and the others have ended with code 137.
    pub fn revive(&self) {
        self.inside().come_up();
        self.thaw();
        self.tell();
    }

    /// From now on the engine does not answer, until [`thaw`](Self::thaw).
    pub fn freeze(&self) {
        self.is_frozen.send_replace(true);
    }

    /// Ends a freeze.
    pub fn thaw(&self) {
        self.is_frozen.send_replace(false);
    }

    /// Waits until the engine is frozen.
    pub async fn frozen(&self) {
        // The sender lives as long as the fake.
        let _ = self.is_frozen.subscribe().wait_for(|is_frozen| *is_frozen).await;
    }
}
