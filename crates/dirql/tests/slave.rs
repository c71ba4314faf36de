//! System DMA, as a compiled driver does it (`drivers/c/slave.c`) on the card `slave`: a channel of the PC's DMA controllers moves the bytes of a
//! device that is no bus master, by the names of Windows NT 4 and by those of today.

use dirql::explore::Policy;
use dirql::{Bench, Machine};
use kernel::verdict::Tier;

use super::rig::{self, driver, finish, pattern, start};

const DEVICE: &str = r"\\.\DirqlSlave";
const SETUP: u32 = 0x0022_3400;
/// Channels that move bytes, and words.
const CHANNELS: [u32; 3] = [1, 3, 6];
/// Names: of DMA_OPERATIONS, and of Windows NT 4.
const OPERATIONS: u32 = 0;
const OLD: u32 = 1;

fn bench(channel: u32) -> Bench {
    Bench::new()
        .driver(driver("slave.sys"))
        .inf(driver("slave.inf"))
        .device(format!("slave,channel={channel},burst=64,every=10us"))
}

fn set_up(machine: &Machine, how: u32, longest: u32) {
    let file = machine.open(DEVICE).unwrap();
    let input: Vec<u8> = [how, longest].iter().flat_map(|word| word.to_le_bytes()).collect();
    file.device_control(SETUP, &input, 0).unwrap();
    file.close().unwrap();
}

/// What is written comes back, in parts of a few pages.
fn write_and_read(machine: &Machine, length: usize) {
    let file = machine.open(DEVICE).unwrap();
    assert_eq!(file.write(&pattern(length)).unwrap(), length as u64);
    let came = file.read(u32::try_from(length).unwrap()).unwrap();
    assert!(came == pattern(length), "what was written");
    file.close().unwrap();
}

#[test]
fn what_the_channel_moves_to_the_card_comes_back_in_as_many_parts_as_it_takes() {
    for channel in CHANNELS {
        for checked in [false, true] {
            let machine = start(|| bench(channel).checked(checked));
            set_up(&machine, OPERATIONS, 0x2000);
            write_and_read(&machine, 5 * 4096 + 122);
            finish(machine);
        }
    }
}

#[test]
fn a_transfer_is_no_longer_than_what_the_controllers_count_within_their_64_kib() {
    let machine = start(|| bench(1));
    set_up(&machine, OPERATIONS, 0x4_0000);
    write_and_read(&machine, 0x1_0000 - 2);
    finish(machine);
}

#[test]
fn transfers_hold_in_random_schedules_whatever_is_copied() {
    for seed in rig::seeds(12) {
        let channel = CHANNELS[usize::try_from(seed).unwrap() % CHANNELS.len()];
        let machine = start(|| bench(channel).processors(2).policy(Policy::random(seed)));
        set_up(&machine, OPERATIONS, 0x2000);
        write_and_read(&machine, 2 * 4096 + 6);
        finish(machine);
    }
}

/// Of `HalGetAdapter`, Driver Verifier alone has something to say.
fn expect_obsolete_alone(machine: Machine) {
    let report = machine.finish();
    assert!(report.verdict.is_none() && !report.findings.is_empty(), "{report}");
    for finding in &report.findings {
        assert_eq!((finding.rule, finding.tier), ("obsolete-hal-get-adapter", Tier::Verifier), "{report}");
    }
}

#[test]
fn a_driver_of_windows_nt_4_transfers_by_the_exports_of_its_day() {
    let machine = start(|| bench(1));
    set_up(&machine, OLD, 0x2000);
    write_and_read(&machine, 3 * 4096);
    expect_obsolete_alone(machine);
}

#[test]
fn the_exports_of_windows_nt_4_count_down_flush_and_give_back_what_others_wait_for() {
    for channel in CHANNELS {
        let machine = start(|| bench(channel));
        let made = rig::checks_made(&machine, DEVICE, "OldWay", &[]).unwrap();
        assert!(made >= 34, "only {made} checks were made");
        expect_obsolete_alone(machine);
    }
}

fn tell(channel: u32, story: &str, checks: u32) {
    for checked in [false, true] {
        let machine = start(|| bench(channel).checked(checked));
        rig::tell(machine, DEVICE, story, checks, &format!("checked {checked}"));
    }
}

#[test]
fn channels_and_widths_that_a_pc_has_not_get_no_adapter() {
    tell(1, "Descriptions", 22);
}

#[test]
fn all_adapters_of_a_channel_share_it_in_the_order_of_asking() {
    tell(2, "Shared", 10);
}

#[test]
fn a_channel_that_initializes_itself_goes_through_a_common_buffer_again_and_again() {
    for channel in CHANNELS {
        tell(channel, "RoundAndRound", 25);
    }
}

#[test]
fn a_transfer_of_version_3_that_is_cancelled_moves_nothing_more() {
    for channel in CHANNELS {
        tell(channel, "Cancelled", 15);
    }
}

/// Not a routine that does nothing.
#[test]
fn a_completion_routine_says_by_its_name_that_it_is_not_there() {
    let machine = start(|| bench(1));
    let _ = rig::checks_made(&machine, DEVICE, "Absent", &[]);
    let report = machine.finish();
    let verdict = report.verdict.as_ref().unwrap();
    assert!(verdict.not_implemented, "{report}");
    assert!(verdict.message.contains("the completion routine of MapTransferEx"), "{report}");
}

/// The driver waits for an interrupt that never comes; when it is stopped, its channel is still taken.
#[test]
fn a_device_in_trouble_leaves_the_counter_where_it_was() {
    let machine = start(|| bench(1));
    set_up(&machine, OPERATIONS, 0x2000);
    rig::play(
        &machine,
        r"open \\.\DirqlSlave as f overlapped
        async w write f zero:4096
        poke slave#0 pause 1
        wait 100ms
        poke slave#0 pause 0
        join w
        close f",
    );
    finish(machine);
}
