//! Reads and writes of local memory: lengths, places, order, cancellation.

use super::{C, RUST};

const SLOW: &str = "pci9052,latency=5ms";
const NEVER: &str = "pci9052,latency=3600s";

stories! {
    fn what_is_written_is_read_back_by_one_interrupt_each(twin) {
        let report = twin.holds("pci9052", "open DEV as card
            write card hex:3c_a5_00_ff at 0x10 expect bytes 4
            read card 4 at 0x10 expect hex:3ca500ff
            close card");
        assert_eq!(report.sums.interrupts, (2, 0), "{report}");
        assert_eq!(report.sums.dpcs, 2, "{report}");
    }

    fn the_first_and_the_last_byte_can_be_reached(twin) {
        twin.holds("pci9052", "open DEV as card
            write card hex:01 at 0; write card hex:02 at 0xfff7
            read card 1 at 0 expect hex:01; read card 1 at 0xfff7 expect hex:02
            close card");
    }

    fn bytes_beside_a_transfer_stay_as_they_were_at_any_alignment(twin) {
        let mut script = String::from("open DEV as card\nwrite card hex:ffffffffffffffffffffffffffffffff at 0\n");
        for at in 1..=4 {
            for length in 1..=9 {
                let inside = "00".repeat(length);
                let before = "ff".repeat(at);
                let after = "ff".repeat(16 - at - length);
                script += &format!("write card hex:{inside} at {at}\n");
                script += &format!("read card 16 at 0 expect hex:{before}{inside}{after}\n");
                script += &format!("write card hex:{} at {at}\n", "ff".repeat(length));
            }
        }
        twin.holds("pci9052", &script);
    }

    fn all_of_local_memory_goes_in_one_transfer(twin) {
        let machine = twin.machine("pci9052");
        let bytes = crate::rig::pattern(0xFFF8);
        let file = machine.open(r"\\.\Pci9052-0").unwrap();
        assert_eq!(file.write_at(&bytes, Some(0)).unwrap(), 0xFFF8);
        assert!(file.read_at(0xFFF8, Some(0)).unwrap() == bytes);
        file.close().unwrap();
        super::twin::holds(machine, "");
    }

    fn a_transfer_across_the_end_is_refused_whole(twin) {
        twin.holds("pci9052", "open DEV as card
            write card hex:010203 at 0xfff6 expect STATUS_INVALID_PARAMETER
            read card 3 at 0xfff6 expect STATUS_INVALID_PARAMETER
            read card 2 at 0xfff6 expect hex:0000
            close card");
    }

    fn the_peripherals_registers_are_no_memory(twin) {
        let report = twin.holds("pci9052", "open DEV as card
            write card u32:1 at 0xfffc expect STATUS_INVALID_PARAMETER
            read card 4 at 0xfff8 expect STATUS_INVALID_PARAMETER
            close card");
        assert_eq!(report.sums.interrupts.0, 0, "the doorbell was not rung\n{report}");
    }

    fn offsets_whose_end_overflows_are_refused(twin) {
        twin.holds("pci9052", "open DEV as card
            read card 1 at 0x10000 expect STATUS_INVALID_PARAMETER
            read card 2 at 0xffffffff expect STATUS_INVALID_PARAMETER
            read card 1 at 0x100000000 expect STATUS_INVALID_PARAMETER
            write card hex:00 at 0x7fffffffffffffff expect STATUS_INVALID_PARAMETER
            close card");
    }

    fn nothing_is_transferred_at_once(twin) {
        let report = twin.holds("pci9052", "open DEV as card
            read card 0 at 0 expect bytes 0
            write card hex: at 0xfff8 expect bytes 0
            read card 0 at 0xfff9 expect STATUS_INVALID_PARAMETER
            close card");
        assert_eq!(report.sums.interrupts.0, 0, "{report}");
    }

    fn the_position_of_a_handle_moves_with_its_transfers(twin) {
        twin.holds("pci9052", "open DEV as card; open DEV as other
            write card hex:0102; write card hex:03
            set card FilePositionInformation u64:1
            read card 2 expect hex:0203
            query card FilePositionInformation 8 expect u64:3
            read other 1 expect hex:01
            close card; close other");
    }

    fn a_failed_transfer_moves_no_position(twin) {
        twin.holds("pci9052", "open DEV as card
            set card FilePositionInformation u64:0xfff7
            read card 2 expect STATUS_INVALID_PARAMETER
            query card FilePositionInformation 8 expect u64:0xfff7
            close card");
    }

    fn memory_that_the_application_gives_back_under_a_write_was_copied_before(twin) {
        twin.holds(SLOW, "open DEV as card
            memory buffer hex:0102030405060708
            t: write card memory buffer at 0 expect bytes 8
            wait 1ms
            unmap buffer
            join t
            read card 8 at 0 expect hex:0102030405060708
            close card");
    }

    fn requests_on_an_overlapped_handle_are_done_one_by_one_in_their_order(twin) {
        let report = twin.holds(SLOW, "open DEV as card overlapped
            async a write card hex:01 at 0; async b read card 1 at 0
            async c write card hex:02 at 0; async d read card 1 at 0
            join d expect hex:02; join c; join b expect hex:01; join a
            close card");
        assert_eq!(report.sums.interrupts.0, 4, "{report}");
    }

    fn two_threads_on_one_handle_wait_for_each_other(twin) {
        twin.holds(SLOW, "open DEV as card
            a: write card hex:01 at 0; b: write card hex:02 at 1
            join a; join b; read card 2 at 0 expect hex:0102; close card");
    }

    fn the_card_takes_its_time_for_each(twin) {
        let machine = twin.machine(SLOW);
        let file = machine.open(r"\\.\Pci9052-0").unwrap();
        let before = machine.now();
        file.write_at(&[1], Some(0)).unwrap();
        file.read_at(1, Some(0)).unwrap();
        let taken = machine.now() - before;
        assert!((10_000_000..11_000_000).contains(&taken), "{taken} ns");
        file.close().unwrap();
        super::twin::holds(machine, "");
    }

    fn a_card_that_ends_at_once_is_no_other(twin) {
        twin.holds("pci9052,latency=0", "open DEV as card overlapped
            async a write card hex:01 at 0; async b write card hex:02 at 1; async c read card 2 at 0
            join a; join b; join c expect hex:0102; close card");
    }

    fn a_request_that_is_cancelled_in_the_queue_never_reaches_the_card(twin) {
        let report = twin.holds(SLOW, "open DEV as card overlapped
            async first write card hex:01 at 0
            async second write card hex:02 at 0
            async third read card 1 at 0
            cancel second
            join second expect STATUS_CANCELLED and bytes 0
            join first; join third expect hex:01
            close card");
        assert_eq!(report.sums.interrupts.0, 2, "{report}");
    }

    fn a_request_that_is_cancelled_on_the_card_ends_at_once(twin) {
        let machine = twin.machine("pci9052,latency=50ms");
        let before = machine.now();
        crate::rig::play(&machine, &super::twin::spelled("open DEV as card overlapped
            async first write card hex:01 at 0
            wait 1ms
            cancel first
            join first expect STATUS_CANCELLED and bytes 0"));
        assert!(machine.now() - before < 5_000_000, "it did not wait for the card");
        super::twin::holds(machine, "");
    }

    fn the_next_request_waits_until_the_card_has_ended_what_was_cancelled(twin) {
        let machine = twin.machine("pci9052,latency=10ms");
        crate::rig::play(&machine, &super::twin::spelled("open DEV as card overlapped
            async first write card hex:01 at 0
            async second write card hex:02 at 1
            wait 1ms
            cancel first
            join first expect STATUS_CANCELLED
            wait 5ms
            expect pending second
            join second"));
        assert!(machine.now() >= 20_000_000, "two operations of 10 ms each");
        let report = super::twin::holds(machine, "");
        assert_eq!(report.sums.interrupts.0, 2, "{report}");
    }

    fn cancelling_what_has_just_ended_changes_nothing(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            async first write card hex:01 at 0
            wait 1ms
            cancel first
            join first expect bytes 1
            read card 1 at 0 expect hex:01; close card");
    }

    fn all_of_a_handle_is_cancelled_and_nothing_of_another(twin) {
        twin.holds(SLOW, "open DEV as card overlapped; open DEV as other overlapped
            async a write card hex:01 at 0; async b write card hex:02 at 1
            async c write other hex:03 at 2; async d read card 1 at 0
            cancel card
            join a expect STATUS_CANCELLED; join b expect STATUS_CANCELLED; join d expect STATUS_CANCELLED
            join c
            read card 3 at 0 expect hex:010003
            close card; close other");
    }

    fn a_card_that_never_ends_holds_everybody_up_until_they_give_up(twin) {
        twin.holds(NEVER, "open DEV as card overlapped
            async a write card hex:01 at 0; async b read card 1 at 0
            wait 1s
            expect pending a; expect pending b
            cancel a; join a expect STATUS_CANCELLED
            wait 1s; expect pending b
            cancel b; join b expect STATUS_CANCELLED
            close card
            surprise-remove");
    }

    fn a_card_that_never_ends_is_not_removed_in_good_order_but_can_be_pulled_out(twin) {
        twin.holds(NEVER, "open DEV as card overlapped
            async a write card hex:01 at 0
            wait 1ms
            close card; join a expect STATUS_CANCELLED
            remove-device expect STATUS_DEVICE_BUSY
            surprise-remove");
    }

    fn a_long_queue_is_worked_off(twin) {
        let mut script = String::from("open DEV as card overlapped\n");
        for number in 0..100 {
            script += &format!("async r{number} write card u8:{number} at {number}\n");
        }
        for number in (0..100).rev() {
            script += &format!("join r{number}\n");
        }
        let report = twin.holds("pci9052", &script);
        assert_eq!(report.sums.interrupts.0, 100, "{report}");
    }

    fn a_long_queue_is_cancelled_at_once(twin) {
        let mut script = String::from("open DEV as card overlapped\n");
        for number in 0..100 {
            script += &format!("async r{number} write card u8:{number} at {number}\n");
        }
        script += "cancel card\n";
        for number in 0..100 {
            script += &format!("join r{number} expect STATUS_CANCELLED\n");
        }
        twin.holds(SLOW, &script);
    }
}
