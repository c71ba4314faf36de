//! Starting: the ways that a card's resources can be, its EEPROM's contents, several cards, several Windows.

use dirql::{Outcome, Platform, Report, windows};

use super::log::Log;
use super::twin::{holds, image};
use super::{C, RUST, Twin};
use crate::rig::start;

const IO: &str = "open DEV as card
    write card hex:3c_a5_00_ff at 0x10; read card 4 at 0x10 expect hex:3ca500ff
    ioctl card READ_LCR in u32:0 out 4 expect u32:0x0fff0000
    close card";
const BY_PORTS: (&str, &str) = ("HKR,,UsePorts,0x00010001,0", "HKR,,UsePorts,0x00010001,1");

/// A card that the driver cannot use: it is not started, the event log says why, and nothing is left.
fn is_not_started(twin: Twin, card: &str) -> Report {
    let log = Log::default();
    let machine = start(|| twin.bench(&[card]).reader(log.clone()));
    assert!(!machine.is_ready());
    let report = machine.finish();
    assert_eq!(report.outcome(), Outcome::Unexpected, "the device does not start\n{report}");
    assert!(report.findings.is_empty(), "{report}");
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
    assert_eq!(log.entries(), [(0xC004_0003, 2, 0xC000_0182)], "{report}");
    report
}

stories! {
    fn without_a_script_it_is_started_stopped_started_and_removed(twin) {
        let machine = twin.machine("pci9052");
        assert!(machine.is_ready());
        machine.wait(1_000_000_000).unwrap();
        let report = holds(machine, "");
        assert_eq!(report.sums.interrupts, (0, 0), "{report}");
        let said: Vec<_> = report.prints.iter().map(|line| line.split([',', '\n']).next().unwrap()).collect();
        let [loaded, started, stopped, unloaded] =
            ["loaded", "started", "stopped", "unloaded"].map(|what| format!("pci9052: {what}"));
        assert_eq!(said, [&loaded, &started, &stopped, &started, &stopped, &unloaded]);
    }

    fn without_a_card_it_is_only_loaded(twin) {
        let report = holds(start(|| twin.alone()), "");
        assert!(report.notes.iter().any(|note| note.contains("--device")), "{report}");
    }

    fn registers_are_reached_by_ports_where_the_setting_says_so(twin) {
        twin.holds_with(BY_PORTS.0, BY_PORTS.1, "pci9052", IO);
    }

    fn a_card_whose_registers_are_ports_only_is_reached_by_them(twin) {
        let card = format!("pci9052,eeprom={}", image(&[(0x60, 0x0078_6000)]));
        twin.holds(&card, IO);
    }

    fn a_card_whose_registers_are_memory_only_is_reached_by_it_whatever_the_setting(twin) {
        let card = format!("pci9052,eeprom={}", image(&[(0x60, 0x0078_5000)]));
        twin.holds_with(BY_PORTS.0, BY_PORTS.1, &card, IO);
    }

    fn a_card_without_ports_for_local_memory_has_its_doorbell_in_memory(twin) {
        let card = format!("pci9052,eeprom={}", image(&[(0x14, 0), (0x28, 0)]));
        twin.holds_with(BY_PORTS.0, BY_PORTS.1, &card, "open DEV as card
            write card hex:3c at 0; read card 1 at 0 expect hex:3c; close card");
    }

    fn the_first_9050_is_read_by_its_other_window_where_one_fails(twin) {
        twin.holds("pci9052,rev=1,at0=0xfebff080", IO);
    }

    fn a_9050_whose_window_lies_well_is_read_by_it(twin) {
        twin.holds("pci9052,rev=1,at0=0xfebff000", IO);
    }

    fn a_larger_local_space_works_as_far_as_the_board_goes(twin) {
        let card = format!("pci9052,eeprom={}", image(&[(0x10, 0x0FFE_0000)]));
        twin.holds(&card, "open DEV as card
            ioctl card COUNTERS out 16 expect zero:12 + u32:0x20000
            write card hex:3c at 0xfff7
            read card 2 at 0xfff7 expect STATUS_INVALID_PARAMETER
            close card");
    }

    fn a_local_space_that_is_too_small_is_no_card_of_its(twin) {
        is_not_started(twin, &format!("pci9052,eeprom={}", image(&[(0x10, 0x0FFF_8000)])));
    }

    fn a_card_without_local_memory_is_not_started(twin) {
        is_not_started(twin, &format!("pci9052,eeprom={}", image(&[(0x24, 0)])));
    }

    fn a_card_without_an_interrupt_pin_is_not_started(twin) {
        is_not_started(twin, &format!("pci9052,eeprom={}", image(&[(0x0C, 0)])));
    }

    fn a_card_whose_eeprom_is_blank_is_not_started(twin) {
        is_not_started(twin, "pci9052,eeprom=blank");
    }

    fn a_card_without_an_eeprom_is_not_started(twin) {
        is_not_started(twin, "pci9052,eeprom=none");
    }

    fn another_card_with_its_id_and_other_windows_is_not_started(twin) {
        is_not_started(twin, "pci,id=10b5:9050,bar0=mem:128,irq");
    }

    fn a_card_with_only_its_registers_as_ports_and_no_memory_is_not_started(twin) {
        is_not_started(twin, "pci,id=10b5:9050,bar1=io:128,irq");
    }

    fn a_card_with_another_id_is_not_for_it(twin) {
        let card = format!("pci9052,eeprom={}", image(&[(0x00, 0x9054_10B5)]));
        let refused = twin.bench(&[&card]).start().err().unwrap().to_string();
        assert!(refused.contains("no model in the file matches"), "{refused}");
        assert!(refused.contains(r"PCI\VEN_10B5&DEV_9054"), "{refused}");
    }

    fn another_subsystem_is_the_same_card(twin) {
        twin.holds("pci9052,sub=1234:5678", IO);
    }

    fn an_eeprom_that_enables_interrupts_at_reset_does_it_no_harm(twin) {
        let card = format!("pci9052,eeprom={}", image(&[(0x5C, 0x0000_0053)]));
        let report = twin.holds(&card, IO);
        assert_eq!(report.sums.interrupts, (2, 0), "{report}");
    }

    fn an_eeprom_with_the_wrong_polarity_is_set_right_before_anybody_listens(twin) {
        // Active low and enabled: asserted from the moment that the card has its power.
        let card = format!("pci9052,eeprom={}", image(&[(0x5C, 0x0000_0011)]));
        let report = twin.holds(&card, IO);
        assert_eq!(report.sums.interrupts, (2, 0), "{report}");
    }

    fn an_eeprom_that_is_shorter_than_its_part_reads_ones_behind_its_end(twin) {
        let card = format!("pci9052,eeprom={}", image(&[]));
        twin.holds(&card, "open DEV as card
            ioctl card READ_EEPROM in u32:49 out 4 expect u32:0x4000
            ioctl card READ_EEPROM in u32:50 out 4 expect u32:0xffff
            close card");
    }

    fn two_cards_have_each_its_own_memory_registers_and_names(twin) {
        let machine = start(|| twin.bench(&["pci9052", "pci9052"]));
        holds(machine, r"open \\.\Pci9052-0 as a; open \\.\Pci9052-1 as b
            write a hex:01 at 0; write b hex:02 at 0
            ioctl a WRITE_LCR in u32:0x40 + u32:0x41
            ioctl b READ_LCR in u32:0x40 out 4 expect u32:0
            read a 1 at 0 expect hex:01; read b 1 at 0 expect hex:02
            close a; close b");
    }

    fn twelve_cards_are_numbered_with_two_digits(twin) {
        let cards = ["pci9052"; 12];
        holds(start(|| twin.bench(&cards)), r"open \\.\Pci9052-11 as last
            write last hex:01 at 0; close last
            open \\.\Pci9052-12 as none expect STATUS_OBJECT_NAME_NOT_FOUND");
    }

    fn a_card_that_cannot_be_started_does_not_keep_another_from_working(twin) {
        let machine = start(|| twin.bench(&["pci9052,eeprom=blank", "pci9052"]));
        let played = crate::rig::try_play(&machine, r"open \\.\Pci9052-1 as card; write card hex:01 at 0; close card");
        let report = machine.finish();
        assert!(played.is_ok(), "{played:?}\n{report}");
        assert_eq!(report.outcome(), Outcome::Unexpected, "{report}");
        assert_eq!(report.sums.still_allocated(), 0, "{report}");
    }

    fn the_card_works_where_the_bus_has_other_addresses_than_the_processors(twin) {
        let platform = Platform { shifted_bus: true, ..Platform::default() };
        holds(start(|| twin.bench(&["pci9052"]).platform(platform)), IO);
    }

    fn the_card_works_where_writes_arrive_late(twin) {
        let platform = Platform { posted: 2_000, ..Platform::default() };
        for seed in crate::rig::seeds(5) {
            let policy = dirql::explore::Policy::random(seed);
            holds(start(|| twin.bench(&["pci9052"]).platform(platform).policy(policy)), IO);
        }
    }

    fn the_card_works_on_windows_10(twin) {
        holds(start(|| twin.bench(&["pci9052"]).windows(windows::parse("10-22h2").unwrap())), IO);
    }

    fn the_card_works_on_four_processors(twin) {
        holds(start(|| twin.bench(&["pci9052"]).processors(4)), "open DEV as a overlapped; open DEV as b overlapped
            thread one { write a text:aaaa at 0; write a text:cccc at 8 }
            thread two { write b text:bbbb at 4; write b text:dddd at 12 }
            join one; join two
            read a 16 at 0 expect text:aaaabbbbccccdddd
            close a; close b");
    }

    fn the_card_works_in_a_checked_machine(twin) {
        holds(start(|| twin.bench(&["pci9052"]).checked(true)), IO);
    }
}
