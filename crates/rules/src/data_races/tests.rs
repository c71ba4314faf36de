//! Stories of flows of control, in events and accesses alone.

use engine::{AccessKind, MemoryAccess, StrandId};
use kernel::event::{Event, Judgement, LockKind, Reader, RegisterUse, Role, Stamp};
use kernel::exports;

use super::DataRaces;

const PLACE: u64 = 0x2020_0000_1000;
const LOCK: u64 = 0x2020_0000_9000;

/// A reader, and how many events it has read.
struct Story {
    races: DataRaces,
    number: u64,
}

impl Story {
    fn on(processors: u32) -> Self {
        let mut races = DataRaces::default();
        races.begins(processors);
        Self { races, number: 0 }
    }

    fn stamp(&mut self, strand: u32, irql: u8) -> Stamp {
        self.number += 1;
        Stamp { number: self.number, time: self.number, processor: 0, irql, strand: StrandId(strand) }
    }

    fn event(&mut self, strand: u32, irql: u8, event: &Event) {
        let stamp = self.stamp(strand, irql);
        self.races.event(&stamp, event);
    }

    /// The rule of what an access shows.
    fn access(&mut self, strand: u32, irql: u8, access: MemoryAccess) -> Option<&'static str> {
        let stamp = self.stamp(strand, irql);
        self.races.accessed(&stamp, &[access], false);
        match self.races.judgement()? {
            Judgement::Finding(verdict) => Some(verdict.rule),
            Judgement::Fault(why) => panic!("{why}"),
        }
    }

    /// The rule of what a read of a register that holds this, or a write of it, shows.
    fn register(&mut self, strand: u32, write: bool, (value, keeps): (u64, u64)) -> Option<&'static str> {
        let stamp = self.stamp(strand, 2);
        let code = 0x2000_0000_1000 + u64::from(strand) * 16 + u64::from(write);
        self.races
            .register(&stamp, &RegisterUse { port: false, address: 0xE000_0050, write, value, keeps, code });
        match self.races.judgement()? {
            Judgement::Finding(verdict) => Some(verdict.rule),
            Judgement::Fault(why) => panic!("{why}"),
        }
    }

    fn update(&mut self, strand: u32) -> Option<&'static str> {
        self.access(strand, 0, update(PLACE, 4, false))
    }

    fn acquire(&mut self, strand: u32, kind: LockKind) {
        self.event(strand, 2, &Event::LockAcquired { lock: LOCK, kind });
    }

    fn release(&mut self, strand: u32, kind: LockKind) {
        self.event(strand, 2, &Event::LockReleased { lock: LOCK, kind });
    }
}

fn made(kind: AccessKind, address: u64, bytes: u64) -> MemoryAccess {
    let rip = 0x2000_0000_1000 + kind as u64 * 8;
    MemoryAccess { address, bytes, kind, atomic: false, adds: false, stored_back: None, rip }
}

fn update(address: u64, bytes: u64, atomic: bool) -> MemoryAccess {
    MemoryAccess { atomic, ..made(AccessKind::Update, address, bytes) }
}

fn load(address: u64, bytes: u64) -> MemoryAccess {
    made(AccessKind::Load, address, bytes)
}

fn store(address: u64, bytes: u64) -> MemoryAccess {
    made(AccessKind::Store, address, bytes)
}

const RACE: Option<&str> = Some("data-race");
const UNORDERED: Option<&str> = Some("unordered-access");

#[test]
fn updates_of_two_threads_race_once_for_each_pair_of_instructions() {
    let mut story = Story::on(2);
    assert_eq!(story.update(1), None);
    assert_eq!(story.update(2), RACE);
    assert_eq!(story.update(1), None, "it was reported");
}

#[test]
fn a_lock_orders_and_who_shares_it_is_ordered_only_with_who_has_it_alone() {
    let both = |one: LockKind, other: LockKind| {
        let mut story = Story::on(2);
        story.acquire(1, one);
        story.update(1);
        story.release(1, one);
        story.acquire(2, other);
        story.update(2)
    };
    use LockKind::{ExclusiveSpin, SharedSpin, Spin};
    assert_eq!(both(Spin, Spin), None);
    assert_eq!(both(ExclusiveSpin, SharedSpin), None);
    assert_eq!(both(SharedSpin, ExclusiveSpin), None);
    assert_eq!(both(SharedSpin, SharedSpin), RACE);
}

#[test]
fn what_comes_between_a_call_and_what_it_calls_is_before_that() {
    // A request's packet is started, and the DPC that ends the one before it runs just then: it starts the next, and there is none.
    let export = |name| (0..).find(|row| exports::row(*row).is_some_and(|row| row.name == name)).unwrap();
    let (starts, next) = (export("IoStartPacket"), export("IoStartNextPacket"));
    let call =
        |export| Event::Call { export, arguments: [0x2020_0000_2000, 0, 0, 0], caller: 0x2000_0000_1000 };
    let between = |calls_next: bool| {
        let mut story = Story::on(2);
        story.event(1, 0, &call(starts));
        let (routine, object) = (0x2000_0000_1100, 0x2020_0000_3000);
        story.event(1, 2, &Event::Enter { role: Role::DpcForIsr, routine, object });
        story.access(1, 2, update(PLACE, 4, false));
        if calls_next {
            story.event(1, 2, &call(next));
            story.event(1, 2, &Event::Return { export: next, value: 0 });
        }
        story.event(1, 2, &Event::Leave { role: Role::DpcForIsr, routine, value: 0 });
        let (routine, object) = (0x2000_0000_1200, 0x2020_0000_4000);
        story.event(1, 2, &Event::Enter { role: Role::StartIo, routine, object });
        story.access(1, 2, store(PLACE, 4))
    };
    assert_eq!(between(true), None);
    assert_eq!(between(false), RACE, "the DPC has not come to the queue");
}

#[test]
fn a_load_and_a_store_of_what_follows_from_it_are_an_update() {
    let halves = |back: bool| {
        let store = store(PLACE, 4);
        let load = MemoryAccess { stored_back: back.then_some(store.rip), ..load(PLACE, 4) };
        let mut story = Story::on(2);
        let mut both = |strand| [story.access(strand, 0, load), story.access(strand, 0, store)];
        (both(1), both(2))
    };
    assert_eq!(halves(true), ([None, None], [None, RACE]));
    let (_, flag) = halves(false);
    assert_eq!(
        flag,
        [UNORDERED, None],
        "a flag that is looked at and then set: what was set before is known"
    );
}

#[test]
fn pointers_that_two_have_looked_at_and_stored_are_overwritten() {
    let mut story = Story::on(2);
    for strand in [1, 2] {
        story.access(strand, 0, load(PLACE, 8));
        let said = story.access(strand, 0, store(PLACE, 8));
        assert_eq!(said, if strand == 1 { None } else { RACE });
    }
}

#[test]
fn both_ends_of_a_list_are_pointers_that_were_looked_at_where_the_first_one_was() {
    let (first, last) = (PLACE, PLACE + 8);
    let take = |looks: bool| {
        let mut story = Story::on(2);
        if looks {
            story.access(1, 0, load(first, 8));
        }
        story.access(1, 0, store(first, 8));
        story.access(1, 0, store(last, 8));
        // Another one is put behind the last one.
        story.access(2, 0, load(last, 8));
        story.access(2, 0, store(last, 8))
    };
    assert_eq!(take(true), RACE, "the list's last entry was taken meanwhile");
    assert_eq!(take(false), None, "two pointers are set, and the other one reads that they are");
}

#[test]
fn interlocked_instructions_race_with_plain_ones_only() {
    let mut story = Story::on(2);
    assert_eq!(story.access(1, 0, update(PLACE, 4, true)), None);
    assert_eq!(story.access(2, 0, update(PLACE, 4, true)), None);
    assert_eq!(story.access(3, 0, load(PLACE, 4)), None);
    assert_eq!(story.access(3, 0, store(PLACE, 4)), None);
    assert_eq!(story.access(4, 0, update(PLACE, 4, false)), RACE);
}

#[test]
fn what_is_added_to_a_word_between_a_look_and_a_plain_store_is_lost() {
    let takes = |adds: bool, looks: bool| {
        let mut story = Story::on(2);
        if looks {
            story.access(1, 0, load(PLACE, 4));
        }
        story.access(1, 0, store(PLACE, 4));
        story.access(2, 0, MemoryAccess { adds, ..update(PLACE, 4, true) })
    };
    assert_eq!(takes(true, true), RACE, "bits that are set between are lost");
    assert_eq!(takes(false, true), None, "an exchange stores a value of its own");
    assert_eq!(takes(true, false), None, "a counter begins again");
}

#[test]
fn an_interlocked_word_hands_over_what_was_before_it() {
    let mut story = Story::on(2);
    story.update(1);
    story.access(1, 0, update(PLACE + 64, 8, true));
    story.access(2, 0, update(PLACE + 64, 8, true));
    assert_eq!(story.update(2), None);
}

#[test]
fn bytes_beside_each_other_do_not_race_and_an_access_across_cells_meets_both() {
    let mut story = Story::on(2);
    assert_eq!(story.access(1, 0, update(PLACE, 1, false)), None);
    assert_eq!(story.access(2, 0, update(PLACE + 1, 1, false)), None);
    assert_eq!(story.access(3, 0, store(PLACE + 8, 8)), None);
    assert_eq!(story.access(4, 0, load(PLACE + 4, 8)), UNORDERED);
}

#[test]
fn more_than_a_word_is_torn() {
    let mut story = Story::on(2);
    story.access(1, 0, store(PLACE, 32));
    assert_eq!(story.access(2, 0, load(PLACE + 16, 32)), RACE);
    assert_eq!(story.access(3, 0, load(PLACE + 24, 8)), UNORDERED);
}

#[test]
fn what_lies_there_later_does_not_race_with_what_lay_there_before() {
    let mut story = Story::on(2);
    story.update(1);
    story.races.fresh(PLACE - 0x800, 0x1000);
    assert_eq!(story.update(2), None);
    story.races.fresh(PLACE, 2);
    assert_eq!(story.update(3), RACE, "the other two bytes are still there");
}

fn dpc(object: u64) -> (Event, Event) {
    let (role, routine) = (Role::CustomDpc, 0x2000_0000_5000);
    (Event::Enter { role, routine, object }, Event::Leave { role, routine, value: 0 })
}

#[test]
fn a_dpc_knows_what_was_before_it_was_queued_and_not_what_it_interrupts() {
    for (early, said) in [(true, None), (false, RACE)] {
        let (enter, leave) = dpc(0x2020_0000_7000);
        let mut story = Story::on(2);
        if early {
            story.update(1);
        }
        story.event(1, 0, &Event::DpcQueued { dpc: 0x2020_0000_7000, inserted: true });
        if !early {
            story.update(1);
        }
        story.event(1, 2, &enter);
        assert_eq!(story.access(1, 2, update(PLACE, 4, false)), said);
        story.event(1, 2, &leave);
    }
}

#[test]
fn on_one_processor_dispatch_level_keeps_dpcs_off_and_dpcs_keep_each_other_off() {
    for (processors, said) in [(1, None), (2, RACE)] {
        let mut story = Story::on(processors);
        assert_eq!(story.access(1, 2, update(PLACE, 4, false)), None, "a thread has raised its level");
        let mut last = None;
        for object in [0x2020_0000_7000, 0x2020_0000_7100] {
            let (enter, leave) = dpc(object);
            story.event(1, 2, &enter);
            last = last.or(story.access(1, 2, update(PLACE, 4, false)));
            story.event(1, 2, &leave);
        }
        last = last.or(story.access(2, 2, update(PLACE, 4, false)));
        assert_eq!(last, said);
    }
    let mut story = Story::on(1);
    let (enter, _) = dpc(0x2020_0000_7000);
    story.access(1, 0, update(PLACE, 4, false));
    story.event(1, 2, &enter);
    assert_eq!(story.access(1, 2, update(PLACE, 4, false)), RACE, "PASSIVE_LEVEL keeps nothing off");
}

#[test]
fn the_lock_of_an_interrupt_is_its_service_routines_and_not_the_interrupted_threads() {
    let (role, routine, object) = (Role::Isr, 0x2000_0000_6000, 0x2020_0000_8000);
    let mut story = Story::on(1);
    story.update(1);
    story.acquire(1, LockKind::Spin);
    story.event(1, 5, &Event::Enter { role, routine, object });
    assert_eq!(story.access(1, 5, update(PLACE, 4, false)), RACE);
    story.event(1, 5, &Event::Leave { role, routine, value: 1 });
    story.release(1, LockKind::Spin);
    assert_eq!(story.access(1, 0, store(PLACE, 4)), RACE, "the thread has not acquired it");
    let mut story = Story::on(2);
    story.acquire(1, LockKind::Spin);
    story.event(1, 5, &Event::Enter { role, routine, object });
    story.access(1, 5, update(PLACE, 4, false));
    story.event(1, 5, &Event::Leave { role, routine, value: 1 });
    story.release(1, LockKind::Spin);
    story.acquire(1, LockKind::Spin);
    assert_eq!(story.update(1), None, "now it has");
}

#[test]
fn a_reader_that_is_taken_back_has_forgotten() {
    let mut story = Story::on(2);
    let saved = story.races.save().unwrap();
    story.update(1);
    story.races.restore(&*saved);
    assert_eq!(story.update(2), None);
    assert_eq!(story.update(3), RACE);
}

const KEPT: u64 = 0xF0;

#[test]
fn a_register_is_changed_bit_by_bit_by_two_flows_that_nothing_orders() {
    let two = |is_locked: bool, set: u64| {
        let mut story = Story::on(2);
        story.register(3, true, (0, 0));
        story.event(3, 0, &Event::Thread { thread: StrandId(1), name: String::new() });
        story.event(3, 0, &Event::Thread { thread: StrandId(2), name: String::new() });
        let mut found = Vec::new();
        for (strand, value, keeps) in [(1, 1, KEPT), (2, set | 1, 0), (1, set, KEPT)] {
            if is_locked {
                story.acquire(strand, LockKind::Spin);
            }
            found.push(story.register(strand, false, (value, 0)));
            found.push(story.register(strand, true, (value, keeps)));
            if is_locked {
                story.release(strand, LockKind::Spin);
            }
        }
        found.into_iter().flatten().collect::<Vec<_>>()
    };
    assert_eq!(two(false, 0x10), ["register-update-race"], "once for the two instructions");
    // Not: register-update-race
    assert_eq!(two(true, 0x10), [""; 0], "a lock orders them");
    assert_eq!(two(false, 0x02), [""; 0], "nothing that the first one keeps is changed");
}

#[test]
fn a_write_that_a_flow_does_not_know_of_is_behind_its_read_in_another_order() {
    let mut story = Story::on(2);
    story.register(1, true, (0x10, 0));
    story.register(1, true, (0, 0));
    assert_eq!(story.register(2, false, (0, 0)), None);
    assert_eq!(story.register(2, true, (1, KEPT)), Some("register-update-race"));
}

const EVENT: u64 = 0x2020_0000_3000;

/// A thread looks whether there is work, clears the event that announces it, and waits; another one makes work and signals the event.
struct Announced {
    story: Story,
    wake_ups: Vec<&'static str>,
}

impl Announced {
    fn new() -> Self {
        Self { story: Story::on(2), wake_ups: Vec::new() }
    }

    fn call(&mut self, strand: u32, name: &str, returns: bool) {
        let export = (0..).find(|row| exports::row(*row).is_some_and(|row| row.name == name)).unwrap();
        let arguments = [EVENT, 0, 0, 0];
        let event = if returns {
            Event::Return { export, value: 0 }
        } else {
            Event::Call { export, arguments, caller: 0x2000_0000_1000 }
        };
        self.event(strand, &event);
    }

    fn event(&mut self, strand: u32, event: &Event) {
        self.story.event(strand, 0, event);
        while let Some(Judgement::Finding(verdict)) = self.story.races.judgement() {
            self.wake_ups.extend(Some(verdict.rule).filter(|rule| *rule == "wake-up-lost"));
        }
    }

    fn looks(&mut self) {
        let stamp = self.story.stamp(1, 0);
        self.story.races.accessed(&stamp, &[load(PLACE, 8)], false);
    }

    fn clears(&mut self) {
        self.call(1, "KeClearEvent", false);
        self.call(1, "KeClearEvent", true);
    }

    fn waits(&mut self) {
        self.event(1, &Event::Wait { object: EVENT, count: 1 });
    }

    fn announces(&mut self) {
        let stamp = self.story.stamp(2, 0);
        self.story.races.accessed(&stamp, &[store(PLACE, 8)], false);
        self.event(2, &Event::Signalled { object: EVENT, kind: 0, before: 0 });
    }
}

#[test]
fn a_wake_up_is_lost_that_comes_between_the_look_and_the_clearing() {
    let mut lost = Announced::new();
    lost.looks();
    lost.announces();
    lost.clears();
    lost.waits();
    assert_eq!(lost.wake_ups, ["wake-up-lost"]);
    let mut lost = Announced::new();
    lost.looks();
    lost.call(1, "KeClearEvent", false);
    lost.announces();
    lost.call(1, "KeClearEvent", true);
    lost.waits();
    assert_eq!(lost.wake_ups, ["wake-up-lost"], "it comes as the thread is about to clear the event");
}

#[test]
fn no_wake_up_is_lost_where_the_thread_looks_again_or_begins_what_it_waits_for() {
    // Not: wake-up-lost
    type Step = fn(&mut Announced);
    let looks_behind: &[Step] =
        &[Announced::looks, Announced::announces, Announced::clears, Announced::looks, Announced::waits];
    let comes_behind: &[Step] =
        &[Announced::looks, Announced::clears, Announced::announces, Announced::waits];
    let begins: &[Step] = &[
        Announced::looks,
        Announced::announces,
        Announced::clears,
        |one| one.call(1, "KeInsertQueueDpc", false),
        Announced::waits,
    ];
    let was_woken: &[Step] = &[
        Announced::looks,
        Announced::announces,
        |one| one.event(1, &Event::WaitSatisfied { object: EVENT }),
        Announced::announces,
        Announced::clears,
        Announced::waits,
    ];
    for steps in [looks_behind, comes_behind, begins, was_woken] {
        let mut right = Announced::new();
        steps.iter().for_each(|step| step(&mut right));
        assert_eq!(right.wake_ups, [""; 0]);
    }
}
