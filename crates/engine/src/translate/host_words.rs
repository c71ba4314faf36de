//! The host's own words that translated code and stubs use: the host's stack pointer, where it enters the host and goes on, and
//! whether a system call may be made.
//!
//! They lie in the host thread's own memory and are named by `fs:`, which driver code cannot: its own `fs:` operands are
//! call-outs ([`super::classify`]), and the address is the host's and appears nowhere else. So nothing on a page whose address a
//! driver can know, and no instruction in the code cache, tells where the host's code, stacks or heap are, and no store of a
//! driver's changes where the host goes on.

use std::cell::Cell;
use std::mem::offset_of;

use super::scratch::HostFault;

/// The words' layout. Offsets are baked into translated code.
#[repr(C)]
pub(crate) struct HostWords {
    /// The selector of syscall user dispatch: [`BLOCKED`] while driver code runs.
    pub(crate) system_calls: Cell<u8>,
    /// The innermost driver frame ([`super::frame::Frame`]) of what runs now; 0 if there is none.
    pub(crate) frame: Cell<u64>,
    /// Where translated code goes on.
    pub(crate) resume: Cell<u64>,
    /// Translated target of an indirect branch.
    pub(crate) jump: Cell<u64>,
    /// Host code the stubs jump to.
    pub(crate) exit_entry: Cell<u64>,
    pub(crate) access_entry: Cell<u64>,
    pub(crate) gate_entry: Cell<u64>,
    pub(crate) returned_entry: Cell<u64>,
    /// Host code of short calls ([`super::short`]), by [`super::short::Short::word`].
    pub(crate) short_entries: [Cell<u64>; 7],
    /// The rows of [`super::short::Answers`], and its notes; 0 before there are any.
    pub(crate) answers: Cell<u64>,
    pub(crate) noted_calls: Cell<u64>,
    /// The guest's [`super::GuestEntryPoints`].
    pub(crate) on_access: Cell<u64>,
    pub(crate) on_export: Cell<u64>,
    /// Where the records of [`super::cuts`] lie.
    pub(crate) records: Cell<u64>,
    /// The host thread's own MXCSR.
    pub(crate) host_mxcsr: Cell<u32>,
    /// What the signal handler saw, for the exit that follows.
    pub(crate) fault: Cell<HostFault>,
}

/// In [`HostWords::system_calls`]: they are the host's, and go through.
pub(crate) const ALLOWED: u8 = 0;
/// In [`HostWords::system_calls`]: driver code runs; whatever makes one is stopped.
pub(crate) const BLOCKED: u8 = 1;

/// A word of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostWord(usize);

macro_rules! words {
    ($($name:ident = $field:ident;)*) => {
        $(pub(crate) const $name: HostWord = HostWord(offset_of!(HostWords, $field));)*
    };
}

words! {
    FRAME = frame;
    RESUME = resume;
    JUMP = jump;
    EXIT_ENTRY = exit_entry;
    ACCESS_ENTRY = access_entry;
    GATE_ENTRY = gate_entry;
    RETURNED_ENTRY = returned_entry;
    RECORDS = records;
    ANSWERS = answers;
    NOTED_CALLS = noted_calls;
}

impl HostWord {
    /// Of a short call's host code.
    pub(crate) const fn of_short(index: usize) -> Self {
        Self(offset_of!(HostWords, short_entries) + 8 * index)
    }

    /// The displacement by which `fs:` names it.
    pub(crate) fn displacement(self) -> i32 {
        let thread = thread_pointer().cast_signed();
        let distance = std::ptr::from_ref(host_words()) as i64 + self.0.cast_signed() as i64 - thread;
        i32::try_from(distance).expect("a thread's own memory is small")
    }
}

std::arch::global_asm!(
    ".pushsection .tbss.dirql_host_words, \"awT\", @nobits",
    ".p2align 6",
    ".type dirql_host_words, @object",
    ".size dirql_host_words, {size}",
    ".global dirql_host_words",
    ".hidden dirql_host_words",
    "dirql_host_words:",
    ".zero {size}",
    ".popsection",
    size = const size_of::<HostWords>(),
);

/// This thread's words; all of them 0 at first.
#[inline]
pub(crate) fn host_words() -> &'static HostWords {
    let address: u64;
    // SAFETY: loads what the ABI has at `fs:0`, and adds a constant.
    unsafe {
        std::arch::asm!(
            "mov {address}, fs:[0]",
            "lea {address}, [{address} + dirql_host_words@TPOFF]",
            address = out(reg) address,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    // SAFETY: zero-initialised memory of this thread that lives as long as it; all bit patterns that are ever there are values.
    unsafe { &*(address as *const HostWords) }
}

fn thread_pointer() -> u64 {
    let address: u64;
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("mov {}, fs:[0]", out(reg) address, options(pure, nomem, nostack, preserves_flags));
    }
    address
}
