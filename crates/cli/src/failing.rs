//! Ways for the process that runs a machine to die, for tests of the process that watches it: `DIRQL_FAIL=abort`, in debug builds.
//!
//! Each ends the process before its report, so none can make a run look better than it is.

use dirql::{Machine, Outcome, Report};

/// The environment variable that names the way.
const VARIABLE: &str = "DIRQL_FAIL";

/// How the ways end that are taken in a machine only that is not checked.
const FAST: &str = "-fast";

/// How the ways end that are taken in a search only.
const BROKEN: &str = "-broken";

/// Dies inside the machine, on a thread of its own, as the environment asks.
pub(crate) fn as_asked(machine: &Machine, checked: bool) {
    let Some(way) = std::env::var_os(VARIABLE) else { return };
    let way = way.to_string_lossy().into_owned();
    // What does not die is the same run as without this.
    if way.ends_with(BROKEN) || way.ends_with(FAST) && checked {
        return;
    }
    let _ = machine.with_kernel(move |_| {
        die(way.strip_suffix(FAST).unwrap_or(&way));
        Ok(())
    });
}

/// Dies behind a run of a search that has broken an expectation, if the environment asks for that: `abort-broken`; `hang-fast-broken` and
/// `abort-fast-broken` unless it was `checked`.
pub(crate) fn in_a_search(report: &Report, checked: bool) {
    let Some(way) = std::env::var_os(VARIABLE).filter(|_| report.outcome() == Outcome::Unexpected) else {
        return;
    };
    let way = way.to_string_lossy().into_owned();
    match way.strip_suffix(BROKEN) {
        Some("abort") => die("abort"),
        Some("abort-fast") if !checked => die("abort"),
        Some("hang-fast") if !checked => die("hang"),
        _ => {}
    }
}

fn die(way: &str) {
    match way {
        "abort" => std::process::abort(),
        "hang" => loop {
            std::hint::spin_loop();
        },
        "open" => drop(std::fs::read("/etc/hostname")),
        "start" => drop(std::process::Command::new("/bin/true").status()),
        "exit" => std::process::exit(0),
        // As a driver would that runs code in this process.
        "forge" => forge("end 0\n"),
        "forge-in-full" => forge("over 0\nend 0123456789abcdef 0\n"),
        "overflow" => assert_ne!(deeper(1), 0),
        "panic" => panic!("a panic that was asked for"),
        "memory" => drop(vec![0_u8; 1 << 40]),
        other => panic!("{VARIABLE}={other}: no such way"),
    }
}

/// Says these words to the watcher and ends well.
fn forge(words: &str) {
    let _ = rustix::io::write(std::io::stdin(), words.as_bytes());
    std::process::exit(0);
}

#[allow(unconditional_recursion, reason = "it is to run over the end of its stack")]
fn deeper(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 64]);
    deeper(here[3] + 1) + here[5]
}
