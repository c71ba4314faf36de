//! The card is pulled out, in each state that a request or the device can be in.

use super::twin::holds;
use super::{C, RUST};
use crate::rig::start;

const SLOW: &str = "pci9052,latency=20ms";

stories! {
    fn pulled_out_with_nothing_open_it_is_gone(twin) {
        let report = twin.holds("pci9052", "surprise-remove; open DEV as none expect failure");
        assert!(report.prints.iter().any(|line| line.contains("the card is gone")), "{report}");
    }

    fn pulled_out_with_a_handle_open_it_stays_until_that_is_closed(twin) {
        twin.holds("pci9052", "open DEV as card
            write card hex:07 at 0
            surprise-remove
            write card hex:08 at 0 expect STATUS_DEVICE_NOT_CONNECTED
            read card 1 at 0 expect STATUS_DEVICE_NOT_CONNECTED
            read card 0 at 0 expect STATUS_DEVICE_NOT_CONNECTED
            close card");
    }

    fn nothing_can_be_asked_of_a_card_that_is_gone_but_its_counters(twin) {
        twin.holds("pci9052", "open DEV as card
            write card hex:07 at 0
            surprise-remove
            ioctl card WAIT expect STATUS_DEVICE_NOT_CONNECTED
            ioctl card READ_LCR in u32:0 out 4 expect STATUS_DEVICE_NOT_CONNECTED
            ioctl card WRITE_LCR in u32:0x28 + u32:0 expect STATUS_DEVICE_NOT_CONNECTED
            ioctl card READ_EEPROM in u32:0 out 4 expect STATUS_DEVICE_NOT_CONNECTED
            ioctl card WRITE_EEPROM in u32:0 + u32:0 expect STATUS_DEVICE_NOT_CONNECTED
            ioctl card COUNTERS out 16 expect u32:1 + u32:1 + zero:8
            close card");
    }

    fn pulled_out_under_requests_on_the_card_and_in_the_queue_it_fails_all(twin) {
        twin.holds(SLOW, "open DEV as card overlapped
            async a write card hex:01 at 0; async b write card hex:02 at 0; async c read card 1 at 0
            wait 1ms
            surprise-remove
            join a expect STATUS_DEVICE_NOT_CONNECTED and bytes 0
            join b expect STATUS_DEVICE_NOT_CONNECTED
            join c expect STATUS_DEVICE_NOT_CONNECTED
            close card");
    }

    fn pulled_out_under_a_waiter_it_ends_the_wait(twin) {
        twin.holds("pci9052", "open DEV as card
            t: ioctl card WAIT expect STATUS_DEVICE_NOT_CONNECTED
            wait 100us
            surprise-remove
            join t; close card");
    }

    fn pulled_out_after_its_request_was_cancelled_it_waits_for_nothing(twin) {
        twin.holds(SLOW, "open DEV as card overlapped
            async a write card hex:01 at 0; async b write card hex:02 at 0
            wait 1ms
            cancel a; join a expect STATUS_CANCELLED
            surprise-remove
            join b expect STATUS_DEVICE_NOT_CONNECTED
            close card");
    }

    fn pulled_out_while_it_is_stopped_it_fails_what_waits_for_the_start(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            stop-device
            async a write card hex:01 at 0
            wait 1ms
            surprise-remove
            join a expect STATUS_DEVICE_NOT_CONNECTED
            close card");
    }

    fn pulled_out_after_a_question_it_fails_what_the_question_held(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            query-stop
            async a write card hex:01 at 0
            wait 1ms
            surprise-remove
            join a expect STATUS_DEVICE_NOT_CONNECTED
            close card");
    }

    fn pulled_out_while_it_has_no_power_it_fails_what_waits_for_that(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            power d3
            async a write card hex:01 at 0; async w read card 1 at 0
            wait 1ms
            surprise-remove
            join a expect STATUS_DEVICE_NOT_CONNECTED; join w expect STATUS_DEVICE_NOT_CONNECTED
            close card");
    }

    fn pulled_out_while_its_input_is_held_it_is_not_looked_at_any_more(twin) {
        twin.holds(SLOW, "open DEV as card overlapped
            poke pci9052#0 linti1 1
            async a write card hex:01 at 0
            wait 5ms
            surprise-remove
            join a expect STATUS_DEVICE_NOT_CONNECTED
            wait 50ms
            close card");
    }

    fn pulled_out_one_of_two_cards_leaves_the_other_on_the_line(twin) {
        let machine = start(|| twin.bench(&["pci9052,line=18,latency=20ms", "pci9052,line=18,latency=20ms"]));
        holds(machine, r"open \\.\Pci9052-0 as a overlapped; open \\.\Pci9052-1 as b overlapped
            async one write a hex:01 at 0; async two write b hex:02 at 0
            wait 1ms
            surprise-remove pci9052#0
            join one expect STATUS_DEVICE_NOT_CONNECTED; join two
            read b 1 at 0 expect hex:02
            close a; close b");
    }

    fn pulled_out_with_many_handles_it_goes_with_the_last(twin) {
        twin.holds("pci9052", "open DEV as a; open DEV as b; open DEV as c
            surprise-remove
            close a; close b
            write c hex:01 at 0 expect STATUS_DEVICE_NOT_CONNECTED
            open DEV as d expect failure
            close c");
    }

    fn pulled_out_under_a_process_that_exits_later(twin) {
        twin.holds(SLOW, "process child
            child: open DEV as mine overlapped
            child: async one write mine hex:01 at 0
            join child
            wait 1ms
            surprise-remove
            wait 1ms
            exit child");
    }
}
