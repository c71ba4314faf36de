//! Time on the local bus of the PCI 9052 (`lclk=`): what each field of LASxBRD makes of an access.

use kernel::hal::hardware::Width;

use crate::rig::{Rig, refused};

const CARD: &str = "pci9052#0";
/// A clock of 40 ns, as in all stories but those of the key itself.
const CLOCKED: &str = "pci9052,lclk=25MHz";
const CLOCK: u64 = 40;
/// LAS0BRD and LAS1BRD; behind BAR2 is memory, behind BAR3 are ports.
const LAS0BRD: u64 = 0x28;
const LAS1BRD: u64 = 0x2C;

const BURST: u64 = 1;
const READY: u64 = 1 << 1;
const PREFETCH_COUNTS: u64 = 1 << 5;
const BITS_8: u64 = 0;
const BITS_16: u64 = 1 << 22;
const BITS_32: u64 = 2 << 22;

/// Wait states.
const fn nrad(states: u64) -> u64 {
    states << 6
}

const fn nrdd(states: u64) -> u64 {
    states << 11
}

const fn nxda(states: u64) -> u64 {
    states << 13
}

const fn nwad(states: u64) -> u64 {
    states << 15
}

const fn nwdd(states: u64) -> u64 {
    states << 20
}

/// A card whose spaces 0 and 1 have this descriptor.
fn card(spec: &str, descriptor: u64) -> Rig {
    let mut rig = Rig::new(&[spec]);
    describe(&mut rig, descriptor);
    rig
}

fn describe(rig: &mut Rig, descriptor: u64) {
    for register in [LAS0BRD, LAS1BRD] {
        rig.write(CARD, 0, register, Width::Dword, descriptor);
        assert_eq!(rig.took, 0, "the registers are in the chip");
    }
}

/// The clocks that an access takes; long after any other.
fn clocks(rig: &mut Rig, access: impl FnOnce(&mut Rig)) -> u64 {
    rig.pass_to(rig.now + 1_000_000);
    clocks_now(rig, access)
}

/// The same right behind the one before.
fn clocks_now(rig: &mut Rig, access: impl FnOnce(&mut Rig)) -> u64 {
    access(rig);
    let took = rig.took;
    assert_eq!(took % CLOCK, 0);
    rig.pass_to(rig.now + took);
    took / CLOCK
}

fn read(offset: u64, width: Width) -> impl FnOnce(&mut Rig) {
    move |rig| {
        rig.read(CARD, 2, offset, width);
    }
}

fn write(offset: u64, width: Width) -> impl FnOnce(&mut Rig) {
    move |rig| rig.write(CARD, 2, offset, width, 0x55)
}

fn port_read(width: Width) -> impl FnOnce(&mut Rig) {
    move |rig| {
        rig.read(CARD, 3, 0, width);
    }
}

fn port_write(width: Width) -> impl FnOnce(&mut Rig) {
    move |rig| rig.write(CARD, 3, 0, width, 0x55)
}

#[test]
fn without_the_key_no_access_takes_longer_than_another() {
    let mut rig = card("pci9052", BITS_8 | READY | nrad(31) | nwad(31) | nxda(3));
    for _ in 0..40 {
        assert_eq!(clocks_now(&mut rig, write(0, Width::Qword)), 0);
        assert_eq!(clocks_now(&mut rig, port_write(Width::Dword)), 0);
    }
    assert_eq!(clocks_now(&mut rig, read(0, Width::Qword)), 0);
}

#[test]
fn a_read_takes_its_address_cycle_its_wait_states_and_its_data() {
    let mut rig = card(CLOCKED, BITS_32);
    assert_eq!(clocks(&mut rig, read(0, Width::Dword)), 2);
    for wait_states in [1, 7, 31] {
        describe(&mut rig, BITS_32 | nrad(wait_states));
        assert_eq!(clocks(&mut rig, read(0, Width::Dword)), 2 + wait_states, "as soon as it is written");
        assert_eq!(clocks(&mut rig, port_read(Width::Byte)), 2 + wait_states);
    }
    // One data phase: what stands between several, and what is of writes, does not count.
    describe(&mut rig, BITS_32 | nrdd(3) | nxda(3) | nwad(31) | nwdd(3));
    assert_eq!(clocks(&mut rig, read(0, Width::Dword)), 2);
}

#[test]
fn an_access_that_is_wider_than_the_bus_takes_several_cycles() {
    for (width, phases) in [(BITS_8, [1, 2, 4, 8]), (BITS_16, [1, 1, 2, 4]), (BITS_32, [1, 1, 1, 2])] {
        let mut rig = card(CLOCKED, width | nrad(5) | nxda(3));
        for (access, phases) in [Width::Byte, Width::Word, Width::Dword, Width::Qword].into_iter().zip(phases)
        {
            assert_eq!(clocks(&mut rig, read(0, access)), 7 * phases + 3 * (phases - 1), "{access:?}");
        }
    }
    let mut rig = card(CLOCKED, BITS_16 | nrad(5));
    assert_eq!(clocks(&mut rig, read(1, Width::Word)), 14, "bytes of two bus words");
    assert_eq!(clocks(&mut rig, read(3, Width::Dword)), 21);
}

#[test]
fn a_burst_saves_the_address_cycles_of_an_access_that_is_wider_than_the_bus() {
    let mut rig = card(CLOCKED, BITS_8 | BURST | nrad(5) | nrdd(2) | nxda(3));
    assert_eq!(clocks(&mut rig, read(0, Width::Byte)), 7);
    assert_eq!(clocks(&mut rig, read(0, Width::Dword)), 7 + 3 * 3);
    assert_eq!(clocks(&mut rig, port_read(Width::Dword)), 4 * 7 + 3 * 3, "I/O space does not burst");
    describe(&mut rig, BITS_8 | BURST | nrad(5));
    assert_eq!(clocks(&mut rig, read(0, Width::Dword)), 7 + 3);
}

#[test]
fn the_board_is_waited_for_where_the_ready_input_is_enabled() {
    let slow = "pci9052,lclk=25MHz,ready=9";
    for (descriptor, taken) in [
        (BITS_32 | nrad(4), 6),
        (BITS_32 | READY | nrad(4), 11),
        (BITS_32 | READY | nrad(20), 22),
        (BITS_16 | READY | BURST | nrdd(1), 11 + 10),
    ] {
        assert_eq!(clocks(&mut card(slow, descriptor), read(0, Width::Dword)), taken, "{descriptor:08X}");
    }
    assert_eq!(
        clocks(&mut card(CLOCKED, BITS_32 | READY), read(0, Width::Dword)),
        2,
        "a board that is ready"
    );
}

#[test]
fn the_next_transaction_waits_for_the_bus_to_be_free() {
    let mut rig = card(CLOCKED, BITS_32 | nxda(3));
    assert_eq!(clocks(&mut rig, read(0, Width::Dword)), 2);
    assert_eq!(clocks_now(&mut rig, read(0, Width::Dword)), 3 + 2);
    assert_eq!(clocks_now(&mut rig, port_read(Width::Dword)), 3 + 2, "through whichever space");
    rig.pass_to(rig.now + 2 * CLOCK);
    assert_eq!(clocks_now(&mut rig, read(0, Width::Dword)), 1 + 2);
}

#[test]
fn what_is_prefetched_behind_a_read_keeps_the_next_access_waiting() {
    for (count, lwords) in [(0, 1), (1, 4), (2, 8), (3, 16)] {
        let prefetch = PREFETCH_COUNTS | count << 3;
        let mut rig = card(CLOCKED, BITS_32 | BURST | nrdd(1) | prefetch);
        assert_eq!(clocks(&mut rig, read(0, Width::Dword)), 2, "its own data comes first");
        assert_eq!(clocks_now(&mut rig, read(0, Width::Dword)), 2 * (lwords - 1) + 2, "{lwords} Lwords");
        rig.pass_to(rig.now + 1_000_000);
        assert_eq!(clocks_now(&mut rig, port_read(Width::Dword)), 2);
        assert_eq!(clocks_now(&mut rig, port_read(Width::Dword)), 2, "I/O space is not prefetched");
    }
    let mut rig = card(CLOCKED, BITS_32 | 3 << 3);
    assert_eq!(clocks(&mut rig, read(0, Width::Dword)), 2);
    assert_eq!(
        clocks_now(&mut rig, read(0, Width::Dword)),
        2,
        "the count does not count: it ends with the read"
    );
    let mut rig = card(CLOCKED, BITS_16 | nrad(1) | PREFETCH_COUNTS | 1 << 3);
    assert_eq!(clocks(&mut rig, read(0, Width::Dword)), 6);
    assert_eq!(
        clocks_now(&mut rig, read(0, Width::Dword)),
        6 * 3 + 6,
        "4 Lwords are 8 words, each in a transaction"
    );
}

#[test]
fn writes_cost_the_processor_nothing_until_the_fifo_is_full() {
    let mut rig = card(CLOCKED, BITS_32 | nwad(6) | nxda(2));
    rig.pass_to(1_000_000);
    for _ in 0..16 {
        assert_eq!(clocks_now(&mut rig, write(0, Width::Dword)), 0);
    }
    assert_eq!(clocks_now(&mut rig, write(0, Width::Dword)), 8, "until the first one has left");
    assert_eq!(clocks_now(&mut rig, write(0, Width::Dword)), 10, "and the second");
    assert_eq!(clocks_now(&mut rig, write(0, Width::Qword)), 20, "one of two Lwords needs room for both");
    // The bus is not free yet, and 16 Lwords are there, the last two of one access.
    assert_eq!(
        clocks_now(&mut rig, read(0, Width::Dword)),
        2 + 14 * 10 + 20 + 2,
        "a read does not pass them"
    );
    assert_eq!(clocks(&mut rig, write(0, Width::Dword)), 0);
    assert_eq!(clocks_now(&mut rig, read(0, Width::Dword)), 10 + 2);
    let mut rig = card(CLOCKED, BITS_8 | BURST | nwad(6) | nwdd(3));
    assert_eq!(clocks(&mut rig, write(0, Width::Dword)), 0);
    assert_eq!(clocks_now(&mut rig, read(0, Width::Byte)), 8 + 3 * 4 + 2);
}

#[test]
fn a_write_to_ports_is_not_posted_and_shows_its_own_wait_states() {
    let mut rig = card(CLOCKED, BITS_8 | nrad(31) | nwad(6) | nxda(3));
    assert_eq!(clocks(&mut rig, port_write(Width::Byte)), 8);
    assert_eq!(clocks(&mut rig, port_write(Width::Dword)), 4 * 8 + 3 * 3);
    for (wait_states, taken) in [(0, 4), (3, 7)] {
        describe(&mut rig, BITS_32 | BURST | nwdd(wait_states) | nrad(31));
        assert_eq!(clocks(&mut rig, write(0, Width::Qword)), 0);
        rig.write(CARD, 0, LAS0BRD, Width::Dword, BITS_32);
        assert_eq!(clocks_now(&mut rig, read(0, Width::Dword)) - 2, taken - 1, "two Lwords in one burst");
    }
}

#[test]
fn reset_empties_the_chip_and_the_descriptor_is_whoever_s_was_last() {
    let slow = BITS_32 | nrad(31) | nwad(31);
    let mut rig = card("pci9052,lclk=1MHz", slow);
    for _ in 0..16 {
        rig.write(CARD, 2, 0, Width::Dword, 1);
    }
    rig.write(CARD, 0, 0x50, Width::Dword, 1 << 30);
    rig.write(CARD, 0, 0x50, Width::Dword, 0);
    rig.read(CARD, 2, 0, Width::Dword);
    assert_eq!(rig.took, 33_000, "nothing is under way");
    rig.pass_to(1_000_000);
    rig.write(CARD, 0, 0x50, Width::Dword, 1 << 29);
    rig.read(CARD, 2, 0, Width::Dword);
    assert_eq!(rig.took, 2_000, "the EEPROM has no wait states");
}

#[test]
fn the_clock_is_a_frequency_or_a_time() {
    for (key, taken) in
        [("33MHz", 61), ("33333kHz", 60), ("8250kHz", 243), ("40ns", 80), ("1us", 2_000), ("40MHz", 50)]
    {
        let mut rig = Rig::new(&[&format!("pci9052,lclk={key}")]);
        rig.read(CARD, 2, 0, Width::Dword);
        assert_eq!(rig.took, taken, "{key}");
    }
    for key in ["33", "0MHz", "41MHz", "24ns", "2ms", "fast", "99999999999999999999us"] {
        let message = refused(&format!("pci9052,lclk={key}"));
        assert!(message.contains("lclk is a local clock of at most 40MHz, e.g. 33MHz"), "{message}");
    }
    assert!(refused("pci9052,ready=3").contains("lclk= says how long they are"));
    assert!(refused("pci9052,lclk=33MHz,ready=256").contains("wait states, 0 to 255"));
}
