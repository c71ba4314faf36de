//! What becomes of the driver where calls fail that could succeed.

use std::cell::RefCell;
use std::rc::Rc;

use dirql::Outcome;
use engine::{Chooser, Point};

use super::twin::spelled;
use super::{C, RUST, Twin};
use crate::rig::{NoRoom, start, try_play};

/// Lets one call fail, of those that could: the one with this number; or all from it on.
struct Fails {
    nth: u32,
    all: bool,
    asked: Rc<RefCell<u32>>,
}

impl Chooser for Fails {
    fn choose(&mut self, _strand: u32, point: Point, _n: u32) -> u32 {
        if !point.0.starts_with("fault.") {
            return 0;
        }
        let asked = &mut *self.asked.borrow_mut();
        *asked += 1;
        u32::from(*asked == self.nth || self.all && *asked > self.nth)
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }
}

/// Tells a story again and again, with other calls failing each time, until none is left that could.
fn whichever_fails(twin: Twin, all: bool, script: &str) -> u32 {
    let script = spelled(script);
    let mut nth = 1;
    loop {
        let asked = Rc::new(RefCell::new(0));
        let chooser = Fails { nth, all, asked: Rc::clone(&asked) };
        let machine = twin.bench(&["pci9052,latency=5ms"]).chooser(chooser).start().unwrap();
        // Without a device, or a handle to it, its commands fail.
        let _ = try_play(&machine, &script);
        let report = machine.finish();
        assert!(
            !matches!(report.outcome(), Outcome::Broken | Outcome::OurFault),
            "call {nth} fails: {report}"
        );
        assert!(report.findings.is_empty(), "call {nth} fails: {report}");
        assert_eq!(report.sums.still_allocated(), 0, "call {nth} fails: {report}");
        if *asked.borrow() < nth {
            return nth - 1;
        }
        nth += 1;
    }
}

const ADMINISTRATOR: &str = "wait 1ms
    wmi enable TIMED_OUT expect any
    wmi set STATISTICS item 7 u32:1 expect any
    open DEV as card expect any
    t: write card hex:07 at 0 expect any
    wait 100us
    query-stop expect any; cancel-stop expect any
    join t
    wmi query STATISTICS expect any
    wmi execute STATISTICS method 1 out 4 expect any
    power d3 expect any; power d0 expect any
    wmi disable TIMED_OUT expect any";

const APPLICATION: &str = "open DEV as card overlapped expect any
    async a write card hex:07 at 0
    async b read card 1 at 0
    async w ioctl card WAIT
    ioctl card READ_EEPROM in u32:0 out 4 expect any
    ioctl card WRITE_EEPROM in u32:60 + u32:7 expect any
    ioctl card READ_LCR in u32:0 out 4 expect any
    join a expect any; join b expect any
    stop-device expect any; start-device expect any
    cancel w
    close card
    surprise-remove";

stories! {
    fn whichever_call_fails_for_an_administrator_no_rule_is_broken_and_nothing_is_left(twin) {
        let calls = whichever_fails(twin, false, ADMINISTRATOR);
        assert!(calls >= 5, "only {calls} calls could fail");
    }

    fn whichever_call_fails_for_an_application_no_rule_is_broken_and_nothing_is_left(twin) {
        let calls = whichever_fails(twin, false, APPLICATION);
        assert!(calls >= 5, "only {calls} calls could fail");
    }

    fn from_whichever_call_on_all_fail_nothing_is_left(twin) {
        whichever_fails(twin, true, APPLICATION);
    }

    fn without_room_for_its_windows_it_does_not_start(twin) {
        let machine = start(|| twin.bench(&["pci9052"]).chooser(NoRoom));
        let report = machine.finish();
        assert_eq!(report.outcome(), Outcome::Unexpected, "{report}");
        assert!(report.findings.is_empty(), "{report}");
        assert_eq!(report.sums.still_allocated(), 0, "{report}");
    }
}
