//! The 93CS46 serial EEPROM behind CNTRL[27:24]: 64 words of 16 bits, clocked bit by bit.
//!
//! Microwire as the data sheets of the 93x46 family give it: READ (with sequential read), WRITE, WREN, WRDS. Writes are
//! off after reset until WREN; programming starts when chip select falls and takes 4 ms, during which data-out is 0
//! while selected. It has no WRALL and no protect register.

/// Words of the part.
pub(crate) const WORDS: usize = 64;

/// Nanoseconds that programming one word takes.
const PROGRAM_NS: u64 = 4_000_000;

/// Where the part is in an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    /// Waits for a start bit.
    #[default]
    Idle,
    /// Shifts in start bit, two bits of operation and six of address.
    Command { bits: u16, count: u8 },
    /// Shifts out words from `address` on; `left` bits of this word are still to come.
    Reading { address: u8, left: u8, out: bool },
    /// Shifts in a word.
    Writing { address: u8, data: u16, count: u8 },
    /// Has an instruction complete; waits for chip select to fall.
    Done,
}

/// The part. Its words survive a reset.
#[derive(Clone, Debug)]
pub(crate) struct Eeprom {
    words: [u16; WORDS],
    writable: bool,
    state: State,
    selected: bool,
    clock: bool,
    busy_until: u64,
}

impl Eeprom {
    /// A part programmed with `words`.
    pub(crate) fn new(words: [u16; WORDS]) -> Self {
        Self { words, writable: false, state: State::Idle, selected: false, clock: false, busy_until: 0 }
    }

    /// Power-on: an instruction under way is lost, writes are off.
    pub(crate) fn reset(&mut self) {
        let Self { words: _, writable, state, selected, clock, busy_until } = self;
        *writable = false;
        *state = State::Idle;
        *selected = false;
        *clock = false;
        *busy_until = 0;
    }

    /// What is stored.
    pub(crate) fn words(&self) -> &[u16; WORDS] {
        &self.words
    }

    /// The chip drives the three pins at `now` (ns).
    pub(crate) fn drive(&mut self, now: u64, select: bool, clock: bool, data: bool) {
        let rises = clock && !self.clock;
        if self.selected && !select {
            self.deselect(now);
        } else if select && rises && now >= self.busy_until {
            self.shift(data);
        }
        self.selected = select;
        self.clock = clock;
    }

    /// The data-out pin at `now`; pulled up where the part does not drive it.
    pub(crate) fn output(&self, now: u64) -> bool {
        match self.state {
            _ if !self.selected => true,
            State::Reading { out, .. } => out,
            _ => now >= self.busy_until,
        }
    }

    /// Chip select falls: a completed WRITE is programmed now.
    fn deselect(&mut self, now: u64) {
        if let State::Writing { address, data, count: 16 } = self.state
            && self.writable
        {
            self.words[usize::from(address)] = data;
            self.busy_until = now.saturating_add(PROGRAM_NS);
        }
        self.state = State::Idle;
    }

    /// A rising clock edge while selected.
    fn shift(&mut self, data: bool) {
        self.state = match self.state {
            State::Idle if data => State::Command { bits: 1, count: 1 },
            State::Command { bits, count: 8 } => self.decode(bits << 1 | u16::from(data)),
            State::Command { bits, count } => {
                State::Command { bits: bits << 1 | u16::from(data), count: count + 1 }
            }
            State::Reading { address, left: 0, .. } => self.shift_out((address + 1) % 64, 16),
            State::Reading { address, left, .. } => self.shift_out(address, left),
            State::Writing { address, data: word, count } if count < 16 => {
                State::Writing { address, data: word << 1 | u16::from(data), count: count + 1 }
            }
            waits => waits,
        };
    }

    /// The next bit of a word goes out, most significant first.
    fn shift_out(&self, address: u8, left: u8) -> State {
        let out = self.words[usize::from(address)] >> (left - 1) & 1 != 0;
        State::Reading { address, left: left - 1, out }
    }

    /// All nine bits of a command are in.
    fn decode(&mut self, command: u16) -> State {
        let address = (command & 0x3F) as u8;
        match (command & 0x1C0, address >> 4) {
            // a dummy 0 stands on data-out until the next clock
            (0x180, _) => State::Reading { address, left: 16, out: false },
            (0x140, _) => State::Writing { address, data: 0, count: 0 },
            (0x100, 3) => {
                self.writable = true;
                State::Done
            }
            (0x100, 0) => {
                self.writable = false;
                State::Done
            }
            _ => State::Done,
        }
    }
}
