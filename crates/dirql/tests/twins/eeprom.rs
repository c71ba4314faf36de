//! The EEPROM behind CNTRL: words read, programmed, restored, and what the card makes of them.

use super::twin::{holds, spelled};
use super::{C, RUST};
use crate::rig::play;

const READ_EEPROM: u32 = 0x0022_6410;
const WRITE_EEPROM: u32 = 0x0022_A414;

stories! {
    fn its_words_are_those_of_the_board(twin) {
        twin.holds("pci9052", "open DEV as card
            ioctl card READ_EEPROM in u32:0 out 4 expect u32:0x9050
            ioctl card READ_EEPROM in u32:1 out 4 expect u32:0x10b5
            ioctl card READ_EEPROM in u32:0x27 out 4 expect u32:0x8001
            ioctl card READ_EEPROM in u32:49 out 4 expect u32:0x4000
            ioctl card READ_EEPROM in u32:63 out 4 expect u32:0
            close card");
    }

    fn words_are_read_with_any_buffers_that_suffice(twin) {
        twin.holds("pci9052", "open DEV as card
            ioctl card READ_EEPROM in u32:0 + zero:12 out 64 expect bytes 4 and u32:0x9050
            ioctl card READ_EEPROM in hex:00 out 4 expect STATUS_BUFFER_TOO_SMALL
            ioctl card READ_EEPROM out 4 expect STATUS_BUFFER_TOO_SMALL
            ioctl card READ_EEPROM in u32:0 out 2 expect STATUS_BUFFER_TOO_SMALL
            ioctl card READ_EEPROM in u32:0 expect STATUS_BUFFER_TOO_SMALL
            ioctl card READ_EEPROM in u32:64 out 4 expect STATUS_INVALID_PARAMETER
            ioctl card READ_EEPROM in u32:0x10000 out 4 expect STATUS_INVALID_PARAMETER
            close card");
    }

    fn a_word_is_programmed_and_read_back(twin) {
        let machine = twin.machine("pci9052");
        let before = machine.now();
        play(&machine, &spelled("open DEV as card
            ioctl card WRITE_EEPROM in u32:60 + u32:0xbeef expect bytes 0
            ioctl card READ_EEPROM in u32:60 out 4 expect u32:0xbeef
            ioctl card READ_EEPROM in u32:59 out 4 expect u32:0
            ioctl card READ_EEPROM in u32:61 out 4 expect u32:0
            close card"));
        assert!(machine.now() - before >= 4_000_000, "programming takes its time");
        holds(machine, "");
    }

    fn a_word_is_written_only_if_it_is_one(twin) {
        twin.holds("pci9052", "open DEV as card
            ioctl card WRITE_EEPROM in u32:64 + u32:0 expect STATUS_INVALID_PARAMETER
            ioctl card WRITE_EEPROM in u32:60 + u32:0x10000 expect STATUS_INVALID_PARAMETER
            ioctl card WRITE_EEPROM in u32:60 + hex:0102 expect STATUS_BUFFER_TOO_SMALL
            ioctl card WRITE_EEPROM in u32:60 expect STATUS_BUFFER_TOO_SMALL
            ioctl card WRITE_EEPROM expect STATUS_BUFFER_TOO_SMALL
            ioctl card READ_EEPROM in u32:60 out 4 expect u32:0
            close card");
    }

    fn the_card_loads_what_was_programmed_when_it_has_its_power_again(twin) {
        twin.holds("pci9052", "open DEV as card
            ioctl card WRITE_EEPROM in u32:0x29 + u32:0x0801
            ioctl card READ_LCR in u32:0x40 out 4 expect u32:0
            power d3; power d0
            ioctl card READ_LCR in u32:0x40 out 4 expect u32:0x0801
            close card");
    }

    fn a_card_is_saved_changed_and_restored_word_by_word(twin) {
        let machine = twin.machine("pci9052");
        let file = machine.open(r"\\.\Pci9052-0").unwrap();
        let words = || -> Vec<u32> {
            let word = |number: u32| file.device_control(READ_EEPROM, &number.to_le_bytes(), 4).unwrap();
            (0..64).map(|number| u32::from_le_bytes(word(number).try_into().unwrap())).collect()
        };
        let write = |number: u32, value: u32| {
            let input = [number.to_le_bytes(), value.to_le_bytes()].concat();
            file.device_control(WRITE_EEPROM, &input, 0).unwrap();
        };
        let saved = words();
        for number in 0..64 {
            write(number, 0xA500 | number);
        }
        assert!(words().iter().zip(0..).all(|(word, number)| *word == 0xA500 | number));
        for (value, number) in saved.iter().zip(0..) {
            write(number, *value);
        }
        assert_eq!(words(), saved);
        file.close().unwrap();
        holds(machine, "power d3; power d0; open DEV as card; write card hex:01 at 0; close card");
    }

    fn two_threads_program_words_and_both_are_kept(twin) {
        twin.holds("pci9052", "open DEV as one; open DEV as other
            a: ioctl one WRITE_EEPROM in u32:60 + u32:0x1234
            b: ioctl other WRITE_EEPROM in u32:61 + u32:0x5678
            join a; join b
            ioctl one READ_EEPROM in u32:60 out 4 expect u32:0x1234
            ioctl one READ_EEPROM in u32:61 out 4 expect u32:0x5678
            close one; close other");
    }

    fn pins_that_are_written_while_a_word_is_programmed_wait_for_it(twin) {
        twin.holds("pci9052", "open DEV as one; open DEV as other
            a: ioctl one WRITE_EEPROM in u32:60 + u32:0x1234
            b: ioctl other WRITE_LCR in u32:0x50 + u32:0x6
            join a; join b
            ioctl one READ_EEPROM in u32:60 out 4 expect u32:0x1234
            ioctl one READ_LCR in u32:0x50 out 4 expect u32:0x18784006
            close one; close other");
    }

    fn transfers_go_on_while_a_word_is_programmed(twin) {
        twin.holds("pci9052", "open DEV as one; open DEV as other
            a: ioctl one WRITE_EEPROM in u32:60 + u32:0x1234
            wait 500us
            write other hex:0102 at 0; read other 2 at 0 expect hex:0102
            expect pending a
            join a
            close one; close other");
    }

    fn a_device_that_is_to_stop_waits_for_the_word_that_is_being_programmed(twin) {
        twin.holds("pci9052", "open DEV as card
            a: ioctl card WRITE_EEPROM in u32:60 + u32:0x1234
            wait 1ms
            stop-device
            start-device
            join a
            ioctl card READ_EEPROM in u32:60 out 4 expect u32:0x1234
            close card");
    }

    fn a_device_does_not_lose_its_power_under_a_word_that_is_being_programmed(twin) {
        twin.holds("pci9052", "open DEV as card
            a: ioctl card WRITE_EEPROM in u32:60 + u32:0x1234
            wait 1ms
            power d3
            power d0
            join a
            ioctl card READ_EEPROM in u32:60 out 4 expect u32:0x1234
            close card");
    }

    fn a_card_that_is_pulled_out_under_a_word_fails_it(twin) {
        twin.holds("pci9052", "open DEV as card
            a: ioctl card WRITE_EEPROM in u32:60 + u32:0x1234 expect failure
            wait 1ms
            surprise-remove
            join a
            close card");
    }

    fn a_thread_that_ends_does_not_leave_a_word_half_programmed(twin) {
        twin.holds("pci9052", "open DEV as card; open DEV as other
            a: ioctl card WRITE_EEPROM in u32:60 + u32:0x1234 expect any
            wait 1ms
            terminate a
            join a
            ioctl other READ_EEPROM in u32:60 out 4 expect u32:0x1234
            close card; close other");
    }
}
