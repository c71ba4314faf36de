//! `Ps*`: processes and system threads.

pub mod create_notify;
pub(crate) mod information;
pub(crate) mod notify;
pub mod process;
pub(crate) mod quota;
pub(crate) mod system_thread;
pub mod user_image;

use crate::nt::Settings;

pub use process::current_process;

/// State of this prefix.
#[derive(Default)]
pub struct State {
    /// Processes by key; the system's is 0.
    pub(crate) processes: std::collections::BTreeMap<u64, process::Process>,
    last_id: u64,
    /// Notify routines for processes, threads and images.
    pub(crate) notify: notify::State,
    /// The volume of applications' images; 0 before anybody asked.
    image_volume: u64,
    /// What pool is charged to processes.
    pub(crate) quota: quota::State,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let quota = quota::State::new(settings.quota);
        Self { last_id: process::SYSTEM_ID, quota, ..Self::default() }
    }

    /// An id for a process or thread: they share one space, in steps of 4.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 4;
        self.last_id
    }
}
