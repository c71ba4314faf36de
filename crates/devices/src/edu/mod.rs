//! QEMU's educational device: its registers, its factorial, its interrupts and its bus master, after QEMU's documentation
//! (docs/specs/edu.rst) and, where that is silent, after what QEMU 7.2 answers (`crates/devices/tests/qemu` asks both).
//!
//! Where QEMU prints a complaint or ends itself (an address beyond the mask, a transfer that leaves the buffer or has no bytes, an
//! access of a width that is not allowed) the access is refused. Its time is the machine's: the thread that computes in QEMU,
//! and its 100 ms for a transfer, are settings here. Its pin follows the interrupt status, also when messages are turned off.

mod keys;
mod registers;

use kernel::hal::hardware::{Question, Refusal};

pub use keys::ENTRY;

use crate::pci::{Access, Header, Master, Model, Placement};
use crate::plan::{BUSY, Freedom, Part, Plan};
use crate::register::{at, low32, ones};
use registers::{
    BUFFER, BUFFER_LENGTH, Command, FACTORIAL_DONE, IDENTIFICATION, Register, Status, TABLE, TRANSFER_DONE,
    WIDE_FROM,
};

/// The card.
pub struct Edu {
    settings: Settings,
    liveness: u32,
    factorial: u32,
    status: Status,
    /// When the factorial is there.
    computed: Option<u64>,
    interrupts: u32,
    source: u64,
    destination: u64,
    count: u64,
    command: u64,
    /// When the transfer happens, and in which parts.
    transferred: Option<Plan>,
    buffer: Vec<u8>,
    /// Messages signaled that the bus has not taken.
    signaled: Vec<u16>,
    changed: bool,
}

/// What the user chose; never changes.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    placement: Placement,
    header: Header,
    /// Addresses it can reach.
    mask: u64,
    /// What a transfer takes, ns.
    transfer: u64,
    /// What a factorial takes, ns.
    factorial: u64,
    /// How a transfer may come.
    freedom: Freedom,
}

impl Edu {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            liveness: 0,
            factorial: 0,
            status: Status::default(),
            computed: None,
            interrupts: 0,
            source: 0,
            destination: 0,
            count: 0,
            command: 0,
            transferred: None,
            buffer: vec![0; BUFFER_LENGTH],
            signaled: Vec::new(),
            changed: true,
        }
    }

    /// Bits into the interrupt status; if it has any now, that is an interrupt, and with messages one more.
    fn raise(&mut self, bits: u32) {
        self.interrupts |= bits;
        if self.interrupts != 0 {
            self.signaled.push(0);
        }
    }

    fn read_register(&self, register: Register) -> u64 {
        match register {
            Register::Identification => IDENTIFICATION.into(),
            Register::Liveness => self.liveness.into(),
            Register::Factorial => self.factorial.into(),
            Register::Status => self.status.0.into(),
            Register::InterruptStatus => self.interrupts.into(),
            Register::InterruptRaise | Register::InterruptAcknowledge => u64::MAX,
            Register::DmaSource => self.source,
            Register::DmaDestination => self.destination,
            Register::DmaCount => self.count,
            Register::DmaCommand => self.command,
        }
    }

    /// Why a write has no effect, if it is the start of what runs already.
    fn ignores(&self, register: Register, value: u64) -> Option<&'static str> {
        match register {
            Register::Factorial => self.computed.map(|_| "takes no number while it computes"),
            Register::DmaCommand if Command(low32(value)).is(Command::START) => {
                self.transferred.as_ref().map(|_| BUSY)
            }
            _ => None,
        }
    }

    fn write_register(&mut self, now: u64, register: Register, value: u64) -> Result<(), String> {
        // As if the registers were latched: writes during a transfer have no effect.
        let idle = self.transferred.is_none();
        match register {
            Register::Identification | Register::InterruptStatus => {}
            Register::Liveness => self.liveness = !low32(value),
            Register::Factorial if self.computed.is_none() => {
                self.factorial = low32(value);
                self.status = self.status.with(Status::COMPUTING, 1);
                self.computed = Some(now + self.settings.factorial);
            }
            Register::Status => self.status = self.status.merged(low32(value), Status::INTERRUPT.mask()),
            Register::InterruptRaise => self.raise(low32(value)),
            Register::InterruptAcknowledge => self.interrupts &= !low32(value),
            Register::DmaSource if idle => self.source = value,
            Register::DmaDestination if idle => self.destination = value,
            Register::DmaCount if idle => self.count = value,
            Register::DmaCommand if Command(low32(value)).is(Command::START) => {
                self.check_transfer(Command(low32(value)))?;
                self.command = value;
                self.transferred = Some(Plan::new(self.settings.freedom, now, self.settings.transfer));
            }
            _ => {}
        }
        Ok(())
    }

    /// The card's side of a transfer and memory's.
    fn sides(&self, command: Command) -> (u64, u64) {
        if command.is(Command::TO_MEMORY) {
            (self.source, self.destination)
        } else {
            (self.destination, self.source)
        }
    }

    /// Why a transfer cannot be meant, where it cannot.
    fn check_transfer(&self, command: Command) -> Result<(), String> {
        let ((card, memory), count) = (self.sides(command), self.count);
        if count == 0 {
            return Err("starts no transfer of 0 bytes".to_owned());
        }
        let room = BUFFER_LENGTH as u64;
        let inside = card.checked_sub(BUFFER).is_some_and(|offset| offset < room && count <= room - offset);
        if !inside {
            return Err(format!(
                "starts no transfer of {count:X}h bytes at {card:X}h of the card, whose buffer is 40000h-40FFFh"
            ));
        }
        let reached =
            memory.checked_add(count - 1).is_some_and(|last| (memory | last) & !self.settings.mask == 0);
        if !reached {
            let mask = self.settings.mask;
            return Err(format!(
                "starts no transfer of {count:X}h bytes at {memory:X}h, which the card cannot reach: its addresses are \
                 those up to {mask:X}h (dma_mask)"
            ));
        }
        Ok(())
    }

    /// Moves a part of the bytes. Where an address is not claimed, writes are lost and QEMU's card reads zeroes.
    fn transfer(&mut self, part: Part, master: &mut Master<'_>) {
        let command = Command(low32(self.command));
        let (card, memory) = self.sides(command);
        let index = |offset: u64| usize::try_from(offset).unwrap_or(BUFFER_LENGTH);
        let (start, bytes) = (index(card - BUFFER), part.of(self.count));
        let memory = memory + bytes.start;
        let part = &mut self.buffer[start + index(bytes.start)..start + index(bytes.end)];
        if part.is_empty() {
            return;
        }
        if command.is(Command::TO_MEMORY) {
            let _answered = master.write(memory, part);
        } else if !master.read(memory, part) {
            part.fill(0);
        }
    }

    /// All of them were moved.
    fn end_transfer(&mut self) {
        self.transferred = None;
        let command = Command(low32(self.command));
        self.command &= !u64::from(Command::START.mask());
        if command.is(Command::INTERRUPT) {
            self.raise(TRANSFER_DONE);
        }
    }

    fn compute(&mut self) {
        // The product of more than 33 numbers has so many factors of two that 32 bits of it are 0.
        let number = self.factorial.min(34);
        self.factorial = (1..=number).fold(1, u32::wrapping_mul);
        self.status = self.status.with(Status::COMPUTING, 0);
        if self.status.is(Status::INTERRUPT) {
            self.raise(FACTORIAL_DONE);
        }
    }

    /// The register that an access means, if there is one.
    fn register(&self, access: &Access) -> Result<Option<Register>, Refusal> {
        let wide = access.offset >= WIDE_FROM;
        let allowed = access.bytes() == 4 || access.bytes() == 8 && wide;
        if !allowed || !access.is_aligned() {
            let accepts = if wide { "accepts 4 and 8 bytes, aligned" } else { "accepts 4 bytes, aligned" };
            return Err(self.refusal(access, accepts.to_owned()));
        }
        let row = at(TABLE, access.offset).filter(|row| row.offset == access.offset);
        Ok(row.map(|row| row.register))
    }

    fn refusal(&self, access: &Access, why: String) -> Refusal {
        Refusal::new(self.place(access), why)
    }

    /// What is accessed, in words.
    fn place(&self, access: &Access) -> String {
        let name = self.describe(access.bar, access.offset).unwrap_or_default();
        format!("BAR0+{:02X}h {name}", access.offset)
    }
}

impl Model for Edu {
    fn kind(&self) -> &'static str {
        ENTRY.name
    }

    fn header(&self) -> &Header {
        &self.settings.header
    }

    fn placement(&self) -> Placement {
        self.settings.placement
    }

    fn reset(&mut self) {
        let Self {
            settings: _,
            liveness,
            factorial,
            status,
            computed,
            interrupts,
            source,
            destination,
            count,
            command,
            transferred,
            buffer,
            signaled,
            changed,
        } = self;
        (*liveness, *factorial, *status, *interrupts) = (0, 0, Status::default(), 0);
        (*source, *destination, *count, *command) = (0, 0, 0, 0);
        (*computed, *transferred) = (None, None);
        buffer.fill(0);
        signaled.clear();
        *changed = true;
    }

    fn read(&mut self, access: &Access) -> Result<u64, Refusal> {
        let register = self.register(access)?;
        Ok(register.map_or(u64::MAX, |register| self.read_register(register)) & ones(access.bytes()))
    }

    fn write(&mut self, access: &Access, value: u64) -> Result<(), Refusal> {
        let Some(register) = self.register(access)? else { return Ok(()) };
        if let Some(why) = self.ignores(register, value) {
            return Err(Refusal::ignoring(self.place(access), why.to_owned()));
        }
        self.changed = true;
        self.write_register(access.now, register, value).map_err(|why| self.refusal(access, why))
    }

    fn is_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn reads_change(&self) -> bool {
        false
    }

    fn asserts(&self) -> bool {
        self.interrupts != 0
    }

    fn take_messages(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.signaled)
    }

    fn deadline(&self) -> Option<u64> {
        self.computed.into_iter().chain(self.transferred.as_ref().and_then(Plan::deadline)).min()
    }

    fn advance(&mut self, now: u64, master: &mut Master<'_>) {
        self.changed = true;
        if self.computed.take_if(|at| *at <= now).is_some() {
            self.compute();
        }
        while let Some((part, is_last)) = self.transferred.as_mut().and_then(|plan| plan.due(now)) {
            self.transfer(part, master);
            if is_last {
                self.end_transfer();
            }
        }
    }

    fn question(&self) -> Option<Question> {
        self.transferred.as_ref().and_then(Plan::question)
    }

    fn answer(&mut self, answer: u32) {
        self.transferred.iter_mut().for_each(|plan| plan.answer(answer));
    }

    fn poke(&mut self, _now: u64, signal: &str, value: &str) -> Result<(), String> {
        if signal != "raise" {
            return Err(format!("no signal `{signal}`; it has: raise"));
        }
        let bits = value.parse().map_err(|_| format!("`{value}` is no number of 32 bits"))?;
        self.changed = true;
        self.raise(bits);
        Ok(())
    }

    fn describe(&self, bar: u8, offset: u64) -> Option<String> {
        (bar == 0).then(|| at(TABLE, offset).map_or("reserved", |row| row.name).to_owned())
    }
}
