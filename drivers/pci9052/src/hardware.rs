//! The card's hardware, from start to stop: windows mapped, interrupt connected.
//!
//! Page: *IRP_MN_START_DEVICE*. The card is quiet before anybody listens; its interrupts are enabled by [`Card`] when all is there.
//! Dropping it undoes everything, in the opposite order.

use wdm::{
    AtMostDispatch, Block, Device, Interrupt, InterruptLine, Line, MemoryRange, MemoryWindow, NtStatus,
    Passive, PortRange, PortWindow, Resource, Resources, Result, Shared, Timer, Window,
};

use crate::TAG;
use crate::card::{self, Card};
use crate::isr::{Isr, Seen};
use crate::registers::{INTCSR, Lcr, LocalPorts, Windows};

/// A card in use. The interrupt goes first when it is dropped.
pub(crate) struct Hardware {
    interrupt: Interrupt<Isr>,
    poll: Timer<Card>,
    pub(crate) windows: Shared<Windows>,
}

impl Hardware {
    /// Takes the card into use. Its interrupts are still disabled: who is interrupted has to find this in its place.
    ///
    /// # Errors
    /// `STATUS_DEVICE_CONFIGURATION_ERROR` if it lacks a window or the interrupt, and what mapping and connecting say.
    pub(crate) fn start(
        device: &Device<Card>,
        resources: &Resources<'_>,
        passive: &mut Passive,
    ) -> Result<Self> {
        let given = Given::of(resources);
        let line = given.line.ok_or(NtStatus::DEVICE_CONFIGURATION_ERROR)?;
        let windows = Shared::new(given.open(device.use_ports, passive)?, TAG, passive)?;
        windows.lcr.write(INTCSR, 0);
        windows.clear_status();
        let isr = Isr::new(windows.clone(), device.counters.clone());
        let poll = Timer::new(device, card::poll, TAG, passive)?;
        let interrupt = Interrupt::connect(device, &line, isr, TAG, passive)?;
        let hardware = Self { interrupt, poll, windows };
        Line::new("pci9052: started, vector ")
            .decimal(line.vector())
            .text(" at IRQL ")
            .decimal(line.irql().into())
            .print();
        Ok(hardware)
    }

    /// Is in use from now on.
    pub(crate) fn wake<L: AtMostDispatch>(&self, level: &mut L) {
        self.interrupt.synchronize(level, |isr, _| isr.wake());
    }

    /// Enables interrupts, if it is in use.
    pub(crate) fn unmask<L: AtMostDispatch>(&self, level: &mut L) {
        self.interrupt.synchronize(level, |isr, _| isr.unmask());
    }

    /// Disables interrupts. Not for a card that is gone.
    pub(crate) fn quiet<L: AtMostDispatch>(&self, level: &mut L) {
        self.interrupt.synchronize(level, |isr, _| isr.quiet());
    }

    /// Looks at the peripheral in place of an interrupt: whether it has ended.
    pub(crate) fn look<L: AtMostDispatch>(&self, level: &mut L) -> bool {
        self.interrupt.synchronize(level, |isr, _| isr.look())
    }

    /// Shall be looked at soon.
    pub(crate) fn poll_later<L: AtMostDispatch>(&self, level: &mut L) {
        self.poll.set_milliseconds(1, level);
    }

    /// Is not looked at any more.
    pub(crate) fn stop_polling(&self, passive: &mut Passive) {
        self.poll.cancel(passive);
    }

    /// What the service routine saw, once.
    pub(crate) fn take_seen<L: AtMostDispatch>(&self, level: &mut L) -> Seen {
        self.interrupt.synchronize(level, |isr, _| isr.take_seen())
    }
}

/// The resources by what they lead to: the registers' windows are known by their length.
#[derive(Default)]
struct Given<'irp> {
    lcr: Option<MemoryRange<'irp>>,
    lcr_ports: Option<PortRange<'irp>>,
    local: Option<MemoryRange<'irp>>,
    local_ports: Option<PortRange<'irp>>,
    line: Option<InterruptLine>,
}

impl<'irp> Given<'irp> {
    fn of(resources: &Resources<'irp>) -> Self {
        let mut given = Self::default();
        for resource in resources.iter() {
            match resource {
                Resource::Memory(range) if range.length() == Lcr::LENGTH => given.lcr = Some(range),
                Resource::Memory(range) => given.local = given.local.or(Some(range)),
                Resource::Ports(range) if range.length() == Lcr::LENGTH => given.lcr_ports = Some(range),
                Resource::Ports(range) => given.local_ports = given.local_ports.or(Some(range)),
                Resource::Interrupt(line) => given.line = Some(line),
                Resource::Messages(_) | Resource::Other => {}
            }
        }
        given
    }

    fn open(&self, use_ports: bool, passive: &mut Passive) -> Result<Windows> {
        let missing = NtStatus::DEVICE_CONFIGURATION_ERROR;
        let lcr = match (&self.lcr, &self.lcr_ports) {
            (Some(range), ports) if !use_ports || ports.is_none() => {
                lcr_window(range, ports.as_ref(), passive)?
            }
            (_, Some(ports)) => Window::Port(PortWindow::open(ports)?),
            _ => return Err(missing),
        };
        let local = MemoryWindow::map(self.local.as_ref().ok_or(missing)?, passive)?;
        let ports = self.local_ports.as_ref().filter(|_| use_ports);
        let ports = ports.map(PortWindow::<LocalPorts>::open).transpose()?;
        Ok(Windows { lcr, local, ports })
    }
}

/// PLX's erratum 1 of the 9050: reads fail where bit 7 of the window's address is set. Then the other window serves.
fn lcr_window(
    range: &MemoryRange<'_>,
    ports: Option<&PortRange<'_>>,
    passive: &mut Passive,
) -> Result<Window<Lcr>> {
    const ERRATUM: u64 = 0x80;
    match ports {
        Some(ports) if range.start() & ERRATUM != 0 && ports.start() & ERRATUM == 0 => {
            Ok(Window::Port(PortWindow::open(ports)?))
        }
        _ => Ok(Window::Memory(MemoryWindow::map(range, passive)?)),
    }
}
