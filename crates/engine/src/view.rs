//! A structure in driver memory of which the kernel reads or writes several words: its range is checked once, then each word is
//! an instruction.
//!
//! Only while accesses are not observed (neither checked nor learned): [`Engine::view`] returns none otherwise. A word that cannot be
//! accessed is not reported at once: [`Engine::peek`], in which views are used, returns none at its end, and what was read is discarded.

use std::marker::PhantomData;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use abi::{DriverPtr, Field};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::machine::Engine;
use crate::memory::{self, WordAccess};

/// A structure in driver memory. It holds nothing: each access goes there.
///
/// Where is made with it, and said by fields that lie inside:
///
/// ```compile_fail,E0451
/// fn elsewhere(host: &u64) -> engine::View<u64> {
///     engine::View { at: engine::DriverPtr::new(std::ptr::from_ref(host) as u64) }
/// }
/// ```
///
/// ```compile_fail,E0616
/// fn beyond(view: engine::View<abi::IO_STATUS_BLOCK>, host: &u64) {
///     let mut field = abi::IO_STATUS_BLOCK::Information;
///     field.offset = (std::ptr::from_ref(host) as u64).wrapping_sub(view.at().address);
///     view.set(field, 0);
/// }
/// ```
///
/// It is of the machine's thread, where a fault of an access is noticed:
///
/// ```compile_fail,E0277
/// fn by_another_thread(view: engine::View<u64>) {
///     std::thread::spawn(move || view.word());
/// }
/// ```
pub struct View<T> {
    at: DriverPtr<T>,
    // Not `Send`.
    thread: PhantomData<*const ()>,
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<T> {}

impl<T> View<T> {
    #[inline]
    const fn new(at: DriverPtr<T>) -> Self {
        Self { at, thread: PhantomData }
    }

    /// Where it lies.
    #[must_use]
    #[inline]
    pub fn at(self) -> DriverPtr<T> {
        self.at
    }

    /// A word of it; within [`Engine::peek`].
    #[must_use]
    #[inline]
    pub fn get<F: FromBytes + IntoBytes>(self, field: Field<T, F>) -> F {
        const { assert!(memory::is_word::<F>(), "a view is read word by word") };
        let address = self.at.address + field.offset();
        let mut value = F::new_zeroed();
        let bytes = value.as_mut_bytes();
        let word = match bytes.len() {
            1 => load::<1>(address),
            2 => load::<2>(address),
            4 => load::<4>(address),
            _ => load::<8>(address),
        };
        bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
        value
    }

    /// Writes a word of it; within [`Engine::peek`].
    #[inline]
    pub fn set<F: IntoBytes + Immutable>(self, field: Field<T, F>, value: F) {
        const { assert!(memory::is_word::<F>(), "a view is written word by word") };
        let address = self.at.address + field.offset();
        let from = value.as_bytes();
        let mut bytes = [0; 8];
        bytes[..from.len()].copy_from_slice(from);
        let word = u64::from_le_bytes(bytes);
        match from.len() {
            1 => store::<1>(address, word),
            2 => store::<2>(address, word),
            4 => store::<4>(address, word),
            _ => store::<8>(address, word),
        }
    }

    /// A structure within it.
    #[must_use]
    #[inline]
    pub fn part<F>(self, field: Field<T, F>) -> View<F> {
        View::new(self.at + field)
    }

    /// An element of an array within it; none if that has not so many.
    #[must_use]
    #[inline]
    pub fn element<F: FromBytes + IntoBytes, const N: usize>(
        self,
        field: Field<T, [F; N]>,
        index: usize,
    ) -> Option<F> {
        let only = View::new((self.at + field).element(index as u64));
        (index < N).then(|| only.word())
    }
}

impl<T: FromBytes + IntoBytes> View<T> {
    /// All of it, where it is a word; within [`Engine::peek`].
    #[must_use]
    #[inline]
    pub fn word(self) -> T {
        self.get(Field::at(0))
    }
}

impl Engine {
    /// The structure at `at`, of a page at most, to be accessed word by word, if it lies in the kernel's or the drivers' own memory. None
    /// is no error: call [`Engine::read`], which reports bad addresses.
    #[must_use]
    #[inline]
    pub fn view<T>(self, at: DriverPtr<T>) -> Option<View<T>> {
        const { assert!(size_of::<T>() <= 0x1000, "nothing of ours lies in the page behind the window") };
        memory::is_plain(at.address).then_some(View::new(at))
    }

    /// The same of an application's.
    #[must_use]
    #[inline]
    pub fn view_of_user<T>(self, at: DriverPtr<T>) -> Option<View<T>> {
        const { assert!(size_of::<T>() <= 0x1000, "as above") };
        memory::is_plain_user(at.address).then_some(View::new(at))
    }

    /// Whether the first and the last of some bytes of an application's can be read.
    #[must_use]
    #[inline]
    pub fn are_ends_readable(self, address: u64, bytes: u64) -> bool {
        let ends = [address, address + bytes - 1].map(|at| self.view_of_user(DriverPtr::<u8>::new(at)));
        let [Some(first), Some(last)] = ends else { return false };
        self.peek(|| Some((first.word(), last.word()))).is_some()
    }

    /// What `access` returns, if each access by a view in it did what it says. Else none: what it has read is worthless, what it has
    /// written before or after stays. A fault in it is none of any other `peek`'s, around it or after it.
    #[must_use]
    #[inline]
    pub fn peek<R>(self, access: impl FnOnce() -> Option<R>) -> Option<R> {
        let before = take_fault();
        let result = access();
        let faulted = take_fault();
        if before {
            miss();
        }
        if faulted { None } else { result }
    }

    /// As [`Engine::peek`], of stores alone: none if one of them has faulted.
    #[inline]
    pub fn try_store(self, stores: impl FnOnce()) -> Option<()> {
        self.peek(|| {
            stores();
            Some(())
        })
    }

    /// As [`Engine::peek`], of memory that is the kernel's own and therefore there.
    ///
    /// # Panics
    /// It is not there; `why` says why it should be.
    #[inline]
    pub fn peek_own<R>(self, why: &str, access: impl FnOnce() -> R) -> R {
        match self.peek(|| Some(access())) {
            Some(result) => result,
            None => panic!("an access of the kernel's own memory has faulted: {why}"),
        }
    }

    /// Within [`Engine::peek`]: whether it returns none already. For loops, which need an end.
    #[must_use]
    #[inline]
    pub fn has_faulted(self) -> bool {
        MISSED.load(Relaxed)
    }

    /// Whether [`Engine::view`] can return a view: accesses are neither checked nor learned.
    #[must_use]
    #[inline]
    pub fn is_plain(self) -> bool {
        memory::nobody_asks()
    }

    /// Copies `bytes` bytes of driver memory to another place of it, as [`Engine::view`] would. False: a part may have been copied.
    #[must_use]
    #[inline]
    pub fn copy_plain(self, to: u64, from: u64, bytes: u64) -> bool {
        memory::copy_plain(to, from, bytes)
    }
}

// ---- the instructions ----

std::arch::global_asm!(
    // A program that makes no view has the table of their accesses all the same. This one is no instruction's.
    ".pushsection dirql_views, \"aR\", @progbits",
    ".balign 4",
    ".long 0",
    ".long 0",
    ".popsection",
);

unsafe extern "C" {
    #[link_name = "__start_dirql_views"]
    static FIRST: WordAccess;
    #[link_name = "__stop_dirql_views"]
    static END: WordAccess;
}

/// If the instruction at `rip` is one of a view's: what lies behind it.
pub(crate) fn fixup(rip: u64) -> Option<u64> {
    memory::behind(memory::accesses(&raw const FIRST, &raw const END), rip)
}

/// An access of a view has faulted since it was asked last.
static MISSED: AtomicBool = AtomicBool::new(false);

/// An access of a view has faulted. For the signal handler.
pub(crate) fn miss() {
    MISSED.store(true, Relaxed);
}

/// Whether an access of a view has faulted since this was asked last.
#[inline]
pub(crate) fn take_fault() -> bool {
    MISSED.load(Relaxed) && MISSED.swap(false, Relaxed)
}

/// One instruction on driver memory; who makes several asks [`take_fault`] once.
macro_rules! load {
    ($instruction:literal, $($operand:tt)*) => {
        // SAFETY: the address lies in a window that holds driver memory, or in the page behind, where nothing of ours is; where it is not
        // mapped or may not be written, the signal handler goes on behind the instruction.
        unsafe {
            std::arch::asm!(
                concat!("2: ", $instruction),
                "3:",
                ".pushsection dirql_views, \"aR\", @progbits",
                ".balign 4",
                ".long 2b - .",
                ".long 3b - .",
                ".popsection",
                $($operand)*
                options(nostack, preserves_flags),
            )
        }
    };
}

/// Loads a word of 1, 2, 4 or 8 bytes of driver memory. If that faults, the result is undefined, and [`take_fault`] returns true.
#[inline]
pub(crate) fn load<const BYTES: usize>(address: u64) -> u64 {
    let value: u64;
    match BYTES {
        1 => {
            load!("movzx {value:e}, byte ptr [{address}]", address = in(reg) address, value = out(reg) value,)
        }
        2 => {
            load!("movzx {value:e}, word ptr [{address}]", address = in(reg) address, value = out(reg) value,)
        }
        4 => load!("mov {value:e}, [{address}]", address = in(reg) address, value = out(reg) value,),
        _ => load!("mov {value}, [{address}]", address = in(reg) address, value = out(reg) value,),
    }
    value
}

/// Stores a word of 1, 2, 4 or 8 bytes in driver memory, unless that faults: [`take_fault`] says so.
#[inline]
pub(crate) fn store<const BYTES: usize>(address: u64, value: u64) {
    match BYTES {
        1 => load!("mov [{address}], {value:l}", address = in(reg) address, value = in(reg) value,),
        2 => load!("mov [{address}], {value:x}", address = in(reg) address, value = in(reg) value,),
        4 => load!("mov [{address}], {value:e}", address = in(reg) address, value = in(reg) value,),
        _ => load!("mov [{address}], {value}", address = in(reg) address, value = in(reg) value,),
    }
}
