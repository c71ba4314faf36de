//! The two drivers, and a machine for a story of theirs.

use std::path::{Path, PathBuf};

use dirql::{Bench, Machine, Report};

use crate::rig::{self, driver, start, try_play};

/// A driver of the card.
#[derive(Clone, Copy)]
pub(crate) struct Twin {
    name: &'static str,
}

pub(crate) const C: Twin = Twin { name: "pci9052_c" };
pub(crate) const RUST: Twin = Twin { name: "pci9052" };

/// What scripts say, and what it stands for.
const WORDS: [(&str, &str); 9] = [
    ("open DEV", r"open \\.\Pci9052-0"),
    ("READ_EEPROM", "0x226410"),
    ("WRITE_EEPROM", "0x22a414"),
    ("READ_LCR", "0x226408"),
    ("WRITE_LCR", "0x22a40c"),
    ("COUNTERS", "0x226404"),
    ("WAIT", "0x226400"),
    ("STATISTICS", "block:{8F2D4B61-2C3E-4A7D-9B15-6E0CD38A7F42}"),
    ("TIMED_OUT", "block:{8F2D4B62-2C3E-4A7D-9B15-6E0CD38A7F42}"),
];

/// A script as dirql takes it.
pub(crate) fn spelled(script: &str) -> String {
    WORDS.iter().fold(script.to_owned(), |text, (word, meaning)| text.replace(word, meaning))
}

impl Twin {
    /// The driver, its INF, and these cards.
    pub(crate) fn bench(self, cards: &[&str]) -> Bench {
        self.bench_by(&driver(&format!("{}.inf", self.name)), cards)
    }

    /// The same with another INF.
    pub(crate) fn bench_by(self, inf: &Path, cards: &[&str]) -> Bench {
        cards.iter().fold(self.alone().inf(inf), |bench, card| bench.device(*card))
    }

    /// The driver without an INF and without a card.
    pub(crate) fn alone(self) -> Bench {
        Bench::new().driver(driver(&format!("{}.sys", self.name)))
    }

    /// Its INF with a line changed.
    pub(crate) fn inf_with(self, from: &str, to: &str) -> PathBuf {
        rig::changed_inf("twins", &format!("{}.inf", self.name), |text| {
            assert!(text.contains(from), "the INF has `{from}`");
            text.replace(from, to)
        })
    }

    /// A machine with one card.
    pub(crate) fn machine(self, card: &str) -> Machine {
        start(|| self.bench(&[card]))
    }

    /// Carries out a script with one card: it holds, and nothing is left.
    pub(crate) fn holds(self, card: &str, script: &str) -> Report {
        holds(self.machine(card), script)
    }

    /// The same with a setting of the INF's changed.
    pub(crate) fn holds_with(self, from: &str, to: &str, card: &str, script: &str) -> Report {
        let inf = self.inf_with(from, to);
        holds(start(|| self.bench_by(&inf, &[card])), script)
    }
}

/// Carries out a script in a machine, which ends: it holds, no rule is broken, and nothing is left.
pub(crate) fn holds(machine: Machine, script: &str) -> Report {
    let played = try_play(&machine, &spelled(script));
    let report = machine.finish();
    assert!(played.is_ok(), "{}\n{report}", played.unwrap_err());
    report.expect_clean();
    assert!(report.findings.is_empty(), "{report}");
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
    assert!(report.prints.iter().any(|line| line.contains("unloaded")), "it is unloaded\n{report}");
    report
}

/// The image of the built-in board's EEPROM, with the registers at these places (bytes from its beginning) changed, in a file.
pub(crate) fn image(changes: &[(usize, u32)]) -> String {
    const BUILT_IN: [(usize, u32); 14] = [
        (0x00, 0x9050_10B5),
        (0x04, 0x0680_0002),
        (0x08, 0x9050_10B5),
        (0x0C, 0x0000_0100),
        (0x10, 0x0FFF_0000),
        (0x14, 0x0FFF_FF01),
        (0x24, 0x0000_0001),
        (0x28, 0x0000_FF01),
        (0x38, 0x0080_0000),
        (0x3C, 0x0080_0000),
        (0x40, 0x0080_0000),
        (0x4C, 0x0000_8001),
        (0x5C, 0x0000_0012),
        (0x60, 0x0078_4000),
    ];
    let mut words = [0_u32; 0x64 / 4];
    for (place, value) in BUILT_IN.iter().chain(changes) {
        words[place / 4] = *value;
    }
    let text: Vec<String> =
        words.iter().map(|word| format!("{:04x} {:04x}", word >> 16, word & 0xFFFF)).collect();
    let path = rig::folder("eeprom").join("card.txt");
    std::fs::write(&path, text.join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}
