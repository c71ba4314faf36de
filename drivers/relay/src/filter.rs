//! A device above another's: what goes down, and what comes back.
//!
//! Page: *Using IRP Completion Routines*. It has no hardware, so Plug and Play and power change nothing.

use core::sync::atomic::{AtomicU32, Ordering};

use wdm::abi::{FILE_ANY_ACCESS, FILE_DEVICE_UNKNOWN, METHOD_BUFFERED, ctl_code};
use wdm::{
    Answer, Device, DispatchOrBelow, Function, Irp, Name, NtStatus, Passive, Pdo, Resources, Result,
    Returned, Stop, Tag, Transfers,
};

use crate::{Relay, TAG, sum};

const SUM: u32 = ctl_code(FILE_DEVICE_UNKNOWN, 0xC40, METHOD_BUFFERED, FILE_ANY_ACCESS);
const SUM_WAITING: u32 = ctl_code(FILE_DEVICE_UNKNOWN, 0xC41, METHOD_BUFFERED, FILE_ANY_ACCESS);
const COUNTS: u32 = ctl_code(FILE_DEVICE_UNKNOWN, 0xC42, METHOD_BUFFERED, FILE_ANY_ACCESS);

/// A filter device.
pub(crate) struct Filter {
    /// Children that came back.
    pub(crate) children: AtomicU32,
    /// Requests that came back.
    returned: AtomicU32,
}

impl Function for Filter {
    type Driver = Relay;
    const TAG: Tag = TAG;
    const TRANSFERS: Transfers = Transfers::AsBelow;

    fn add(driver: &Relay, _pdo: &Pdo, _passive: &mut Passive) -> Result<(Name, Self)> {
        let name = Name::new(r"\Device\RelayRust-").with_number(driver.next_device());
        Ok((name, Self { children: AtomicU32::new(0), returned: AtomicU32::new(0) }))
    }

    fn start(_device: &Device<Self>, _resources: &Resources<'_>, _passive: &mut Passive) -> Result<()> {
        Ok(())
    }

    fn pause(_device: &Device<Self>, _passive: &mut Passive) -> Result<()> {
        Ok(())
    }

    fn resume(_device: &Device<Self>, _passive: &mut Passive) {}

    fn stop(_device: &Device<Self>, _why: Stop, _passive: &mut Passive) {}

    fn create<'irp>(device: &Device<Self>, irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
        irp.forward(device, passive)
    }

    fn cleanup<'irp>(device: &Device<Self>, irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
        irp.forward(device, passive)
    }

    fn close<'irp>(device: &Device<Self>, irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
        irp.forward(device, passive)
    }

    fn read<'irp>(device: &Device<Self>, irp: Irp<'irp>, level: &mut DispatchOrBelow) -> Answer<'irp> {
        irp.forward_then(device, turn_bits, level)
    }

    fn write<'irp>(device: &Device<Self>, irp: Irp<'irp>, level: &mut DispatchOrBelow) -> Answer<'irp> {
        irp.forward(device, level)
    }

    fn device_control<'irp>(
        device: &Device<Self>,
        mut irp: Irp<'irp>,
        level: &mut DispatchOrBelow,
    ) -> Answer<'irp> {
        match irp.control().code {
            SUM => sum::begin(device, irp, level),
            SUM_WAITING => match sum::wait(device, &mut irp, level) {
                Ok(bytes) => irp.complete(NtStatus::SUCCESS, bytes, level),
                Err(status) => irp.complete(status, 0, level),
            },
            COUNTS => {
                let counts = [&device.children, &device.returned].map(|count| count.load(Ordering::Relaxed));
                match irp.output(&counts) {
                    Ok(bytes) => irp.complete(NtStatus::SUCCESS, bytes, level),
                    Err(status) => irp.complete(status, 0, level),
                }
            }
            _ => irp.forward(device, level),
        }
    }
}

/// A read came back.
fn turn_bits(device: &Device<Filter>, mut irp: Returned, level: &mut DispatchOrBelow) {
    device.returned.fetch_add(1, Ordering::Relaxed);
    let came = irp.information();
    irp.buffer().iter_mut().take(came).for_each(|byte| *byte = !*byte);
    irp.complete_as_it_is(level);
}
