//! An interrupt routine between any two instructions of every driver at hand: what the driver does, says and answers is
//! the same as undisturbed, and so is the number of its instructions.
//!
//! A card of the test's own, behind another one's configuration space, pulls its line whenever the driver has run for so
//! many instructions. The routine connected to it spoils every register that an interrupt may spoil.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use devices::pci::{Access, Header, Master, Model, Placement};
use dirql::{Bench, Machine};
use kernel::event::{Event, Kind, Reader, Role, Stamp};
use kernel::hal::hardware::Refusal;
use kernel::ke::interrupt::{self, Connection, irql_of_line, vector_of_line};
use kernel::mm::pool;

use super::rig::{self, driver, play, start};

/// The line of the disturbing card.
const LINE: u32 = 23;

/// Pulls its line every so many nanoseconds, for one.
struct Ticker {
    card: Box<dyn Model>,
    /// 0: it is quiet.
    period: Rc<Cell<u64>>,
    next: u64,
    asserts: bool,
}

impl Model for Ticker {
    fn kind(&self) -> &'static str {
        "ticker"
    }
    fn header(&self) -> &Header {
        self.card.header()
    }
    fn placement(&self) -> Placement {
        Placement { line: Some(LINE), ..Placement::default() }
    }
    fn reset(&mut self) {
        self.card.reset();
    }
    fn read(&mut self, access: &Access) -> Result<u64, Refusal> {
        self.card.read(access)
    }
    fn write(&mut self, access: &Access, value: u64) -> Result<(), Refusal> {
        self.card.write(access, value)
    }
    fn asserts(&self) -> bool {
        self.asserts
    }
    fn deadline(&self) -> Option<u64> {
        (self.asserts || self.period.get() != 0).then_some(self.next)
    }
    fn advance(&mut self, now: u64, _master: &mut Master<'_>) {
        if now < self.next {
            return;
        }
        self.asserts = !self.asserts && self.period.get() != 0;
        self.next = now + if self.asserts { 1 } else { self.period.get().max(1) };
    }
    fn poke(&mut self, now: u64, _signal: &str, _value: &str) -> Result<(), String> {
        self.next = now + 1;
        Ok(())
    }
    fn describe(&self, bar: u8, offset: u64) -> Option<String> {
        self.card.describe(bar, offset)
    }
}

/// Counts, claims, and leaves nothing in the registers that a routine need not keep.
const ROUTINE: &[u8] = &[
    0x48, 0xFF, 0x02, // inc qword [rdx]
    0x0F, 0x57, 0xC0, 0x0F, 0x57, 0xC9, 0x0F, 0x57, 0xD2, // xorps xmm0–xmm2
    0x0F, 0x57, 0xDB, 0x0F, 0x57, 0xE4, 0x0F, 0x57, 0xED, // xorps xmm3–xmm5
    0x31, 0xC9, 0x31, 0xD2, 0x45, 0x31, 0xC0, 0x45, 0x31, 0xC9, // xor of ecx, edx, r8d, r9d
    0x45, 0x31, 0xD2, 0x45, 0x31, 0xDB, // xor of r10d, r11d
    0xB8, 1, 0, 0, 0,    // mov eax, 1
    0xC3, // ret
];
/// Where it counts, behind the code.
const COUNTER: u64 = 0x80;

/// What happened, the disturbance left out, each with the time that the disturbance did not take.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Recorded>>);

#[derive(Default)]
struct Recorded {
    on: bool,
    demand: Demand,
    inside_since: Option<u64>,
    disturbed: u64,
    events: Vec<(u64, String)>,
}

/// How often the routine must run, which is exact though a raised level holds interrupts back: the line is level-sensitive, so the
/// levels of line and processor alone say when the routine runs: once as soon as both allow it, again as long as the line is up
/// when it has run, and never for a rise that falls before the processor's level has.
#[derive(Default)]
struct Demand {
    up: bool,
    inside: bool,
    /// The line is up, and the processor's level lets it in.
    due: bool,
    runs: u64,
}

impl Demand {
    fn see(&mut self, irql: u8, event: &Event) {
        let level = irql_of_line(LINE);
        match event {
            Event::Line { line: LINE, asserted } => {
                assert!(*asserted || self.inside || !self.due, "an interrupt was lost at IRQL {irql}");
                self.up = *asserted;
                self.due = self.up && irql < level;
            }
            // A line of a higher level may come between.
            Event::Irql { from, to } if self.inside && (*from > level || *to > level) => {}
            Event::Irql { to, .. } if *to == level => {
                assert!(self.up, "the line is served though it is not asserted");
                (self.inside, self.due) = (true, false);
            }
            Event::Irql { from, .. } if *from == level => {
                assert!(!self.up && self.runs > 0, "the line is still asserted at the end of its service");
                self.inside = false;
            }
            Event::Irql { to, .. } if !self.inside => self.due = self.up && *to < level,
            Event::Enter { role: Role::Isr, .. } if self.inside => {
                assert!(self.up, "the routine is called though its line is not asserted");
                self.runs += 1;
            }
            _ => {}
        }
    }
}

/// An event's text without the names of requests and IRPs: they are numbers of events, and the interrupts between count.
fn without_ids(event: &str) -> String {
    let is_id = |part: &&str| !part.starts_with("id: ") && !part.starts_with("request: ");
    event.replace("{ ", "{, ").split(", ").filter(is_id).collect::<Vec<_>>().join(", ")
}

impl Reader for Log {
    fn wants(&self, _kind: Kind) -> bool {
        true
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        let mut log = self.0.borrow_mut();
        if !log.on {
            return;
        }
        log.demand.see(stamp.irql, event);
        let level = irql_of_line(LINE);
        match event {
            Event::Line { line: LINE, .. } => {}
            Event::Irql { to, .. } if *to == level => log.inside_since = Some(stamp.time),
            Event::Irql { from, .. } if *from == level => {
                let since = log.inside_since.take().expect("it came in before it goes");
                log.disturbed += stamp.time - since;
            }
            _ if log.inside_since.is_some() => {}
            _ => {
                let time = stamp.time - log.disturbed;
                let event = without_ids(&format!("{event:?}"));
                log.events.push((time, format!("irql {} strand {} {event}", stamp.irql, stamp.strand.0)));
            }
        }
    }
}

/// A run under interrupts every `period` instructions (0: none): what happened, and how many interrupts there were.
fn run(bench: &dyn Fn() -> Bench, story: &dyn Fn(&Machine), period: u64) -> (Vec<(u64, String)>, u64) {
    let (pace, log) = (Rc::new(Cell::new(0)), Log::default());
    let machine = start(|| {
        let pace = pace.clone();
        let ticker = move || -> Box<dyn Model> {
            let none = |path: &str| Err(format!("{path} is not asked for"));
            let card = devices::parse("pci,id=1d1c:0001,irq", &none).expect("it is a card");
            Box::new(Ticker { card, period: pace.clone(), next: 0, asserts: false })
        };
        bench().card(ticker).reader(log.clone())
    });
    let (object, block) = machine
        .with_kernel(|cx| {
            let kind = pool::Kind::NonPagedExecute;
            let block = pool::allocate::<u8>(cx, kind, 0x100, pool::tag(b"Tick"))?;
            cx.write_bytes(block.address, ROUTINE)?;
            let (vector, irql) = (vector_of_line(LINE), irql_of_line(LINE));
            let connection = Connection {
                routine: block.address,
                context: block.address + COUNTER,
                lock: 0,
                vector,
                irql,
                synchronize_irql: irql,
                latched: false,
                shared: true,
                affinity: u64::MAX,
                message: None,
            };
            let object = interrupt::connect(cx, &connection)?.expect("the line is free");
            Ok((object, block))
        })
        .unwrap();
    pace.set(period);
    machine
        .with_kernel(|cx| {
            let now = cx.engine().now();
            cx.with(|k| k.hardware(now, |hardware, at| hardware.poke(at, "ticker#0", "begin", "1")))
                .expect("the card is there");
            interrupt::deliver(cx)
        })
        .unwrap();
    log.0.borrow_mut().on = true;
    story(&machine);
    log.0.borrow_mut().on = false;
    pace.set(0);
    let count = machine
        .with_kernel(move |cx| {
            let mut count = [0; 8];
            count.copy_from_slice(&cx.read_bytes(block.address + COUNTER, 8)?);
            interrupt::disconnect(cx, object)?;
            pool::free(cx, block)?;
            Ok(u64::from_le_bytes(count))
        })
        .unwrap();
    machine.finish().expect_clean();
    let log = std::mem::take(&mut *log.0.borrow_mut());
    assert_eq!(count, log.demand.runs, "period {period}: the routine has run as often as the levels demand");
    (log.events, count)
}

/// The story is the same whatever the period.
fn undisturbed(bench: impl Fn() -> Bench, story: impl Fn(&Machine), periods: &[u64]) {
    let (whole, none) = run(&bench, &story, 0);
    assert!(none == 0 && whole.len() > 20, "{none} interrupts, {} events", whole.len());
    for &period in periods {
        let (sliced, interrupts) = run(&bench, &story, period);
        let different = whole.iter().zip(&sliced).position(|(a, b)| a != b);
        if let Some(at) = different {
            panic!("period {period}, event {at}:\n  {:?}\n  {:?}", whole[at], sliced[at]);
        }
        assert_eq!(whole.len(), sliced.len(), "period {period}");
        // Besides instructions, only device accesses take time here.
        // How many there must be has been counted; that they are many depends on how much of the time is the driver's own.
        let access = |(_, event): &&(u64, String)| event.contains(" Device {");
        let accesses = whole.iter().filter(access).count() as u64;
        let length = whole.last().unwrap().0 - whole[0].0;
        if accesses == 0 {
            // Some of the time is that of services, and a raised level holds interrupts back.
            assert!(interrupts * 4 * period > length, "{interrupts} interrupts in {length} instructions");
        } else {
            assert!(interrupts * period > 200, "{interrupts} interrupts, period {period}");
        }
    }
}

const PERIODS: &[u64] = &[1, 2, 3, 7];

#[test]
fn two_drivers_of_the_same_card() {
    const STORY: &str = "open DEV as card
        write card hex:3c_a5_00_ff at 0x10 expect bytes 4
        read card 4 at 0x10 expect hex:3ca500ff
        close card";
    for (name, device) in [("pciline", r"\\.\PciLine0"), ("pci9052", r"\\.\Pci9052-0")] {
        let bench = || {
            let bench = Bench::new().driver(driver(&format!("{name}.sys"))).device("pci9052,latency=0");
            bench.inf(driver(&format!("{name}.inf")))
        };
        undisturbed(bench, |machine| play(machine, &STORY.replace("DEV", device)), PERIODS);
    }
}

#[test]
fn the_driver_without_hardware() {
    const STORY: &str = r#"open \\.\DirqlLegacy as f
        write f text:"hello" at 0 expect bytes 5
        read f 5 at 0 expect text:"hello"
        close f"#;
    let bench = || Bench::new().driver(driver("legacy.sys"));
    undisturbed(bench, |machine| play(machine, STORY), PERIODS);
}

#[test]
fn the_driver_with_queues() {
    const STORY: &str = r"open \\.\DirqlQueue as q overlapped
        async a read q 4; async b read q 4
        expect pending a
        cancel b
        join b expect STATUS_CANCELLED
        cancel a
        join a expect STATUS_CANCELLED";
    let bench = || Bench::new().driver(driver("queue.sys"));
    undisturbed(bench, |machine| play(machine, STORY), PERIODS);
}

#[test]
fn the_driver_that_checks_services() {
    // Those of its stories in which nothing waits for time to pass, nor looks at the clock.
    let stories = [
        "Events",
        "Semaphores",
        "Mutexes",
        "Levels",
        "SpinLocks",
        "Regions",
        "Lookaside",
        "Lists",
        "BitMaps",
        "Bytes",
        "Calendars",
        "Randoms",
        "UnicodeStrings",
        "AnsiStrings",
        "Integers",
        "CLibrary",
        "Prints",
    ];
    for name in stories {
        let story = move |machine: &Machine| {
            let made = rig::checks_made(machine, r"\\.\DirqlServices", name, &[]);
            made.unwrap_or_else(|why| panic!("{name}: {why}"));
        };
        undisturbed(|| Bench::new().driver(driver("services.sys")), story, &[1, 5]);
    }
}
