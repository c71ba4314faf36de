//! What becomes of the driver where calls fail that could succeed.

use dirql::Outcome;

use super::twin::spelled;
use super::{C, RUST, Twin};
use crate::rig::failures::{self, Failing};
use crate::rig::{NoRoom, start};

/// How many calls could fail in a story of a slow card.
fn whichever_fails(twin: Twin, which: Failing, script: &str) -> u32 {
    failures::whichever_fails(|| twin.bench(&["pci9052,latency=5ms"]), which, &spelled(script))
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
        let calls = whichever_fails(twin, Failing::One, ADMINISTRATOR);
        assert!(calls >= 5, "only {calls} calls could fail");
    }

    fn whichever_call_fails_for_an_application_no_rule_is_broken_and_nothing_is_left(twin) {
        let calls = whichever_fails(twin, Failing::One, APPLICATION);
        assert!(calls >= 5, "only {calls} calls could fail");
    }

    fn from_whichever_call_on_all_fail_nothing_is_left(twin) {
        whichever_fails(twin, Failing::All, APPLICATION);
    }

    fn without_room_for_its_windows_it_does_not_start(twin) {
        let machine = start(|| twin.bench(&["pci9052"]).chooser(NoRoom));
        let report = machine.finish();
        assert_eq!(report.outcome(), Outcome::Unexpected, "{report}");
        assert!(report.findings.is_empty(), "{report}");
        assert_eq!(report.sums.still_allocated(), 0, "{report}");
    }
}
