//! Stories of the power management framework (PoFx): the life of a component, a device that goes to D3 when nothing needs it, and comes back.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod rig;

use dirql::{Bench, Machine, Report};
use rig::{driver, start, try_play};

/// A card that loses its registers in D3; the STATE registers of idle.sys are at 20 and 24.
const CARD: &str = "pci,id=abcd:0003,bar0=mem:128,irq,pm";

fn bench(sys: &str) -> Bench {
    Bench::new().driver(driver(&format!("{sys}.sys"))).device(CARD)
}

fn machine(sys: &str) -> Machine {
    start(|| bench(sys))
}

fn run(sys: &str, script: &str) -> Report {
    let machine = machine(sys);
    // What goes wrong stands in the report.
    let played = try_play(&machine, &format!(r"open \\.\Idle as i overlapped; {script}"));
    let report = machine.finish();
    assert!(played.is_ok(), "{played:?}\n{report}");
    report
}

/// What the driver was called for since the last time.
fn told(calls: &str) -> String {
    format!("wait 1ms; ioctl i 0x222014 out 512 expect text:\"{calls}\"")
}

#[test]
fn an_idle_device_goes_to_d3_and_comes_back_for_a_request_which_waits_meanwhile() {
    let idle = "I0 S02 I1 S12 N d ";
    let script = format!(
        "{}
         async w ioctl i 0x222000 in u32:0 + u32:0x1234
         join w
         {}
         ioctl i 0x222004 in u32:0 out 4 expect u32:0x1234
         {}",
        told(idle),
        told("R u A0* I0* S02* S12* N d "),
        told("R u A0* I0* S02* S12* N d "),
    );
    run("idle", &script).expect_clean();
}
