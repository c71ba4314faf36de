//! Stories of Plug and Play notifications: `watcher.sys` is notified of the interface and of the device of `correct_pnp.sys`, is asked before that is
//! removed, and reports events of its own.

use dirql::explore::Policy;
use dirql::{Bench, Report};
use engine::{Chooser, Point};

use super::rig::{self, driver, start, try_play};

/// Control codes.
const CODES: [(&str, &str); 9] = [
    ("WATCH", "ioctl w 0x222000 in u8:"),
    ("TARGET", "ioctl w 0x222004 in u8:"),
    ("LEAVE", "ioctl w 0x222008 in u8:"),
    ("REPORT", "ioctl w 0x22200c in u8:"),
    ("SENSE", "ioctl w 0x222010 in u8:"),
    ("TWICE", "ioctl w 0x222014 in u8:"),
    ("PROPERTIES", "ioctl w 0x222018 in u8:"),
    ("ALIAS", "ioctl w 0x22201c in u8:"),
    ("BEHIND", "ioctl w 0x222020 in u8:"),
];

fn bench() -> Bench {
    bench_with("watcher.sys")
}

fn bench_with(watcher: &str) -> Bench {
    let inf = rig::changed_inf("watched", "correct_pnp.inf", |text| {
        text.replace("NTamd64.10.0...16299", "NTamd64") // for older versions of Windows, too
    });
    let bench = Bench::new().driver(driver("correct_pnp.sys")).inf(&inf).device("bench");
    bench.with(driver(watcher))
}

fn script(text: &str) -> String {
    let text =
        CODES.iter().fold(text.to_owned(), |text, (name, code)| text.replace(&format!("{name} "), code));
    format!(r"open \\.\DirqlWatcher as w; {text}; close w")
}

fn play(bench: impl Fn() -> Bench, text: &str) -> Report {
    let machine = start(bench);
    let played = try_play(&machine, &script(text));
    let report = machine.finish();
    assert!(played.is_ok() || report.verdict.is_some(), "{played:?}\n{report}");
    report
}

/// Carried out clean; the notifications, in their order.
fn notified(text: &str) -> Vec<String> {
    told_by(&play(bench, text))
}

fn told_by(report: &Report) -> Vec<String> {
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
    let notified = report
        .prints
        .iter()
        .filter_map(|line| line.split_once("watcher: "))
        .map(|(_, notified)| notified.trim());
    notified.map(str::to_owned).collect()
}

/// Whether the driver of the device has got this PnP request.
fn got(report: &Report, minor: u8) -> bool {
    report.prints.iter().any(|line| line.contains(&format!("pnp 0x{minor:02x}")))
}

const QUERY_REMOVE: u8 = 1;

#[test]
fn interfaces_that_come_and_go_are_told_to_all_who_watch_their_class() {
    let report = play(|| bench_with("watcher_early.sys"), "wait 1ms; remove-device; wait 1ms");
    let notified = told_by(&report);
    let kinds: Vec<&str> = notified.iter().map(|line| &line[..9]).collect();
    assert_eq!(kinds, ["a arrival", "b arrival", "a removal", "b removal"], "{notified:?}");
    assert!(notified[0].contains(r"\??\PCI#") && notified[0].contains("{d5a1e2b4-"), "{notified:?}");
    assert!(notified.iter().all(|line| line.ends_with("at IRQL 0")), "{notified:?}");
}

#[test]
fn interfaces_of_devices_that_are_not_here_come_and_go_as_a_script_says() {
    let notified = notified(
        "WATCH 0; interface-arrives; interface-arrives; wait 1ms; interface-leaves; wait 1ms; LEAVE 0; interface-arrives",
    );
    let kinds: Vec<&str> = notified.iter().map(|line| &line[..9]).collect();
    assert_eq!(kinds, ["a arrival", "a removal"], "{notified:?}");
    assert!(notified.iter().all(|line| line.contains(r"\??\ROOT#UNKNOWN#0000#{d5a1e2b4-")), "{notified:?}");
}

#[test]
fn those_that_are_there_are_told_before_the_registration_is_made() {
    let notified = notified("WATCH 1; LEAVE 0");
    assert_eq!(notified.len(), 1, "{notified:?}");
    assert!(notified[0].starts_with("a arrival"), "{notified:?}");
}

/// A notification that may come twice by its page does.
struct Twice;

impl Chooser for Twice {
    fn choose(&mut self, _strand: u32, point: Point, _n: u32) -> u32 {
        u32::from(point == Point("pnp.told_twice"))
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }
}

#[test]
fn those_that_are_there_may_be_told_twice() {
    let report = play(|| bench().chooser(Twice), "WATCH 1; LEAVE 0");
    assert_eq!(told_by(&report).len(), 2, "{report}");
}

#[test]
fn who_has_a_device_open_is_asked_closes_its_file_and_the_device_goes() {
    assert_eq!(notified("TARGET 0; remove-device expect success"), ["may it go?", "it is gone"]);
}

/// Holds: irps/target-relation
#[test]
fn a_device_without_plug_and_play_says_which_device_stands_behind_a_file_on_it() {
    let report = play(bench, "BEHIND 0; remove-device expect success");
    assert_eq!(told_by(&report), ["who stands behind this file?", "may it go?", "it is gone"]);
    // While the other device is not there, no device stands behind it.
    assert_eq!(notified("remove-device; BEHIND 0 expect failure"), ["who stands behind this file?"]);
}

/// Holds: irps/notified-first
#[test]
fn who_refuses_keeps_the_device_and_its_driver_is_not_even_asked() {
    let report = play(bench, "TARGET 1; remove-device expect STATUS_UNSUCCESSFUL; LEAVE 0");
    assert_eq!(told_by(&report), ["may it go?", "it stays"]);
    let asked = report.prints.iter().position(|line| line.contains("it stays")).unwrap();
    let before = report.prints.iter().take(asked);
    assert!(!before.clone().any(|line| line.contains("pnp 0x01")), "{report}");
    assert!(got(&report, QUERY_REMOVE), "at the end of the run, when no driver refuses any more\n{report}");
}

#[test]
fn who_agrees_and_leaves_its_file_open_keeps_the_device() {
    let notified = notified("TARGET 2; remove-device expect STATUS_DEVICE_BUSY; LEAVE 0");
    assert_eq!(notified, ["may it go?", "it stays"]);
}

#[test]
fn a_question_that_is_taken_back_lets_the_device_be_opened_again() {
    let notified = notified("TARGET 0; query-remove; cancel-remove; remove-device expect success");
    assert_eq!(notified, ["may it go?", "it stays", "may it go?", "it is gone"]);
}

#[test]
fn who_takes_its_registration_back_in_the_callback_is_told_nothing_more() {
    assert_eq!(notified("TARGET 3; query-remove; cancel-remove; LEAVE 0"), ["may it go?"]);
    assert_eq!(notified("TARGET 3; remove-device"), ["may it go?"]);
}

#[test]
fn of_a_card_that_is_pulled_out_it_is_told_without_a_question() {
    assert_eq!(notified("TARGET 0; surprise-remove; wait 1ms"), ["it is gone"]);
}

#[test]
fn an_event_of_a_drivers_own_is_told_to_those_who_have_the_device_open() {
    let notified = notified(
        "REPORT 0 expect STATUS_NO_SUCH_DEVICE; TARGET 0
         REPORT 0; REPORT 1; wait 1ms; REPORT 2; wait 1ms
         REPORT 3 expect STATUS_INVALID_DEVICE_REQUEST; REPORT 4 expect STATUS_INVALID_PARAMETER; LEAVE 0",
    );
    let all = "all have run, at IRQL 0";
    assert_eq!(notified, ["own event 40, -1", "own event 41, -1", all, "own event 42, -1", all]);
}

#[test]
fn what_makes_no_sense_is_not_registered() {
    notified("SENSE 0");
}

/// Not: not-a-notification, pnp-notification-leak
#[test]
fn registrations_come_and_go_in_any_schedule() {
    let text = "WATCH 2; TARGET 0
        t: remove-device expect any
        REPORT 1 expect any
        LEAVE 2; WATCH 2
        u: REPORT 1 expect any
        join t; join u; LEAVE 1; wait 1ms";
    for seed in rig::seeds(30) {
        let report = play(|| bench().processors(2).policy(Policy::random(seed)), text);
        report.expect_clean();
        assert_eq!(report.sums.still_allocated(), 0, "seed {seed}\n{report}");
    }
}

#[test]
fn a_registration_that_is_taken_back_twice_is_told() {
    let report = play(bench, "TARGET 0; TWICE 0");
    assert_eq!(report.expect_verdict().rule, "not-a-notification", "{report}");
}

#[test]
fn a_registration_that_is_left_behind_is_told() {
    let report = play(bench, "TARGET 4; remove-device");
    let found: Vec<&str> = report.findings.iter().map(|found| found.rule).collect();
    assert_eq!(found, ["pnp-notification-leak"], "{report}");
}

#[test]
fn properties_are_set_and_read_and_the_systems_are_there() {
    notified("TARGET 0; PROPERTIES 0; LEAVE 0");
}

#[test]
fn an_interface_of_another_class_of_the_same_device_is_its_alias() {
    notified("TARGET 0; ALIAS 0; LEAVE 0");
}
