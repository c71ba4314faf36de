//! The host's side of a machine: it starts the machine, works with it from outside, rewinds it and ends it.
//!
//! Code in the machine (the guest, above all) has an [`Engine`], which can do none of this: so no machine ends under
//! frames that run in it. *Not refused*: a value on the machine's heap that the host's side has kept is gone
//! with the machine, and with a rewind to before it was made. Until the next machine begins it can still be read, and
//! dropping it frees nothing.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

use crate::arena::arena;
use crate::clock::clock;
use crate::compares::Compares;
use crate::fresh::Fresh;
use crate::gone;
use crate::guest::Guest;
use crate::heap;
use crate::jail::Jail;
use crate::machine::{Engine, STATE, State, lay_stack, state, try_state};
use crate::memory::{self, Memory};
use crate::nameless;
use crate::rewind::Rewind;
use crate::root;
use crate::shadow::Shadow;
use crate::sharing::Sharing;
use crate::signals;
use crate::strand::ArenaStack;
use crate::translate::{self, GuestEntryPoints, Reporting, Resumption, Translator};
use crate::turn;
use crate::windows::{
    self, CACHE_WRITTEN, DEVICE, HEAP, IMAGES, PAGES, STACKS, SYSTEM, TABLE, TABLE_WRITTEN, USER,
    USER_DEVICE, Window,
};

/// Why no machine can be made here.
#[derive(Debug)]
pub enum StartError {
    /// The calling thread has a machine already: one is alive in a process at a time, and this thread would wait for itself.
    Busy,
    /// The host refused a reservation or a set-up call: what, and its reason.
    Host(&'static str, std::io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Busy => f.write_str(
                "this thread has a machine already, and a process has one at a time; finish it first",
            ),
            Self::Host(what, error) => write!(f, "the host does not allow {what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// The live machine, as its host sees it. Dropping this ends it.
///
/// There is one for each machine, and code in the machine cannot reach it: it is borrowed as long as anything runs there.
///
/// ```compile_fail,E0382
/// fn twice(host: engine::Host) {
///     host.finish();
///     host.finish();
/// }
/// ```
///
/// ```compile_fail,E0505
/// fn under_a_run(host: engine::Host, guest: &impl engine::Guest) {
///     host.run(guest, || host.finish());
/// }
/// ```
///
/// ```compile_fail,E0505
/// fn in_the_middle_of_a_run(host: engine::Host, guest: &impl engine::Guest) {
///     let mut run = host.explore(guest, || ());
///     host.finish();
///     run.go();
/// }
/// ```
///
/// ```compile_fail,E0599
/// fn by_the_guest(engine: engine::Engine) {
///     engine.finish();
/// }
/// ```
///
/// ```compile_fail,E0599
/// fn a_block_for_the_guest_to_keep(engine: engine::Engine) -> Box<u64> {
///     engine.inside(|| Box::new(1))
/// }
/// ```
///
/// ```compile_fail,E0599
/// fn taken_back_by_the_guest(engine: engine::Engine, to: engine::Snapshot) {
///     engine.rewind(to);
/// }
/// ```
pub struct Host {
    engine: Engine,
}

impl Deref for Host {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl Host {
    /// Starts the process's one machine, as soon as no other thread has it: reserves the arena and prepares this thread.
    ///
    /// # Errors
    /// [`StartError::Busy`] if this thread has a machine already; [`StartError::Host`] if an address is taken or the kernel
    /// refuses a reservation.
    pub fn start() -> Result<Self, StartError> {
        Self::start_as(false)
    }

    /// As [`Host::start`], a machine whose translations test each memory access against a byte shadow: a store or load
    /// outside driver memory is a fault at its instruction wherever it goes, and a touch of a byte that was marked
    /// ([`Engine::mark`]) is reported to [`Guest::touched`]. Events, instructions and addresses are the same.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub fn start_checked() -> Result<Self, StartError> {
        Self::start_as(true)
    }

    fn start_as(checked: bool) -> Result<Self, StartError> {
        if !turn::take() {
            return Err(StartError::Busy);
        }
        match Self::prepare(checked) {
            Ok(()) => Ok(Self { engine: Engine::live() }),
            Err(error) => {
                heap::close();
                turn::give_back();
                Err(error)
            }
        }
    }

    fn prepare(checked: bool) -> Result<(), StartError> {
        heap::install_panic_hook();
        reserve_windows().map_err(|e| StartError::Host("reserving the machine's addresses", e))?;
        heap::reset();
        signals::prepare_thread().map_err(|e| StartError::Host("signal handlers", e))?;
        let memory = Memory::new().map_err(|e| StartError::Host("a memfd for the machine's memory", e))?;
        let shadow = Shadow::new(checked)
            .map_err(|e| StartError::Host("reserving the shadow of the machine's memory", e))?;
        let state = Box::new(State {
            shadow,
            sharing: Sharing::default(),
            compares: Compares::default(),
            reporting: Reporting::default(),
            fresh: Fresh::default(),
            strands: &arena().strands,
            memory,
            translator: Translator::new(),
            resumption: Resumption::default(),
            guest: Cell::new(None),
            guest_before: Cell::new(ptr::null()),
            running: Cell::new(false),
            explored: Cell::new(false),
            fills_stacks: Cell::new(false),
            default_only: Cell::new(false),
            question: Cell::new(None),
            answer: Cell::new(0),
            stacks: Cell::new(0),
            rewind: Rewind::default(),
            gone: RefCell::default(),
            aside: RefCell::default(),
            cpu: Cell::default(),
        });
        STATE.store(Box::into_raw(state), Ordering::Relaxed);
        gone::came_back();
        GuestEntryPoints::closed().open();
        clock().reset();
        translate::scratch().level.set(0);
        translate::scratch().free_levels.set(16);
        translate::scratch().calls.set(0);
        translate::scratch().asked_calls.set(0);
        translate::scratch().answered_calls.set(0);
        translate::open_answers(0);
        translate::host_words().answers.set(0);
        translate::host_words().noted_calls.set(0);
        translate::scratch().short_until.set(0);
        translate::scratch().free_until.set(0);
        translate::forbid_locks();
        translate::close_access_log();
        translate::ask_for_extended();
        Ok(())
    }

    /// Locks the calling thread into `jail`, for ever: what it may still do is what this machine needs.
    ///
    /// # Errors
    /// [`StartError::Host`] if this host has no seccomp filters.
    pub fn lock_in(&self, jail: &Jail) -> Result<(), StartError> {
        jail.lock(state().memory.file())
    }

    /// Ends the machine, as its drop does. Strands that have not ended are abandoned with their stacks.
    pub fn finish(self) {
        drop(self);
    }

    /// Runs `f` on the machine's own stack, with allocations on its heap and `guest` answering for the platform.
    ///
    /// # Panics
    /// Within a run, for another guest than that one's; or while a strand is suspended that another guest has begun.
    pub fn run<G: Guest, R>(&self, guest: &G, f: impl FnOnce() -> R) -> R {
        root::run(guest, f)
    }

    /// Runs `f` with allocations on the machine's heap: for making the guest itself.
    pub fn inside<R>(&self, f: impl FnOnce() -> R) -> R {
        heap::scope(true, f)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(state) = try_state() {
            state.rewind.finish();
        }
        let state = STATE.swap(ptr::null_mut(), Ordering::Relaxed);
        if !state.is_null() {
            // SAFETY: made by `Box::into_raw` in `prepare`. There is no other reference: whatever runs in the machine borrows the host's side.
            let state = unsafe { Box::from_raw(state) };
            state.shadow.release();
            drop(state);
        }
        heap::close();
        turn::give_back();
    }
}

/// Reserves every window. The first machine of the process claims the addresses, later ones lay them anew.
fn reserve_windows() -> std::io::Result<()> {
    static CLAIMED: AtomicBool = AtomicBool::new(false);
    let how = if CLAIMED.load(Ordering::Relaxed) { MapFlags::FIXED } else { MapFlags::FIXED_NOREPLACE };
    if !CLAIMED.load(Ordering::Relaxed) {
        windows::hide(random()?);
    }
    let none = ProtFlags::empty();
    let data = ProtFlags::READ | ProtFlags::WRITE;
    for window in [USER, USER_DEVICE, IMAGES, DEVICE, SYSTEM, STACKS.window()] {
        memory::reserve(window, none, how)?;
    }
    memory::reserve(HEAP.window(), none, how)?;
    memory::reserve(PAGES.window(), data, how)?;
    reserve_twice(
        "dirql-scratch",
        [(windows::SCRATCH, data), (windows::SCRATCH_READ, ProtFlags::READ)],
        how,
    )?;
    // Never writable where driver code reads or executes it.
    let code = windows::CACHE;
    reserve_twice(
        "dirql-code",
        [(code, ProtFlags::READ | ProtFlags::EXEC), (CACHE_WRITTEN.window(), data)],
        how,
    )?;
    reserve_twice("dirql-table", [(TABLE, ProtFlags::READ), (TABLE_WRITTEN.window(), none)], how)?;
    translate::lay_table();
    CLAIMED.store(true, Ordering::Relaxed);
    lay_stack(ArenaStack::root().window());
    Ok(())
}

/// Maps the same fresh memory to two windows, of which the first may be the longer one.
fn reserve_twice(name: &str, windows: [(Window, ProtFlags); 2], how: MapFlags) -> std::io::Result<()> {
    let file = nameless::file(name, windows[0].0.size)?;
    let flags = MapFlags::SHARED | MapFlags::NORESERVE | how;
    for (window, protection) in windows {
        let (at, length) = (window.base as *mut _, memory::usize_of(window.size));
        // SAFETY: either the kernel refuses because something is there, or the range is one of the machine's windows.
        unsafe { rustix::mm::mmap(at, length, protection, flags, &file, 0) }?;
    }
    Ok(())
}

/// A number that cannot be known outside this process.
fn random() -> std::io::Result<u64> {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is as long as is said.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if usize::try_from(got) == Ok(bytes.len()) {
        Ok(u64::from_ne_bytes(bytes))
    } else {
        Err(std::io::Error::last_os_error())
    }
}
