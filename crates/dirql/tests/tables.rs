//! Generic tables and trees that splay, as a compiled driver uses them (`drivers/c/tables.c`): what it is given is held against what it put
//! in, and the links of a balanced table against what makes it balanced.

use dirql::Bench;

use super::rig::{self, driver, start};

/// One story of the driver's table, with so many checks at least.
fn tell(story: &str, checks: u32) {
    let machine = start(|| Bench::new().driver(driver("tables.sys")));
    rig::tell(machine, r"\\.\DirqlTables", story, checks, "");
}

#[test]
fn a_balanced_table_holds_what_was_put_in_and_stays_balanced() {
    tell("BalancedTable", 100_000);
}

#[test]
fn a_table_that_splays_holds_what_was_put_in() {
    tell("SplayingTable", 29_000);
}

#[test]
fn a_table_that_splays_has_at_its_root_what_was_asked_for_last_and_counts_as_they_came() {
    tell("Order", 20);
}

#[test]
fn a_balanced_table_is_enumerated_like_a_directory_whatever_is_deleted_meanwhile() {
    tell("Directory", 70);
}

#[test]
fn links_of_a_tree_lead_to_the_next_node_whatever_was_splayed_or_deleted() {
    tell("Links", 48);
}

#[test]
fn a_tree_that_leads_in_a_circle_is_a_loop_without_end() {
    let machine = start(|| Bench::new().driver(driver("tables.sys")));
    let _ = rig::try_play(&machine, r"open \\.\DirqlTables as t; ioctl t 0x223ff8 in text:Endless out 8");
    let report = machine.finish();
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "endless-loop", "{report}");
}
