//! Random traffic of applications to the drivers that come with dirql, for a long time of the machine's, on 8 processors: requests of
//! eight threads, cancelled or not, stops and restarts and sleep between them. At the end nothing is left, the device still does what
//! it is asked, and the process is as large as when half of the time was over.
//!
//! `DIRQL_HOURS` says how many hours of the machine's time pass (few in CI; `cargo xtask soak` lets a week pass).

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may stop where its ground gives way, and says what it measured"
)]

mod rig;

use std::fmt::Write;

use dirql::Bench;
use dirql::explore::{Policy, Rng};
use rig::{driver, finish, try_play, wanted};

const SECOND: u64 = 1_000_000_000;

/// Threads, and processors, of the traffic.
const THREADS: u64 = 8;

/// Handles that a round of traffic opens.
const HANDLES: u64 = 4;

/// What the resident memory may grow by in the second half. It grows as long as slices end where none has ended before: the
/// translated code of a block is copied for each instruction that one ended at.
const MAY_GROW: u64 = 1 << 20;

/// A driver, its card, and what applications ask of it.
struct Traffic {
    sys: &'static str,
    card: Option<&'static str>,
    device: &'static str,
    /// Requests that end by themselves: `N` stands for a random number, `H` for a handle.
    requests: &'static [&'static str],
    /// Requests that may wait until they are cancelled.
    waits: &'static [&'static str],
    /// What the world does in between.
    events: &'static [&'static str],
    /// Commands that must hold at the end of each round.
    holds: &'static str,
}

const STOPS_AND_SLEEPS: &[&str] = &[
    "stop-device; start-device",
    "stop-device; start-device elsewhere",
    "power s3; power s0",
    "query-stop; cancel-stop",
];

/// The text in which each `N` is a random number and each `H` is a handle.
fn filled(template: &str, rng: &mut Rng) -> String {
    let mut text = String::new();
    for word in template.split_inclusive(' ') {
        match word.trim_end() {
            "H" => write!(text, "h{} ", rng.below(HANDLES)).unwrap(),
            "N" => write!(text, "{} ", rng.below(64)).unwrap(),
            "u32:N" => write!(text, "u32:{} ", 1 + rng.below(15)).unwrap(),
            _ => text.push_str(word),
        }
    }
    text
}

impl Traffic {
    fn bench(&self) -> Bench {
        let bench = Bench::new().driver(driver(&format!("{}.sys", self.sys))).processors(8);
        match self.card {
            Some(card) => bench.inf(driver(&format!("{}.inf", self.sys))).device(card),
            None => bench,
        }
    }

    /// A round of traffic as a script.
    fn round(&self, rng: &mut Rng) -> String {
        let mut text = String::new();
        let of =
            |all: &[&'static str], rng: &mut Rng| all[usize::try_from(rng.below(all.len() as u64)).unwrap()];
        for handle in 0..HANDLES {
            writeln!(text, "open {} as h{handle} overlapped", self.device).unwrap();
        }
        for thread in 0..THREADS {
            for _ in 0..=rng.below(11) {
                let request = filled(of(self.requests, rng), rng);
                writeln!(text, "t{thread}: {request} expect any").unwrap();
                if rng.one_in(4) {
                    writeln!(text, "t{thread}: wait {}us", rng.below(2_000)).unwrap();
                }
            }
        }
        let mut begun = 0;
        if !self.waits.is_empty() {
            for _ in 0..rng.below(4) {
                writeln!(text, "async a{begun} {}", filled(of(self.waits, rng), rng)).unwrap();
                begun += 1;
            }
        }
        for _ in 0..rng.below(4) {
            writeln!(text, "wait {}us", rng.below(3_000)).unwrap();
            if rng.one_in(2) {
                writeln!(text, "cancel h{}", rng.below(HANDLES)).unwrap();
            }
            if !self.events.is_empty() && rng.one_in(8) {
                writeln!(text, "{}", of(self.events, rng)).unwrap();
            }
        }
        for thread in 0..THREADS {
            writeln!(text, "join t{thread}").unwrap();
        }
        for begun in 0..begun {
            writeln!(text, "cancel a{begun}; join a{begun} expect any").unwrap();
        }
        text + &filled(self.holds, rng)
            + "\n"
            + &(0..HANDLES).map(|handle| format!("close h{handle}\n")).collect::<String>()
    }

    /// Lets the time pass, and looks what is left.
    fn soak(&self) {
        let end = wanted("DIRQL_HOURS", 3) * 3_600 * SECOND;
        let mut rng = Rng::new(wanted("DIRQL_FIRST_SEED", 1));
        let machine =
            self.bench().policy(Policy::Random(rng.roll())).start().unwrap_or_else(|error| panic!("{error}"));
        let (mut rounds, mut settled) = (0_u64, None);
        while machine.now() < end {
            if let Err(error) = try_play(&machine, &self.round(&mut rng)) {
                panic!("{}, round {rounds}: {error}\n{}", self.sys, machine.finish());
            }
            machine.wait(rng.below(200 * SECOND)).unwrap();
            rounds += 1;
            if settled.is_none() && machine.now() >= end / 2 {
                settled = Some(resident());
            }
        }
        let (settled, now) = (settled.expect("half of the time is over"), resident());
        let hours = machine.now() / SECOND / 3_600;
        let report = finish(machine);
        eprintln!("{}: {hours} h, {rounds} rounds, {} KiB, then {} KiB", self.sys, settled >> 10, now >> 10);
        assert!(
            now <= settled + MAY_GROW,
            "{}: {settled} bytes of memory became {now} in {rounds} rounds\n{report}",
            self.sys
        );
    }
}

/// Bytes of memory that this process has now.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

const CARD: Traffic = Traffic {
    sys: "pci9052",
    card: Some("pci9052"),
    device: r"\\.\Pci9052-0",
    requests: &[
        "read H N at N",
        "write H u32:N at N",
        "write H zero:64 at N",
        "read H 4 at 0x10000000",
        "ioctl H 0x226404 out N",
    ],
    waits: &["ioctl H 0x226400 out 64", "read H N at N", "write H zero:60 at N"],
    events: STOPS_AND_SLEEPS,
    holds: "write h0 hex:3ca5 at 8; read h1 2 at 8 expect hex:3ca5",
};

#[test]
fn the_rust_driver_of_the_pci_9052() {
    CARD.soak();
}

#[test]
fn the_c_driver_of_the_pci_9052() {
    Traffic { sys: "pciline", device: r"\\.\PciLine0", ..CARD }.soak();
}

const EDU: Traffic = Traffic {
    sys: "edu_rust",
    card: Some("edu,factorial=25us"),
    device: r"\\.\EduRust-0",
    requests: &[
        "ioctl H 0x223000 in u32:N out 4",
        "ioctl H 0x223004 out 20",
        "ioctl H 0x223000 in u32:N out N",
    ],
    waits: &["ioctl H 0x223000 in u32:N out 4"],
    events: STOPS_AND_SLEEPS,
    holds: "ioctl h0 0x223000 in u32:5 out 4 expect u32:120",
};

#[test]
fn the_rust_driver_of_the_educational_device() {
    EDU.soak();
}

#[test]
fn the_c_driver_of_the_educational_device() {
    let requests =
        &["ioctl H 0x223000 in u32:N out 4", "ioctl H 0x223004 out 20", "ioctl H 0x22300A in zero:64 out 64"];
    Traffic {
        sys: "edu",
        card: Some("edu,dma_mask=0xffffffffffffffff,factorial=25us,dma=10us"),
        device: r"\\.\Edu",
        requests,
        // It holds no requests while its device is stopped.
        events: &[],
        ..EDU
    }
    .soak();
}

#[test]
fn the_c_driver_of_the_bench_card() {
    Traffic {
        sys: "card",
        card: Some("bench,delay=50us,dma=30us"),
        device: r"\\.\Card",
        requests: &["ioctl H 0x223400 in u32:N", "ioctl H 0x223410 out 4", "ioctl H 0x223410 out N"],
        waits: &["ioctl H 0x223400 in u32:N"],
        events: &[],
        holds: "ioctl h0 0x223400 in u32:100",
    }
    .soak();
}

#[test]
fn the_rust_driver_of_the_bench_card() {
    Traffic {
        sys: "bench_rust",
        card: Some("bench,msix=4"),
        device: r"\\.\BenchRust-0",
        requests: &["ioctl H 0x222400 in u32:N", "ioctl H 0x222404 out 56", "ioctl H 0x222404 out N"],
        waits: &["ioctl H 0x222400 in u32:N"],
        events: STOPS_AND_SLEEPS,
        holds: "ioctl h0 0x222400 in u32:1; ioctl h1 0x222404 out 56",
    }
    .soak();
}

#[test]
fn the_driver_with_messages() {
    Traffic {
        sys: "message",
        card: Some("bench,msi=4"),
        device: r"\\.\Message",
        requests: &["ioctl H 0x226400 in u32:N", "ioctl H 0x226404 out 256", "ioctl H 0x226404 out N"],
        waits: &[],
        events: &[],
        holds: "ioctl h0 0x226400 in u32:1",
    }
    .soak();
}

#[test]
fn the_driver_with_a_queue() {
    Traffic {
        sys: "queue",
        card: None,
        device: r"\\.\DirqlQueue",
        requests: &["read H 4", "read H N", "write H u32:N", "ioctl H 0x222004 in u32:2"],
        waits: &["read H 4", "write H u32:N", "ioctl H 0x222000 in u32:5"],
        events: &[],
        holds: "ioctl h0 0x222004 in u32:2",
    }
    .soak();
}
