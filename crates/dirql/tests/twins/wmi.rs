//! What an administrator sees: counters, a setting, a method, an event.

use super::twin::holds;
use super::{C, RUST};
use crate::rig::start;

/// A card that takes long for a transfer.
const SLOW: &str = "pci9052,latency=100ms";

stories! {
    fn what_was_transferred_is_counted(twin) {
        twin.holds("pci9052", "wait 1ms
            wmi query STATISTICS expect zero:32 + u32:1000 + u32:0x10000
            open DEV as card
            write card hex:3c_a5_00_ff at 0x10; read card 2 at 0x10
            wmi query STATISTICS instance 0 expect u64:2 + u64:4 + u32:2 + u32:2 + zero:8 + u32:1000 + u32:0x10000
            close card");
    }

    fn the_reset_answers_what_it_has_reset(twin) {
        twin.holds("pci9052", "wait 1ms
            open DEV as card; write card hex:3c at 0; read card 1 at 0
            wmi execute STATISTICS method 1 out 4 expect u32:2
            wmi execute STATISTICS method 1 out 4 expect u32:0
            wmi query STATISTICS expect zero:32 + u32:1000 + u32:0x10000
            close card");
    }

    fn a_reset_whose_answer_has_no_room_at_first_is_done_once(twin) {
        // The system asks again, with a larger buffer.
        twin.holds("pci9052", "wait 1ms
            open DEV as card; write card hex:3c at 0; read card 1 at 0
            wmi execute STATISTICS method 1 out 3 expect u32:2
            wmi execute STATISTICS method 1 expect u32:0
            close card");
    }

    fn there_is_one_method(twin) {
        twin.holds("pci9052", "wait 1ms
            wmi execute STATISTICS method 0 out 4 expect STATUS_WMI_ITEMID_NOT_FOUND
            wmi execute STATISTICS method 2 out 4 expect STATUS_WMI_ITEMID_NOT_FOUND");
    }

    fn the_stop_timeout_is_set_as_an_item_within_bounds(twin) {
        twin.holds("pci9052", "wait 1ms
            wmi set STATISTICS item 7 u32:20
            wmi query STATISTICS expect zero:32 + u32:20 + u32:0x10000
            wmi set STATISTICS item 7 u32:60001 expect STATUS_WMI_SET_FAILURE
            wmi set STATISTICS item 7 hex:01 expect STATUS_WMI_SET_FAILURE
            wmi set STATISTICS item 7 u64:1 expect STATUS_WMI_SET_FAILURE
            wmi query STATISTICS expect zero:32 + u32:20 + u32:0x10000");
    }

    fn other_items_are_read_only_or_not_there(twin) {
        twin.holds("pci9052", "wait 1ms
            wmi set STATISTICS item 3 u32:1 expect STATUS_WMI_READ_ONLY
            wmi set STATISTICS item 8 u32:1 expect STATUS_WMI_READ_ONLY
            wmi set STATISTICS item 0 u32:1 expect STATUS_WMI_ITEMID_NOT_FOUND
            wmi set STATISTICS item 9 u32:1 expect STATUS_WMI_ITEMID_NOT_FOUND");
    }

    fn of_a_whole_instance_only_the_stop_timeout_is_taken(twin) {
        twin.holds("pci9052", "wait 1ms
            wmi set STATISTICS u64:9 + u64:9 + u32:9 + u32:9 + u32:9 + u32:9 + u32:30 + u32:9
            wmi query STATISTICS expect zero:32 + u32:30 + u32:0x10000
            wmi set STATISTICS zero:36 expect STATUS_WMI_SET_FAILURE
            wmi set STATISTICS zero:44 expect STATUS_WMI_SET_FAILURE");
    }

    fn an_event_is_no_data_and_there_is_one_instance(twin) {
        twin.holds("pci9052", "wait 1ms
            wmi query TIMED_OUT expect STATUS_WMI_GUID_NOT_FOUND
            wmi set TIMED_OUT zero:12 expect failure
            wmi execute TIMED_OUT method 1 expect failure
            wmi query STATISTICS instance 1 expect STATUS_WMI_INSTANCE_NOT_FOUND");
    }

    fn a_card_that_does_not_end_in_time_is_an_event_each_time(twin) {
        twin.holds(SLOW, "wait 1ms
            wmi enable TIMED_OUT
            wmi set STATISTICS item 7 u32:20
            open DEV as card
            t: write card hex:07 at 0
            wait 1ms
            query-stop expect STATUS_DEVICE_BUSY
            wmi event TIMED_OUT expect u32:20 + u32:1 + u32:0
            power d3
            wmi event TIMED_OUT expect u32:20 + u32:2 + u32:1
            power d0
            join t
            wmi query STATISTICS expect prefix zero:8 + u64:1 + u32:1
            wmi disable TIMED_OUT
            close card");
    }

    fn an_event_that_nobody_listens_to_is_lost(twin) {
        twin.holds(SLOW, "wait 1ms
            wmi set STATISTICS item 7 u32:20
            open DEV as card
            t: write card hex:07 at 0
            wait 1ms
            query-stop expect STATUS_DEVICE_BUSY
            join t; close card");
    }

    fn blocks_stay_while_it_is_stopped_and_without_power(twin) {
        twin.holds("pci9052", "wait 1ms
            stop-device
            wmi query STATISTICS expect zero:32 + u32:1000 + u32:0
            start-device
            power d3
            wmi query STATISTICS expect zero:32 + u32:1000 + u32:0x10000
            power d0");
    }

    fn blocks_go_with_the_card(twin) {
        let machine = twin.machine("pci9052");
        machine.wait(1_000_000).unwrap();
        assert_eq!(machine.wmi_blocks().unwrap().len(), 2);
        machine.surprise_remove("pci9052#0").unwrap();
        assert_eq!(machine.wmi_blocks().unwrap().len(), 0);
        holds(machine, "");
    }

    fn two_cards_are_instances_of_one_block(twin) {
        holds(start(|| twin.bench(&["pci9052", "pci9052"])), r"wait 1ms
            open \\.\Pci9052-1 as card; write card hex:01 at 0; close card
            wmi query STATISTICS instance 0 expect zero:32 + u32:1000 + u32:0x10000
            wmi query STATISTICS instance 1 expect zero:8 + u64:1 + u32:1 + u32:1 + zero:8 + u32:1000 + u32:0x10000
            wmi set STATISTICS instance 1 item 7 u32:5
            wmi query STATISTICS instance 0 expect zero:32 + u32:1000 + u32:0x10000");
    }

    fn an_administrator_looks_while_requests_are_under_way(twin) {
        twin.holds(SLOW, "wait 1ms
            open DEV as card overlapped
            async a write card hex:01 at 0; async b write card hex:02 at 1
            wmi query STATISTICS expect zero:32 + u32:1000 + u32:0x10000
            join a
            wmi query STATISTICS expect prefix zero:8 + u64:1 + u32:1 + u32:1
            wmi execute STATISTICS method 1 out 4 expect u32:1
            join b
            wmi query STATISTICS expect prefix zero:8 + u64:1 + u32:1
            close card");
    }
}
