//! What it costs to take a machine back, with no kernel above the engine: `fork_point`, the way back to a snapshot that
//! stays; `fork_tree`, a new snapshot, the writing after it and the way back.

use std::time::Instant;

use engine::windows::{PAGE, SYSTEM};
use engine::{DriverPtr, Engine, Host, Point, Protection, Question, Tracking, Turn};

use crate::strands::Nothing;
use crate::{Figure, each};

/// Pages that are written between two questions.
const DIRTY: u64 = 128;
/// Pages of the machine in all: a small driver's.
const PAGES: u64 = 1024;
const MEMORY: u64 = SYSTEM.base + 0x100_0000;
const SAMPLES: u64 = 1_000;

/// Each by the way of tracking that is meant for it, and by the other.
pub(crate) fn all(wanted: &dyn Fn(&str) -> bool) -> Vec<Figure> {
    type Measure = fn(&Host, &Nothing) -> Vec<f64>;
    let all: [(&str, Tracking, Measure); 4] = [
        ("fork_point", Tracking::Faults, point),
        ("fork_point_userfault", Tracking::Userfault, point),
        ("fork_tree", Tracking::Userfault, tree),
        ("fork_tree_faults", Tracking::Faults, tree),
    ];
    let all = all.into_iter().filter(|(name, ..)| wanted(name));
    all.filter_map(|(name, tracking, measure)| Some(Figure::new(name, 1, with_machine(tracking, measure)?)))
        .collect()
}

/// Asks, and writes to pages, for ever.
fn write(engine: Engine) {
    for round in 0_u64.. {
        let question = Question::Choice { strand: 0, point: Point("fork"), n: 2 };
        let shift = engine.ask(question) + round % 2;
        for page in 0..DIRTY {
            let at = MEMORY + (page * (PAGES / DIRTY) + shift) * PAGE;
            engine.write(DriverPtr::<u64>::new(at), round).expect("it is mapped");
        }
    }
}

/// A machine with that much memory in use; none if this host has not this way of tracking.
fn with_machine<R>(tracking: Tracking, measure: impl FnOnce(&Host, &Nothing) -> R) -> Option<R> {
    let host = Host::start().expect("no other machine is alive");
    host.map(MEMORY, 0x100_0000, PAGES * PAGE, Protection::READ_WRITE);
    for page in 0..PAGES {
        host.write_bytes(MEMORY + page * PAGE, &[7; 0x1000]).expect("it is mapped");
    }
    let result = host.track(tracking).is_ok().then(|| measure(&host, &Nothing(*host)));
    host.finish();
    result
}

fn point(host: &Host, guest: &Nothing) -> Vec<f64> {
    let mut run = host.explore(guest, || write(**host));
    assert_ne!(run.go(), Turn::Ended(()));
    let snapshot = host.snapshot().expect("the host allows it");
    let sample = |_| {
        assert_ne!(run.answer(0), Turn::Ended(()));
        let begun = Instant::now();
        host.rewind(snapshot);
        each(begun, 1)
    };
    (0..SAMPLES + 100).map(sample).skip(100).collect()
}

fn tree(host: &Host, guest: &Nothing) -> Vec<f64> {
    let mut run = host.explore(guest, || write(**host));
    assert_ne!(run.go(), Turn::Ended(()));
    let mut last = host.snapshot().expect("the host allows it");
    let sample = |_| {
        // On to where the next snapshot is taken.
        assert_ne!(run.answer(0), Turn::Ended(()));
        let begun = Instant::now();
        let here = host.snapshot().expect("the host allows it");
        assert_ne!(run.answer(1), Turn::Ended(()));
        host.rewind(here);
        let took = each(begun, 1);
        host.discard(last);
        last = here;
        took
    };
    (0..SAMPLES / 4 + 20).map(sample).skip(20).collect()
}
