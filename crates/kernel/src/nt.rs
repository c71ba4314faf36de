//! The kernel as the engine's guest: where translated driver code, device accesses, faults and slices arrive.
//!
//! This file only routes; each service lives under its prefix.

use std::cell::{Cell, RefCell};

use engine::{Access, Args, Chooser, Engine, Fault, Flow, Guest, Leave, Point, Special, StrandId, outside};

use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind, Reader, Stamp};
use crate::exports;
use crate::hal::hardware::Hardware;
use crate::verdict::Verdict;

/// What can be chosen about a machine before it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Virtual processors, 1–64.
    pub processors: u32,
    /// Which Windows it pretends to be.
    pub windows: WindowsVersion,
    /// Driver instructions after which one call counts as an endless loop.
    pub instruction_budget: u64,
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
        Self { processors: 1, windows: WindowsVersion::Win11, instruction_budget: 1_000_000_000 }
    }
}

/// The machine's kernel: state, and the readers and policy outside it.
pub struct Nt {
    pub(crate) engine: Engine,
    pub(crate) kernel: crate::cx::Cell,
    chooser: RefCell<Box<dyn Chooser>>,
    readers: RefCell<Vec<Box<dyn Reader>>>,
    wanted: Cell<u64>,
    events: Cell<u64>,
    verdict: RefCell<Option<Verdict>>,
    findings: RefCell<Vec<Verdict>>,
    tearing_down: Cell<bool>,
}

impl Nt {
    /// A kernel on `hardware`. Call it inside [`Engine::inside`].
    #[must_use]
    pub fn new(
        engine: Engine,
        settings: &Settings,
        hardware: Box<dyn Hardware>,
        chooser: Box<dyn Chooser>,
    ) -> Self {
        Self {
            engine,
            kernel: RefCell::new(Kernel::new(engine, settings, hardware)),
            chooser: RefCell::new(chooser),
            readers: RefCell::default(),
            wanted: Cell::new(0),
            events: Cell::new(0),
            verdict: RefCell::default(),
            findings: RefCell::default(),
            tearing_down: Cell::new(false),
        }
    }

    /// Adds a reader of events.
    pub fn subscribe(&self, reader: Box<dyn Reader>) {
        outside(|| {
            for kind in Kind::ALL {
                if reader.wants(*kind) {
                    self.wanted.set(self.wanted.get() | 1 << *kind as u8);
                }
            }
            self.readers.borrow_mut().push(reader);
        });
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
        self.findings.borrow().clone()
    }

    /// See [`Cx::happens`].
    pub(crate) fn happens(&self, kind: Kind) -> bool {
        let wanted = self.wants(kind);
        if !wanted {
            self.events.set(self.events.get() + 1);
        }
        wanted
    }

    fn wants(&self, kind: Kind) -> bool {
        self.wanted.get() & 1 << kind as u8 != 0
    }

    pub(crate) fn emit(&self, event: Event) {
        let number = self.events.replace(self.events.get() + 1);
        if !self.wants(event.kind()) {
            return;
        }
        let stamp = self.stamp(number);
        outside(|| {
            for reader in self.readers.borrow_mut().iter_mut() {
                if reader.wants(event.kind()) {
                    reader.event(&stamp, &event);
                }
            }
        });
    }

    fn stamp(&self, number: u64) -> Stamp {
        let (processor, irql) = self.kernel.borrow().ke.where_now();
        Stamp { number, time: self.engine.now(), processor, irql, strand: self.engine.strand() }
    }

    pub(crate) fn choose(&self, point: Point, n: u32) -> u32 {
        let strand = self.engine.strand().0;
        let answer = outside(|| self.chooser.borrow_mut().choose(strand, point, n));
        assert!(answer < n, "the chooser answered {answer} of {n} at {}", point.0);
        answer
    }

    pub(crate) fn next_slice(&self) -> u64 {
        let strand = self.engine.strand().0;
        outside(|| self.chooser.borrow_mut().slice(strand))
    }

    pub(crate) fn stop(&self, verdict: Verdict) -> Leave {
        let verdict = self.with_stack(verdict);
        self.emit(Event::Finding { rule: verdict.rule, message: verdict.message.clone() });
        self.verdict.borrow_mut().get_or_insert(verdict);
        Leave::Stop
    }

    pub(crate) fn report(&self, verdict: Verdict) {
        let verdict = self.with_stack(verdict);
        self.emit(Event::Finding { rule: verdict.rule, message: verdict.message.clone() });
        self.findings.borrow_mut().push(verdict);
    }

    /// Whether the machine is being torn down: every suspension point returns [`Leave::Stop`] then.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.tearing_down.get() || self.verdict.borrow().is_some() || self.engine.panic_message().is_some()
    }

    /// Sets up processors and their idle threads. Once, inside [`Engine::run`], before the first thread.
    ///
    /// # Errors
    /// [`Leave::Stop`] if the machine ends meanwhile.
    pub fn boot(&self) -> Flow<()> {
        let mut cx = self.cx();
        crate::ps::process::boot(&mut cx)?;
        crate::ke::processor::boot(&mut cx)
    }

    /// Ends every thread: each one unwinds from where it waits. Once, inside [`Engine::run`]; nothing runs after it.
    pub fn teardown(&self) {
        self.tearing_down.set(true);
        crate::ke::scheduler::unwind_all(&mut self.cx());
    }

    fn with_stack(&self, mut verdict: Verdict) -> Verdict {
        if verdict.stack.is_empty() {
            verdict.stack = crate::ldr::stack::lines(&mut self.cx());
        }
        verdict
    }
}

impl Guest for Nt {
    fn strand(&self, id: StrandId) {
        crate::ke::thread::run(&mut self.cx(), id);
    }

    fn export(&self, number: u32, args: &Args) -> Flow<u64> {
        exports::dispatch(&mut self.cx(), number, args)
    }

    fn slice(&self) -> Flow<()> {
        crate::ke::slice::slice(&mut self.cx())
    }

    fn port_read(&self, port: u16, bytes: u8) -> Flow<u32> {
        crate::hal::access::port_read(&mut self.cx(), port, bytes)
    }

    fn port_write(&self, port: u16, bytes: u8, value: u32) -> Flow<()> {
        crate::hal::access::port_write(&mut self.cx(), port, bytes, value)
    }

    fn device_read(&self, access: Access, data: &mut [u8]) -> Flow<()> {
        crate::hal::access::device_read(&mut self.cx(), access, data)
    }

    fn device_write(&self, access: Access, data: &[u8]) -> Flow<()> {
        crate::hal::access::device_write(&mut self.cx(), access, data)
    }

    fn accessed(&self) -> Flow<()> {
        crate::hal::access::accessed(&mut self.cx())
    }

    fn irql(&self) -> u8 {
        crate::ke::irql::current(&mut self.cx())
    }

    fn set_irql(&self, level: u64) -> Flow<()> {
        crate::ke::irql::set_by_cr8(&mut self.cx(), level)
    }

    fn interrupt_flag(&self) -> bool {
        self.kernel.borrow().ke.interrupt_flag()
    }

    fn set_interrupt_flag(&self, on: bool) -> Flow<()> {
        crate::ke::irql::set_interrupt_flag(&mut self.cx(), on)
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let (number, count) = {
            let kernel = self.kernel.borrow();
            (kernel.ke.where_now().0, kernel.ke.processor_count())
        };
        crate::ke::instruction::cpuid(leaf, subleaf, number, count)
    }

    fn special(&self, special: Special) -> Flow<u64> {
        crate::ke::instruction::special(&mut self.cx(), special)
    }

    fn fault(&self, fault: &Fault) -> Leave {
        let verdict = crate::ke::fault::verdict(&mut self.cx(), fault);
        self.stop(verdict)
    }
}
