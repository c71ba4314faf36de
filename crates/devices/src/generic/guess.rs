//! A cause of a card's interrupt where it is not known which register shows it, and how it is taken back. So all do: they read as what they hold with the
//! cause's bits set. When the driver has read some of them, its next write lets the pin drop, whatever it writes and wherever; and ones that it writes clear
//! their bits in that register, as most cards have it. What is not cleared so goes by itself. A card that has done what it was asked for shows nothing behind that
//! write: bits that start it and bits that say it is done may be alike, in different registers.

use crate::pci::Access;
use crate::register::{lanes, ones};

/// A cause that is there.
pub(super) struct Guess {
    bits: u32,
    /// Registers in which bits were cleared, by window and offset, and which.
    cleared: Vec<(u8, u64, u32)>,
    /// The driver has read some of them.
    was_seen: bool,
    /// The first write behind that takes all bits back.
    is_done: bool,
    asserts: bool,
    ends: u64,
}

impl Guess {
    /// Such a cause, until a moment in ns.
    pub(super) const fn new(bits: u32, ends: u64) -> Self {
        Self { bits, cleared: Vec::new(), was_seen: false, is_done: false, asserts: true, ends }
    }

    /// As [`new`](Self::new), of a card that has done what it was asked for.
    pub(super) fn done(bits: u32, ends: u64) -> Self {
        Self { is_done: true, ..Self::new(bits, ends) }
    }

    /// Whether it asserts the pin.
    pub(super) const fn asserts(&self) -> bool {
        self.asserts
    }

    /// When it goes by itself.
    pub(super) const fn ends(&self) -> u64 {
        self.ends
    }

    /// What the driver reads where the windows hold this.
    pub(super) fn read(&mut self, access: &Access, value: u64) -> u64 {
        if self.is_done && !self.asserts {
            return value;
        }
        let (bar, register) = (access.bar, access.offset / 4);
        let cleared = self.cleared.iter().find(|(of, at, _)| (*of, *at) == (bar, register));
        let shown = self.bits & !cleared.map_or(0, |(_, _, bits)| *bits);
        let shown = lanes(shown, access.offset) & ones(access.bytes());
        self.was_seen |= shown != 0;
        value | shown
    }

    /// The driver writes this: what is stored.
    pub(super) fn write(&mut self, access: &Access, value: u64) -> u64 {
        if !self.was_seen {
            return value;
        }
        self.asserts = false;
        let (bar, register) = (access.bar, access.offset / 4);
        let written = value & lanes(self.bits, access.offset) & ones(access.bytes());
        let behind = access.offset % 4;
        let bits = u32::try_from((written << (8 * behind)) & ones(4)).expect("it is masked");
        match self.cleared.iter_mut().find(|(of, at, _)| (*of, *at) == (bar, register)) {
            Some((_, _, cleared)) => *cleared |= bits,
            None => self.cleared.push((bar, register, bits)),
        }
        value & !written
    }
}

#[cfg(test)]
mod tests {
    use kernel::hal::hardware::Width;

    use super::*;

    fn at(offset: u64, width: Width) -> Access {
        Access { now: 0, bar: 0, offset, address: offset, width }
    }

    #[test]
    fn a_card_that_is_done_shows_nothing_behind_the_first_write_that_has_seen_it() {
        let mut cause = Guess::done(1, 1000);
        assert_eq!(cause.write(&at(0, Width::Dword), 1), 1, "nothing has been seen");
        assert_eq!((cause.read(&at(8, Width::Dword), 0), cause.asserts()), (1, true));
        assert_eq!((cause.write(&at(8, Width::Dword), 1), cause.asserts()), (0, false));
        assert_eq!((cause.read(&at(8, Width::Dword), 0), cause.read(&at(0, Width::Dword), 0)), (0, 0));
    }

    #[test]
    fn all_registers_show_a_cause_until_ones_are_written_and_the_pin_drops_behind_the_first_write_that_has_seen_it()
     {
        let mut cause = Guess::new(0x0001_0200, 1000);
        // The enable register is written before the cause was seen.
        assert_eq!((cause.write(&at(4, Width::Dword), 0x0001_0200), cause.asserts()), (0x0001_0200, true));
        assert_eq!(cause.read(&at(8, Width::Dword), 0x0400_0000), 0x0401_0200);
        assert_eq!(
            (
                cause.read(&at(9, Width::Byte), 0),
                cause.read(&at(0xA, Width::Word), 0),
                cause.read(&at(0xB, Width::Byte), 5)
            ),
            (2, 1, 5)
        );
        // By bytes, too.
        assert_eq!((cause.write(&at(9, Width::Byte), 2), cause.asserts()), (0, false));
        assert_eq!(cause.read(&at(8, Width::Dword), 0), 0x0001_0000);
        assert_eq!(cause.write(&at(8, Width::Dword), 0x0401_0000), 0x0400_0000);
        assert_eq!(
            (cause.read(&at(8, Width::Dword), 0), cause.read(&at(0xC, Width::Dword), 0)),
            (0, 0x0001_0200)
        );
    }
}
