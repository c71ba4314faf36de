//! The root strand: whatever [`Host::run`] is given, the scheduler above all, runs on a stack in the arena too.
//!
//! So at a [question](crate::Engine::ask), asked anywhere, nothing of the machine is left on the host's own stack: the strand
//! that asks suspends to the root, the root to the host, and there the machine may be saved, taken back and answered
//! again. A run without an explorer never comes back before its end.

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::arena::arena;
use crate::chooser::Question;
use crate::guest::Guest;
use crate::heap;
use crate::host::Host;
use crate::machine::{Engine, state, try_state};
use crate::strand::ArenaStack;
use crate::translate::GuestEntryPoints;

type Body = Coroutine<(), (), (), ArenaStack>;

/// The root strand, if a run is in progress. Lies in the arena.
pub(crate) struct Root {
    body: UnsafeCell<Option<Body>>,
    yielder: Cell<*const Yielder<(), ()>>,
    /// The number of the run that has begun last.
    number: Cell<u64>,
}

/// How many runs have begun, of all machines.
static RUNS: AtomicU64 = AtomicU64::new(0);

impl Default for Root {
    fn default() -> Self {
        Self { body: UnsafeCell::new(None), yielder: Cell::new(ptr::null()), number: Cell::new(0) }
    }
}

impl Root {
    /// Lays `f` on the root's stack; it leaves what it returns in `result`. The number of this run.
    ///
    /// # Safety
    /// `f`, what it borrows and `result` must stay good as long as the root is resumed.
    unsafe fn begin<R>(&self, f: impl FnOnce() -> R, result: *const Cell<Option<R>>) -> u64 {
        let run = move |yielder: &Yielder<(), ()>, ()| {
            arena().root.yielder.set(yielder);
            let value = f();
            // SAFETY: the caller's promise.
            unsafe { (*result).set(Some(value)) };
        };
        // SAFETY: the caller's promise on lifetimes; the cell is reached here and in `resume`, never at the same time.
        unsafe {
            let body = &mut *self.body.get();
            assert!(body.is_none(), "one run at a time: the one before has not ended");
            *body = Some(Coroutine::with_stack_unchecked(ArenaStack::root(), run));
        }
        self.number.set(RUNS.fetch_add(1, Relaxed) + 1);
        self.number.get()
    }

    /// Runs on. True once it is over.
    fn resume(&self) -> bool {
        let body = self.body.get();
        // SAFETY: there is no other reference to the coroutine while it runs; a panic that comes out of it has ended it.
        unsafe {
            let ended = (*body).as_mut().expect("a run that is resumed has begun and has not ended");
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ended.resume(())));
            if matches!(ended, Ok(CoroutineResult::Yield(()))) {
                return false;
            }
            *body = None;
            if let Err(panic) = ended {
                std::panic::resume_unwind(panic);
            }
            true
        }
    }

    /// Forgets a run that has not ended.
    fn abandon(&self) {
        // SAFETY: it does not run now.
        std::mem::forget(unsafe { (*self.body.get()).take() });
    }

    /// Goes back to the host until it has an answer. Only from the root's own stack.
    pub(crate) fn ask(&self) {
        assert!(!std::thread::panicking(), "the machine must not suspend while it unwinds");
        // SAFETY: the yielder lives on the root's stack as long as the root runs, and it does.
        unsafe { (*self.yielder.get()).suspend(()) }
    }
}

/// Runs `f` on the root to its end.
pub(crate) fn run<G: Guest, R>(guest: &G, f: impl FnOnce() -> R) -> R {
    let hosted = Hosted::new(guest);
    if state().running.get() {
        assert!(hosted.is_here(), "a run within a run is of the same guest");
        return heap::scope(true, f);
    }
    let result = Cell::new(None);
    // SAFETY: the root is over when this function returns, by the end of `f` or by its panic.
    unsafe { arena().root.begin(f, &raw const result) };
    let over = hosted.with(|| resume(false));
    assert!(over, "only a run that is explored asks the host's side");
    result.take().expect("the root leaves its result before it ends")
}

fn resume(explored: bool) -> bool {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            if let Some(state) = try_state() {
                state.set_running(false);
                state.explored.set(false);
            }
        }
    }
    let was = state().set_running(true);
    assert!(!was, "the root is resumed from the host's stack only");
    state().explored.set(explored);
    let _restore = Restore;
    heap::scope(true, || arena().root.resume())
}

/// A guest, and its entry points for translated code: these depend on its type, which is known only where this is made.
#[derive(Clone, Copy)]
struct Hosted<'g> {
    guest: &'g dyn Guest,
    entry_points: GuestEntryPoints,
}

impl<'g> Hosted<'g> {
    fn new<G: Guest>(guest: &'g G) -> Self {
        Self { guest, entry_points: GuestEntryPoints::of::<G>() }
    }

    fn address(self) -> *const () {
        ptr::from_ref(self.guest).cast()
    }

    /// Whether it is the guest of the run in progress.
    fn is_here(self) -> bool {
        let guest = state().guest.get();
        guest.is_some_and(|guest| ptr::addr_eq(guest, self.guest)) && self.entry_points.are_open()
    }

    /// Runs `f` with it as the machine's guest.
    fn with<R>(self, f: impl FnOnce() -> R) -> R {
        struct Restore(Option<*const dyn Guest>, GuestEntryPoints);
        impl Drop for Restore {
            fn drop(&mut self) {
                if let Some(state) = try_state() {
                    state.guest.set(self.0);
                    self.1.open();
                }
            }
        }
        let before = state().guest_before.replace(self.address());
        // A suspended strand has references to the guest that it began with.
        let foreign = before != self.address() && state().strands.is_any_suspended();
        assert!(!foreign, "a strand is suspended that another guest has begun");
        let guest: *const (dyn Guest + 'g) = self.guest;
        // SAFETY: only the lifetime is changed, and `Restore` takes the pointer back before `guest` goes.
        let guest =
            unsafe { std::mem::transmute::<*const (dyn Guest + 'g), *const (dyn Guest + 'static)>(guest) };
        let _restore = Restore(state().guest.replace(Some(guest)), self.entry_points.open());
        f()
    }
}

/// How far a run that is explored has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn<R> {
    /// The machine asks. Everything in it is suspended; it goes on by [`Run::answer`].
    Asked(Question),
    /// The run is over.
    Ended(R),
}

/// A run whose questions come to the host's side, where the machine can be saved and taken back between them.
///
/// After [`Host::rewind`] to a snapshot that was taken at a question, that question is open again, even if the run had
/// ended meanwhile. One that is dropped before its end leaves the machine as it stands: finish it, or take it back.
pub struct Run<'g, R> {
    result: Box<Cell<Option<R>>>,
    hosted: Hosted<'g>,
    number: u64,
    // Not `Send`: a machine belongs to the thread that started it.
    thread: PhantomData<*const ()>,
}

impl<'g, R> Run<'g, R> {
    /// A run of `f` that has not begun; it begins with the first [`Run::go`].
    fn new<G: Guest>(guest: &'g G, f: impl FnOnce() -> R + Copy + 'g) -> Self {
        let result = Box::new(Cell::new(None));
        // SAFETY: `f` and the guest outlive the run, the result lies on the heap of the run's, and only the run resumes
        // the root, which it knows by its number; its drop forgets it.
        let number = unsafe { arena().root.begin(f, &raw const *result) };
        Self { result, hosted: Hosted::new(guest), number, thread: PhantomData }
    }

    fn resume(&self, explored: bool) -> bool {
        // One that was forgotten and not dropped leaves its body behind, with what that has borrowed.
        assert_eq!(arena().root.number.get(), self.number, "another run has begun since");
        self.hosted.with(|| resume(explored))
    }

    /// Runs up to the first question.
    pub fn go(&mut self) -> Turn<R> {
        if self.resume(true) {
            return Turn::Ended(self.result.take().expect("the root leaves its result before it ends"));
        }
        Turn::Asked(state().question.get().expect("who suspends the root has asked"))
    }

    /// Runs to the end without asking: the guest answers by itself, as in a run that is not explored. Not at a question.
    pub fn finish(&mut self) -> R {
        let over = self.resume(false);
        assert!(over, "only a run that is explored asks the host's side");
        self.result.take().expect("the root leaves its result before it ends")
    }

    /// Answers the open question, and runs to the end as [`Run::finish`] does.
    pub fn answer_and_finish(&mut self, answer: u64) -> R {
        state().answer.set(answer);
        self.finish()
    }

    /// Answers the open question, and runs up to the next.
    pub fn answer(&mut self, answer: u64) -> Turn<R> {
        state().answer.set(answer);
        self.go()
    }
}

impl<R> Drop for Run<'_, R> {
    fn drop(&mut self) {
        if arena().root.number.get() == self.number {
            arena().root.abandon();
        }
    }
}

impl Host {
    /// Begins a run of `f` that is explored: as [`Host::run`], but every [`Engine::ask`] comes back to the caller.
    ///
    /// `f` is `Copy`, because it ends as often as it is taken back: what it captures is borrowed, not owned. Whatever it
    /// changes outside the machine is not taken back with it.
    pub fn explore<'g, G: Guest, R>(&'g self, guest: &'g G, f: impl FnOnce() -> R + Copy + 'g) -> Run<'g, R> {
        Run::new(guest, f)
    }
}

impl Engine {
    /// Whether an answer may be another than the default: the run is explored, or the chooser does not say that it gives
    /// [defaults only](crate::Chooser::is_default_only).
    #[must_use]
    #[inline]
    pub fn may_depart(self) -> bool {
        let state = state();
        !state.default_only.get() || state.explored.get()
    }

    /// What the chooser says of itself ([`crate::Chooser::is_default_only`]); false until this is called. It is the host's, and not
    /// taken back with the machine.
    pub fn chooser_is_default_only(self, default_only: bool) {
        state().default_only.set(default_only);
    }

    /// Whether the run in progress is explored, so that questions may be asked.
    #[must_use]
    pub fn is_explored(self) -> bool {
        state().explored.get()
    }

    /// Asks the host's side, from anywhere in the machine, and waits for its answer.
    ///
    /// Only while the run is explored, and never from within [`crate::outside`].
    #[must_use]
    pub fn ask(self, question: Question) -> u64 {
        let state = state();
        assert!(state.explored.get(), "the run is not explored");
        assert!(heap::is_inside(), "a question must not be asked with the host's heap in use");
        state.question.set(Some(question));
        state.strands.ask();
        state.answer.get()
    }
}
