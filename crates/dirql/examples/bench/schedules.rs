//! How long one schedule takes to explore: two writers on `pciline.sys` from the script's beginning to the end of the
//! machine, taken back for the next, or on a machine started anew. And schedules of other kinds, taken back: a request that is cancelled while it
//! is served, the two writers on two processors, and a card that is pulled out while it works. And one of a search that learns. All are clean.

use std::path::{Path, PathBuf};
use std::time::Instant;

use dirql::explore::Bounds;
use dirql::{Bench, Play, Report, script};
use engine::{Chooser, DELAY, Delay, Point, Tracking};

use crate::rules::judged;
use crate::{Figure, each};

const SAMPLES: u64 = 6000;
/// Machines started anew.
const STARTS: u64 = 40;
/// Searches, and how many schedules each of them makes.
const SEARCHES: u64 = 10;
const SEARCHED: u64 = 2000;

const TWO_WRITERS: &str = r#"open \\.\PciLine0 as a overlapped
open \\.\PciLine0 as b overlapped
thread one { write a text:aaaa at 0; read a 4 at 0 expect text:aaaa }
thread two { write b text:bbbb at 8; read b 4 at 8 expect text:bbbb }
join one; join two"#;

/// Requests that wait, are served by timers, and are cancelled meanwhile.
const CANCEL_RACE: &str = r"open \\.\DirqlQueue as q overlapped
open \\.\DirqlQueue as other overlapped
t: cancel q
async r read q 4
async w write q hex:01
async v write other hex:02
join t; join v; join r expect any; join w expect any";

const REMOVAL: &str = r"open \\.\PciLine0 as a
open \\.\PciLine0 as b
one: write a text:aaaa at 0 expect any
two: read b 4 at 0 expect any
surprise-remove
join one; join two; close a; close b";

/// Two requests of `edu.sys`, one after the other served by StartIo.
const TWO_REQUESTS: &str = r"open \\.\Edu as e
open \\.\Edu as f
a: ioctl e 0x223000 in u32:5 out 4 expect u32:120
b: ioctl f 0x223000 in u32:4 out 4 expect u32:24
join a; join b";

/// Answers at random, so that every schedule is another.
struct Random(u64);

impl Chooser for Random {
    fn choose(&mut self, _strand: u32, point: Point, n: u32) -> u32 {
        if point.0.starts_with("fault.") {
            return 0;
        }
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(n)).unwrap_or(0)
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }

    /// As seldom as by the policy `random`.
    fn delays(&mut self, strand: u32, _at: Delay) -> bool {
        self.choose(strand, DELAY, 16) == 1
    }
}

fn driver(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/drivers").join(name);
    assert!(path.is_file(), "{} is not there: run `cargo xtask drivers` first", path.display());
    path
}

fn bench() -> Bench {
    Bench::new().driver(driver("pciline.sys")).inf(driver("pciline.inf")).device("pci9052").unobserved()
}

fn play(script: &str) -> Play {
    let script = script::parse("schedules", script).expect("it is a script");
    Play::new(script, Path::new("")).expect("it names no files")
}

fn clean(report: &Report) {
    assert_eq!(report.outcome(), dirql::Outcome::Clean, "{report}");
}

/// The figures that are wanted.
pub(crate) fn all(wanted: &dyn Fn(&str) -> bool) -> Vec<Figure> {
    let queue = || Bench::new().driver(driver("queue.sys")).processors(2).unobserved();
    let two = || bench().processors(2);
    let judged = || judged(bench());
    let stories: [(_, Tracking, &dyn Fn() -> Bench, _); 6] = [
        ("schedule_rewound", Tracking::Faults, &bench, TWO_WRITERS),
        ("schedule_rules", Tracking::Faults, &judged, TWO_WRITERS),
        ("schedule_rewound_userfault", Tracking::Userfault, &bench, TWO_WRITERS),
        ("schedule_cancel_race", Tracking::Faults, &queue, CANCEL_RACE),
        ("schedule_two_processors", Tracking::Faults, &two, TWO_WRITERS),
        ("schedule_removal", Tracking::Faults, &two, REMOVAL),
    ];
    let mut figures = Vec::new();
    for (name, tracking, bench, script) in stories {
        let samples = if wanted(name) { rewound(bench(), script, tracking) } else { None };
        figures.extend(samples.map(|samples| Figure::new(name, 1, samples)));
    }
    if wanted("schedule_restarted") {
        figures.push(Figure::new("schedule_restarted", 1, restarted()));
    }
    if wanted("schedule_searched") {
        figures.push(Figure::new("schedule_searched", 1, searched()));
    }
    figures
}

/// None where the host cannot watch memory in this way.
fn rewound(bench: Bench, script: &str, tracking: Tracking) -> Option<Vec<f64>> {
    let machine = bench.start().expect("the driver can be loaded");
    let samples = machine.explore(&play(script), tracking, |exploration| {
        let mut sample = |seed| {
            let begun = Instant::now();
            clean(&exploration.run(Box::new(Random(seed))));
            each(begun, 1)
        };
        (0..SAMPLES + 20).map(&mut sample).skip(20).collect()
    });
    clean(&machine.finish());
    samples.ok()
}

fn restarted() -> Vec<f64> {
    let sample = |seed| {
        let begun = Instant::now();
        let machine = bench().chooser(Random(seed)).start().expect("the driver can be loaded");
        machine.play(play(TWO_WRITERS)).expect("it holds");
        clean(&machine.finish());
        each(begun, 1)
    };
    (0..STARTS).map(sample).collect()
}

/// One schedule of a search for up to four preemptions.
fn searched() -> Vec<f64> {
    let bounds = Bounds { preemptions: 4, schedules: SEARCHED, ..Bounds::default() };
    let sample = |_| {
        let edu = Bench::new().driver(driver("edu.sys")).inf(driver("edu.inf")).device("edu").unobserved();
        let begun = Instant::now();
        let broken = |report: &Report| report.outcome() != dirql::Outcome::Clean;
        let searched = edu.search(&play(TWO_REQUESTS), &bounds, broken).expect("the driver can be loaded");
        assert!(searched.found.is_none() && searched.total() == SEARCHED, "{:?}", searched.schedules);
        each(begun, 1) / SEARCHED as f64
    };
    (0..SEARCHES).map(sample).collect()
}
