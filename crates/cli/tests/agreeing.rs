//! `dirql explore` of small machines (`crates/dirql/tests/rig/small_machines.rs`): one worker, three, and none (`--in-process`) write the same report, to the last
//! byte. `outcomes.rs` of the library compares their sets of outcomes.

use std::ffi::OsString;

use super::rig::small_machines::{MACHINES, NAMES, SmallMachine, each_machine};
use super::rig::{Answer, dirql, driver, folder, root};

/// The command that explores it with this script.
fn command(machine: &SmallMachine, script: &str) -> Vec<OsString> {
    let mut command: Vec<OsString> = vec!["explore".into(), driver(machine.driver).into(), "--json".into()];
    let inf = machine.inf(&root().join("target/drivers"), || folder(machine.name));
    let of = [("--inf", inf.map(Into::into)), ("--device", machine.card.map(OsString::from))];
    for (option, value) in of.into_iter().chain([("--platform", machine.platform.map(OsString::from))]) {
        command.extend(value.into_iter().flat_map(|value| [option.into(), value]));
    }
    command.extend(machine.checked.then(|| "--checked".into()));
    let numbers = [
        ("--processors", machine.processors.to_string()),
        ("--preemptions", machine.preemptions.to_string()),
    ];
    command.extend(numbers.into_iter().flat_map(|(option, value)| [option.into(), value.into()]));
    command.extend(["--do".into(), script.into()]);
    command
}

/// The script with nothing expected: what failed an expectation is no end of the search, and the rest is made, too.
fn to_the_end(script: &str) -> String {
    let lines = script.lines().map(|line| match line.split_once(" expect ") {
        Some((command, rest)) => {
            format!("{command} expect any{}", rest.find(';').map_or("", |at| &rest[at..]))
        }
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn agree(name: &str) {
    let machine = SmallMachine::named(name);
    for script in [machine.script.to_owned(), to_the_end(machine.script)] {
        let explored = |more: &[&str]| {
            let command = command(machine, &script).into_iter();
            let Answer { code, out, err } = dirql(command.chain(more.iter().map(OsString::from)));
            assert!(matches!(code, Some(0 | 1)), "{code:?}\n{out}\n{err}");
            assert!(out.contains("schedules"), "{out}\n{err}");
            // The command that makes a finding again names what it was asked.
            (code, out.replace(" --in-process", ""), err)
        };
        let one = explored(&["--workers", "1"]);
        assert_eq!(one, explored(&["--workers", "3"]), "{script}");
        assert_eq!(one, explored(&["--in-process"]), "{script}");
    }
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            agree(stringify!($name));
        })*
    };
}

each_machine! { tests }

#[test]
fn each_machine_is_here() {
    assert!(MACHINES.iter().map(|machine| machine.name).eq(NAMES.iter().copied()));
}
