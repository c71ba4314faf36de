//! Random traffic of applications to the drivers that come with dirql, for a long time of the machine's, on 8 processors: requests of
//! eight threads, cancelled or not, stops and restarts and sleep between them. At the end nothing is left, the device still does what
//! it is asked, and the process is as large as when half of the time was over.
//!
//! `DIRQL_HOURS` says how many hours of the machine's time pass (few in CI; `cargo xtask soak` lets a week pass).

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may stop where its ground gives way, and says what it measured"
)]

use dirql::explore::Rng;

use super::rig::traffic::{self, Traffic};
use super::rig::{Undelayed, finish, try_play, wanted};

const SECOND: u64 = 1_000_000_000;

/// Processors of the machine.
const PROCESSORS: u32 = 8;

/// What the resident memory may grow by in the second half. It grows as long as slices end where none has ended before: the
/// translated code of a block is copied for each instruction that one ended at.
const MAY_GROW: u64 = 1 << 20;

/// Lets the time pass, and looks what is left.
fn soak(traffic: Traffic) {
    let end = wanted("DIRQL_HOURS", 3) * 3_600 * SECOND;
    let mut rng = Rng::new(wanted("DIRQL_FIRST_SEED", 1));
    let machine = traffic
        .bench(PROCESSORS)
        .chooser(Undelayed::random(rng.roll()))
        .start()
        .unwrap_or_else(|error| panic!("{error}"));
    let (mut rounds, mut settled) = (0_u64, None);
    while machine.now() < end {
        if let Err(error) = try_play(&machine, &(traffic.round(&mut rng) + &Traffic::end_of_round())) {
            panic!("{}, round {rounds}: {error}\n{}", traffic.sys, machine.finish());
        }
        machine.wait(rng.below(200 * SECOND)).unwrap();
        rounds += 1;
        if settled.is_none() && machine.now() >= end / 2 {
            settled = Some(resident());
        }
    }
    let (settled, now) = (settled.expect("half of the time is over"), resident());
    let hours = machine.now() / SECOND / 3_600;
    let report = finish(machine);
    eprintln!("{}: {hours} h, {rounds} rounds, {} KiB, then {} KiB", traffic.sys, settled >> 10, now >> 10);
    assert!(
        now <= settled + MAY_GROW,
        "{}: {settled} bytes of memory became {now} in {rounds} rounds\n{report}",
        traffic.sys
    );
}

/// Bytes of memory that this process has now.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn the_rust_driver_of_the_pci_9052() {
    soak(traffic::PCI9052);
}

#[test]
fn the_c_driver_of_the_pci_9052() {
    soak(traffic::PCILINE);
}

#[test]
fn the_rust_driver_of_the_educational_device() {
    soak(traffic::EDU_RUST);
}

#[test]
fn the_c_driver_of_the_educational_device() {
    soak(traffic::EDU);
}

#[test]
fn the_c_driver_of_the_bench_card() {
    soak(traffic::CARD);
}

#[test]
fn the_rust_driver_of_the_bench_card() {
    soak(traffic::BENCH_RUST);
}

#[test]
fn the_driver_with_messages() {
    soak(traffic::MESSAGE);
}

#[test]
fn the_driver_with_a_queue() {
    soak(traffic::QUEUE);
}
