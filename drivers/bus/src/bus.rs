//! The bus: its slots, and who is plugged into them.
//!
//! Pages: *Bus Drivers*, *IoInvalidateDeviceRelations*.

use core::sync::atomic::{AtomicU32, Ordering};

use wdm::abi::{FILE_ANY_ACCESS, FILE_DEVICE_BUS_EXTENDER, FILE_DEVICE_UNKNOWN, METHOD_BUFFERED, ctl_code};
use wdm::{
    Answer, Device, DispatchOrBelow, Function, Irp, Line, Name, NtStatus, Passive, Pdo, Resources, Result,
    Stop, SymbolicLink, Tag, at_dispatch,
};

use crate::port::{self, Kind, Port};
use crate::{BusDriver, TAG};

const PLUG: u32 = ctl_code(FILE_DEVICE_UNKNOWN, 0xC50, METHOD_BUFFERED, FILE_ANY_ACCESS);
const UNPLUG: u32 = ctl_code(FILE_DEVICE_UNKNOWN, 0xC51, METHOD_BUFFERED, FILE_ANY_ACCESS);
const COUNT: u32 = ctl_code(FILE_DEVICE_UNKNOWN, 0xC52, METHOD_BUFFERED, FILE_ANY_ACCESS);
const UNPLUG_FROM_DISPATCH: u32 = ctl_code(FILE_DEVICE_UNKNOWN, 0xC53, METHOD_BUFFERED, FILE_ANY_ACCESS);

/// How many slots a bus has.
const SLOTS: u32 = 8;

/// A bus.
pub(crate) struct Slots {
    _link: SymbolicLink,
    pub(crate) number: u32,
    /// Bytes that ports were written.
    pub(crate) written: AtomicU32,
}

impl Drop for Slots {
    fn drop(&mut self) {
        Line::new("bus ").decimal(self.number).text(" is removed").print();
    }
}

impl Function for Slots {
    type Driver = BusDriver;
    const TAG: Tag = TAG;
    const DEVICE_TYPE: u32 = FILE_DEVICE_BUS_EXTENDER;

    fn add(driver: &BusDriver, _pdo: &Pdo, passive: &mut Passive) -> Result<(Name, Self)> {
        let number = driver.next_bus();
        let name = Name::new(r"\Device\DirqlBusRust").with_number(number);
        let link = Name::new(r"\DosDevices\DirqlBusRust").with_number(number);
        let link = SymbolicLink::create(link, &name, passive)?;
        Ok((name, Self { _link: link, number, written: AtomicU32::new(0) }))
    }

    fn start(_device: &Device<Self>, _resources: &Resources<'_>, _passive: &mut Passive) -> Result<()> {
        Ok(())
    }

    fn pause(_device: &Device<Self>, _passive: &mut Passive) -> Result<()> {
        Ok(())
    }

    fn resume(_device: &Device<Self>, _passive: &mut Passive) {}

    fn stop(device: &Device<Self>, _why: Stop, _passive: &mut Passive) {
        Line::new("bus ").decimal(device.number).text(" is stopped").print();
    }

    fn power_down(device: &Device<Self>, _passive: &mut Passive) {
        Line::new("bus ").decimal(device.number).text(" is off").print();
    }

    fn power_up(device: &Device<Self>, _level: &mut DispatchOrBelow) {
        Line::new("bus ").decimal(device.number).text(" is on").print();
    }

    fn device_control<'irp>(
        device: &Device<Self>,
        mut irp: Irp<'irp>,
        level: &mut DispatchOrBelow,
    ) -> Answer<'irp> {
        let done = match irp.control().code {
            PLUG => plug(device, &mut irp, level),
            UNPLUG => irp.input().and_then(|slot| unplug(device, slot, level)),
            UNPLUG_FROM_DISPATCH => {
                irp.input().and_then(|slot| at_dispatch(level, |dispatch| unplug(device, slot, dispatch)))
            }
            COUNT => count(device, &mut irp, level),
            _ => Err(NtStatus::INVALID_DEVICE_REQUEST),
        };
        match done {
            Ok(bytes) => irp.complete(NtStatus::SUCCESS, bytes, level),
            Err(status) => irp.complete(status, 0, level),
        }
    }
}

fn plug(device: &Device<Slots>, irp: &mut Irp<'_>, level: &mut DispatchOrBelow) -> Result<usize> {
    let [slot, kind, ..] = irp.input::<[u8; 4]>()?;
    let kind = Kind::of(kind).ok_or(NtStatus::INVALID_PARAMETER)?;
    if u32::from(slot) >= SLOTS {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let passive = level.as_passive().ok_or(NtStatus::INVALID_DEVICE_REQUEST)?;
    device.plug(&port::identity(slot.into(), kind), Port::new(slot.into(), kind), passive)?;
    Ok(0)
}

fn unplug<L: wdm::AtMostDispatch>(device: &Device<Slots>, slot: u32, level: &mut L) -> Result<usize> {
    match device.unplug(|port| port.slot == slot, level) {
        0 => Err(NtStatus::NO_SUCH_DEVICE),
        _ => Ok(0),
    }
}

fn count(device: &Device<Slots>, irp: &mut Irp<'_>, level: &mut DispatchOrBelow) -> Result<usize> {
    let mut children = 0_u32;
    device.visit_children(|_port, _dispatch| children += 1, level);
    irp.output(&[children, device.written.load(Ordering::Relaxed)])
}
