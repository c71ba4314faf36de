//! The one live machine of the process, and the handle through which the floor above reaches it.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use abi::DriverPtr;
use rustix::mm::{MapFlags, ProtFlags};
use zerocopy::{FromBytes, IntoBytes};

use crate::arena::arena;
use crate::chooser::Question;
use crate::clock::clock;
use crate::compares::{Asked, Compare, Compares};
use crate::fill::Fill;
use crate::fresh::Fresh;
use crate::gone::{self, Aside, Gone};
use crate::guest::{Caller, DriverState, Guest, Reports, Runner, Step};
use crate::heap;
use crate::leave::{Flow, Leave};
use crate::memory::{self, BadAddress, Memory, Protection};
use crate::processor::Cpu;
use crate::registers::{Context, LeftBehind, Registers};
use crate::rewind::Rewind;
use crate::shadow::Shadow;
use crate::sharing::{self, Sharing};
use crate::signals;
use crate::strand::{Progress, StrandId, Strands};
use crate::translate::{self, Answer, Carried, Moved, Reporting, Resumption, Short, Translator};
use crate::windows::{self, CACHE_WRITTEN, HEAP, PAGES, STACKS, TABLE_WRITTEN, Window};

/// Where a call into a driver finds its stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stack {
    /// Below the innermost driver frame of this strand.
    Current,
    /// From this address downwards; a multiple of 16.
    At(u64),
}

/// What the host knows of the live machine, and where the rest is. All on one thread: cells, no locks. None of it is
/// rewound; what is rewound is in [`Arena`](crate::arena::Arena).
pub(crate) struct State {
    pub(crate) strands: &'static Strands,
    pub(crate) memory: Memory,
    pub(crate) shadow: Shadow,
    pub(crate) sharing: Sharing,
    pub(crate) compares: Compares,
    pub(crate) reporting: Reporting,
    pub(crate) fresh: Fresh,
    pub(crate) translator: Translator,
    pub(crate) resumption: Resumption,
    pub(crate) guest: Cell<Option<*const dyn Guest>>,
    /// Whose run was the last: strands that it has begun are its.
    pub(crate) guest_before: Cell<*const ()>,
    /// Something of the machine is on the processor: not the host's own stack.
    pub(crate) running: Cell<bool>,
    /// The run in progress is explored.
    pub(crate) explored: Cell<bool>,
    /// See [`Engine::fill_stacks`].
    pub(crate) fills_stacks: Cell<bool>,
    /// Every answer of the chooser is the default.
    pub(crate) default_only: Cell<bool>,
    /// What the machine asked last, and what it was answered.
    pub(crate) question: Cell<Option<Question>>,
    pub(crate) answer: Cell<u64>,
    /// How many stacks of strands are mapped, whatever the machine knows of them.
    pub(crate) stacks: Cell<u64>,
    pub(crate) rewind: Rewind,
    /// See [`crate::gone`].
    pub(crate) gone: RefCell<Vec<Gone>>,
    pub(crate) aside: RefCell<Vec<Aside>>,
    pub(crate) cpu: Cell<Cpu>,
}

pub(crate) static STATE: AtomicPtr<State> = AtomicPtr::new(ptr::null_mut());

/// The live machine's state.
#[inline]
pub(crate) fn state() -> &'static State {
    let state = STATE.load(Ordering::Relaxed);
    assert!(!state.is_null(), "the engine is used while no machine is alive");
    // SAFETY: set when the machine begins, reset when it ends; only the machine's thread gets here.
    unsafe { &*state }
}

/// The same while a run is in progress, and null otherwise. What a strand has borrowed is alive then.
static RUNNING: AtomicPtr<State> = AtomicPtr::new(ptr::null_mut());

/// The live machine's state, within a run.
#[inline]
fn running() -> &'static State {
    let state = RUNNING.load(Ordering::Relaxed);
    assert!(!state.is_null(), "a strand is resumed within a run");
    // SAFETY: as in `state`: the machine does not end under a run.
    unsafe { &*state }
}

/// The state, if a machine is alive: for the signal handler.
pub(crate) fn try_state() -> Option<&'static State> {
    // SAFETY: as in `state`.
    unsafe { STATE.load(Ordering::Relaxed).as_ref() }
}

/// Whether a machine is alive and its run in progress is explored.
pub(crate) fn is_explored() -> bool {
    try_state().is_some_and(|state| state.explored.get())
}

impl State {
    /// Whether accesses of driver code are looked at: checked, noted, or reported to the guest.
    pub(crate) fn looks_at_accesses(&self) -> bool {
        self.shadow.is_on() || self.sharing.is_on() || self.reporting.is_on()
    }

    /// A run goes on or is left, for its end or a question. Whether one was in progress.
    pub(crate) fn set_running(&self, on: bool) -> bool {
        let state = if on { STATE.load(Ordering::Relaxed) } else { ptr::null_mut() };
        RUNNING.store(state, Ordering::Relaxed);
        self.running.replace(on)
    }

    #[inline]
    pub(crate) fn guest(&self) -> &dyn Guest {
        let guest = self.guest.get().expect("driver code runs inside Host::run only");
        // SAFETY: `Host::run` keeps the reference alive while it is set.
        unsafe { &*guest }
    }

    /// As [`State::guest`], by its own type.
    ///
    /// # Safety
    /// That is its type.
    #[inline]
    pub(crate) unsafe fn guest_as<G: Guest>(&self) -> &G {
        let guest = self.guest.get().expect("driver code runs inside Host::run only");
        // SAFETY: as in `guest`, and the caller's promise.
        unsafe { &*guest.cast::<G>() }
    }

    /// Runs `call` so that a panic of ours ends as a stop of the machine and does not cross driver frames.
    #[inline]
    pub(crate) fn caught<R>(&self, call: impl FnOnce() -> Flow<R>) -> Flow<R> {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
            Ok(flow) => flow,
            Err(payload) => {
                self.note_panic(payload.as_ref());
                Err(Leave::Stop)
            }
        }
    }

    #[cold]
    fn note_panic(&self, payload: &(dyn std::any::Any + Send)) {
        let text = payload
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a message".to_owned());
        heap::scope(true, || {
            arena().panic.borrow_mut().get_or_insert_with(|| text.as_str().to_owned());
        });
    }
}

/// The live machine, as what lives in it knows it. Copies are the same machine; who began it and ends it has its [`crate::Host`].
///
/// It belongs to the thread that began it:
///
/// ```compile_fail,E0277
/// fn elsewhere(engine: engine::Engine) {
///     std::thread::spawn(move || engine.now());
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Engine {
    // Not `Send`.
    thread: std::marker::PhantomData<*const ()>,
}

impl Engine {
    /// Of the machine that has begun. For [`crate::Host`], which keeps it on its thread.
    pub(crate) const fn live() -> Self {
        Self { thread: std::marker::PhantomData }
    }

    /// Which processor driver code finds: x86-64-v2 unless this is called, before any of it runs.
    ///
    /// # Panics
    /// The host lacks something of it: see [`Cpu::missing`].
    pub fn imitate(self, cpu: Cpu) {
        assert!(cpu.missing().is_empty(), "the host lacks {:?}", cpu.missing());
        state().cpu.set(cpu);
        state().translator.flush();
    }

    /// Whether driver code may use AVX or x87 registers may have changed: [`crate::Special::Extended`] is asked anew.
    pub fn extended_changed(self) {
        translate::ask_for_extended();
    }

    /// The message of a panic of ours that was caught at the gate, if there was one.
    #[must_use]
    pub fn panic_message(self) -> Option<String> {
        arena().panic.borrow().clone()
    }

    /// A fault of ours was found without a panic: the machine ends as if there had been one with this message.
    #[cold]
    pub fn note_fault(self, message: &str) {
        heap::scope(true, || {
            arena().panic.borrow_mut().get_or_insert_with(|| message.to_owned());
        });
    }

    /// Where the host keeps what is its own, in this process: the machine's heap, its page table, host stacks, and the ways by which
    /// code cache and dispatch table are written. For tests that attack them.
    #[must_use]
    pub fn own_windows(self) -> [Window; 5] {
        [HEAP, PAGES, STACKS, CACHE_WRITTEN, TABLE_WRITTEN].map(windows::Hidden::window)
    }

    /// Whether there is such a message.
    #[must_use]
    #[inline]
    pub fn has_panicked(self) -> bool {
        arena().panic.borrow().is_some()
    }

    // ---- time ----

    /// Driver instructions retired since the machine was started, plus what was charged.
    #[must_use]
    #[inline]
    pub fn now(self) -> u64 {
        clock().now()
    }

    /// Driver instructions retired since the machine was started, and nothing else.
    #[must_use]
    #[inline]
    pub fn retired(self) -> u64 {
        clock().retired()
    }

    /// Lets time pass without driver instructions: the declared cost of a kernel service, or an idle jump.
    #[inline]
    pub fn charge(self, instructions: u64) {
        clock().charge(instructions);
    }

    /// As [`Engine::charge`], and [`Guest::slice`] will be called at time `until`, or once so many driver instructions have
    /// retired since the machine was started. False if that has come already; then the slice is as long as it was.
    #[must_use]
    #[inline]
    pub fn charge_within(self, instructions: u64, until: u64, retired: u64) -> bool {
        clock().charge_within(instructions, until, retired)
    }

    /// [`Guest::slice`] will be called after exactly this many further driver instructions (at least 1).
    #[inline]
    pub fn set_slice(self, instructions: u64) {
        clock().set_slice(instructions);
    }

    // ---- strands ----

    /// Makes a strand; it runs [`Guest::strand`] when it is first resumed.
    #[must_use]
    pub fn spawn(self) -> StrandId {
        let start = |id| {
            let state = state();
            // A stop unwinds by return; no frame is left that could handle it.
            let _ = state.caught(|| {
                state.guest().strand(id);
                Ok(())
            });
        };
        let state = state();
        heap::scope(true, || {
            state.strands.spawn(start, |slot, window| {
                // A machine that was taken back makes its stacks again: they are still there.
                if slot >= state.stacks.get() {
                    state.stacks.set(slot + 1);
                    lay_stack(window);
                    state.rewind.mapping_comes(window.base, window.size);
                }
            })
        })
    }

    /// Runs a strand until it suspends or ends. Only from the scheduler, that is, within a run and outside any strand.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "each frame it returns through costs a mispredicted return")]
    pub fn resume(self, id: StrandId) -> Progress {
        running().strands.resume(id, &translate::host_words().frame)
    }

    /// Goes back to the scheduler until it resumes this strand. Only from a strand.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "each frame it returns through costs a mispredicted return")]
    pub fn suspend(self) {
        if sharing::is_live() {
            return suspend_noted();
        }
        arena().strands.suspend();
    }

    /// The strand that runs now; 0 is the scheduler.
    #[must_use]
    #[inline]
    pub fn strand(self) -> StrandId {
        arena().strands.current()
    }

    // ---- driver code ----

    /// Calls driver code at `target` by the x64 convention and returns its `rax`.
    ///
    /// # Errors
    /// [`Leave`], if the driver's frames must be discarded; it is handed on.
    pub fn call(self, target: u64, arguments: &[u64], stack: Stack) -> Flow<u64> {
        sharing::unattributed(|| translate::call(target, arguments, stack))
    }

    /// Makes `address` (in the images' window, 16-byte aligned) the entry of export `number`.
    pub fn define_export(self, address: u64, number: u32) {
        self.define_exports(std::iter::once((address, number, None)));
    }

    /// As [`Engine::define_export`], of many: address, number, and what driver code does by itself where [`Engine::allow_short_calls`]
    /// lets it.
    pub fn define_exports(self, exports: impl Iterator<Item = (u64, u32, Option<Short>)>) {
        state().translator.define_exports(exports);
    }

    /// The driver code that called the kernel last on this strand, if it stands in such a call.
    #[must_use]
    pub fn caller(self) -> Option<Caller> {
        translate::caller()
    }

    /// Only the instruction of [`Engine::caller`], which is had for less; 0 if there is none.
    #[must_use]
    #[inline]
    pub fn caller_rip(self) -> u64 {
        translate::caller_rip()
    }

    /// Which bits of what the instruction at `store` stores are, by the driver's code, those that the one at `load` has loaded. With the registers that the
    /// driver has at the store, masks in them are known; with the values, ways between the two that were not gone are left out.
    #[must_use]
    pub fn carried(
        self,
        load: u64,
        store: u64,
        registers: Option<Registers>,
        moved: Option<Moved>,
    ) -> Carried {
        translate::carried(load, store, registers, moved)
    }

    /// Whether the routine at this address looks at its argument of this number, 0 to 3, by the driver's code.
    #[must_use]
    pub fn looks_at(self, routine: u64, argument: usize) -> bool {
        translate::looks_at(routine, argument)
    }

    /// All driver code waiting for the kernel on this strand, innermost first: each [`Engine::call`] whose driver is in a
    /// kernel call.
    #[must_use]
    pub fn callers(self) -> Vec<Caller> {
        translate::callers()
    }

    /// The same of any strand: of one that is suspended, as it stands.
    #[must_use]
    pub fn callers_of(self, strand: StrandId) -> Vec<Caller> {
        match arena().strands.innermost_frame(strand) {
            Some(frame) => translate::callers_from(frame),
            None => translate::callers(),
        }
    }

    /// All that driver code can see of the processor, where it was interrupted last on this strand ([`Guest::slice`]).
    #[must_use]
    pub fn driver_state(self) -> Option<DriverState> {
        translate::driver_state()
    }

    /// What the driver's next instruction will do, where it was interrupted last on this strand ([`Guest::slice`]).
    #[must_use]
    pub fn next_step(self) -> Step {
        translate::next_step()
    }

    /// How many [`Engine::call`]s are nested on this strand.
    #[must_use]
    #[inline]
    pub fn depth(self) -> u32 {
        translate::depth()
    }

    /// What the call of driver code that returned last left behind.
    #[must_use]
    #[inline]
    pub fn left_behind(self) -> LeftBehind {
        translate::left_behind()
    }

    /// As [`Engine::callers`], with all registers, each as after the kernel call: the first is that of [`Engine::depth`],
    /// each further one of one less. Registers that the calling convention leaves undefined are 0.
    #[must_use]
    pub fn contexts(self) -> Vec<Context> {
        translate::contexts()
    }

    /// The call that was entered under number `depth` (see [`Engine::depth`]) goes on with these registers, instead of
    /// where it called the kernel: the answer is handed on up to there. Nothing may call driver code or block meanwhile.
    pub fn resume_at(self, depth: u32, context: &Context) -> Leave {
        translate::resume_at(depth, context)
    }

    /// Sets what `gs:` means to driver code: the current processor's control region, which translated code writes the level to.
    ///
    /// # Panics
    /// It lies elsewhere than in memory of drivers.
    #[inline]
    pub fn set_processor_region(self, address: u64) {
        assert!(memory::is_driver_memory(address, REGION), "a processor's region is memory of drivers");
        signals::set_gs(address);
        translate::scratch().gs_marks.set(address.wrapping_add(windows::MARKS));
        translate::scratch().gs_stored.set(address.wrapping_add(windows::STORED));
    }

    /// From now on [`Guest::before_interlocked`] is asked before each interlocked instruction (`lock`, and `xchg` with memory),
    /// or, with `false`, no more, as at the start. Instructions are counted alike in both ways; while it is off nothing is
    /// slower.
    pub fn watch_interlocked(self, on: bool) {
        state().translator.watch_interlocked(on);
    }

    /// Whether it is asked.
    #[must_use]
    pub fn watches_interlocked(self) -> bool {
        state().translator.watches_interlocked()
    }

    /// From now on [`Guest::fence`] is asked before each fence and each interlocked instruction of driver code, not only before those that are
    /// done for it anyway. Instructions are counted as before; until it is said nothing is slower.
    pub fn watch_fences(self) {
        state().translator.watch_fences();
    }

    /// From now on the stack below each call of driver code is filled with [`Fill::FRESH`], up to the page's beginning: what a local variable
    /// holds that was never stored.
    pub fn fill_stacks(self) {
        state().fills_stacks.set(true);
    }

    /// Whether stacks are filled.
    #[must_use]
    pub fn fills_stacks(self) -> bool {
        state().fills_stacks.get()
    }

    /// From now on accesses of driver code are noted, afresh, to learn which instructions touch memory that another flow of
    /// control ([`Guest::runner`]) touches too; or no more. Slow, and changes nothing else.
    pub fn learn_shared(self, on: bool) {
        if state().sharing.switch(on) {
            translate::forbid_locks();
            state().translator.flush();
        }
    }

    /// From now on the run's history is kept, which is what [`Engine::history`] says, and nothing has happened so far; or it is kept no more. It takes
    /// [`Engine::learn_shared`], and is taken back with the machine.
    pub fn keep_history(self, on: bool) {
        state().sharing.keep_history(on);
    }

    /// Whether the run's history is kept.
    #[must_use]
    #[inline]
    pub fn keeps_history(self) -> bool {
        sharing::keeps_history()
    }

    /// What has happened in the run so far, as one number: equal for two runs whose flows of control have done the same, in an order that differs only
    /// between operations that do not conflict. Accesses to memory are known by themselves; what else conflicts the guest says
    /// by [`Engine::operates`].
    #[must_use]
    pub fn history(self) -> u64 {
        state().sharing.history()
    }

    /// A flow of control ([`Runner::flow`]) does `what` in the kernel: it conflicts with all else that is done there. While the history is kept.
    pub fn operates(self, flow: u64, what: u64) {
        state().sharing.operates(flow, what);
    }

    /// A flow of control goes on behind the question `what`, and nothing that others could see is done by that. While the history is kept.
    pub fn goes_on(self, flow: u64, what: u64) {
        state().sharing.goes_on(flow, what);
    }

    /// A flow of control was asked at this place (not 0), and others go first, until it goes on or operates. While the history is kept.
    pub fn stands(self, flow: u64, at: u64) {
        state().sharing.stands(flow, at);
    }

    /// From now on the guest hears of accesses of driver code to memory in this way; of none, as at the start. Not of what lies behind
    /// `gs`, nor of what the stack pointer alone addresses: the processor's own, and the stack's. Slow, and changes nothing else; while it
    /// is off, translations are what they are without it.
    pub fn report_accesses(self, how: Reports) {
        if state().reporting.switch(how) {
            translate::close_access_log();
            translate::forbid_locks();
            state().translator.flush();
        }
    }

    /// What `act` reads and writes in memory of drivers, it does for driver code that has called the kernel: it is noted as
    /// `runner`'s, if accesses are noted. Calls of driver code within it are not.
    #[inline]
    pub fn on_behalf_of<R>(self, runner: impl FnOnce() -> Runner, act: impl FnOnce() -> R) -> R {
        sharing::on_behalf_of(runner, act)
    }

    /// Within [`Engine::on_behalf_of`]: what the guest accesses in `act` is not noted as the caller's.
    #[inline]
    pub fn unattributed<R>(self, act: impl FnOnce() -> R) -> R {
        sharing::unattributed(act)
    }

    /// Driver code frees these bytes: for another flow that uses them, this counts as a store.
    #[inline]
    pub fn frees(self, address: u64, length: u64) {
        if sharing::is_live() {
            sharing::kernel_touches(address, length, true);
        }
    }

    /// Within [`Engine::on_behalf_of`]: what was stored there now is seen at `address`, too, where the same memory is shown.
    #[inline]
    pub fn stored_as(self, address: u64, length: u64) {
        if sharing::is_live() {
            sharing::kernel_touches(address, length, true);
        }
    }

    /// Whether the run that ends now has taught too little: some flow has reached into the stack of another, whose own accesses
    /// there were not noted. From now on they are; the run is to be made again, from where [`Engine::learn_shared`] was called or from a
    /// snapshot of then. On the host's side.
    #[must_use]
    pub fn must_learn_again(self) -> bool {
        state().sharing.must_learn_again()
    }

    /// What was learned so far: addresses of instructions, sorted. Only such as [`Engine::watch`] takes and as are not
    /// interlocked. On the host's side.
    #[must_use]
    pub fn shared(self) -> Vec<u64> {
        state().sharing.learned()
    }

    /// From now on [`Guest::before_shared`] is asked before the instructions at these addresses and no others. Instructions
    /// are counted as before. Branches are not watched, unless through memory, nor is what asks the guest anyway.
    pub fn watch(self, instructions: &[u64]) {
        state().translator.watch(instructions);
    }

    /// From now on it is noted what driver code compares ([`Engine::compared`]), or no more. Slow, and changes nothing else. On the host's side.
    pub fn note_compares(self, on: bool) {
        if state().compares.switch(on) {
            state().translator.flush();
        }
    }

    /// While that is noted: the kernel tells a number of a driver's, of 32 bits, from another.
    pub fn note_told_apart(self, number: u32, other: u32) {
        note_asked(4, Asked::Order, number.into(), other.into());
    }

    /// While that is noted: a timer is set by this due time, or a wait limited, in units of 100 ns.
    #[inline]
    pub fn note_due_time(self, due: i64) {
        note_asked(8, Asked::DueTime, due.cast_unsigned(), 0);
    }

    /// While that is noted: a driver wants the object that this is a handle of.
    pub fn note_handle(self, handle: u64) {
        note_asked(8, Asked::Handle, handle, 0);
    }

    /// While that is noted: a driver wants what an application has at this address.
    pub fn note_address(self, address: u64) {
        note_asked(8, Asked::Address, address, 0);
    }

    /// What it has compared since this was asked last, in that order, up to some thousands. On the host's side.
    #[must_use]
    pub fn compared(self) -> Vec<Compare> {
        state().compares.take()
    }

    /// From now on it is kept which driver code is come to: block by block, since a block is translated when it is first come to. It stays
    /// kept where the machine is taken back. On the host's side.
    pub fn keep_reached(self) {
        state().translator.keep_reached();
    }

    /// The addresses of the instructions of all blocks that were come to since, sorted. On the host's side.
    #[must_use]
    pub fn reached(self) -> Vec<u64> {
        state().translator.reached()
    }

    /// How many they are.
    #[must_use]
    pub fn reached_count(self) -> usize {
        state().translator.reached_count()
    }

    /// What was at these bytes of driver memory is gone, and something else comes to lie there.
    pub fn fresh(self, address: u64, length: u64) {
        state().sharing.forget(address, length);
        state().fresh.add(address, length);
    }

    /// From now on such bytes, and those of pages that are mapped or go, are kept until [`Engine::take_fresh`], or no more, as at the start.
    pub fn keep_fresh(self, on: bool) {
        state().fresh.switch(on);
    }

    /// Whether any are kept.
    #[must_use]
    #[inline]
    pub fn has_fresh(self) -> bool {
        state().fresh.has_any()
    }

    /// Hands over those that are kept, in their order: addresses and lengths. On the host's side.
    pub fn take_fresh(self, each: impl FnMut(u64, u64)) {
        state().fresh.take(each);
    }

    // ---- the level ----

    /// CR8 of the current processor: what the guest set last, or driver code by itself.
    #[must_use]
    #[inline]
    pub fn level(self) -> u8 {
        translate::scratch().level.get()
    }

    /// Sets what driver code reads from CR8.
    #[inline]
    pub fn set_level(self, level: u8) {
        let scratch = translate::scratch();
        scratch.level.set(level);
        if level > scratch.highest_level.get() {
            scratch.highest_level.set(level);
        }
    }

    /// The highest level that has been set since the machine started, by driver code or by [`Engine::set_level`].
    #[must_use]
    pub fn highest_level(self) -> u8 {
        translate::scratch().highest_level.get()
    }

    /// From now on driver code may move any level from `from` up to [`Engine::highest_level`] to CR8 without [`Guest::set_irql`] being
    /// asked; it writes it to [`Engine::level`] and to the processor's control region. 16: none.
    #[inline]
    pub fn set_free_levels(self, from: u8) {
        translate::scratch().free_levels.set(from);
    }

    /// What was set last by [`Engine::set_free_levels`].
    #[must_use]
    #[inline]
    pub fn free_levels(self) -> u8 {
        translate::scratch().free_levels.get()
    }

    // ---- calls of exports ----

    /// How many calls of exports there were since the machine started, [`Engine::short_calls`] among them.
    #[must_use]
    #[inline]
    pub fn calls(self) -> u64 {
        translate::scratch().calls.get()
    }

    /// How many of them were [`Short`]: [`Guest::export`] was not asked.
    #[must_use]
    #[inline]
    pub fn short_calls(self) -> u64 {
        self.calls() - translate::scratch().asked_calls.get()
    }

    /// The [`Engine::short_calls`] of each export that had any, with its number.
    #[must_use]
    pub fn short_calls_by_export(self) -> Vec<(u32, u64)> {
        let numbers = state().translator.short_numbers().into_iter();
        let counts = translate::scratch().short_calls.iter().map(std::cell::Cell::get);
        numbers.zip(counts).filter(|(_, count)| *count > 0).collect()
    }

    /// Makes the table of what exports of [`Short::Answer`] return: [`crate::ANSWERS`] rows, none of which answers yet. Once it is there,
    /// calls are noted, too ([`Engine::note_call`]). In a machine that has it already, nothing changes.
    pub fn make_answers(self) {
        translate::make_answers();
    }

    /// Sets a row of the table.
    ///
    /// # Panics
    /// There is no such row, or no table.
    pub fn answer(self, row: u16, answer: &Answer) {
        translate::set_answer(row, answer);
    }

    /// From now on rows answer whose group is one of these bits, where short calls are allowed ([`Engine::allow_short_calls`]) and the guest has
    /// nothing else to do before one ([`Engine::free_calls`]).
    ///
    /// # Panics
    /// There are some, and no table.
    #[inline]
    pub fn open_answers(self, groups: u8) {
        translate::open_answers(groups);
    }

    /// How many of the [`Engine::short_calls`] a row has answered.
    #[must_use]
    #[inline]
    pub fn answered_calls(self) -> u64 {
        translate::scratch().answered_calls.get()
    }

    /// How many this row has.
    #[must_use]
    pub fn answered(self, row: u16) -> u64 {
        translate::answered(row)
    }

    /// The guest answers a call itself, of which a row notes that its return address lies at `place`: it is noted all the same. Nothing without a
    /// table.
    #[inline]
    pub fn note_call(self, row: u16, place: u64, return_address: u64) {
        translate::note_call(row, place, return_address);
    }

    /// The row of the call that was noted last with this return address there. Others may have been forgotten for it.
    #[must_use]
    pub fn noted_call(self, place: u64, return_address: u64) -> Option<u16> {
        translate::noted_call(place, return_address).and_then(|row| u16::try_from(row).ok())
    }

    /// From now on, and while there were fewer than `until` calls, the guest need not be asked about a [`Short`] one that keeps
    /// to [`Engine::set_free_levels`]. 0: it is always asked, which is so at first.
    #[inline]
    pub fn allow_short_calls(self, until: u64) {
        translate::allow_calls(until);
    }

    /// Whether the next call may be a [`Short`] one.
    #[must_use]
    pub fn allows_short_calls(self) -> bool {
        self.calls() < translate::scratch().short_until.get()
    }

    /// Up to call `until` the guest has no work to do before a call, apart from emitting events. [`Engine::calls_are_free`] returns it;
    /// it is kept here because each call reads it. 0, the first value: there is work before each call.
    #[inline]
    pub fn free_calls(self, until: u64) {
        translate::scratch().free_until.set(until);
    }

    /// What [`Engine::free_calls`] says of the next call.
    #[must_use]
    pub fn frees_calls(self) -> bool {
        self.calls() < translate::scratch().free_until.get()
    }

    /// The same of the call that the guest is asked about now.
    #[must_use]
    #[inline]
    pub fn calls_are_free(self) -> bool {
        self.calls() <= translate::scratch().free_until.get()
    }

    /// Sets whether, from now on, driver code may take a spin lock by itself if it is free: by [`Short`] calls, and where such are
    /// allowed. The lock's word must be 0 exactly as long as it is free, whatever driver code has written there. It may not at
    /// first, nor after [`crate::Guest::lock_taken`] was called, nor ever in a machine that is checked or learns what is
    /// shared.
    #[inline]
    pub fn allow_short_locks(self, may: bool) {
        match may {
            true if self.allows_short_locks() => {}
            true => translate::allow_locks(),
            false => translate::forbid_locks(),
        }
    }

    /// What was said last by [`Engine::allow_short_locks`], and still holds.
    #[must_use]
    #[inline]
    pub fn allows_short_locks(self) -> bool {
        translate::allows_locks()
    }

    // ---- memory ----

    /// Maps `length` bytes of the memory's file from `offset` on to `address` in USER, IMAGES or SYSTEM; all multiples of a page.
    pub fn map(self, address: u64, offset: u64, length: u64, protection: Protection) {
        gone::make_room(address, length);
        state().memory.map(address, offset, length, protection);
    }

    /// Whether the page of physical memory at `offset` was never mapped, so that it holds zeros. False of one that was and is zero by chance.
    #[must_use]
    pub fn is_untouched(self, offset: u64) -> bool {
        state().memory.is_untouched(offset)
    }

    /// All of this range, which is mapped for writing, is written next: the host provides its pages at once.
    pub fn provide(self, address: u64, length: u64) {
        state().memory.provide(address, length);
    }

    /// Takes a mapping away.
    pub fn unmap(self, address: u64, length: u64) {
        if !gone::postpone(address, length) {
            state().translator.forget(address, length);
            state().memory.unmap(address, length);
        }
    }

    /// Carries out `unmap`, which takes mappings away by [`Engine::unmap`] and makes none: accesses fault at its end, and the host is asked as
    /// little as can be.
    pub fn unmap_together(self, unmap: impl FnOnce()) {
        state().memory.unmap_together(unmap);
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
    #[inline]
    pub fn read<T: FromBytes + IntoBytes>(self, from: DriverPtr<T>) -> Result<T, BadAddress> {
        match self.read_plain(from) {
            Some(value) => Ok(value),
            None => self.read_anywhere(from),
        }
    }

    /// As [`Engine::read`], for a word that lies where most do, in a machine that is not checked. None says nothing: `read` does.
    #[must_use]
    #[inline]
    pub fn read_plain<T: FromBytes + IntoBytes>(self, from: DriverPtr<T>) -> Option<T> {
        let mut value = T::new_zeroed();
        (memory::is_word::<T>() && memory::read_plain(from.address, value.as_mut_bytes())).then_some(value)
    }

    #[inline]
    fn read_anywhere<T: FromBytes + IntoBytes>(self, from: DriverPtr<T>) -> Result<T, BadAddress> {
        let mut value = T::new_zeroed();
        memory::read(from.address, value.as_mut_bytes())?;
        Ok(value)
    }

    /// As [`Engine::write`], for a word that lies where most do, in a machine that is not checked. False says nothing: `write`
    /// does.
    #[must_use]
    #[inline]
    pub fn write_plain<T: IntoBytes + zerocopy::Immutable>(self, to: DriverPtr<T>, value: &T) -> bool {
        memory::is_word::<T>() && memory::write_plain(to.address, value.as_bytes())
    }

    /// Makes all of `bytes` bytes what `fill` says.
    ///
    /// # Errors
    /// As [`Engine::write`].
    #[inline]
    pub fn fill(self, address: u64, bytes: u64, fill: impl Into<Fill>) -> Result<(), BadAddress> {
        memory::fill(address, bytes, fill.into())
    }

    /// Writes a `T` where a driver pointed to.
    ///
    /// # Errors
    /// [`BadAddress`] if any of its bytes is not writable memory of the machine; then nothing or a part was written.
    #[inline]
    pub fn write<T: IntoBytes + zerocopy::Immutable>(
        self,
        to: DriverPtr<T>,
        value: T,
    ) -> Result<(), BadAddress> {
        if self.write_plain(to, &value) { Ok(()) } else { memory::write(to.address, value.as_bytes()) }
    }

    /// Fills `into` from driver memory.
    ///
    /// # Errors
    /// As [`Engine::read`].
    #[inline]
    pub fn read_bytes(self, address: u64, into: &mut [u8]) -> Result<(), BadAddress> {
        memory::read(address, into)
    }

    /// Stores `from` in driver memory.
    ///
    /// # Errors
    /// As [`Engine::write`].
    #[inline]
    pub fn write_bytes(self, address: u64, from: &[u8]) -> Result<(), BadAddress> {
        memory::write(address, from)
    }

    /// Whether `bytes` bytes (16 at least) of driver memory all are `value`.
    ///
    /// # Errors
    /// As [`Engine::read`].
    #[inline]
    pub fn is_filled(self, address: u64, bytes: u64, value: u8) -> Result<bool, BadAddress> {
        memory::is_filled(address, bytes, value)
    }

    // ---- the shadow of a checked machine; all of it does nothing in others ----

    /// Whether the machine was started by [`crate::Host::start_checked`].
    #[must_use]
    #[inline]
    pub fn is_checked(self) -> bool {
        Shadow::live().is_some()
    }

    /// Marks bytes of driver memory: [`Guest::touched`] is asked before driver code touches one whose mark is not 0. Fresh
    /// mappings are not marked, and a mark is of the address, not of the page behind it.
    pub fn mark(self, address: u64, length: u64, mark: u8) {
        let state = state();
        if state.shadow.is_on() && length > 0 {
            state.memory.described(address, length);
            state.shadow.mark(address, length, mark);
            if state.memory.executable(address) && state.memory.is_any_translated(address, length) {
                state.translator.forget(address, length);
            }
        }
    }

    /// The mark of a byte.
    #[must_use]
    pub fn mark_of(self, address: u64) -> u8 {
        state().shadow.mark_of(address)
    }

    /// The first byte of a range that is marked, and its mark.
    #[must_use]
    pub fn first_marked(self, address: u64, length: u64) -> Option<(u64, u8)> {
        state().shadow.first_marked(address, length).map(|(at, mark, _)| (at, mark))
    }

    /// Marks these bytes as never stored: fresh memory.
    pub fn never_stored(self, address: u64, length: u64) {
        let state = state();
        if state.shadow.is_on() {
            state.memory.described(address, length);
            state.shadow.never_stored(address, length);
        }
    }

    /// Says that the bytes were stored by what the engine does not see: a device, or another mapping of their page. Stores
    /// of driver code and [`Engine::write_bytes`] are seen.
    pub fn stored(self, address: u64, length: u64) {
        state().shadow.stored(address, length);
    }

    /// The first byte of a range that was never stored since [`Engine::never_stored`].
    #[must_use]
    pub fn first_never_stored(self, address: u64, length: u64) -> Option<u64> {
        state().shadow.first_never_stored(address, length)
    }

    /// Bytes of physical memory; frames are numbered from 0 to this.
    #[must_use]
    pub const fn physical_memory(self) -> u64 {
        memory::PHYSICAL
    }
}

/// Bytes of a processor's control region, as far as translated code itself goes.
const REGION: u64 = size_of::<abi::KPCR>() as u64;

/// While comparisons are noted: the kernel asks this of a number of a driver's.
#[inline]
fn note_asked(bytes: u32, asked: Asked, left: u64, right: u64) {
    let compares = &state().compares;
    if compares.is_on() {
        compares.note(Compare { rip: 0, bytes, asked, left, right });
    }
}

/// As [`Engine::suspend`] where accesses are noted: those of strands that run meanwhile are not noted as this caller's.
#[cold]
#[inline(never)]
fn suspend_noted() {
    sharing::unattributed(|| arena().strands.suspend());
}

pub(crate) fn lay_stack(window: Window) {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    memory::reserve(window, protection, MapFlags::FIXED).expect("the host refuses memory for a stack");
}
