//! Details: events that only a reader who asks for them gets. Compiled drivers make each kind of them, they fit together, and a run in which
//! they are read is the run in which they are not.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use dirql::explore::{Policy, Rng};
use dirql::{Bench, Machine, Report};
use engine::StrandId;
use kernel::event::{Event, Kind, LockKind, Reader, Stamp};
use kernel::exports;
use rules::Guarantees;

use super::rig::traffic::{self, Traffic};
use super::rig::{self, QUEUE, checks_made, driver, play, start};

/// Keeps all details, and if it is asked to, calls. A clone is the same.
#[derive(Clone, Default)]
struct Details {
    events: Rc<RefCell<Vec<(Stamp, Event)>>>,
    calls: bool,
}

impl Reader for Details {
    fn wants(&self, kind: Kind) -> bool {
        self.calls && matches!(kind, Kind::Call | Kind::Return)
    }

    fn wants_detail(&self, _kind: Kind) -> bool {
        true
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        self.events.borrow_mut().push((*stamp, event.clone()));
    }
}

/// What a driver does in a machine.
#[derive(Clone, Copy, Debug)]
enum Doing {
    /// Those of its stories that are not named.
    Stories(&'static str, &'static [&'static str]),
    /// These stories.
    These(&'static str, &'static [&'static str]),
    /// Those in front of this one, on several processors.
    Before(&'static str, &'static str),
    /// A script.
    Script(&'static str),
}

/// Drivers that acquire, lock, map and queue whatever there is.
const DRIVERS: [(&str, Doing); 8] = [
    ("correct.sys", Doing::Stories(r"\\.\DirqlCorrect", &[])),
    ("queue.sys", Doing::Script(QUEUE)),
    ("locks.sys", Doing::Before(r"\\.\DirqlLocks", "AloneTwice")),
    ("apcs.sys", Doing::Stories(r"\\.\DirqlApcs", &["WaitsInGuardedRegion", "WaitsWithFastMutex"])),
    (
        "services.sys",
        Doing::These(
            r"\\.\DirqlServices",
            &[
                "Semaphores",
                "Mutexes",
                "Waits",
                "SpinLocks",
                "FastMutexes",
                "Resources",
                "ConvertedResource",
                "Pages",
            ],
        ),
    ),
    ("objects.sys", Doing::These(r"\\.\DirqlObjects", &["MutantsHaveOwners", "SeveralHandlesAreWaitedFor"])),
    (
        "memory.sys",
        Doing::These(
            r"\\.\DirqlMemory",
            &["AdvancedMdl", "AdvancedAndUnlocked", "FewerPages", "SkippedPages", "ReservedAddresses"],
        ),
    ),
    ("requests.sys", Doing::Script(r"open \\.\DirqlRequests as r; ioctl r 0x22200C out 16; close r")),
];

fn carry_out(machine: &Machine, doing: Doing) {
    let all = |device| rig::stories(machine, device).unwrap().into_iter();
    let (device, names): (&str, Vec<String>) = match doing {
        Doing::Stories(device, not) => {
            (device, all(device).filter(|name| !not.contains(&name.as_str())).collect())
        }
        Doing::These(device, names) => (device, names.iter().map(|name| (*name).to_owned()).collect()),
        Doing::Before(device, end) => (device, all(device).take_while(|name| name != end).collect()),
        Doing::Script(script) => return play(machine, script),
    };
    for name in names {
        checks_made(machine, device, &name, &[]).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

/// What a driver does, and the details of that, if they are asked for.
fn run((sys, doing): (&str, Doing), details: Option<&Details>) -> Report {
    let processors = if matches!(doing, Doing::Before(..)) { 4 } else { 1 };
    let machine = start(|| {
        let bench = Bench::new().driver(driver(sys)).processors(processors);
        match details {
            Some(details) => bench.reader(details.clone()).reader(Guarantees::with_details()),
            None => bench,
        }
    });
    carry_out(&machine, doing);
    let report = machine.finish();
    report.expect_clean();
    report
}

fn read(what: (&str, Doing)) -> Vec<(Stamp, Event)> {
    let details = Details::default();
    run(what, Some(&details));
    details.events.take()
}

/// Two threads that store, each on its own processor, where stores are seen late.
fn late_stores() -> Vec<(Stamp, Event)> {
    let details = Details::default();
    let machine = start(|| {
        let bench = Bench::new().driver(driver("meetings.sys")).processors(2).policy(Policy::random(1));
        bench.platform("late-stores".parse().unwrap()).reader(details.clone())
    });
    let script = r"open \\.\DirqlMeetings as a
open \\.\DirqlMeetings as b
t: ioctl a 0x222028; ioctl a 0x22203c; ioctl a 0x222028; ioctl a 0x22203c
u: ioctl b 0x22202c; ioctl b 0x222040; ioctl b 0x22202c; ioctl b 0x222040
join t; join u";
    play(&machine, script);
    machine.finish().expect_clean();
    details.events.take()
}

#[test]
fn each_kind_of_detail_comes_from_a_compiled_driver() {
    let mut seen: BTreeMap<Kind, u32> = BTreeMap::new();
    for what in DRIVERS {
        read(what).iter().for_each(|(_, event)| *seen.entry(event.kind()).or_default() += 1);
    }
    for (_, event) in late_stores() {
        *seen.entry(event.kind()).or_default() += 1;
    }
    let details = Kind::ALL.iter().filter(|kind| kind.is_detail());
    let missing: Vec<&Kind> = details.filter(|kind| !seen.contains_key(kind)).collect();
    assert!(missing.is_empty(), "{missing:?} of {seen:?}");
}

#[test]
fn a_run_whose_details_are_read_is_the_run_without() {
    for what in DRIVERS {
        let details = Details::default();
        let [unread, read] = [None, Some(&details)].map(|details| run(what, details));
        assert!(!details.events.take().is_empty());
        let of = |report: &Report| {
            (report.trace_hash, report.memory_hash, report.sums.time, report.prints.clone())
        };
        assert_eq!(of(&unread), of(&read), "{what:?}");
    }
}

/// All details of random traffic to a driver, with a machine's default readers.
fn of_traffic(traffic: &Traffic, seed: u64, checked: bool) -> Vec<(Stamp, Event)> {
    let details = Details::default();
    let bench = || traffic.bench(1 + u32::from(seed % 2 == 1)).policy(Policy::random(seed)).checked(checked);
    let machine = start(|| bench().reader(details.clone()).reader(Guarantees::with_details()));
    play(&machine, &traffic.round(&mut Rng::new(seed)));
    machine.finish().expect_clean();
    details.events.take()
}

#[test]
fn a_checked_machine_has_the_same_details() {
    for of in [traffic::PCI9052, traffic::QUEUE, traffic::CARD, traffic::MESSAGE, traffic::BENCH] {
        for seed in 1..=3 {
            let [fast, checked] = [false, true].map(|checked| of_traffic(&of, seed, checked));
            let differs = fast.iter().zip(&checked).find(|(fast, checked)| fast != checked);
            assert_eq!(differs, None, "{}, seed {seed}", of.sys);
            assert!(fast.len() == checked.len() && fast.len() > 100, "{}, seed {seed}", of.sys);
        }
    }
}

/// What begins and has not ended.
#[derive(Default)]
struct Open {
    locks: BTreeMap<u64, Vec<StrandId>>,
    protections: BTreeMap<(u64, Option<u64>), u32>,
    timers: BTreeSet<u64>,
    items: BTreeSet<u64>,
    irps: BTreeSet<u64>,
    apcs: BTreeMap<StrandId, u32>,
    locked: BTreeSet<u64>,
    mapped: BTreeSet<(u64, u64)>,
}

impl Open {
    /// What is wrong with an event, if anything is.
    fn follow(&mut self, stamp: &Stamp, event: &Event) -> bool {
        match *event {
            Event::LockAcquired { lock, kind } => {
                let holders = self.locks.entry(lock).or_default();
                let alone = !matches!(
                    kind,
                    LockKind::SharedSpin
                        | LockKind::SharedPushLock
                        | LockKind::SharedResource
                        | LockKind::Resource
                );
                holders.push(stamp.strand);
                alone && holders.len() > 1
            }
            Event::LockReleased { lock, kind } => {
                let holders = self.locks.entry(lock).or_default();
                let own = holders.iter().position(|holder| *holder == stamp.strand);
                // A resource may be released for another thread.
                let any = || (kind == LockKind::Resource && !holders.is_empty()).then_some(0);
                own.or_else(any).map(|place| holders.remove(place)).is_none()
            }
            Event::ProtectionAcquired { protection, tag, count, .. } => {
                *self.protections.entry((protection, tag)).or_default() += count;
                false
            }
            Event::ProtectionReleased { protection, tag, count, .. } => {
                let left = self.protections.entry((protection, tag)).or_default();
                let is_wrong = *left < count;
                *left = left.saturating_sub(count);
                is_wrong
            }
            Event::ProtectionEnded { protection, .. } => {
                self.protections.iter().any(|((at, _), left)| *at == protection && *left > 0)
            }
            Event::TimerSet { timer, .. } => {
                self.timers.insert(timer);
                false
            }
            Event::TimerFired { timer } => !self.timers.contains(&timer),
            Event::TimerCancelled { timer } => !self.timers.remove(&timer),
            Event::WorkQueued { item, .. } => !self.items.insert(item),
            Event::WorkRun { item } => !self.items.remove(&item),
            Event::ApcQueued { thread, .. } => {
                *self.apcs.entry(thread).or_default() += 1;
                false
            }
            Event::ApcRun { .. } => {
                let left = self.apcs.entry(stamp.strand).or_default().checked_sub(1);
                self.apcs.insert(stamp.strand, left.unwrap_or_default());
                left.is_none()
            }
            Event::IrpAllocated { irp, .. } => !self.irps.insert(irp),
            Event::IrpFreed { irp } => {
                self.irps.remove(&irp);
                false
            }
            _ => self.follow_memory(event),
        }
    }

    fn follow_memory(&mut self, event: &Event) -> bool {
        match *event {
            Event::MdlBuilt { mdl, source } => source == Some(mdl),
            Event::MdlLocked { mdl, pages, .. } => !self.locked.insert(mdl) || pages == 0,
            Event::MdlUnlocked { mdl } => !self.locked.remove(&mdl),
            Event::MdlMapped { mdl, address } => !self.mapped.insert((mdl, address & !0xFFF)),
            Event::MdlUnmapped { mdl, address } => !self.mapped.remove(&(mdl, address)),
            Event::MdlAdvanced { mdl, pages, .. } => {
                let moved = |(of, at)| if of == mdl { (of, at + (pages << 12)) } else { (of, at) };
                self.mapped = std::mem::take(&mut self.mapped).into_iter().map(moved).collect();
                false
            }
            _ => false,
        }
    }

    /// What should have ended.
    fn left(&self) -> [usize; 6] {
        let held = |holders: &&Vec<StrandId>| !holders.is_empty();
        [
            self.locks.values().filter(held).count(),
            self.items.len(),
            self.irps.len(),
            self.locked.len(),
            self.mapped.len(),
            self.apcs.values().filter(|left| **left > 0).count(),
        ]
    }
}

#[test]
fn what_begins_ends_and_nothing_ends_that_has_not_begun() {
    for what in DRIVERS {
        let mut open = Open::default();
        for (stamp, event) in read(what) {
            assert!(!open.follow(&stamp, &event), "{what:?}: {stamp:?} {event:?}");
        }
        assert_eq!(open.left(), [0; 6], "{what:?}");
    }
}

/// The exports that acquire, release, signal or wait for something, and the details that they emit.
fn acquiring() -> BTreeMap<&'static str, Vec<&'static str>> {
    let rows = include_str!("../../kernel/src/exports/acquires.tsv").lines();
    let rows = rows.filter(|line| !line.starts_with('#')).map(|line| {
        let mut fields = line.split('\t');
        (fields.next().unwrap(), fields.next().unwrap())
    });
    rows.filter(|(_, emits)| *emits != "-").map(|(name, emits)| (name, emits.split(' ').collect())).collect()
}

/// Takes the details out of each export's that have come in a call of it.
fn strike(left: &mut BTreeMap<&'static str, Vec<&'static str>>, events: &[(Stamp, Event)]) {
    let mut within: BTreeMap<StrandId, Vec<&str>> = BTreeMap::new();
    for (stamp, event) in events {
        let calls = within.entry(stamp.strand).or_default();
        match event {
            Event::Call { export, .. } => calls.push(exports::row(*export).map_or("", |row| row.name)),
            Event::Return { .. } => drop(calls.pop()),
            event => {
                let own = calls.last().and_then(|name| left.get_mut(name));
                if let Some(own) = own {
                    own.retain(|kind| *kind != event.kind().name());
                }
            }
        }
    }
    left.retain(|_, kinds| !kinds.is_empty());
}

/// All that cards' drivers have: those of message.sys with messages at a level, and with routines at PASSIVE_LEVEL; a line's.
fn cards() -> Vec<(Stamp, Event)> {
    let details = Details { calls: true, ..Details::default() };
    let start = |bench: &dyn Fn() -> Bench| {
        start(|| bench().reader(details.clone()).reader(Guarantees::with_details()))
    };
    for (name, connect, story) in [("levels", 3, "HeldBack"), ("passive", 5, "PassiveSynchronized")] {
        let inf = rig::changed_inf(name, "message.inf", |text| {
            text.replace("HKR,,Connect,0x00010001,3", &format!("HKR,,Connect,0x00010001,{connect}"))
        });
        let machine =
            start(&|| Bench::new().driver(driver("message.sys")).inf(inf.clone()).device("bench,msi=4"));
        checks_made(&machine, r"\\.\Message", story, &[]).unwrap_or_else(|why| panic!("{story}: {why}"));
        machine.finish().expect_clean();
    }
    let machine = start(&|| traffic::PCI9052.bench(1));
    play(&machine, &traffic::PCI9052.round(&mut Rng::new(1)));
    machine.finish().expect_clean();
    details.events.take()
}

#[test]
fn each_export_that_acquires_or_releases_emits_what_it_is_said_to() {
    let (mut left, mut kinds) = (acquiring(), BTreeSet::new());
    let drivers = DRIVERS.map(|what| {
        let details = Details { calls: true, ..Details::default() };
        run(what, Some(&details));
        details.events.take()
    });
    for events in drivers.into_iter().chain([cards()]) {
        strike(&mut left, &events);
        kinds.extend(events.iter().filter_map(|(_, event)| match event {
            Event::LockAcquired { kind, .. } => Some(kind.name()),
            _ => None,
        }));
    }
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(kinds.len(), 10, "{kinds:?}");
}

/// An event of an IRP's, or what its end does, in a few letters: where it was found, in which location, with which `Control`, whether with a
/// completion routine and a Cancel routine.
fn short(event: &Event) -> Option<String> {
    const QUEUE: u8 = 4;
    Some(match event {
        Event::IrpFound { place, location, control, completion, cancel, .. } => {
            let [completes, cancels] = [*completion, *cancel].map(|routine| u8::from(routine != 0));
            format!("{place} {location} {control:x} {completes}{cancels}")
        }
        Event::Signalled { kind, .. } if *kind <= 1 => "event signalled".to_owned(),
        Event::Signalled { kind: QUEUE, .. } => "port signalled".to_owned(),
        Event::IrpFreed { .. }
        | Event::ApcQueued { .. }
        | Event::WaitSatisfied { .. }
        | Event::ApcRun { .. }
        | Event::IrpPending { .. } => event.kind().name().to_owned(),
        _ => return None,
    })
}

/// The course of a request that a script asks queue.sys for behind the opening of its file, until the script's own thread ends.
fn course(script: &'static str) -> Vec<String> {
    let events = read(("queue.sys", Doing::Script(script)));
    let allocated = events.iter().enumerate().filter(|(_, (_, event))| event.kind() == Kind::IrpAllocated);
    let (begin, _) = allocated.clone().nth(1).unwrap();
    let events = events.iter().skip(begin).map(|(_, event)| event);
    events.take_while(|event| event.kind() != Kind::ThreadEnded).filter_map(short).collect()
}

#[test]
fn what_macros_have_stored_is_found_where_the_kernel_looks_and_the_end_signals_events_and_ports() {
    let at_once = course(r"open \\.\DirqlQueue as q; ioctl q 0x222008 out 20");
    assert_eq!(at_once, ["sent 1 0 00", "left 1 0 00", "irp-freed", "event signalled"]);
    let ends_in_a_dpc = ["left 1 1 00", "irp-freed", "apc-queued", "apc-run", "event signalled"];
    let waited_for = ["wait-satisfied"];
    // IoMarkIrpPending and IoSetCancelRoutine, before the dispatch routine returns.
    let kept = ["sent 1 0 00", "irp-pending", "returned 1 1 01"];
    let read = course(r"open \\.\DirqlQueue as q; read q 4");
    assert_eq!(read, [&kept[..], &ends_in_a_dpc, &waited_for].concat());
    // IoMarkIrpPending comes before IoStartPacket.
    let started = ["sent 1 0 00", "started 1 1 00", "irp-pending", "returned 1 1 00"];
    let written = course(r"open \\.\DirqlQueue as q; write q hex:01_02");
    assert_eq!(written, [&started[..], &ends_in_a_dpc, &waited_for].concat());
    let with_port = course(
        r"open \\.\DirqlQueue as q overlapped; port p; bind q to p key 3; async r read q 4; dequeue p; join r",
    );
    // The packet, and the end by the request's own event.
    let taken = ["port signalled", "wait-satisfied", "wait-satisfied"];
    assert_eq!(with_port, [&kept[..], &ends_in_a_dpc, &taken].concat());
    let cancelled = course(
        r"open \\.\DirqlQueue as q overlapped; async r read q 4; wait 1us; cancel r; join r expect any",
    );
    // It ends in its own thread, which needs no APC.
    let ends_here = ["cancelled 1 1 01", "left 1 1 00", "irp-freed", "event signalled"];
    assert_eq!(cancelled, [&kept[..], &ends_here, &waited_for].concat());
}

/// The course of the first request that a story of correct.sys sends to the upper of its two devices.
fn passed_on(story: &'static [&'static str]) -> Vec<String> {
    let events = read(("correct.sys", Doing::These(r"\\.\DirqlCorrect", story)));
    let upper = events.iter().position(|(_, event)| matches!(event, Event::IrpFound { location: 2, .. }));
    let events = events.into_iter().skip(upper.unwrap()).map(|(_, event)| event);
    let its = events.take_while(|event| event.kind() != Kind::IrpFreed);
    its.filter(|event| event.kind() == Kind::IrpFound).filter_map(|event| short(&event)).collect()
}

#[test]
fn a_driver_that_skips_its_location_or_sets_a_completion_routine_is_found_to_have_done_so() {
    let skipped = passed_on(&["PassedOnWithoutLocation"]);
    assert_eq!(skipped, ["sent 2 0 00", "sent 2 0 00", "left 2 0 00"]);
    let copied = passed_on(&["PassedOn"]);
    assert_eq!(copied, ["sent 2 0 00", "sent 1 0 00", "left 1 0 00", "left 2 0 00"]);
    let observed = passed_on(&["PassedOnAndObserved"]);
    assert_eq!(observed, ["sent 2 0 00", "sent 1 e0 10", "left 1 e0 10", "left 2 0 00"]);
    let on_error = passed_on(&["PassedOnAndObservedOnError"]);
    assert_eq!(on_error, ["sent 2 0 00", "sent 1 80 10", "left 1 80 10", "left 2 0 00"]);
}
