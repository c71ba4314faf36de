//! What an administrator sees of a card: counters, a setting, a method, an event.
//!
//! Pages: *Implementing WMI*, *MOF Syntax for WMI Data and Event Blocks*. `pci9052.mof` describes both classes; `mofcomp pci9052.mof` registers them.

use core::sync::atomic::Ordering;

use wdm::zerocopy::{FromBytes, Immutable, IntoBytes};
use wdm::{DataBlock, Device, EventBlock, GUID, Item, Method, NtStatus, Offered, Passive, Result};

use crate::card::Card;

/// All that there is.
pub(crate) const OFFERED: &[Offered<Card>] = &[Offered::data::<Statistics>(), Offered::event::<TimedOut>()];

/// The longest that a stop waits, in milliseconds.
const LONGEST: u32 = 60_000;
/// The item that can be set, and the method.
const STOP_TIMEOUT: u32 = 7;
const RESET: u32 = 1;

/// `Pci9052_Statistics`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[zerocopy(crate = "wdm::zerocopy")]
#[repr(C)]
pub(crate) struct Statistics {
    bytes_read: u64,
    bytes_written: u64,
    transfers: u32,
    interrupts: u32,
    passed: u32,
    time_outs: u32,
    stop_timeout: u32,
    local_bytes: u32,
}

impl DataBlock for Statistics {
    type Function = Card;
    type Data = Self;
    const GUID: GUID = GUID::new(0x8f2d_4b61, 0x2c3e, 0x4a7d, 0x9b15_6e0c_d38a_7f42);

    fn query(device: &Device<Card>, _instance: u32, passive: &mut Passive) -> Result<Self> {
        let counters = &device.counters;
        let local = device.hardware.enter(passive).map_or(0, |hardware| hardware.windows.local.length());
        Ok(Self {
            bytes_read: counters.read.load(Ordering::Relaxed),
            bytes_written: counters.written.load(Ordering::Relaxed),
            transfers: counters.transfers.load(Ordering::Relaxed),
            interrupts: counters.interrupts.load(Ordering::Relaxed),
            passed: counters.passed.load(Ordering::Relaxed),
            time_outs: counters.time_outs.load(Ordering::Relaxed),
            stop_timeout: device.stop_timeout.load(Ordering::Relaxed),
            local_bytes: local,
        })
    }

    /// Of a whole instance only `StopTimeout` is taken: the others are counted here.
    fn set(device: &Device<Card>, _instance: u32, data: Self, _passive: &mut Passive) -> Result<()> {
        set_stop_timeout(device, data.stop_timeout)
    }

    fn set_item(device: &Device<Card>, _instance: u32, item: Item<'_>, _passive: &mut Passive) -> Result<()> {
        match item.id() {
            STOP_TIMEOUT => set_stop_timeout(device, item.value()?),
            1..=8 => Err(NtStatus::WMI_READ_ONLY),
            _ => Err(NtStatus::WMI_ITEMID_NOT_FOUND),
        }
    }

    fn execute(
        device: &Device<Card>,
        _instance: u32,
        method: &mut Method<'_>,
        _passive: &mut Passive,
    ) -> Result<()> {
        if method.id() != RESET {
            return Err(NtStatus::WMI_ITEMID_NOT_FOUND);
        }
        method.expect_room::<u32>()?;
        let counters = &device.counters;
        let transfers = counters.transfers.swap(0, Ordering::Relaxed);
        for counter in [&counters.read, &counters.written] {
            counter.store(0, Ordering::Relaxed);
        }
        for counter in [&counters.interrupts, &counters.passed, &counters.time_outs] {
            counter.store(0, Ordering::Relaxed);
        }
        method.output(&transfers)
    }
}

fn set_stop_timeout(device: &Device<Card>, milliseconds: u32) -> Result<()> {
    if milliseconds > LONGEST {
        return Err(NtStatus::WMI_SET_FAILURE);
    }
    device.stop_timeout.store(milliseconds, Ordering::Relaxed);
    Ok(())
}

/// `Pci9052_TimedOut`: how long was waited, how often that was in vain by now, and for what ([`Cause`]).
pub(crate) struct TimedOut;

impl EventBlock for TimedOut {
    type Function = Card;
    type Data = [u32; 3];
    const GUID: GUID = GUID::new(0x8f2d_4b62, 0x2c3e, 0x4a7d, 0x9b15_6e0c_d38a_7f42);
}

/// Why the card was to be at rest.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Cause {
    /// It is to be stopped or removed, which is refused then.
    Stop,
    /// It is to lose its power; what it had is done again later.
    PowerDown,
}
