//! Stories of a card and its driver, the same for the C driver and the Rust one: transfers that end in an interrupt, a
//! shared line, registers by ports, stopping, removing, pulling the card out.

use dirql::{Bench, Machine, Report};

use super::rig::{self, driver, play, start, try_play};

/// A driver for the PCI 9052, and the name its first device has.
#[derive(Clone, Copy)]
struct Driver {
    name: &'static str,
    device: &'static str,
}

const C: Driver = Driver { name: "pciline", device: r"\\.\PciLine0" };
const RUST: Driver = Driver { name: "pci9052", device: r"\\.\Pci9052-0" };

impl Driver {
    fn bench(self, cards: &[&str]) -> Bench {
        self.bench_by(&driver(&format!("{}.inf", self.name)), cards)
    }

    fn bench_by(self, inf: &std::path::Path, cards: &[&str]) -> Bench {
        let bench = Bench::new().driver(driver(&format!("{}.sys", self.name))).inf(inf);
        cards.iter().fold(bench, |bench, card| bench.device(*card))
    }

    fn machine(self, cards: &[&str]) -> Machine {
        start(|| self.bench(cards))
    }

    /// Carries out a script in which `DEV` is the device, and ends the machine.
    fn run(self, cards: &[&str], script: &str) -> Report {
        let machine = self.machine(cards);
        // What goes wrong stands in the report.
        let _ = try_play(&machine, &script.replace("DEV", self.device));
        machine.finish()
    }

    /// The same with the INF's settings changed.
    fn run_with_setting(self, from: &str, to: &str, cards: &[&str], script: &str) -> Report {
        let inf = rig::changed_inf("card-setting", &format!("{}.inf", self.name), |text| {
            assert!(text.contains(from), "the INF has `{from}`");
            text.replace(from, to)
        });
        let machine = start(|| self.bench_by(&inf, cards));
        let _ = try_play(&machine, &script.replace("DEV", self.device));
        machine.finish()
    }
}

/// Makes a story for each driver.
macro_rules! stories {
    ($($(#[$meta:meta])* fn $name:ident($driver:ident) $body:block)*) => {
        mod c {
            use super::*;
            $($(#[$meta])* #[test] fn $name() { super::$name(C) })*
        }
        mod rust {
            use super::*;
            $($(#[$meta])* #[test] fn $name() { super::$name(RUST) })*
        }
        $(fn $name($driver: Driver) $body)*
    };
}

const WRITE_AND_READ: &str = r"open DEV as card
    write card hex:3c_a5_00_ff at 0x10 expect bytes 4
    read card 4 at 0x10 expect hex:3ca500ff
    close card";

stories! {
    fn a_device_is_started_idled_stopped_and_removed_without_a_script(driver) {
        let machine = driver.machine(&["pci9052"]);
        assert!(machine.is_ready());
        machine.wait(1_000_000).unwrap();
        let report = machine.finish();
        report.expect_clean();
        assert!(report.prints.iter().any(|line| line.contains("unloaded")), "{report}");
    }

    fn a_write_ends_by_the_cards_interrupt_and_is_read_back(driver) {
        let report = driver.run(&["pci9052"], WRITE_AND_READ);
        report.expect_clean();
        assert_eq!(report.sums.interrupts, (2, 0), "one for each transfer\n{report}");
        assert_eq!(report.sums.dpcs, 2, "{report}");
        assert_eq!(report.sums.still_allocated(), 0, "{report}");
    }

    fn many_writes_from_two_threads_are_served_one_by_one(driver) {
        let script = r"open DEV as a overlapped
            open DEV as b overlapped
            thread one { write a text:aaaa at 0; write a text:cccc at 8 }
            thread two { write b text:bbbb at 4; write b text:dddd at 12 }
            join one; join two
            read a 16 at 0 expect text:aaaabbbbccccdddd";
        let report = driver.run(&["pci9052"], script);
        report.expect_clean();
        assert_eq!(report.sums.interrupts.0, 5, "{report}");
    }

    fn on_four_processors_it_is_the_same(driver) {
        let machine = start(|| driver.bench(&["pci9052"]).processors(4));
        play(&machine, &WRITE_AND_READ.replace("DEV", driver.device));
        machine.finish().expect_clean();
    }

    fn on_windows_10_it_is_the_same(driver) {
        let machine = start(|| driver.bench(&["pci9052"]).windows(dirql::windows::parse("10-22h2").unwrap()));
        play(&machine, &WRITE_AND_READ.replace("DEV", driver.device));
        machine.finish().expect_clean();
    }

    fn two_cards_share_a_line_and_each_serves_its_own(driver) {
        let report = driver.run(&["pci9052,line=18", "pci9052,line=18"], WRITE_AND_READ);
        report.expect_clean();
        assert_eq!(report.sums.interrupts.0, 2, "{report}");
        assert!(report.sums.interrupts.1 <= 2, "the other card's routine says not mine\n{report}");
    }

    fn registers_can_be_reached_by_ports(driver) {
        let (from, to) = ("HKR,,UsePorts,0x00010001,0", "HKR,,UsePorts,0x00010001,1");
        let report = driver.run_with_setting(from, to, &["pci9052"], WRITE_AND_READ);
        report.expect_clean();
        assert_eq!(report.sums.interrupts.0, 2, "{report}");
    }

    fn a_waiter_is_woken_by_the_cards_local_side(driver) {
        let script = r"open DEV as card
            open DEV as other
            waiter: ioctl card 0x226400
            wait 100us
            expect pending waiter
            poke pci9052#0 linti1 1
            join waiter
            poke pci9052#0 linti1 0";
        driver.run(&["pci9052"], script).expect_clean();
    }

    fn a_waiter_is_set_free_by_cancelling(driver) {
        let script = r"open DEV as card
            waiter: ioctl card 0x226400 expect STATUS_CANCELLED
            wait 100us
            cancel card
            join waiter";
        driver.run(&["pci9052"], script).expect_clean();
    }

    fn a_stopped_device_starts_again_and_serves(driver) {
        let script = r"open DEV as card
            write card hex:01 at 0
            stop-device
            start-device
            write card hex:02 at 1
            read card 2 at 0 expect hex:0102
            close card";
        driver.run(&["pci9052"], script).expect_clean();
    }

    fn a_write_while_the_device_is_stopped_waits_for_its_start(driver) {
        let script = r"open DEV as card
            stop-device
            writer: write card hex:07 at 0
            wait 10ms
            expect pending writer
            start-device
            join writer
            read card 1 at 0 expect hex:07";
        driver.run(&["pci9052"], script).expect_clean();
    }

    fn a_question_to_stop_can_be_taken_back(driver) {
        let script = r"open DEV as card
            query-stop; cancel-stop
            write card hex:07 at 0
            close card
            query-remove; cancel-remove
            open DEV as card
            read card 1 at 0 expect hex:07";
        driver.run(&["pci9052"], script).expect_clean();
    }

    fn an_open_handle_keeps_the_device_from_being_removed(driver) {
        let script = r"open DEV as card
            query-remove expect failure
            write card hex:07 at 0
            close card
            remove-device
            open DEV as gone expect failure";
        driver.run(&["pci9052"], script).expect_clean();
    }

    fn a_card_pulled_out_fails_its_requests_and_goes_with_the_last_handle(driver) {
        let script = r"open DEV as card
            write card hex:07 at 0
            surprise-remove
            write card hex:08 at 0 expect failure
            close card";
        driver.run(&["pci9052"], script).expect_clean();
    }

    fn a_card_pulled_out_under_a_waiter_ends_its_wait(driver) {
        let script = r"open DEV as card
            open DEV as other
            waiter: ioctl card 0x226400 expect failure
            wait 100us
            surprise-remove
            join waiter
            close card; close other";
        driver.run(&["pci9052"], script).expect_clean();
    }

    fn without_an_inf_the_driver_is_installed_for_the_card_directly(driver) {
        let machine = start(|| Bench::new().driver(rig::driver(&format!("{}.sys", driver.name))).device("pci9052"));
        play(&machine, &WRITE_AND_READ.replace("DEV", driver.device));
        machine.finish().expect_clean();
    }

    fn without_a_card_only_the_driver_is_loaded(driver) {
        let machine = start(|| Bench::new().driver(rig::driver(&format!("{}.sys", driver.name))));
        let report = machine.finish();
        report.expect_clean();
        assert!(report.notes.iter().any(|note| note.contains("--device")), "{report}");
    }

    fn a_shared_line_nobody_claims_is_an_interrupt_storm(driver) {
        let stuck = "pci,id=1234:5678,bar0=mem:128,irq=stuck,line=18";
        let report = driver.run(&["pci9052,line=18", stuck], WRITE_AND_READ);
        let verdict = report.expect_verdict();
        assert_eq!(verdict.bug_check.map(|check| check.code), Some(0xF2), "{report}");
        assert!(verdict.message.contains("pci#0"), "it names the card that pulls the line\n{report}");
    }
}

/// Not: interrupt-storm
#[test]
fn an_interrupt_is_connected_in_four_ways() {
    let setting = "HKR,Parameters,InterruptMode,0x00010001,0";
    for mode in 1..=3 {
        let to = format!("HKR,Parameters,InterruptMode,0x00010001,{mode}");
        let report = C.run_with_setting(setting, &to, &["pci9052"], WRITE_AND_READ);
        report.expect_clean();
        assert!(report.prints[0].contains(&format!("interrupt mode {mode}")), "{report}");
        assert_eq!(report.sums.interrupts.0, 2, "{report}");
    }
}

#[test]
fn an_edge_of_the_local_side_is_remembered() {
    let (from, to) = ("HKR,,LintEdge,0x00010001,0", "HKR,,LintEdge,0x00010001,1");
    let script = r"open DEV as card
        waiter: ioctl card 0x226400
        wait 100us
        poke pci9052#0 linti1 1; poke pci9052#0 linti1 0
        join waiter";
    C.run_with_setting(from, to, &["pci9052"], script).expect_clean();
}
