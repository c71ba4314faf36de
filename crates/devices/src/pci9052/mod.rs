//! The PLX PCI 9052 (and, as revision 1, the 9050): a PCI target that bridges to a local bus, on a board of our own.
//!
//! After what public drivers, emulators and PLX's errata sheet say of it. BAR0/BAR1 are its local configuration
//! registers, BAR2–BAR5 windows to the local bus; what accesses through them take is `timing`'s. Not modelled: retries, the ISA
//! interface, a ROM, LOCK#. No public source says what software reset does to the registers: here it resets the board
//! and keeps them, so that reload is what brings them back to the EEPROM's.

mod access;
mod board;
mod cause;
mod eeprom;
mod fields;
mod image;
mod interrupt;
mod keys;
mod lcr;
mod local;
mod timing;

use kernel::hal::hardware::Refusal;

pub use keys::ENTRY;

use crate::pci::{Access, Header, Master, Model, Placement, level};
use crate::register::{at, parts};
use crate::sheet::State;
use crate::spec::number;
use board::Board;
use cause::Causes;
use eeprom::{Eeprom, WORDS};
use fields::{Cntrl, USER_IO};
use interrupt::LocalInterrupts;
use lcr::{Lcr, Register};
use local::LocalBus;
use timing::{Clock, Timing};

/// CNTRL bits that a write stores: not data-out, not EEPROM present, not the mask revision.
const CNTRL_STORED: u32 = 0x67FF_FFFF;

/// The chip and its board.
pub struct Pci9052 {
    settings: Settings,
    header: Header,
    lcr: Lcr,
    interrupts: LocalInterrupts,
    eeprom: Option<Eeprom>,
    board: Board,
    /// None: accesses to the local bus take no time there.
    timing: Option<Box<Timing>>,
    outside: Outside,
    inputs: Inputs,
    causes: Causes,
    /// What each register of a board of which nothing is known shows besides what it holds.
    shows: u32,
    /// What it shows besides by what each cause was raised with.
    shown_by_causes: [u32; 2],
    /// Header, pin or deadline may have changed since the bus asked.
    changed: bool,
}

/// What the user chose; never changes.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    placement: Placement,
    revision: u8,
    latency: u64,
    /// `None`: the socket is empty.
    eeprom: Option<[u16; WORDS]>,
    clock: Option<Clock>,
    idle: Idle,
}

/// What the LINTi pins are while nothing drives them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Idle {
    Low,
    /// The level that INTCSR makes the inactive one: what drives a pin makes it active.
    Inactive,
}

/// The levels a script drives on the chip's pins. They are the outside world's: a reset does not change them.
#[derive(Clone, Copy, Debug, Default)]
struct Outside {
    linti: [bool; 2],
    user_io: [bool; 4],
    /// Whether data-out of the EEPROM stays low, and whether it stays high.
    eeprom_is_stuck: [bool; 2],
}

/// CNTRL's data bits of the pins that are inputs, and what they read as.
#[derive(Clone, Copy, Debug, Default)]
struct Inputs {
    mask: u32,
    levels: u32,
}

impl Inputs {
    fn of(cntrl: Cntrl, outside: [bool; 4]) -> Self {
        let mut inputs = Self::default();
        for ([select, direction, data], level) in USER_IO.into_iter().zip(outside) {
            if !cntrl.is(select) && !cntrl.is(direction) {
                inputs.mask |= data.mask();
                inputs.levels |= data.put(0, level.into());
            }
        }
        inputs
    }
}

impl Default for Pci9052 {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl Pci9052 {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut card = Self {
            header: Header::default(),
            lcr: Lcr::default(),
            interrupts: LocalInterrupts::default(),
            eeprom: settings.eeprom.map(Eeprom::new),
            board: Board::BuiltIn(LocalBus::new(settings.latency)),
            timing: settings.clock.map(|clock| Box::new(Timing::new(clock))),
            outside: Outside::default(),
            inputs: Inputs::default(),
            causes: Causes::default(),
            shows: 0,
            shown_by_causes: [0; 2],
            changed: true,
            settings,
        };
        card.reset();
        card
    }

    /// The same whose built-in board's memory holds these words at power-on, by local addresses.
    pub(crate) fn holding(mut self, words: Vec<(u64, u32)>) -> Self {
        if let Board::BuiltIn(board) = &mut self.board {
            board.hold(words);
        }
        self
    }

    /// The same with a board of the user's.
    pub(crate) fn with_board(mut self, board: State) -> Self {
        self.board = Board::Sheet(Box::new(board));
        self.reset();
        self
    }

    /// Whether it is the 9052, which has edge-triggered inputs and not the 9050's erratum.
    fn is_9052(&self) -> bool {
        self.settings.revision >= 2
    }

    /// Takes header and LCR from the EEPROM, if there is a programmed one.
    fn load_eeprom(&mut self) {
        let words = self.eeprom.as_ref().map(Eeprom::words);
        if let Some(words) = words.filter(|words| image::is_programmed(words)) {
            image::load(words, &mut self.header, &mut self.lcr);
            self.header.line_loads = self.header.line_loads.wrapping_add(1);
        }
        self.lcr.intcsr =
            self.interrupts.write(fields::Intcsr(0), self.lcr.intcsr.0, u32::MAX, self.is_9052());
        self.refresh();
    }

    /// After a register or a signal changed: windows and inputs follow.
    fn refresh(&mut self) {
        self.header.bars = self.lcr.bars();
        self.header.rom = self.lcr.rom();
        self.inputs = Inputs::of(self.lcr.cntrl, self.outside.user_io);
        self.drive();
    }

    /// After INTCSR or what drives the interrupt inputs changed, and no other register.
    fn drive(&mut self) {
        self.changed = true;
        let (outside, board) = (self.outside.linti, self.board.linti());
        let (idle, intcsr, causes) = (self.settings.idle, self.lcr.intcsr, self.causes.raised());
        let active_high = interrupt::active_high(intcsr);
        let level = |input: usize| {
            let is_driven = outside[input] || board[input] || causes[input];
            is_driven != (idle == Idle::Inactive && !active_high[input])
        };
        self.interrupts.drive([level(0), level(1)], intcsr);
    }

    /// CNTRL as it reads: pins configured as inputs show the outside's level.
    fn cntrl(&self, now: u64) -> Cntrl {
        self.lcr
            .cntrl
            .merged(self.inputs.levels, self.inputs.mask)
            .with(Cntrl::EEPROM_PRESENT, self.eeprom.is_some().into())
            .with(Cntrl::EEPROM_DATA_OUT, self.eeprom_answers(now).into())
    }

    /// The level of the EEPROM's data-out, which is pulled up where there is none.
    fn eeprom_answers(&self, now: u64) -> bool {
        match self.outside.eeprom_is_stuck {
            [true, _] => false,
            [_, true] => true,
            _ => self.eeprom.as_ref().is_none_or(|part| part.output(now)),
        }
    }

    fn write_cntrl(&mut self, now: u64, value: u32, lanes: u32) {
        let old = self.lcr.cntrl;
        self.lcr.cntrl = old.merged(value, lanes & CNTRL_STORED);
        let new = self.lcr.cntrl;
        if let Some(part) = &mut self.eeprom {
            let pin = |field| new.is(field);
            part.drive(now, pin(Cntrl::EEPROM_SELECT), pin(Cntrl::EEPROM_CLOCK), pin(Cntrl::EEPROM_DATA_IN));
        }
        if new.is(Cntrl::SOFTWARE_RESET) && !old.is(Cntrl::SOFTWARE_RESET) {
            self.board.reset_peripheral();
            self.timing.iter_mut().for_each(|timing| timing.reset());
            self.interrupts.reset();
        }
        if new.is(Cntrl::RELOAD) && !old.is(Cntrl::RELOAD) {
            self.load_eeprom();
        }
    }

    fn write_register(&mut self, now: u64, register: Register, value: u32, lanes: u32) {
        match register {
            Register::Intcsr => {
                self.lcr.intcsr = self.interrupts.write(self.lcr.intcsr, value, lanes, self.is_9052());
                return self.drive();
            }
            Register::Cntrl => self.write_cntrl(now, value, lanes),
            _ => self.lcr.set(register, value, lanes),
        }
        self.refresh();
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a driver waits for it, and every call counts")]
    fn read_register(&self, now: u64, register: Register) -> u32 {
        match register {
            Register::Intcsr => self.interrupts.read(self.lcr.intcsr).0,
            Register::Cntrl => self.cntrl(now).0,
            _ => self.lcr.get(register),
        }
    }
}

impl Model for Pci9052 {
    fn kind(&self) -> &'static str {
        ENTRY.name
    }

    fn header(&self) -> &Header {
        &self.header
    }

    fn placement(&self) -> Placement {
        self.settings.placement
    }

    fn reset(&mut self) {
        let Self {
            settings,
            header,
            lcr,
            interrupts,
            eeprom,
            board,
            timing,
            outside: _,
            inputs: _,
            causes,
            shows,
            shown_by_causes,
            changed,
        } = self;
        *changed = true;
        *causes = Causes::default();
        *shows = 0;
        *shown_by_causes = [0; 2];
        *header = Header {
            vendor: 0x10B5,
            device: 0x9050,
            revision: settings.revision,
            class: 0x06_8000,
            subsystem_vendor: 0x10B5,
            subsystem: 0x9050,
            pin: 1,
            ..Header::default()
        };
        lcr.reset();
        interrupts.reset();
        if let Some(part) = eeprom {
            part.reset();
        }
        board.reset();
        timing.iter_mut().for_each(|timing| timing.reset());
        self.load_eeprom();
    }

    fn read(&mut self, access: &Access) -> Result<u64, Refusal> {
        if access.bar >= 2 {
            return self.read_local(access);
        }
        let is_intcsr =
            || parts(lcr::TABLE, access.offset, access.bytes()).any(|part| part.register == Register::Intcsr);
        if self.settings.idle == Idle::Inactive && is_intcsr() {
            self.causes.seen();
        }
        self.read_lcr(access)
    }

    fn write(&mut self, access: &Access, value: u64) -> Result<(), Refusal> {
        if access.bar < 2 { self.write_lcr(access, value) } else { self.write_local(access, value) }
    }

    fn is_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn reads_change(&self) -> bool {
        self.board.reads_change() || self.settings.idle == Idle::Inactive
    }

    fn is_timed(&self) -> bool {
        self.timing.is_some()
    }

    fn takes(&mut self, access: &Access, write: bool) -> u64 {
        self.local_time(access, write)
    }

    fn asserts(&self) -> bool {
        self.header.pin != 0 && self.interrupts.asserts(self.lcr.intcsr)
    }

    fn deadline(&self) -> Option<u64> {
        self.board.deadline().into_iter().chain(self.causes.deadline()).min()
    }

    fn advance(&mut self, now: u64, master: &mut Master<'_>) {
        self.board.advance(now, master);
        self.causes.advance(now);
        self.drive();
    }

    fn poke(&mut self, now: u64, signal: &str, value: &str) -> Result<(), String> {
        let cause = keys::CAUSES.iter().position(|cause| *cause == signal);
        if (cause.is_some() || signal == keys::SHOWS) && self.settings.idle != Idle::Inactive {
            return Err(format!("`{signal}` is of a board of which nothing is known: idle=inactive"));
        }
        let word = || {
            let bits = number(value).and_then(|bits| u32::try_from(bits).ok());
            bits.ok_or_else(|| format!("`{value}` is no word of 32 bits"))
        };
        if let Some(input) = cause {
            let bits = word()?;
            self.causes.set(input, bits != 0, now);
            self.shown_by_causes[input] = if bits > 1 { bits } else { 0 };
            self.drive();
            return Ok(());
        }
        if signal == keys::SHOWS {
            self.shows = word()?;
            return Ok(());
        }
        if let (Some(at), Board::BuiltIn(board)) = (keys::word_at(signal), &mut self.board) {
            board.set_word(at, word()?);
            return Ok(());
        }
        if let Some(at) = keys::STUCK_EEPROM.iter().position(|stuck| *stuck == signal) {
            self.outside.eeprom_is_stuck[at] = level(value)?;
            return Ok(());
        }
        let pin = match signal {
            // What is under a level that stays, a driver does not get rid of.
            "linti1" | "linti2" if self.settings.idle == Idle::Inactive => {
                return Err(format!(
                    "`{signal}` is driven by a board of which nothing is known: poke cause1 or cause2"
                ));
            }
            "linti1" => &mut self.outside.linti[0],
            "linti2" => &mut self.outside.linti[1],
            "uio0" => &mut self.outside.user_io[0],
            "uio1" => &mut self.outside.user_io[1],
            "uio2" => &mut self.outside.user_io[2],
            "uio3" => &mut self.outside.user_io[3],
            _ => {
                let names: Vec<&str> = ENTRY.signals.iter().map(|signal| signal.name).collect();
                let Board::Sheet(board) = &mut self.board else {
                    return Err(format!("no signal `{signal}`; it has: {}", names.join(", ")));
                };
                board.poked(now, signal, value, &names)?;
                self.drive();
                return Ok(());
            }
        };
        *pin = level(value)?;
        self.refresh();
        Ok(())
    }

    /// A register of the chip by the data book's name (of CNTRL the EEPROM's answer is the one that it comes to), or one of the board's sheet.
    fn peek(&self, register: &str) -> Result<u32, String> {
        if let Some(row) = lcr::TABLE.iter().find(|row| row.name.eq_ignore_ascii_case(register)) {
            return Ok(self.read_register(u64::MAX, row.register));
        }
        match &self.board {
            Board::Sheet(board) => board.peeked(register),
            Board::BuiltIn(_) => Err(format!(
                "no register `{register}`: the chip has {}; what is behind it is not shown",
                lcr::TABLE.iter().map(|row| row.name).collect::<Vec<_>>().join(", ")
            )),
        }
    }

    fn describe(&self, bar: u8, offset: u64) -> Option<String> {
        if bar < 2 {
            let name = at(lcr::TABLE, offset).map_or("reserved", |row| row.name);
            return Some(format!("LCR+{offset:02X}h {name}"));
        }
        let local = self.lcr.local_address(usize::from(bar) - 2, offset);
        let select = self.lcr.chip_select(local).map(|n| format!(" CS{n}#")).unwrap_or_default();
        let register = self.board.name(local).map(|name| format!(" {name}")).unwrap_or_default();
        Some(format!("BAR{bar}+{offset:X}h local {local:07X}h{select}{register}"))
    }
}
