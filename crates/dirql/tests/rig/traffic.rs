//! Random traffic of applications to the drivers that come with dirql: scripts that are made of a driver's requests.

use std::fmt::Write;

use dirql::Bench;
use dirql::explore::Rng;

use super::driver;

/// Threads of the traffic.
const THREADS: u64 = 8;

/// Handles that a round of traffic opens.
const HANDLES: u64 = 4;

/// So many of them are overlapped.
const OVERLAPPED: u64 = 2;

/// A driver, its card, and what applications ask of it.
#[derive(Clone, Copy)]
pub(crate) struct Traffic {
    pub(crate) sys: &'static str,
    has_inf: bool,
    /// A framework drives it.
    is_client: bool,
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

/// The text in which each `N` is a random number and each `H` is one of the first `handles`.
fn filled(template: &str, handles: u64, rng: &mut Rng) -> String {
    let mut text = String::new();
    for word in template.split_inclusive(' ') {
        match word.trim_end() {
            "H" => write!(text, "h{} ", rng.below(handles)).unwrap(),
            "N" => write!(text, "{} ", rng.below(64)).unwrap(),
            "u32:N" => write!(text, "u32:{} ", 1 + rng.below(15)).unwrap(),
            _ => text.push_str(word),
        }
    }
    text
}

impl Traffic {
    /// A machine with the driver and its card, and so many processors.
    pub(crate) fn bench(&self, processors: u32) -> Bench {
        let bench = Bench::new().driver(driver(&format!("{}.sys", self.sys))).processors(processors);
        let bench = if self.is_client { bench.framework(driver("framework.sys")) } else { bench };
        let bench = if self.has_inf { bench.inf(driver(&format!("{}.inf", self.sys))) } else { bench };
        match self.card {
            Some(card) => bench.device(card),
            None => bench,
        }
    }

    /// A round of traffic as a script, whose handles are left open.
    pub(crate) fn round(&self, rng: &mut Rng) -> String {
        let mut text = String::new();
        let of =
            |all: &[&'static str], rng: &mut Rng| all[usize::try_from(rng.below(all.len() as u64)).unwrap()];
        for handle in 0..HANDLES {
            let how = if handle < OVERLAPPED { " overlapped" } else { "" };
            writeln!(text, "open {} as h{handle}{how}", self.device).unwrap();
        }
        for thread in 0..THREADS {
            for _ in 0..=rng.below(11) {
                let request = filled(of(self.requests, rng), HANDLES, rng);
                writeln!(text, "t{thread}: {request} expect any").unwrap();
                if rng.one_in(4) {
                    writeln!(text, "t{thread}: wait {}us", rng.below(2_000)).unwrap();
                }
            }
        }
        let mut begun = 0;
        if !self.waits.is_empty() {
            for _ in 0..rng.below(4) {
                writeln!(text, "async a{begun} {}", filled(of(self.waits, rng), OVERLAPPED, rng)).unwrap();
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
        text + &filled(self.holds, HANDLES, rng) + "\n"
    }

    /// What closes the handles that a round leaves open.
    pub(crate) fn end_of_round() -> String {
        (0..HANDLES).map(|handle| format!("close h{handle}\n")).collect()
    }
}

/// The Rust driver of the PCI 9052.
pub(crate) const PCI9052: Traffic = Traffic {
    sys: "pci9052",
    has_inf: true,
    is_client: false,
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

/// The C driver of the PCI 9052.
pub(crate) const PCILINE: Traffic = Traffic { sys: "pciline", device: r"\\.\PciLine0", ..PCI9052 };

/// The Rust driver of the educational device.
pub(crate) const EDU_RUST: Traffic = Traffic {
    sys: "edu_rust",
    has_inf: true,
    is_client: false,
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

/// The C driver of the educational device.
pub(crate) const EDU: Traffic = Traffic {
    sys: "edu",
    has_inf: true,
    is_client: false,
    card: Some("edu,dma_mask=0xffffffffffffffff,factorial=25us,dma=10us"),
    device: r"\\.\Edu",
    requests: &[
        "ioctl H 0x223000 in u32:N out 4",
        "ioctl H 0x223004 out 20",
        "ioctl H 0x22300A in zero:64 out 64",
    ],
    // It holds no requests while its device is stopped.
    events: &[],
    ..EDU_RUST
};

/// A framework's client, of the educational device.
pub(crate) const KMDF_EDU: Traffic = Traffic {
    sys: "kmdf_edu",
    is_client: true,
    card: Some("edu,factorial=25us"),
    device: r"\\.\KmdfEdu",
    requests: &[
        "ioctl H 0x223000 in u32:N out 4",
        "ioctl H 0x223004 out 24",
        "ioctl H 0x223000 in u32:N out N",
    ],
    ..EDU_RUST
};

/// A framework's client without hardware.
pub(crate) const KMDF_ECHO: Traffic = Traffic {
    sys: "kmdf_echo",
    has_inf: true,
    is_client: true,
    card: None,
    device: "interface:{6D1C2B6E-7E0A-4C1B-9D37-3A54C0F2E815}",
    requests: &[
        "write H u32:N",
        "read H N",
        "ioctl H 0x222000 in u32:N out 4",
        "ioctl H 0x222010 in u32:N out 4",
        "ioctl H 0x222004 in u32:N",
        "ioctl H 0x22200c in u32:N",
    ],
    waits: &["ioctl H 0x222008 out 8", "ioctl H 0x222004 in u32:N"],
    events: STOPS_AND_SLEEPS,
    holds: "ioctl h0 0x222000 in u32:5 out 4 expect u32:5",
};

/// The C driver of the bench card.
pub(crate) const CARD: Traffic = Traffic {
    sys: "card",
    has_inf: true,
    is_client: false,
    card: Some("bench,delay=50us,dma=30us"),
    device: r"\\.\Card",
    requests: &["ioctl H 0x223400 in u32:N", "ioctl H 0x223410 out 4", "ioctl H 0x223410 out N"],
    waits: &["ioctl H 0x223400 in u32:N"],
    events: &[],
    holds: "ioctl h0 0x223400 in u32:100",
};

/// The Rust driver of the bench card.
pub(crate) const BENCH_RUST: Traffic = Traffic {
    sys: "bench_rust",
    has_inf: true,
    is_client: false,
    card: Some("bench,msix=4"),
    device: r"\\.\BenchRust-0",
    requests: &["ioctl H 0x222400 in u32:N", "ioctl H 0x222404 out 56", "ioctl H 0x222404 out N"],
    waits: &["ioctl H 0x222400 in u32:N"],
    events: STOPS_AND_SLEEPS,
    holds: "ioctl h0 0x222400 in u32:1; ioctl h1 0x222404 out 56",
};

/// The driver with messages.
pub(crate) const MESSAGE: Traffic = Traffic {
    sys: "message",
    has_inf: true,
    is_client: false,
    card: Some("bench,msi=4"),
    device: r"\\.\Message",
    requests: &["ioctl H 0x226400 in u32:N", "ioctl H 0x226404 out 256", "ioctl H 0x226404 out N"],
    waits: &[],
    events: &[],
    holds: "ioctl h0 0x226400 in u32:1",
};

/// The driver with a queue.
pub(crate) const QUEUE: Traffic = Traffic {
    sys: "queue",
    has_inf: false,
    is_client: false,
    card: None,
    device: r"\\.\DirqlQueue",
    requests: &["read H 4", "read H N", "write H u32:N", "ioctl H 0x222004 in u32:2"],
    waits: &["read H 4", "write H u32:N", "ioctl H 0x222000 in u32:5"],
    events: &[],
    holds: "ioctl h0 0x222004 in u32:2",
};

/// The driver of the benchmarks: its writes are buffered, and each ends in an interrupt.
pub(crate) const BENCH: Traffic = Traffic {
    sys: "bench",
    has_inf: false,
    is_client: false,
    card: Some("pci9052"),
    device: r"\\.\DirqlBench",
    requests: &[
        "write H u32:N",
        "write H u32:N at N",
        "read H N",
        "ioctl H 0x222C00 in u32:N",
        "ioctl H 0x222C10 in u32:N",
        "ioctl H 0x222C18 in u32:N",
        "ioctl H 0x222C1C in u32:N",
        "ioctl H 0x222C30 in u32:N",
        "ioctl H 0x222C34 in u32:N",
    ],
    waits: &["write H u32:N"],
    events: &[],
    // Those that use what there is once.
    holds: "write h0 u32:1; write h2 u32:2; ioctl h2 0x222C20 in u32:20; ioctl h0 0x222C24 in u32:20",
};
