//! Stories of time on the local bus of a PCI 9052 (`lclk=`), by a compiled driver (`drivers/c/localbus.c`) that reads, writes and polls through
//! local space 0: its loops take the virtual time that the space's descriptor says.

use dirql::{Bench, Machine};

use super::rig::{driver, finish, start};

const READ: u32 = 0x0022_3880;
const WRITE: u32 = 0x0022_3884;
const POLL: u32 = 0x0022_3888;

/// LAS0BRD: 32 bits wide without wait states, and what slows it down.
const FAST: u32 = 2 << 22;
const SLOW_READS: u32 = FAST | 31 << 6;
const SLOW_WRITES: u32 = FAST | 31 << 15;
/// Whatever the EEPROM says: the built-in board's is [`FAST`].
const AS_IT_IS: u32 = u32::MAX;

/// The performance counter's tick, ns: what the driver reads is up to one off.
const TICK: u64 = 100;

fn machine(card: &'static str) -> Machine {
    let machine = start(move || Bench::new().driver(driver("localbus.sys")).device(card));
    // The first request of each kind finds out more than those that follow.
    for code in [READ, WRITE] {
        ask(&machine, code, AS_IT_IS, 16);
    }
    machine
}

/// What a request took as the driver has it, in ns, the accesses it made, and what it took by the machine's clock.
fn ask(machine: &Machine, code: u32, descriptor: u32, count: u32) -> (u64, u64, u64) {
    let file = machine.open(r"\\.\LocalBus").unwrap();
    let asked = [descriptor.to_le_bytes(), count.to_le_bytes()].concat();
    let before = machine.now();
    let answers = file.device_control(code, &asked, 8).unwrap();
    let took = machine.now() - before;
    file.close().unwrap();
    let word = |at: usize| u64::from(u32::from_le_bytes(answers[at..at + 4].try_into().unwrap()));
    (word(0), word(4), took)
}

#[track_caller]
fn longer(than: (u64, u64, u64), it: (u64, u64, u64), by: u64) {
    assert_eq!(it.2 - than.2, by, "by the machine's clock");
    assert!((it.0 - than.0).abs_diff(by) <= TICK, "by the driver's: {} and {}", than.0, it.0);
}

#[test]
fn a_loop_of_reads_takes_as_much_longer_as_the_descriptor_says() {
    let plain = machine("pci9052");
    let usual = ask(&plain, READ, FAST, 100);
    longer(usual, ask(&plain, READ, SLOW_READS, 100), 0);
    finish(plain);
    let clocked = machine("pci9052,lclk=25MHz");
    longer(usual, ask(&clocked, READ, FAST, 100), 100 * 2 * 40);
    longer(usual, ask(&clocked, READ, SLOW_READS, 100), 100 * 33 * 40);
    longer(usual, ask(&clocked, READ, SLOW_WRITES, 100), 100 * 2 * 40);
    longer(usual, ask(&clocked, READ, 31 << 6, 100), 100 * 4 * 33 * 40);
    finish(clocked);
}

#[test]
fn a_loop_of_writes_goes_on_at_once_until_the_bridge_has_no_room() {
    let plain = machine("pci9052");
    let few = ask(&plain, WRITE, FAST, 16);
    let many = ask(&plain, WRITE, FAST, 516);
    finish(plain);
    let clocked = machine("pci9052,lclk=25MHz");
    longer(few, ask(&clocked, WRITE, SLOW_WRITES, 16), 0);
    // A read waits until they have left.
    ask(&clocked, READ, AS_IT_IS, 1);
    let slow = ask(&clocked, WRITE, SLOW_WRITES, 516);
    // From then on a write goes on when one has left: 500 of them, but for what the processor did meanwhile.
    let takes = 500 * 33 * 40;
    assert!((slow.2 - few.2).abs_diff(takes) < 2 * 33 * 40, "{few:?} {slow:?}");
    assert!(slow.2 > 4 * many.2, "{many:?} {slow:?}");
    finish(clocked);
}

#[test]
fn a_driver_that_polls_a_slow_bus_reads_less_often_until_the_device_is_done() {
    let polls = |card, descriptor| {
        let machine = machine(card);
        let (took, count, _) = ask(&machine, POLL, descriptor, 0);
        finish(machine);
        (took, count)
    };
    let (took, often) = polls("pci9052,latency=100us", AS_IT_IS);
    let (slow, seldom) = polls("pci9052,latency=100us,lclk=25MHz", SLOW_READS);
    assert!((100_000..102_000).contains(&took), "{took}");
    assert!((100_000..104_000).contains(&slow), "the device takes what it takes: {slow}");
    assert!(often > 300 && seldom < 70 && seldom > 50, "{often} and {seldom} reads");
}

#[test]
fn a_run_with_time_on_the_local_bus_is_the_same_each_time() {
    let run = || {
        let machine = machine("pci9052,lclk=33MHz,ready=3");
        let answers = [READ, WRITE, POLL].map(|code| ask(&machine, code, FAST | 2, 300));
        (answers, finish(machine).to_string())
    };
    assert_eq!(run(), run());
}
