//! The two 8237A DMA controllers of a PC, behind ports 00h-0Fh and C0h-DFh, with the page registers at 81h-8Fh: eight bits wide on channels
//! 0 to 3, sixteen on 5 to 7, and channel 4 for the first controller. Intel's data sheet *8237A High Performance Programmable DMA Controller*.
//!
//! A card that has a channel asks for it (DREQ) by [`IsaDma::run`], which moves bytes as long as the channel is programmed for that way and
//! not masked. Addresses have 24 bits and wrap within 64 KiB (128 KiB on the wide channels). It does not count addresses down, does not move
//! from memory to memory, and has no software requests; the mode (single, demand, block) is kept, and the card decides how much comes at once.

use kernel::hal::hardware::Memory;

/// Channels, the one for the first controller included.
const CHANNELS: usize = 8;
/// It stands for the first controller on the second.
const CASCADE: usize = 4;
/// Offset 00h is not used here: it shows the progress of a power-on test.
const PAGES: [u16; CHANNELS] = [0x87, 0x83, 0x81, 0x82, 0x8F, 0x8B, 0x89, 0x8A];
const AUTO_INITIALIZE: u8 = 0x10;
const TYPE: u8 = 0x0C;
/// From the card to memory, in a mode's type.
const WRITE: u8 = 0x04;
/// From memory to the card.
const READ: u8 = 0x08;

#[derive(Clone, Copy, Default)]
struct Channel {
    /// What was programmed, and what is loaded again by auto-initialization: address and count, in units of the channel.
    base: (u16, u16),
    /// What is left of it.
    current: (u16, u16),
    page: u8,
    mode: u8,
    is_masked: bool,
    /// Terminal count was reached, and the status was not read since.
    is_done: bool,
}

/// What a card's request came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moved {
    /// Bytes.
    pub bytes: usize,
    /// The last of them was the last of the channel's count.
    pub is_terminal: bool,
}

/// Which way a card's bytes go.
pub(crate) enum Data<'b> {
    /// From the card to memory.
    Given(&'b [u8]),
    /// From memory to the card.
    Taken(&'b mut [u8]),
}

/// Both controllers.
#[derive(Default)]
pub(crate) struct IsaDma {
    channels: [Channel; CHANNELS],
    /// Of each controller: whether the next access to an address or a count is to its upper half.
    is_upper: [bool; 2],
    /// Of each controller, bit 2: it is disabled and serves no channel.
    commands: [u8; 2],
}

/// A register of the controllers.
enum Place {
    Address(usize),
    Count(usize),
    /// One of the sixteen registers of a controller, from 8 on.
    Control(usize, u16),
    Page(usize),
}

fn place(port: u16) -> Option<Place> {
    if let Some(channel) = PAGES.iter().position(|page| *page == port) {
        return Some(Place::Page(channel));
    }
    let (controller, register) = match port {
        0x00..=0x0F => (0, port),
        0xC0..=0xDF if port.is_multiple_of(2) => (1, (port - 0xC0) / 2),
        _ => return None,
    };
    let channel = 4 * controller + usize::from(register / 2);
    Some(match register {
        0..8 if register.is_multiple_of(2) => Place::Address(channel),
        0..8 => Place::Count(channel),
        _ => Place::Control(controller, register),
    })
}

impl IsaDma {
    /// As firmware leaves them: all channels masked, but the one for the first controller.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
        for (number, channel) in self.channels.iter_mut().enumerate() {
            channel.is_masked = number != CASCADE;
        }
    }

    /// A byte that is read; none if the port is none of theirs.
    pub(crate) fn read(&mut self, port: u16) -> Option<u8> {
        Some(match place(port)? {
            Place::Page(channel) => self.channels[channel].page,
            Place::Address(channel) => self.half(channel / 4, self.channels[channel].current.0),
            Place::Count(channel) => self.half(channel / 4, self.channels[channel].current.1),
            // Reading the status clears its terminal count bits.
            Place::Control(controller, 8) => {
                let own = &mut self.channels[4 * controller..4 * controller + 4];
                let bit = |(number, channel): (usize, &mut Channel)| {
                    u8::from(std::mem::take(&mut channel.is_done)) << number
                };
                own.iter_mut().enumerate().map(bit).sum()
            }
            Place::Control(..) => u8::MAX,
        })
    }

    /// One half of a register after the other.
    fn half(&mut self, controller: usize, value: u16) -> u8 {
        value.to_le_bytes()[usize::from(self.turn(controller))]
    }

    /// A byte that is written; whether the port is one of theirs.
    pub(crate) fn write(&mut self, port: u16, value: u8) -> bool {
        let Some(place) = place(port) else { return false };
        match place {
            Place::Page(channel) => self.channels[channel].page = value,
            Place::Address(channel) => {
                let is_upper = self.turn(channel / 4);
                let Channel { base, current, .. } = &mut self.channels[channel];
                base.0 = with_half(base.0, is_upper, value);
                current.0 = with_half(current.0, is_upper, value);
            }
            Place::Count(channel) => {
                let is_upper = self.turn(channel / 4);
                let Channel { base, current, .. } = &mut self.channels[channel];
                base.1 = with_half(base.1, is_upper, value);
                current.1 = with_half(current.1, is_upper, value);
            }
            Place::Control(controller, register) => self.control(controller, register, value),
        }
        true
    }

    fn turn(&mut self, controller: usize) -> bool {
        let is_upper = self.is_upper[controller];
        self.is_upper[controller] = !is_upper;
        is_upper
    }

    fn control(&mut self, controller: usize, register: u16, value: u8) {
        let own = 4 * controller..4 * controller + 4;
        let channel = 4 * controller + usize::from(value & 3);
        match register {
            0x8 => self.commands[controller] = value,
            0xA => self.channels[channel].is_masked = value & 4 != 0,
            0xB => self.channels[channel].mode = value,
            0xC => self.is_upper[controller] = false,
            0xD => {
                self.is_upper[controller] = false;
                self.commands[controller] = 0;
                self.channels[own]
                    .iter_mut()
                    .for_each(|channel| (channel.is_masked, channel.is_done) = (true, false));
            }
            0xE => self.channels[own].iter_mut().for_each(|channel| channel.is_masked = false),
            0xF => {
                for (number, channel) in self.channels[own].iter_mut().enumerate() {
                    channel.is_masked = value & 1 << number != 0;
                }
            }
            _ => {}
        }
    }

    /// Whether a card that asks for this channel has it.
    fn is_granted(&self, number: usize, data: &Data<'_>) -> bool {
        let wanted = if matches!(data, Data::Given(_)) { WRITE } else { READ };
        let works = |controller: usize| self.commands[controller] & 4 == 0;
        self.channels.get(number).is_some_and(|channel| {
            !channel.is_masked
                && channel.mode & TYPE == wanted
                && works(number / 4)
                && (number > CASCADE || works(1) && !self.channels[CASCADE].is_masked)
        })
    }

    /// The card named `card` asks for its channel: as many bytes are moved as its count has left.
    pub(crate) fn run(
        &mut self,
        memory: &mut dyn Memory,
        card: &str,
        number: u8,
        mut data: Data<'_>,
    ) -> Moved {
        let mut moved = Moved { bytes: 0, is_terminal: false };
        let number = usize::from(number);
        let unit = if number > CASCADE { 2 } else { 1 };
        let wanted = match &data {
            Data::Given(bytes) => bytes.len(),
            Data::Taken(bytes) => bytes.len(),
        } / unit;
        while moved.bytes < wanted * unit && !moved.is_terminal && self.is_granted(number, &data) {
            let channel = &mut self.channels[number];
            let (address, count) = channel.current;
            let before_wrap = 0x1_0000 - usize::from(address);
            let units = (wanted - moved.bytes / unit).min(usize::from(count) + 1).min(before_wrap);
            let part = moved.bytes..moved.bytes + units * unit;
            let place = if unit == 2 {
                u64::from(channel.page & 0xFE) << 16 | u64::from(address) << 1
            } else {
                u64::from(channel.page) << 16 | u64::from(address)
            };
            let _answered = match &mut data {
                Data::Given(bytes) => memory.write(card, place, &bytes[part.clone()]),
                Data::Taken(bytes) => memory.read(card, place, &mut bytes[part.clone()]),
            };
            moved.bytes = part.end;
            moved.is_terminal = units == usize::from(count) + 1;
            channel.advance(units);
        }
        moved
    }
}

impl Channel {
    fn advance(&mut self, units: usize) {
        // Not more than 64 Ki at a time: what wraps is meant to.
        let units = u16::try_from(units & 0xFFFF).unwrap_or(0);
        let (address, count) = self.current;
        let is_terminal = count.wrapping_add(1) == units;
        self.current = (address.wrapping_add(units), count.wrapping_sub(units));
        if is_terminal {
            self.is_done = true;
            if self.mode & AUTO_INITIALIZE != 0 {
                self.current = self.base;
            } else {
                self.is_masked = true;
            }
        }
    }
}

fn with_half(value: u16, is_upper: bool, half: u8) -> u16 {
    let mut bytes = value.to_le_bytes();
    bytes[usize::from(is_upper)] = half;
    u16::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From address 0 on.
    struct Ram(Vec<u8>);

    impl Memory for Ram {
        fn read(&mut self, _master: &str, address: u64, into: &mut [u8]) -> bool {
            let at = usize::try_from(address).unwrap();
            into.copy_from_slice(&self.0[at..at + into.len()]);
            true
        }

        fn write(&mut self, _master: &str, address: u64, from: &[u8]) -> bool {
            let at = usize::try_from(address).unwrap();
            self.0[at..at + from.len()].copy_from_slice(from);
            true
        }
    }

    fn made() -> (IsaDma, Ram) {
        let mut controllers = IsaDma::default();
        controllers.reset();
        (controllers, Ram(vec![0; 0x10_0000]))
    }

    fn write_all(controllers: &mut IsaDma, writes: &[(u16, u8)]) {
        writes.iter().for_each(|(port, value)| assert!(controllers.write(*port, *value), "{port:#x}"));
    }

    /// Channel 1, from the card to memory, five bytes at 02FFFEh.
    const FIVE: [(u16, u8); 8] =
        [(0x0C, 0), (0x0B, 0x45), (0x02, 0xFE), (0x02, 0xFF), (0x83, 2), (0x03, 4), (0x03, 0), (0x0A, 1)];

    #[test]
    fn a_channel_counts_up_to_its_end_within_its_64_kib_and_then_serves_nobody() {
        let (mut controllers, mut ram) = made();
        let mut give =
            |controllers: &mut IsaDma, bytes: &[u8]| controllers.run(&mut ram, "card", 1, Data::Given(bytes));
        assert_eq!(give(&mut controllers, b"abc").bytes, 0, "it is masked");
        write_all(&mut controllers, &FIVE);
        assert_eq!(give(&mut controllers, b"abc"), Moved { bytes: 3, is_terminal: false });
        write_all(&mut controllers, &[(0x0C, 0)]);
        assert_eq!((controllers.read(3), controllers.read(3)), (Some(1), Some(0)), "one less than is left");
        assert_eq!(give(&mut controllers, b"defg"), Moved { bytes: 2, is_terminal: true });
        assert_eq!(give(&mut controllers, b"fg").bytes, 0, "the count has ended");
        assert_eq!((controllers.read(8), controllers.read(8)), (Some(2), Some(0)), "reading clears it");
        assert_eq!((&ram.0[0x2_FFFE..0x3_0000], &ram.0[0x2_0000..0x2_0003]), (&b"ab"[..], &b"cde"[..]));
    }

    #[test]
    fn auto_initialization_begins_again_and_the_other_way_is_not_served() {
        let (mut controllers, mut ram) = made();
        write_all(&mut controllers, &FIVE);
        write_all(&mut controllers, &[(0x0B, 0x55)]);
        assert_eq!(controllers.run(&mut ram, "card", 1, Data::Taken(&mut [0; 2])).bytes, 0);
        assert_eq!(controllers.run(&mut ram, "card", 1, Data::Given(b"abcdefg")).bytes, 5);
        assert_eq!(controllers.run(&mut ram, "card", 1, Data::Given(b"fg")).bytes, 2);
        assert_eq!(&ram.0[0x2_FFFE..0x3_0000], b"fg");
        write_all(&mut controllers, &[(0xD4, 4)]);
        assert_eq!(
            controllers.run(&mut ram, "card", 1, Data::Given(b"h")).bytes,
            0,
            "the first is behind channel 4"
        );
    }

    #[test]
    fn channels_from_5_on_count_words_and_there_are_no_other_ports() {
        let (mut controllers, mut ram) = made();
        ram.0[0x4_0010..0x4_0014].copy_from_slice(b"word");
        let channel_6 =
            [(0xD8, 0), (0xD6, 0x4A), (0xC8, 8), (0xC8, 0), (0x89, 4), (0xCA, 1), (0xCA, 0), (0xD4, 2)];
        write_all(&mut controllers, &channel_6);
        let mut came = [0; 6];
        let moved = controllers.run(&mut ram, "card", 6, Data::Taken(&mut came));
        assert_eq!((moved, &came[..4]), (Moved { bytes: 4, is_terminal: true }, &b"word"[..]));
        for port in [0x10, 0x80, 0x84, 0xC1, 0xE0] {
            assert!(!controllers.write(port, 1) && controllers.read(port).is_none(), "{port:#x}");
        }
    }
}
