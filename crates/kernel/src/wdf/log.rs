//! What a framework has written down of each client, in memory (its in-flight recorder): read when a run has ended with a verdict.
//!
//! The layout is that of the framework's published source (Windows-Driver-Frameworks, `fxifr.h`), and of KMDF 1.7's image: a block of pool with a tag and a GUID of
//! its own, a header, and records that are written round, each with the offset of the one before. A record says which message it is (WPP): its text
//! is in the framework's PDB. What does not look like that is passed over: frameworks may do without.

use std::ops::RangeInclusive;

use crate::cx::Kernel;
use crate::etw::describe::hex;
use crate::event::Event;
use crate::mm::pool;
use crate::wmi::{Guid, guid_text};

const TAG: u32 = pool::tag(b"FxLg");
/// {544D4C9D-942C-46D5-BF50-DF5CD9524A50}
const GUID: Guid =
    [0x9d, 0x4c, 0x4d, 0x54, 0x2c, 0x94, 0xd5, 0x46, 0xbf, 0x50, 0xdf, 0x5c, 0xd9, 0x52, 0x4a, 0x50];

/// Bytes of the header, and of a record without its arguments; where they have what.
const HEADER: usize = 0x48;
const BASE: usize = 0x10;
const SIZE: usize = 0x18;
const NEWEST: usize = 0x1E;
const NAME: usize = 0x24;
const RECORD: usize = 0x1C;
const LENGTH: usize = 2;
const SEQUENCE: usize = 4;
const BEFORE: usize = 8;
const NUMBER: usize = 0xA;
const MESSAGE: usize = 0xC;
/// How a record begins.
const SIGNATURE: [u8; 2] = *b"LR";
/// Bytes of a record.
const LENGTHS: RangeInclusive<usize> = RECORD..=RECORD + 0x100;
/// A log is no longer.
const LONGEST: usize = 0x1_0000;

/// The log of one client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameworkLog {
    /// The client's name, as its framework has it.
    pub client: String,
    /// Its messages that are still there, the oldest first, each with its number in the log.
    pub messages: Vec<(u32, Event)>,
}

/// The logs of all clients that have messages.
#[must_use]
pub fn all(k: &Kernel) -> Vec<FrameworkLog> {
    if k.wdf.clients.is_empty() {
        return Vec::new();
    }
    let blocks = k.mm.pool.all().into_iter().filter(|(_, block)| block.tag == TAG && !block.is_freed());
    let logs = blocks.filter_map(|(address, _)| read(k, address));
    logs.filter(|log| !log.messages.is_empty()).collect()
}

fn read(k: &Kernel, address: u64) -> Option<FrameworkLog> {
    let mut header = [0; HEADER];
    k.engine.read_bytes(address, &mut header).ok()?;
    let base = u64::from_le_bytes(field(&header, BASE)?);
    let size = usize::try_from(u32::from_le_bytes(field(&header, SIZE)?)).ok()?;
    if field(&header, 0)? != GUID || base != address + HEADER as u64 || size > LONGEST {
        return None;
    }
    let mut log = vec![0; size];
    k.engine.read_bytes(base, &mut log).ok()?;
    let name = header[NAME..].split(|byte| *byte == 0).next().unwrap_or_default();
    let client = String::from_utf8_lossy(name).into_owned();
    Some(FrameworkLog { client, messages: messages(&log, u16::from_le_bytes(field(&header, NEWEST)?)) })
}

/// From the newest back, as long as each was written before the last.
fn messages(log: &[u8], newest: u16) -> Vec<(u32, Event)> {
    let mut all: Vec<(u32, Event)> = Vec::new();
    let mut at = usize::from(newest);
    while let Some((sequence, before, event)) = record(log, at)
        && all.last().is_none_or(|(later, _)| sequence < *later)
    {
        all.push((sequence, event));
        at = before;
    }
    all.reverse();
    all
}

fn record(log: &[u8], at: usize) -> Option<(u32, usize, Event)> {
    let record = log.get(at..at + RECORD)?;
    let length = usize::from(u16::from_le_bytes(field(record, LENGTH)?));
    if !record.starts_with(&SIGNATURE) || !LENGTHS.contains(&length) {
        return None;
    }
    let arguments = hex(log.get(at + RECORD..at + length)?);
    let event = Event::TraceMessage {
        guid: guid_text(&field(record, MESSAGE)?),
        number: u16::from_le_bytes(field(record, NUMBER)?).into(),
        arguments,
    };
    let before = u16::from_le_bytes(field(record, BEFORE)?).into();
    Some((u32::from_le_bytes(field(record, SEQUENCE)?), before, event))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of records at these offsets, each with the sequence number and the offset of the one before.
    fn log(records: &[(u16, u32, u16)]) -> Vec<u8> {
        let mut log = vec![0; 0x200];
        for (at, sequence, before) in records {
            let at = usize::from(*at);
            log[at..at + 2].copy_from_slice(&SIGNATURE);
            log[at + LENGTH..][..2].copy_from_slice(&0x20_u16.to_le_bytes());
            log[at + SEQUENCE..][..4].copy_from_slice(&sequence.to_le_bytes());
            log[at + BEFORE..][..2].copy_from_slice(&before.to_le_bytes());
        }
        log
    }

    fn numbers(log: &[u8], newest: u16) -> Vec<u32> {
        messages(log, newest).into_iter().map(|(sequence, _)| sequence).collect()
    }

    #[test]
    fn records_are_followed_from_the_newest_back_to_what_was_overwritten() {
        assert_eq!(numbers(&log(&[(0, 1, 0), (0x20, 2, 0), (0x40, 3, 0x20)]), 0x40), [1, 2, 3]);
        // Written round: the third lies where the first was, and what the second says of that leads to a later one.
        assert_eq!(numbers(&log(&[(0, 3, 0x20), (0x20, 2, 0)]), 0), [2, 3]);
        assert_eq!(numbers(&log(&[]), 0), []);
    }

    #[test]
    fn a_record_that_cannot_be_one_ends_the_log() {
        let mut bytes = log(&[(0, 1, 0), (0x20, 2, 0)]);
        bytes[LENGTH] = 4;
        assert_eq!(numbers(&bytes, 0x20), [2]);
        assert_eq!(numbers(&log(&[(0, 1, 0)]), 0x1F8), []);
        assert_eq!(numbers(&log(&[(0x20, 2, 0xFFFF)]), 0x20), [2]);
    }
}
