//! The end of a slice within a block: copies of blocks that end after fewer instructions, and where each begins.
//!
//! A stub finds the copy by the block's number and by how many instructions are left of the slice ([`super::stubs::SLICE`]), with no
//! way to the host; it knows the layout of [`Record`]. What is not there yet is made by the exit of the same block.

use super::host_words::host_words;

/// A block's head charges at most so many instructions.
pub(crate) const LONGEST: usize = 64;

/// For each number of instructions that may be left, where the copy that ends after them begins; 0 if there is none yet.
type Copies = [u64; LONGEST];

/// What the stub knows of a block.
#[repr(C)]
struct Record {
    /// Where its [`Copies`] lie.
    copies: u64,
    /// What its head has charged.
    charged: u32,
    /// The exit that makes a copy.
    exit: u32,
}

/// Bytes of a record, as a shift.
pub(crate) const RECORD_SHIFT: u8 = 4;
const _: () = assert!(size_of::<Record>() == 1 << RECORD_SHIFT);

/// Of blocks that no slice has ended in.
static NONE: Copies = [0; LONGEST];

/// All blocks with a head, by number.
#[derive(Default)]
pub(crate) struct Cuts {
    records: Vec<Record>,
    /// Of each its own, once a slice has ended in it.
    copies: Vec<Option<Box<Copies>>>,
}

impl Cuts {
    /// The number of the block that is added next.
    pub(crate) fn next(&self) -> u32 {
        u32::try_from(self.records.len()).expect("fewer than 2^32 blocks")
    }

    /// Adds a block whose head charges so many.
    pub(crate) fn add(&mut self, charged: u32, exit: u32) {
        assert!(charged as usize <= LONGEST, "a block is short");
        self.records.push(Record { copies: NONE.as_ptr() as u64, charged, exit });
        self.copies.push(None);
        host_words().records.set(self.records.as_ptr() as u64);
    }

    /// The copy of block `number` that ends after `left` instructions begins at `start`.
    pub(crate) fn enter(&mut self, number: u32, left: usize, start: u64) {
        let copies = self.copies[number as usize].get_or_insert_with(|| Box::new(NONE));
        copies[left] = start;
        self.records[number as usize].copies = copies.as_ptr() as u64;
    }

    pub(crate) fn clear(&mut self) {
        self.records.clear();
        self.copies.clear();
    }
}
