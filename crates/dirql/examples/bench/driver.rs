//! What `bench.sys` on a PCI 9052 costs: calls, requests, accesses, interrupts, DPCs, its start.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use abi::{Code, DriverPtr, NtStatus};
use dirql::{Bench, Machine, Side, SpecialPool};
use engine::{Flow, outside};
use image::{ExportTarget, Image, Selector};
use kernel::Cx;
use kernel::event::{Event, Kind, Reader, Stamp};
use kernel::io::file::{self, Buffer, OpenOptions, Operation};
use kernel::io::information;
use kernel::mm::user;
use kernel::ob::Handle;
use kernel::ps;

use crate::{Figure, each};

const DEVICE: &str = r"\\.\DirqlBench";
const EMPTY: u32 = 0x0022_2C00;
const MMIO: u32 = 0x0022_2C04;
const PORT: u32 = 0x0022_2C08;
const IRQL: u32 = 0x0022_2C0C;
const DPC: u32 = 0x0022_2C10;
const GATE: u32 = 0x0022_2C14;
const IRQL_CALL: u32 = 0x0022_2C18;
const SPIN: u32 = 0x0022_2C1C;
const EVENT: u32 = 0x0022_2C20;
const TIMER: u32 = 0x0022_2C24;
const TIMERS: u32 = 0x0022_2C28;
const SECTION: u32 = 0x0022_2C2C;
const POOL: u32 = 0x0022_2C30;
const STACK: u32 = 0x0022_2C34;
const DMA: u32 = 0x0022_2C38;
const IRPS: u32 = 0x0022_2C3C;
pub(crate) const SORT: u32 = 0x0022_2C40;
/// Requests that are outstanding at once, and the memory of the machine that has them.
const OUTSTANDING: u32 = 1_000_000;
const MUCH: u64 = 1 << 30;
/// Timers that are set while one is set and cancelled: one a processor, and a thousand.
const FEW: u32 = 64;
const MANY: u32 = 64_000;

const SAMPLES: u32 = 300;
/// Starts of a whole machine.
const STARTS: u32 = 60;

fn driver() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/drivers/bench.sys");
    assert!(path.is_file(), "{} is not there: run `cargo xtask drivers` first", path.display());
    path
}

/// The bench's driver and its card, and nothing that reads what they do.
pub(crate) fn bench() -> Bench {
    Bench::new().driver(driver()).device("pci9052").unobserved().instruction_budget(u64::MAX >> 2)
}

/// Learns where the driver lies.
#[derive(Clone, Default)]
struct Base(Rc<Cell<u64>>);

impl Reader for Base {
    fn wants(&self, kind: Kind) -> bool {
        kind == Kind::Image
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        if let Event::Image { base, loaded: true, .. } = event {
            self.0.set(*base);
        }
    }
}

/// The address of the driver's routine that does nothing.
fn nothing(base: u64) -> DriverPtr<Code> {
    let bytes = std::fs::read(driver()).expect("it was there a moment ago");
    let image = Image::parse("bench.sys", &bytes).expect("it is a driver");
    let export = image.export(&Selector::Name("BenchNothing".to_owned())).expect("it exports that");
    match export.target {
        ExportTarget::Rva(rva) => DriverPtr::new(base + u64::from(rva)),
        ExportTarget::Forward(_) => panic!("it is the driver's own"),
    }
}

/// The figures of the driver that are wanted.
pub(crate) fn all(wanted: &dyn Fn(&str) -> bool) -> Vec<Figure> {
    let base = Base::default();
    let machine = bench().reader(base.clone()).start().expect("the driver can be loaded");
    assert!(machine.is_ready(), "{}", machine.finish());
    let routine = nothing(base.0.get());
    let mut figures = Vec::new();
    if wanted("call_driver") {
        figures.push(sampled(&machine, "call_driver", 10_000, move |cx, _, repeats| {
            (0..repeats).try_for_each(|_| cx.call(routine, &[0, 0]).map(|_| ()))
        }));
    }
    if wanted("irp_roundtrip") {
        figures.push(sampled(&machine, "irp_roundtrip", 1_000, empty));
    }
    if wanted("interrupt_irp") {
        figures.push(sampled(&machine, "interrupt_irp", 200, written));
    }
    let repeated = [
        ("mmio_read", MMIO, 10_000),
        ("port_read", PORT, 10_000),
        ("irql_raise_lower", IRQL, 10_000),
        ("dpc", DPC, 2_000),
        ("gate", GATE, 10_000),
        ("irql_raise_lower_call", IRQL_CALL, 10_000),
        ("spinlock", SPIN, 10_000),
        // Of this, half: there are two waits and two wakes a round.
        ("event_wait_wake_twice", EVENT, 2_000),
        ("section_map_64k", SECTION, 200),
        ("pool_alloc_free", POOL, 2_000),
        ("stack_of_six", STACK, 2_000),
        ("dma_sg_64k", DMA, 200),
    ];
    for (name, code, repeats) in repeated.into_iter().filter(|(name, ..)| wanted(name)) {
        figures
            .push(sampled(&machine, name, repeats, move |cx, open, repeats| open.repeat(cx, code, repeats)));
    }
    let report = machine.finish();
    assert_eq!(report.outcome(), dirql::Outcome::Clean, "{report}");
    if wanted("spinlock_watched") {
        figures.push(spin_lock_watched());
    }
    if wanted("pool_alloc_free_checked") {
        figures.push(pool_as("pool_alloc_free_checked", bench().checked(true)));
    }
    if wanted("pool_alloc_free_special") {
        figures.push(pool_as("pool_alloc_free_special", bench().special_pool(SpecialPool::all(Side::End))));
    }
    if wanted("mmio_read_sheet") {
        figures.push(sheet_read());
    }
    for (name, count) in [("timer_of_64", FEW), ("timer_of_64000", MANY)] {
        if wanted(name) {
            figures.push(timer_among(name, count));
        }
    }
    if wanted("start_to_ready") {
        figures.push(start_to_ready());
    }
    figures
}

/// Requests that do nothing.
pub(crate) fn empty(cx: &mut Cx<'_>, open: &Open, repeats: u32) -> Flow<()> {
    let operation = Operation::Control(EMPTY, open.number, open.output);
    (0..repeats).try_for_each(|_| open.perform(cx, operation))
}

/// Writes, each of which the card's interrupt ends.
pub(crate) fn written(cx: &mut Cx<'_>, open: &Open, repeats: u32) -> Flow<()> {
    let operation = Operation::Write(open.number, Some(0));
    (0..repeats).try_for_each(|_| open.perform(cx, operation))
}

/// Hears of each call, and does nothing.
struct Listener;

impl Reader for Listener {
    fn wants(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Call | Kind::Return | Kind::Irql)
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        std::hint::black_box(event);
    }
}

/// A spin lock while a reader reads calls and levels.
fn spin_lock_watched() -> Figure {
    let machine = bench().reader(Listener).start().expect("the driver can be loaded");
    let work = |cx: &mut Cx<'_>, open: &Open, repeats| open.repeat(cx, SPIN, repeats);
    let figure = sampled(&machine, "spinlock_watched", 2_000, work);
    drop(machine.finish());
    figure
}

/// A register of a card that a text file describes: one field that is computed, and one that is stored.
fn sheet_read() -> Figure {
    const SHEET: &str = "card id=10b5:9050 irq
bar0 mem:128 rest=memory
50 CNTRL rw
    7:0   LEVEL reads WORDS.count
    31:8  KEPT
bar1 io:128 rest=memory
bar2 mem:64K rest=memory
fifo WORDS 16
line irq = CNTRL.LEVEL == 16
";
    let folder = tempfile::tempdir().expect("there is room for a small file");
    let file = folder.path().join("card.sheet");
    std::fs::write(&file, SHEET).expect("there is room for a small file");
    let bench = Bench::new().driver(driver()).device(format!("pci,sheet={}", file.display()));
    let bench = bench.unobserved().instruction_budget(u64::MAX >> 2);
    let machine = bench.start().expect("the driver can be loaded");
    let work = |cx: &mut Cx<'_>, open: &Open, repeats| open.repeat(cx, MMIO, repeats);
    let figure = sampled(&machine, "mmio_read_sheet", 10_000, work);
    drop(machine.finish());
    figure
}

/// Pool in a machine of another kind: one that tests each access, or with special pool.
fn pool_as(name: &'static str, bench: Bench) -> Figure {
    let machine = bench.start().expect("the driver can be loaded");
    let work = |cx: &mut Cx<'_>, open: &Open, repeats| open.repeat(cx, POOL, repeats);
    let figure = sampled(&machine, name, 1_000, work);
    drop(machine.finish());
    figure
}

/// What a request that is outstanding takes of the host's memory, in bytes.
pub(crate) fn outstanding() -> f64 {
    let machine = bench().memory(MUCH).start().expect("the driver can be loaded");
    let before = in_memory();
    let keep = move |cx: &mut Cx<'_>| {
        let open = Open::new(cx)?;
        open.repeat(cx, IRPS, OUTSTANDING)?;
        let now = outside(in_memory);
        open.repeat(cx, IRPS, 0)?;
        open.close(cx)?;
        Ok(now)
    };
    let after = machine.with_kernel(keep).unwrap_or_else(|error| panic!("outstanding requests: {error}"));
    let report = machine.finish();
    assert_eq!(report.outcome(), dirql::Outcome::Clean, "{report}");
    (after - before) / f64::from(OUTSTANDING)
}

/// Bytes that this process has in memory.
fn in_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kilobytes.map_or(f64::NAN, |kilobytes| kilobytes * 1024.0)
}

/// A timer that is set and cancelled while `count` others are set, on 64 processors.
fn timer_among(name: &'static str, count: u32) -> Figure {
    let machine = bench().processors(64).start().expect("the driver can be loaded");
    let set = move |cx: &mut Cx<'_>| {
        let open = Open::new(cx)?;
        open.repeat(cx, TIMERS, count)?;
        open.close(cx)
    };
    machine.with_kernel(set).unwrap_or_else(|error| panic!("{name}: {error}"));
    let work = |cx: &mut Cx<'_>, open: &Open, repeats| open.repeat(cx, TIMER, repeats);
    let figure = sampled(&machine, name, 1_000, work);
    let report = machine.finish();
    assert_eq!(report.outcome(), dirql::Outcome::Clean, "{report}");
    figure
}

/// The device, open, and buffers of the application's.
pub(crate) struct Open {
    handle: Handle,
    /// 4 bytes: a number of repetitions, or what is written.
    pub(crate) number: Buffer,
    /// 4 bytes.
    pub(crate) output: Buffer,
}

impl Open {
    fn new(cx: &mut Cx<'_>) -> Flow<Self> {
        Self::named(cx, DEVICE)
    }

    fn named(cx: &mut Cx<'_>, name: &str) -> Flow<Self> {
        let handle = file::open(cx, name, &OpenOptions::default())?.expect("the driver made that name");
        Ok(Self { handle, number: buffer(cx), output: buffer(cx) })
    }

    /// A request and its end, as a script makes it; the handle is synchronous.
    pub(crate) fn perform(&self, cx: &mut Cx<'_>, operation: Operation) -> Flow<()> {
        let answer = information::perform(cx, self.handle, operation)?;
        assert!(answer.status == NtStatus::SUCCESS, "{operation:?} ends with {}", answer.status);
        Ok(())
    }

    /// The driver does what `code` says so often.
    pub(crate) fn repeat(&self, cx: &mut Cx<'_>, code: u32, times: u32) -> Flow<()> {
        cx.write(DriverPtr::new(self.number.address), times)?;
        self.perform(cx, Operation::Control(code, self.number, Buffer::default()))
    }

    fn close(self, cx: &mut Cx<'_>) -> Flow<()> {
        user::free(cx, self.number.address);
        user::free(cx, self.output.address);
        file::close(cx, self.handle).map(|_| ())
    }
}

fn buffer(cx: &mut Cx<'_>) -> Buffer {
    let process = u32::try_from(ps::current_process(cx)).expect("few processes");
    Buffer { address: user::allocate(cx, process, 4).expect("there is memory"), length: 4 }
}

/// Samples of `work`, which repeats a thing as often as the argument says, on a thread of the application's.
pub(crate) fn sampled(
    machine: &Machine,
    name: &'static str,
    repeats: u32,
    work: impl Fn(&mut Cx<'_>, &Open, u32) -> Flow<()> + 'static,
) -> Figure {
    sampled_on(machine, DEVICE, name, repeats, work)
}

/// The same with another device than the bench's.
pub(crate) fn sampled_on(
    machine: &Machine,
    device: &'static str,
    name: &'static str,
    repeats: u32,
    work: impl Fn(&mut Cx<'_>, &Open, u32) -> Flow<()> + 'static,
) -> Figure {
    let samples = machine.with_kernel(move |cx| {
        let open = Open::named(cx, device)?;
        work(cx, &open, repeats)?;
        let mut samples = outside(|| Vec::with_capacity(SAMPLES as usize));
        for _ in 0..SAMPLES {
            let begun = Instant::now();
            work(cx, &open, repeats)?;
            samples.push(each(begun, repeats));
        }
        open.close(cx)?;
        Ok(samples)
    });
    Figure::new(name, repeats, samples.unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// What this process has in memory with one machine that has just been started, in MB.
pub(crate) fn resident() -> f64 {
    let machine = bench().start().expect("the driver can be loaded");
    assert!(machine.is_ready(), "the device starts");
    let bytes = in_memory();
    drop(machine.finish());
    bytes / f64::from(1 << 20)
}

/// From nothing to a started device: files read, machine made, driver loaded, device started.
fn start_to_ready() -> Figure {
    let sample = |_| {
        let begun = Instant::now();
        let machine = bench().start().expect("the driver can be loaded");
        let time = each(begun, 1);
        assert!(machine.is_ready(), "the device starts");
        drop(machine.finish());
        time
    };
    let samples: Vec<f64> = (0..=STARTS).map(sample).skip(1).collect();
    Figure::new("start_to_ready", 1, samples)
}
