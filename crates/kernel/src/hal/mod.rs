//! `Hal*` and what stands below it: hardware, accesses of drivers to it, bus data.

pub(crate) mod access;
pub(crate) mod bus_data;
pub(crate) mod combine;
pub(crate) mod config;
pub(crate) mod dma;
pub mod hardware;
pub(crate) mod late_stores;
mod loose;
mod lost_updates;
pub mod platform;
pub(crate) mod polls;
mod posted;
pub mod promptness;
pub(crate) mod pulled;
#[cfg(test)]
pub(crate) mod rig;
pub(crate) mod stale;
#[cfg(test)]
mod tests;
pub mod writes;

use engine::Flow;
use hardware::{Hardware, Moment};
use platform::{Platform, Promptness};
use writes::Sketch;

use crate::cx::{Cx, Kernel};
use crate::ke::history;
use crate::ke::irql::DISPATCH_LEVEL;
use crate::mm::bus_master::{Reach, Transfer};

/// State of this prefix.
pub struct State {
    /// The devices, ports and lines of the machine.
    pub hardware: Box<dyn Hardware>,
    /// What stands between it and the processors.
    pub platform: Platform,
    /// What the access that is under way leaves to do.
    pub(crate) after: access::After,
    /// What it is to, where cards may go at each.
    touched: Option<loose::Place>,
    pub(crate) polls: polls::Polls,
    /// What drivers have written to devices.
    pub(crate) writes: writes::Writes,
    pub(crate) stale: stale::Stale,
    pub(crate) combining: combine::Combining,
    late_stores: late_stores::LateStores,
    /// What bus masters have done, with no event emitted yet.
    pub(crate) transfers: Vec<Transfer>,
    pub(crate) dma: dma::State,
    /// When cards do what they do by themselves.
    promptness: promptness::Clock,
    lost_updates: lost_updates::LostUpdates,
    pub(crate) pulled: pulled::Pulled,
}

impl State {
    /// On this hardware.
    #[must_use]
    pub fn new(hardware: Box<dyn Hardware>, platform: Platform) -> Self {
        let hardware: Box<dyn Hardware> = match platform.posted {
            0 => hardware,
            takes => Box::new(posted::Posted::new(hardware, takes)),
        };
        Self {
            hardware,
            platform,
            after: access::After::Nothing,
            touched: None,
            polls: polls::Polls::default(),
            writes: writes::Writes::default(),
            stale: stale::Stale::default(),
            combining: combine::Combining::default(),
            late_stores: late_stores::LateStores::default(),
            transfers: Vec::new(),
            dma: dma::State::default(),
            promptness: promptness::Clock::default(),
            lost_updates: lost_updates::LostUpdates::default(),
            pulled: pulled::Pulled::default(),
        }
    }
}

/// The current processor has stored what it keeps: for devices, and for other processors.
///
/// # Errors
/// A verdict if a device refuses it.
#[inline]
pub(crate) fn empty_buffers(cx: &mut Cx<'_>) -> Flow<()> {
    if cx.with(|k| k.hal.keeps_nothing()) {
        return Ok(());
    }
    cx.with(late_stores::drain);
    combine::drain(cx)
}

/// The same as far as the call of an export brings it about.
///
/// # Errors
/// As [`empty_buffers`].
#[inline]
pub(crate) fn empty_buffers_for_call(cx: &mut Cx<'_>, export: &str) -> Flow<()> {
    if cx.with(|k| k.hal.keeps_nothing()) {
        return Ok(());
    }
    cx.with(late_stores::drain);
    combine::before_call(cx, export)
}

impl State {
    /// Whether no processor keeps anything of what it has stored.
    #[inline]
    fn keeps_nothing(&self) -> bool {
        self.combining.is_empty() && self.late_stores.is_empty()
    }
}

impl Kernel {
    /// How often drivers have written to devices.
    #[must_use]
    pub fn register_writes(&self) -> u64 {
        self.hal.writes.count
    }

    /// A sketch of what they have written to which registers.
    #[must_use]
    pub fn registers_written(&self) -> Sketch {
        self.hal.writes.sketch
    }

    /// Asks the hardware for something at a time, at which its bus masters may reach the machine's memory.
    #[inline]
    pub fn hardware<R>(&mut self, now: u64, ask: impl FnOnce(&mut dyn Hardware, &mut Moment<'_>) -> R) -> R {
        self.timed(now, ask).0
    }

    /// The same for an access of a processor: as long as the device keeps it waiting, time passes.
    #[inline]
    pub(crate) fn accesses<R>(
        &mut self,
        now: u64,
        ask: impl FnOnce(&mut dyn Hardware, &mut Moment<'_>) -> R,
    ) -> R {
        let cards = self.hal.platform.cards;
        match cards {
            Promptness::AtAccess(count @ 1..) => promptness::accessed(self, now, count),
            Promptness::AtRoutine(count) if self.level() > DISPATCH_LEVEL => {
                promptness::accessed(self, now, count);
            }
            _ => {}
        }
        let (answer, takes) = self.timed(now, ask);
        if takes != 0 {
            access::wait(self, takes);
        }
        if cards == Promptness::AtAccess(0) {
            promptness::accessed(self, now, 0);
        }
        answer
    }

    /// The answer, and what the access takes beyond the usual.
    #[inline]
    fn timed<R>(&mut self, now: u64, ask: impl FnOnce(&mut dyn Hardware, &mut Moment<'_>) -> R) -> (R, u64) {
        let now =
            if self.hal.platform.cards == Promptness::InTime { now } else { promptness::time(self, now) };
        let hal = &mut self.hal;
        let (mm, transfers) = (&mut self.mm, &mut hal.transfers);
        let mut memory = Reach { engine: self.engine, mm, transfers, dma: &hal.dma };
        let mut at = Moment::new(now, &mut memory);
        let answer = ask(hal.hardware.as_mut(), &mut at);
        (answer, at.takes)
    }

    /// The hardware, for an access to configuration space: writes that are on their way have arrived.
    pub fn configuration(&mut self) -> &mut dyn Hardware {
        history::reads_clock(self);
        self.hardware(self.engine.now(), |hardware, at| hardware.settle(at));
        self.hal.hardware.as_mut()
    }
}
