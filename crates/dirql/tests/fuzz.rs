//! Every export, called with whatever arguments: `fuzz.sys` draws them from a seed. What comes of it is an answer, an exception or a
//! verdict on the driver; never a fault of dirql's own, a hang, or a run that is not the same when it is made again.
//!
//! `DIRQL_SEEDS` says how many runs are made, each twice (few in CI), `DIRQL_FIRST_SEED` where they begin.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may stop where its ground gives way")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use dirql::{Bench, Machine, Play, Report, script};
use engine::{Chooser, Point, Tracking};

use super::rig::{self, driver, seeds, start_unheard, try_play};

/// Exports that only end the run.
const LEFT_OUT: &[&str] = &["KeBugCheck", "KeBugCheckEx"];

/// Names of arguments' kinds, as `fuzz.c` numbers them.
const KINDS: &[&str] = &[
    "anything",
    "number",
    "truth",
    "memory",
    "KEVENT",
    "KTIMER",
    "KDPC",
    "KMUTANT",
    "KSEMAPHORE",
    "SpinLock",
    "KLOCK_QUEUE_HANDLE",
    "FAST_MUTEX",
    "KGUARDED_MUTEX",
    "ERESOURCE",
    "GENERAL_LOOKASIDE",
    "EX_RUNDOWN_REF",
    "EX_PUSH_LOCK",
    "KDEVICE_QUEUE",
    "KDEVICE_QUEUE_ENTRY",
    "UNICODE_STRING",
    "STRING",
    "GUID",
    "LIST_ENTRY",
    "SLIST_HEADER",
    "RTL_BITMAP",
    "IO_REMOVE_LOCK",
    "IO_CSQ",
    "IO_WORKITEM",
    "IRP",
    "MDL",
    "DEVICE_OBJECT",
    "DRIVER_OBJECT",
    "FILE_OBJECT",
    "KTHREAD",
    "KPROCESS",
    "handle",
    "EX_TIMER",
    "Code",
    "time",
    "text",
    "wide text",
    "length",
    "level",
    "section",
    "section object",
    "process handle",
    "OBJECT_ATTRIBUTES",
    "protection",
    "flag",
    "view",
    "RTL_GENERIC_TABLE",
    "RTL_AVL_TABLE",
    "RTL_SPLAY_LINKS",
    "table routine",
    "SID",
    "ACL",
    "SECURITY_DESCRIPTOR",
    "SECURITY_SUBJECT_CONTEXT",
    "token",
    "PRIVILEGE_SET",
    "GENERIC_MAPPING",
    "SECURITY_CLIENT_CONTEXT",
    "KQUEUE",
];

fn number(kind: &str) -> u8 {
    let number = KINDS.iter().position(|name| *name == kind);
    u8::try_from(number.unwrap_or_else(|| panic!("{kind} is no kind"))).unwrap()
}

/// An export as the table has it.
struct Export {
    name: &'static str,
    kinds: Vec<u8>,
    /// 1: it may be called at DISPATCH_LEVEL; 2: it must be.
    raised: u8,
}

/// The rows of the export table with the kinds of their arguments, which the services' own signatures tell.
fn exports() -> Vec<Export> {
    const TABLE: &str = include_str!("../../kernel/src/exports/functions.rs");
    let rows = TABLE.lines().filter_map(|line| {
        let (row, service) = line.trim().strip_suffix(';')?.split_once(" => ")?;
        // Before the name, which module has it.
        let (name, rest) = row.split_once(": ").map_or(row, |(_, row)| row).split_once('(')?;
        let (arity, _) = rest.split_once(')')?;
        Some((name, arity, service))
    });
    let rows = rows.filter(|(name, ..)| !LEFT_OUT.contains(name));
    let exports: Vec<Export> = rows
        .map(|(name, arity, service)| {
            let kinds = match arity.parse::<usize>() {
                Ok(arity) => {
                    let mut kinds = signature(service);
                    kinds.resize(arity, number("anything"));
                    kinds
                }
                // What prints: where to, or a format.
                Err(_) => vec![number("text"); 6],
            };
            let row = kernel::exports::FUNCTIONS.iter().find(|export| export.name == name).expect(name);
            Export { name, kinds, raised: u8::from(row.irql_max >= 2) + u8::from(row.irql_min >= 2) }
        })
        .collect();
    assert_eq!(exports.len() + LEFT_OUT.len(), kernel::exports::FUNCTIONS.len());
    exports
}

/// The source of a module of the kernel. A prefix names those of its rooms as its own.
fn module(folders: &[&str]) -> Option<String> {
    let (prefix, rest) = folders.split_first()?;
    let prefix = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel/src").join(prefix);
    let rooms = std::fs::read_dir(&prefix).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut places: Vec<_> =
        std::iter::once(prefix.clone()).chain(rooms).map(|at| at.join(rest.join("/"))).collect();
    places.sort();
    let files = places.iter().flat_map(|place| [place.with_extension("rs"), place.join("mod.rs")]);
    files.into_iter().find_map(|file| std::fs::read_to_string(file).ok())
}

/// The kinds of a service's arguments; nothing where its signature is not found.
fn signature(service: &str) -> Vec<u8> {
    // Of a generic service, what it is generic over: the width of letters, or the structure it is about.
    let (service, form) = service.split_once("::<").unwrap_or((service, ""));
    let form = form.trim_start_matches("abi::").trim_end_matches('>');
    let path: Vec<&str> = service.split("::").collect();
    let [folders @ .., function] = path.as_slice() else { return Vec::new() };
    let Some(text) = module(folders) else { return Vec::new() };
    let begin = [format!("fn {function}("), format!("fn {function}<")];
    let Some(at) = begin.iter().find_map(|begin| text.find(begin.as_str())) else { return Vec::new() };
    let Some(open) = text[at..].find('(') else { return Vec::new() };
    let (mut depth, mut parts, mut part) = (0, Vec::new(), String::new());
    for letter in text[at + open..].chars() {
        depth += i32::from(matches!(letter, '(' | '<')) - i32::from(matches!(letter, ')' | '>'));
        match letter {
            ',' if depth == 1 => parts.push(std::mem::take(&mut part)),
            _ if depth == 0 => break,
            _ => part.push(letter),
        }
    }
    parts.push(part);
    let named = parts.iter().filter_map(|part| part.split_once(':'));
    named
        .map(|(name, kind)| (name.trim_matches([' ', '\n', '(', '_']), kind.trim()))
        .skip(1)
        .map(
            |(name, kind)| {
                if kind == "DriverPtr<T>" { number(form) } else { kind_of(name, kind, form == "2") }
            },
        )
        .collect()
}

fn kind_of(name: &str, kind: &str, wide: bool) -> u8 {
    let text = if wide { "wide text" } else { "text" };
    let inner = kind.rsplit("DriverPtr<").next().unwrap_or(kind).trim_end_matches('>');
    number(match (kind, name) {
        ("bool", _) => "truth",
        (_, "irql" | "level" | "old") => "level",
        (_, "bytes" | "count" | "length" | "most" | "room" | "size") => "length",
        ("u64", "text" | "from" | "to" | "one" | "two" | "part" | "format" | "address" | "at" | "source") => {
            text
        }
        ("u64", "section") => "section",
        (_, "section") => "section object",
        ("u64", "process") => "process handle",
        ("u64", "view") => "view",
        ("u32", "protection" | "protect") => "protection",
        ("u32", "allocation") => "flag",
        ("u64", "handle" | "file" | "key" | "event") => "handle",
        ("u64", "thread") => "KTHREAD",
        ("u64", "routine") => "Code",
        ("u8" | "u16" | "u32" | "i32", _) => "number",
        ("SpinLock", _) => "SpinLock",
        ("Routine", _) => "table routine",
        ("Node", _) => "RTL_SPLAY_LINKS",
        ("Resource", _) => "ERESOURCE",
        ("List", _) => "GENERAL_LOOKASIDE",
        ("At", _) => "SECURITY_DESCRIPTOR",
        ("Subject", _) => "SECURITY_SUBJECT_CONTEXT",
        ("TokenPtr", _) => "token",
        (_, "client" | "quality") => "SECURITY_CLIENT_CONTEXT",
        _ if inner == "SECURITY_DESCRIPTOR_RELATIVE" || inner == "Relative" => "SECURITY_DESCRIPTOR",
        (_, "work_item" | "item") => "IO_WORKITEM",
        _ if inner == "i64" => "time",
        _ if inner == "DISPATCHER_HEADER" => "KEVENT",
        _ if KINDS.contains(&inner) => inner,
        _ if kind.contains("DriverPtr") => "memory",
        _ => "anything",
    })
}

/// The driver's REQUEST.
fn request(seed: u64, calls: u32, malice: u32, exports: &[&Export]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(seed.to_le_bytes());
    bytes.extend(calls.to_le_bytes());
    bytes.extend(u32::try_from(exports.len()).unwrap().to_le_bytes());
    bytes.extend(malice.to_le_bytes());
    bytes.extend([0; 4]);
    for Export { name, kinds, raised } in exports {
        bytes.push(u8::try_from(kinds.len()).unwrap());
        bytes.extend((0..12).map(|index| kinds.get(index).copied().unwrap_or(0)));
        bytes.push(*raised);
        bytes.extend([0; 2]);
        let wide: Vec<u16> = name.encode_utf16().collect();
        bytes.extend((0..56).flat_map(|index| wide.get(index).copied().unwrap_or(0).to_le_bytes()));
    }
    bytes
}

/// A folder for drive `C:`, the same for all machines that have one.
fn disk() -> &'static Path {
    static DISK: OnceLock<PathBuf> = OnceLock::new();
    DISK.get_or_init(|| {
        let disk = rig::folder("fuzz");
        std::fs::create_dir(disk.join("inner")).unwrap();
        disk
    })
}

fn machine(seed: u64, calls: u32, malice: u32, exports: &[&Export], key: u64) -> Machine {
    let request = request(seed, calls, malice, exports);
    let bench = || {
        let bench = Bench::new().driver(driver("fuzz.sys")).device("pci,id=1234:5678,bar0=mem:4K,irq");
        let bench = bench.instruction_budget(2_000_000).checked(key.is_multiple_of(4));
        let bench = if key % 4 < 2 { bench.files(disk()) } else { bench };
        bench.processors(1 + u32::try_from(key % 3).unwrap())
    };
    let machine = start_unheard(bench);
    let file = machine.open(r"\\.\DirqlFuzz").unwrap();
    file.device_control(0x0022_2000, &request, 0).unwrap();
    file.close().unwrap();
    machine
}

/// A machine in which so many calls of these exports are made, of whose arguments so many in a thousand do not fit.
fn call(seed: u64, exports: &[&Export], calls: u32, malice: u32) -> Report {
    call_on(seed, exports, calls, malice, seed)
}

fn call_on(seed: u64, exports: &[&Export], calls: u32, malice: u32, key: u64) -> Report {
    let machine = machine(seed, calls, malice, exports, key);
    // What comes of it stands in the report.
    let _ = try_play(&machine, FUZZ);
    machine.finish()
}

const FUZZ: &str = r"open \\.\DirqlFuzz as f; ioctl f 0x222004 out 4096";
const MALICE: [u32; 5] = [0, 2, 10, 50, 300];

/// Answers as by default, but for allocations that fail: the first bits of a seed.
struct Seed {
    seed: u32,
    left: u32,
}

impl Chooser for Seed {
    fn choose(&mut self, _strand: u32, point: Point, _n: u32) -> u32 {
        if point != Point("fault.pool") || self.left == 0 {
            return 0;
        }
        self.left -= 1;
        self.seed >> self.left & 1
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }
}

/// The exports that come back, called several times with what fits.
fn gentle(exports: &[Export]) -> Vec<&Export> {
    let comes_back =
        |export: &&Export| [1, 2].iter().all(|seed| call(*seed, &[*export], 8, 0).verdict.is_none());
    exports.iter().filter(comes_back).collect()
}

/// What a run ends in, for people: the rule, or what dirql lacks by its name.
fn end(report: &Report) -> String {
    match &report.verdict {
        Some(verdict) if verdict.not_implemented => verdict.message.clone(),
        Some(verdict) => verdict.rule.to_owned(),
        None => report.failure.as_ref().map_or("nothing", |_| "a failure of the script").to_owned(),
    }
}

/// What has come of all runs.
#[derive(Default)]
struct Campaign {
    calls: u64,
    runs: u64,
    reached: BTreeSet<&'static str>,
    ends: BTreeMap<String, u64>,
    wrong: Vec<String>,
}

impl Campaign {
    /// Takes in a run that was made twice.
    fn add(&mut self, name: &str, one: &Report, other: &Report) {
        // Each is found by its name first, and before them what the driver sets its objects up with.
        const OWN: u64 = 8;
        let found = |report: &Report| report.sums.exports.get("MmGetSystemRoutineAddress").copied();
        let calls = |report: &Report| found(report).unwrap_or(0).saturating_sub(OWN);
        self.calls += calls(one) + calls(other);
        self.runs += 2;
        self.reached.extend(one.sums.exports.keys().copied());
        *self.ends.entry(end(one)).or_default() += 1;
        if one.our_fault.is_some() || other.our_fault.is_some() {
            self.wrong.push(format!("{name}\n{one}"));
        }
        if (one.trace_hash, one.memory_hash) != (other.trace_hash, other.memory_hash) {
            self.wrong.push(format!("{name} is two runs\n{one}\n{other}"));
        }
    }

    fn hold(&self) {
        let Self { calls, runs, reached, ends, wrong } = self;
        println!("{calls} calls of {} exports in {runs} runs\n{ends:#?}", reached.len());
        assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[test]
fn the_signatures_of_nearly_all_services_are_known() {
    let exports = exports();
    let known = exports.iter().filter(|export| !export.kinds.iter().all(|kind| *kind == 0)).count();
    assert!(known * 10 > exports.len() * 8, "of {known} services of {}", exports.len());
}

#[test]
fn no_call_with_whatever_arguments_is_a_fault_of_ours_and_a_seed_is_one_run() {
    let exports = exports();
    let all: Vec<&Export> = exports.iter().collect();
    let mut campaign = Campaign::default();
    for seed in seeds(20) {
        let malice = MALICE[usize::try_from(seed % 5).unwrap()];
        let (one, other) = (call(seed, &all, 400, malice), call(seed, &all, 400, malice));
        campaign.add(&format!("seed {seed}"), &one, &other);
    }
    campaign.hold();
}

/// The same of what works on files, on a drive that has some.
#[test]
fn nor_is_any_with_files_of_a_drive() {
    let exports = exports();
    let files: Vec<&Export> = exports.iter().filter(|export| export.name.contains("File")).collect();
    assert!(files.len() >= 15, "{}", files.len());
    let mut campaign = Campaign::default();
    for seed in seeds(20) {
        let malice = MALICE[usize::try_from(seed % 5).unwrap()];
        let run = || call_on(seed, &files, 200, malice, 4 * seed + seed % 2);
        campaign.add(&format!("seed {seed}"), &run(), &run());
    }
    campaign.hold();
}

/// The same in a machine that is taken back after each run. `DIRQL_GENTLE` leaves out the exports that end a run although what they
/// are called with fits: then runs are long.
#[test]
fn nor_is_any_in_a_machine_that_is_taken_back() {
    let exports = exports();
    let chosen: Vec<&Export> =
        if std::env::var_os("DIRQL_GENTLE").is_some() { gentle(&exports) } else { exports.iter().collect() };
    println!("{} exports", chosen.len());
    let mut campaign = Campaign::default();
    let (seeds, each) = (seeds(30), 500);
    for key in seeds.clone().step_by(each) {
        let malice = MALICE[usize::try_from(key / 500 % 5).unwrap()];
        let machine = machine(0, 2_000, malice, &chosen, key);
        let play = Play::new(script::parse("fuzz", FUZZ).unwrap(), Path::new("")).unwrap();
        let explored = machine.explore(&play, Tracking::Faults, |exploration| {
            for seed in (key..=*seeds.end()).take(each) {
                let seed = u32::try_from(seed).unwrap().wrapping_mul(0x9E37_79B1) | 1;
                let mut run = || exploration.run(Box::new(Seed { seed, left: 32 }));
                let (one, other) = (run(), run());
                campaign.add(&format!("chosen seed {seed:#x} of {key}, malice {malice}"), &one, &other);
            }
            println!("{} calls in {} runs, {} wrong", campaign.calls, campaign.runs, campaign.wrong.len());
        });
        explored.unwrap();
        let _ = machine.finish();
    }
    campaign.hold();
}
