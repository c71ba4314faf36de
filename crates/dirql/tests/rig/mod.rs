//! For stories of whole machines: compiled drivers, and a machine even if another test of this process has one.
#![allow(dead_code, reason = "each test program uses its part of the rig")]

pub(crate) mod failures;
mod held;
pub(crate) mod kmdf;
pub(crate) mod lost_update;
pub(crate) mod outcome;
pub(crate) mod small_machines;
pub(crate) mod traffic;

use std::cell::RefCell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use dirql::explore::Random;
use dirql::{Bench, Boots, Error, Machine, Play, Report, script};
use engine::{Chooser, DELAY, Delay, Point};
use held::Held;

/// The stories that `checked.rs` takes in once more happen in checked machines there.
pub(crate) const CHECKED: bool = matches!(
    module_path!().as_bytes(),
    [.., b'c', b'h', b'e', b'c', b'k', b'e', b'd', b':', b':', b'r', b'i', b'g']
);

/// A bus whose children C drivers report, and the driver of the children.
pub(crate) fn bus() -> Bench {
    Bench::new()
        .driver(driver("busdriver.sys"))
        .inf(driver("busdriver.inf"))
        .with(driver("soft.sys"))
        .inf(driver("soft.inf"))
}

/// A driver that `cargo xtask drivers` has built, or a file beside it.
pub(crate) fn driver(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/drivers").join(name);
    assert!(path.is_file(), "{} is not there: run `cargo xtask drivers` first", path.display());
    path
}

/// A folder of the caller's own, empty: tests run beside each other, and none may write what another reads.
pub(crate) fn folder(name: &str) -> PathBuf {
    let made = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    made.expect("the target folder can be written").keep()
}

/// A copy of the INF `name`, changed by `change`, in a folder of the caller's own, which is named after `story`.
pub(crate) fn changed_inf(story: &str, name: &str, change: impl FnOnce(String) -> String) -> PathBuf {
    let text = std::fs::read_to_string(driver(name)).unwrap();
    let path = folder(story).join(name);
    std::fs::write(&path, change(text)).unwrap();
    path
}

/// A buffer that a record, or what else a machine writes, goes to. A clone is the same.
#[derive(Clone, Default)]
pub(crate) struct Buffer(Rc<RefCell<Vec<u8>>>);

impl Buffer {
    /// What was written, in memory that outlives the machine whose reader wrote it.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).expect("it is text")
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A number that a long proof gives by this variable of the environment; else the usual one.
pub(crate) fn wanted(variable: &str, usually: u64) -> u64 {
    std::env::var(variable).ok().and_then(|count| count.parse().ok()).unwrap_or(usually)
}

/// The machine's end, which must be clean, with nothing left in pool.
pub(crate) fn finish(machine: Machine) -> Report {
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
    report
}

/// The lines that were printed from the first that is `from`.
pub(crate) fn printed(report: &Report, from: &str) -> Vec<String> {
    report.prints.iter().map(|line| line.trim_end().to_owned()).skip_while(|line| line != from).collect()
}

/// The rules of all findings, and of the verdict.
pub(crate) fn rules(report: &Report) -> Vec<&'static str> {
    report.findings.iter().chain(&report.verdict).map(|verdict| verdict.rule).collect()
}

/// Bytes that tell their place.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 256).to_le_bytes()[0]).collect()
}

/// Requests of queue.sys that wait, are answered by each other, time out and are cancelled.
pub(crate) const QUEUE: &str = r"open \\.\DirqlQueue as q overlapped
    open \\.\DirqlQueue as other
    async r1 read q 4; async r2 read q 4
    async w1 write q hex:01_02; async w2 write q hex:04
    t: ioctl other 0x222000 in u32:5
    u: write other hex:08
    ioctl q 0x222004 in u32:2
    join r1; join w1; join w2; join u
    cancel r2
    join t";

/// Where memory is to be mapped, there is no room.
pub(crate) struct NoRoom;

impl Chooser for NoRoom {
    fn choose(&mut self, _strand: u32, point: Point, _n: u32) -> u32 {
        u32::from(point == Point("fault.map"))
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }
}

/// A policy under which no thread is held up, and no processor stalls: for stories in which a timer or a card is not to come sooner than the threads' own
/// steps.
pub(crate) struct Undelayed(Random);

impl Undelayed {
    /// By the random policy of this seed.
    pub(crate) fn random(seed: u64) -> Self {
        Self(Random::steady(seed))
    }
}

impl Chooser for Undelayed {
    fn choose(&mut self, strand: u32, point: Point, n: u32) -> u32 {
        if point == DELAY { 0 } else { self.0.choose(strand, point, n) }
    }

    fn slice(&mut self, strand: u32, retired: u64) -> u64 {
        self.0.slice(strand, retired)
    }

    fn next_strand(&mut self, strand: u32, point: Point, strands: &[u32]) -> u32 {
        self.0.next_strand(strand, point, strands)
    }

    fn give_way(&mut self, strand: u32, point: Point, others: &[u32]) -> bool {
        self.0.give_way(strand, point, others)
    }

    fn delays(&mut self, _strand: u32, _at: Delay) -> bool {
        false
    }
}

/// The seeds of the random schedules of a story: so many, or as many as `DIRQL_SEEDS` says; from 1 on, or from
/// `DIRQL_FIRST_SEED`.
pub(crate) fn seeds(usually: u64) -> std::ops::RangeInclusive<u64> {
    let first = wanted("DIRQL_FIRST_SEED", 1);
    first..=first + wanted("DIRQL_SEEDS", usually) - 1
}

/// A machine that `bench` makes, held to what it guarantees; waits until no other test of this process has one.
pub(crate) fn start(bench: impl Fn() -> Bench) -> Machine {
    start_unheard(|| bench().reader(Held::default()))
}

/// As [`start`], a machine that is booted as often as is asked, held to what it guarantees in all its runs.
pub(crate) fn boots(bench: Bench) -> Boots {
    bench.reader(Held::default()).boots().unwrap_or_else(|error| panic!("{error}"))
}

/// The same, with no readers but those of `bench`.
pub(crate) fn start_unheard(bench: impl Fn() -> Bench) -> Machine {
    let made = bench();
    let made = if CHECKED { made.checked(true) } else { made };
    made.start().unwrap_or_else(|error| panic!("{error}"))
}

/// Carries out a script; it must hold.
pub(crate) fn play(machine: &Machine, text: &str) {
    if let Err(error) = try_play(machine, text) {
        panic!("{error}\nthe driver printed:\n  {}", machine.prints().join("\n  "));
    }
}

/// Carries out a script.
pub(crate) fn try_play(machine: &Machine, text: &str) -> Result<(), Error> {
    let script = script::parse("test", text).unwrap_or_else(|error| panic!("{error}"));
    machine.play(Play::new(script, Path::new("")).expect("it names no files"))
}

/// The control codes by which drivers tell stories, and name all that they have (`drivers/c/control.h`).
pub(crate) const TELL_STORY: u32 = 0x0022_3FF8;
const LIST_STORIES: u32 = 0x0022_3FFC;

/// The line of a script in which the driver behind `file` tells a story.
pub(crate) fn command(file: &str, story: &str) -> String {
    format!("ioctl {file} {TELL_STORY:#x} in text:{story} out 8")
}

/// The names of all stories that the driver of this device has.
pub(crate) fn stories(machine: &Machine, device: &str) -> Result<Vec<String>, Error> {
    let file = machine.open(device)?;
    let names = file.device_control(LIST_STORIES, &[], 16 << 10)?;
    file.close()?;
    Ok(String::from_utf8_lossy(&names).lines().map(str::to_owned).collect())
}

/// The names of the driver's stories in front of this one, in the order of its table.
pub(crate) fn stories_before(machine: Machine, device: &str, story: &str) -> Vec<String> {
    let mut names = stories(&machine, device).unwrap();
    machine.finish().expect_clean();
    let known = names.iter().position(|name| name == story);
    names.truncate(
        known.unwrap_or_else(|| panic!("{device} has no story `{story}`; it has {}", names.join(", "))),
    );
    names
}

/// Has the driver tell a story that it checks itself, by the name of its C function, with this input: how many checks were made, all
/// with success.
///
/// # Errors
/// The line of the check that failed, or why there is no answer; and what the driver printed.
#[track_caller]
pub(crate) fn checks_made(machine: &Machine, device: &str, story: &str, input: &[u8]) -> Result<u32, String> {
    let file = machine.open(device).unwrap();
    let named = if input.is_empty() { story.into() } else { [story.as_bytes(), &[0], input].concat() };
    let answer = file.device_control(TELL_STORY, &named, 8);
    let prints = machine.prints().join("\n  ");
    let answer = answer.map_err(|error| {
        expect_story(machine, device, story);
        format!("{error}\n  {prints}")
    })?;
    let word = |at: usize| u32::from_le_bytes(answer[at..at + 4].try_into().unwrap());
    file.close().unwrap();
    match word(0) {
        0 => Ok(word(4)),
        line => Err(format!("a check failed in line {line}:\n  {prints}")),
    }
}

/// A machine that the story has not ended can say whether there is one of this name.
#[track_caller]
fn expect_story(machine: &Machine, device: &str, story: &str) {
    if let Ok(known) = stories(machine, device) {
        let is_there = known.iter().any(|name| name == story);
        assert!(is_there, "{device} has no story `{story}`; it has {}", known.join(", "));
    }
}

/// Has the driver tell a story that it checks itself, and finishes: at least `checks` of its checks must have been made, all with
/// success, and nothing may be left. `how` says to people what kind of machine it was.
#[track_caller]
pub(crate) fn tell(machine: Machine, device: &str, story: &str, checks: u32, how: &str) -> Report {
    match checks_made(&machine, device, story, &[]) {
        Ok(made) => assert!(made >= checks, "{story} {how}: only {made} checks were made"),
        Err(why) => panic!("{story} {how}: {why}\n{}", machine.finish()),
    }
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
    report
}

/// A machine with a driver without hardware, a script carried out in it, and what came of it.
pub(crate) fn run(sys: &str, text: &str) -> Report {
    let machine = start(|| Bench::new().driver(driver(sys)));
    // What goes wrong stands in the report.
    let _ = try_play(&machine, text);
    machine.finish()
}
