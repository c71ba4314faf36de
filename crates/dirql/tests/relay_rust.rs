//! Stories of `relay_rust.sys`, a filter driver in Rust above `edu.sys`: requests that go through it and come back changed, and the
//! requests that it makes itself, one after the other or waited for.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may stop where its ground gives way")]

use dirql::explore::{Bounds, Policy};
use dirql::{Bench, Machine, Outcome, ScriptText};

use super::rig::{self, driver, finish, pattern, play, start};

const SUM: u32 = 0x0022_3100;
const SUM_WAITING: u32 = 0x0022_3104;
const COUNTS: u32 = 0x0022_3108;

fn bench(card: &str) -> Bench {
    let bench = Bench::new().driver(driver("edu.sys")).inf(driver("relay_rust.inf"));
    bench.with(driver("relay_rust.sys")).device(card)
}

/// How many children came back, and how many requests.
fn counts(machine: &Machine) -> [u32; 2] {
    let file = machine.open(r"\\.\Edu").unwrap();
    let counts = file.device_control(COUNTS, &[], 8).unwrap();
    file.close().unwrap();
    [0, 4].map(|at| u32::from_le_bytes(counts[at..at + 4].try_into().unwrap()))
}

#[test]
fn what_comes_back_from_below_is_changed_on_its_way_up_and_all_else_passes() {
    for checked in [false, true] {
        let machine = start(|| bench("edu,dma=10us,factorial=3us").checked(checked));
        let file = machine.open(r"\\.\Edu").unwrap();
        let bytes = pattern(300);
        file.write_at(&bytes, Some(5)).unwrap();
        let came = file.read_at(300, Some(5)).unwrap();
        assert!(came.iter().zip(&bytes).all(|(came, sent)| *came == !sent), "all bits are turned");
        assert!(file.read_at(300, Some(4000)).is_err(), "the driver below refuses it");
        let factorial = file.device_control(0x0022_3000, &5_u32.to_le_bytes(), 4).unwrap();
        assert_eq!(factorial, 120_u32.to_le_bytes());
        file.close().unwrap();
        assert_eq!(counts(&machine), [0, 2], "a read that was carried out, and one that was refused");
        finish(machine);
    }
}

#[test]
fn a_child_goes_down_again_and_again_and_ends_the_request_that_it_was_for() {
    for (code, children) in [(SUM, 12), (SUM_WAITING, 0)] {
        for checked in [false, true] {
            let machine = start(|| bench("edu,factorial=10us").checked(checked));
            let file = machine.open(r"\\.\Edu").unwrap();
            let before = machine.now();
            for (last, sum) in [(0_u32, 0_u32), (1, 1), (3, 9), (8, 46_233)] {
                assert_eq!(file.device_control(code, &last.to_le_bytes(), 4).unwrap(), sum.to_le_bytes());
            }
            assert!(machine.now() - before >= 120_000, "the card computed each");
            let short = file.try_device_control(code, &[1, 0, 0], 4).unwrap();
            assert_eq!(short.status, abi::NtStatus::BUFFER_TOO_SMALL.0);
            file.close().unwrap();
            assert_eq!(counts(&machine), [children, 0]);
            finish(machine);
        }
    }
}

#[test]
fn what_the_driver_below_refuses_its_child_is_what_the_request_ends_with() {
    let machine = start(|| bench("edu,factorial=10us"));
    let file = machine.open(r"\\.\Edu").unwrap();
    play(&machine, "stop-device");
    for code in [SUM, SUM_WAITING] {
        let refused = file.try_device_control(code, &3_u32.to_le_bytes(), 4).unwrap();
        assert_eq!(refused.status, abi::NtStatus::DEVICE_NOT_READY.0);
    }
    play(&machine, "start-device");
    file.close().unwrap();
    finish(machine);
}

#[test]
fn children_of_two_threads_and_requests_that_pass_keep_apart_in_random_schedules() {
    for seed in rig::seeds(16) {
        let processors = if seed % 3 == 0 { 1 } else { 2 };
        let machine = start(|| {
            let bench = bench("edu,factorial=2us,dma=5us").checked(seed % 4 == 0);
            bench.processors(processors).policy(Policy::random(seed))
        });
        play(
            &machine,
            r"open \\.\Edu as one; open \\.\Edu as two
            a: ioctl one 0x223100 in u32:4 out 4 expect u32:33
            a: read one 4 at 8
            b: ioctl two 0x223104 in u32:5 out 4 expect u32:153
            b: ioctl two 0x223000 in u32:4 out 4 expect u32:24
            join a; join b; close one; close two",
        );
        assert_eq!(counts(&machine), [4, 1], "seed {seed}");
        finish(machine);
    }
}

#[test]
fn every_schedule_of_a_child_and_the_removal_of_its_device_up_to_two_preemptions_is_clean() {
    let script = r"open \\.\Edu as card overlapped
        async s ioctl card 0x223100 in u32:1 out 4
        join s
        close card
        remove-device";
    let play = ScriptText::typed(script).play().unwrap();
    let bounds = Bounds { preemptions: 2, schedules: 200_000, shared: false, ..Bounds::default() };
    let searched = bench("edu,factorial=2us").unobserved().processors(2);
    let searched = searched.search(&play, &bounds, |report| report.outcome() != Outcome::Clean);
    let searched = searched.unwrap_or_else(|error| panic!("{error}"));
    println!("{:?} schedules, complete: {}", searched.schedules, searched.complete);
    let found = searched.found.map(|found| found.1.to_string());
    assert!(searched.complete && found.is_none(), "{found:?}");
}
