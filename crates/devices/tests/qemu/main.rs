//! Our model of QEMU's educational device beside QEMU's own: the same accesses to both, and what they read, which level their pin
//! has, which messages they send and which bytes they move is the same.
//!
//! What QEMU ends itself at (a transfer out of the buffer, or of no bytes) and what it prints a complaint about (an address beyond
//! the mask) is not asked: our model refuses it. QEMU 7.2 ends itself at the last byte of the buffer, too, so that is left out.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod qtest;
#[path = "../stories/rig.rs"]
#[allow(dead_code, reason = "the rig is that of the other stories")]
mod rig;

use kernel::hal::hardware::{Hardware, Width};
use qtest::{Qemu, Time};
use rig::{Numbers, Rig};

const CARD: &str = "edu#0";
const FACTORIAL: u64 = 0x08;
const STATUS: u64 = 0x20;
const INTERRUPTS: u64 = 0x24;
const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
const BUFFER: u64 = 0x4_0000;
/// Where messages go to, in memory.
const MAILBOX: u64 = 0xF0_0000;

/// Memory space, bus master.
const MEMORY: u32 = 2;
const MASTER: u32 = 4;
const NO_LINE: u32 = 0x400;

/// The two cards.
struct Both {
    ours: Rig,
    qemus: Qemu,
    messages: bool,
    /// What was done, for a failure.
    log: Vec<String>,
}

impl Both {
    fn new(spec: &str, time: Time) -> Self {
        let mut both = Self {
            ours: Rig::new(&[spec]),
            qemus: Qemu::start("edu", time),
            messages: false,
            log: Vec::new(),
        };
        both.command(MEMORY | MASTER);
        both
    }

    /// What was done last.
    fn before(&self) -> String {
        let seed = self.log.iter().rev().find(|line| line.starts_with("---")).map_or("", |line| line);
        let from = self.log.len().saturating_sub(25);
        format!("{seed}\n  {}", self.log[from..].join("\n  "))
    }

    #[track_caller]
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: String, ours: &T, qemus: &T) {
        if ours != qemus {
            panic!("{what}: ours {ours:x?}, QEMU's {qemus:x?}, after\n  {}", self.before());
        }
        self.log.push(format!("{what}: {ours:x?}"));
    }

    fn command(&mut self, command: u32) {
        self.ours.set_config(CARD, 4, Width::Word, command);
        self.qemus.set_config(4, command);
        self.log.push(format!("command register {command:x}"));
        self.pin();
    }

    /// What one sees from outside: the line, or the message that was written to memory.
    #[track_caller]
    fn pin(&mut self) {
        self.same("line".to_owned(), &(self.ours.bus.lines() != 0), &self.qemus.line());
        let sent = self.ours.bus.take_messages();
        assert!(sent.iter().all(|message| message.address == MAILBOX));
        let ours = sent.last().map_or(0, |message| message.data);
        if self.messages {
            let came = self.qemus.memory(MAILBOX, 4);
            self.same("message".to_owned(), &ours, &u32::from_le_bytes(came.try_into().unwrap()));
            self.qemus.set_memory(MAILBOX, &[0; 4]);
        } else {
            assert!(sent.is_empty(), "ours sends messages that were not turned on");
        }
    }

    fn width(bytes: u64) -> Width {
        if bytes == 8 { Width::Qword } else { Width::Dword }
    }

    #[track_caller]
    fn read(&mut self, offset: u64, bytes: u64) -> u64 {
        let ours = self.ours.read(CARD, 0, offset, Self::width(bytes));
        let qemus = self.qemus.read(offset, bytes);
        self.same(format!("read {offset:x}h, {bytes} bytes"), &ours, &qemus);
        ours
    }

    #[track_caller]
    fn write(&mut self, offset: u64, bytes: u64, value: u64) {
        self.log.push(format!("write {offset:x}h, {bytes} bytes ← {value:x}h"));
        self.ours.write(CARD, 0, offset, Self::width(bytes), value);
        self.qemus.write(offset, bytes, value);
        self.settle();
        self.pin();
    }

    /// Waits until QEMU's card has done what it was asked for.
    fn settle(&mut self) {
        while self.qemus.read(STATUS, 4) & 1 != 0 || self.qemus.read(COMMAND, 8) & 1 != 0 {}
    }

    /// The factorial of a number, and its interrupt if the status register says so.
    fn factorial(&mut self, number: u64) {
        self.log.push(format!("factorial of {number}"));
        let interrupts = self.ours.read(CARD, 0, STATUS, Width::Dword) & 0x80 != 0;
        if interrupts {
            // So that one sees it come: QEMU's thread raises it a moment after it has said that it is done.
            self.write(ACKNOWLEDGE, 4, 1);
        }
        self.ours.write(CARD, 0, FACTORIAL, Width::Dword, number);
        self.qemus.write(FACTORIAL, 4, number);
        self.settle();
        while interrupts && self.qemus.read(INTERRUPTS, 4) & 1 == 0 {}
        self.pin();
        self.read(FACTORIAL, 4);
        self.read(STATUS, 4);
        self.read(INTERRUPTS, 4);
    }

    /// Bytes into both memories.
    fn fill(&mut self, address: u64, bytes: &[u8]) {
        let at = usize::try_from(address).unwrap();
        self.ours.memory.0[at..at + bytes.len()].copy_from_slice(bytes);
        self.qemus.set_memory(address, bytes);
    }

    #[track_caller]
    fn compare(&mut self, address: u64, length: usize) {
        let at = usize::try_from(address).unwrap();
        let ours = self.ours.memory.0[at..at + length].to_vec();
        let qemus = self.qemus.memory(address, length);
        assert!(ours == qemus, "memory at {address:x}h differs after\n  {}", self.before());
    }

    /// One transfer at `offset` of the buffer.
    #[track_caller]
    fn transfer(&mut self, memory: u64, offset: u64, count: u64, command: u64, bytes: u64) {
        let card = BUFFER + offset;
        let (source, destination) = if command & 2 != 0 { (card, memory) } else { (memory, card) };
        self.write(SOURCE, bytes, source);
        self.write(DESTINATION, bytes, destination);
        self.write(COUNT, bytes, count);
        self.write(COMMAND, bytes, command | 1);
        for offset in [SOURCE, DESTINATION, COUNT, COMMAND] {
            self.read(offset, 8);
        }
        self.read(INTERRUPTS, 4);
        // A page more on each side: nothing else was touched.
        self.compare(memory - 0x1000, usize::try_from(count).unwrap() + 0x2000);
    }

    /// From the line to messages or back, with nothing pending: what becomes of the pin otherwise is QEMU's own.
    fn use_messages(&mut self, on: bool, data: u32) {
        self.write(ACKNOWLEDGE, 4, u64::from(u32::MAX));
        self.log.push(format!("messages {on}, data {data:x}"));
        let writes = [(0x44, 0x00F0_0003), (0x48, 0), (0x4C, data), (0x40, u32::from(on) << 16)];
        for (offset, value) in writes {
            self.ours.set_config(CARD, offset, Width::Dword, value);
            self.qemus.set_config(offset.into(), value);
            let ours = self.ours.config(CARD, offset, Width::Dword);
            let qemus = self.qemus.config(offset.into());
            self.same(format!("configuration space, {offset:x}h"), &ours, &qemus);
        }
        self.messages = on;
        self.pin();
    }
}

/// One step of a script.
fn step(both: &mut Both, numbers: &mut Numbers) {
    let word = |numbers: &mut Numbers| numbers.next() & 0xFFFF_FFFF;
    match numbers.below(16) {
        0 => both.write(4, 4, word(numbers)),
        1 => {
            let offset =
                [0x00, 0x04, 0x08, 0x0C, 0x1C, 0x20, 0x24, 0x28, 0x60, 0x64, 0x7C][numbers.below(11)];
            both.read(offset, 4);
        }
        2 => {
            let (offset, bytes) =
                [(0x80, 4), (0x84, 4), (0x88, 8), (0x90, 4), (0x98, 8), (0xA0, 8)][numbers.below(6)];
            both.read(offset, bytes);
        }
        3 => both.factorial([0, 1, 2, 12, 13, 20, 33, 34, 1000][numbers.below(9)]),
        4 => both.write(STATUS, 4, word(numbers)),
        5 | 6 => both.write(RAISE, 4, word(numbers) & word(numbers)),
        7 => both.write(ACKNOWLEDGE, 4, word(numbers) | word(numbers)),
        8 => both.write(ACKNOWLEDGE, 4, 0xFFFF_FFFF),
        9 => {
            // What cannot be written, what is not there, and a command that starts nothing.
            let offset = [0x00, 0x24, 0x0C, 0x84, COMMAND][numbers.below(5)];
            both.write(offset, 4, word(numbers) & !1);
        }
        10 => {
            let command = [MEMORY, MASTER | MEMORY, MASTER | MEMORY | NO_LINE][numbers.below(3)];
            both.command(command);
        }
        11 => both.use_messages(numbers.below(2) == 1, low16(numbers.next())),
        _ => {
            // Above firmware, with a page in front.
            let memory = 0x20_0000 + numbers.below(0x80_0000) as u64;
            let offset = numbers.below(4095);
            let count = 1 + numbers.below(4095 - offset);
            let bytes: Vec<u8> = (0..count).map(|_| numbers.next().to_le_bytes()[3]).collect();
            both.fill(memory, &bytes);
            let command = (numbers.next() & 6) | if numbers.below(4) == 0 { numbers.next() & !7 } else { 0 };
            let wide = numbers.below(2) == 0;
            let (command, bytes) = if wide { (command, 8) } else { (command & 0xFFFF_FFFF, 4) };
            both.transfer(memory, offset as u64, count as u64, command, bytes);
        }
    }
}

fn low16(value: u64) -> u32 {
    u32::try_from(value & 0xFFFF).unwrap()
}

#[test]
fn generated_scripts_read_interrupt_and_move_the_same_as_qemus_own_card() {
    // Its time is none here: each script has the same accesses for both, and no time between them.
    let mut both = Both::new("edu,slot=3,dma=0,factorial=0", Time::Passes);
    for seed in 0..50 {
        both.log.push(format!("--- seed {seed}"));
        let mut numbers = Numbers::from(seed);
        (0..60).for_each(|_| step(&mut both, &mut numbers));
        // The whole buffer, as far as QEMU gives it.
        both.command(MEMORY | MASTER);
        both.transfer(0x30_0000, 0, 4095, 2, 8);
    }
    for what in ["line: true", "line: false", "messages true", "factorial of 12"] {
        assert!(both.log.iter().any(|line| line.starts_with(what)), "no script had `{what}`");
    }
    let sent = |line: &&String| line.starts_with("message: ") && *line != "message: 0";
    assert!(both.log.iter().any(|line| sent(&line)), "no script had a message");
}

#[test]
fn while_a_transfer_runs_its_registers_hear_nothing_and_the_others_do() {
    let mut both = Both::new("edu,slot=3", Time::Stands);
    both.write(SOURCE, 8, 0x10_0000);
    both.write(DESTINATION, 8, BUFFER);
    both.write(COUNT, 8, 16);
    let start = |both: &mut Both, command: u64| {
        both.ours.write(CARD, 0, COMMAND, Width::Qword, command);
        both.qemus.write(COMMAND, 8, command);
    };
    start(&mut both, 5);
    assert_eq!(both.read(COMMAND, 8), 5, "it runs");
    for offset in [SOURCE, DESTINATION, COUNT, COMMAND] {
        both.ours.write(CARD, 0, offset, Width::Qword, 0x1234);
        both.qemus.write(offset, 8, 0x1234);
    }
    // Ours says so.
    let ignored = both.ours.try_write(CARD, 0, COMMAND, Width::Qword, 3).unwrap_err();
    assert!(ignored.ends_with("starts no transfer while the one before is under way"), "{ignored}");
    both.qemus.write(COMMAND, 8, 3);
    start(&mut both, 0);
    for (offset, value) in [(SOURCE, 0x10_0000), (DESTINATION, BUFFER), (COUNT, 16), (COMMAND, 5)] {
        assert_eq!(both.read(offset, 8), value);
    }
    both.ours.write(CARD, 0, RAISE, Width::Dword, 3);
    both.qemus.write(RAISE, 4, 3);
    both.pin();
    assert_eq!(both.read(INTERRUPTS, 4), 3);
}

#[test]
fn configuration_space_is_that_of_qemus_card() {
    let mut both = Both::new("edu,slot=3", Time::Stands);
    // Identification, class, subsystem, capabilities pointer, pin; then the capability.
    for offset in [0x00_u8, 0x08, 0x2C, 0x30, 0x34, 0x40, 0x44, 0x48, 0x4C, 0x50] {
        let ours = both.ours.config(CARD, offset, Width::Dword);
        let qemus = both.qemus.config(offset.into());
        both.same(format!("{offset:x}h"), &ours, &qemus);
    }
    let pins = (both.ours.config(CARD, 0x3D, Width::Byte), both.qemus.config(0x3C) >> 8 & 0xFF);
    assert_eq!(pins.0, pins.1);
    // What software can write of them.
    for offset in [0x10_u8, 0x14, 0x18, 0x1C, 0x20, 0x24, 0x40, 0x44, 0x48, 0x4C] {
        // QEMU corrects a number of messages that the function does not have, and has a second half of the message's data.
        let ones = [(0x40, !0x70_0000), (0x4C, 0xFFFF)].into_iter().find(|(at, _)| *at == offset);
        let ones = ones.map_or(u32::MAX, |(_, ones)| ones);
        both.ours.set_config(CARD, offset, Width::Dword, ones);
        both.qemus.set_config(offset.into(), ones);
        let ours = both.ours.config(CARD, offset, Width::Dword);
        let qemus = both.qemus.config(offset.into());
        both.same(format!("{offset:x}h, ones written"), &ours, &qemus);
    }
}
