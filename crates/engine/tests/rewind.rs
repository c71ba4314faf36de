//! Taking a machine back: strands suspended inside guest calls, with live vectors on their stacks and maps on the heap, driver
//! code between; to any of the snapshots that stand, any number of times, by both ways of tracking.
//!
//! `DIRQL_ROUNDS` says how many rewinds the long story makes (`cargo xtask rewind`: 300,000).
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed"
)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use engine::windows::{PAGE, SYSTEM};
use engine::{
    Access, Args, DriverPtr, Engine, Fault, Flow, Guest, Host, Leave, Point, Progress, Protection, Question,
    Snapshot, Special, Stack, StrandId, Tracking, Turn,
};
use iced_x86::code_asm::*;

use super::random::Random;
use super::rig::{self, CODE, EXPORTS, assemble};

const STRANDS: u32 = 6;
const CALLS: u64 = 5;
const STEP: u64 = EXPORTS + 0x1000;
/// Each strand's driver stack and data, one behind the other.
const PLACES: u64 = SYSTEM.base + 0x100_0000;
const PLACE: u64 = 16 * PAGE;

/// The guest and all its state, in the arena.
struct Weaver {
    engine: Engine,
    /// What each strand has seen, and a block of each length it has made.
    seen: RefCell<BTreeMap<u32, Vec<u64>>>,
    boxes: RefCell<Vec<Box<[u64]>>>,
    alive: RefCell<Vec<StrandId>>,
    steps: Cell<u64>,
}

impl Weaver {
    fn place(strand: u32) -> u64 {
        PLACES + u64::from(strand) * PLACE
    }

    /// The machine's scheduler: resumes the strand that the host's side names, until all have ended.
    fn weave(&self) -> u64 {
        *self.alive.borrow_mut() = (0..STRANDS).map(|_| self.engine.spawn()).collect();
        loop {
            let n = self.alive.borrow().len() as u32;
            if n == 0 {
                break;
            }
            let question = Question::Choice { strand: 0, point: Point("weave"), n };
            let index = self.engine.ask(question) as usize;
            let strand = self.alive.borrow()[index];
            if self.engine.resume(strand) == Progress::Finished {
                self.alive.borrow_mut().remove(index);
            }
        }
        let seen = self.seen.borrow();
        seen.values()
            .flatten()
            .fold(self.steps.get(), |hash, value| hash.wrapping_mul(31).wrapping_add(*value))
    }
}

impl Guest for Weaver {
    fn strand(&self, id: StrandId) {
        let place = Self::place(id.0);
        let local = vec![u64::from(id.0); 50];
        let result = self.engine.call(CODE, &[place, CALLS], Stack::At(place + PLACE)).unwrap();
        self.seen.borrow_mut().entry(id.0).or_default().push(result + local[49]);
    }

    /// A kernel call in the middle of which the strand gives way, with a vector on its stack.
    fn export(&self, _number: u32, args: &Args) -> Flow<u64> {
        let id = self.engine.strand().0;
        let value = args.registers[0];
        let local: Vec<u64> = (0..value % 40 + 1).map(|n| n * value).collect();
        self.boxes.borrow_mut().push(local.clone().into_boxed_slice());
        self.steps.set(self.steps.get() + 1);
        // Every other time it is asked right here, on the strand.
        let choice = if self.steps.get().is_multiple_of(2) {
            self.engine.ask(Question::Choice { strand: id, point: Point("inside"), n: 3 })
        } else {
            0
        };
        self.engine.suspend();
        if self.boxes.borrow().len() > 7 {
            let gone = self.boxes.borrow_mut().remove(choice as usize);
            self.seen.borrow_mut().entry(id).or_default().push(gone.iter().sum());
        }
        let at = DriverPtr::new(Self::place(id) + 8 * (choice + 2));
        let before: u64 = self.engine.read(at).unwrap();
        self.engine.write(at, before + value).unwrap();
        // What a checked machine knows changes too. No code touches what is marked.
        self.engine.mark(Self::place(id) + PAGE + 64 * choice, value % 60 + 1, (value % 7) as u8);
        self.engine.never_stored(Self::place(id), 8 + value % 8);
        self.seen.borrow_mut().entry(id).or_default().push(local.iter().sum());
        Ok(local.len() as u64)
    }

    fn slice(&self) -> Flow<()> {
        Ok(())
    }
    fn port_read(&self, _: u16, _: u8) -> Flow<u64> {
        Err(Leave::Stop)
    }
    fn port_write(&self, _: u16, _: u8, _: u32) -> Flow<()> {
        Err(Leave::Stop)
    }
    fn device_read(&self, _: Access, _: &mut [u8]) -> Flow<()> {
        Err(Leave::Stop)
    }
    fn device_write(&self, _: Access, _: &[u8]) -> Flow<()> {
        Err(Leave::Stop)
    }
    fn accessed(&self) -> Flow<()> {
        Ok(())
    }
    fn set_irql(&self, _: u64) -> Flow<()> {
        Err(Leave::Stop)
    }
    fn interrupt_flag(&self) -> bool {
        true
    }
    fn set_interrupt_flag(&self, _: bool) -> Flow<()> {
        Err(Leave::Stop)
    }
    fn cpuid(&self, _: u32, _: u32) -> [u32; 4] {
        [0; 4]
    }
    fn special(&self, _: Special) -> Flow<u64> {
        Err(Leave::Stop)
    }
    fn fault(&self, fault: &Fault) -> Leave {
        panic!("{fault:x?}")
    }
}

/// `f(place, n)`: n times, stores a product, calls the export with it, and adds what that answers.
fn driver() -> Vec<u8> {
    assemble(|a| {
        let mut again = a.create_label();
        a.push(rbx).unwrap();
        a.push(rsi).unwrap();
        a.sub(rsp, 0x28).unwrap();
        a.mov(rbx, rcx).unwrap();
        a.mov(rsi, rdx).unwrap();
        a.set_label(&mut again).unwrap();
        a.imul_3(rcx, qword_ptr(rbx), 7).unwrap();
        a.add(rcx, rsi).unwrap();
        a.mov(qword_ptr(rbx), rcx).unwrap();
        a.mov(rax, STEP).unwrap();
        a.call(rax).unwrap();
        a.add(qword_ptr(rbx + 8), rax).unwrap();
        a.dec(rsi).unwrap();
        a.jne(again).unwrap();
        a.mov(rax, qword_ptr(rbx + 8)).unwrap();
        a.add(rsp, 0x28).unwrap();
        a.pop(rsi).unwrap();
        a.pop(rbx).unwrap();
        a.ret().unwrap();
    })
}

/// A machine with a weaver; `story` gets both.
fn with_weaver(story: impl FnOnce(&Host, &Weaver)) {
    let host = rig::start().expect("one test, one process: run them by cargo nextest");
    let mut physical = 0x10_0000;
    let mut map = |address, length| {
        host.map(address, physical, length, Protection::READ_WRITE);
        physical += length;
    };
    map(CODE, PAGE);
    (0..=STRANDS).for_each(|strand| map(Weaver::place(strand), PLACE));
    host.write_bytes(CODE, &driver()).unwrap();
    host.protect(CODE, PAGE, Protection::READ_EXECUTE);
    host.define_export(STEP, 0);
    let weaver = host.inside(|| {
        Box::new(Weaver {
            engine: *host,
            seen: RefCell::default(),
            boxes: RefCell::default(),
            alive: RefCell::default(),
            steps: Cell::new(0),
        })
    });
    story(&host, &weaver);
    host.finish();
    std::mem::forget(weaver);
}

fn choices<R>(turn: &Turn<R>) -> u64 {
    match turn {
        Turn::Asked(Question::Choice { n, .. }) => (*n).into(),
        Turn::Asked(other) => panic!("a weaver does not ask {other:?}"),
        Turn::Ended(_) => 0,
    }
}

fn rounds(default: u64) -> u64 {
    std::env::var("DIRQL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Whether this host can; a story about a back end that it lacks says so and is over.
fn tracks(host: &Host, tracking: Tracking) -> bool {
    match host.track(tracking) {
        Ok(()) => true,
        Err(error) if tracking == Tracking::Userfault => {
            eprintln!("skipped on this host: {error}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// One snapshot in the middle, thousands of ways on from it, each in a random order; the state is the same each time the
/// machine is taken back, and the same answers lead to the same end.
fn one_snapshot_and_many_ways_on(tracking: Tracking, rounds: u64) {
    with_weaver(|host, weaver| {
        if !tracks(host, tracking) {
            return;
        }
        let mut random = Random::new(0x1234_5678_9ABC_DEF1);
        let mut run = host.explore(weaver, || weaver.weave());
        let mut turn = run.go();
        for _ in 0..17 {
            turn = run.answer(random.below(choices(&turn)));
        }
        let open = choices(&turn);
        let snapshot = host.snapshot().unwrap();
        let print = host.fingerprint();
        let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
        for round in 0..rounds {
            let seed = round % 50 + 1;
            let mut random = Random::new(seed * 0x9E37_79B9);
            let stops = random.below(3) == 0;
            let mut turn = run.answer(random.below(open));
            while let Turn::Asked(_) = turn {
                if stops && random.below(20) == 0 {
                    break;
                }
                turn = run.answer(random.below(choices(&turn)));
            }
            if let Turn::Ended(end) = turn {
                assert_eq!(*ends.entry(seed).or_insert(end), end, "the same answers, the same end");
            }
            host.rewind(snapshot);
            if round % 7 == 0 || round + 100 > rounds {
                assert_eq!(host.fingerprint(), print, "after {round} rewinds");
            }
        }
        assert!(ends.len() > 20 && ends.values().collect::<std::collections::BTreeSet<_>>().len() > 20);
        host.discard(snapshot);
    });
}

#[test]
fn strands_in_the_middle_of_kernel_calls_are_taken_back_thousands_of_times_by_faults() {
    one_snapshot_and_many_ways_on(Tracking::Faults, rounds(3_000));
}

#[test]
fn strands_in_the_middle_of_kernel_calls_are_taken_back_thousands_of_times_by_userfaultfd() {
    one_snapshot_and_many_ways_on(Tracking::Userfault, rounds(3_000));
}

/// A stack of snapshots that grows and shrinks at random, through the ends of runs too.
fn a_stack_of_snapshots(tracking: Tracking, rounds: u64) {
    with_weaver(|host, weaver| {
        if !tracks(host, tracking) {
            return;
        }
        let mut random = Random::new(0xFEED_5678_9ABC_DEF1);
        let mut run = host.explore(weaver, || weaver.weave());
        let mut turn = run.go();
        let mut stand: Vec<(Snapshot, u64, u64)> = Vec::new();
        let mut done = 0;
        while done < rounds {
            let open = choices(&turn);
            if open > 0 && random.below(3) == 0 {
                stand.push((host.snapshot().unwrap(), host.fingerprint(), open));
            }
            if stand.len() > 2 && random.below(9) == 0 {
                let (gone, ..) = stand.remove(random.below(stand.len() as u64) as usize);
                host.discard(gone);
            }
            let go_back = open == 0 || random.below(6) == 0;
            if go_back && !stand.is_empty() {
                stand.truncate(random.below(stand.len() as u64) as usize + 1);
                let (to, print, open) = *stand.last().unwrap();
                host.rewind(to);
                assert_eq!(host.fingerprint(), print, "after {done} rewinds");
                done += 1;
                turn = run.answer(random.below(open));
            } else if open > 0 {
                turn = run.answer(random.below(open));
            } else {
                panic!("the run ended before a snapshot was taken");
            }
        }
    });
}

#[test]
fn snapshots_of_snapshots_stand_and_fall_in_any_order_by_faults() {
    a_stack_of_snapshots(Tracking::Faults, rounds(600));
}

#[test]
fn snapshots_of_snapshots_stand_and_fall_in_any_order_by_userfaultfd() {
    a_stack_of_snapshots(Tracking::Userfault, rounds(600));
}

/// The first snapshot is older than the strands: their stacks are new to the tracker, and must be watched at the second.
fn strands_born_between_two_snapshots(tracking: Tracking) {
    with_weaver(|host, weaver| {
        if !tracks(host, tracking) {
            return;
        }
        let mut run = host.explore(weaver, || weaver.weave());
        let (before, unborn) = (host.snapshot().unwrap(), host.fingerprint());
        for round in 0..20 {
            let mut random = Random::new(0x9E37_79B9 + round);
            let mut turn = run.go();
            for _ in 0..17 {
                turn = run.answer(random.below(choices(&turn)));
            }
            let open = choices(&turn);
            let (within, print) = (host.snapshot().unwrap(), host.fingerprint());
            for _ in 0..5 {
                let mut turn = run.answer(random.below(open));
                while let Turn::Asked(_) = turn {
                    turn = run.answer(random.below(choices(&turn)));
                }
                host.rewind(within);
                assert_eq!(host.fingerprint(), print, "in round {round}");
            }
            host.rewind(before);
            assert_eq!(host.fingerprint(), unborn, "after round {round}");
        }
    });
}

#[test]
fn strands_born_between_two_snapshots_are_taken_back_by_faults() {
    strands_born_between_two_snapshots(Tracking::Faults);
}

#[test]
fn strands_born_between_two_snapshots_are_taken_back_by_userfaultfd() {
    strands_born_between_two_snapshots(Tracking::Userfault);
}
