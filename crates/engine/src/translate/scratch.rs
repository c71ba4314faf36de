//! The scratch page: the words that translated code, the stubs and the signal handler share.
//!
//! It lies within 2 GiB of all translated code, so every word is reached by a RIP-relative operand and no register is
//! needed. Nothing preempts between two uses, and a machine is one thread: one page serves all processors.

use std::cell::Cell;
use std::mem::offset_of;

use crate::windows::SCRATCH;

/// What the signal handler saw, for the exit that follows.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(crate) struct HostFault {
    pub(crate) signal: i32,
    pub(crate) trap: u32,
    pub(crate) error: u64,
    pub(crate) address: u64,
    /// The translated instruction.
    pub(crate) rip: u64,
}

/// The page's layout. Offsets are baked into translated code.
#[repr(C)]
pub(crate) struct Scratch {
    /// Instructions left of the slice.
    pub(crate) countdown: Cell<i64>,
    pub(crate) rax: Cell<u64>,
    /// The driver's stack pointer while the host's is in use.
    pub(crate) rsp: Cell<u64>,
    /// The innermost driver frame ([`super::frame::Frame`]) of what runs now; 0 if there is none.
    pub(crate) frame: Cell<u64>,
    /// Where translated code goes on.
    pub(crate) resume: Cell<u64>,
    /// `rax` while a block's head saves the flags in it.
    pub(crate) head_rax: Cell<u64>,
    pub(crate) rcx: Cell<u64>,
    pub(crate) rdx: Cell<u64>,
    pub(crate) r11: Cell<u64>,
    /// Original target of an indirect branch.
    pub(crate) target: Cell<u64>,
    /// Translated target of an indirect branch.
    pub(crate) jump: Cell<u64>,
    /// Host code the stubs jump to.
    pub(crate) exit_entry: Cell<u64>,
    pub(crate) gate_entry: Cell<u64>,
    pub(crate) returned_entry: Cell<u64>,
    pub(crate) fault: Cell<HostFault>,
    /// Stands in for the device memory that an instruction refers to.
    pub(crate) device: DeviceData,
}

/// As wide as the widest operand, and aligned for it.
#[repr(C, align(64))]
pub(crate) struct DeviceData(pub(crate) Cell<[u8; 64]>);

/// The live scratch page.
pub(crate) fn scratch() -> &'static Scratch {
    // SAFETY: the page is mapped as long as a machine is alive, all bit patterns are valid, and one thread uses it.
    unsafe { &*(SCRATCH.base as *const Scratch) }
}

macro_rules! addresses {
    ($($name:ident = $field:ident;)*) => {
        $(pub(crate) const $name: u64 = SCRATCH.base + offset_of!(Scratch, $field) as u64;)*
    };
}

addresses! {
    COUNTDOWN = countdown;
    RAX = rax;
    RSP = rsp;
    FRAME = frame;
    RESUME = resume;
    HEAD_RAX = head_rax;
    RCX = rcx;
    RDX = rdx;
    R11 = r11;
    TARGET = target;
    JUMP = jump;
    EXIT_ENTRY = exit_entry;
    GATE_ENTRY = gate_entry;
    RETURNED_ENTRY = returned_entry;
    DEVICE = device;
}
