//! Stories of `bus_rust.sys`, a bus driver in Rust: its children appear and are driven, by `soft.sys` or by the bus driver itself, are pulled out
//! and ejected, sleep, and go with their bus.

use dirql::explore::{Bounds, Policy};
use dirql::{Bench, Machine, Outcome, ScriptText};

use super::rig::failures::{Failing, whichever_fails};
use super::rig::{self, driver, finish, play, start, try_play};

/// Control codes of the bus, which is open as `b`: a slot, and a kind in the second byte.
const PLUG: &str = "ioctl b 0x223140 in u32:";
const UNPLUG: &str = "ioctl b 0x223144 in u32:";
const UNPLUG_FROM_DISPATCH: &str = "ioctl b 0x22314c in u32:";
const COUNT: &str = "ioctl b 0x223148 out 8 expect u32:";
const OPEN: &str = r"open \\.\DirqlBusRust0 as b";

/// Kinds of children.
const PORT: u32 = 0x100;
const HUB: u32 = 0x200;
const BROKEN: u32 = 0x300;

/// The interface of `soft.sys`, and that of ports.
const SOFT: &str = "interface:{5A0F7B52-3C1E-4B6F-9E57-0D1B8A2C4E61}";
const PORTS: &str = "interface:{7A9B6E04-8E0E-4C1B-A3B7-5F8D2D0C9E15}";

fn bus() -> Bench {
    Bench::new()
        .driver(driver("bus_rust.sys"))
        .inf(driver("bus_rust.inf"))
        .with(driver("soft.sys"))
        .inf(driver("soft.inf"))
}

/// What is done, and time for the PnP manager to follow.
fn on_bus(machine: &Machine, commands: &[String]) {
    let then: String = commands.iter().map(|command| format!("{command}\nwait 1ms\n")).collect();
    play(machine, &format!("{OPEN}\n{then}close b"));
}

fn plug(what: u32) -> String {
    format!("{PLUG}{what}")
}

fn unplug(slot: u32) -> String {
    format!("{UNPLUG}{slot}")
}

fn plugged(commands: &[String]) -> Machine {
    let machine = start(|| bus().checked(true));
    on_bus(&machine, commands);
    machine
}

fn tree(machine: &Machine) -> String {
    machine.tree().unwrap().join("\n")
}

/// Whether these lines were printed in this order, with others between.
fn in_order(machine: &Machine, order: &[&str]) {
    let lines: Vec<String> = machine.prints().iter().map(|line| line.trim_end().to_owned()).collect();
    let mut rest = lines.iter();
    for wanted in order {
        assert!(rest.any(|line| line == wanted), "{wanted}, behind those before it: {lines:?}");
    }
}

/// Not: child-deleted-early, child-not-deleted, child-reused, deleted-child, child-not-referenced, duplicate-child
#[test]
fn children_are_found_by_their_ids_and_driven_by_inf_or_as_they_are() {
    let machine = plugged(&[plug(0), plug(PORT + 1), plug(HUB + 2)]);
    let text = tree(&machine);
    assert_eq!(
        text,
        r"the root
  dirqlbusrust#0  ROOT\DIRQLBUSRUST\0000
    started; drivers: PnpManager, bus_rust; resources: none
    child#0  DIRQLBUS\Child\4&b9e2134f&0&0  (A device on a bus in Rust, Slot 0)
      started; drivers: bus_rust, DirqlSoft; resources: none
    rustport#0  DIRQLBUS\RustPort\4&b9e2134f&0&1  (A device on a bus in Rust, Slot 1)
      started; drivers: bus_rust; resources: none
    rusthub#0  DIRQLBUS\RustHub\4&b9e2134f&0&2  (A device on a bus in Rust, Slot 2)
      started; drivers: bus_rust, bus_rust; resources: none"
    );
    // DevicePropertyHardwareID, DevicePropertyCompatibleIDs, DevicePropertyLocationInformation, DevicePropertyLegacyBusType,
    // DevicePropertyAddress; and the bus counts three.
    play(
        &machine,
        &format!(
            "open {SOFT} as s
            ioctl s 0x222000 in u32:1 out 100 expect utf16:\"DIRQLBUS\\\\Child\" + zero:4
            ioctl s 0x222000 in u32:2 out 100 expect utf16:\"DIRQLBUS\\\\Generic\" + zero:4
            ioctl s 0x222000 in u32:10 out 100 expect utf16:\"Slot 0\" + zero:2
            ioctl s 0x222000 in u32:13 out 4 expect u32:15
            ioctl s 0x222000 in u32:16 out 4 expect u32:0
            close s
            {OPEN}
            {COUNT}3 + u32:0
            close b"
        ),
    );
    finish(machine);
}

#[test]
fn a_raw_port_is_opened_written_and_read_by_the_bus_drivers_own_code() {
    let machine = plugged(&[plug(PORT + 3)]);
    play(
        &machine,
        &format!(
            "open {PORTS} as p overlapped
            write p text:hello
            read p 5 at 0 expect text:hello
            async r read p 5 at 0x100
            wait 1ms
            write p text:world
            join r
            ioctl p 0x223140 in u32:0 expect STATUS_INVALID_DEVICE_REQUEST
            async r read p 5 at 0x100
            close p
            {OPEN}
            {COUNT}1 + u32:10
            close b"
        ),
    );
    finish(machine);
}

#[test]
fn a_slot_that_is_taken_is_refused_and_free_again_when_its_child_was_removed() {
    let machine = plugged(&[
        plug(0),
        format!("{} expect STATUS_DEVICE_BUSY", plug(0)),
        unplug(0),
        format!("{} expect STATUS_NO_SUCH_DEVICE", unplug(0)),
        plug(0),
        format!("{UNPLUG_FROM_DISPATCH}0"),
        format!("{COUNT}0 + u32:0"),
    ]);
    in_order(
        &machine,
        &[
            "slot 0 is started",
            "soft 1 is started",
            "slot 0 is empty", // the one that was refused
            "soft 1 is gone",
            "slot 0 is gone",
            "slot 0 is empty",
            "soft 1 is removed",
            "soft 2 is started",
            "slot 0 is gone",
            "slot 0 is empty",
        ],
    );
    finish(machine);
}

#[test]
fn a_child_that_comes_and_goes_before_it_was_reported_is_deleted() {
    let machine = plugged(&[]);
    play(&machine, &format!("{OPEN}\n{PLUG}0\n{UNPLUG}0\nwait 1ms\n{COUNT}0 + u32:0\nclose b"));
    let report = finish(machine);
    assert_eq!(report.prints.iter().filter(|line| line.trim_end() == "slot 0 is empty").count(), 1);
}

/// Holds: irps/surprise-then-remove
#[test]
fn an_open_port_that_is_pulled_out_fails_its_requests_and_goes_when_it_is_closed() {
    let machine = plugged(&[plug(PORT)]);
    play(
        &machine,
        &format!(
            "open {PORTS} as p overlapped
            async r read p 5 at 0x100
            {OPEN}
            {UNPLUG}0
            wait 1ms
            join r expect STATUS_DELETE_PENDING
            async w write p text:late
            join w expect failure
            {COUNT}1 + u32:0
            {PLUG}{PORT} expect STATUS_DEVICE_BUSY
            close p
            wait 1ms
            {COUNT}0 + u32:0
            {PLUG}{PORT}
            wait 1ms
            open {PORTS} as p
            write p text:new
            close p
            close b"
        ),
    );
    finish(machine);
}

/// Holds: irps/children-first
#[test]
fn a_bus_is_stopped_and_removed_after_all_that_hangs_on_it() {
    let machine = plugged(&[plug(HUB + 2), plug(PORT)]);
    play(&machine, &format!("open \\\\.\\DirqlBusRust1 as b\n{PLUG}3\nwait 1ms\nclose b"));
    play(&machine, "stop-device dirqlbusrust#0\nstart-device dirqlbusrust#0");
    assert_eq!(tree(&machine).matches("started").count(), 4, "{}", tree(&machine));
    play(&machine, "remove-device dirqlbusrust#0");
    in_order(
        &machine,
        &[
            "soft 1 is removed",
            "bus 1 is stopped",
            "slot 2 is stopped",
            "bus 1 is removed",
            "bus 0 is stopped",
            "bus 0 is removed",
        ],
    );
    // A child that is removed while it is reported stays until its bus goes.
    in_order(
        &machine,
        &[
            "slot 3 is stopped",
            "bus 1 is stopped",
            "slot 3 is empty",
            "bus 0 is stopped",
            "slot 2 is empty",
            "bus 0 is removed",
        ],
    );
    finish(machine);
}

/// Holds: irps/surprise-children-first
#[test]
fn a_hub_that_is_pulled_out_takes_along_what_hangs_on_it_and_waits_for_what_is_open() {
    let machine = plugged(&[plug(HUB + 2)]);
    play(&machine, &format!("open \\\\.\\DirqlBusRust1 as b\n{PLUG}{}\nwait 1ms\nclose b", PORT + 3));
    let text = tree(&machine);
    let path =
        text.lines().find_map(|line| line.trim().strip_prefix(r"rustport#0  DIRQLBUS\RustPort\")).unwrap();
    let instance = path.split_whitespace().next().unwrap();
    let name = format!(r"\\?\DIRQLBUS#RustPort#{instance}#{{7a9b6e04-8e0e-4c1b-a3b7-5f8d2d0c9e15}}");
    let port = machine.open(&name).unwrap();
    on_bus(&machine, &[unplug(2)]);
    assert_eq!(tree(&machine).matches("gone, with files still open").count(), 2, "{}", tree(&machine));
    port.close().unwrap();
    machine.wait(1_000_000).unwrap();
    assert!(!tree(&machine).contains("rusthub"), "{}", tree(&machine));
    in_order(
        &machine,
        &["slot 3 is gone", "slot 2 is gone", "slot 3 is empty", "slot 2 is empty", "bus 1 is removed"],
    );
    finish(machine);
}

#[test]
fn an_open_child_keeps_its_bus() {
    let machine = plugged(&[plug(PORT)]);
    play(
        &machine,
        &format!(
            "open {PORTS} as p
            remove-device dirqlbusrust#0 expect STATUS_DEVICE_BUSY
            write p text:still
            close p
            remove-device dirqlbusrust#0"
        ),
    );
    finish(machine);
}

#[test]
fn a_child_that_is_removed_and_started_again_is_the_same_device() {
    let machine = plugged(&[plug(PORT), plug(1)]);
    play(
        &machine,
        &format!("open {PORTS} as p\nwrite p text:kept\nclose p\nremove-device rustport#0\nwait 1ms"),
    );
    play(&machine, &format!("{OPEN}\n{COUNT}2 + u32:4\n{UNPLUG}0\nwait 1ms\n{COUNT}1 + u32:4\nclose b"));
    in_order(&machine, &["slot 0 is started", "slot 0 is stopped", "slot 0 is empty"]);
    finish(machine);
}

#[test]
fn a_port_that_cannot_be_started_is_stopped_and_can_be_pulled_out() {
    let machine = plugged(&[plug(BROKEN)]);
    assert!(tree(&machine).contains("rustport#0"), "{}", tree(&machine));
    on_bus(&machine, &[unplug(0), format!("{COUNT}0 + u32:0")]);
    in_order(&machine, &["slot 0 is stopped", "slot 0 is empty"]);
    finish(machine);
}

/// Holds: irps/remove-then-eject
#[test]
fn a_child_whose_button_is_pressed_is_removed_ejected_and_reported_no_more() {
    let machine = plugged(&[plug(0)]);
    play(&machine, &format!("open {SOFT} as s\nioctl s 0x222008\nclose s\nwait 1ms"));
    assert!(!tree(&machine).contains("child"), "{}", tree(&machine));
    in_order(&machine, &["soft 1 is removed", "slot 0 is ejected", "slot 0 is empty"]);
    finish(machine);
}

#[test]
fn a_tree_sleeps_from_below_and_wakes_from_above() {
    let machine = plugged(&[plug(HUB + 2), plug(PORT)]);
    play(&machine, "power s3\npower s0\npower d3 rustport#0\npower d0 rustport#0");
    in_order(
        &machine,
        &["bus 1 is off", "slot 2 is off", "bus 0 is off", "bus 0 is on", "slot 2 is on", "bus 1 is on"],
    );
    in_order(&machine, &["slot 0 is off", "slot 0 is on"]);
    finish(machine);
}

/// Plugs, pulls out, opens and removes while requests are under way.
const STORY: &str = r"open \\.\DirqlBusRust0 as b
    ioctl b 0x223140 in u32:0
    ioctl b 0x223140 in u32:0x202
    t: ioctl b 0x223144 in u32:0
    u: ioctl b 0x223140 in u32:0x101
    ioctl b 0x22314c in u32:2
    join t; join u
    close b";

#[test]
fn children_come_and_go_at_any_moment_in_random_schedules() {
    for seed in rig::seeds(16) {
        let machine = start(|| bus().checked(seed % 4 == 0).processors(2).policy(Policy::random(seed)));
        let _ = try_play(&machine, STORY);
        let report = machine.finish();
        assert_eq!(report.outcome(), Outcome::Clean, "seed {seed}: {report}");
        assert!(report.findings.is_empty(), "seed {seed}: {report}");
        assert_eq!(report.sums.still_allocated(), 0, "seed {seed}: {report}");
    }
}

#[test]
fn children_come_and_go_at_any_moment_in_schedules_with_two_preemptions() {
    let bounds = Bounds { schedules: rig::wanted("DIRQL_SCHEDULES", 30), ..Bounds::default() };
    let play = ScriptText::typed(STORY).play().unwrap();
    let accused = |report: &dirql::Report| report.outcome() != Outcome::Clean || !report.findings.is_empty();
    let searched = bus().processors(2).unobserved().search(&play, &bounds, accused).unwrap();
    let found = searched.found.map(|(choices, report)| format!("{choices:#?}\n{report}"));
    assert!(found.is_none(), "{}", found.unwrap_or_default());
}

#[test]
fn whichever_allocation_fails_the_bus_breaks_no_rule_and_leaves_nothing() {
    let story =
        format!("{OPEN}\n{PLUG}{PORT}\nwait 1ms\n{PLUG}{}\nwait 1ms\n{UNPLUG}0\nwait 1ms\nclose b", HUB + 1);
    let calls = whichever_fails(bus, Failing::One, &story);
    assert!(calls > 19, "only {calls} calls could fail");
}

#[test]
fn a_childs_request_that_goes_down_its_buss_stack_is_a_bug_check_with_its_line() {
    let machine = plugged(&[plug(PORT)]);
    let _ = try_play(&machine, &format!("open {PORTS} as p\nioctl p 0x223150"));
    let report = machine.finish();
    let verdict = report.verdict.clone().unwrap_or_else(|| panic!("{report}"));
    assert_eq!(verdict.bug_check.unwrap().code, 0x5255_5354, "{report}");
    assert!(report.to_string().contains("port.rs"), "{report}");
}
