//! Requests of one kind with all lengths around the usual boundaries, with numbers at which drivers go wrong, and with pointers of all kinds.

use std::collections::BTreeSet;

use super::super::survey::{Operation, Survey};
use super::steps::{around_input, filled, tried, tried_in_turn};
use super::{METHOD_BUFFERED, METHOD_NEITHER, OVERFLOWS, WORDS};
use crate::record::hex;

/// The lengths of reads and writes: some of several pages, which lie wherever memory is free.
const LENGTHS: [u32; 14] = [0, 1, 3, 4, 16, 100, 4095, 4096, 4097, 4112, 8192, SEVERAL_PAGES, 65_536, LONG];
const PAGE: u32 = 4096;
const SEVERAL_PAGES: u32 = 12_288;
/// Four letters.
const LETTERS: u32 = 0x4141_4141;
/// More than a driver takes at a time: some have windows of 64 KiB.
const LONG: u32 = 200_000;
/// Memory that ends with a page, and is no whole words long.
pub(super) const ODD_MEMORY: &str = "memory page fill:0xffffffff:4096; memory odd of page 13 at 0xff3";
/// The lengths of the buffers of device control requests, of one of them and of both.
const SIZES: [u32; 14] = [1, 2, 3, 4, 6, 7, 8, 12, 16, 24, 32, 64, 256, 4096];
/// Lengths of buffers that hold such values, and where in them these stand.
const VALUE_SIZES: [u32; 5] = [8, 16, 32, 64, 256];
const VALUE_PLACES: [u32; 4] = [0, 4, 8, 12];
/// Offsets of reads and writes: of 4 GiB the lower half alone is nothing, and the sum of the last one and a length is below zero.
const OFFSETS: [u64; 6] = [1, 0xFFF, 0xFFFF, 0x7FFF_FFFF, 1 << 32, 0x7FFF_FFFF_FFFF_FFF0];
/// Words that stand beside each other, as an offset and a length do, and the sizes of the buffers that hold them.
const PAIRED: [u32; 9] = [0, 1, 8, 16, 0x40, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFF0, 0xFFFF_FFFF];
const PAIR_SIZES: [u32; 2] = [16, 64];
/// An address of the kernel's: where drivers' pool lies.
const KERNEL_ADDRESS: u64 = 0x2020_0000_1000;

/// An address that is the kernel's on every Windows, and where nothing is; and so many of them stand in a row.
const KERNEL_POINTER: u64 = 0xFFFF_F800_DEAD_0000;
const POINTERS_IN_A_ROW: [usize; 5] = [1, 2, 3, 4, 8];

/// So long is memory of the application's whose address stands in input, beside so many words of 8 bytes at most; and a handle of the process itself.
const PAGE_LENGTH: u32 = 4096;
const MOST_WORDS: usize = 6;
const OWN_PROCESS: u64 = u64::MAX;

/// So many of the driver's own numbers are tried as lengths.
const OWN_SIZES: usize = 24;

/// The request with other buffers: the data that it takes or is answered with, as a script has them. None of a code that has no output.
fn with_buffer(operation: &Operation, taken: &str, answered: &str) -> Option<String> {
    let is_read = operation.command.starts_with("read");
    Some(match (operation.code, operation.command.rsplit_once(" out ")) {
        (Some(_), Some((before, _))) => format!("{before} out {answered}"),
        (Some(_), None) => return None,
        (None, _) if is_read => format!("read h {answered}"),
        (None, _) => format!("write h {taken}"),
    })
}

/// The request with buffers of several pages.
pub(super) fn of_several_pages(operation: &Operation) -> String {
    of_length(operation, SEVERAL_PAGES)
}

/// The request with buffers of a page.
pub(super) fn of_a_page(operation: &Operation) -> String {
    of_length(operation, PAGE)
}

fn of_length(operation: &Operation, length: u32) -> String {
    of_other_length(operation, length).unwrap_or_else(|| operation.command.clone())
}

/// The request with buffers of this length; none of a code that has no output.
pub(super) fn of_other_length(operation: &Operation, length: u32) -> Option<String> {
    with_buffer(operation, &filled(length, u32::MAX), &length.to_string())
}

/// The request with [`ODD_MEMORY`]: what is stored behind its end is stored where there is nothing.
pub(super) fn of_odd_length(operation: &Operation) -> String {
    with_buffer(operation, "memory odd", "memory odd").unwrap_or_else(|| operation.command.clone())
}

/// Buffers that begin within a page, as those of applications do: where in [`PAGES`], and how long.
const WITHIN: [(u32, u32); 12] = [
    (0xFF0, 64),
    (0xFFC, 8),
    (0xFFF, 2),
    (100, 4096),
    (1, 4096),
    (0x800, 4096),
    (0x810, 8192),
    (16, 64),
    // They touch one page more than fill them.
    (0xFF0, 16_384),
    (0xFF0, 32_768),
    (0xFF0, 65_536),
    (0xFF0, 131_072),
];

/// Bytes of memory that hold all of these.
const PAGES: u32 = 0x21_000;
/// The number of the first of these requests: others are fewer.
const FIRST_WITHIN: usize = 1_000;

/// Requests with such buffers: of all that is not copied for the driver.
fn within_pages(operation: &Operation) -> Vec<String> {
    let mut steps = vec![format!("memory pages {}", filled(PAGES, u32::MAX))];
    for (n, (at, length)) in WITHIN.into_iter().enumerate() {
        let memory = format!("memory w{n}");
        let request = with_buffer(operation, &memory, &memory)
            .unwrap_or_else(|| format!("ioctl h {:#x} in {memory}", operation.code.unwrap_or_default()));
        steps
            .push(format!("memory w{n} of pages {length} at {at:#x}; {}", tried(FIRST_WITHIN + n, &request)));
    }
    steps
}

/// A request of one kind with all these lengths.
pub(super) fn sizes(survey: &Survey, operation: &Operation) -> String {
    let own = &survey.values;
    let mut steps = Vec::new();
    if operation.code.is_none_or(|code| code & 3 != METHOD_BUFFERED) {
        steps.extend(within_pages(operation));
    }
    let mut add = |command: String| steps.push(tried(steps.len(), &command));
    match operation.code {
        None if operation.command.starts_with("read") => {
            LENGTHS.iter().for_each(|length| add(format!("read h {length}")));
            LENGTHS.iter().for_each(|length| add(format!("read h {length} at 0x7fffffff0")));
            OFFSETS.iter().for_each(|at| add(format!("read h 16 at {at}")));
        }
        None => {
            LENGTHS.iter().for_each(|length| add(format!("write h {}", filled(*length, u32::MAX))));
            LENGTHS.iter().for_each(|length| add(format!("write h {} at 0x7fffffff0", filled(*length, 1))));
            OFFSETS.iter().for_each(|at| add(format!("write h {} at {at}", filled(16, 1))));
            add(format!("write h {} at end", filled(16, 1)));
        }
        Some(code) => {
            add(format!("ioctl h {code:#x}"));
            if code & 3 != METHOD_BUFFERED {
                add(format!("ioctl h {code:#x} in zero:64 out {SEVERAL_PAGES}"));
                add(format!("ioctl h {code:#x} in zero:64 out {LONG}"));
            }
            let own = own.iter().copied().filter(|size| *size <= SEVERAL_PAGES && !SIZES.contains(size));
            for size in own.take(OWN_SIZES) {
                add(format!("ioctl h {code:#x} in zero:{size} out {size}"));
                add(format!("ioctl h {code:#x} in zero:{size}"));
                add(format!("ioctl h {code:#x} out {size}"));
            }
            for size in SIZES {
                add(format!("ioctl h {code:#x} in zero:{size} out {size}"));
                add(format!("ioctl h {code:#x} in zero:{size}"));
                add(format!("ioctl h {code:#x} out {size}"));
                add(format!("ioctl h {code:#x} in zero:{size} out 4096"));
                add(format!("ioctl h {code:#x} in zero:4096 out {size}"));
                add(format!("ioctl h {code:#x} in {} out {size}", filled(size, u32::MAX)));
                add(format!("ioctl h {code:#x} in {}", filled(size, u32::MAX)));
                add(format!("ioctl h {code:#x} in {}", filled(size, LETTERS)));
            }
            // A text without an end behind a number.
            for (number, size) in [0, 1].into_iter().flat_map(|number| [12, 60].map(|size| (number, size))) {
                add(format!("ioctl h {code:#x} in u32:{number} + {} out {size}", filled(size, LETTERS)));
            }
            for word in WORDS.into_iter().chain(known_words(survey, code)) {
                for size in [4, 8, 12, 16, 32, 64, 256] {
                    add(format!("ioctl h {code:#x} in {} out {size}", filled(size, word)));
                    add(format!("ioctl h {code:#x} in u32:{word:#x} + zero:{} out 64", size - 4));
                    add(format!("ioctl h {code:#x} in zero:{} + u32:{word:#x} out 64", size - 4));
                }
            }
        }
    }
    steps.join("; ") + "; close h"
}

/// The words of which inputs are made that such a code is known to succeed with.
fn known_words(survey: &Survey, code: u32) -> Vec<u32> {
    let of_code = survey.operations.iter().filter(|one| one.code == Some(code) && one.succeeds);
    let filled = of_code.filter_map(|one| one.word()?.strip_prefix("fill:0x")?.split_once(':'));
    let words = filled.filter_map(|(word, _)| u32::from_str_radix(word, 16).ok());
    words.filter(|word| !WORDS.contains(word)).collect()
}

/// Input with numbers in it at which drivers go wrong: limits of their own, and what overflows.
pub(super) fn values(operation: &Operation, code: u32, limits: &[u32]) -> String {
    let near = limits.iter().flat_map(|limit| [limit.wrapping_sub(1), *limit, limit.wrapping_add(1)]);
    let all: BTreeSet<u32> = near.chain(WORDS).chain(OVERFLOWS).collect();
    let mut steps = Vec::new();
    for size in VALUE_SIZES {
        for place in VALUE_PLACES.into_iter().filter(|place| place + 4 <= size) {
            for value in &all {
                let rest = size - place - 4;
                let command =
                    format!("ioctl h {code:#x} in zero:{place} + u32:{value:#x} + zero:{rest} out {size}");
                steps.push(if operation.waits { tried(steps.len(), &command) } else { command });
            }
        }
    }
    for size in PAIR_SIZES {
        for place in VALUE_PLACES.into_iter().filter(|place| place + 8 <= size) {
            for (first, second) in PAIRED.iter().flat_map(|first| PAIRED.map(|second| (first, second))) {
                let rest = size - place - 8;
                let command = format!(
                    "ioctl h {code:#x} in zero:{place} + u32:{first:#x} + u32:{second:#x} + zero:{rest} out {size}"
                );
                steps.push(if operation.waits { tried(steps.len(), &command) } else { command });
            }
        }
    }
    steps.join("; ") + "; close h"
}

/// Lengths that 16 bits just hold, or just not, alone or with an end behind them,
const OF_16_BITS: [u32; 5] = [0xFFFC, 0xFFFD, 0xFFFE, 0xFFFF, 0x1_0000];
/// which are tried as well as the driver's own if they are more than usual inputs have and no more than this.
const SHORTEST_SAID: u32 = 257;
const LONGEST_SAID: u32 = 0x1_1000;
/// So many of the driver's own are tried, in one of the first words, and so many bytes are there behind what is said.
const SAID: usize = 8;
const SAID_PLACES: [usize; 3] = [0, 4, 8];
const BEHIND_SAID: u32 = 64;

/// The request with such lengths in its words, and with as many bytes behind them. None if it takes no words, or memory of the application's.
pub(super) fn as_long_as_said(operation: &Operation, limits: &[u32]) -> Option<String> {
    let (head, input, output) = around_input(&operation.command)?;
    let own = operation.input();
    if own.len() < 4 || input.contains("event:") || input.contains("page:") {
        return None;
    }
    let is_long = |length: &u32| (SHORTEST_SAID..=LONGEST_SAID).contains(length);
    let near = |limit: u32| [limit.wrapping_sub(1), limit, limit.wrapping_add(1)];
    let own_limits = limits.iter().copied().filter(is_long).take(SAID).flat_map(near);
    let lengths: BTreeSet<u32> = own_limits.chain(OF_16_BITS).collect();
    let mut steps = Vec::new();
    for place in SAID_PLACES.into_iter().filter(|place| place + 4 <= own.len()) {
        let (before, behind) = (&own[..place], &own[place + 4..]);
        let behind = &behind[..behind.len().min(BEHIND_SAID as usize)];
        for length in &lengths {
            let parts = [hex_or_none(before), format!("u32:{length:#x}"), hex_or_none(behind)];
            let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
            let command = format!("{head}{} + zero:{}{output}", parts.join(" + "), length + BEHIND_SAID);
            steps.push(if operation.waits { tried(steps.len(), &command) } else { command });
        }
    }
    Some(steps.join("; ") + "; close h")
}

/// Bytes as a script has them, if there are any.
fn hex_or_none(bytes: &[u8]) -> String {
    if bytes.is_empty() { String::new() } else { format!("hex:{}", hex(bytes)) }
}

/// Numbers whose products with the size of a record, or with one another, are 0 in 32 bits: records of 4, 2 and 8 bytes; and two of them.
const PRODUCTS: [u32; 3] = [0x4000_0000, 0x8000_0000, 0x2000_0000];
const FACTORS: [u32; 2] = [0x1_0000, 0x8000];

/// The request with such numbers in each word of its own input, and in each two that stand beside each other, where it names memory of the application's: that is
/// the kernel's then. None if it names none.
pub(super) fn products(operation: &Operation) -> Option<String> {
    const OWN: &str = "page:own";
    let (head, input, output) = operation.code.and_then(|_| around_input(&operation.command))?;
    let parts: Vec<&str> = input.split(" + ").collect();
    if !parts.contains(&OWN) {
        return None;
    }
    let is_word = |at: &usize| parts.get(*at).is_some_and(|part| part.starts_with("u32:"));
    let put = |places: &[usize], number: u32| {
        let part = |(at, part): (usize, &&str)| match *part {
            _ if places.contains(&at) => format!("u32:{number:#x}"),
            OWN => format!("u64:{KERNEL_POINTER:#x}"),
            other => other.to_owned(),
        };
        let parts: Vec<String> = parts.iter().enumerate().map(part).collect();
        format!("{head}{}{output}", parts.join(" + "))
    };
    let single = (0..parts.len()).filter(is_word).flat_map(|at| PRODUCTS.map(|number| put(&[at], number)));
    let beside = (0..parts.len()).filter(|at| is_word(at) && is_word(&(at + 1)));
    let pairs = beside.flat_map(|at| FACTORS.map(|number| put(&[at, at + 1], number)));
    Some(tried_in_turn(single.chain(pairs)) + "; close h")
}

/// So many requests of each kind are made where lengths change: a ring of bytes whose end a record meets by one of its last three bytes meets it so once in
/// as many requests as a third of its length, whatever the records' lengths are.
const CHANGING: u32 = 3_000;
const LONGEST_CHANGING: u32 = 600;
/// So many that give data are ahead of those that take it.
const AHEAD: u32 = 3;

/// Requests that give data and requests that take it, one after the other, thousands in a row and of lengths that change each time: what the driver keeps of them
/// goes round, whatever its size is.
pub(super) fn changing(gives: &Operation, takes: &Operation) -> String {
    // What waits, as for room, is given up.
    let made = |command: String| format!("async a {command}; cancel a; join a");
    let given = |length: u32| {
        let data = filled(length, 0x4141_4141);
        match gives.code {
            Some(code) => format!("ioctl h {code:#x} in {data}"),
            None => format!("write h {data}"),
        }
    };
    let taken = match takes.code {
        Some(code) => format!("ioctl h {code:#x} out {PAGE_LENGTH}"),
        None => format!("read h {PAGE_LENGTH}"),
    };
    let mut state: u32 = 1;
    let mut steps = Vec::new();
    for n in 0..CHANGING {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        steps.push(made(given(1 + (state >> 16) % LONGEST_CHANGING)));
        if n >= AHEAD {
            steps.push(made(taken.clone()));
        }
    }
    steps.join("; ") + "; close h"
}

/// Lengths of which two together, with a little, do not fit into 16 bits, as strings and their lengths have them, and one that does not alone; and so many
/// requests of such lengths.
const GREAT_LENGTHS: [u32; 5] = [0x7FFE, 0xFFF0, 0xFFFC, 0xFFFE, 0x1_0010];
const GREAT: usize = 6;

/// Requests that may take data: each with very long ones behind each.
pub(super) fn great(operations: &[&Operation]) -> String {
    let given = |operation: &Operation, length: u32| {
        let data = filled(length, u32::from(b'A') << 16 | u32::from(b'A'));
        match operation.code {
            Some(code) => format!("ioctl h {code:#x} in {data} out {PAGE_LENGTH}"),
            None => format!("write h {data}"),
        }
    };
    let some = operations.iter().take(GREAT);
    let pairs = some.clone().flat_map(|one| some.clone().map(move |other| (*one, *other)));
    let pairs =
        pairs.flat_map(|(one, other)| GREAT_LENGTHS.map(|length| [given(one, length), given(other, length)]));
    tried_in_turn(pairs.flatten()) + "; close h"
}

/// Whether a request takes data of any length from the application, and whether it gives it such.
pub(super) fn gives_or_takes(operation: &Operation) -> (bool, bool) {
    let command = operation.command.as_str();
    match operation.code {
        Some(_) => (command.contains(" in "), command.contains(" out ")),
        None => (command.starts_with("write"), command.starts_with("read")),
    }
}

/// Inputs that hold addresses of the application's own memory: in each of several places of 8 bytes one, with lengths in the others, or in all but the last,
/// or behind the handle of a process; and in each place of this input.
fn own_pointers(known: &[u8]) -> Vec<String> {
    let address = || "address:page".to_owned();
    let length = || format!("u64:{PAGE_LENGTH}");
    let mut inputs = Vec::new();
    for count in 1..=MOST_WORDS {
        for at in 0..count {
            let words = (0..count).map(|word| if word == at { address() } else { length() });
            inputs.push(words.collect());
        }
        if count > 1 {
            inputs.push([vec![address(); count - 1], vec![length()]].concat());
        }
        if count > 2 {
            let behind = [vec![address(); count - 2], vec![length()]].concat();
            inputs.push([vec![format!("u64:{OWN_PROCESS:#x}")], behind].concat());
        }
    }
    // Behind numbers of 4 bytes, a length among them, or with one in front of it or behind.
    for at in 1..=MOST_WORDS {
        let half = |length: bool| if length { format!("u32:{PAGE_LENGTH}") } else { "u32:0".to_owned() };
        let zeroes = |count: usize| vec![half(false); count];
        let before = 2 * (at - 1);
        inputs.push([zeroes(before), vec![half(false), half(true), address()]].concat());
        inputs.push([zeroes(before), vec![half(true), half(false), address()]].concat());
        inputs.push([zeroes(before), vec![address(), half(true), half(false)]].concat());
    }
    let words: Vec<String> = known.chunks(8).map(|word| format!("hex:{}", hex(word))).collect();
    let whole = known.len() / 8;
    if known.iter().any(|byte| *byte != 0) && whole <= 2 * MOST_WORDS {
        inputs.extend((0..whole).map(|at| {
            let mut words = words.clone();
            words[at] = address();
            words
        }));
    }
    inputs.into_iter().map(|words: Vec<String>| words.join(" + ")).collect()
}

/// Buffers that are not there, are taken away, lie in the kernel, or end at a page; and input that is made of pointers
/// to what is the kernel's, or the application's own.
pub(super) fn pointers(operation: &Operation) -> String {
    let mut steps = vec![
        "memory gone zero:4096; unmap gone".to_owned(),
        format!("memory kernel at {KERNEL_ADDRESS:#x} 64"),
        "memory null at 0x10 64".to_owned(),
        "memory odd at 0x100000000001 64".to_owned(),
        "memory good zero:64".to_owned(),
        "memory longer of good 0xfffffffc".to_owned(),
        "memory longest of good 0xffffffff".to_owned(),
        format!("memory page {}", filled(PAGE_LENGTH, 0x4141_4141)),
        format!("memory constant zero:{PAGE_LENGTH} read-only"),
    ];
    let mut add = |command: String| steps.push(tried(steps.len(), &command));
    // With other methods the I/O manager sees that there is less.
    let claimed: &[&str] = match operation.code {
        Some(code) if code & 3 != METHOD_NEITHER => &[],
        _ => &["longer", "longest"],
    };
    for bad in ["gone", "kernel", "null", "odd", "constant"].iter().chain(claimed) {
        match operation.code {
            Some(code) => {
                add(format!("ioctl h {code:#x} in memory {bad} out memory {bad}"));
                add(format!("ioctl h {code:#x} in memory good out memory {bad}"));
                add(format!("ioctl h {code:#x} in memory {bad} out memory good"));
                add(format!("ioctl h {code:#x} in memory {bad}"));
                add(format!("ioctl h {code:#x} out memory {bad}"));
                // Behind an input that the driver takes.
                with_buffer(operation, "", &format!("memory {bad}")).into_iter().for_each(&mut add);
            }
            None if operation.command.starts_with("read") => add(format!("read h memory {bad}")),
            None => add(format!("write h memory {bad}")),
        }
    }
    let given = match operation.code {
        Some(code) => format!("ioctl h {code:#x} in"),
        None if operation.command.starts_with("write") => "write h".to_owned(),
        None => return steps.join("; ") + "; close h",
    };
    for count in POINTERS_IN_A_ROW {
        add(format!("{given} {}", vec![format!("u64:{KERNEL_POINTER:#x}"); count].join(" + ")));
    }
    for input in own_pointers(&operation.input()) {
        add(format!("{given} {input}"));
        // An answer beside it.
        if operation.code.is_some() {
            add(format!("{given} {input} out 64"));
        }
    }
    steps.join("; ") + "; close h"
}
