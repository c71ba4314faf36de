//! `dirql wmi`: what a driver offers by WMI is listed, read, set, called and watched from outside; exit codes, JSON.

use super::rig::{Answer, dirql, driver};

const COUNTERS: &str = "{D1B0C0DE-0000-4000-8000-000000000001}";
const METHODS: &str = "{D1B0C0DE-0000-4000-8000-000000000002}";
const EVENTS: &str = "{D1B0C0DE-0000-4000-8000-000000000003}";
const CARD: &str = "pci,id=abcd:0001,bar0=mem:128,irq";

/// Runs `dirql wmi` on the driver that has these blocks.
fn wmi(rest: &[&str]) -> Answer {
    let sys = driver("wmi.sys").display().to_string();
    dirql([&["wmi", &sys, "--device", CARD], rest].concat())
}

/// Its answer, which is clean and has these lines in this order.
fn says(rest: &[&str], lines: &[&str]) -> Answer {
    let answer = wmi(rest);
    assert_eq!(answer.code, Some(0), "{rest:?}\n{}", answer.said());
    let mut behind = answer.out.as_str();
    for line in lines {
        let at = behind.find(line).unwrap_or_else(|| panic!("{rest:?} lacks `{line}`\n{}", answer.said()));
        behind = &behind[at + line.len()..];
    }
    answer
}

#[test]
fn blocks_are_listed_with_flags_instances_owner_and_class() {
    let answer = says(
        &[],
        &[
            &format!("{COUNTERS}  \\Device\\DirqlWmi (wmi)\n  data, expensive to collect; flags 0x21\n"),
            r"  instance 0: PCI\VEN_ABCD&DEV_0001",
            r"  instance 1: PCI\VEN_ABCD&DEV_0001",
            "  class: in the resource MofResource, which is not decoded",
            &format!("{METHODS}  "),
            "  data; flags 0x20\n",
            &format!("{EVENTS}  "),
            "  only events; flags 0x60\n",
            "clean",
        ],
    );
    assert!(!answer.out.contains("IRP_MJ"), "only WMI is shown\n{}", answer.said());
}

#[test]
fn instances_are_read_and_set_and_methods_called_in_the_order_asked() {
    let question = |what: &str, guid: &str, rest: &str| format!("{what} block:{guid} {rest}");
    says(
        &[
            "--ask",
            &question("query", COUNTERS, ""),
            "--ask",
            &question("set", COUNTERS, "instance 1 hex:aabbccdd"),
            "--ask",
            &question("set", COUNTERS, "item 1 u32:0x01020304"),
            "--ask",
            &question("query", COUNTERS, "instance 1"),
            "--ask",
            &question("wmi execute", METHODS, "method 1 in u32:40 + u32:2 out 4 expect u32:42"),
        ],
        &[
            &format!("query {COUNTERS} of PCI\\VEN_ABCD"),
            "_0: 4 bytes\n  0000  10 11 12 13 ",
            "_1: 10 bytes\n  0000  20 21 22 23 24 25 26 27 28 29 ",
            "  !\"#$%&'()\n",
            &format!("set {COUNTERS}: STATUS_SUCCESS\n"),
            &format!("set {COUNTERS}: STATUS_SUCCESS\n"),
            "_1: 4 bytes\n  0000  aa bb cc dd ",
            &format!("execute {METHODS} of PCI"),
            "  0000  2a 00 00 00 ",
        ],
    );
}

#[test]
fn events_are_watched_from_before_the_script_on() {
    let fire = format!("execute block:{METHODS} method 3 in text:hello");
    let script = format!("wmi {fire}");
    let event = format!("event {EVENTS} of PCI\\VEN_ABCD");
    says(
        &["--watch", EVENTS, "--do", &script, "--ask", &fire],
        &[
            &format!("enable {EVENTS}: STATUS_SUCCESS"),
            &event,
            "_0: 5 bytes\n  0000  68 65 6c 6c 6f ",
            "hello\n",
            &event,
            "hello\n",
            &format!("disable {EVENTS}: STATUS_SUCCESS"),
        ],
    );
    let unheard = says(&["--ask", &fire, "--ask", &fire], &[]);
    assert!(!unheard.out.contains("enable"), "{}", unheard.said());
}

#[test]
fn what_a_driver_refuses_is_told_with_its_status_and_exit_code_1() {
    let query = |guid: &str, rest: &str| format!("query block:{guid} {rest}");
    for (question, status) in [
        (query("{D1B0C0DE-0000-4000-8000-000000000099}", ""), "STATUS_WMI_GUID_NOT_FOUND"),
        (query(COUNTERS, "instance 7"), "STATUS_WMI_INSTANCE_NOT_FOUND"),
        (format!("set block:{METHODS} hex:00"), "STATUS_WMI_READ_ONLY"),
        (format!("execute block:{METHODS} method 4"), "STATUS_WMI_ITEMID_NOT_FOUND"),
    ] {
        let answer = wmi(&["--ask", &question]);
        assert_eq!(answer.code, Some(1), "{question}\n{}", answer.said());
        assert!(answer.out.contains(status), "{question}\n{}", answer.said());
    }
    says(&["--ask", &query(COUNTERS, "instance 7 expect STATUS_WMI_INSTANCE_NOT_FOUND")], &[]);
}

#[test]
fn what_cannot_be_used_is_one_message_that_names_the_option() {
    let own = wmi(&["--do", "wait 1ms; wiat 2ms"]);
    assert_eq!(own.code, Some(2), "{}", own.said());
    assert!(own.err.contains("--do:1:11"), "{}", own.said());
    let two = format!("query block:{COUNTERS}; wait 1ms");
    for (rest, says) in [
        (vec!["--ask", "qeury block:{x}"], "--ask:1:5"),
        (vec!["--ask", "query block:{x}"], "--ask:1:"),
        (vec!["--ask", &two], "is not one command; give --ask once for each"),
        (vec!["--watch", "{x}"], "--watch:1:"),
        (vec!["--watch", EVENTS, "--for", "soon"], "--for:1:"),
        (vec!["--for", "1ms"], "--watch"),
    ] {
        let answer = wmi(&rest);
        assert_eq!((answer.code, answer.out.as_str()), (Some(2), ""), "{rest:?}\n{}", answer.said());
        assert!(answer.err.contains(says), "{rest:?} lacks `{says}`\n{}", answer.said());
    }
}

#[test]
fn json_has_blocks_answers_and_the_end_and_nothing_else() {
    let question = format!("query block:{COUNTERS} instance 0");
    let answer = wmi(&["--json", "--ask", "blocks", "--ask", &question]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    let lines: Vec<serde_json::Value> =
        answer.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["begin", "wmi-block", "wmi-block", "wmi-block", "wmi-answer", "end"]);
    assert_eq!((&lines[1]["guid"], &lines[1]["driver"]), (&COUNTERS.into(), &"wmi".into()));
    assert_eq!(lines[1]["names"].as_str().unwrap().lines().count(), 2);
    assert_eq!(lines[4]["data"], "10111213");
}
