//! Control codes with right, short, long and missing buffers; registers and user pins.

use super::{C, RUST};

stories! {
    fn a_code_that_it_does_not_have_is_refused(twin) {
        twin.holds("pci9052", "open DEV as card
            ioctl card 0x226418 expect STATUS_INVALID_DEVICE_REQUEST
            ioctl card 0x22a400 expect STATUS_INVALID_DEVICE_REQUEST
            close card");
    }

    fn its_functions_by_another_method_or_of_another_kind_of_device_are_no_codes_of_its(twin) {
        twin.holds("pci9052", "open DEV as card
            ioctl card CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_NEITHER, FILE_READ_ACCESS) in u32:0 out 4 expect STATUS_INVALID_DEVICE_REQUEST
            ioctl card CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_OUT_DIRECT, FILE_READ_ACCESS) in u32:0 out 4 expect STATUS_INVALID_DEVICE_REQUEST
            ioctl card CTL_CODE(0x8000, 0x902, METHOD_BUFFERED, FILE_READ_ACCESS) in u32:0 out 4 expect STATUS_INVALID_DEVICE_REQUEST
            ioctl card CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_ANY_ACCESS) in u32:0 out 4 expect STATUS_INVALID_DEVICE_REQUEST
            close card");
    }

    fn counters_need_room_for_all_of_them_and_fill_no_more(twin) {
        twin.holds("pci9052", "open DEV as card
            ioctl card COUNTERS out 16 expect zero:12 + u32:0x10000
            ioctl card COUNTERS out 64 expect bytes 16 and zero:12 + u32:0x10000
            ioctl card COUNTERS out 15 expect STATUS_BUFFER_TOO_SMALL
            ioctl card COUNTERS expect STATUS_BUFFER_TOO_SMALL
            ioctl card COUNTERS in zero:64 expect STATUS_BUFFER_TOO_SMALL
            close card");
    }

    fn counters_go_on_through_a_stop_and_restart(twin) {
        twin.holds("pci9052", "open DEV as card
            write card hex:01 at 0; read card 1 at 0
            stop-device
            ioctl card COUNTERS out 16 expect u32:2 + u32:2 + zero:8
            start-device
            write card hex:01 at 0
            ioctl card COUNTERS out 16 expect u32:3 + u32:3 + u32:0 + u32:0x10000
            close card");
    }

    fn what_fails_or_is_cancelled_is_not_counted_as_a_transfer(twin) {
        twin.holds("pci9052,latency=5ms", "open DEV as card overlapped
            read card 1 at 0xffff expect STATUS_INVALID_PARAMETER
            read card 0 at 0
            async w write card hex:01 at 0
            wait 1ms; cancel w; join w expect STATUS_CANCELLED
            wait 10ms
            ioctl card COUNTERS out 16 expect u32:0 + u32:1 + u32:0 + u32:0x10000
            close card");
    }

    fn a_register_is_read_with_any_buffers_that_suffice(twin) {
        twin.holds("pci9052", "open DEV as card
            ioctl card READ_LCR in u32:0 out 4 expect u32:0x0fff0000
            ioctl card READ_LCR in u32:0 + zero:60 out 64 expect bytes 4 and u32:0x0fff0000
            ioctl card READ_LCR in hex:000000 out 4 expect STATUS_BUFFER_TOO_SMALL
            ioctl card READ_LCR out 4 expect STATUS_BUFFER_TOO_SMALL
            ioctl card READ_LCR in u32:0 out 3 expect STATUS_BUFFER_TOO_SMALL
            ioctl card READ_LCR in u32:0 expect STATUS_BUFFER_TOO_SMALL
            ioctl card READ_LCR expect STATUS_BUFFER_TOO_SMALL
            close card");
    }

    fn there_are_registers_only_where_there_are_some(twin) {
        twin.holds("pci9052", "open DEV as card
            ioctl card READ_LCR in u32:0x50 out 4 expect bytes 4
            ioctl card READ_LCR in u32:0x54 out 4 expect STATUS_INVALID_PARAMETER
            ioctl card READ_LCR in u32:0x7c out 4 expect STATUS_INVALID_PARAMETER
            ioctl card READ_LCR in u32:0x80 out 4 expect STATUS_INVALID_PARAMETER
            ioctl card READ_LCR in u32:0xffffffff out 4 expect STATUS_INVALID_PARAMETER
            ioctl card READ_LCR in u32:0x4d out 4 expect STATUS_INVALID_PARAMETER
            ioctl card WRITE_LCR in u32:0x54 + u32:0 expect STATUS_INVALID_PARAMETER
            ioctl card WRITE_LCR in u32:0x2a + u32:0 expect STATUS_INVALID_PARAMETER
            close card");
    }

    fn all_registers_hold_what_the_eeprom_says_but_the_drivers_own(twin) {
        let expected = [
            0x0FFF_0000_u32, 0x0FFF_FF01, 0, 0, 0, 1, 0xFF01, 0, 0, 0, 0x0080_0000, 0x0080_0000, 0x0080_0000,
            0x0080_0000, 0x0080_0000, 0x8001, 0, 0, 0, 0x53,
        ];
        let mut script = String::from("open DEV as card\n");
        for (index, value) in expected.iter().enumerate() {
            script += &format!("ioctl card READ_LCR in u32:{} out 4 expect u32:{value}\n", index * 4);
        }
        twin.holds("pci9052", &script);
    }

    fn a_chip_select_can_be_set_and_is_gone_after_a_power_cycle(twin) {
        twin.holds("pci9052", "open DEV as card
            ioctl card WRITE_LCR in u32:0x40 + u32:0x40001
            ioctl card READ_LCR in u32:0x40 out 4 expect u32:0x40001
            stop-device; start-device
            ioctl card READ_LCR in u32:0x40 out 4 expect u32:0x40001
            power d3; power d0
            ioctl card READ_LCR in u32:0x40 out 4 expect u32:0
            close card");
    }

    fn registers_that_the_system_rests_on_cannot_be_written(twin) {
        let mut script = String::from("open DEV as card\n");
        for offset in [0x00, 0x04, 0x0C, 0x10, 0x14, 0x20, 0x24, 0x4C] {
            script += &format!("ioctl card WRITE_LCR in u32:{offset} + u32:0xffffffff expect STATUS_ACCESS_DENIED\n");
        }
        script += "ioctl card READ_LCR in u32:0 out 4 expect u32:0x0fff0000\n";
        script += "ioctl card READ_LCR in u32:0x4c out 4 expect u32:0x53\nwrite card hex:01 at 0\nclose card";
        twin.holds("pci9052", &script);
    }

    fn a_write_of_a_register_needs_offset_and_value(twin) {
        twin.holds("pci9052", "open DEV as card
            ioctl card WRITE_LCR expect STATUS_BUFFER_TOO_SMALL
            ioctl card WRITE_LCR in hex:28 expect STATUS_BUFFER_TOO_SMALL
            ioctl card WRITE_LCR in u32:0x28 expect STATUS_BUFFER_TOO_SMALL
            ioctl card WRITE_LCR in u32:0x28 + hex:010203 expect STATUS_BUFFER_TOO_SMALL
            ioctl card READ_LCR in u32:0x28 out 4 expect u32:0x00800000
            ioctl card WRITE_LCR in u32:0x28 + u32:0x00800001 + u32:7 out 16 expect bytes 0
            ioctl card READ_LCR in u32:0x28 out 4 expect u32:0x00800001
            close card");
    }

    fn of_cntrl_only_the_pins_are_written_and_the_card_is_not_reset(twin) {
        twin.holds("pci9052", "open DEV as card
            write card hex:3c at 0
            ioctl card READ_LCR in u32:0x50 out 4 expect u32:0x18784000
            ioctl card WRITE_LCR in u32:0x50 + u32:0xffffffff
            ioctl card READ_LCR in u32:0x50 out 4 expect u32:0x18784fff
            read card 1 at 0 expect hex:3c
            ioctl card READ_EEPROM in u32:0 out 4 expect u32:0x9050
            ioctl card WRITE_LCR in u32:0x50 + u32:0
            ioctl card READ_LCR in u32:0x50 out 4 expect u32:0x18784000
            close card");
    }

    fn user_pins_that_are_inputs_show_the_outside(twin) {
        twin.holds("pci9052", "open DEV as card
            poke pci9052#0 uio0 1
            ioctl card READ_LCR in u32:0x50 out 4 expect u32:0x18784004
            poke pci9052#0 uio2 1; poke pci9052#0 uio0 0
            ioctl card READ_LCR in u32:0x50 out 4 expect u32:0x18784100
            poke pci9052#0 uio1 1; poke pci9052#0 uio3 1
            ioctl card READ_LCR in u32:0x50 out 4 expect u32:0x18784920
            close card");
    }

    fn a_user_pin_that_is_an_output_shows_what_was_written_and_not_the_outside(twin) {
        twin.holds("pci9052", "open DEV as card
            ioctl card WRITE_LCR in u32:0x50 + u32:0x2
            poke pci9052#0 uio0 1
            ioctl card READ_LCR in u32:0x50 out 4 expect u32:0x18784002
            ioctl card WRITE_LCR in u32:0x50 + u32:0x6
            poke pci9052#0 uio0 0
            ioctl card READ_LCR in u32:0x50 out 4 expect u32:0x18784006
            close card");
    }

    fn a_change_of_the_pins_under_a_transfer_does_not_disturb_it(twin) {
        twin.holds("pci9052,latency=5ms", "open DEV as card overlapped
            async w write card hex:3c at 0
            wait 1ms
            ioctl card WRITE_LCR in u32:0x50 + u32:0x6
            expect pending w
            join w; read card 1 at 0 expect hex:3c
            close card");
    }

    fn an_application_cannot_turn_the_bytes_of_the_space_that_the_driver_uses(twin) {
        // Its peripheral's registers would be turned with them, and no transfer would end.
        twin.holds("pci9052", "open DEV as card
            write card hex:01020304 at 0
            ioctl card WRITE_LCR in u32:0x28 + u32:0xffffffff
            ioctl card READ_LCR in u32:0x28 out 4 expect u32:0xfcbfffff
            ioctl card WRITE_LCR in u32:0x2c + u32:0
            ioctl card READ_LCR in u32:0x2c out 4 expect u32:0x00800000
            ioctl card WRITE_LCR in u32:0x30 + u32:0x01000000
            ioctl card READ_LCR in u32:0x30 out 4 expect u32:0x01000000
            read card 4 at 0 expect hex:01020304
            close card");
    }

    fn while_it_is_stopped_registers_and_words_are_busy(twin) {
        twin.holds("pci9052", "open DEV as card
            stop-device
            ioctl card READ_LCR in u32:0 out 4 expect STATUS_DEVICE_BUSY
            ioctl card WRITE_LCR in u32:0x28 + u32:0 expect STATUS_DEVICE_BUSY
            ioctl card READ_EEPROM in u32:0 out 4 expect STATUS_DEVICE_BUSY
            ioctl card WRITE_EEPROM in u32:63 + u32:0 expect STATUS_DEVICE_BUSY
            ioctl card READ_LCR in u32:0x54 out 4 expect STATUS_INVALID_PARAMETER
            start-device
            ioctl card READ_LCR in u32:0 out 4 expect u32:0x0fff0000
            close card");
    }
}
