//! A card that comes out of its slot behind an access of its driver's (`--platform loose-cards`): which access is a choice, in the start of the driver, too.

use std::cell::Cell;
use std::rc::Rc;

use dirql::readers::{Json, Sink};
use dirql::{Bench, Platform, Report};
use engine::{Chooser, Point};
use serde_json::Value;

use super::rig::{self, Buffer, driver, start};

/// At the access of this number the card goes.
struct GoesAt {
    access: u64,
    asked: Rc<Cell<u64>>,
}

impl Chooser for GoesAt {
    fn choose(&mut self, _strand: u32, point: Point, _n: u32) -> u32 {
        if point != Point("fault.card") {
            return 0;
        }
        self.asked.set(self.asked.get() + 1);
        u32::from(self.asked.get() == self.access)
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }
}

/// A start and an end of the driver in Rust for a PCI 9052: its events, how often the card could go, and what came of it.
fn run(platform: Platform, access: u64) -> (Vec<Value>, u64, Report) {
    let (paper, asked) = (Buffer::default(), Rc::new(Cell::new(0)));
    let machine = start(|| {
        let bench = Bench::new().driver(driver("pci9052.sys")).inf(driver("pci9052.inf")).device("pci9052");
        let symbols = bench.symbols();
        let bench = bench.platform(platform).reader(Json::new(Sink::new(paper.clone()), symbols));
        bench.chooser(GoesAt { access, asked: Rc::clone(&asked) })
    });
    rig::play(&machine, "wait 10ms");
    let report = machine.finish();
    let events = paper.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (events, asked.get(), report)
}

/// The time of the first event of which this holds.
fn first(events: &[Value], is_one: impl Fn(&Value) -> bool) -> u64 {
    events.iter().find(|event| is_one(event)).unwrap_or_else(|| panic!("{events:#?}"))["t"].as_u64().unwrap()
}

#[test]
fn a_card_may_go_at_each_access_and_the_system_gets_to_know_of_it_later() {
    let loose = Platform { loose_cards: true, ..Platform::default() };
    let (events, accesses, report) = run(loose, 0);
    report.expect_clean();
    let is_access = |event: &Value| event["event"] == "device";
    assert!(accesses > 5, "{accesses}");
    assert_eq!(accesses, events.iter().filter(|event| is_access(event)).count() as u64);

    for access in 1..=accesses {
        let (events, asked, report) = run(loose, access);
        report.expect_clean();
        assert_eq!(asked, access, "a card that is gone does not go again");
        let gone = events.iter().filter(|event| is_access(event)).nth(usize::try_from(access).unwrap() - 1);
        let gone = gone.unwrap()["t"].as_u64().unwrap();
        let mut reads = events.iter().filter(|event| is_access(event) && event["write"] == false);
        assert!(
            reads.all(
                |read| read["t"].as_u64().unwrap() <= gone || read["value"] == format!("{:#x}", u32::MAX)
            ),
            "access {access}"
        );
        // A device that is removed meanwhile needs no notice.
        let is_step = |event: &Value, step: &str| event["event"] == "pnp" && event["step"] == step;
        if events.iter().any(|event| is_step(event, "surprise removal of")) {
            assert!(first(&events, |event| is_step(event, "surprise removal of")) >= gone + 1_000_000);
        }
    }
    let (events, ..) = run(loose, 1);
    assert!(events.iter().any(|event| event["step"] == "surprise removal of"), "{events:#?}");
}

#[test]
fn other_cards_stay() {
    assert_eq!(run(Platform::default(), 1).1, 0);
}
