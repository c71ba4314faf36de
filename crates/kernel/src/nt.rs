//! The kernel as the engine's guest: where translated driver code, device accesses, faults and slices arrive.
//!
//! This file only routes; each service lives under its prefix.

use std::cell::{Cell, RefCell};

use engine::windows::DEVICE;
use engine::{
    Access, Args, Chooser, Cpu, DELAY, Delay, Engine, Fault, Flow, Guest, Leave, MemoryAccess, Point,
    Question, Reports, Runner, SHARED, SLICE_END, Special, StrandId, TO_THE_CHOOSER, TakenLock, Touch, mixed,
    outside,
};

use crate::addresses;
use crate::cx::{Cx, Kernel};
use crate::departures::{self, Departure, Departures};
use crate::etw::TraceProviders;
use crate::event::{Event, Judgement, Kind, Reader, RegisterUse, Stamp};
use crate::exports;
use crate::few::Few;
use crate::findings::Findings;
use crate::fs;
use crate::hal::hardware::Hardware;
use crate::hal::late_stores;
use crate::hal::platform::Platform;
use crate::ke::history::{self, Operation};
use crate::ke::scheduler::{before_shared, before_visible};
use crate::ke::{patience, slice, spinlock, stack};
use crate::mm::special_pool::SpecialPool;
use crate::mm::stack::KERNEL_STACK;
use crate::rules;
use crate::verdict::{StackLine, Tier, Verdict};
use crate::verifier::{Verifier, VerifierOption};
use crate::wdf;
use crate::witness::Witness;

/// What can be chosen about a machine before it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Virtual processors, 1–64.
    pub processors: u32,
    /// Processors that make a group, 1–64: so many in each but the last.
    pub group_size: u32,
    /// Which Windows it pretends to be.
    pub windows: WindowsVersion,
    /// The processor that driver code finds.
    pub cpu: Cpu,
    /// The machine's memory has a byte shadow, and each access of driver code is tested against it before it happens.
    /// Events, instructions and addresses are those of a machine that is not checked. The code that starts the engine
    /// makes the shadow (`engine::Host::start_checked`).
    pub checked: bool,
    /// Bytes of memory that can be given out, to drivers, to applications and to what the kernel keeps for them.
    pub memory: u64,
    /// Bytes of each kernel stack: a multiple of a page.
    pub stack: u64,
    /// How deep each routine of a driver goes into its stack is measured: see [`crate::ke::depth::measured`].
    pub stack_depths: bool,
    /// Driver instructions after which one call counts as an endless loop.
    pub instruction_budget: u64,
    /// Nanoseconds of virtual time that a request may take while drivers are busy without ending it.
    pub patience: u64,
    /// What kind of computer it is.
    pub platform: Platform,
    /// Departures from the default schedule are noted: see [`Nt::departures`].
    pub narrated: bool,
    /// The options of Driver Verifier whose findings are errors.
    pub verifier: Verifier,
    /// Drivers whose blocks of pool lie on pages of their own, beside one that is never mapped.
    pub special_pool: SpecialPool,
    /// The most paged, and the most nonpaged, pool in bytes that is charged to each process; none: any number.
    pub quota: Option<u64>,
    /// The trace session: which providers of events it has enabled.
    pub trace_providers: TraceProviders,
    /// What lies on drive `C:`; without it there are no disks.
    pub folder: Option<std::rc::Rc<fs::Folder>>,
    /// Moments that a verdict of an equal run named ([`crate::verdict::Related`]) and whose stacks are wanted: see [`Nt::witnessed`].
    pub witness: Vec<u64>,
    /// The export in whose place one stands that returns 0 and touches nothing: `cargo xtask stubs` asks which test fails then.
    pub stubbed: Option<String>,
}

/// The Windows versions a machine can be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum WindowsVersion {
    /// Windows 7 SP1, 6.1.7601.
    Win7,
    /// Windows 8.1, 6.3.9600.
    Win81,
    /// Windows 10 22H2, 10.0.19045.
    Win10,
    /// Windows 11 24H2, 10.0.26100.
    Win11,
}

impl std::fmt::Display for WindowsVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Win7 => "Windows 7",
            Self::Win81 => "Windows 8.1",
            Self::Win10 => "Windows 10 22H2",
            Self::Win11 => "Windows 11 24H2",
        })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            processors: 1,
            group_size: 64,
            windows: WindowsVersion::Win11,
            cpu: Cpu::default(),
            checked: false,
            memory: crate::mm::memory::USUAL,
            stack: KERNEL_STACK,
            stack_depths: false,
            instruction_budget: 1_000_000_000,
            patience: patience::USUAL,
            platform: Platform::default(),
            narrated: false,
            verifier: Verifier::NONE,
            special_pool: SpecialPool::default(),
            quota: None,
            trace_providers: TraceProviders::default(),
            folder: None,
            witness: Vec::new(),
            stubbed: None,
        }
    }
}

/// The machine's kernel: state, and the readers and policy outside it.
pub struct Nt {
    pub(crate) engine: Engine,
    pub(crate) kernel: crate::cx::Cell,
    /// Its content lies outside the machine, so that the policy can be replaced when the machine is taken back.
    chooser: Box<RefCell<Box<dyn Chooser>>>,
    readers: RefCell<Vec<Box<dyn Reader>>>,
    /// Of each kind, the readers that want it.
    by_kind: Box<[Cell<Readers>; Kind::ALL.len()]>,
    /// The readers that conclude something from what they read.
    judging: Cell<Readers>,
    wanted: Cell<Kinds>,
    /// A reader looks at the names of registers.
    named: Cell<bool>,
    /// The readers that read accesses.
    accessing: Cell<Readers>,
    /// Counts events, without those of calls that driver code makes by itself.
    events: Cell<u64>,
    /// How often each row of the export table was called, by its number; behind them, how often an import that is missing. Without those that
    /// driver code makes by itself.
    calls: Box<[Cell<u64>]>,
    verdict: RefCell<Option<Verdict>>,
    findings: RefCell<Findings>,
    /// There is a verdict, or the machine is being torn down.
    ending: Cell<bool>,
    in_callbacks: Cell<bool>,
    /// A reader has stopped the machine, and driver code may run on until it next comes back to the kernel.
    is_left: Cell<bool>,
    verifier: Verifier,
    /// How deep calls of drivers may be nested.
    pub(crate) most_calls: u32,
    /// The code that runs the machine is to stop waiting: see [`patience`].
    given_up: Cell<bool>,
    pub(crate) witness: Witness,
    pub(crate) departures: Departures,
}

/// A bit for each kind of event.
type Kinds = u128;

const fn bit(kind: Kind) -> Kinds {
    1 << kind as u8
}

/// A bit for each reader, in the order of their subscriptions.
type Readers = u128;

/// These of all readers, in their order.
fn each_of(readers: &mut [Box<dyn Reader>], mut which: Readers, mut each: impl FnMut(&mut dyn Reader)) {
    while which != 0 {
        each(&mut *readers[which.trailing_zeros() as usize]);
        which &= which - 1;
    }
}

fn is_wanted(reader: &dyn Reader, kind: Kind) -> bool {
    if kind.is_detail() { reader.wants_detail(kind) } else { reader.wants(kind) }
}

const _: () = assert!(Kind::ALL.len() <= Kinds::BITS as usize, "a subscription has a bit for each kind");

/// [`Event::Call`] and [`Event::Return`].
const EVENTS_OF_A_CALL: u64 = 2;

/// How many events so many calls are that the kernel was not asked about: those of them that were answered in advance, of a framework's function or
/// of a callback's moment, are one. Counters that a driver has written over without checks are any numbers: what comes of them must not end the report.
fn events_of_calls(short: u64, answered: u64) -> u64 {
    EVENTS_OF_A_CALL.wrapping_mul(short.wrapping_sub(answered)).wrapping_add(answered)
}

/// What the readers of a machine knew at one time, in the order of their subscriptions.
pub struct ReaderStates(Vec<Option<Box<dyn std::any::Any>>>);

impl Nt {
    /// A kernel on `hardware`. Call it inside [`engine::Host::inside`].
    #[must_use]
    pub fn new(
        engine: Engine,
        settings: &Settings,
        hardware: Box<dyn Hardware>,
        chooser: Box<dyn Chooser>,
    ) -> Self {
        outside(|| consult(engine, &*chooser, false));
        engine.imitate(settings.cpu);
        if settings.verifier.is_on() && engine.is_checked() && !settings.stack_depths {
            engine.fill_stacks();
        }
        if settings.platform.late_stores {
            engine.report_accesses(Reports::Each);
            engine.watch_fences();
        }
        Self {
            engine,
            kernel: RefCell::new(Kernel::new(engine, settings, hardware)),
            chooser: outside(|| Box::new(RefCell::new(chooser))),
            readers: RefCell::default(),
            by_kind: Box::new([const { Cell::new(0) }; Kind::ALL.len()]),
            judging: Cell::new(0),
            wanted: Cell::new(0),
            named: Cell::new(false),
            accessing: Cell::new(0),
            events: Cell::new(0),
            calls: vec![Cell::new(0); exports::rows() + 1].into_boxed_slice(),
            verdict: RefCell::default(),
            findings: RefCell::default(),
            ending: Cell::new(false),
            in_callbacks: Cell::new(false),
            is_left: Cell::new(false),
            verifier: settings.verifier,
            most_calls: stack::most_calls(settings.stack),
            given_up: Cell::new(false),
            witness: Witness::new(&settings.witness),
            departures: Departures::new(settings.narrated),
        }
    }

    /// Adds a reader of events.
    pub fn subscribe(&self, mut reader: Box<dyn Reader>) {
        let processors = self.kernel.borrow().ke.processor_count();
        outside(|| {
            reader.begins(processors);
            let mut readers = self.readers.borrow_mut();
            let own = u32::try_from(readers.len()).ok().and_then(|number| Readers::checked_shl(1, number));
            let own = own.expect("there are few readers");
            let add = |to: &Cell<Readers>, is: bool| to.set(to.get() | if is { own } else { 0 });
            for kind in Kind::ALL.iter().filter(|kind| is_wanted(&*reader, **kind)) {
                self.wanted.set(self.wanted.get() | bit(*kind));
                add(&self.by_kind[*kind as usize], true);
            }
            let reads_names = reader.wants(Kind::Device) && reader.reads_names();
            self.named.set(self.named.get() || reads_names);
            add(&self.accessing, reader.reads_accesses());
            add(&self.judging, reader.judges());
            readers.push(reader);
        });
        let details = Kind::ALL.iter().any(|kind| kind.is_detail() && self.wants(*kind));
        let calls = self.wants(Kind::Call) || self.wants(Kind::Return) || details;
        let mut kernel = self.kernel.borrow_mut();
        kernel.has_details = details;
        kernel.ke.set_read(self.wants(Kind::Irql) || details, calls);
        wdf::set_read(&mut kernel, |kind| self.wants(kind));
        let each = self.wants(Kind::Access) || kernel.hal.platform.late_stores;
        self.engine.report_accesses(match (each, self.reads_accesses()) {
            (true, _) => Reports::Each,
            (false, true) => Reports::Noted,
            (false, false) => Reports::None,
        });
        self.engine.keep_fresh(self.reads_accesses());
    }

    /// Whether accesses are read, as events or otherwise.
    #[inline]
    pub(crate) fn wants_accesses(&self) -> bool {
        self.wants(Kind::Access) || self.reads_accesses()
    }

    /// An access was made, or is about to be.
    pub(crate) fn deliver_accesses(&self, accesses: &[MemoryAccess], by_routine: bool) {
        if self.reads_accesses() {
            self.hand_over(accesses, by_routine);
            self.take_judgements(self.judging.get() & self.accessing.get());
        }
    }

    /// Whether a reader reads accesses.
    #[inline]
    pub(crate) fn reads_accesses(&self) -> bool {
        self.accessing.get() != 0
    }

    /// A register of a device was read or written.
    pub(crate) fn deliver_register(&self, made: &RegisterUse) {
        self.deliver_fresh();
        let stamp = self.stamp(self.next_event());
        let mut readers = self.readers.borrow_mut();
        let accessing = self.accessing.get();
        outside(|| each_of(&mut readers, accessing, |reader| reader.register(&stamp, made)));
    }

    /// Hands accesses to those that read them. What they conclude is carried out behind the next event: of the instruction at which the kernel was
    /// entered it is not yet known how much of its block has run.
    fn hand_over(&self, accesses: &[MemoryAccess], by_routine: bool) {
        self.deliver_fresh();
        let stamp = self.stamp(self.next_event());
        let mut readers = self.readers.borrow_mut();
        let accessing = self.accessing.get();
        outside(|| each_of(&mut readers, accessing, |reader| reader.accessed(&stamp, accesses, by_routine)));
    }

    /// Tells readers of accesses where memory is another's from now on.
    #[inline]
    fn deliver_fresh(&self) {
        if self.engine.has_fresh() {
            self.deliver_all_fresh();
        }
    }

    #[cold]
    fn deliver_all_fresh(&self) {
        let mut readers = self.readers.borrow_mut();
        outside(|| {
            self.engine.take_fresh(|address, bytes| {
                each_of(&mut readers, self.accessing.get(), |reader| reader.fresh(address, bytes));
            });
        });
    }

    /// Gives the machine another policy; the one it had comes back. On the host's side.
    pub fn replace_chooser(&self, chooser: Box<dyn Chooser>) -> Box<dyn Chooser> {
        self.engine.chooser_is_default_only(chooser.is_default_only());
        self.chooser.replace(chooser)
    }

    /// The policy hears that the script begins. Inside the machine, outside of its threads.
    pub fn script_begins(&self) {
        if outside(|| self.chooser.borrow_mut().script_begins()) {
            self.cx().with(slice::ask_anew);
        }
    }

    /// As if the machine had been made with this policy. On the host's side, where only the usual was chosen so far.
    ///
    /// What one policy has seen all later ones see: whether to see it changes nothing, and to change that costs all translations.
    pub fn decide_by(&self, chooser: Box<dyn Chooser>) {
        consult(self.engine, &*chooser, self.engine.watches_interlocked());
        drop(self.chooser.replace(chooser));
    }

    /// What the readers know, to be given back to [`Nt::restore_readers`]. On the host's side.
    #[must_use]
    pub fn save_readers(&self) -> ReaderStates {
        self.deliver_fresh();
        ReaderStates(self.readers.borrow().iter().map(|reader| reader.save()).collect())
    }

    /// The machine was taken back to where `states` was saved. On the host's side.
    pub fn restore_readers(&self, states: &ReaderStates) {
        self.engine.take_fresh(|_, _| {});
        for (reader, saved) in self.readers.borrow_mut().iter_mut().zip(&states.0) {
            if let Some(saved) = saved {
                reader.restore(&**saved);
            }
        }
    }

    /// The context for code that works on the machine from outside driver code (the scheduler, the bench).
    pub fn cx(&self) -> Cx<'_> {
        Cx::new(self)
    }

    /// The verdict that ended the run, if one did.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict.borrow().clone()
    }

    /// Findings that did not end the run.
    #[must_use]
    pub fn findings(&self) -> Vec<Verdict> {
        self.findings.borrow().all().to_vec()
    }

    /// The driver's stack, as in a verdict, at each moment of [`Settings::witness`] that has come.
    #[must_use]
    pub fn witnessed(&self) -> Vec<(u64, Vec<StackLine>)> {
        self.witness.seen()
    }

    /// Where the run departed from the usual, if [`Settings::narrated`] asked, and how many more times it did.
    #[must_use]
    pub fn departures(&self) -> (Vec<Departure>, u64) {
        self.departures.seen()
    }

    /// A driver calls row `number`.
    #[inline]
    pub(crate) fn count_call(&self, number: u32) {
        let row = &self.calls[(number as usize).min(self.calls.len() - 1)];
        row.set(row.get() + 1);
    }

    /// The number of each row of the export table that drivers have called, and how often. A number beyond the table stands for all imports
    /// that are missing.
    #[must_use]
    pub fn calls_of_exports(&self) -> Vec<(u32, u64)> {
        let called = (0..).zip(self.calls.iter().map(Cell::get)).filter(|(_, count)| *count > 0);
        let mut calls: Vec<(u32, u64)> = called.collect();
        for (number, short) in
            self.engine.short_calls_by_export().into_iter().chain(wdf::answered_calls(self.engine))
        {
            match calls.binary_search_by_key(&number, |(number, _)| *number) {
                Ok(at) => calls[at].1 += short,
                Err(_) if short == 0 => {}
                Err(at) => calls.insert(at, (number, short)),
            }
        }
        calls
    }

    /// See [`Cx::next_event`].
    pub(crate) fn next_event(&self) -> u64 {
        self.events
            .get()
            .wrapping_add(events_of_calls(self.engine.short_calls(), self.engine.answered_calls()))
    }

    /// See [`Cx::count_event`].
    #[inline]
    pub(crate) fn count_event(&self, kind: Kind) -> bool {
        let wanted = self.wants(kind);
        if !wanted {
            self.count(kind);
        }
        wanted
    }

    /// An event happens that no reader wants.
    #[inline]
    fn count(&self, kind: Kind) {
        if kind != Kind::Irql && !kind.is_detail() {
            self.events.set(self.events.get() + 1);
        }
    }

    /// The number of an event that happens now. A change of level has that of what comes next: driver code makes it by itself
    /// where no reader wants it.
    fn number(&self, kind: Kind) -> u64 {
        let number = self.next_event();
        self.count(kind);
        number
    }

    /// Whether a reader looks at the names of registers.
    pub(crate) fn reads_names(&self) -> bool {
        self.named.get()
    }

    /// Whether a reader wants events of this kind.
    #[inline]
    pub(crate) fn wants(&self, kind: Kind) -> bool {
        self.wanted.get() & bit(kind) != 0
    }

    #[inline]
    pub(crate) fn emit(&self, event: Event) {
        let kind = event.kind();
        if self.count_event(kind) {
            self.publish(kind, &event);
        }
        // One that owns no memory needs no drop.
        if !kind.owns() {
            std::mem::forget(event);
        }
    }

    /// As [`Nt::emit`], of an event that owns nothing and that a reader wants: [`Nt::count_event`] has said so.
    #[inline]
    pub(crate) fn emit_counted(&self, event: Event) {
        self.publish(event.kind(), &event);
        std::mem::forget(event);
    }

    /// See [`Cx::emit_at`].
    #[inline]
    pub(crate) fn emit_at(&self, irql: u8, event: Event) {
        let kind = event.kind();
        let stamp = Stamp { irql, ..self.stamp(self.number(kind)) };
        self.deliver(&stamp, kind, &event);
        std::mem::forget(event);
    }

    /// An event happens now that a reader wants. By reference: an event is large, and each move of it would be a copy.
    #[inline(never)]
    fn publish(&self, kind: Kind, event: &Event) {
        self.deliver(&self.stamp(self.number(kind)), kind, event);
    }

    /// Gives the event to the readers that want its kind.
    fn deliver(&self, stamp: &Stamp, kind: Kind, event: &Event) {
        self.deliver_fresh();
        let wanting = self.by_kind[kind as usize].get();
        let mut readers = self.readers.borrow_mut();
        let mut is_shown = false;
        outside(|| each_of(&mut readers, wanting, |reader| is_shown |= reader.event_shows(stamp, event)));
        drop(readers);
        if is_shown && kind != Kind::Finding {
            self.take_judgements(wanting & self.judging.get());
        }
    }

    /// Carries out what these readers of an event conclude from it, in the order of their subscriptions. No reader is borrowed while a
    /// finding is reported, which is an event again.
    fn take_judgements(&self, judging: Readers) {
        self.carry_out_all(|readers| {
            let mut found = Vec::new();
            each_of(readers, judging, |reader| found.extend(reader.judgement()));
            found
        });
    }

    /// Carries out what readers conclude from the whole run, which is over.
    pub fn conclude(&self) {
        if self.stopping() {
            return;
        }
        self.carry_out_all(|readers| {
            let mut found = Vec::new();
            each_of(readers, self.judging.get(), |reader| found.extend(reader.conclusions()));
            found
        });
    }

    /// Asks readers on the host's side, and carries out what they have concluded when none is borrowed.
    fn carry_out_all(&self, ask: impl FnOnce(&mut [Box<dyn Reader>]) -> Vec<Judgement>) {
        let found = outside(|| ask(&mut self.readers.borrow_mut()));
        for judgement in &found {
            self.carry_out(judgement);
        }
        outside(|| drop(found));
    }

    #[cold]
    fn carry_out(&self, judgement: &Judgement) {
        if self.stopping() {
            return;
        }
        let goes_on = match judgement {
            Judgement::Finding(verdict) if verdict.tier == Tier::Error => {
                Err(self.stop(Verdict::clone(verdict)))
            }
            Judgement::Finding(verdict) if verdict.tier == Tier::Verifier => {
                self.verify(Verdict::clone(verdict))
            }
            Judgement::Finding(verdict) => {
                self.report(Verdict::clone(verdict));
                Ok(())
            }
            Judgement::Fault(message) => {
                self.engine.note_fault(message);
                Err(Leave::Stop)
            }
        };
        if goes_on.is_err() {
            self.is_left.set(true);
            slice::end_soon(&mut self.kernel.borrow_mut());
        }
    }

    fn stamp(&self, number: u64) -> Stamp {
        let (processor, irql) = self.kernel.borrow().where_now();
        Stamp { number, time: self.engine.now(), processor, irql, strand: self.engine.strand() }
    }

    /// The answer of the host's side, if it explores the machine and does not leave the question to the chooser.
    fn ask_explorer(&self, question: Question) -> Option<u64> {
        let answer = self.engine.is_explored().then(|| self.engine.ask(question));
        answer.filter(|answer| *answer != TO_THE_CHOOSER)
    }

    /// The policy is about to be asked, at this point, by or about these.
    fn tell_state(&self, point: Point, at: u64, others: &[StrandId]) {
        if self.engine.keeps_history() && !self.engine.is_explored() {
            let asked = others
                .iter()
                .fold(mixed(history::point(point.0), at), |hash, strand| mixed(hash, strand.0.into()));
            let state = mixed(history::state(&self.kernel.borrow()), asked);
            outside(|| self.chooser.borrow_mut().comes_to(state));
        }
    }

    pub(crate) fn choose(&self, point: Point, n: u32) -> u32 {
        let strand = self.engine.strand().0;
        if n > 1 {
            self.tell_state(point, n.into(), &[]);
        }
        let answer = match self.ask_explorer(Question::Choice { strand, point, n }) {
            Some(answer) => u32::try_from(answer).unwrap_or(u32::MAX),
            None => outside(|| self.chooser.borrow_mut().choose(strand, point, n)),
        };
        assert!(answer < n, "the chooser answered {answer} of {n} at {}", point.0);
        if n > 1 {
            history::operates(
                &mut self.cx(),
                Operation::Answer,
                mixed(history::point(point.0), answer.into()),
            );
        }
        departures::note(self, point.0, answer.into(), None, None);
        answer
    }

    /// Which of `strands` goes on, as an index; there is at least one.
    pub(crate) fn next_strand(&self, point: Point, strands: &[StrandId]) -> usize {
        let strand = self.engine.strand().0;
        let n = u32::try_from(strands.len()).expect("there are not so many strands");
        if n > 1 {
            self.tell_state(point, 0, strands);
        }
        let answer = self.ask_explorer(Question::NextStrand { strand, point, n }).unwrap_or_else(|| {
            outside(|| self.chooser.borrow_mut().next_strand(strand, point, &numbers(strands))).into()
        });
        let chosen = usize::try_from(answer).ok().filter(|answer| *answer < strands.len());
        let chosen = chosen
            .unwrap_or_else(|| panic!("the chooser answered {answer} of {} at {}", strands.len(), point.0));
        departures::note(self, point.0, answer, strands.first().copied(), Some(strands[chosen]));
        chosen
    }

    /// Whether the strand that runs lets one of `others` go first.
    pub(crate) fn give_way(&self, point: Point, others: &[StrandId]) -> bool {
        let strand = self.engine.strand().0;
        if point != SLICE_END {
            self.tell_state(point, self.engine.caller_rip(), others);
        }
        let gives = match self.ask_explorer(Question::GiveWay { strand, point }) {
            Some(answer) => answer == 1,
            None => outside(|| self.chooser.borrow_mut().give_way(strand, point, &numbers(others))),
        };
        departures::note(self, point.0, gives.into(), None, others.first().copied());
        gives
    }

    /// The same before the `instruction` at this address, when the strand has retired so many of its own.
    pub(crate) fn give_way_before(&self, instruction: u64, retired: u64, others: &[StrandId]) -> bool {
        let strand = self.engine.strand().0;
        self.tell_state(SHARED, instruction, others);
        let gives = match self.ask_explorer(Question::GiveWay { strand, point: SHARED }) {
            Some(answer) => answer == 1,
            None => outside(|| {
                self.chooser.borrow_mut().give_way_before(strand, retired, instruction, &numbers(others))
            }),
        };
        departures::note(self, SHARED.0, gives.into(), None, others.first().copied());
        gives
    }

    /// Whether the strand that runs is held up here.
    pub(crate) fn delays(&self, at: Delay) -> bool {
        let strand = self.engine.strand().0;
        self.tell_state(DELAY, history::place(at.place), &[]);
        let delays = match self.ask_explorer(Question::Choice { strand, point: DELAY, n: 2 }) {
            Some(answer) => answer == 1,
            None => outside(|| self.chooser.borrow_mut().delays(strand, at)),
        };
        departures::note(self, DELAY.0, delays.into(), None, None);
        delays
    }

    /// How many more of its instructions `strand`, which has retired so many, runs before it is asked.
    pub(crate) fn next_slice(&self, strand: StrandId, retired: u64) -> u64 {
        let answer = self.ask_explorer(Question::Slice { strand: strand.0, retired });
        answer.unwrap_or_else(|| outside(|| self.chooser.borrow_mut().slice(strand.0, retired)))
    }

    pub(crate) fn stop(&self, verdict: Verdict) -> Leave {
        let verdict = self.in_words(self.judged(self.with_stack(verdict)));
        self.emit(Event::Finding { rule: verdict.rule, message: verdict.message.clone() });
        if self.in_callbacks.get()
            && let Some(first) = self.verdict.borrow_mut().as_mut()
        {
            first.message += &format!("; then its routine for bug checks failed: {}", verdict.message);
        }
        self.verdict.borrow_mut().get_or_insert(verdict);
        self.ending.set(true);
        Leave::Stop
    }

    /// The machine has stopped as Windows would, with a bug check: it goes on for the strand that runs, and no other. False, and nothing is
    /// done, if it has stopped for another reason.
    pub(crate) fn reopen_for_callbacks(&self) -> bool {
        let stops = self.ending.get() && !self.engine.has_panicked();
        let verdict = self.verdict.borrow();
        let is_bug_check = |verdict: &Verdict| verdict.tier == Tier::Error && verdict.bug_check.is_some();
        let reopens = stops && verdict.as_ref().is_some_and(is_bug_check);
        if reopens {
            self.ending.set(false);
            self.is_left.set(false);
            self.in_callbacks.set(true);
        }
        reopens
    }

    /// It has stopped for good.
    pub(crate) fn close_after_callbacks(&self) {
        self.in_callbacks.set(false);
        self.ending.set(true);
    }

    /// Whether routines run that drivers want called when the system stops: no other strand does then.
    #[inline]
    pub(crate) fn in_callbacks(&self) -> bool {
        self.in_callbacks.get()
    }

    /// A finding of the verifier tier: ends the run if Verifier is to watch for it and does not only log.
    #[cold]
    pub(crate) fn verify(&self, verdict: Verdict) -> Flow<()> {
        if self.is_verified(&verdict) && !self.verifier.is_logging() {
            return Err(self.stop(verdict));
        }
        self.report(verdict);
        Ok(())
    }

    /// What would end the run, and does not where Verifier only logs: the caller goes on as if the driver had done what it has not.
    #[cold]
    pub(crate) fn stop_or_log(&self, verdict: Verdict) -> Flow<()> {
        if !self.verifier.is_logging() {
            return Err(self.stop(verdict));
        }
        self.report(verdict);
        Ok(())
    }

    /// Whether Driver Verifier watches the drivers of this machine.
    pub(crate) fn is_watched(&self) -> bool {
        self.verifier.is_on()
    }

    /// Whether this option of Verifier's is on: for what is not looked at without it.
    pub(crate) fn is_watched_for(&self, option: VerifierOption) -> bool {
        self.verifier.has(option)
    }

    /// Whether the option of Verifier's that a finding belongs to is on; one without a row in the table belongs to any.
    fn is_verified(&self, verdict: &Verdict) -> bool {
        let option = rules::find(verdict.rule).and_then(|rule| rule.option());
        option.map_or(self.verifier.is_on(), |option| self.verifier.has(option))
    }

    /// A finding of the verifier tier is an error if Verifier is to watch for it.
    fn judged(&self, verdict: Verdict) -> Verdict {
        let is_error = verdict.tier == Tier::Verifier && self.is_verified(&verdict);
        if is_error { Verdict { tier: Tier::Error, ..verdict } } else { verdict }
    }

    /// A finding that does not end the run; each is reported once ([`crate::findings`]).
    #[cold]
    pub(crate) fn report(&self, verdict: Verdict) {
        if !self.findings.borrow_mut().is_news(self.engine.caller_rip(), &verdict) {
            return;
        }
        let verdict = self.in_words(self.judged(self.with_stack(verdict)));
        self.emit(Event::Finding { rule: verdict.rule, message: verdict.message.clone() });
        self.findings.borrow_mut().push(verdict);
    }

    /// Whether the machine is being torn down: every suspension point returns [`Leave::Stop`] then.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.ending.get() || self.engine.has_panicked()
    }

    /// Whether the code that runs the machine is to stop waiting for what it was run for.
    #[inline]
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.get()
    }

    pub(crate) fn give_up(&self, given_up: bool) {
        self.given_up.set(given_up);
    }

    /// Sets up processors and their idle threads. Once, inside [`engine::Host::run`], before the first thread.
    ///
    /// # Errors
    /// [`Leave::Stop`] if the machine ends meanwhile.
    pub fn boot(&self) -> Flow<()> {
        let mut cx = self.cx();
        crate::mm::section::boot(&mut cx);
        crate::ps::process::boot(&mut cx)?;
        crate::ke::boot::boot(&mut cx)
    }

    /// Ends every thread: each one unwinds from where it waits. Once, inside [`engine::Host::run`]; nothing runs after it.
    pub fn teardown(&self) {
        self.ending.set(true);
        crate::ke::scheduler::unwind_all(&mut self.cx());
    }

    /// Returns to driver code, unless `flow` leaves it or a reader has stopped the machine.
    #[inline]
    fn back<T>(&self, flow: Flow<T>) -> Flow<T> {
        if flow.is_ok() {
            if self.is_left.get() {
                return Err(Leave::Stop);
            }
            self.check_published();
        }
        flow
    }

    /// In debug builds: whether the levels published to driver code are right.
    #[inline]
    pub(crate) fn check_published(&self) {
        if cfg!(debug_assertions) {
            self.kernel.borrow().check_published();
        }
    }

    /// With the addresses in its message explained.
    fn in_words(&self, verdict: Verdict) -> Verdict {
        Verdict { message: addresses::explain(&mut self.cx(), &verdict.message), ..verdict }
    }

    fn with_stack(&self, mut verdict: Verdict) -> Verdict {
        if verdict.stack.is_empty() {
            verdict.stack = match verdict.instruction {
                Some(instruction) => crate::ldr::stack::lines_behind(&mut self.cx(), instruction),
                None => crate::ldr::stack::lines(&mut self.cx()),
            };
        }
        // Enhanced I/O verification says which instruction it was.
        if let (Some(check), Some(line)) = (&mut verdict.bug_check, verdict.stack.first())
            && check.code == 0xC9
            && check.parameters[0] >= 0x200
            && check.parameters[1] == 0
        {
            check.parameters[1] = line.address;
        }
        verdict
    }
}

/// The questions to a policy before the machine starts.
fn consult(engine: Engine, chooser: &dyn Chooser, sees_interlocked: bool) {
    engine.watch_interlocked(sees_interlocked || chooser.sees_interlocked());
    engine.watch(&chooser.watches());
    engine.chooser_is_default_only(chooser.is_default_only());
}

/// Strands as a chooser numbers them. On the host's heap.
fn numbers(strands: &[StrandId]) -> Few<u32, 4> {
    strands.iter().map(|strand| strand.0).collect()
}

/// Driver code is about to access a device.
fn before_device(cx: &mut Cx<'_>) -> Flow<()> {
    before_visible(cx, Point("ke.before_device"))?;
    cx.with(|k| history::reads_clock(k));
    Ok(())
}

/// The same for an access that may go elsewhere.
fn before_access(cx: &mut Cx<'_>, access: Access) -> Flow<()> {
    if DEVICE.contains(access.address) { before_device(cx) } else { Ok(()) }
}

impl Guest for Nt {
    fn strand(&self, id: StrandId) {
        crate::ke::thread::run(&mut self.cx(), id);
    }

    /// Not inlined: within a closure that catches panics its arguments would pass through memory.
    #[inline(never)]
    fn export(&self, number: u32, args: &Args) -> Flow<u64> {
        let dispatch = || exports::dispatch(&mut self.cx(), number, args);
        self.back(self.engine.on_behalf_of(|| self.runner(), dispatch))
    }

    fn lock_taken(&self, taken: &TakenLock) {
        // The `Call` event of the acquiring call was counted before: hence the 1.
        let moment = self.events.get() + events_of_calls(taken.short_calls, taken.answered_calls) + 1;
        spinlock::note_taken_alone(&mut self.kernel.borrow_mut(), taken, moment);
    }

    fn slice(&self) -> Flow<()> {
        self.back(crate::ke::slice::slice(&mut self.cx()))
    }

    fn port_read(&self, port: u16, bytes: u8) -> Flow<u64> {
        before_device(&mut self.cx())?;
        crate::hal::access::port_read(&mut self.cx(), port, bytes)
    }

    fn port_write(&self, port: u16, bytes: u8, value: u32) -> Flow<()> {
        before_device(&mut self.cx())?;
        crate::hal::access::port_write(&mut self.cx(), port, bytes, value)
    }

    fn device_read(&self, access: Access, data: &mut [u8]) -> Flow<()> {
        before_access(&mut self.cx(), access)?;
        crate::hal::access::device_read(&mut self.cx(), access, data)
    }

    fn device_write(&self, access: Access, data: &[u8]) -> Flow<()> {
        before_access(&mut self.cx(), access)?;
        crate::hal::access::device_write(&mut self.cx(), access, data)
    }

    fn device_load(&self, access: Access) -> Flow<u64> {
        before_access(&mut self.cx(), access)?;
        crate::hal::access::device_load(&mut self.cx(), access)
    }

    fn device_store(&self, access: Access, value: u64) -> Flow<()> {
        before_access(&mut self.cx(), access)?;
        crate::hal::access::device_store(&mut self.cx(), access, value)
    }

    fn accessed(&self) -> Flow<()> {
        self.back(crate::hal::access::accessed(&mut self.cx()))
    }

    fn set_irql(&self, level: u64) -> Flow<()> {
        self.back(crate::ke::irql::set_by_cr8(&mut self.cx(), level))
    }

    fn interrupt_flag(&self) -> bool {
        self.kernel.borrow().ke.interrupt_flag()
    }

    fn set_interrupt_flag(&self, on: bool) -> Flow<()> {
        self.back(crate::ke::irql::set_interrupt_flag(&mut self.cx(), on))
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let (cpu, number, count) = {
            let kernel = self.kernel.borrow();
            (kernel.ke.cpu, kernel.where_now().0, kernel.ke.processor_count())
        };
        crate::ke::instruction::cpuid(cpu, leaf, subleaf, number, count)
    }

    fn special(&self, special: Special) -> Flow<u64> {
        history::reads_clock(&self.kernel.borrow());
        self.back(crate::ke::instruction::special(&mut self.cx(), special))
    }

    fn before_interlocked(&self) -> Flow<()> {
        self.back(before_visible(&mut self.cx(), Point("ke.before_interlocked")))
    }

    fn fence(&self) -> Flow<()> {
        history::reads_clock(&self.kernel.borrow());
        self.back(crate::hal::empty_buffers(&mut self.cx()))
    }

    fn runner(&self) -> Runner {
        let k = self.kernel.borrow();
        let stack = stack::limits(&k);
        Runner { flow: history::flow(&k), stack: stack.limit..stack.base }
    }

    fn accesses(&self, access: &MemoryAccess) -> Flow<()> {
        if self.kernel.borrow().hal.platform.late_stores {
            late_stores::about_to_access(&mut self.kernel.borrow_mut(), access);
        }
        crate::mm::accesses::by_driver(&self.cx(), access);
        if self.is_left.get() { Err(Leave::Stop) } else { Ok(()) }
    }

    fn noted(&self, accesses: &[MemoryAccess]) {
        self.hand_over(accesses, false);
    }

    fn before_shared(&self, rip: u64) -> Flow<()> {
        self.back(before_shared(&mut self.cx(), rip))
    }

    fn touched(&self, touch: &Touch) -> Flow<()> {
        crate::mm::shadow::touched(&mut self.cx(), touch)
    }

    fn fault(&self, fault: &Fault) -> Leave {
        history::reads_clock(&self.kernel.borrow());
        crate::ke::exception::fault(&mut self.cx(), fault)
    }
}
