//! The host and the registries, as the reconciler asks them.

use std::time::Duration;

use crate::host;
use crate::model::{Clock, FileLock, HeldPort, ImageRef, ServiceName, Weight, Window, WindowState};
use crate::reconcile::{Surroundings, Unweighed};

pub(super) struct Host;

impl Surroundings for Host {
    fn prepare(&self, _: u64, _: &ServiceName) -> Result<(), String> {
        Ok(())
    }
    fn lock(&self, _: u64, _: &ServiceName) -> Option<FileLock> {
        None
    }
    fn take_locks(&self, _: u64, _: &[ServiceName]) -> Result<(), String> {
        Ok(())
    }
    fn has_own_locks(&self, _: u64) -> bool {
        false
    }
    fn release_locks(&self, _: u64) {}
    fn has_handed_over(&self, _: u64, _: &ServiceName) -> bool {
        false
    }
    fn forget_hand_over(&self, _: u64, _: &ServiceName) {}
    fn window(&self, _: &Window) -> WindowState {
        WindowState::Open
    }
    fn clock(&self, _: Option<&str>) -> Clock {
        Clock::Trusted
    }
    fn now(&self) -> String {
        host::time_in(Duration::ZERO)
    }
    fn uptime(&self) -> Duration {
        Duration::ZERO
    }
    fn free(&self, _: &str) -> Option<u64> {
        None
    }
    fn listeners(&self) -> Vec<HeldPort> {
        Vec::new()
    }
    fn break_locks(&self, _: u64) {}
    async fn weigh(&self, _: &ImageRef, _: &str) -> Result<Weight, Unweighed> {
        Ok(Weight::default())
    }
}
