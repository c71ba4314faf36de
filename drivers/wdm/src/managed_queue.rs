//! A queue of requests whose way to the card Plug and Play and power open and close.
//!
//! Pages: *Holding Incoming IRPs When A Device Is Paused*, *Stopping a Device to Rebalance Resources*. Three things close the way,
//! independently: the device is not started or goes, it is to be stopped, it has no power. In the first case requests fail, in the others
//! they wait. It sends no power requests and knows no card: its driver says what changed, and takes requests out.

use crate::Result;
use crate::device::Device;
use crate::event::Event;
use crate::irp::{FileId, PendingIrp};
use crate::irql::{AtMostDispatch, Dispatch, Passive};
use crate::lock::SpinLock;
use crate::pool::Tag;
use crate::queue::{IrpQueue, Place, Refused};

/// What becomes of a request that arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// It goes to the card.
    Open,
    /// It waits: the card will be back.
    Held,
    /// It fails: there is no card.
    Closed,
}

/// A request that need not wait any more.
#[must_use]
pub enum Next {
    /// It goes to the card.
    Go(PendingIrp),
    /// There is no card: it is to be failed.
    Fail(PendingIrp),
}

struct Gate {
    /// The device is not started, or goes, or its card is gone.
    closed: bool,
    /// The device is to be stopped or removed, or is stopped.
    paused: bool,
    /// The device is not in D0.
    asleep: bool,
    /// Of a serial queue: a request is on the card.
    busy: bool,
}

impl Gate {
    const fn way(&self) -> Way {
        match self {
            Self { closed: true, .. } => Way::Closed,
            Self { paused: false, asleep: false, .. } => Way::Open,
            _ => Way::Held,
        }
    }
}

/// Requests that wait while their device is stopped or asleep, first come first served. A request that is cancelled leaves by itself.
///
/// A serial queue gives one at a time, the next when its driver says that the card is done; a parallel one gives all.
///
/// ```
/// use wdm::{AtMostDispatch, Device, ManagedQueue, Next, NtStatus, PendingIrp};
///
/// struct Card {
///     waiting: ManagedQueue, // serial
/// }
///
/// fn arrived<L: AtMostDispatch>(device: &Device<Card>, irp: PendingIrp, level: &mut L) {
///     match device.hold(irp, |card| &card.waiting, level) {
///         Ok(()) => settle(device, level),
///         Err((irp, why)) => irp.complete(why.status(), 0, level),
///     }
/// }
///
/// /// After a request arrived or ended, and after the way has changed.
/// fn settle<L: AtMostDispatch>(device: &Device<Card>, level: &mut L) {
///     while let Some(next) = device.waiting.next(level, |_dispatch| ()) {
///         match next {
///             Next::Go(irp) => { /* is given to the card; at its end: */
///                 device.waiting.done(level);
///                 irp.complete(NtStatus::SUCCESS, 0, level);
///             }
///             Next::Fail(irp) => irp.complete(NtStatus::DEVICE_NOT_CONNECTED, 0, level),
///         }
///     }
/// }
/// ```
pub struct ManagedQueue {
    gate: SpinLock<Gate>,
    pub(crate) waiting: IrpQueue,
    /// Signaled while no request of a serial queue is on the card.
    idle: Event,
    serial: bool,
}

impl ManagedQueue {
    /// An empty queue, closed, that gives one request at a time.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn serial(tag: Tag, passive: &mut Passive) -> Result<Self> {
        Self::new(true, tag, passive)
    }

    /// An empty queue, closed, that gives all requests.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn parallel(tag: Tag, passive: &mut Passive) -> Result<Self> {
        Self::new(false, tag, passive)
    }

    fn new(serial: bool, tag: Tag, passive: &mut Passive) -> Result<Self> {
        let gate = Gate { closed: true, paused: false, asleep: false, busy: false };
        let idle = Event::notification(tag, passive)?;
        idle.set(passive);
        Ok(Self { gate: SpinLock::new(gate), waiting: IrpQueue::new(usize::MAX), idle, serial })
    }

    /// The device is started: nothing closes the way.
    pub fn open<L: AtMostDispatch>(&self, level: &mut L) {
        self.change(level, |gate| (gate.closed, gate.paused, gate.asleep) = (false, false, false));
    }

    /// The device goes, or its card is gone: requests fail.
    pub fn close<L: AtMostDispatch>(&self, level: &mut L) {
        self.change(level, |gate| gate.closed = true);
    }

    /// The device is to be stopped, or is: requests wait.
    pub fn pause<L: AtMostDispatch>(&self, level: &mut L) {
        self.change(level, |gate| gate.paused = true);
    }

    /// It was not stopped after all.
    pub fn resume<L: AtMostDispatch>(&self, level: &mut L) {
        self.change(level, |gate| gate.paused = false);
    }

    /// The device leaves D0: requests wait.
    pub fn sleep<L: AtMostDispatch>(&self, level: &mut L) {
        self.change(level, |gate| gate.asleep = true);
    }

    /// The device is in D0 again.
    pub fn wake<L: AtMostDispatch>(&self, level: &mut L) {
        self.change(level, |gate| gate.asleep = false);
    }

    fn change<L: AtMostDispatch>(&self, level: &mut L, how: impl FnOnce(&mut Gate)) {
        self.gate.with(level, |gate, _dispatch| how(gate));
    }

    /// What becomes of a request that arrives now.
    pub fn way<L: AtMostDispatch>(&self, level: &mut L) -> Way {
        self.gate.with(level, |gate, _dispatch| gate.way())
    }

    /// The longest waiting request, if it need not wait; it can no longer be cancelled. If it is one for the card, `claim` is called before
    /// anything can change the way, or find a serial queue idle.
    pub fn next<L: AtMostDispatch>(&self, level: &mut L, claim: impl FnOnce(&mut Dispatch)) -> Option<Next> {
        self.gate.with(level, |gate, dispatch| match gate.way() {
            Way::Held => None,
            Way::Closed => self.waiting.pop(dispatch).map(Next::Fail),
            Way::Open if gate.busy => None,
            Way::Open => {
                let irp = self.waiting.pop(dispatch)?;
                if self.serial {
                    gate.busy = true;
                    self.idle.clear(dispatch);
                }
                claim(dispatch);
                Some(Next::Go(irp))
            }
        })
    }

    /// The card is done with the request that a serial queue gave last.
    pub fn done<L: AtMostDispatch>(&self, level: &mut L) {
        self.gate.with(level, |gate, dispatch| {
            gate.busy = false;
            self.idle.set(dispatch);
        });
    }

    /// Waits until nothing that a serial queue gave is on the card, but not longer. Whether that came.
    #[must_use]
    pub fn wait_until_idle(&self, milliseconds: u32, passive: &mut Passive) -> bool {
        self.idle.wait_milliseconds(milliseconds, passive)
    }

    /// The longest waiting request of a file, whatever the way is; it can no longer be cancelled.
    pub fn pop_of<L: AtMostDispatch>(&self, file: FileId, level: &mut L) -> Option<PendingIrp> {
        self.waiting.pop_of(file, level)
    }
}

impl<T> Device<T> {
    /// Puts a request into a managed queue of this device, at its end. It goes on when the driver asks for the next: to be done behind this,
    /// because the way may have opened meanwhile.
    ///
    /// # Errors
    /// As [`Device::park`].
    pub fn hold<L: AtMostDispatch>(
        &self,
        irp: PendingIrp,
        queue: fn(&T) -> &ManagedQueue,
        level: &mut L,
    ) -> core::result::Result<(), (PendingIrp, Refused)> {
        self.park_in(&queue(self).waiting, irp, Place::End, level)
    }

    /// Puts a request into a managed queue that the queue gave before and the card will not end now: before all requests that have waited
    /// since, and behind those that were put back before it. So what is done again is done in the order in which it came.
    ///
    /// # Errors
    /// As [`Device::park`].
    pub fn hold_again<L: AtMostDispatch>(
        &self,
        irp: PendingIrp,
        queue: fn(&T) -> &ManagedQueue,
        level: &mut L,
    ) -> core::result::Result<(), (PendingIrp, Refused)> {
        self.park_in(&queue(self).waiting, irp, Place::Again, level)
    }
}
