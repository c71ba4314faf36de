//! A card of our own for tests of system DMA: it reaches no memory by itself, and has the channel of the PC's DMA controllers that it is wired
//! to (`isa_dma`) move its bytes, some at a time.
//!
//! BAR0 has the registers of [`registers::TABLE`]. It asks for its channel from START on, a burst at a time, and waits where the channel is
//! masked; at terminal count it stops, unless it is to go on, and interrupts if it is to. Its memory of 64 KiB is gone through in circles. No PCI
//! card has such a channel today: an ISA device (a floppy controller, a Sound Blaster) would, and this one answers like one for its driver.

mod keys;
mod registers;

use kernel::hal::hardware::Refusal;

pub use keys::ENTRY;

use crate::pci::{Access, Header, Master, Model, Placement, level};
use crate::ram::SparseRam;
use crate::register::{at, low32};
use registers::{Command, IDENTIFICATION, Register, Status, TABLE};

/// Bytes of its memory.
const RAM: u64 = 0x1_0000;

/// The card.
pub struct Slave {
    settings: Settings,
    command: Command,
    status: Status,
    moved: u32,
    offset: u32,
    ram: SparseRam,
    /// When it asks for its channel next.
    next: Option<u64>,
    paused: bool,
    changed: bool,
}

/// What the user chose; never changes.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    placement: Placement,
    header: Header,
    channel: u8,
    /// Bytes at once.
    burst: u32,
    /// From one burst to the next, ns.
    every: u64,
}

impl Slave {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            command: Command::default(),
            status: Status::default(),
            moved: 0,
            offset: 0,
            ram: SparseRam::default(),
            next: None,
            paused: false,
            changed: true,
        }
    }

    fn register(&self, access: &Access) -> Result<Option<Register>, Refusal> {
        if access.bytes() == 4 && access.is_aligned() {
            return Ok(at(TABLE, access.offset).map(|row| row.register));
        }
        let name = self.describe(access.bar, access.offset).unwrap_or_default();
        let what = format!("BAR0+{:02X}h {name}", access.offset);
        Err(Refusal::new(what, "accepts 4 bytes, aligned".to_owned()))
    }

    /// The next burst comes when its time has passed, if there is to be one.
    fn ask_from(&mut self, now: u64) {
        let asks = self.command.is(Command::START) && !self.paused;
        self.next = asks.then(|| now + self.settings.every);
        self.changed = true;
    }

    /// One burst.
    fn burst(&mut self, master: &mut Master<'_>) -> bool {
        let (channel, burst) = (self.settings.channel, u64::from(self.settings.burst));
        let places = |offset: u32| (0..burst).map(move |byte| (u64::from(offset) + byte) % RAM);
        let moved = if self.command.is(Command::TO_MEMORY) {
            let bytes: Vec<u8> = places(self.offset).map(|place| self.ram.byte(place)).collect();
            master.give(channel, &bytes)
        } else {
            let mut bytes = vec![0; places(0).count()];
            let moved = master.take(channel, &mut bytes);
            let came = bytes.iter().take(moved.bytes);
            places(self.offset).zip(came).for_each(|(place, byte)| self.ram.set_byte(place, *byte));
            moved
        };
        let bytes = u32::try_from(moved.bytes).unwrap_or(0);
        self.moved = self.moved.wrapping_add(bytes);
        self.offset = low32((u64::from(self.offset) + u64::from(bytes)) % RAM);
        if moved.is_terminal {
            self.status = self.status.with(Status::TERMINAL_COUNT, 1);
            if !self.command.is(Command::CONTINUE) {
                self.command = self.command.with(Command::START, 0);
            }
        }
        bytes != 0
    }
}

impl Model for Slave {
    fn kind(&self) -> &'static str {
        ENTRY.name
    }

    fn header(&self) -> &Header {
        &self.settings.header
    }

    fn placement(&self) -> Placement {
        self.settings.placement
    }

    fn reset(&mut self) {
        let Self { settings: _, command, status, moved, offset, ram, next, paused, changed } = self;
        (*command, *status, *moved, *offset) = (Command::default(), Status::default(), 0, 0);
        ram.clear();
        (*next, *paused, *changed) = (None, false, true);
    }

    fn read(&mut self, access: &Access) -> Result<u64, Refusal> {
        let value = match self.register(access)? {
            Some(Register::Identification) => IDENTIFICATION,
            Some(Register::Channel) => self.settings.channel.into(),
            Some(Register::Command) => self.command.0,
            Some(Register::Status) => self.status.0,
            Some(Register::Moved) => self.moved,
            Some(Register::Offset) => self.offset,
            None => 0,
        };
        Ok(value.into())
    }

    fn write(&mut self, access: &Access, value: u64) -> Result<(), Refusal> {
        match self.register(access)? {
            Some(Register::Command) => {
                self.command = Command(low32(value));
                if self.command.is(Command::START) {
                    self.moved = 0;
                }
                self.ask_from(access.now);
            }
            Some(Register::Status) => self.status = Status(self.status.0 & !low32(value)),
            Some(Register::Offset) => self.offset = low32(value % RAM),
            _ => {}
        }
        self.changed = true;
        Ok(())
    }

    fn is_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn reads_change(&self) -> bool {
        false
    }

    fn asserts(&self) -> bool {
        self.command.is(Command::INTERRUPT) && self.status.is(Status::TERMINAL_COUNT)
    }

    fn deadline(&self) -> Option<u64> {
        self.next
    }

    fn advance(&mut self, now: u64, master: &mut Master<'_>) {
        self.changed = true;
        if self.next.take_if(|next| *next <= now).is_some() && self.burst(master) {
            self.ask_from(now);
        }
    }

    fn channels_changed(&mut self, now: u64) {
        if self.next.is_none() {
            self.ask_from(now);
        }
    }

    fn poke(&mut self, now: u64, signal: &str, value: &str) -> Result<(), String> {
        if signal != "pause" {
            return Err(format!("no signal `{signal}`; it has: pause"));
        }
        self.paused = level(value)?;
        self.ask_from(now);
        Ok(())
    }

    fn describe(&self, bar: u8, offset: u64) -> Option<String> {
        (bar == 0).then(|| at(TABLE, offset).map_or("reserved", |row| row.name).to_owned())
    }
}
