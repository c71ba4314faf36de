//! Who may open the card, what a handle may do, and what becomes of requests whose handle, thread or process goes.

use super::twin::holds;
use super::{C, RUST};
use crate::rig::start;

const SLOW: &str = "pci9052,latency=5ms";

stories! {
    fn several_handles_are_to_one_card(twin) {
        twin.holds("pci9052", "open DEV as one; open DEV as other
            write one hex:3c at 5
            read other 1 at 5 expect hex:3c
            close one; read other 1 at 5 expect hex:3c; close other");
    }

    fn who_shares_with_nobody_has_company_all_the_same(twin) {
        // The driver keeps no share access, and a device is not exclusive unless it says so.
        twin.holds("pci9052", "open DEV as one exclusive; open DEV as other; read other 1 at 0; close one; close other");
    }

    fn a_handle_to_read_does_not_write(twin) {
        let report = twin.holds("pci9052", "open DEV as card read-only
            write card hex:3c at 0 expect STATUS_ACCESS_DENIED
            read card 1 at 0 expect hex:00; close card");
        assert_eq!(report.sums.interrupts.0, 1, "the driver was not asked to write\n{report}");
    }

    fn a_handle_to_write_does_not_read(twin) {
        twin.holds("pci9052", "open DEV as card write-only
            read card 1 at 0 expect STATUS_ACCESS_DENIED
            ioctl card COUNTERS out 16 expect STATUS_ACCESS_DENIED
            write card hex:3c at 0; close card");
    }

    fn a_handle_to_read_may_look_at_registers_and_words_and_change_none(twin) {
        twin.holds("pci9052", "open DEV as card read-only
            ioctl card READ_LCR in u32:0x28 out 4 expect u32:0x00800000
            ioctl card READ_EEPROM in u32:0 out 4 expect u32:0x9050
            ioctl card WRITE_LCR in u32:0x28 + u32:0 expect STATUS_ACCESS_DENIED
            ioctl card WRITE_EEPROM in u32:0 + u32:0 expect STATUS_ACCESS_DENIED
            close card");
    }

    fn users_read_and_administrators_write_as_the_inf_says(twin) {
        twin.holds("pci9052", "open DEV as administrator
            user plain
            open DEV as writer expect STATUS_ACCESS_DENIED
            open DEV as writer write-only expect STATUS_ACCESS_DENIED
            open DEV as reader read-only; read reader 1 at 0
            close reader; close administrator");
    }

    fn who_may_not_open_the_card_may_not_open_a_name_below_it(twin) {
        // FILE_DEVICE_SECURE_OPEN
        twin.holds("pci9052", r"open DEV\below as administrator; close administrator
            user plain
            open DEV\below as writer expect STATUS_ACCESS_DENIED
            open DEV\below as reader read-only; close reader");
    }

    fn another_descriptor_in_the_inf_shuts_users_out(twin) {
        let (from, to) = ("(A;;GR;;;BU)", "");
        twin.holds_with(from, to, "pci9052", "user plain
            open DEV as reader read-only expect STATUS_ACCESS_DENIED
            user administrator
            open DEV as card; read card 1 at 0; close card");
    }

    fn without_an_inf_everybody_writes(twin) {
        holds(start(|| twin.alone().device("pci9052")), "user plain
            open DEV as card; write card hex:3c at 0; read card 1 at 0 expect hex:3c; close card");
    }

    fn it_is_found_by_its_device_interface(twin) {
        twin.holds("pci9052", "open interface:{5d624f94-8850-40c3-a3fa-a4fd2080baf3} as card
            write card hex:3c at 0; close card");
    }

    fn there_is_no_second_card(twin) {
        twin.holds("pci9052", r"open \\.\Pci9052-1 as none expect STATUS_OBJECT_NAME_NOT_FOUND");
    }

    fn a_duplicate_keeps_what_the_first_handle_had(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            duplicate card as second
            async w ioctl card WAIT
            close card
            wait 1ms; expect pending w
            close second
            join w expect STATUS_CANCELLED");
    }

    fn closing_a_handle_ends_what_it_had_in_each_state_and_nothing_of_anothers(twin) {
        twin.holds(SLOW, "open DEV as card overlapped; open DEV as other overlapped
            async waits ioctl card WAIT
            async done write card hex:01 at 0
            async queued write card hex:02 at 1
            async theirs write other hex:03 at 2
            wait 1ms
            close card
            join waits expect STATUS_CANCELLED
            join done expect STATUS_CANCELLED
            join queued expect STATUS_CANCELLED
            join theirs expect bytes 1
            read other 3 at 0 expect hex:010003
            close other");
    }

    fn a_thread_that_ends_takes_its_request_with_it(twin) {
        twin.holds("pci9052", "open DEV as card
            t: ioctl card WAIT
            wait 1ms
            terminate t; join t
            open DEV as other
            u: ioctl other WAIT
            wait 1ms; poke pci9052#0 linti1 1; join u; poke pci9052#0 linti1 0
            close other; close card");
    }

    fn a_process_that_exits_with_requests_on_the_card_and_in_the_queue_leaves_it_working(twin) {
        twin.holds(SLOW, "process child
            child: open DEV as mine overlapped
            child: async one write mine hex:01 at 0
            child: async two write mine hex:02 at 0
            child: async three ioctl mine WAIT
            join child
            wait 1ms
            exit child
            open DEV as card
            write card hex:07 at 1; read card 2 at 0 expect hex:0107
            close card");
    }

    fn a_handle_that_is_inherited_outlives_the_parents(twin) {
        twin.holds("pci9052", "open DEV as card inherit
            process child inheriting
            close card
            child: write card hex:07 at 0
            child: read card 1 at 0 expect hex:07
            join child
            remove-device expect failure
            exit child
            remove-device");
    }

    fn flushing_and_questions_of_files_are_not_for_it(twin) {
        twin.holds("pci9052", "open DEV as card
            flush card expect STATUS_INVALID_DEVICE_REQUEST
            query card FileStandardInformation 24 expect STATUS_INVALID_DEVICE_REQUEST
            close card");
    }

    fn ends_come_to_a_completion_port_in_the_order_of_the_card(twin) {
        twin.holds(SLOW, "open DEV as card overlapped
            port ends; bind card to ends key 7
            async a write card hex:01 at 0
            async b write card hex:0203 at 1
            async c read card 3 at 0
            dequeue ends of a key 7 expect bytes 1
            dequeue ends of b key 7 expect bytes 2
            dequeue ends of c key 7 expect bytes 3
            join a; join b; join c expect hex:010203
            close ends; close card");
    }

    fn an_end_is_a_user_apc_for_who_asked_for_one(twin) {
        twin.holds("pci9052", "open DEV as card overlapped
            async a write card hex:01 at 0 apc
            join a
            close card");
    }
}
