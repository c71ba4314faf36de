//! What the floor above provides: the meaning of everything that translated driver code cannot do by itself.

use std::ops::Range;

use crate::leave::{Flow, Leave};
use crate::registers::Registers;
use crate::strand::StrandId;
use crate::translate::TakenLock;

/// The arguments of a call from a driver, in the x64 calling convention.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Args {
    /// `rcx`, `rdx`, `r8`, `r9`.
    pub registers: [u64; 4],
    /// The driver's stack pointer at the callee's entry: `[rsp]` is the return address, `rsp + 8` the home space.
    pub rsp: u64,
}

impl Args {
    /// Where the `index`-th argument's slot lies on the driver's stack; the first four are stored there as well, so
    /// this is also the start of a `va_list`.
    #[must_use]
    pub const fn slot(&self, index: u64) -> u64 {
        self.rsp.wrapping_add(8 + 8 * index)
    }
}

/// The driver code that is waiting for the kernel: an instruction and its registers, all original addresses.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The instruction (for an export: its return address).
    pub rip: u64,
    /// All integer registers as the driver last had them. For an export only the nonvolatile ones and the four
    /// argument registers mean anything.
    pub registers: Registers,
}

/// All that driver code can see of the processor; two equal ones with equal memory go on alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DriverState {
    /// The instruction that comes next.
    pub rip: u64,
    /// The integer registers.
    pub registers: Registers,
    /// XMM0–15.
    pub vectors: [[u64; 2]; 16],
    /// MXCSR.
    pub control: u32,
}

/// Memory of the machine that one instruction reads or writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reference {
    /// Where.
    pub address: u64,
    /// 1 to 32.
    pub bytes: u8,
}

/// What the driver's next instruction will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// It stays inside driver code and memory.
    Inside {
        /// What it reads.
        loads: [Option<Reference>; 2],
        /// What it may write.
        stores: [Option<Reference>; 2],
        /// It pushes, so that one of the stores is the stack's.
        pushes: bool,
        /// For a jump, call or return: the stack pointer after it, unless what it goes to is the kernel.
        lands: Option<u64>,
    },
    /// It asks the platform, touches a device, or is more than this tells of.
    Other,
}

/// One access to memory that is not RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// The virtual address.
    pub address: u64,
    /// 1, 2, 4, 8 or more (16 for SSE moves).
    pub bytes: u8,
}

/// What went wrong in driver code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// A read of memory that is not there.
    Read,
    /// A write to memory that is not there or may not be written.
    Write,
    /// A jump, call or return to something that is not code.
    Execute,
    /// A reference through an address that is not canonical.
    NonCanonical,
    /// `div` or `idiv` by zero, or a quotient that does not fit.
    Divide,
    /// An instruction that the processor refuses, or that dirql's virtual processor does not have.
    InvalidOpcode,
    /// An unmasked SSE or x87 exception.
    FloatingPoint,
    /// A misaligned access where the instruction asks for alignment, or another general protection fault.
    Protection,
    /// A single step or breakpoint trap that no instruction of the driver asked for.
    Trap,
    /// A routine returned to the kernel and took bytes of its caller's off the stack: as many as the fault's address says.
    StackMoved,
    /// An instruction that dirql knows and does not run yet.
    NotImplemented,
}

/// A fault of the driver's, at an exact instruction.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// The address that was referenced, or the target of the jump.
    pub address: u64,
    /// The instruction and its registers.
    pub caller: Caller,
    /// For [`FaultKind::NotImplemented`] and refused instructions: the instruction's name.
    pub what: &'static str,
}

/// A table of descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// Of segments: the GDT.
    Global,
    /// Of interrupts and exceptions: the IDT.
    Interrupt,
}

/// How an instruction takes the processor away from the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TakeOver {
    /// `syscall`: the entry for user mode, entered from the kernel.
    SystemCall,
    /// `swapgs`, or another selector in GS: GS is not the processor's control region any more.
    ProcessorBlock,
    /// `lgdt`.
    GlobalTable,
    /// `lidt`.
    InterruptTable,
    /// `sysret`, or a far return to a code segment of user mode.
    UserMode,
    /// `invd`: what is in the caches and not in memory is lost.
    Caches,
}

/// Registers that driver code may use only where their state has been saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extended {
    /// Those of x87 and MMX.
    X87,
    /// Those of AVX.
    Avx,
}

/// Instructions that ask the platform something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Special {
    /// `rdtsc`, `rdtscp`: the answer is the time stamp.
    TimeStamp,
    /// `rdpid`, the `ecx` of `rdtscp`: the processor's number.
    ProcessorId,
    /// An instruction is about to use these registers: may it? Asked again after each call into or out of the strand, and
    /// after [`crate::Engine::extended_changed`].
    Extended(Extended),
    /// `xgetbv` with the register's number.
    ReadExtended(u32),
    /// `mov r, crN` other than CR8.
    ReadControl(u8),
    /// `mov crN, r` other than CR8, with the value.
    WriteControl(u8, u64),
    /// `mov r, drN`.
    ReadDebug(u8),
    /// `mov drN, r`.
    WriteDebug(u8, u64),
    /// `rdpmc` with the counter's number.
    ReadCounter(u32),
    /// `rdmsr` with the register's number.
    ReadMsr(u32),
    /// `wrmsr`.
    WriteMsr(u32, u64),
    /// `int3`, or `int n` with n: 0x29 fast fail (code in `ecx`), 0x2C assertion, 0x2D debug service.
    Interrupt(u8),
    /// `hlt`.
    Halt,
    /// `sgdt`, `sidt`: the answer is the table's address.
    TableBase(Table),
    /// The instruction of this name takes the processor away from the kernel.
    TakeOver(TakeOver, &'static str),
}

/// How driver code is about to use memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TouchKind {
    /// To load it.
    Read,
    /// To store there, or to change it.
    Write,
    /// To run it: the code at the start of a block.
    Execute,
}

/// Driver code is about to touch memory that is marked ([`crate::Engine::mark`]).
#[derive(Clone, Copy, Debug)]
pub struct Touch {
    /// To do what.
    pub kind: TouchKind,
    /// The first byte of the access, or the instruction for [`TouchKind::Execute`].
    pub start: u64,
    /// Bytes of the access.
    pub bytes: u64,
    /// The first marked byte of it (that has this mark).
    pub address: u64,
    /// Its mark.
    pub mark: u8,
    /// The instruction and its registers. It has not run.
    pub caller: Caller,
}

/// What an instruction does to bytes of memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AccessKind {
    /// It loads them.
    Load,
    /// It loads them, and then stores there.
    Update,
    /// It stores there.
    Store,
}

impl AccessKind {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Update => "update",
            Self::Store => "store",
        }
    }
}

/// An instruction of driver code is about to load or store these bytes of driver memory ([`crate::Engine::report_accesses`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryAccess {
    /// The lowest.
    pub address: u64,
    /// How many: all of them, for a repeated string instruction.
    pub bytes: u64,
    /// What it does to them.
    pub kind: AccessKind,
    /// No other processor comes between its load and its store: `lock`, and `xchg` with memory.
    pub atomic: bool,
    /// Of an interlocked one: what it stores follows from what is there, as of `lock or` and `lock xadd`; of `xchg` and `cmpxchg` it does not.
    pub adds: bool,
    /// Of a load: the instruction shortly behind it that stores in the same place what follows from what is loaded here.
    pub stored_back: Option<u64>,
    /// The instruction.
    pub rip: u64,
}

/// How a guest hears of accesses.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Reports {
    /// Of none.
    #[default]
    None,
    /// Of those since the kernel was last entered, when it is entered again ([`Guest::noted`]); of some before they happen ([`Guest::accesses`]).
    Noted,
    /// Of each before it happens ([`Guest::accesses`]).
    Each,
}

/// Who runs driver code: a thread, or what has interrupted it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Runner {
    /// The same for code that never comes between itself, and different for any other; less than any address of memory.
    pub flow: u64,
    /// The stack it runs on.
    pub stack: Range<u64>,
}

/// The floor above the engine. Calls arrive on the host stack of the strand (or scheduler) that runs the driver code.
///
/// The engine keeps no borrow of the guest's state across them: implementations take `&self`. Where translated code enters a guest is
/// the engine's to say, by the guest's type:
///
/// ```compile_fail,E0432
/// use engine::GuestEntryPoints;
///
/// fn of_another<G: engine::Guest>() -> GuestEntryPoints {
///     GuestEntryPoints::of::<G>()
/// }
/// ```
pub trait Guest {
    /// A strand runs for the first time; when this returns it is over.
    fn strand(&self, id: StrandId);
    /// A driver called export `number` (see [`crate::Engine::define_export`]). The result goes to `rax`.
    fn export(&self, number: u32, args: &Args) -> Flow<u64>;
    /// Driver code has taken a spin lock by itself, as [`crate::Engine::allow_short_locks`] lets it, and still holds it. Called
    /// before any other method of the guest. From now on the guest owns the lock, and the engine forgets it;
    /// no other may be taken that way until it is allowed again. The guest calls no driver code here.
    fn lock_taken(&self, taken: &TakenLock) {
        let _ = taken;
    }
    /// The slice set by [`crate::Engine::set_slice`] has run out, exactly.
    fn slice(&self) -> Flow<()>;
    /// `in`; the value is in the low bytes.
    fn port_read(&self, port: u16, bytes: u8) -> Flow<u64>;
    /// `out`.
    fn port_write(&self, port: u16, bytes: u8, value: u32) -> Flow<()>;
    /// A read of device memory or of `KUSER_SHARED_DATA`; `data` is `access.bytes` long.
    fn device_read(&self, access: Access, data: &mut [u8]) -> Flow<()>;
    /// A write to device memory.
    fn device_write(&self, access: Access, data: &[u8]) -> Flow<()>;
    /// As [`Guest::device_read`], of 1, 2, 4 or 8 bytes by a plain move; the value is in the low bytes.
    fn device_load(&self, access: Access) -> Flow<u64> {
        let mut data = [0; 8];
        self.device_read(access, &mut data[..access.bytes.into()])?;
        Ok(u64::from_le_bytes(data))
    }
    /// As [`Guest::device_write`], of the low 1, 2, 4 or 8 bytes of `value` by a plain move.
    fn device_store(&self, access: Access, value: u64) -> Flow<()> {
        self.device_write(access, &value.to_le_bytes()[..access.bytes.into()])
    }
    /// The instruction that accessed a port or a device has retired: what the access caused may happen now.
    fn accessed(&self) -> Flow<()>;
    /// `mov cr8, r`, unless [`crate::Engine::set_free_levels`] lets driver code set the level by itself.
    fn set_irql(&self, level: u64) -> Flow<()>;
    /// The virtual interrupt flag, as `pushfq` stores it.
    fn interrupt_flag(&self) -> bool;
    /// `cli`, `sti`, `popfq`.
    fn set_interrupt_flag(&self, on: bool) -> Flow<()>;
    /// `cpuid` with `eax` and `ecx`: `eax ebx ecx edx`.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4];
    /// The remaining questions to the platform.
    fn special(&self, special: Special) -> Flow<u64>;
    /// A checked machine's driver code is about to touch marked memory: whether it may. Asked at each such access, before it
    /// happens. A guest that marks nothing is never asked.
    fn touched(&self, touch: &Touch) -> Flow<()> {
        let _ = touch;
        Ok(())
    }
    /// Who runs driver code now: asked at each access while [`crate::Engine::learn_shared`] is on.
    fn runner(&self) -> Runner {
        Runner { flow: 0, stack: 0..0 }
    }
    /// An instruction is about to access memory: called for each of its accesses, the loads first, while
    /// [`crate::Engine::report_accesses`] is on. It has not retired. The guest calls no driver code here and switches to no other strand.
    fn accesses(&self, access: &MemoryAccess) -> Flow<()> {
        let _ = access;
        Ok(())
    }
    /// Driver code has made these accesses, in this order, since it was last begun or gone on with, or since this was last called. Called before any
    /// other method of the guest. The guest calls no driver code here and switches to no other strand.
    fn noted(&self, accesses: &[MemoryAccess]) {
        let _ = accesses;
    }
    /// The instruction at `rip` is about to run, which [`crate::Engine::watch`] has named. It has not retired.
    fn before_shared(&self, rip: u64) -> Flow<()> {
        let _ = rip;
        Ok(())
    }
    /// An interlocked instruction is about to run, if [`crate::Engine::watch_interlocked`] said so. It has not retired.
    fn before_interlocked(&self) -> Flow<()> {
        Ok(())
    }
    /// An instruction is about to run that empties the processor's write-combining buffers: `sfence`, `mfence`, an interlocked one, if
    /// [`crate::Engine::watch_fences`] said so, or a serializing one, in any case. It has not retired. An interlocked one on a device has, too.
    fn fence(&self) -> Flow<()> {
        Ok(())
    }
    /// The driver did something that the processor refuses. The guest says how the run goes on.
    fn fault(&self, fault: &Fault) -> Leave;
}
