//! What a sheet says of a card, as plain values. Numbers in it are those of [`super::names`].

use super::expression::{Bits, Expression};

/// A card, or the board behind a bridge.
#[derive(Clone, Debug, Default)]
pub(super) struct Description {
    /// The keys of its `card` line and of its windows, as a user would type them after `--device pci`.
    pub(super) keys: Vec<(String, Option<String>)>,
    /// Sorted by space and offset; nothing overlaps.
    pub(super) areas: Vec<Area>,
    pub(super) registers: Vec<Register>,
    pub(super) fifos: Vec<Fifo>,
    pub(super) memories: Vec<Memory>,
    /// How each space answers where it has no area.
    pub(super) rests: [Rest; SPACES],
    /// The only width in which each space's registers are accessed, in bytes; 0 for any.
    pub(super) widths: [u64; SPACES],
    /// By the number of the timer: what is done when it ends.
    pub(super) timers: Vec<Block>,
    pub(super) on_reset: Block,
    /// Its signals, and what is done when a script pokes one.
    pub(super) pokes: Vec<(String, Block)>,
    /// What each output is driven by.
    pub(super) lines: Vec<(u8, Expression)>,
    /// The messages it signals whenever such a value becomes other than 0.
    pub(super) messages: Vec<(u16, Expression)>,
}

/// Spaces that a sheet can have: as many as there are base address registers.
pub(super) const SPACES: usize = 6;

/// Where a register or a memory lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Area {
    pub(super) space: u8,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) what: What,
}

/// What lies in an area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    Register(usize),
    Memory(usize),
}

/// How a space answers where the sheet has nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Rest {
    /// An access is refused.
    #[default]
    Refused,
    /// Reads find 0, writes are lost.
    Zeros,
    /// Reads find ones, writes are lost.
    Ones,
    /// It is memory.
    Memory,
}

/// A register of 1, 2, 4 or 8 bytes.
#[derive(Clone, Debug)]
pub(super) struct Register {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// What it holds after reset.
    pub(super) reset: u64,
    /// What its bits are; those of none read 0.
    pub(super) fields: Vec<Field>,
    /// A read takes a word out of this FIFO.
    pub(super) pops: Option<usize>,
    /// A write puts a word into this FIFO.
    pub(super) pushes: Option<usize>,
    /// So much longer than others an access to it takes, ns.
    pub(super) takes: u64,
    pub(super) on_read: Block,
    pub(super) on_write: Block,
}

impl Register {
    /// Whether a driver's read of it can change what the card holds.
    pub(super) fn changes_when_read(&self) -> bool {
        let changes = |field: &Field| field.access.read(0, 1) != 0 || field.access.read(1, 1) != 1;
        self.pops.is_some() || !self.on_read.actions.is_empty() || self.fields.iter().any(changes)
    }
}

/// Bits of a register that behave alike.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) bits: Bits,
    pub(super) access: Access,
    /// What they read as, if that is not what they hold.
    pub(super) reads: Option<Expression>,
}

/// What reads and writes of the driver's do to bits; the names are those of the UVM register model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// Reads find them, writes do nothing.
    Ro,
    Rw,
    /// Writes store them, reads find 0.
    Wo,
    /// Reads find them and clear, or set, all of them.
    Rc,
    Rs,
    /// Any write clears, or sets, all of them.
    Wc,
    Ws,
    /// Ones that are written clear, set or turn their bits.
    W1c,
    W1s,
    W1t,
    /// Zeros that are written do.
    W0c,
    W0s,
    W0t,
}

impl Access {
    /// By its word in a sheet.
    pub(super) const ALL: [(&'static str, Self); 13] = [
        ("ro", Self::Ro),
        ("rw", Self::Rw),
        ("wo", Self::Wo),
        ("rc", Self::Rc),
        ("rs", Self::Rs),
        ("wc", Self::Wc),
        ("ws", Self::Ws),
        ("w1c", Self::W1c),
        ("w1s", Self::W1s),
        ("w1t", Self::W1t),
        ("w0c", Self::W0c),
        ("w0s", Self::W0s),
        ("w0t", Self::W0t),
    ];

    /// What bits hold after a write of `written` to those of `lanes`.
    pub(super) const fn written(self, held: u64, written: u64, lanes: u64) -> u64 {
        let (ones, zeros) = (written & lanes, !written & lanes);
        match self {
            Self::Ro | Self::Rc | Self::Rs => held,
            Self::Rw | Self::Wo => held & !lanes | ones,
            Self::Wc => held & !lanes,
            Self::Ws => held | lanes,
            Self::W1c => held & !ones,
            Self::W1s => held | ones,
            Self::W1t => held ^ ones,
            Self::W0c => held & !zeros,
            Self::W0s => held | zeros,
            Self::W0t => held ^ zeros,
        }
    }

    /// What bits hold after a read of those of `lanes`.
    pub(super) const fn read(self, held: u64, lanes: u64) -> u64 {
        match self {
            Self::Rc => held & !lanes,
            Self::Rs => held | lanes,
            _ => held,
        }
    }
}

/// A queue of words.
#[derive(Clone, Debug)]
pub(super) struct Fifo {
    /// Words that it holds at most.
    pub(super) depth: usize,
}

/// Memory in a space.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// Actions, one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Block {
    pub(super) actions: Vec<Action>,
    /// One of them reaches memory over the bus.
    pub(super) masters: bool,
}

/// What is done, if a condition holds.
#[derive(Clone, Debug)]
pub(super) struct Action {
    pub(super) act: Act,
    pub(super) condition: Option<Expression>,
}

/// What the card does by itself; the access of a field binds the driver only.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Set(Target, Expression),
    Push(usize, Expression),
    Pop(usize),
    Clear(usize),
    /// A timer ends after so many times `unit` ns, once or again and again.
    Start {
        timer: usize,
        count: Expression,
        unit: u64,
        again: bool,
    },
    Stop(usize),
    /// Between a memory, from an offset on, and a bus address.
    Transfer(Box<Transfer>),
}

/// Bytes that move between the card and memory.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub(super) memory: usize,
    pub(super) offset: Expression,
    pub(super) address: Expression,
    pub(super) length: Expression,
    /// From the card, else to it.
    pub(super) stores: bool,
}

/// What an action can set.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Register(usize, Bits),
    /// 32 bits at an offset.
    Memory(usize, Expression),
    /// 32 bits at a bus address.
    Bus(Expression),
}
