//! Each state of the device and of the system, with and without requests.

use super::{C, RUST};

const SLOW: &str = "pci9052,latency=20ms";
/// Longer than going down waits.
const TOO_SLOW: &str = "pci9052,latency=3s";

stories! {
    fn it_goes_to_each_state_of_the_device_and_back(twin) {
        for state in ["d1", "d2", "d3"] {
            twin.holds("pci9052", &format!("open DEV as card
                write card hex:01 at 0
                power {state}; wait 1s; power d0
                write card hex:02 at 1; read card 1 at 1 expect hex:02
                close card"));
        }
    }

    fn it_goes_from_one_low_state_to_another(twin) {
        twin.holds("pci9052", "open DEV as card
            power d1; power d3; power d2; power d0
            write card hex:02 at 1; close card");
    }

    fn it_is_told_of_the_state_that_it_has(twin) {
        twin.holds("pci9052", "open DEV as card
            power d0; power d3; power d3; power d0; power d0
            write card hex:02 at 1; close card");
    }

    fn a_card_that_is_told_of_the_state_that_it_has_is_left_alone(twin) {
        // Its status was cleared: the end of a transfer that came just then was lost, if its interrupt was to be served on another processor.
        let accesses = |states: &str| twin.holds("pci9052", states).sums.accesses;
        assert_eq!(accesses("power d0; power d0"), accesses(""));
        assert_eq!(accesses("power d3; power d3; power d0; power d0"), accesses("power d3; power d0"));
    }

    fn a_write_without_power_waits_for_it(twin) {
        twin.holds("pci9052", "open DEV as card
            power d3
            t: write card hex:07 at 0
            wait 10ms; expect pending t
            power d0
            join t; read card 1 at 0 expect hex:07; close card");
    }

    fn requests_without_power_are_done_in_their_order_afterwards(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            power d3
            async a write card hex:01 at 0; async b write card hex:02 at 0; async c read card 1 at 0
            power d0
            join c expect hex:02; join a; join b; close card");
    }

    fn a_request_that_waits_for_power_can_be_cancelled(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            power d3
            async a write card hex:01 at 0; async b write card hex:02 at 1
            cancel a; join a expect STATUS_CANCELLED
            power d0
            join b; read card 2 at 0 expect hex:0002; close card");
    }

    fn a_transfer_under_way_ends_before_the_power_goes(twin) {
        twin.holds(SLOW, "open DEV as card overlapped
            async a write card hex:01 at 0; async b write card hex:02 at 1
            wait 1ms
            power d3
            join a; expect pending b
            power d0
            join b; close card");
    }

    fn a_transfer_that_the_power_went_from_under_is_done_again(twin) {
        twin.holds(TOO_SLOW, "open DEV as card overlapped
            async a write card hex:01 at 0
            wait 1ms
            power d3
            expect pending a
            power d0
            expect pending a
            join a; read card 1 at 0 expect hex:01; close card");
    }

    fn a_transfer_that_is_done_again_goes_before_those_that_came_later(twin) {
        twin.holds(TOO_SLOW, "open DEV as card overlapped
            async a write card hex:01 at 0
            wait 1ms
            down: power d3
            wait 500ms
            async b write card hex:02 at 0
            join down
            power d0
            join a; join b; read card 1 at 0 expect hex:02; close card");
    }

    fn a_queue_is_done_in_its_order_though_the_power_went_from_under_it(twin) {
        twin.holds(TOO_SLOW, "open DEV as card overlapped
            async a write card hex:01 at 0; async b write card hex:02 at 0
            wait 1ms
            down: power d3
            wait 500ms
            async c write card hex:03 at 0
            join down
            power d0
            join a; join b; join c; read card 1 at 0 expect hex:03; close card");
    }

    fn a_transfer_is_cancelled_while_it_waits_to_be_done_again(twin) {
        twin.holds(TOO_SLOW, "open DEV as card overlapped
            async a write card hex:01 at 0
            wait 1ms
            power d3
            cancel a; join a expect STATUS_CANCELLED
            power d0
            read card 1 at 0 expect hex:00; close card");
    }

    fn a_transfer_that_was_cancelled_before_the_power_went_is_forgotten(twin) {
        twin.holds(TOO_SLOW, "open DEV as card overlapped
            async a write card hex:01 at 0
            wait 1ms
            cancel a; join a expect STATUS_CANCELLED
            power d3; power d0
            write card hex:02 at 1; read card 2 at 0 expect hex:0002
            close card");
    }

    fn without_power_registers_and_words_are_busy(twin) {
        twin.holds("pci9052", "open DEV as card
            power d3
            ioctl card READ_LCR in u32:0 out 4 expect STATUS_DEVICE_BUSY
            ioctl card WRITE_LCR in u32:0x28 + u32:0 expect STATUS_DEVICE_BUSY
            ioctl card READ_EEPROM in u32:0 out 4 expect STATUS_DEVICE_BUSY
            ioctl card WAIT expect STATUS_DEVICE_BUSY
            ioctl card COUNTERS out 16 expect zero:12 + u32:0x10000
            power d0
            ioctl card READ_LCR in u32:0x4c out 4 expect u32:0x53
            close card");
    }

    fn a_wait_lasts_through_a_time_without_power(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            async waits ioctl card WAIT
            power d3; wait 1ms; power d0
            wait 1ms; expect pending waits
            poke pci9052#0 linti1 1; join waits; poke pci9052#0 linti1 0
            close card");
    }

    fn an_input_that_is_active_when_the_power_comes_back_ends_the_wait(twin) {
        let report = twin.holds("pci9052", "open DEV as card overlapped
            async waits ioctl card WAIT
            power d3
            poke pci9052#0 linti1 1; wait 10ms; expect pending waits
            power d0
            join waits
            wait 10ms
            poke pci9052#0 linti1 0; close card");
        assert_eq!(report.sums.interrupts.0, 1, "{report}");
    }

    fn a_wait_without_power_can_be_cancelled(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            async waits ioctl card WAIT
            power d3
            cancel waits; join waits expect STATUS_CANCELLED
            power d0; close card");
    }

    fn nobody_looks_for_the_end_of_a_transfer_where_there_is_no_power(twin) {
        // While others held the line, the end of the transfer was looked for each millisecond; a card without power reads all ones.
        twin.holds(TOO_SLOW, "open DEV as card overlapped
            async a write card hex:01 at 0
            wait 1ms
            poke pci9052#0 linti1 1; wait 1ms; poke pci9052#0 linti1 0
            async waits ioctl card WAIT
            power d3
            wait 100ms; expect pending waits; expect pending a
            power d0
            join a; expect pending waits
            poke pci9052#0 linti1 1; join waits; poke pci9052#0 linti1 0
            close card");
    }

    fn it_is_stopped_and_started_while_it_has_no_power(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            power d3
            async a write card hex:01 at 0
            stop-device; start-device
            join a; read card 1 at 0 expect hex:01; close card");
    }

    fn it_is_removed_while_it_has_no_power(twin) {
        twin.holds("pci9052", "power d3; remove-device");
    }

    fn its_power_goes_while_it_is_stopped(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            stop-device
            async a write card hex:01 at 0
            power d3 expect any
            power d0 expect any
            wait 1ms; expect pending a
            start-device
            join a; close card");
    }

    fn the_system_goes_to_each_state_of_sleep_and_wakes(twin) {
        for state in ["s1", "s2", "s3", "s4"] {
            twin.holds("pci9052", &format!("open DEV as card
                power {state}; wait 1s; power s0
                write card hex:02 at 1; read card 1 at 1 expect hex:02
                close card"));
        }
    }

    fn a_system_that_sleeps_has_its_requests_done_when_it_wakes(twin) {
        twin.holds(SLOW, "open DEV as card overlapped
            async waits ioctl card WAIT
            async a write card hex:01 at 0; async b write card hex:02 at 1
            wait 1ms
            power s3
            join a; expect pending b; expect pending waits
            power s0
            join b; read card 2 at 0 expect hex:0002
            poke pci9052#0 linti1 1; join waits; poke pci9052#0 linti1 0
            close card");
    }

    fn a_system_that_hibernates_has_a_transfer_done_again_that_took_too_long(twin) {
        twin.holds(TOO_SLOW, "open DEV as card overlapped
            async a write card hex:01 at 0
            wait 1ms
            power s4; power s0
            join a; read card 1 at 0 expect hex:01; close card");
    }

    fn a_system_that_nobody_uses_sleeps_with_the_card_open(twin) {
        twin.holds("pci9052", "open DEV as card
            power idle; power s0
            write card hex:02 at 1; close card");
    }

    fn a_device_without_power_stays_so_when_the_system_sleeps_and_comes_back_with_it(twin) {
        twin.holds("pci9052", "open DEV as card
            power d3; power s3; power s0
            write card hex:02 at 1; close card");
    }

    fn a_system_is_shut_down_with_requests_in_each_state(twin) {
        let machine = twin.machine(SLOW);
        crate::rig::play(&machine, &super::twin::spelled("open DEV as card overlapped
            async waits ioctl card WAIT
            async a write card hex:01 at 0; async b write card hex:02 at 1
            wait 1ms
            power s5"));
        let report = machine.finish();
        report.expect_clean();
        assert!(report.findings.is_empty(), "{report}");
    }
}
