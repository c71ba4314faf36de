//! The card's two inputs, the line that it shares, and who waits for an interrupt.

use dirql::{Bench, Outcome};

use super::twin::holds;
use super::{C, RUST};
use crate::rig::start;

const SLOW: &str = "pci9052,latency=5ms";

stories! {
    fn a_waiter_is_woken_by_the_cards_local_side(twin) {
        twin.holds("pci9052", "open DEV as card
            t: ioctl card WAIT
            wait 100us; expect pending t
            poke pci9052#0 linti1 1; join t; poke pci9052#0 linti1 0
            close card");
    }

    fn one_may_wait_at_a_time(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            async first ioctl card WAIT
            ioctl card WAIT expect STATUS_DEVICE_BUSY
            poke pci9052#0 linti1 1; join first; poke pci9052#0 linti1 0
            async next ioctl card WAIT
            wait 1ms; expect pending next
            cancel next; join next expect STATUS_CANCELLED
            close card");
    }

    fn a_waiter_that_gives_up_makes_room_for_another(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            async first ioctl card WAIT
            cancel first; join first expect STATUS_CANCELLED
            async second ioctl card WAIT
            poke pci9052#0 linti1 1; join second; poke pci9052#0 linti1 0
            close card");
    }

    fn an_interrupt_before_the_wait_is_not_counted_for_it(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            poke pci9052#0 linti1 1; wait 1ms; poke pci9052#0 linti1 0
            async late ioctl card WAIT
            wait 10ms; expect pending late
            cancel late; join late expect STATUS_CANCELLED
            close card");
    }

    fn an_input_that_is_still_active_ends_a_wait_at_once(twin) {
        twin.holds("pci9052", "open DEV as card
            poke pci9052#0 linti1 1; wait 1ms
            ioctl card WAIT
            ioctl card WAIT
            poke pci9052#0 linti1 0
            close card");
    }

    fn an_input_that_stays_active_interrupts_once_while_nobody_waits(twin) {
        let report = twin.holds("pci9052", "poke pci9052#0 linti1 1; wait 100ms; poke pci9052#0 linti1 0; wait 1ms");
        assert_eq!(report.sums.interrupts.0, 1, "it is masked until a request waits\n{report}");
    }

    fn spurious_interrupts_without_a_transfer_are_claimed_and_forgotten(twin) {
        let report = twin.holds("pci9052", "open DEV as card
            poke pci9052#0 linti1 1; wait 1ms; poke pci9052#0 linti1 0
            write card hex:3c at 0
            poke pci9052#0 linti1 1; wait 1ms; poke pci9052#0 linti1 0
            ioctl card COUNTERS out 16 expect u32:1 + u32:3 + u32:0 + u32:0x10000
            close card");
        assert_eq!(report.sums.interrupts.0, 3, "{report}");
    }

    fn transfers_end_while_others_hold_the_input_active(twin) {
        let report = twin.holds("pci9052", "open DEV as card
            poke pci9052#0 linti1 1
            write card hex:01 at 0; write card hex:02 at 1; read card 2 at 0 expect hex:0102
            poke pci9052#0 linti1 0
            write card hex:03 at 0
            close card");
        assert!(report.sums.interrupts.0 < 20, "no storm\n{report}");
    }

    fn an_input_that_rises_under_a_transfer_does_not_end_it(twin) {
        twin.holds(SLOW, "open DEV as card overlapped
            async w write card hex:01 at 0
            wait 1ms
            poke pci9052#0 linti1 1; poke pci9052#0 linti1 0
            wait 1ms; expect pending w
            join w
            close card");
    }

    fn the_end_of_a_transfer_is_not_what_a_waiter_waits_for(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            async waits ioctl card WAIT
            write card hex:01 at 0; read card 1 at 0
            expect pending waits
            poke pci9052#0 linti1 1; join waits; poke pci9052#0 linti1 0
            close card");
    }

    fn the_late_end_of_a_transfer_that_was_cancelled_is_not_either(twin) {
        twin.holds(SLOW, "open DEV as card overlapped
            async waits ioctl card WAIT
            async w write card hex:01 at 0
            wait 1ms
            cancel w; join w expect STATUS_CANCELLED
            wait 20ms; expect pending waits
            cancel waits; join waits expect STATUS_CANCELLED
            close card");
    }

    fn a_waiter_and_a_transfer_end_both_where_both_interrupt_at_once(twin) {
        twin.holds(SLOW, "open DEV as card overlapped
            async waits ioctl card WAIT
            async w write card hex:01 at 0
            wait 1ms
            poke pci9052#0 linti1 1
            join waits; join w
            poke pci9052#0 linti1 0
            close card");
    }

    fn the_second_input_is_seen_and_interrupts_nobody(twin) {
        let report = twin.holds("pci9052", "open DEV as card
            ioctl card READ_LCR in u32:0x4c out 4 expect u32:0x53
            poke pci9052#0 linti2 1
            ioctl card READ_LCR in u32:0x4c out 4 expect u32:0x73
            wait 1ms
            poke pci9052#0 linti2 0
            ioctl card READ_LCR in u32:0x4c out 4 expect u32:0x53
            close card");
        assert_eq!(report.sums.interrupts.0, 0, "{report}");
    }

    fn both_inputs_are_told_apart(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            poke pci9052#0 linti2 1
            async waits ioctl card WAIT
            wait 1ms; expect pending waits
            poke pci9052#0 linti1 1
            join waits
            ioctl card READ_LCR in u32:0x4c out 4 expect u32:0x76
            poke pci9052#0 linti1 0; poke pci9052#0 linti2 0
            close card");
    }

    fn an_edge_on_the_line_counts_however_short_it_was(twin) {
        twin.holds("pci9052", "open DEV as card
            t: ioctl card WAIT
            wait 100us
            poke pci9052#0 linti1 1; poke pci9052#0 linti1 0
            poke pci9052#0 linti1 1
            join t
            poke pci9052#0 linti1 0
            close card");
    }

    fn two_cards_on_one_line_serve_each_its_own(twin) {
        let machine = start(|| twin.bench(&["pci9052,line=18", "pci9052,line=18"]));
        let report = holds(machine, r"open \\.\Pci9052-0 as a; open \\.\Pci9052-1 as b
            write a hex:01 at 0; write b hex:02 at 0
            read a 1 at 0 expect hex:01; read b 1 at 0 expect hex:02
            ioctl a COUNTERS out 16 expect prefix u32:2 + u32:2
            ioctl b COUNTERS out 16 expect prefix u32:2 + u32:2
            close a; close b");
        assert_eq!(report.sums.interrupts.0, 4, "{report}");
        assert!(report.sums.interrupts.1 >= 2, "one of them is asked in vain for the other\n{report}");
    }

    fn another_cards_interrupts_are_passed_on_while_it_has_none(twin) {
        let other = "pci,id=1234:5678,bar0=mem:128,irq,line=18";
        let machine = start(|| {
            let bench: Bench = twin.bench(&["pci9052,line=18"]);
            bench.device(other)
        });
        holds(machine, "open DEV as card
            write card hex:01 at 0
            ioctl card COUNTERS out 16 expect u32:1 + u32:1 + u32:0 + u32:0x10000
            close card");
    }

    fn a_line_that_another_card_never_lets_go_is_a_storm_and_not_this_drivers(twin) {
        let stuck = "pci,id=1234:5678,bar0=mem:128,irq=stuck,line=18";
        let report = start(|| twin.bench(&["pci9052,line=18", stuck])).finish();
        assert_eq!(report.outcome(), Outcome::Broken);
        let verdict = report.expect_verdict();
        assert_eq!(verdict.bug_check.map(|check| check.code), Some(0xF2), "{report}");
        assert!(verdict.message.contains("pci#0"), "it names the card that pulls the line\n{report}");
    }

    fn a_wait_lasts_through_a_stop_and_a_restart(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            async waits ioctl card WAIT
            stop-device; wait 1ms; expect pending waits
            start-device; wait 1ms; expect pending waits
            poke pci9052#0 linti1 1; join waits; poke pci9052#0 linti1 0
            close card");
    }

    fn what_happens_while_it_is_stopped_ends_the_wait_after_the_restart(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            async waits ioctl card WAIT
            stop-device
            poke pci9052#0 linti1 1; wait 1ms; expect pending waits
            start-device
            join waits
            poke pci9052#0 linti1 0
            close card");
    }

    fn nobody_can_begin_to_wait_while_it_is_stopped(twin) {
        twin.holds("pci9052", "open DEV as card
            stop-device
            ioctl card WAIT expect STATUS_DEVICE_BUSY
            start-device
            close card");
    }

    fn interrupts_come_by_another_vector_after_a_start_elsewhere(twin) {
        let report = twin.holds("pci9052", "open DEV as card
            write card hex:01 at 0
            stop-device; start-device elsewhere
            write card hex:02 at 1; read card 1 at 1 expect hex:02
            close card");
        let vectors: Vec<_> = report.prints.iter().filter_map(|line| line.split("vector ").nth(1)).collect();
        let vectors: Vec<_> = vectors.iter().map(|said| said.split(' ').next()).collect();
        assert_ne!(vectors[0], vectors[1], "{report}");
    }
}
