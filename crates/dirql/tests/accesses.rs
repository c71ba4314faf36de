//! Accesses to memory as events. accesses.sys says beside each line of its own what a reader hears of it; a run whose accesses are read is the run
//! in which they are not, whatever decides it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use dirql::explore::{Policy, Rng};
use dirql::readers::{Json, Kind, Sink, SymbolBook, kinds};
use dirql::{Bench, Machine, Outcome, Report, ScriptText};
use engine::StrandId;
use kernel::event::{AccessKind, Event, Judgement, Reader, Stamp};
use kernel::verdict::Verdict;

use super::rig::traffic::{self, Traffic};
use super::rig::{self, Buffer, driver, start_unheard};

const NAME: &str = r"\\.\DirqlAccesses";
const SOURCE: &str = include_str!("../../../drivers/c/accesses.c");
const WHERE: u32 = 0x0022_3800;
const EXTENSION_BYTES: u64 = 0xD0;

/// Keeps all accesses. A clone is the same.
#[derive(Clone, Default)]
struct Accesses(Rc<RefCell<Vec<(Stamp, Event)>>>);

impl Reader for Accesses {
    fn wants(&self, _kind: Kind) -> bool {
        false
    }

    fn wants_detail(&self, kind: Kind) -> bool {
        kind == Kind::Access
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        self.0.borrow_mut().push((*stamp, event.clone()));
    }
}

/// A machine with accesses.sys, the names of its code, and where its extension lies.
fn machine(checked: bool, reader: impl Reader + Clone + 'static) -> (Machine, SymbolBook, u64) {
    let book = RefCell::default();
    let machine = start_unheard(|| {
        let bench = Bench::new().driver(driver("accesses.sys")).checked(checked).reader(reader.clone());
        book.replace(bench.symbols());
        bench
    });
    let file = machine.open(NAME).unwrap();
    let answer = file.device_control(WHERE, &[], 8).unwrap();
    file.close().unwrap();
    (machine, book.into_inner(), u64::from_le_bytes(answer.try_into().unwrap()))
}

/// What the comments in a function of accesses.c say: `12: load 1d 24`.
fn expected(function: &str) -> Vec<String> {
    let head = format!(" {function}(VOID)");
    let mut lines = (1..).zip(SOURCE.lines()).skip_while(|(_, line)| !line.ends_with(&head));
    let body = lines.by_ref().take_while(|(_, line)| *line != "}");
    let comments = body.filter_map(|(number, line)| {
        let (_, comment) = line.split_once("; /* ")?;
        Some((number, comment.strip_suffix(" */")?.to_owned()))
    });
    let seen = comments.filter(|(_, comment)| comment.contains(|c: char| c.is_ascii_digit()));
    seen.flat_map(|(line, comment)| {
        comment.split(", ").map(|access| format!("{line}: {access}")).collect::<Vec<_>>()
    })
    .collect()
}

/// The same of what was reported of the extension.
fn reported(all: &[(Stamp, Event)], book: &SymbolBook, extension: u64) -> Vec<String> {
    let of_extension = all.iter().filter_map(|(_, event)| {
        let Event::Access { address, bytes, kind, atomic, kernel, code } = *event else { return None };
        let offset = address.checked_sub(extension).filter(|offset| *offset < EXTENSION_BYTES)?;
        let source = book.frames(code - u64::from(kernel)).pop()?.source?;
        let line = source.rsplit(':').next()?.to_owned();
        let atomic = if atomic { " atomic" } else { "" };
        Some(format!("{line}: {} {offset:02x} {bytes}{atomic}", kind.name()))
    });
    of_extension.collect()
}

fn seen(story: &str, checked: bool) -> (Vec<(Stamp, Event)>, Vec<String>) {
    let accesses = Accesses::default();
    let (machine, book, extension) = machine(checked, accesses.clone());
    accesses.0.borrow_mut().clear();
    rig::checks_made(&machine, NAME, story, &[]).unwrap();
    machine.finish().expect_clean();
    let all = accesses.0.take();
    let reported = reported(&all, &book, extension);
    (all, reported)
}

#[test]
fn each_access_of_an_instruction_is_heard_with_its_bytes_its_kind_and_its_line() {
    let expected = expected("EachInstruction");
    assert_eq!(expected.len(), 12, "{expected:?}");
    for checked in [false, true] {
        let (all, reported) = seen("EachInstruction", checked);
        assert_eq!(reported, expected, "checked {checked}");
        let is_by_driver = |event: &Event| matches!(event, Event::Access { kernel: false, .. });
        assert!(all.iter().all(|(stamp, event)| stamp.irql == 0 || is_by_driver(event)));
        let times: Vec<u64> = all.iter().map(|(stamp, _)| stamp.time).collect();
        assert!(times.is_sorted() && times.windows(2).any(|two| two[0] < two[1]), "each at its own time");
    }
}

#[test]
fn routines_that_move_compare_and_push_are_heard_as_the_call_that_asked_for_it() {
    let expected = expected("ByRoutines");
    assert_eq!(expected.len(), 9, "{expected:?}");
    for checked in [false, true] {
        let (all, reported) = seen("ByRoutines", checked);
        assert_eq!(reported, expected, "checked {checked}");
        let kernel = all.iter().filter(|(_, event)| matches!(event, Event::Access { kernel: true, .. }));
        assert!(kernel.count() >= expected.len());
    }
}

#[test]
fn the_stack_of_what_runs_is_not_heard() {
    let accesses = Accesses::default();
    let (machine, book, _) = machine(true, accesses.clone());
    rig::checks_made(&machine, NAME, "EachInstruction", &[]).unwrap();
    machine.finish().expect_clean();
    let all = accesses.0.take();
    let line_of = |text: &str| (1..).zip(SOURCE.lines()).find(|(_, line)| line.contains(text)).unwrap().0;
    let (stored, loaded) = (line_of("volatile ULONG Local[4]"), line_of("E->Stored = Value + Local[1]"));
    let line = |code: u64| -> Option<u32> {
        let source = book.frames(code).pop()?.source?;
        source.rsplit(':').next()?.parse().ok()
    };
    let at = |wanted: u32| {
        let is_there =
            |event: &Event| matches!(event, Event::Access { code, .. } if line(*code) == Some(wanted));
        all.iter().filter(|(_, event)| is_there(event)).count()
    };
    assert_eq!((at(stored), at(loaded)), (0, 1), "of the second only what it stores in the extension");
}

#[test]
fn an_access_that_faults_is_not_heard() {
    for checked in [false, true] {
        let accesses = Accesses::default();
        let (machine, book, extension) = machine(checked, accesses.clone());
        let commit = format!("open {NAME} as f; {}", rig::command("f", "BehindAllMemory"));
        rig::try_play(&machine, &commit).unwrap_err();
        let report = machine.finish();
        assert_eq!(report.outcome(), Outcome::Broken, "{report}");
        let all = accesses.0.take();
        let reported = reported(&all, &book, extension);
        assert_eq!((reported.len(), reported), (2, expected("BehindAllMemory")), "checked {checked}");
    }
}

/// Concludes that the driver has done wrong when it stores to this field.
#[derive(Clone)]
struct Judges(Rc<RefCell<(u64, bool)>>);

impl Reader for Judges {
    fn wants(&self, _kind: Kind) -> bool {
        false
    }

    fn wants_detail(&self, kind: Kind) -> bool {
        kind == Kind::Access
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        let mut state = self.0.borrow_mut();
        let watched = state.0;
        let is_it = |at: u64, kind: AccessKind| at == watched && kind == AccessKind::Store;
        state.1 = matches!(*event, Event::Access { address, kind, .. } if is_it(address, kind));
    }

    fn judges(&self) -> bool {
        true
    }

    fn judgement(&mut self) -> Option<Judgement> {
        let found = std::mem::take(&mut self.0.borrow_mut().1);
        found.then(|| Judgement::Finding(Box::new(Verdict::error("dpc-stalls", "the field is stored to"))))
    }
}

#[test]
fn a_reader_that_judges_stops_the_machine_in_front_of_the_access() {
    for checked in [false, true] {
        let judges = Judges(Rc::default());
        let (machine, _, extension) = machine(checked, judges.clone());
        judges.0.borrow_mut().0 = extension + 4;
        let commit = format!("open {NAME} as f; {}", rig::command("f", "EachInstruction"));
        rig::try_play(&machine, &commit).unwrap_err();
        let report = machine.finish();
        let verdict = report.expect_verdict();
        assert_eq!((verdict.rule, verdict.message.as_str()), ("dpc-stalls", "the field is stored to"));
        let line = (1..).zip(SOURCE.lines()).find(|(_, line)| line.contains("/* store 04 4 */")).unwrap().0;
        assert!(report.to_string().contains(&format!("accesses.c:{line}")), "{report}");
    }
}

/// A script that is played by a policy, and the lines of its events.
struct Run<'s> {
    traffic: Traffic,
    script: &'s str,
    policy: Policy,
    processors: u32,
}

impl Run<'_> {
    fn lines(&self, list: &str, checked: bool) -> (Vec<String>, Report) {
        let lines = Buffer::default();
        let json = Json::new(Sink::new(lines.clone()), SymbolBook::default()).of(kinds(list).unwrap());
        let bench = self.traffic.bench(self.processors).policy(self.policy).checked(checked).reader(json);
        let machine = bench.start().unwrap();
        machine.perform(Some(ScriptText::typed(self.script).play().unwrap()));
        let report = machine.finish();
        (lines.text().lines().map(str::to_owned).collect(), report)
    }

    fn compare(&self) {
        let Self { traffic: Traffic { sys, .. }, script, policy, processors } = self;
        let what = format!("{sys}, {policy}, {processors} processors\n{script}");
        let of = |report: &Report| {
            assert_eq!(report.outcome(), Outcome::Clean, "{what}\n{report}");
            (report.trace_hash, report.memory_hash, report.sums.time, report.prints.clone())
        };
        let (unheard, plain) = self.lines("all", true);
        let (with, seen) = self.lines("all,access", true);
        let is_access = |line: &String| line.contains(r#""event":"access""#);
        let rest: Vec<&String> = with.iter().filter(|line| !is_access(line)).collect();
        assert!(with.len() > rest.len() && !unheard.iter().any(is_access), "{what}");
        let differs = rest.iter().zip(&unheard).find(|(with, without)| **with != *without);
        assert_eq!((differs, rest.len()), (None, unheard.len()), "{what}");
        assert_eq!(of(&plain), of(&seen), "{what}");
        let (again, _) = self.lines("all,access", true);
        assert!(with == again, "{what}: the same, byte for byte");
        let (fast, _) = self.lines("all,access", false);
        let differs = with.iter().zip(&fast).find(|(checked, fast)| checked != fast);
        assert_eq!((differs, with.len()), (None, fast.len()), "{what}: checked and fast");
    }
}

#[test]
fn a_run_whose_accesses_are_read_is_the_run_without() {
    for traffic in [traffic::PCILINE, traffic::QUEUE, traffic::PCI9052] {
        for seed in 1..=rig::wanted("DIRQL_TRAFFIC", 3) {
            let script = traffic.round(&mut Rng::new(seed));
            let policy = match seed % 3 {
                0 => Policy::default(),
                1 => Policy::random(seed),
                _ => Policy::pct(seed, 3, 1000),
            };
            let processors = [1, 2, 4][usize::try_from(seed % 3).unwrap()];
            Run { traffic, script: &script, policy, processors }.compare();
        }
    }
}

#[test]
fn accesses_of_several_threads_carry_the_thread_that_makes_them() {
    let accesses = Accesses::default();
    let bench = traffic::QUEUE.bench(2).policy(Policy::random(5)).reader(accesses.clone());
    let machine = bench.start().unwrap();
    machine.perform(Some(ScriptText::typed(&traffic::QUEUE.round(&mut Rng::new(5))).play().unwrap()));
    machine.finish().expect_clean();
    let strands: BTreeSet<StrandId> = accesses.0.borrow().iter().map(|(stamp, _)| stamp.strand).collect();
    assert!(strands.len() > 2, "{strands:?}");
}

#[test]
fn all_leaves_accesses_out_unless_they_are_named() {
    assert!(!kinds("all").unwrap().contains(&Kind::Access));
    assert!(kinds("all, access").unwrap().contains(&Kind::Access));
    assert_eq!(kinds("access").unwrap(), [Kind::Access]);
    let error = kinds("call,acess").unwrap_err();
    assert_eq!(
        error,
        "there is no kind of event `acess`, did you mean `access`? (docs/events.md lists them)"
    );
}
