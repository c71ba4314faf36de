//! Runs of every shipped driver under random policies, recorded and replayed: the same events, each time; and clean, since
//! none of these drivers has a schedule that breaks it.
//!
//! `DIRQL_REPLAYS` says how many runs of each driver; `cargo xtask replays` asks for 1,000. The replay has other readers than
//! the run, and every other one a third set; one in four is a replay under checked translation.

#![allow(clippy::print_stdout, reason = "the chore that runs it in great number shows what it did")]

use dirql::explore::{Policy, Random};
use dirql::readers::{Flow, Json, Sink};
use dirql::record::{Record, Recording};
use dirql::{Bench, Outcome, Report, ScriptText};
use engine::{Chooser, Point};

use super::rig::{Buffer, QUEUE, driver};

/// How many runs of each driver, by default.
const RUNS: u64 = 10;

/// A shipped driver, and what goes on around it.
#[derive(Clone, Copy)]
struct Scene {
    sys: &'static str,
    inf: Option<&'static str>,
    device: Option<&'static str>,
    script: &'static str,
}

impl Scene {
    fn bench(self) -> Bench {
        let mut bench = Bench::new().driver(driver(self.sys));
        if self.sys.starts_with("kmdf_") {
            bench = bench.framework(driver("framework.sys"));
        }
        if let Some(inf) = self.inf {
            bench = bench.inf(driver(inf));
        }
        if let Some(device) = self.device {
            bench = bench.device(device);
        }
        bench
    }
}

/// Goes on by default, with driver code cut into slices of one length.
struct Slices(u64);

impl Chooser for Slices {
    fn choose(&mut self, _strand: u32, _point: Point, _n: u32) -> u32 {
        0
    }

    fn slice(&mut self, _strand: u32, retired: u64) -> u64 {
        // Not in step with loops.
        self.0 + retired % 7
    }
}

/// Runs a scene by a policy; its record and report.
fn record(scene: Scene, policy: Policy, processors: u32) -> (Record, Report) {
    record_by(scene, policy.chooser(), &policy.to_string(), processors)
}

fn record_by(scene: Scene, chooser: Box<dyn Chooser>, name: &str, processors: u32) -> (Record, Report) {
    let script = ScriptText::typed(scene.script);
    let buffer = Buffer::default();
    let bench = scene.bench().processors(processors);
    let started = Recording::start(bench, chooser, name, Some(&script), buffer.clone());
    let (bench, recording) = started.unwrap();
    let report = bench.run(Some(script.play().unwrap())).unwrap();
    recording.finish(&report).unwrap();
    (Record::parse(scene.sys, &buffer.text()).unwrap_or_else(|error| panic!("{error}")), report)
}

/// Makes it again; it must be the same.
fn replay(record: &Record, traced: bool, checked: bool) {
    let (bench, play, comparison) = record.bench(None, None, None).unwrap();
    let mut bench = bench.checked(checked);
    if traced {
        let symbols = bench.symbols();
        bench = bench.reader(Flow::new(Sink::new(std::io::sink()), symbols.clone()));
        bench = bench.reader(Json::new(Sink::new(std::io::sink()), symbols));
    }
    let report = bench.run(play).unwrap();
    if let Some(difference) = comparison.difference(&report) {
        panic!("{}, {}: {difference}\n{report}", record.source, record.header.policy);
    }
}

/// Records and replays as many runs as were asked for, with preemptions in them, and some that differ from the default only in where slices
/// end: which is in no record, and must change nothing.
fn many(scene: Scene) {
    let (choices, preemptions) = each(scene, "preempt");
    assert!(preemptions > 0 && choices > preemptions, "the policies did choose");
}

/// The same: some by priorities, the most at random; on one to three processors. How many choices there were, and how many of this point.
fn each(scene: Scene, point: &str) -> (usize, usize) {
    let runs = std::env::var("DIRQL_REPLAYS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    let (mut choices, mut named) = (0, 0);
    for seed in 0..runs {
        let policy = match seed % 5 {
            4 => Policy::pct(seed, 3, 1000),
            _ => Policy::random(seed),
        };
        let processors = 1 + u32::try_from(seed % 3).unwrap();
        // A strand that stalls is not preempted meanwhile.
        let (record, report) = match seed % 2 {
            0 => record_by(scene, Box::new(Random::steady(seed)), &policy.to_string(), processors),
            _ => record(scene, policy, processors),
        };
        assert_eq!(
            report.outcome(),
            Outcome::Clean,
            "no schedule breaks it: {policy} on {processors}\n{report}"
        );
        choices += record.choices.len();
        named += record.choices.iter().filter(|choice| choice.to_string().contains(point)).count();
        replay(&record, seed % 2 == 0, seed % 4 == 3);
    }
    for (length, processors) in [(3, 2), (40, 3), (1000, 2), (15_000, 3)] {
        let (record, report) = record_by(scene, Box::new(Slices(length)), "random:0", processors);
        assert!(record.choices.is_empty(), "slices are no choices");
        assert_eq!(report.outcome(), Outcome::Clean, "slices of {length}\n{report}");
        replay(&record, false, false);
    }
    println!("{}: {runs} runs, {choices} choices, {named} of them {point}", scene.sys);
    (choices, named)
}

#[test]
fn legacy_sys_replays() {
    many(Scene {
        sys: "legacy.sys",
        inf: None,
        device: None,
        script: r#"open \\.\DirqlLegacy as one
            open \\.\DirqlLegacy as two
            a: write one text:"aaaa" at 0; a: read one 4 at 0
            b: write two text:"bbbb" at 8; b: ioctl two 0x222000 in text:abc out 3
            write one text:"cccc" at 16"#,
    });
}

#[test]
fn queue_sys_replays() {
    many(Scene { sys: "queue.sys", inf: None, device: None, script: QUEUE });
}

#[test]
fn queue_iotimer_sys_replays() {
    many(Scene { sys: "queue_iotimer.sys", inf: None, device: None, script: QUEUE });
}

#[test]
fn pciline_sys_replays() {
    many(Scene {
        sys: "pciline.sys",
        inf: Some("pciline.inf"),
        device: Some("pci9052"),
        script: r"open \\.\PciLine0 as a
            open \\.\PciLine0 as b
            t: write a text:hello at 0; t: read a 5 at 0
            u: write b hex:07 at 9
            write a hex:08 at 20
            join t; join u
            surprise-remove",
    });
}

#[test]
fn pci9052_sys_replays() {
    many(Scene {
        sys: "pci9052.sys",
        inf: Some("pci9052.inf"),
        device: Some("pci9052,latency=7us"),
        script: r"open \\.\Pci9052-0 as a
            open \\.\Pci9052-0 as b
            t: write a text:hello at 0; t: read a 5 at 0
            u: write b hex:07 at 9
            write a hex:08 at 20
            join t; join u
            stop-device; start-device",
    });
}

/// Accesses that take as long as the local bus's descriptor says.
#[test]
fn localbus_sys_replays() {
    many(Scene {
        sys: "localbus.sys",
        inf: None,
        device: Some("pci9052,lclk=33MHz,latency=7us"),
        script: r"open \\.\LocalBus as a
            open \\.\LocalBus as b
            t: ioctl a 0x223880 in u32:0x800fc0 + u32:200 out 8
            u: ioctl b 0x223884 in u32:0x8f8000 + u32:100 out 8
            ioctl b 0x223888 in u32:0xffffffff + u32:0 out 8
            join t; join u",
    });
}

#[test]
fn services_sys_replays() {
    many(Scene {
        sys: "services.sys",
        inf: None,
        device: None,
        script: r"open \\.\DirqlServices as a
            open \\.\DirqlServices as b
            open \\.\DirqlServices as c
            t: ioctl a 0x223ff8 in text:Threads out 8
            u: ioctl b 0x223ff8 in text:Dpcs out 8
            ioctl c 0x223ff8 in text:WorkItemsOfDevice out 8
            join t; join u
            ioctl c 0x223ff8 in text:Resources out 8",
    });
}

/// What calls MmPageEntireDriver (0x22200c) has the driver for itself: a thread that is in its code at DISPATCH_LEVEL meanwhile is a fault of the
/// driver's, which a checked machine tells.
#[test]
fn requests_sys_replays() {
    many(Scene {
        sys: "requests.sys",
        inf: None,
        device: None,
        script: r"open \\.\DirqlRequests as a
            open \\.\DirqlRequests as b
            t: ioctl a 0x222004 out 16
            u: ioctl b 0x222010 out 16
            join t; join u
            ioctl a 0x22200c out 16
            ioctl a 0x222008 out 16",
    });
}

#[test]
fn locks_sys_replays() {
    many(Scene {
        sys: "locks.sys",
        inf: None,
        device: None,
        script: r"open \\.\DirqlLocks as a
            open \\.\DirqlLocks as b
            open \\.\DirqlLocks as c
            t: ioctl a 0x222400; t: ioctl a 0x222440; t: ioctl a 0x222458
            u: ioctl b 0x222404; u: ioctl b 0x222454; u: ioctl b 0x222468
            ioctl c 0x222410; ioctl c 0x22243c; ioctl c 0x222470
            join t; join u",
    });
}

#[test]
fn clocks_sys_replays() {
    many(Scene {
        sys: "clocks.sys",
        inf: None,
        device: None,
        script: r"open \\.\DirqlClocks as a
            ioctl a 0x223ff8 in text:ExTimers out 8; ioctl a 0x223ff8 in text:Queueing out 8",
    });
}

#[test]
fn apcs_sys_replays() {
    let (choices, _) = each(
        Scene {
            sys: "apcs.sys",
            inf: None,
            device: None,
            script: r"open \\.\DirqlApcs as a
            ioctl a 0x223ff8 in text:Waited out 8; ioctl a 0x223ff8 in text:InCriticalRegion out 8",
        },
        "preempt",
    );
    assert!(choices > 0, "there is one thread, and system threads beside it for moments");
}

#[test]
fn message_sys_replays() {
    many(Scene {
        sys: "message.sys",
        inf: Some("message.inf"),
        device: Some("bench,msix=4"),
        script: r"open \\.\Message as one; open \\.\Message as two
            a: ioctl one 0x226400 in hex:0f000000
            b: ioctl two 0x226400 in hex:06000000
            join a; join b
            stop-device; start-device",
    });
}

const EDU: &str = r"open \\.\Edu as one
    open \\.\Edu as two
    t: ioctl one 0x223000 in u32:5 out 4 expect u32:120
    u: write two text:abcdefgh at 16; u: read two 8 at 16 expect text:abcdefgh
    join t; join u
    surprise-remove";

#[test]
fn edu_sys_replays() {
    many(Scene { sys: "edu.sys", inf: Some("edu.inf"), device: Some("edu"), script: EDU });
}

#[test]
fn kmdf_edu_sys_replays() {
    many(Scene {
        sys: "kmdf_edu.sys",
        inf: Some("kmdf_edu.inf"),
        device: Some("edu,factorial=25us"),
        script: r"open \\.\KmdfEdu as a
            open \\.\KmdfEdu as b
            t: ioctl a 0x223000 in u32:5 out 4 expect u32:120
            u: ioctl b 0x223000 in u32:4 out 4 expect u32:24
            ioctl a 0x223004 out 24
            join t; join u",
    });
}

#[test]
fn edu_rust_sys_replays() {
    many(Scene {
        sys: "edu_rust.sys",
        inf: Some("edu_rust.inf"),
        device: Some("edu"),
        script: r"open \\.\EduRust-0 as one
            open \\.\EduRust-0 as two
            t: ioctl one 0x223000 in u32:5 out 4 expect u32:120
            u: ioctl two 0x223000 in u32:6 out 4 expect u32:720
            join t; join u
            stop-device; start-device",
    });
}

#[test]
fn bench_rust_sys_replays() {
    many(Scene {
        sys: "bench_rust.sys",
        inf: Some("bench_rust.inf"),
        device: Some("bench,msix=4"),
        script: r"open \\.\BenchRust-0 as one; open \\.\BenchRust-0 as two
            a: ioctl one 0x222400 in hex:0f000000
            b: ioctl two 0x222400 in hex:06000000
            join a; join b",
    });
}

/// What the buffers give away, and when, is a choice: which words arrive is in the record.
#[test]
fn combine_sys_replays() {
    let scene = Scene {
        sys: "combine.sys",
        inf: Some("combine.inf"),
        device: Some("bench,pin=a,ram"),
        script: r"open \\.\DirqlCombine as a
            ioctl a 0x223880 in u32:0 out 8; ioctl a 0x223880 in u32:1 out 8
            ioctl a 0x223884 in u32:0 out 8; ioctl a 0x223884 in u32:0 out 8
            ioctl a 0x223888 in u32:0 out 8",
    };
    let (_, combined) = each(scene, "bus.");
    assert!(combined > 0, "what the buffers give away is chosen");
}
