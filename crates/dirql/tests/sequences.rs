//! Random sequences of Plug and Play, power, special files, relations, removals and requests on a tree of at least five devices with filters: a bus, a hub and
//! children of each, and a card. Nothing is left, nothing hangs, and there is no finding. `cargo xtask sequences` runs very many.
//!
//! `DIRQL_SEQUENCES` says how many are run for each card, `DIRQL_FIRST_SEED` from which on: `DIRQL_FIRST_SEED=7 DIRQL_SEQUENCES=1` runs one again, with
//! `DIRQL_SHOW=1` with its steps and all that happens.

#![allow(clippy::print_stderr, reason = "a sequence is shown if that is asked for")]

use dirql::explore::{Policy, Rng};
use dirql::readers::{Flow, Sink, SymbolBook};
use dirql::{Bench, Machine, Report};

use super::rig::{self, driver, try_play};

/// Steps of a sequence.
const STEPS: u32 = 30;

/// The interface of `soft.sys`.
const SOFT: &str = "interface:{5A0F7B52-3C1E-4B6F-9E57-0D1B8A2C4E61}";

/// A driver of the gallery, its card, and what applications do to it.
struct Card {
    driver: &'static str,
    device: &'static str,
    /// Its name on the bus.
    name: &'static str,
    /// Commands for the file `c`, opened `overlapped`, of which each begins a request that may not end by itself.
    requests: &'static [&'static str],
    path: &'static str,
}

const WAKE: Card = Card {
    driver: "wake",
    device: "pci,id=abcd:0002,bar0=mem:128,irq,pm=d1+wake3+wakeoff",
    name: "pci#0",
    requests: &["ioctl c 0x222000 in u32:4", "ioctl c 0x222004"],
    path: r"\\.\Wake",
};

const PCILINE: Card = Card {
    driver: "pciline",
    device: "pci9052",
    name: "pci9052#0",
    requests: &["write c hex:3ca5_0102 at 8", "read c 4 at 8"],
    path: r"\\.\PciLine0",
};

const PCI9052: Card = Card { driver: "pci9052", path: r"\\.\Pci9052-0", ..PCILINE };

/// A stream of numbers.
struct Numbers(Rng);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0.below(limit)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

/// A bus, a hub, children and the card, with a filter above each.
fn tree(card: &Card) -> Bench {
    const FILTER: &str = "HKR,,UpperFilters,0x00010000,\"TreeX\"\n";
    let soft = |inf: &str, section: &str| {
        rig::changed_inf("sequences", inf, |text| {
            text.replace(
                &format!("[{section}]\n"),
                &format!("[{section}.HW]\nAddReg = Above\n[Above]\n{FILTER}[{section}]\n"),
            )
        })
    };
    let inf = rig::changed_inf("sequences", &format!("{}.inf", card.driver), |text| {
        text.replace(".Hardware.AddReg]\n", &format!(".Hardware.AddReg]\n{FILTER}"))
    });
    let filter = rig::folder("sequences-filter").join("TreeX.sys");
    std::fs::copy(driver("layer.sys"), &filter).unwrap();
    Bench::new()
        .driver(driver("busdriver.sys"))
        .inf(soft("busdriver.inf", "Bus"))
        .device("root")
        .with(driver("soft.sys"))
        .inf(soft("soft.inf", "Soft"))
        .with(driver(&format!("{}.sys", card.driver)))
        .inf(inf)
        .device(card.device)
        .with(filter)
        .processors(2)
}

/// A request to the bus or the hub.
fn of_the_bus(numbers: &mut Numbers) -> String {
    let slot = numbers.below(4);
    let command = match numbers.below(8) {
        0..4 => {
            // Children with drivers, mostly; a device without any hardware that works, and a box that does not let go.
            let kind = numbers.of(&[0, 0, 0, 1, 2, 2, 3, 4, 5]);
            format!("ioctl b 0x222000 in u32:{}", kind * 0x100 + slot)
        }
        4..6 => format!("ioctl b 0x222004 in u32:{slot}"),
        6 => {
            let kind = numbers.of(&[1, 3]);
            let how = numbers.below(2);
            format!("ioctl b 0x22201c in u32:{}", slot + (numbers.below(4) << 8) + (kind << 16) + (how << 24))
        }
        _ => "ioctl b 0x222010".to_owned(),
    };
    let bus = numbers.of(&[0, 0, 0, 1, 2]);
    format!("open \\\\.\\DirqlBus{bus} as b\n{command} expect any\nclose b")
}

/// A request to the driver of a child.
fn of_a_child(numbers: &mut Numbers) -> String {
    let command = match numbers.below(6) {
        // It may refuse to be stopped, and to have special files; one that refused to be removed would be there at the end.
        0 => format!("0x222004 in u32:{}", numbers.of(&[0, 2, 4, 6])),
        1 => "0x222008".to_owned(),
        2..4 => format!("0x22200c in u32:{} + u32:{}", numbers.of(&[2, 3]), numbers.below(6)),
        // What is said of its state: nothing, DISABLED, DONT_DISPLAY_IN_UI, FAILED, REMOVED, DISCONNECTED, and other resources.
        4 => format!("0x222010 in u32:{}", numbers.of(&[0, 1, 2, 4, 8, 0x10, 0x14, 0x40])),
        // One that is added next does not run.
        _ => format!("0x222014 in u32:{}", numbers.below(5)),
    };
    format!("open {SOFT} as s\nioctl s {command} expect any\nclose s")
}

/// Something that the user's hand, or the PnP manager, does to a device.
fn of_a_device(numbers: &mut Numbers, card: &Card) -> String {
    let device = numbers.of(&["child#0", "child#1", "child#2", "hub#0", "raw#0", card.name, "dirqlbus#0"]);
    match numbers.below(10) {
        0 => format!("stop-device {device} expect any\nstart-device {device} expect any"),
        1 => format!("query-stop {device} expect any\ncancel-stop {device} expect any"),
        2 => format!("query-remove {device} expect any\ncancel-remove {device} expect any"),
        3 if device != "dirqlbus#0" => format!("remove-device {device} expect any"),
        4 if device != "dirqlbus#0" => format!("surprise-remove {device} expect any"),
        5 => format!("eject-device {device} expect any"),
        6 => format!("lock-device {device} expect any\nunlock-device {device} expect any"),
        // The cards' drivers say nothing of special files: no system would make one there.
        7 if device != card.name => {
            let file = numbers.of(&["paging", "hibernation", "dump"]);
            format!("usage {device} {file} {} expect any", numbers.of(&["on", "off"]))
        }
        8 => format!("power d3 {device} expect any\npower d0 {device} expect any"),
        _ => "tree".to_owned(),
    }
}

/// The system goes to sleep and is waked, perhaps by the card.
fn of_the_system(numbers: &mut Numbers, card: &Card) -> String {
    let state = numbers.of(&["s1", "s3", "s4"]);
    let wake =
        if card.driver == "wake" && numbers.below(2) == 0 { "poke pci#0 pme 1\nwait 1ms\n" } else { "" };
    format!("power {state} expect any\n{wake}power s0 expect any")
}

/// A request of an application's to the card is under way while something else happens.
fn while_under_way(numbers: &mut Numbers, card: &Card) -> String {
    let first = numbers.of(card.requests);
    let second = numbers.of(card.requests);
    let between = match numbers.below(5) {
        0 => of_the_system(numbers, card),
        1 => format!("surprise-remove {} expect any", card.name),
        2 => format!("stop-device {0} expect any\nstart-device {0} expect any", card.name),
        3 => format!("remove-device {} expect any", card.name),
        _ => of_the_bus(numbers),
    };
    format!(
        "open {} as c overlapped\nasync first {first}\nasync second {second}\n{between}\njoin first expect any\njoin second expect any\nclose c",
        card.path
    )
}

fn next_step(numbers: &mut Numbers, card: &Card) -> String {
    match numbers.below(12) {
        0..4 => of_the_bus(numbers),
        4..7 => of_a_child(numbers),
        7..10 => of_a_device(numbers, card),
        10 => while_under_way(numbers, card),
        _ => of_the_system(numbers, card),
    }
}

/// Whether steps and events go to the standard error stream.
fn is_shown() -> bool {
    std::env::var_os("DIRQL_SHOW").is_some()
}

/// Carries a sequence out. A step may find that what it is about is not there (any more): then nothing happens.
fn carry_out(machine: &Machine, seed: u64, card: &Card) {
    let mut numbers = Numbers(Rng::new(seed));
    let begin = r"open \\.\DirqlBus0 as b
        ioctl b 0x222000 in u32:0; ioctl b 0x222000 in u32:0x201; ioctl b 0x222000 in u32:2
        close b; wait 1ms";
    let _ = try_play(machine, begin);
    for _ in 0..STEPS {
        let step = next_step(&mut numbers, card);
        if is_shown() {
            eprintln!("{step}\n");
        }
        let _ = try_play(machine, &step);
    }
}

fn judge(report: &Report, seed: u64) {
    let again = format!("DIRQL_FIRST_SEED={seed} DIRQL_SEQUENCES=1 runs it again");
    let accused: Vec<_> = report.findings.iter().map(|finding| &finding.message).collect();
    assert!(report.verdict.is_none() && accused.is_empty(), "{again}: {report}");
    assert!(report.our_fault.is_none(), "{again}: {:?}", report.our_fault);
    assert_eq!(report.sums.still_allocated(), 0, "{again}: {report}");
    let stays = report.notes.iter().any(|note| note.contains("stays"));
    assert!(!stays, "{again}: {report}");
}

fn all(card: &Card) {
    let bench = tree(card);
    let shown = || Flow::new(Sink::new(std::io::stderr()), SymbolBook::default());
    let mut boots = rig::boots(if is_shown() { bench.reader(shown()) } else { bench });
    let first = rig::wanted("DIRQL_FIRST_SEED", 1);
    for seed in first..first + rig::wanted("DIRQL_SEQUENCES", 15) {
        let act = |machine: &Machine| carry_out(machine, seed, card);
        let ((), report) = boots.boot(Policy::random(seed).chooser(), act).unwrap();
        judge(&report, seed);
    }
}

#[test]
fn a_tree_with_a_card_that_wakes_survives_whatever_happens_to_it() {
    all(&WAKE);
}

#[test]
fn a_tree_with_the_pci_9052_and_its_c_driver_survives_whatever_happens_to_it() {
    all(&PCILINE);
}

#[test]
fn a_tree_with_the_pci_9052_and_its_rust_driver_survives_whatever_happens_to_it() {
    all(&PCI9052);
}
