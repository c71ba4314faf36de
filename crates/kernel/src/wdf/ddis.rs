//! The functions of KMDF's table, as rows of exports: name, the minor version that first had it, where it may be called.
//!
//! A line of `ddis.tsv` is a function, in the order of the table. Names, versions and levels are facts of Microsoft's pages of each function
//! (CC BY 4.0, see NOTICE) and of the public headers. What is for PASSIVE_LEVEL is let pass at APC_LEVEL: nothing in a framework's function
//! is known to wait for an APC of the caller's. Beyond its range a call is for Driver Verifier to object to: the framework itself mostly does not.

use engine::{Args, Flow};

use crate::cx::Cx;
use crate::exports::Export;
use crate::verdict::{Tier, Verdict};

static LINES: &str = include_str!("ddis.tsv");

/// How many functions KMDF 1.33 has, the newest that is known.
pub const COUNT: usize = 458;

/// All of them, by their index in the table.
pub static DDIS: [Export; COUNT] = rows(LINES.as_bytes());

const fn rows(text: &'static [u8]) -> [Export; COUNT] {
    const NONE: Export = row("", 0, 15);
    let mut all = [NONE; COUNT];
    let mut at = end_of(text, 0, b'\n') + 1; // behind the header
    let mut index = 0;
    while index < COUNT {
        let name = end_of(text, at, b'\t');
        let since = end_of(text, name + 1, b'\t');
        let irql = end_of(text, since + 1, b'\t');
        let (low, high) = range(slice(text, since + 1, irql));
        all[index] = row(as_text(slice(text, at, name)), low, high);
        at = end_of(text, irql, b'\n') + 1;
        index += 1;
    }
    assert!(at == text.len(), "there are more lines");
    all
}

const fn row(name: &'static str, irql_min: u8, irql_max: u8) -> Export {
    Export {
        name,
        module: "wdf01000.sys",
        irql_min,
        irql_max,
        irql_tier: Tier::Error,
        survives: (0, 15),
        is_wait: false,
        refusal: None,
        system_service: false,
        call: entered_as_a_routine,
    }
}

/// The index of a function that is known to be there.
pub(super) const fn index_of(name: &str) -> usize {
    let mut index = 0;
    while !is_same(DDIS[index].name, name) {
        index += 1;
    }
    index
}

const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// A driver has made one a routine of its own, by an address that it was never given.
fn entered_as_a_routine(cx: &mut Cx<'_>, _args: &Args) -> Flow<u64> {
    let message = "a routine that the driver has registered lies in the frameworks' loader";
    Err(cx.stop(Verdict::error("execute-of-data", message)))
}

/// `0`, `0..2`, `any`; `-` where no page says it, or it depends on the call.
const fn range(text: &[u8]) -> (u8, u8) {
    match text {
        [b'-'] | [b'a', b'n', b'y'] => (0, 15),
        [b'0'] => (0, 1),
        [only] => (digit(*only), digit(*only)),
        [low, b'.', b'.', high] => (digit(*low), digit(*high)),
        _ => panic!("no range of levels"),
    }
}

const fn digit(text: u8) -> u8 {
    assert!(text.is_ascii_digit(), "no level");
    text - b'0'
}

const fn end_of(text: &[u8], from: usize, end: u8) -> usize {
    let mut at = from;
    while text[at] != end {
        at += 1;
    }
    at
}

const fn slice(text: &'static [u8], from: usize, to: usize) -> &'static [u8] {
    text.split_at(to).0.split_at(from).1
}

const fn as_text(bytes: &'static [u8]) -> &'static str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("no text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The functions of each minor version, as its clients bind them.
    const COUNTS: [(u32, usize); 11] = [
        (0, 383),
        (1, 386),
        (5, 387),
        (9, 396),
        (11, 432),
        (13, 438),
        (15, 444),
        (19, 446),
        (21, 448),
        (23, 451),
        (25, 453),
    ];

    #[test]
    fn each_version_has_as_many_as_its_clients_bind() {
        let since = |line: &str| line.split('\t').nth(1).unwrap().parse::<u32>().unwrap();
        let versions: Vec<u32> = LINES.lines().skip(1).map(since).collect();
        assert!(versions.is_sorted());
        for (minor, count) in COUNTS {
            assert_eq!(versions.iter().filter(|since| **since <= minor).count(), count, "1.{minor}");
        }
    }

    #[test]
    fn known_functions_are_where_clients_look_for_them() {
        for (index, name) in [
            (75, "WdfDeviceCreate"),
            (116, "WdfDriverCreate"),
            (152, "WdfIoQueueCreate"),
            (201, "WdfDriverMiniportUnload"),
            (263, "WdfRequestComplete"),
            (315, "WdfSpinLockCreate"),
            (457, "WdfDeviceSetDeviceInterfaceStateEx"),
        ] {
            assert_eq!(DDIS[index].name, name);
        }
        let complete = &DDIS[263];
        assert_eq!((complete.irql_min, complete.irql_max), (0, 2));
    }
}
