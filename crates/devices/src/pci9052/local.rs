//! The board on the local side: memory at every local address, and one peripheral that ends its work with LINTi1.
//!
//! The peripheral is ours, so that a driver has something to do. At local FFFCh DOORBELL: a write starts an operation,
//! which takes `latency` ns; it reads back what was written. At FFF8h STATUS: bit 0 DONE (drives LINTi1 high), bit 1
//! BUSY, bit 2 OVERRUN (a doorbell while busy, which starts nothing); writing 1 to DONE or OVERRUN clears it. It moves
//! no data: what a driver put in memory stays there to be read back.

use super::lcr::LOCAL_MASK;
use crate::bits::bits;
use crate::ram::SparseRam;
use crate::register::{Part, Row, is_sorted, parts};

/// The peripheral's registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Register {
    Status,
    Doorbell,
}

/// Where they lie on the local bus.
pub(crate) const TABLE: &[Row<Register>] = &[
    Row { register: Register::Status, offset: 0xFFF8, bytes: 4, name: "STATUS" },
    Row { register: Register::Doorbell, offset: 0xFFFC, bytes: 4, name: "DOORBELL" },
];

const _: () = assert!(is_sorted(TABLE));

bits! {
    /// The peripheral's STATUS.
    pub(crate) struct Status {
        DONE = 0;
        BUSY = 1;
        OVERRUN = 2;
    }
}

/// What clears by writing 1.
const CLEARABLE: u32 = Status::DONE.mask() | Status::OVERRUN.mask();

/// How a local address space drives the bus: the bits of the address that byte swapping turns over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ByteOrder(pub(crate) u32);

/// Memory and peripheral.
#[derive(Clone, Debug)]
pub(crate) struct LocalBus {
    latency: u64,
    ram: SparseRam,
    /// What the memory holds at power-on.
    holds: Vec<(u64, u32)>,
    status: Status,
    doorbell: u32,
    done_at: Option<u64>,
}

impl LocalBus {
    /// A board whose operations take `latency` ns.
    pub(crate) fn new(latency: u64) -> Self {
        let ram = SparseRam::default();
        Self { latency, ram, holds: Vec::new(), status: Status(0), doorbell: 0, done_at: None }
    }

    /// Its memory holds these words, now and at power-on.
    pub(crate) fn hold(&mut self, words: Vec<(u64, u32)>) {
        self.holds = words;
        self.fill();
    }

    fn fill(&mut self) {
        let Self { ram, holds, .. } = self;
        for (at, word) in holds {
            ram.write(*at, 4, (*word).into());
        }
    }

    /// Memory holds this from now on.
    pub(crate) fn set_word(&mut self, at: u64, word: u32) {
        self.ram.write(at, 4, word.into());
    }

    /// Power-on: memory too.
    pub(crate) fn reset(&mut self) {
        self.reset_peripheral();
        self.ram.clear();
        self.fill();
    }

    /// LRESET#: the peripheral stops what it does; memory keeps its contents.
    pub(crate) fn reset_peripheral(&mut self) {
        let Self { latency: _, ram: _, holds: _, status, doorbell, done_at } = self;
        *status = Status(0);
        *doorbell = 0;
        *done_at = None;
    }

    /// The level it drives on LINTi1.
    pub(crate) fn linti1(&self) -> bool {
        self.status.is(Status::DONE)
    }

    /// When the operation under way ends.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.done_at
    }

    /// Time is now `now`.
    pub(crate) fn advance(&mut self, now: u64) {
        if self.done_at.is_some_and(|done| done <= now) {
            self.done_at = None;
            self.status = self.status.with(Status::BUSY, 0).with(Status::DONE, 1);
        }
    }

    /// `bytes` (1–8) bytes from local address `at` on.
    pub(crate) fn read(&self, at: u32, bytes: u64, order: ByteOrder) -> u64 {
        (0..bytes).rev().fold(0, |value, i| value << 8 | u64::from(self.byte(order.address(at, i))))
    }

    fn byte(&self, at: u64) -> u8 {
        let register = parts(TABLE, at, 1).next();
        register
            .map_or_else(|| self.ram.byte(at), |part| (part.read(self.register(part.register)) & 0xFF) as u8)
    }

    fn register(&self, register: Register) -> u32 {
        match register {
            Register::Status => self.status.0,
            Register::Doorbell => self.doorbell,
        }
    }

    /// The `bytes` (1–8) lowest bytes of `value` to local address `at`, at `now`. The doorbell rings once, when all of
    /// them have arrived.
    pub(crate) fn write(&mut self, now: u64, at: u32, bytes: u64, value: u64, order: ByteOrder) {
        let mut rings = false;
        for (i, byte) in (0..bytes).zip(value.to_le_bytes()) {
            let local = order.address(at, i);
            match parts(TABLE, local, 1).next() {
                None => self.ram.set_byte(local, byte),
                Some(part) => rings |= self.write_register(part, byte),
            }
        }
        if rings {
            self.ring(now);
        }
    }

    /// One byte of a register; whether it was the doorbell's.
    fn write_register(&mut self, part: Part<Register>, byte: u8) -> bool {
        let written = part.written(byte.into());
        match part.register {
            Register::Status => self.status = Status(self.status.0 & !(written & CLEARABLE)),
            Register::Doorbell => self.doorbell = (self.doorbell & !part.lanes) | written,
        }
        part.register == Register::Doorbell
    }

    fn ring(&mut self, now: u64) {
        if self.done_at.is_some() {
            self.status = self.status.with(Status::OVERRUN, 1);
        } else {
            self.status = self.status.with(Status::BUSY, 1);
            self.done_at = Some(now.saturating_add(self.latency));
        }
    }
}

impl ByteOrder {
    /// The local address of an access's byte `i`.
    pub(super) fn address(self, at: u32, i: u64) -> u64 {
        ((u64::from(at) + i) ^ u64::from(self.0)) & u64::from(LOCAL_MASK)
    }
}
