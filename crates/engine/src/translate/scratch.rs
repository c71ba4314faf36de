//! The scratch page: the words that translated code, the stubs and the host share, and that are the driver's own: registers that are
//! put aside, its account of time, its level. A driver can find and change them, and spoils its own machine only; what is the host's
//! is in [`super::host_words`].
//!
//! It lies below 2 GiB, so every word is reached by its plain address and no register is needed. Nothing preempts between two uses, and a machine is one thread: one page serves all processors.

use std::cell::Cell;
use std::mem::offset_of;

use super::frame::USED_FLAGS;
use super::host_words::host_words;
use super::short::SHORT_EXPORTS;
use crate::clock::Clock;
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
    /// Instructions left of the slice; while translated code runs they are counted in `r13`, and this is out of date.
    pub(crate) countdown: Cell<i64>,
    /// What time that makes it: here, because it is read everywhere and is taken back with the countdown.
    pub(crate) clock: Clock,
    /// The driver's `r13` meanwhile.
    pub(crate) driver_r13: Cell<u64>,
    /// The countdown while an instruction of the driver's is lent the register.
    pub(crate) held: Cell<i64>,
    pub(crate) rax: Cell<u64>,
    /// The driver's stack pointer while the host's is in use.
    pub(crate) rsp: Cell<u64>,
    /// `rax` while a block's head saves the flags in it.
    pub(crate) head_rax: Cell<u64>,
    pub(crate) rcx: Cell<u64>,
    pub(crate) rdx: Cell<u64>,
    pub(crate) r11: Cell<u64>,
    /// Original target of an indirect branch.
    pub(crate) target: Cell<u64>,
    /// Where the marks of what `gs:` means lie, and what says which of it was stored.
    pub(crate) gs_marks: Cell<u64>,
    pub(crate) gs_stored: Cell<u64>,
    /// What of the vector state any translated code may have changed: [`super::frame::USED_MXCSR`] and its neighbour. It only
    /// grows, and decides what is saved, never what a driver sees.
    pub(crate) used: Cell<u32>,
    /// Flags and MXCSR of the routine that returned last, if [`Scratch::used`] says that one of them may be its own.
    pub(crate) left_flags: Cell<u32>,
    pub(crate) left_mxcsr: Cell<u32>,
    /// Not 0: before driver code uses x87 or MMX registers, or AVX's, the guest is asked (see [`super::extended`]).
    pub(crate) ask_x87: Cell<u64>,
    pub(crate) ask_avx: Cell<u64>,
    /// CR8 of the current processor.
    pub(crate) level: Cell<u8>,
    /// The highest level that any processor has been at.
    pub(crate) highest_level: Cell<u8>,
    /// The lowest level that may be moved to CR8 without asking the guest; above 15: none.
    pub(crate) free_levels: Cell<u8>,
    /// How many calls of exports there were.
    pub(crate) calls: Cell<u64>,
    /// Those of them that the guest was asked about: the others are [`super::short`].
    pub(crate) asked_calls: Cell<u64>,
    /// Those of the others that are [`super::short::Short::Answer`].
    pub(crate) answered_calls: Cell<u64>,
    /// See [`crate::Engine::open_answers`].
    pub(crate) open_answers: Cell<u8>,
    /// Of each [`super::short::ShortExport::counter`], the calls that the guest was not asked about.
    pub(crate) short_calls: [Cell<u64>; SHORT_EXPORTS],
    /// While there were fewer calls than this, there may be short ones.
    pub(crate) short_until: Cell<u64>,
    /// Up to this call the guest has said that it has nothing to see to before one.
    pub(crate) free_until: Cell<u64>,
    /// The spin lock that driver code has taken by itself, or what [`super::short`] says of one; and, of such a lock, the calls
    /// and the lowest free level before it, the countdown, and the low half of where it was taken.
    pub(crate) lock: Cell<u64>,
    pub(crate) lock_calls: Cell<u64>,
    pub(crate) lock_answered_calls: Cell<u64>,
    pub(crate) lock_countdown: Cell<i64>,
    pub(crate) lock_place: Cell<u32>,
    pub(crate) lock_free_levels: Cell<u8>,
    /// The last address that was found to be one of a lock.
    pub(crate) lock_known: Cell<u64>,
    /// The stack of the flow that runs, whose accesses to it are not noted, and its bytes; 0 where all are ([`super::inspect`]).
    pub(crate) own_stack: Cell<u64>,
    pub(crate) own_stack_bytes: Cell<u64>,
    /// Where the next access is noted ([`super::noted`]).
    pub(crate) log: Cell<u64>,
    /// Stands in for the device memory that an instruction refers to.
    pub(crate) device: DeviceData,
}

/// As wide as the widest operand, and aligned for it.
#[repr(C, align(64))]
pub(crate) struct DeviceData(pub(crate) Cell<[u8; 64]>);

impl Scratch {
    /// The guest is asked about a call of an export.
    #[inline]
    pub(crate) fn count_asked_call(&self) {
        self.calls.set(self.calls.get() + 1);
        self.asked_calls.set(self.asked_calls.get() + 1);
    }

    /// What there is now of [`Self::used`].
    #[inline]
    pub(crate) fn has_used(&self, what: u32) -> bool {
        self.used.get() & what != 0
    }

    /// From now on there is this of [`Self::used`]. Driver code does not run, and holds no lock by itself.
    #[inline]
    pub(crate) fn uses(&self, what: u32) {
        let used = self.used.get() | what;
        self.used.set(used);
        if used & USED_FLAGS != 0 {
            self.short_until.set(0);
            super::forbid_locks();
        }
    }
}

/// The live scratch page.
#[inline]
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
    DRIVER_R13 = driver_r13;
    HELD = held;
    RAX = rax;
    RSP = rsp;
    HEAD_RAX = head_rax;
    RCX = rcx;
    RDX = rdx;
    R11 = r11;
    TARGET = target;
    ASK_X87 = ask_x87;
    ASK_AVX = ask_avx;
    LEVEL = level;
    HIGHEST_LEVEL = highest_level;
    FREE_LEVELS = free_levels;
    CALLS = calls;
    SHORT_CALLS = short_calls;
    SHORT_UNTIL = short_until;
    LOCK = lock;
    LOCK_CALLS = lock_calls;
    LOCK_ANSWERED_CALLS = lock_answered_calls;
    ANSWERED_CALLS = answered_calls;
    OPEN_ANSWERS = open_answers;
    FREE_UNTIL = free_until;
    OWN_STACK = own_stack;
    OWN_STACK_BYTES = own_stack_bytes;
    LOG = log;
    LOCK_COUNTDOWN = lock_countdown;
    LOCK_PLACE = lock_place;
    LOCK_FREE_LEVELS = lock_free_levels;
    LOCK_KNOWN = lock_known;
    GS_MARKS = gs_marks;
    GS_STORED = gs_stored;
    DEVICE = device;
}

/// Bytes of the page that mean anything.
const SIZE: usize = size_of::<Scratch>();

/// What a snapshot keeps of translated code's words.
pub(crate) struct Saved {
    page: [u8; SIZE],
    /// See [`super::host_words::HostWords`].
    frame: u64,
    answers: u64,
    noted_calls: u64,
}

impl Saved {
    /// What the page holds. Without what speaks of translations, which are not taken back.
    pub(crate) fn now() -> Self {
        let used = scratch().used.replace(0);
        // SAFETY: so many bytes are mapped there, and all of them were zero once: none is uninitialised.
        let page = unsafe { (SCRATCH.base as *const [u8; SIZE]).read() };
        scratch().used.set(used);
        let words = host_words();
        let (answers, noted_calls) = (words.answers.get(), words.noted_calls.get());
        Self { page, frame: words.frame.get(), answers, noted_calls }
    }

    /// Puts it back. Translated code does not run meanwhile.
    pub(crate) fn restore(&self) {
        let used = scratch().used.get();
        // SAFETY: as above; the words hold what they held before.
        unsafe { (SCRATCH.base as *mut [u8; SIZE]).write(self.page) };
        scratch().uses(used);
        host_words().frame.set(self.frame);
        host_words().answers.set(self.answers);
        host_words().noted_calls.set(self.noted_calls);
    }

    /// What a driver could tell it by.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.page
    }
}
