//! What happens at once: random schedules on two processors, and all schedules of a short story.

use dirql::explore::{Bounds, Policy};
use dirql::{Outcome, ScriptText};

use super::twin::{holds, spelled};
use super::{C, RUST, Twin};
use crate::rig::{seeds, start};

/// Tells a story on two processors by several random schedules, in checked machines by turns.
fn at_random(twin: Twin, card: &str, script: &str) {
    for seed in seeds(12) {
        let bench = || twin.bench(&[card]).processors(2).checked(seed % 2 == 0).policy(Policy::random(seed));
        holds(start(bench), script);
    }
}

/// Tells a story by all schedules with so many preemptions at most.
fn by_all(twin: Twin, card: &str, preemptions: usize, script: &str) {
    let play = ScriptText::typed(&spelled(script)).play().unwrap();
    let bounds = Bounds { preemptions, schedules: 200_000, shared: true, ..Bounds::default() };
    let bench = twin.bench(&[card]).unobserved().processors(2);
    let searched = bench.search(&play, &bounds, |report| report.outcome() != Outcome::Clean);
    let searched = searched.unwrap_or_else(|error| panic!("{error}"));
    let found = searched.found.map(|found| found.1.to_string());
    assert!(searched.complete && found.is_none(), "{found:?}");
}

stories! {
    fn a_transfer_and_its_cancellation(twin) {
        at_random(twin, "pci9052,latency=2us", "open DEV as card overlapped
            async a write card hex:01 at 0
            t: cancel card
            async b write card hex:02 at 1
            join t; join a expect any; join b expect any; close card");
    }

    fn a_waiter_its_interrupt_and_its_cancellation(twin) {
        at_random(twin, "pci9052", "open DEV as card overlapped
            async waits ioctl card WAIT
            t: cancel waits
            poke pci9052#0 linti1 1
            join t; join waits expect any
            poke pci9052#0 linti1 0; close card");
    }

    fn transfers_and_a_card_that_is_pulled_out(twin) {
        at_random(twin, "pci9052,latency=2us", "open DEV as a; open DEV as b
            one: write a hex:01 at 0 expect any; two: read b 1 at 0 expect any; three: ioctl b WAIT expect any
            surprise-remove
            join one; join two; join three; close a; close b");
    }

    fn transfers_and_a_stop(twin) {
        at_random(twin, "pci9052,latency=2us", "open DEV as a; open DEV as b
            thread one { write a hex:01 at 0; write a hex:02 at 1 }
            thread two { write b hex:03 at 2; write b hex:04 at 3 }
            stop-device; start-device
            join one; join two
            read a 4 at 0 expect hex:01020304; close a; close b");
    }

    fn transfers_and_a_loss_of_power(twin) {
        at_random(twin, "pci9052,latency=2us", "open DEV as a; open DEV as b
            thread one { write a hex:01 at 0; read a 1 at 0 }
            thread two { ioctl b READ_LCR in u32:0 out 4 expect any; write b hex:03 at 2 }
            power d3; power d0
            join one; join two; close a; close b");
    }

    /// It begins to wait, and enables interrupts for that, when the card has been sent to sleep meanwhile.
    fn a_waiter_and_a_loss_of_power(twin) {
        for seed in seeds(128) {
            let bench = || twin.bench(&["pci9052"]).processors(2).policy(Policy::random(seed));
            holds(start(bench), "open DEV as card overlapped
                t: async waits ioctl card WAIT
                u: power d3; join u; join t; power d0
                cancel card; join waits expect any; close card");
        }
    }

    fn transfers_and_the_end_of_their_process(twin) {
        at_random(twin, "pci9052,latency=2us", "process child
            child: open DEV as mine overlapped
            child: async one write mine hex:01 at 0
            child: async two read mine 1 at 0
            child: async three ioctl mine WAIT
            join child
            exit child
            open DEV as card; write card hex:01 at 0; close card");
    }

    fn a_word_that_is_programmed_and_a_loss_of_power(twin) {
        at_random(twin, "pci9052", "open DEV as card
            t: ioctl card WRITE_EEPROM in u32:60 + u32:0x1234 expect success or STATUS_DEVICE_BUSY
            power d3; power d0
            join t
            ioctl card WRITE_EEPROM in u32:61 + u32:0x4321
            ioctl card READ_EEPROM in u32:61 out 4 expect u32:0x4321
            close card");
    }

    fn an_administrator_and_a_removal(twin) {
        at_random(twin, "pci9052", "wait 1ms
            t: wmi query STATISTICS expect any
            u: wmi execute STATISTICS method 1 out 4 expect any
            surprise-remove
            join t; join u");
    }

    fn two_cards_on_one_line_on_two_processors(twin) {
        for seed in seeds(12) {
            let cards = ["pci9052,line=18,latency=2us", "pci9052,line=18,latency=2us"];
            holds(start(|| twin.bench(&cards).processors(2).policy(Policy::random(seed))), r"open \\.\Pci9052-0 as a; open \\.\Pci9052-1 as b
                one: write a hex:01 at 0 expect any; two: write b hex:02 at 0
                surprise-remove pci9052#0
                join one; join two
                close a; close b");
        }
    }

    fn every_schedule_of_a_write_and_its_cancellation_with_one_preemption(twin) {
        by_all(twin, "pci9052,latency=2us", 1, "open DEV as card overlapped
            t: cancel card
            async w write card hex:01 at 0
            join t; wait 1ms; close card");
    }
}
