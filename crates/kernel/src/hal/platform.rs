//! The computer that a machine is: what stands between its bus and its processors, as far as drivers notice.
//!
//! Pages: *Raw and Translated Resources*, *IoConnectInterruptEx function*, *Using IoConnectInterruptEx Prior to Windows Vista*,
//! *Using Passive-Level Interrupt Service Routines*. Each setting reaches a path that drivers have and an ordinary PC never takes.

use std::fmt;
use std::str::FromStr;

/// How far above its bus address a device's memory stands with [`Platform::shifted_bus`].
const SHIFT: u64 = 0x80_0000_0000;

/// The most messages that a device may be given.
const MOST_MESSAGES: u32 = 2_048;

/// The longest that a write to device memory takes, ns: as with the slowest bridges, and far less than the limits of an interrupt storm.
pub const MOST_POSTED: u64 = 20_000;

/// The longest that a computer has been running when a machine is made, in days: ticks need more than 32 bits from the 777th on.
const MOST_DAYS: u64 = 3_650;
/// Nanoseconds of a day.
const DAY: u64 = 86_400_000_000_000;
/// What times are given in, and nanoseconds of it.
const UNITS: [(&str, u64); 6] =
    [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("h", 3_600_000_000_000), ("d", DAY)];

/// What kind of computer it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Platform {
    /// The most message-signaled interrupts that a device is given, whatever it asks for: 0 to 2,048.
    pub messages: u32,
    /// `IoConnectInterruptEx` knows only `CONNECT_FULLY_SPECIFIED`, as the library for Windows before Vista.
    pub fully_specified: bool,
    /// Interrupt lines come through a controller that masks them until a thread has served them: their level is PASSIVE_LEVEL.
    pub relayed_lines: bool,
    /// `IoConnectInterruptEx` and `IoDisconnectInterruptEx` are not exported, as before Vista: drivers that find them by name fall back.
    pub before_vista: bool,
    /// Device memory has other addresses for the processors than on the bus, so that raw and translated resources differ.
    pub shifted_bus: bool,
    /// When cards do what they do by themselves.
    pub cards: Promptness,
    /// What a processor stores is seen late by others: [`super::late_stores`].
    pub late_stores: bool,
    /// Bus drivers answer the Plug and Play requests that they may later, in threads of their own, and power requests later at DISPATCH_LEVEL: [`crate::pnp::bus`].
    pub later_bus: bool,
    /// What a driver opens by name and what is not there has a stand-in: [`crate::io::stand_in`].
    pub stand_ins: bool,
    /// The script's programs are of 32 bits, as `IoIs32bitProcess` says of their requests. Their memory lies where that of others does.
    pub programs_of_32_bits: bool,
    /// There is a drive `C:` with the folders of a new Windows, where none is given: [`crate::fs::folder::Folder::of_new_windows`].
    pub drive: bool,
    /// Memory that is contiguous, and logical addresses below 4 GiB, lie below 256 MiB, as in a computer with no more.
    pub low_memory: bool,
    /// A card may be gone at each access of a driver's: [`super::loose`].
    pub loose_cards: bool,
    /// Nanoseconds that a write to device memory may take to its device: at most [`MOST_POSTED`]. 0: each is there at once.
    pub posted: u64,
    /// Nanoseconds that the computer has been running when the machine is made, as drivers see it: at most 3,650 days. Its own time begins at 0.
    pub uptime: u64,
}

/// When cards do what they do by themselves: [`super::promptness`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promptness {
    /// When they are due.
    InTime,
    /// At this access of a driver's to a device since that was due next, counted from 1 on, or when it is due; 0: behind the access by which it is.
    AtAccess(u32),
    /// At this access of a service routine's, counted from 1 on, or when it is due.
    AtRoutine(u32),
    /// When this time limit of a driver ends, counted from 1 on, or the last there is.
    AtLimit(u32),
    /// So what is due next, and all else when it is due.
    OnceAtLimit(u32),
    /// After 200 s.
    Silent,
    /// At once, of what they owe from a time in which they were silent.
    Behind,
}

impl Promptness {
    /// Whether what they do may come behind a driver's time limit, however long that is.
    pub(crate) fn is_late(self) -> bool {
        matches!(self, Self::AtLimit(_) | Self::OnceAtLimit(_) | Self::Silent | Self::Behind)
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self {
            messages: MOST_MESSAGES,
            fully_specified: false,
            relayed_lines: false,
            before_vista: false,
            shifted_bus: false,
            cards: Promptness::InTime,
            late_stores: false,
            later_bus: false,
            stand_ins: false,
            programs_of_32_bits: false,
            drive: false,
            low_memory: false,
            loose_cards: false,
            posted: 0,
            uptime: 0,
        }
    }
}

impl Platform {
    const fn shift(self) -> u64 {
        if self.shifted_bus { SHIFT } else { 0 }
    }

    /// Where the processors find what is at a bus address of device memory.
    #[must_use]
    pub const fn to_system(self, bus: u64) -> u64 {
        bus.wrapping_add(self.shift())
    }

    /// The bus address behind a system address; one that no device has, if there is none.
    #[must_use]
    pub const fn to_bus(self, system: u64) -> u64 {
        system.wrapping_sub(self.shift())
    }
}

/// As [`FromStr`] reads it; nothing for a PC as they are.
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            messages,
            fully_specified,
            relayed_lines,
            before_vista,
            shifted_bus,
            cards,
            late_stores,
            later_bus,
            stand_ins,
            programs_of_32_bits,
            drive,
            low_memory,
            loose_cards,
            posted,
            uptime,
        } = *self;
        let mut parts = Vec::new();
        if messages != MOST_MESSAGES {
            parts.push(format!("messages={messages}"));
        }
        for (is, name) in [
            (fully_specified, "fully-specified"),
            (relayed_lines, "relayed-lines"),
            (before_vista, "before-vista"),
            (shifted_bus, "shifted-bus"),
            (late_stores, "late-stores"),
            (later_bus, "later-bus"),
            (stand_ins, "stand-ins"),
            (programs_of_32_bits, "32-bit-programs"),
            (drive, "drive"),
            (low_memory, "low-memory"),
            (loose_cards, "loose-cards"),
        ] {
            if is {
                parts.push(name.to_owned());
            }
        }
        match cards {
            Promptness::InTime | Promptness::OnceAtLimit(_) | Promptness::Behind => {}
            Promptness::AtAccess(accesses) => parts.push(format!("quick-cards={accesses}")),
            Promptness::AtRoutine(accesses) => parts.push(format!("meeting-cards={accesses}")),
            Promptness::AtLimit(limits) => parts.push(format!("late-cards={limits}")),
            Promptness::Silent => parts.push("silent-cards".to_owned()),
        }
        if posted != 0 {
            parts.push(format!("posted={posted}"));
        }
        if uptime != 0 {
            parts.push(format!("uptime={uptime}"));
        }
        f.write_str(&parts.join(","))
    }
}

impl FromStr for Platform {
    type Err = String;

    /// `messages=N`, `fully-specified`, `relayed-lines`, `before-vista`, `shifted-bus`, `quick-cards=N`, `meeting-cards=N`, `late-cards=N`, `silent-cards`, `late-stores`, `later-bus`, `stand-ins`, `32-bit-programs`, `drive`, `low-memory`, `high-memory` (which takes that back), `loose-cards`, `posted=NS`, `uptime=NS`, with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut platform = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                None if part == "fully-specified" => platform.fully_specified = true,
                None if part == "relayed-lines" => platform.relayed_lines = true,
                None if part == "before-vista" => platform.before_vista = true,
                None if part == "shifted-bus" => platform.shifted_bus = true,
                None if part == "late-stores" => platform.late_stores = true,
                None if part == "later-bus" => platform.later_bus = true,
                None if part == "stand-ins" => platform.stand_ins = true,
                None if part == "32-bit-programs" => platform.programs_of_32_bits = true,
                None if part == "drive" => platform.drive = true,
                None if part == "low-memory" => platform.low_memory = true,
                None if part == "high-memory" => platform.low_memory = false,
                None if part == "loose-cards" => platform.loose_cards = true,
                None if part == "silent-cards" => platform.cards = Promptness::Silent,
                Some(("quick-cards", count)) => {
                    let counted = if count == "0" { Ok(0) } else { counted(part, count, "access") };
                    platform.cards = Promptness::AtAccess(counted?);
                }
                Some(("meeting-cards", count)) => {
                    platform.cards = Promptness::AtRoutine(counted(part, count, "access")?)
                }
                Some(("late-cards", count)) => {
                    platform.cards = Promptness::AtLimit(counted(part, count, "time limit")?)
                }
                Some(("messages", count)) => {
                    let count = count.parse().ok().filter(|count| *count <= MOST_MESSAGES);
                    platform.messages =
                        count.ok_or_else(|| format!("`{part}`: there are 0 to {MOST_MESSAGES} messages"))?;
                }
                Some(("posted", time)) => {
                    let takes = nanoseconds(time).filter(|takes| (1..=MOST_POSTED).contains(takes));
                    platform.posted = takes.ok_or_else(|| {
                        format!("`{part}`: a write takes 1 to {MOST_POSTED} ns, e.g. 500 or 2us")
                    })?;
                }
                Some(("uptime", time)) => {
                    let uptime = nanoseconds(time).filter(|uptime| *uptime <= MOST_DAYS * DAY);
                    platform.uptime = uptime.ok_or_else(|| {
                        format!("`{part}`: a computer has been running for at most {MOST_DAYS} days, e.g. 500ms or 49d")
                    })?;
                }
                _ => {
                    return Err(format!(
                        "`{part}` is nothing a platform has; there are messages=N, fully-specified, relayed-lines, \
                         before-vista, shifted-bus, quick-cards=N, meeting-cards=N, late-cards=N, silent-cards, late-stores, later-bus, stand-ins, 32-bit-programs, drive, low-memory, high-memory, loose-cards, posted=TIME and uptime=TIME"
                    ));
                }
            }
        }
        Ok(platform)
    }
}

/// A time with its unit, which is a nanosecond if none is named.
fn nanoseconds(time: &str) -> Option<u64> {
    let digits = time.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = &time[digits.len()..];
    let length = if unit.is_empty() { 1 } else { UNITS.into_iter().find(|(name, _)| *name == unit)?.1 };
    digits.parse::<u64>().ok()?.checked_mul(length)
}

/// A number from 1 on, of such things.
fn counted(part: &str, number: &str, what: &str) -> Result<u32, String> {
    let number = number.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("`{part}`: the number of the {what}, from 1 on"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_read_as_it_is_written() {
        for text in [
            "",
            "messages=3",
            "messages=0,fully-specified,relayed-lines,before-vista,shifted-bus,late-cards=3,posted=2000",
            "silent-cards",
            "quick-cards=0",
            "quick-cards=2",
            "meeting-cards=2",
            "32-bit-programs",
            "drive",
            "low-memory",
            "loose-cards",
            "uptime=4294967295000000",
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        assert_eq!("".parse(), Ok(Platform::default()));
        assert_eq!("posted=2us".parse::<Platform>().unwrap().posted, 2_000);
        assert_eq!("uptime=49d".parse::<Platform>().unwrap().uptime, 49 * DAY);
        assert_eq!("uptime=17h".parse::<Platform>().unwrap().uptime, 17 * 3_600_000_000_000);
        for wrong in [
            "posted",
            "posted=0",
            "posted=21us",
            "posted=2ms",
            "messages",
            "messages=2049",
            "messages=x",
            "relayed-lines=1",
            "quick-cards=x",
            "meeting-cards=0",
            "late-cards=0",
            "late-cards",
            "uptime",
            "uptime=1w",
            "uptime=3651d",
            "uptime=99999999999999999999s",
            "pc",
        ] {
            let why = wrong.parse::<Platform>().unwrap_err();
            assert!(why.contains(wrong), "{why}");
        }
    }

    #[test]
    fn a_shifted_bus_has_no_device_at_bus_addresses_and_ram_where_it_is() {
        let shifted = Platform { shifted_bus: true, ..Platform::default() };
        let system = shifted.to_system(0xE000_0000);
        assert_eq!((system, shifted.to_bus(system)), (0x80_E000_0000, 0xE000_0000));
        assert!(shifted.to_bus(0xE000_0000) > u64::MAX / 2);
        assert_eq!(Platform::default().to_bus(0xE000_0000), 0xE000_0000);
        assert!(crate::mm::physical::RAM.iter().all(|range| range.base + range.length <= SHIFT));
    }
}
