//! Stopping, starting again, and removing, with and without requests.

use super::twin::holds;
use super::{C, RUST};
use crate::rig::start;

const SLOW: &str = "pci9052,latency=20ms";
/// Longer than a stop waits.
const TOO_SLOW: &str = "pci9052,latency=3s";

stories! {
    fn what_the_card_holds_is_there_after_a_stop_and_a_restart(twin) {
        twin.holds("pci9052", "open DEV as card
            write card hex:01 at 0
            stop-device; start-device
            write card hex:02 at 1; read card 2 at 0 expect hex:0102
            close card");
    }

    fn it_is_stopped_and_started_again_and_again(twin) {
        let script = format!("open DEV as card\n{}close card", "stop-device; start-device\nwrite card hex:01 at 0\n".repeat(20));
        twin.holds("pci9052", &script);
    }

    fn one_of_two_cards_that_was_removed_is_enabled_again_and_again(twin) {
        let machine = start(|| twin.bench(&["pci9052", "pci9052"]));
        let cycle = "remove-device pci9052#0; start-device pci9052#0\n".repeat(3);
        let names = |number: usize| format!(r"open \\.\Pci9052-{number} as card");
        let works = "write card hex:05 at 0; read card 1 at 0 expect hex:05; close card";
        // A new device has a new number.
        holds(machine, &format!("{cycle}{}; {works}; {}; {works}", names(1), names(4)));
    }

    fn a_card_whose_driver_has_no_other_is_not_enabled_and_that_is_noted(twin) {
        let report = twin.holds("pci9052", "remove-device; start-device expect STATUS_INVALID_DEVICE_STATE");
        assert!(report.to_string().contains("not enabled again: Windows has unloaded"), "{report}");
    }

    fn it_works_elsewhere_with_the_same_handle(twin) {
        twin.holds("pci9052", "open DEV as card
            write card hex:01 at 0
            stop-device; start-device elsewhere
            read card 1 at 0 expect hex:01
            ioctl card READ_LCR in u32:0x4c out 4 expect u32:0x53
            close card");
    }

    fn a_write_while_it_is_stopped_waits_for_the_start(twin) {
        twin.holds("pci9052", "open DEV as card
            stop-device
            t: write card hex:07 at 0
            wait 10ms; expect pending t
            start-device
            join t; read card 1 at 0 expect hex:07; close card");
    }

    fn requests_while_it_is_stopped_are_done_in_their_order_afterwards(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            stop-device
            async a write card hex:01 at 0; async b write card hex:02 at 0; async c read card 1 at 0
            start-device
            join c expect hex:02; join a; join b; close card");
    }

    fn a_request_that_waits_for_the_start_can_be_cancelled(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            stop-device
            async a write card hex:01 at 0; async b write card hex:02 at 1
            cancel a; join a expect STATUS_CANCELLED
            start-device
            join b; read card 2 at 0 expect hex:0002; close card");
    }

    fn a_request_that_waits_for_the_start_goes_with_its_handle(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            stop-device
            async a write card hex:01 at 0
            close card
            join a expect STATUS_CANCELLED
            start-device
            open DEV as card; read card 1 at 0 expect hex:00; close card");
    }

    fn what_cannot_be_done_is_refused_while_it_is_stopped_too(twin) {
        twin.holds("pci9052", "open DEV as card
            stop-device
            read card 1 at 0x10000 expect STATUS_INVALID_PARAMETER
            read card 0 at 0
            start-device; close card");
    }

    fn it_can_be_opened_and_closed_while_it_is_stopped(twin) {
        twin.holds("pci9052", "stop-device
            open DEV as card; close card
            open DEV as card
            start-device
            write card hex:01 at 0; close card");
    }

    fn a_stop_waits_for_the_transfer_under_way(twin) {
        twin.holds(SLOW, "open DEV as card overlapped
            async a write card hex:01 at 0; async b write card hex:02 at 1
            wait 1ms
            stop-device
            join a; expect pending b
            start-device
            join b; close card");
    }

    fn a_stop_is_refused_where_the_transfer_takes_longer_than_it_may_wait(twin) {
        twin.holds(TOO_SLOW, "open DEV as card overlapped
            async a write card hex:01 at 0; async b write card hex:02 at 1
            wait 1ms
            query-stop expect STATUS_DEVICE_BUSY
            stop-device expect STATUS_DEVICE_BUSY
            expect pending a
            join a; join b; read card 2 at 0 expect hex:0102; close card");
    }

    fn how_long_a_stop_waits_is_a_setting(twin) {
        let (from, to) = ("StopTimeout,0x00010001,1000", "StopTimeout,0x00010001,5000");
        let report = twin.holds_with(from, to, TOO_SLOW, "open DEV as card
            t: write card hex:01 at 0
            wait 1ms
            stop-device; join t; start-device; close card");
        assert!(report.prints[0].contains("stop timeout 5000 ms"), "{report}");
    }

    fn a_stop_with_a_request_that_was_cancelled_on_the_card_waits_for_the_card(twin) {
        twin.holds(SLOW, "open DEV as card overlapped
            async a write card hex:01 at 0
            wait 1ms
            cancel a; join a expect STATUS_CANCELLED
            stop-device; start-device
            write card hex:02 at 1; read card 1 at 1 expect hex:02; close card");
    }

    fn a_question_holds_requests_and_its_withdrawal_lets_them_go(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            query-stop
            async a write card hex:07 at 0
            wait 1ms; expect pending a
            cancel-stop
            join a; read card 1 at 0 expect hex:07; close card");
    }

    fn a_question_about_removal_can_be_taken_back(twin) {
        twin.holds("pci9052", "query-remove; cancel-remove
            open DEV as card; write card hex:07 at 0; close card");
    }

    fn withdrawals_without_a_question_do_nothing(twin) {
        twin.holds("pci9052", "cancel-stop expect any; cancel-remove expect any
            open DEV as card; write card hex:07 at 0; close card");
    }

    fn an_open_handle_keeps_it_from_being_removed(twin) {
        twin.holds("pci9052", "open DEV as card
            query-remove expect failure
            remove-device expect failure
            write card hex:07 at 0; close card
            remove-device
            open DEV as none expect failure");
    }

    fn it_is_removed_while_it_is_stopped(twin) {
        twin.holds("pci9052", "stop-device; remove-device; open DEV as none expect failure");
    }

    fn its_interface_goes_with_it(twin) {
        const OPENED: &str = "open interface:{5d624f94-8850-40c3-a3fa-a4fd2080baf3} as card; close card";
        let machine = twin.machine("pci9052");
        crate::rig::play(&machine, OPENED);
        crate::rig::play(&machine, "remove-device");
        assert!(crate::rig::try_play(&machine, OPENED).is_err());
        let report = machine.finish();
        assert!(report.failure.is_some_and(|failure| failure.message.contains("is enabled")));
    }

    fn its_interface_stays_while_it_is_stopped(twin) {
        twin.holds("pci9052", "stop-device
            open interface:{5d624f94-8850-40c3-a3fa-a4fd2080baf3} as card; close card
            start-device");
    }

    fn one_of_two_cards_is_removed_and_the_other_works(twin) {
        let machine = start(|| twin.bench(&["pci9052,line=18", "pci9052,line=18"]));
        holds(machine, r"remove-device pci9052#0
            open \\.\Pci9052-0 as none expect failure
            open \\.\Pci9052-1 as card; write card hex:01 at 0; close card");
    }

    fn one_of_two_cards_is_stopped_and_the_other_works(twin) {
        let machine = start(|| twin.bench(&["pci9052,line=18", "pci9052,line=18"]));
        holds(machine, r"open \\.\Pci9052-0 as a overlapped; open \\.\Pci9052-1 as b
            stop-device pci9052#0
            async w write a hex:01 at 0
            write b hex:02 at 0; expect pending w
            start-device pci9052#0
            join w; close a; close b");
    }

    fn what_a_script_leaves_open_is_cancelled_closed_and_unloaded(twin) {
        twin.holds(SLOW, "open DEV as card overlapped; open DEV as other overlapped
            async a write card hex:01 at 0; async b read other 1 at 0; async c ioctl card WAIT
            wait 1ms");
    }
}
