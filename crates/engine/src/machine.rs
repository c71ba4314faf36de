//! The one live machine of the process, and the handle through which the floor above reaches it.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use abi::DriverPtr;
use rustix::mm::{MapFlags, ProtFlags};
use zerocopy::{FromBytes, IntoBytes};

use crate::clock::Clock;
use crate::guest::{Caller, Guest};
use crate::heap;
use crate::leave::{Flow, Leave};
use crate::memory::{self, BadAddress, Memory, Protection};
use crate::signals;
use crate::strand::{Progress, StrandId, Strands};
use crate::translate::{self, Translator};
use crate::windows::{self, DEVICE, HEAP, IMAGES, PAGE, STACKS, SYSTEM, TABLE, USER, Window};

/// Why no machine can be made here.
#[derive(Debug)]
pub enum StartError {
    /// Another machine of this process is alive: one at a time.
    Busy,
    /// The host refused a reservation or a set-up call: what, and its reason.
    Host(&'static str, std::io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Busy => f.write_str("a machine is already running in this process; finish it first"),
            Self::Host(what, error) => write!(f, "the host does not allow {what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Where a call into a driver finds its stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stack {
    /// Below the innermost driver frame of this strand.
    Current,
    /// From this address downwards; a multiple of 16.
    At(u64),
}

/// Everything the engine knows of the live machine. All on one thread: cells, no locks.
pub(crate) struct State {
    pub(crate) clock: Clock,
    pub(crate) strands: Strands,
    pub(crate) memory: Memory,
    pub(crate) translator: Translator,
    guest: Cell<Option<*const dyn Guest>>,
    panic: RefCell<Option<String>>,
}

static LIVE: AtomicBool = AtomicBool::new(false);
static STATE: AtomicPtr<State> = AtomicPtr::new(ptr::null_mut());

/// The live machine's state.
pub(crate) fn state() -> &'static State {
    let state = STATE.load(Ordering::Relaxed);
    assert!(!state.is_null(), "the engine is used while no machine is alive");
    // SAFETY: set by `Engine::start`, reset by `Engine::finish`; only the machine's thread gets here.
    unsafe { &*state }
}

/// The state, if a machine is alive: for the signal handler.
pub(crate) fn try_state() -> Option<&'static State> {
    // SAFETY: as in `state`.
    unsafe { STATE.load(Ordering::Relaxed).as_ref() }
}

impl State {
    pub(crate) fn guest(&self) -> &dyn Guest {
        let guest = self.guest.get().expect("driver code runs inside Engine::run only");
        // SAFETY: `Engine::run` keeps the reference alive while it is set.
        unsafe { &*guest }
    }

    /// Runs `call` so that a panic of ours ends as a stop of the machine and does not cross driver frames.
    pub(crate) fn caught<R>(&self, call: impl FnOnce() -> Flow<R>) -> Flow<R> {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
            Ok(flow) => flow,
            Err(payload) => {
                self.note_panic(payload.as_ref());
                Err(Leave::Stop)
            }
        }
    }

    fn note_panic(&self, payload: &(dyn std::any::Any + Send)) {
        let text = payload
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a message".to_owned());
        self.panic.borrow_mut().get_or_insert(text);
    }
}

/// The live machine. Copies are the same machine; [`Engine::finish`] ends it.
#[derive(Clone, Copy)]
pub struct Engine {
    // Not `Send`: a machine belongs to the thread that started it.
    thread: std::marker::PhantomData<*const ()>,
}

impl Engine {
    /// Starts the process's one machine: reserves the arena and prepares this thread.
    ///
    /// # Errors
    /// [`StartError::Busy`] while another machine is alive; [`StartError::Host`] if an address is taken or the kernel
    /// refuses a reservation.
    pub fn start() -> Result<Self, StartError> {
        if LIVE.swap(true, Ordering::Acquire) {
            return Err(StartError::Busy);
        }
        match Self::prepare() {
            Ok(()) => Ok(Self { thread: std::marker::PhantomData }),
            Err(error) => {
                LIVE.store(false, Ordering::Release);
                Err(error)
            }
        }
    }

    fn prepare() -> Result<(), StartError> {
        heap::install_panic_hook();
        reserve_windows().map_err(|e| StartError::Host("reserving the machine's addresses", e))?;
        heap::reset();
        signals::prepare_thread().map_err(|e| StartError::Host("signal handlers", e))?;
        let memory = Memory::new().map_err(|e| StartError::Host("a memfd for the machine's memory", e))?;
        let state = Box::new(State {
            clock: Clock::default(),
            strands: Strands::default(),
            memory,
            translator: Translator::new(),
            guest: Cell::new(None),
            panic: RefCell::new(None),
        });
        STATE.store(Box::into_raw(state), Ordering::Relaxed);
        self::state().clock.reset();
        Ok(())
    }

    /// Ends the machine. Strands that have not ended are abandoned with their stacks.
    pub fn finish(self) {
        let state = STATE.swap(ptr::null_mut(), Ordering::Relaxed);
        if !state.is_null() {
            // SAFETY: made by `Box::into_raw` in `prepare`, and nobody else can reach it any more.
            let state = unsafe { Box::from_raw(state) };
            state.strands.abandon();
            drop(state);
        }
        LIVE.store(false, Ordering::Release);
    }

    /// Runs `f` with allocations on the machine's heap and `guest` answering for the platform.
    pub fn run<R>(self, guest: &dyn Guest, f: impl FnOnce() -> R) -> R {
        struct Restore(Option<*const dyn Guest>);
        impl Drop for Restore {
            fn drop(&mut self) {
                if let Some(state) = try_state() {
                    state.guest.set(self.0);
                }
            }
        }
        // SAFETY: only the lifetime is changed, and `Restore` takes the pointer back before `guest` goes.
        let guest = unsafe { std::mem::transmute::<*const dyn Guest, *const (dyn Guest + 'static)>(guest) };
        let _restore = Restore(state().guest.replace(Some(guest)));
        heap::scope(true, f)
    }

    /// Runs `f` with allocations on the machine's heap: for making the guest itself.
    pub fn inside<R>(self, f: impl FnOnce() -> R) -> R {
        heap::scope(true, f)
    }

    /// The message of a panic of ours that was caught at the gate, if there was one.
    #[must_use]
    pub fn panic_message(self) -> Option<String> {
        state().panic.borrow().clone()
    }

    // ---- time ----

    /// Driver instructions retired since the machine was started, plus what was charged.
    #[must_use]
    pub fn now(self) -> u64 {
        state().clock.now()
    }

    /// Lets time pass without driver instructions: the declared cost of a kernel service, or an idle jump.
    pub fn charge(self, instructions: u64) {
        state().clock.charge(instructions);
    }

    /// [`Guest::slice`] will be called after exactly this many further driver instructions (at least 1).
    pub fn set_slice(self, instructions: u64) {
        state().clock.set_slice(instructions);
    }

    // ---- strands ----

    /// Makes a strand; it runs [`Guest::strand`] when it is first resumed.
    #[must_use]
    pub fn spawn(self) -> StrandId {
        let start = |id| {
            let state = state();
            // A stop unwinds by return; there is nobody left to tell.
            let _ = state.caught(|| {
                state.guest().strand(id);
                Ok(())
            });
        };
        state().strands.spawn(start, |base, size| {
            reserve_existing(Window { base, size }, ProtFlags::READ | ProtFlags::WRITE);
        })
    }

    /// Runs a strand until it suspends or ends. Only from the scheduler, that is, outside any strand.
    #[must_use]
    pub fn resume(self, id: StrandId) -> Progress {
        let state = state();
        state.strands.resume(id, &translate::scratch().frame)
    }

    /// Goes back to the scheduler until it resumes this strand. Only from a strand.
    pub fn suspend(self) {
        state().strands.suspend();
    }

    /// The strand that runs now; 0 is the scheduler.
    #[must_use]
    pub fn strand(self) -> StrandId {
        state().strands.current()
    }

    // ---- driver code ----

    /// Calls driver code at `target` by the x64 convention and returns its `rax`.
    ///
    /// # Errors
    /// [`Leave`], if the driver's frames must be discarded; it is handed on.
    pub fn call(self, target: u64, arguments: &[u64], stack: Stack) -> Flow<u64> {
        translate::call(target, arguments, stack)
    }

    /// Makes `address` (in the images' window, 16-byte aligned) the entry of export `number`.
    pub fn define_export(self, address: u64, number: u32) {
        state().translator.define_export(address, number);
    }

    /// The driver code that called the kernel last on this strand, if it stands in such a call.
    #[must_use]
    pub fn caller(self) -> Option<Caller> {
        translate::caller()
    }

    /// All driver code waiting for the kernel on this strand, innermost first: each [`Engine::call`] whose driver is in a
    /// kernel call.
    #[must_use]
    pub fn callers(self) -> Vec<Caller> {
        translate::callers()
    }

    /// How many [`Engine::call`]s are nested on this strand.
    #[must_use]
    pub fn depth(self) -> u32 {
        translate::depth()
    }

    /// Sets what `gs:` means to driver code: the current processor's control region.
    pub fn set_processor_region(self, address: u64) {
        signals::set_gs(address);
    }

    // ---- memory ----

    /// Maps `length` bytes of physical memory at `physical` to `address`; all multiples of a page, in USER, IMAGES or
    /// SYSTEM.
    pub fn map(self, address: u64, physical: u64, length: u64, protection: Protection) {
        state().memory.map(address, physical, length, protection);
    }

    /// Takes a mapping away.
    pub fn unmap(self, address: u64, length: u64) {
        state().translator.forget(address, length);
        state().memory.unmap(address, length);
    }

    /// Changes what may be done with mapped pages.
    pub fn protect(self, address: u64, length: u64, protection: Protection) {
        state().translator.forget(address, length);
        state().memory.protect(address, length, protection);
    }

    /// Reads a `T` that a driver pointed to.
    ///
    /// # Errors
    /// [`BadAddress`] if any of its bytes is not readable memory of the machine.
    pub fn read<T: FromBytes + IntoBytes>(self, from: DriverPtr<T>) -> Result<T, BadAddress> {
        let mut value = T::new_zeroed();
        memory::read(from.address, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Writes a `T` where a driver pointed to.
    ///
    /// # Errors
    /// [`BadAddress`] if any of its bytes is not writable memory of the machine; then nothing or a part was written.
    pub fn write<T: IntoBytes + zerocopy::Immutable>(
        self,
        to: DriverPtr<T>,
        value: T,
    ) -> Result<(), BadAddress> {
        memory::write(to.address, value.as_bytes())
    }

    /// Fills `into` from driver memory.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn read_bytes(self, address: u64, into: &mut [u8]) -> Result<(), BadAddress> {
        memory::read(address, into)
    }

    /// Stores `from` in driver memory.
    ///
    /// # Errors
    /// As [`Engine::write`].
    pub fn write_bytes(self, address: u64, from: &[u8]) -> Result<(), BadAddress> {
        memory::write(address, from)
    }

    /// Bytes of physical memory; frames are numbered from 0 to this.
    #[must_use]
    pub const fn physical_memory(self) -> u64 {
        memory::PHYSICAL
    }
}

/// Reserves every window. The first machine of the process claims the addresses, later ones lay them anew.
fn reserve_windows() -> std::io::Result<()> {
    static CLAIMED: AtomicBool = AtomicBool::new(false);
    let how = if CLAIMED.load(Ordering::Relaxed) { MapFlags::FIXED } else { MapFlags::FIXED_NOREPLACE };
    let none = ProtFlags::empty();
    let data = ProtFlags::READ | ProtFlags::WRITE;
    for (window, protection) in [(USER, none), (IMAGES, none), (DEVICE, none), (SYSTEM, none), (STACKS, none)]
    {
        memory::reserve(window, protection, how)?;
    }
    memory::reserve(HEAP, data, how)?;
    memory::reserve(TABLE, data, how)?;
    memory::reserve(windows::CACHE, data | ProtFlags::EXEC, how)?;
    memory::reserve(windows::SCRATCH, data, how)?;
    CLAIMED.store(true, Ordering::Relaxed);
    Ok(())
}

fn reserve_existing(window: Window, protection: ProtFlags) {
    debug_assert!(window.base.is_multiple_of(PAGE));
    memory::reserve(window, protection, MapFlags::FIXED).expect("the host refuses memory for a stack");
}
