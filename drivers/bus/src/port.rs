//! What is in a slot: a port that this driver answers for itself, or a device for another driver.
//!
//! A port keeps the last 16 bytes that it was written, and gives them back. A read at offset 100h waits until the next write, or until the port is gone.

use core::sync::atomic::Ordering;

use wdm::abi::{FILE_ANY_ACCESS, FILE_DEVICE_UNKNOWN, METHOD_BUFFERED, ctl_code};
use wdm::{
    Answer, Bus, ChildDevice, DeviceInterface, DispatchOrBelow, GUID, Identity, Irp, Line, Name, NtStatus,
    Passive, PendingIrp, Result, Slot, SpinLock, Stop,
};

use crate::bus::Slots;

/// {7A9B6E04-8E0E-4C1B-A3B7-5F8D2D0C9E14}
const BUS_TYPE: GUID = GUID::new(0x7A9B_6E04, 0x8E0E, 0x4C1B, 0xA3B7_5F8D_2D0C_9E14);

/// The interface of ports: {7A9B6E04-8E0E-4C1B-A3B7-5F8D2D0C9E15}
const PORTS: GUID = GUID::new(0x7A9B_6E04, 0x8E0E, 0x4C1B, 0xA3B7_5F8D_2D0C_9E15);

/// Where a read waits for the next write.
const WAITING: i64 = 0x100;

const BYTES: usize = 16;

/// Its request goes down the bus's stack, for which it has no stack locations: the mistake that the crate stops with a bug check.
const PASS_DOWN: u32 = ctl_code(FILE_DEVICE_UNKNOWN, 0xC54, METHOD_BUFFERED, FILE_ANY_ACCESS);

/// What there is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// For another driver.
    Child,
    /// Opened as it is.
    Port,
    /// A bus like this one.
    Hub,
    /// A port that cannot be started.
    Broken,
}

impl Kind {
    pub(crate) fn of(number: u8) -> Option<Self> {
        [Self::Child, Self::Port, Self::Hub, Self::Broken].get(usize::from(number)).copied()
    }
}

/// What all have in common.
const fn anything(device: &str) -> Identity {
    Identity::new(Name::new(device), Name::new("0"))
        .compatible(&Name::new(r"DIRQLBUS\Generic"))
        .description(Name::new("A device on a bus in Rust"))
        .removable()
        .ejectable()
}

const CHILD: Identity = anything(r"DIRQLBUS\Child");
const HUB: Identity = anything(r"DIRQLBUS\RustHub");
const PORT: Identity = anything(r"DIRQLBUS\RustPort").raw();

/// Who is in a slot.
#[inline(never)]
pub(crate) fn identity(slot: u32, kind: Kind) -> Identity {
    let mut identity = match kind {
        Kind::Child => CHILD,
        Kind::Hub => HUB,
        Kind::Port | Kind::Broken => PORT,
    };
    identity.set_instance(Name::new("").with_number(slot));
    identity.set_location(Name::new("Slot ").with_number(slot));
    identity.set_address(slot);
    identity
}

/// What is in a slot.
pub(crate) struct Port {
    pub(crate) slot: u32,
    kind: Kind,
    interface: Slot<DeviceInterface>,
    written: SpinLock<[u8; BYTES]>,
    waiting: Slot<PendingIrp>,
}

impl Port {
    pub(crate) fn new(slot: u32, kind: Kind) -> Self {
        Self { slot, kind, interface: Slot::new(), written: SpinLock::new([0; BYTES]), waiting: Slot::new() }
    }

    fn say(&self, what: &str) {
        Line::new("slot ").decimal(self.slot).text(what).print();
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.say(" is empty");
    }
}

impl Bus for Slots {
    type Child = Port;
    const BUS_TYPE: GUID = BUS_TYPE;

    fn child_start(port: &ChildDevice<Self>, passive: &mut Passive) -> Result<()> {
        if port.kind == Kind::Broken {
            return Err(NtStatus::DEVICE_NOT_READY);
        }
        if port.kind == Kind::Port {
            let interface = DeviceInterface::register(port.pdo(), &PORTS, passive)?;
            interface.enable(passive)?;
            drop(port.interface.put(interface)); // it was taken by the stop before
        }
        port.say(" is started");
        Ok(())
    }

    fn child_stop(port: &ChildDevice<Self>, why: Stop, passive: &mut Passive) {
        if let Some(interface) = port.interface.take() {
            interface.disable(passive);
        }
        if let Some(irp) = port.waiting.take() {
            irp.complete(NtStatus::DELETE_PENDING, 0, passive);
        }
        port.say(if why == Stop::SurpriseRemoval { " is gone" } else { " is stopped" });
    }

    fn child_power(port: &ChildDevice<Self>, is_on: bool, _passive: &mut Passive) {
        port.say(if is_on { " is on" } else { " is off" });
    }

    fn child_eject(port: &ChildDevice<Self>, _passive: &mut Passive) -> Result<()> {
        port.say(" is ejected");
        Ok(())
    }

    fn child_cleanup<'irp>(port: &ChildDevice<Self>, irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
        if let Some(waiting) = port.waiting.take() {
            let status =
                if waiting.file() == irp.file() { NtStatus::CANCELLED } else { NtStatus::DEVICE_BUSY };
            waiting.complete(status, 0, passive);
        }
        irp.complete(NtStatus::SUCCESS, 0, passive)
    }

    fn child_read<'irp>(
        port: &ChildDevice<Self>,
        mut irp: Irp<'irp>,
        level: &mut DispatchOrBelow,
    ) -> Answer<'irp> {
        if irp.transfer().offset != WAITING {
            let bytes = give(port, irp.buffer(), level);
            return irp.complete(NtStatus::SUCCESS, bytes, level);
        }
        let (irp, answer) = irp.pend();
        if let Err(another) = port.waiting.put(irp) {
            another.complete(NtStatus::DEVICE_BUSY, 0, level);
        }
        answer
    }

    fn child_write<'irp>(
        port: &ChildDevice<Self>,
        mut irp: Irp<'irp>,
        level: &mut DispatchOrBelow,
    ) -> Answer<'irp> {
        let given = irp.buffer();
        let bytes = given.len().min(BYTES);
        port.written.with(level, |written, _dispatch| {
            for (to, from) in written.iter_mut().zip(given.iter()) {
                *to = *from;
            }
        });
        port.bus().written.fetch_add(u32::try_from(bytes).unwrap_or_default(), Ordering::Relaxed);
        if let Some(mut waiting) = port.waiting.take() {
            let bytes = give(port, waiting.buffer(), level);
            waiting.complete(NtStatus::SUCCESS, bytes, level);
        }
        irp.complete(NtStatus::SUCCESS, bytes, level)
    }

    fn child_device_control<'irp>(
        port: &ChildDevice<Self>,
        irp: Irp<'irp>,
        level: &mut DispatchOrBelow,
    ) -> Answer<'irp> {
        match irp.control().code {
            PASS_DOWN => irp.forward(port.bus(), level),
            _ => irp.complete(NtStatus::INVALID_DEVICE_REQUEST, 0, level),
        }
    }
}

/// Copies what the port was written: how many bytes.
fn give(port: &Port, buffer: &mut [u8], level: &mut DispatchOrBelow) -> usize {
    port.written.with(level, |written, _dispatch| {
        for (to, from) in buffer.iter_mut().zip(written.iter()) {
            *to = *from;
        }
    });
    buffer.len().min(BYTES)
}
