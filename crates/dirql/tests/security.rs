//! Security as a compiled driver uses it (`drivers/c/security.c`): what it makes is held against what Microsoft's pages say.

use std::path::{Path, PathBuf};

use dirql::{Bench, Machine, User};

use super::rig::{self, driver, play, start};

const DEVICE: &str = r"\\.\DirqlSecurity";

/// One story of the driver's table, with so many checks at least, once in a checked machine.
fn tell(story: &str, checks: u32) {
    for checked in [false, true] {
        let machine = start(|| Bench::new().driver(driver("security.sys")).checked(checked));
        rig::tell(machine, DEVICE, story, checks, &format!("checked {checked}"));
    }
}

#[test]
fn an_identifier_is_made_copied_and_compared() {
    tell("Identifiers", 15);
}

#[test]
fn an_identifier_has_a_text() {
    tell("Texts", 6);
}

#[test]
fn generic_rights_mean_what_the_mapping_says() {
    tell("GenericRights", 4);
}

#[test]
fn a_list_takes_entries_at_its_end_and_in_front_as_long_as_they_fit() {
    tell("Lists", 35);
}

#[test]
fn an_absolute_descriptor_points_to_its_parts() {
    tell("Descriptors", 30);
}

#[test]
fn a_descriptor_in_one_piece_holds_what_the_absolute_one_points_to() {
    tell("InOnePiece", 27);
}

#[test]
fn a_token_says_whose_process_it_is() {
    tell("Tokens", 8);
}

#[test]
fn a_token_is_asked_class_by_class() {
    tell("TokenClasses", 30);
}

#[test]
fn a_subject_context_has_the_token_of_its_process() {
    tell("Subjects", 5);
}

#[test]
fn access_is_granted_entry_by_entry_in_their_order() {
    tell("Checks", 20);
}

#[test]
fn a_privilege_grants_what_no_list_does() {
    tell("Privileges", 12);
}

#[test]
fn a_captured_descriptor_is_a_copy_and_a_logged_one_is_shared() {
    tell("Captured", 14);
}

#[test]
fn a_new_descriptor_is_of_what_is_said_handed_down_and_usual() {
    tell("Assigned", 30);
}

#[test]
fn a_device_has_a_descriptor_that_its_driver_may_change() {
    tell("OfDevice", 15);
}

#[test]
fn what_a_driver_opens_is_checked_only_if_it_says_so() {
    tell("Forced", 4);
}

#[test]
fn a_thread_acts_for_its_client_until_it_reverts() {
    tell("Impersonations", 20);
}

#[test]
fn a_restricted_token_has_fewer_rights_than_the_one_it_is_made_from() {
    tell("Restricted", 18);
}

#[test]
fn a_duplicate_of_a_token_can_do_no_more_than_it() {
    tell("Duplicated", 20);
    let machine = start(|| Bench::new().driver(driver("security.sys")));
    machine.set_user(User::Plain).unwrap();
    rig::tell(machine, DEVICE, "Duplicated", 20, "a plain user's token");
}

#[test]
fn a_plain_user_has_neither_the_groups_nor_the_privileges_of_an_administrator() {
    let machine = start(|| Bench::new().driver(driver("security.sys")));
    machine.set_user(User::Plain).unwrap();
    rig::tell(machine, DEVICE, "PlainUser", 9, "a plain user");
}

#[test]
fn a_plain_user_opens_what_everyone_may_and_is_refused_what_the_driver_keeps_for_administrators() {
    let machine = start(|| Bench::new().driver(driver("security.sys")));
    play(
        &machine,
        r"user plain
          open \\.\DirqlSecurity as everyones
          close everyones
          user administrator
          open \\.\DirqlSecurity as own
          ioctl own 0x223ff8 in text:OfDevice out 8 expect prefix u32:0
          user plain
          open \\.\DirqlSecurity as none expect STATUS_ACCESS_DENIED
          open \\.\DirqlSecurity as none read-only expect STATUS_ACCESS_DENIED
          user administrator
          open \\.\DirqlSecurity as again
          close again; close own",
    );
    machine.finish().expect_clean();
}

#[test]
fn a_driver_checks_who_opens_a_file_by_the_access_state_of_the_request() {
    let machine = start(|| Bench::new().driver(driver("security.sys")));
    play(
        &machine,
        r"user plain
          open \\.\DirqlSecurity\secret as none expect STATUS_ACCESS_DENIED
          user administrator
          open \\.\DirqlSecurity\secret as secret; close secret",
    );
    machine.finish().expect_clean();
}

#[test]
fn two_applications_of_different_users_are_told_apart() {
    let machine = start(|| Bench::new().driver(driver("security.sys")));
    let other = machine.begin_process("other").unwrap();
    machine.within(other, || machine.set_user(User::Plain)).unwrap();
    let secret = format!(r"{DEVICE}\secret");
    assert!(machine.within(other, || machine.open(&secret)).is_err());
    machine.open(&secret).unwrap().close().unwrap();
    machine.finish().expect_clean();
}

/// Of `pciline.c`, whose named device is the function device object.
const LINE_CARD: &str = r"\\.\PciLine0";

/// The INF of the line card, with who may open the device, or all of its class: by the section that says so.
fn secured(name: &str, section: &str, sddl: &str) -> PathBuf {
    rig::changed_inf(name, "pciline.inf", |text| {
        let section = format!("[{section}]\n");
        assert!(text.contains(&section));
        text.replace(&section, &format!("{section}HKR,,Security,,\"{sddl}\"\n"))
    })
}

const OF_DEVICE: &str = "PciLine.Hardware.AddReg";

/// A machine with the line card, installed so.
fn line_card(inf: &Path) -> Machine {
    start(|| Bench::new().driver(driver("pciline.sys")).inf(inf).device("pci9052"))
}

#[test]
fn the_inf_says_who_may_open_the_device() {
    let inf = secured("administrators", OF_DEVICE, "D:P(A;;GA;;;SY)(A;;GA;;;BA)");
    let machine = line_card(&inf);
    play(
        &machine,
        r"user plain
          open DEVICE as none expect STATUS_ACCESS_DENIED
          user administrator
          open DEVICE as card; close card"
            .replace("DEVICE", LINE_CARD)
            .as_str(),
    );
    machine.finish().expect_clean();
}

#[test]
fn the_inf_says_what_a_plain_user_may() {
    let inf = secured("readers", OF_DEVICE, "D:P(A;;GA;;;SY)(A;;GA;;;BA)(A;;GR;;;WD)");
    let machine = line_card(&inf);
    play(
        &machine,
        r"user plain
          open DEVICE as none expect STATUS_ACCESS_DENIED
          open DEVICE as none write-only expect STATUS_ACCESS_DENIED
          open DEVICE as card read-only; close card"
            .replace("DEVICE", LINE_CARD)
            .as_str(),
    );
    machine.finish().expect_clean();
}

#[test]
fn what_the_inf_says_of_the_class_holds_where_it_says_nothing_of_the_device() {
    let inf = secured("class", "Class.AddReg", "D:P(A;;GA;;;SY)(A;;GA;;;BA)");
    let machine = line_card(&inf);
    let script = "user plain; open DEVICE as none expect STATUS_ACCESS_DENIED";
    play(&machine, &script.replace("DEVICE", LINE_CARD));
    machine.finish().expect_clean();
}

#[test]
fn without_a_word_of_the_inf_everyone_may_read_and_write() {
    let machine = line_card(&driver("pciline.inf"));
    play(&machine, &r"user plain; open DEVICE as card; close card".replace("DEVICE", LINE_CARD));
    machine.finish().expect_clean();
}

#[test]
fn an_inf_whose_security_is_none_is_refused_at_its_line() {
    let inf = secured("unknown", OF_DEVICE, "D:P(A;;GA;;;UNKNOWN)");
    let bench = Bench::new().driver(driver("pciline.sys")).inf(&inf).device("pci9052");
    let error = bench.start().map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("Security: `UNKNOWN` names no account"), "{error}");
}

#[test]
fn privileges_of_a_token_are_enabled_disabled_and_removed() {
    tell("Adjusted", 14);
}
