//! The serial EEPROM behind CNTRL, bit by bit: a 93CS46 of 64 words.
//!
//! Microwire: a bit goes in with the rising edge of the clock, and comes out after it. Each half of the clock lasts a
//! microsecond. The holder has CNTRL for itself. Words 0 to 49 are what the card configures itself with at reset.

use wdm::{NtStatus, Passive, Result, Window};

use crate::registers::{CNTRL, Lcr};

/// CNTRL's pins.
const CLOCK: u32 = 1 << 24;
const SELECT: u32 = 1 << 25;
const DATA_IN: u32 = 1 << 26;
const DATA_OUT: u32 = 1 << 27;
const PRESENT: u32 = 1 << 28;
/// CNTRL's bits that do something when written: they stay 0.
const ACTIONS: u32 = 3 << 29;

/// Commands, with their start bit.
const READ: u16 = 0x180;
const WRITE: u16 = 0x140;
const WRITE_ENABLE: u16 = 0x130;
const WRITE_DISABLE: u16 = 0x100;
const COMMAND_BITS: u32 = 9;

/// Words of the part.
const WORDS: u32 = 64;
/// Milliseconds that programming a word may take; the data sheet says 10 at most.
const PROGRAMMING: u32 = 12;

/// The word that a request names.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` if there is none of that number.
pub(crate) fn word(number: u32) -> Result<u16> {
    let word = u16::try_from(number).ok().filter(|_| number < WORDS);
    word.ok_or(NtStatus::INVALID_PARAMETER)
}

/// The part, deselected when dropped.
pub(crate) struct Eeprom<'a> {
    lcr: &'a Window<Lcr>,
    /// CNTRL with all of our pins low.
    rest: u32,
}

impl<'a> Eeprom<'a> {
    /// # Errors
    /// `STATUS_NOT_FOUND` if the card has no EEPROM.
    pub(crate) fn select(lcr: &'a Window<Lcr>) -> Result<Self> {
        let cntrl = lcr.read(CNTRL);
        if cntrl & PRESENT == 0 {
            return Err(NtStatus::NOT_FOUND);
        }
        let eeprom = Self { lcr, rest: cntrl & !(CLOCK | SELECT | DATA_IN | ACTIONS) };
        eeprom.pins(0);
        Ok(eeprom)
    }

    pub(crate) fn read(&self, word: u16) -> u16 {
        self.send(READ | word, COMMAND_BITS);
        let value = (0..16).fold(0, |value, _| value << 1 | u16::from(self.clock(0)));
        self.pins(0);
        value
    }

    /// Programs a word and reads it back.
    ///
    /// # Errors
    /// `STATUS_IO_TIMEOUT` if the part does not get ready, `STATUS_DEVICE_DATA_ERROR` if it does not keep the word.
    pub(crate) fn write(&self, word: u16, value: u16, passive: &mut Passive) -> Result<()> {
        self.command(WRITE_ENABLE);
        self.send(WRITE | word, COMMAND_BITS);
        self.send(value, 16);
        self.pins(0); // programming begins
        let ready = self.wait_until_ready(passive);
        self.command(WRITE_DISABLE);
        if !ready {
            return Err(NtStatus::IO_TIMEOUT);
        }
        if self.read(word) == value { Ok(()) } else { Err(NtStatus::DEVICE_DATA_ERROR) }
    }

    /// While it programs, a selected part holds its output low.
    fn wait_until_ready(&self, passive: &mut Passive) -> bool {
        let ready = (0..PROGRAMMING).any(|_| {
            wdm::delay_milliseconds(1, passive);
            self.pins(SELECT);
            self.lcr.read(CNTRL) & DATA_OUT != 0
        });
        self.pins(0);
        ready
    }

    /// A command without data.
    fn command(&self, command: u16) {
        self.send(command, COMMAND_BITS);
        self.pins(0);
    }

    /// Clocks the lowest `bits` bits in, the highest of them first.
    fn send(&self, value: u16, bits: u32) {
        for bit in (0..bits).rev() {
            self.clock(if value >> bit & 1 != 0 { DATA_IN } else { 0 });
        }
    }

    /// One clock with this input; the output after its rising edge.
    fn clock(&self, input: u32) -> bool {
        self.pins(SELECT | input);
        self.pins(SELECT | input | CLOCK);
        let output = self.lcr.read(CNTRL) & DATA_OUT != 0;
        self.pins(SELECT | input);
        output
    }

    fn pins(&self, pins: u32) {
        self.lcr.write(CNTRL, self.rest | pins);
        wdm::stall_microseconds(1);
    }
}

impl Drop for Eeprom<'_> {
    fn drop(&mut self) {
        self.pins(0);
    }
}
