//! Time: the clock, what is due when, and what drivers read of it.
//!
//! Above `levels`; it runs no routine and switches no thread. What is due waits in [`timer_queue`] until the rooms above take it out: timers
//! and time-outs in `waits`, DPC queues in `irq`. Only `shared_data` names what is above: a driver that polls it makes time pass (`irq::stall`), and
//! its page says how many processor groups and which extended registers there are.
//!
//! The engine counts nanoseconds, one for each driver instruction, and charges the rest. Nothing here is called when time passes: a slice
//! (`sched::slice`) ends at the next deadline, and one comparison with [`timer_queue::TimerQueue::deadline`] says whether it has come nearer.

pub mod clock;
pub(crate) mod shared_data;
pub(crate) mod time;
pub(crate) mod timer_queue;

use timer_queue::TimerQueue;

/// What this room keeps.
#[derive(Default)]
pub(crate) struct State {
    /// Timers and time-outs, and the clock that finds them due.
    timers: TimerQueue,
    /// When and how often `KUSER_SHARED_DATA` was polled lately, and looked at for how long the computer has been running.
    polling: time::Polling,
}

impl State {
    /// What is due when.
    #[inline]
    pub(crate) fn timers(&self) -> &TimerQueue {
        &self.timers
    }

    /// The same, for code that sets and takes out.
    #[inline]
    pub(crate) fn timers_mut(&mut self) -> &mut TimerQueue {
        &mut self.timers
    }

    /// How often drivers have looked how long the computer has been running.
    pub(crate) fn looks_at_uptime(&self) -> u64 {
        self.polling.of_uptime
    }
}
