//! For tests: machines with threads in Rust, compiled drivers, and a device whose line a test moves.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use abi::DriverPtr;
use engine::{Chooser, Defaults, Flow, Point, SLICE_END};
use image::{ExportTarget, Image};

use super::calls::callout;
use super::sched::{scheduler, scheduler::End};
use super::waits::thread;
use crate::event::{Event, Kind, Reader, Role, Stamp};
use crate::hal::hardware::{Hardware, Moment, Refusal, Width};
use crate::ldr::{self, Module};
use crate::verdict::{Tier, Verdict};
use crate::{Cx, Nt, Settings, rig};

/// Runs `test` on the scheduler's stack of a machine with one processor.
pub(crate) fn machine(test: impl FnOnce(&mut Cx<'_>)) {
    Rig::default().run(test);
}

/// What a machine is made of.
pub(crate) struct Rig {
    pub(crate) settings: Settings,
    pub(crate) chooser: Box<dyn Chooser>,
    pub(crate) line: Rc<RefCell<Line>>,
}

impl Default for Rig {
    fn default() -> Self {
        Self { settings: Settings::default(), chooser: Box::new(Defaults), line: Rc::default() }
    }
}

impl Rig {
    pub(crate) fn processors(count: u32) -> Self {
        let mut rig = Self::default();
        rig.settings.processors = count;
        rig
    }

    /// Runs `test` in the machine; waits until no other test has one.
    pub(crate) fn run<R>(self, test: impl FnOnce(&mut Cx<'_>) -> R) -> R {
        let Self { settings, chooser, line } = self;
        let make = |engine| (Nt::new(engine, &settings, Box::new(OneLine(line)), chooser), ());
        rig::run_booted(make, |cx, ()| test(cx))
    }
}

/// A thread of an application's that runs `work`.
pub(crate) fn spawn(
    cx: &mut Cx<'_>,
    name: &str,
    work: impl FnOnce(&mut Cx<'_>) -> Flow<()> + 'static,
) -> engine::StrandId {
    thread::spawn_application(cx, name, 0, Box::new(work)).unwrap()
}

/// Runs the machine until nothing can run.
pub(crate) fn settle(cx: &mut Cx<'_>) -> End {
    scheduler::run(cx.nt(), &mut |_| false)
}

/// The verdict, or else the first finding that is one for Driver Verifier.
fn judged(cx: &Cx<'_>) -> Option<Verdict> {
    let is_verifiers = |finding: &Verdict| finding.tier == Tier::Verifier;
    cx.nt().verdict().or_else(|| cx.nt().findings().into_iter().find(is_verifiers))
}

/// The rule of the verdict that ended the machine.
pub(crate) fn rule(cx: &Cx<'_>) -> Option<&'static str> {
    judged(cx).map(|verdict| verdict.rule)
}

/// Its bug check code.
pub(crate) fn bug_check(cx: &Cx<'_>) -> Option<u32> {
    judged(cx).and_then(|verdict| verdict.bug_check).map(|check| check.code)
}

/// Its sentence.
pub(crate) fn message(cx: &Cx<'_>) -> String {
    judged(cx).map(|verdict| verdict.message).unwrap_or_default()
}

/// Words that threads leave in the order in which they run.
#[derive(Clone, Default)]
pub(crate) struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    pub(crate) fn say(&self, word: impl Into<String>) {
        let word = word.into();
        self.0.borrow_mut().push(word);
    }

    pub(crate) fn words(&self) -> String {
        self.0.borrow().join(" ")
    }
}

/// Everything that happens, as text, outside the machine.
#[derive(Clone, Default)]
pub(crate) struct Trace {
    lines: Rc<RefCell<Vec<String>>>,
    /// Kinds that are not traced.
    unheard: &'static [Kind],
}

impl Trace {
    pub(crate) fn of(cx: &mut Cx<'_>) -> Self {
        Self::without(cx, &[])
    }

    /// Of all but these.
    pub(crate) fn without(cx: &mut Cx<'_>, unheard: &'static [Kind]) -> Self {
        let trace = engine::outside(|| Self { unheard, ..Self::default() });
        let reader = engine::outside(|| Box::new(trace.clone()));
        cx.nt().subscribe(reader);
        trace
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        engine::outside(|| self.lines.borrow().clone())
    }
}

impl Reader for Trace {
    fn wants(&self, kind: Kind) -> bool {
        !self.unheard.contains(&kind)
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        let Stamp { number, time, processor, irql, strand } = stamp;
        self.lines
            .borrow_mut()
            .push(format!("{number} t={time} p{processor} irql{irql} s{} {event:?}", strand.0));
    }
}

/// A driver in C, loaded; its exported routines by name.
pub(crate) struct Driver {
    routines: BTreeMap<String, u64>,
}

/// What the drivers of these tests use of `wdm.h`.
const PROLOGUE: &str = "
    typedef unsigned char u8; typedef unsigned u32; typedef unsigned long long u64; typedef long long i64;
    #define ROUTINE __attribute__((dllexport, noinline))
    void KeInitializeDpc(void *, void *, void *); u8 KeInsertQueueDpc(void *, void *, void *);
    void KeSetImportanceDpc(void *, int); u8 KeRemoveQueueDpc(void *); void KeFlushQueuedDpcs(void);
    u8 KfRaiseIrql(u8); void KeLowerIrql(u8); u8 KeGetCurrentIrql(void);
    void KeInitializeEvent(void *, int, u8); int KeSetEvent(void *, int, u8);
    int KeWaitForSingleObject(void *, int, u8, u8, i64 *); int KeDelayExecutionThread(u8, u8, i64 *);
    void KeInitializeTimerEx(void *, int); u8 KeSetTimerEx(void *, i64, int, void *); u8 KeCancelTimer(void *);
    u8 KeSynchronizeExecution(void *, void *, void *); void KeStallExecutionProcessor(u32);
    u8 KeAcquireSpinLockRaiseToDpc(u64 *); void KeReleaseSpinLock(u64 *, u8);
    int PsCreateSystemThread(u64 *, u32, void *, u64, void *, void *, void *); int PsTerminateSystemThread(int);
    void KeBugCheckEx(u32, u64, u64, u64, u64); void KeEnterCriticalRegion(void);
    static inline u64 cr8(void) { u64 v; __asm__ volatile(\"mov %%cr8, %0\" : \"=r\"(v)); return v; }
    static inline void set_cr8(u64 v) { __asm__ volatile(\"mov %0, %%cr8\" :: \"r\"(v) : \"memory\"); }
    int DriverEntry(void *d, void *p) { return 0; }
";

impl Driver {
    /// Compiles and loads `source`, and does not run anything of it.
    pub(crate) fn load(cx: &mut Cx<'_>, name: &str, source: &str) -> Self {
        let image = engine::outside(|| compile(name, source));
        Self::load_image(cx, name, image)
    }

    /// Loads what was compiled before, which takes less time.
    pub(crate) fn load_image(cx: &mut Cx<'_>, name: &str, image: Image) -> Self {
        let copy = image.exports().iter().filter_map(|export| match (&export.name, &export.target) {
            (Some(name), ExportTarget::Rva(rva)) => Some((name.clone(), u64::from(*rva))),
            _ => None,
        });
        let exports: Vec<(String, u64)> = copy.collect();
        let loaded =
            ldr::load(cx, Module { name: format!("{name}.sys"), image, symbols: None }).unwrap().unwrap();
        let routines = exports.into_iter().map(|(name, rva)| (name, loaded.base + rva)).collect();
        Self { routines }
    }

    /// The address of an exported routine.
    pub(crate) fn at(&self, name: &str) -> u64 {
        self.routines[name]
    }

    /// Runs a routine on a thread of its own until the machine is quiet; its result, if it came back.
    pub(crate) fn run(&self, cx: &mut Cx<'_>, name: &str, arguments: &[u64]) -> Option<u64> {
        let result = Rc::new(Cell::new(None));
        self.start(cx, name, arguments, &result);
        settle(cx);
        result.get()
    }

    /// Makes a thread that runs a routine.
    pub(crate) fn start(
        &self,
        cx: &mut Cx<'_>,
        name: &str,
        arguments: &[u64],
        result: &Rc<Cell<Option<u64>>>,
    ) {
        let (routine, arguments, result) = (self.at(name), arguments.to_vec(), result.clone());
        spawn(cx, "test thread", move |cx| {
            let value = callout::call_routine(cx, Role::Test, DriverPtr::new(routine), 0, &arguments)?;
            result.set(Some(value));
            Ok(())
        });
    }
}

/// Compiles a driver.
pub(crate) fn compile(name: &str, source: &str) -> Image {
    const FLAGS: &str = "-shared -nostdlib -O1 -fno-builtin -Wl,--subsystem,native,-e,DriverEntry";
    let bytes = rig::compile(&format!("{PROLOGUE}{source}"), FLAGS, &[]);
    Image::parse(&format!("{name}.sys"), &bytes).unwrap()
}

/// Answers from a list, then 0; slices of one length, at whose end the strand gives way.
pub(crate) struct Scripted {
    pub(crate) answers: Vec<(&'static str, u32)>,
    pub(crate) slice: u64,
}

impl Chooser for Scripted {
    fn choose(&mut self, _strand: u32, point: Point, n: u32) -> u32 {
        match self.answers.iter().position(|(name, _)| *name == point.0) {
            Some(at) => self.answers.remove(at).1.min(n - 1),
            None => u32::from(point == SLICE_END),
        }
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        self.slice
    }
}

/// Line 5 of a device: what a test and the device's register do to it; a second register moves line 6.
#[derive(Default)]
pub(crate) struct Line {
    pub(crate) asserted: bool,
    /// When it will be asserted by itself.
    pub(crate) at: Option<u64>,
    /// When it will fall by itself.
    pub(crate) until: Option<u64>,
    /// The second line.
    pub(crate) second: bool,
}

/// The line of the rig's device.
pub(crate) const LINE: u32 = 5;
/// Its second line, which port 0x304 moves.
pub(crate) const SECOND_LINE: u32 = 6;
const SECOND_PORT: u16 = 0x304;

struct OneLine(Rc<RefCell<Line>>);

impl Hardware for OneLine {
    fn port_read(&mut self, _at: &mut Moment<'_>, _port: u16, _width: Width) -> Result<u32, Refusal> {
        Ok(self.0.borrow().asserted.into())
    }
    fn port_write(
        &mut self,
        _at: &mut Moment<'_>,
        port: u16,
        _width: Width,
        value: u32,
    ) -> Result<(), Refusal> {
        let mut line = self.0.borrow_mut();
        let level = if port == SECOND_PORT { &mut line.second } else { &mut line.asserted };
        *level = value != 0;
        Ok(())
    }
    fn lines(&self) -> u64 {
        let line = self.0.borrow();
        u64::from(line.asserted) << LINE | u64::from(line.second) << SECOND_LINE
    }
    fn asserting(&self, line: u32) -> Vec<String> {
        if self.lines() & 1 << line != 0 { vec!["rig#0".to_owned()] } else { Vec::new() }
    }
    fn deadline(&self) -> Option<u64> {
        let line = self.0.borrow();
        line.at.or(line.until)
    }
    fn advance(&mut self, at: &mut Moment<'_>) {
        let now = at.now;
        let mut line = self.0.borrow_mut();
        if line.at.is_some_and(|at| at <= now) {
            (line.asserted, line.at) = (true, None);
        }
        if line.until.is_some_and(|until| until <= now) {
            (line.asserted, line.until) = (false, None);
        }
    }
}
