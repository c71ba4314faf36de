//! Controller objects, as a compiled driver uses them (`drivers/c/controllers.c`): what `IoCreateController` makes, who gets it in which
//! order, and two disks that share one in random schedules.

use dirql::Bench;
use dirql::explore::Policy;

use super::rig::{self, driver, play, start};

/// Two threads, each with a disk of its own, and one with both: of each, transfers and a seek.
const DISKS: &str = r"open \\.\DirqlDisk0 as zero; open \\.\DirqlDisk1 as one
    a: write zero text:abcd; a: read zero 4 expect text:abcd; a: write zero text:efgh
    b: write one text:stuv; b: read one 4 expect text:stuv; b: write one text:wxyz; b: write one hex:
    c: write zero hex:
    join a; join b; join c
    read zero 4 expect text:efgh; read one 4 expect text:wxyz
    close zero; close one";

fn bench() -> Bench {
    Bench::new().driver(driver("controllers.sys"))
}

/// One story of the driver's table, with so many checks at least.
fn tell(story: &str, checks: u32) {
    for checked in [false, true] {
        let machine = start(|| bench().checked(checked));
        rig::tell(machine, r"\\.\DirqlControllers", story, checks, &format!("checked {checked}"));
    }
}

#[test]
fn a_controller_object_is_as_wdm_h_has_it_and_its_extension_is_zeroed() {
    tell("Layout", 100);
}

#[test]
fn devices_get_the_controller_in_the_order_in_which_they_asked() {
    tell("InOrder", 10);
}

#[test]
fn a_controller_that_is_not_kept_goes_to_all_that_wait_at_once() {
    tell("AtOnce", 5);
}

#[test]
fn two_disks_share_a_controller_and_no_transfer_meets_another() {
    let run = |policy: Policy, checked: bool| {
        let machine = start(|| bench().checked(checked).processors(2).policy(policy));
        play(&machine, DISKS);
        rig::tell(machine, r"\\.\DirqlControllers", "Disked", 3, "beside transfers");
    };
    for seed in rig::seeds(12) {
        run(Policy::random(seed), seed % 3 == 0);
    }
}
