//! Stories of drivers whose unwind data lie: exceptions in them end in bounded time, with a verdict or as if nothing were
//! wrong, and never with a fault of dirql's own.

use std::path::PathBuf;

use dirql::explore::Rng;
use dirql::{Bench, Outcome, Report};
use image::Image;

use super::rig::{self, driver, start};

/// A driver's file, to be changed.
struct Patient {
    file: Vec<u8>,
    image: Image,
}

/// An entry of the exception directory and its unwind data.
#[derive(Clone, Copy)]
struct Entry {
    begin: u32,
    /// RVA of the entry itself.
    at: u32,
    /// RVA of the unwind data.
    unwind: u32,
}

impl Patient {
    fn seh() -> Self {
        let file = std::fs::read(driver("seh.sys")).unwrap();
        let image = Image::parse("seh.sys", &file).unwrap();
        Self { file, image }
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.file[at..at + 4].try_into().unwrap())
    }

    /// Where in the file `rva` is.
    fn offset(&self, rva: u32) -> usize {
        let header = self.word(0x3C) as usize;
        let (count, optional) = (self.file[header + 6], self.word(header + 20) & 0xFFFF);
        let mut sections = (0..usize::from(count)).map(|index| header + 24 + optional as usize + 40 * index);
        let section =
            sections.find(|&at| (self.word(at + 12)..self.word(at + 12) + self.word(at + 16)).contains(&rva));
        let at = section.unwrap();
        (rva - self.word(at + 12) + self.word(at + 20)) as usize
    }

    fn read(&self, rva: u32) -> u32 {
        self.word(self.offset(rva))
    }

    fn write(&mut self, rva: u32, bytes: &[u8]) {
        let at = self.offset(rva);
        self.file[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn entries(&self) -> Vec<Entry> {
        let functions = self.image.functions().iter();
        let entry = |function: &image::RuntimeFunction| {
            let at = self.image.function_entry(*function).unwrap();
            Entry { begin: function.begin, at, unwind: function.unwind }
        };
        functions.map(entry).collect()
    }

    /// Where what follows the unwind codes begins: for a function with a handler the handler's RVA.
    fn after_codes(&self, entry: Entry) -> u32 {
        let codes = self.read(entry.unwind).to_le_bytes()[2];
        entry.unwind + 4 + 2 * u32::from(codes).next_multiple_of(2)
    }

    /// The functions with an exception handler.
    fn guarded(&self) -> Vec<Entry> {
        let mut entries = self.entries();
        entries.retain(|entry| self.read(entry.unwind).to_le_bytes()[0] >> 3 & 1 != 0);
        assert!(entries.len() > 10, "seh.sys has many functions with __try");
        entries
    }

    fn saved(&self, name: &str) -> PathBuf {
        let path = rig::folder("unwind").join(format!("{name}.sys"));
        std::fs::write(&path, &self.file).unwrap();
        path
    }

    /// Tells one of its stories; whatever comes of it, it is no fault of ours, and it comes to an end.
    fn tell(&self, name: &str, story: &str) -> Report {
        let path = self.saved(name);
        let machine = start(|| Bench::new().driver(&path).instruction_budget(5_000_000));
        // What goes wrong stands in the report.
        if let Ok(file) = machine.open(r"\\.\DirqlSeh") {
            let _ = file.device_control(rig::TELL_STORY, story.as_bytes(), 8);
        }
        let report = machine.finish();
        std::fs::remove_file(path).unwrap();
        assert!(
            matches!(report.outcome(), Outcome::Broken | Outcome::Clean | Outcome::Unexpected),
            "{name}\n{report}"
        );
        report
    }

    /// The same, and it ends with one of these rules.
    fn ends(&self, name: &str, story: &str, rules: &[&str]) {
        let report = self.tell(name, story);
        assert_eq!(report.outcome(), Outcome::Broken, "{name}\n{report}");
        let rule = report.expect_verdict().rule;
        assert!(rules.contains(&rule), "{name}: {rule}\n{report}");
    }
}

#[test]
fn unwind_data_that_are_chained_to_themselves_hold_no_handler() {
    let mut patient = Patient::seh();
    for entry in patient.guarded() {
        let [first, rest @ ..] = patient.read(entry.unwind).to_le_bytes();
        let function: Vec<u8> =
            (0..12).step_by(4).flat_map(|at| patient.read(entry.at + at).to_le_bytes()).collect();
        patient.write(entry.unwind, &[first & 7 | 4 << 3, rest[0], rest[1], rest[2]]);
        patient.write(patient.after_codes(entry), &function);
    }
    patient.ends("chained-to-itself", "Caught", &["wild-read"]);
}

#[test]
fn unwind_data_that_are_chained_in_a_ring_hold_no_handler() {
    let mut patient = Patient::seh();
    let ring = patient.guarded();
    for (index, entry) in ring.iter().enumerate() {
        let next = ring[(index + 1) % ring.len()];
        let [first, rest @ ..] = patient.read(entry.unwind).to_le_bytes();
        let function: Vec<u8> =
            (0..12).step_by(4).flat_map(|at| patient.read(next.at + at).to_le_bytes()).collect();
        patient.write(entry.unwind, &[first & 7 | 4 << 3, rest[0], rest[1], rest[2]]);
        patient.write(patient.after_codes(*entry), &function);
    }
    patient.ends("chained-in-a-ring", "Caught", &["wild-read"]);
}

#[test]
fn entries_that_lead_to_each_other_are_no_entries() {
    let mut patient = Patient::seh();
    for entry in patient.guarded() {
        // An odd reference is to another entry: here to itself.
        patient.write(entry.at + 8, &(entry.at | 1).to_le_bytes());
    }
    patient.ends("entry-of-itself", "Caught", &["wild-read"]);
}

#[test]
fn a_handler_in_data_is_an_execution_of_data() {
    let mut patient = Patient::seh();
    let data = patient.image.sections().iter().find(|section| section.name == ".data").unwrap().rva;
    for entry in patient.guarded() {
        patient.write(patient.after_codes(entry), &data.to_le_bytes());
    }
    patient.ends("handler-in-data", "Caught", &["execute-of-data"]);
}

#[test]
fn a_handler_in_a_functions_middle_runs_and_is_judged_by_what_it_does() {
    for distance in [1, 3, 5, 9] {
        let mut patient = Patient::seh();
        for entry in patient.guarded() {
            patient.write(patient.after_codes(entry), &(entry.begin + distance).to_le_bytes());
        }
        patient.tell("handler-in-the-middle", "Caught");
    }
}

#[test]
fn a_handler_that_is_the_function_itself_ends_where_the_stack_does() {
    let mut patient = Patient::seh();
    for entry in patient.guarded() {
        patient.write(patient.after_codes(entry), &entry.begin.to_le_bytes());
    }
    patient.ends("handler-is-itself", "Caught", &["stack-overflow", "wild-read"]);
}

#[test]
fn a_scope_table_without_end_is_read_to_the_images() {
    let mut patient = Patient::seh();
    for entry in patient.guarded() {
        patient.write(patient.after_codes(entry) + 4, &u32::MAX.to_le_bytes());
    }
    patient.tell("endless-scopes", "ContinuedSearch");
}

#[test]
fn functions_that_overlap_are_told_apart_by_where_they_begin() {
    let mut patient = Patient::seh();
    let end = patient.image.size();
    for entry in patient.entries() {
        patient.write(entry.at + 4, &end.to_le_bytes());
    }
    patient.tell("overlapping", "Caught");
    // And all from the start of the first.
    let begin = patient.entries()[0].begin;
    for entry in patient.entries() {
        patient.write(entry.at, &begin.to_le_bytes());
    }
    patient.tell("all-the-same", "Caught");
}

#[test]
fn frames_of_impossible_sizes_end_the_search() {
    let mut patient = Patient::seh();
    for entry in patient.entries() {
        let [first, prolog, codes, frame] = patient.read(entry.unwind).to_le_bytes();
        if codes >= 3 {
            // UWOP_ALLOC_LARGE of nearly 4 GiB.
            patient.write(entry.unwind, &[first, prolog, codes, frame, 0, 0x11, 0xF8, 0xFF, 0xFF, 0xFF]);
        }
    }
    patient.tell("giant-frames", "Caught");
    patient.tell("giant-frames", "FinallyRaises");
}

/// Stories that unwind in different ways.
const STORIES: [&str; 9] = [
    "Caught",
    "FinallyOrder",
    "ContinuedExecution",
    "HandledInside",
    "FinallyRaises",
    "FilterRaises",
    "ThroughTheKernel",
    "OwnWalk",
    "OwnLanguageHandler",
];

fn one<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[usize::try_from(rng.below(of.len() as u64)).unwrap()]
}

fn below(rng: &mut Rng, limit: u64) -> u32 {
    u32::try_from(rng.below(limit)).unwrap()
}

#[test]
fn damaged_unwind_data_never_are_a_fault_of_ours() {
    let mut rng = Rng::new(1);
    for round in 0..300 {
        let mut patient = Patient::seh();
        let sound = Patient::seh();
        let entries = sound.entries();
        for _ in 0..40 {
            let entry = one(&mut rng, &entries);
            let place = match rng.below(3) {
                0 => entry.at + below(&mut rng, 12),
                1 => entry.unwind + below(&mut rng, 8),
                _ => sound.after_codes(entry) + below(&mut rng, 24),
            };
            patient.write(place, &[one(&mut rng, &[0, 1, 3, 0x19, 0x21, 0x7F, 0x80, 0xFF])]);
        }
        patient.tell(&format!("damaged-{round}"), one(&mut rng, &STORIES));
    }
}
