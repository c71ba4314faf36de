//! `sprintf` and its relatives, over a driver's memory.
//!
//! Pages: *sprintf, swprintf*, *_snprintf, _snwprintf*, *vsprintf, vswprintf*, *sprintf_s*. The text is made by `format`. A
//! routine without a length writes at most 64 KiB; one with `_s` that does not fit writes an empty text and returns −1
//! in place of the run-time's invalid-parameter handler.

use abi::DriverPtr;
use engine::{Args, BadAddress, Flow, Leave};

use super::format::{self, Arguments, BadPointer, Uses};
use super::{crt, memory};
use crate::cx::Cx;
use crate::ke::slice;

/// Most characters that a routine without a length argument writes.
const MOST: u64 = 0x1_0000;

/// A `va_list` in the machine's memory.
pub(crate) struct VaList {
    at: u64,
}

impl VaList {
    pub(crate) fn new(at: u64) -> Self {
        Self { at }
    }
}

/// A `va_list` that is read, and what its pointers point at.
struct Reader<'c, 'm> {
    cx: &'c mut Cx<'m>,
    list: VaList,
    /// Why reading ended, where that has been said already.
    leave: Option<Leave>,
}

impl Reader<'_, '_> {
    fn keep<T>(&mut self, address: u64, result: Flow<T>) -> Result<T, BadPointer> {
        result.map_err(|leave| {
            self.leave = Some(leave);
            BadPointer { address }
        })
    }
}

impl Arguments for Reader<'_, '_> {
    fn next(&mut self) -> u64 {
        // Behind the end of the stack there are no arguments; what a driver reads there is nothing.
        let value = self.cx.engine().read(DriverPtr::new(self.list.at)).unwrap_or(0);
        self.list.at = self.list.at.wrapping_add(8);
        value
    }

    fn bytes(&mut self, address: u64, most: usize) -> Result<Vec<u8>, BadPointer> {
        let bytes = memory::reach(address, 1, (most as u64).max(1));
        let read = memory::peek(self.cx, address, bytes);
        self.keep(address, read)
    }

    fn looked_at(&mut self, address: u64, bytes: usize) -> Result<(), BadPointer> {
        let judged = memory::looked_at(self.cx, address, bytes as u64);
        self.keep(address, judged)
    }
}

/// What a text is printed for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Whole, with a zero behind it.
    Whole,
    /// `_snprintf`: at most so many characters, a zero only if there is room, −1 if it was cut.
    Count(u64),
    /// `sprintf_s`: with its zero, or not at all.
    Safe(u64),
    /// `_snprintf_s`: room, and how many characters at most (`_TRUNCATE`: as many as fit); always a zero.
    SafeCount(u64, u64),
}

/// Prints by `format` (a zero-terminated text of `W`-byte characters) to `to`.
fn print<const W: u64>(cx: &mut Cx<'_>, to: u64, rule: Rule, format: u64, list: VaList) -> Flow<i32> {
    let limit = match rule {
        Rule::Whole => MOST,
        Rule::Count(count) => count.min(MOST),
        Rule::Safe(room) => room.saturating_sub(1).min(MOST),
        Rule::SafeCount(room, count) => count.min(room.saturating_sub(1)).min(MOST),
    };
    let (mut text, truncated, _) = make::<W>(cx, format, list, limit)?;
    let length = i32::try_from(text.len()).unwrap_or(i32::MAX);
    if matches!(rule, Rule::Safe(_)) && truncated {
        text.clear();
    }
    let zero = match rule {
        Rule::Count(count) => !truncated && (text.len() as u64) < count,
        Rule::Safe(room) | Rule::SafeCount(room, _) => room > 0,
        Rule::Whole => true,
    };
    if zero {
        text.push(0);
    }
    crt::write::<W>(cx, to, &text)?;
    Ok(if truncated { -1 } else { length })
}

/// Makes a text of at most `limit` characters; whether there was more, and what the format used.
pub(crate) fn make<const W: u64>(
    cx: &mut Cx<'_>,
    format: u64,
    list: VaList,
    limit: u64,
) -> Flow<(Vec<u16>, bool, Uses)> {
    let format = crt::read::<W>(cx, format, crt::ALL)?;
    let limit = usize::try_from(limit).unwrap_or(0);
    let mut arguments = Reader { cx, list, leave: None };
    let made = if W == 1 {
        let bytes: Vec<u8> = format.iter().map(|unit| unit.to_le_bytes()[0]).collect();
        format::format(&bytes, &mut arguments, limit).map(|made| {
            let text = made.text.into_iter().map(u16::from).collect::<Vec<_>>();
            (text, made.truncated, made.uses)
        })
    } else {
        format::format_wide(&format, &mut arguments, limit).map(|made| (made.text, made.truncated, made.uses))
    };
    let Reader { cx, leave, .. } = arguments;
    let made = match (made, leave) {
        (Ok(made), _) => made,
        (Err(_), Some(leave)) => return Err(leave),
        (Err(bad), None) => return Err(cx.bad_pointer(BadAddress { address: bad.address, write: false })),
    };
    slice::work(cx, 64 + made.0.len() as u64)?;
    Ok(made)
}

/// The arguments of a variadic routine behind its first `named` ones.
fn rest(args: &Args, named: u64) -> VaList {
    VaList::new(args.slot(named))
}

/// `sprintf`, `swprintf`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn sprintf<const W: u64>(cx: &mut Cx<'_>, args: &Args) -> Flow<i32> {
    let [to, format, ..] = args.registers;
    let list = rest(args, 2);
    print::<W>(cx, to, Rule::Whole, format, list)
}

/// `_snprintf`, `_snwprintf`.
///
/// # Errors
/// As [`sprintf`].
pub(crate) fn snprintf<const W: u64>(cx: &mut Cx<'_>, args: &Args) -> Flow<i32> {
    let [to, count, format, _] = args.registers;
    let list = rest(args, 3);
    print::<W>(cx, to, Rule::Count(count), format, list)
}

/// `sprintf_s`, `swprintf_s`.
///
/// # Errors
/// As [`sprintf`].
pub(crate) fn sprintf_s<const W: u64>(cx: &mut Cx<'_>, args: &Args) -> Flow<i32> {
    let [to, room, format, _] = args.registers;
    let list = rest(args, 3);
    print::<W>(cx, to, Rule::Safe(room), format, list)
}

/// `_snprintf_s`, `_snwprintf_s`.
///
/// # Errors
/// As [`sprintf`].
pub(crate) fn snprintf_s<const W: u64>(cx: &mut Cx<'_>, args: &Args) -> Flow<i32> {
    let [to, room, count, format] = args.registers;
    let list = rest(args, 4);
    print::<W>(cx, to, Rule::SafeCount(room, count), format, list)
}

/// `vsprintf`.
///
/// # Errors
/// As [`sprintf`].
pub(crate) fn vsprintf<const W: u64>(cx: &mut Cx<'_>, to: u64, format: u64, list: u64) -> Flow<i32> {
    let list = VaList::new(list);
    print::<W>(cx, to, Rule::Whole, format, list)
}

/// `_vsnprintf`, `_vsnwprintf`.
///
/// # Errors
/// As [`sprintf`].
pub(crate) fn vsnprintf<const W: u64>(
    cx: &mut Cx<'_>,
    to: u64,
    count: u64,
    format: u64,
    list: u64,
) -> Flow<i32> {
    let list = VaList::new(list);
    print::<W>(cx, to, Rule::Count(count), format, list)
}

/// `vsprintf_s`, `vswprintf_s`.
///
/// # Errors
/// As [`sprintf`].
pub(crate) fn vsprintf_s<const W: u64>(
    cx: &mut Cx<'_>,
    to: u64,
    room: u64,
    format: u64,
    list: u64,
) -> Flow<i32> {
    let list = VaList::new(list);
    print::<W>(cx, to, Rule::Safe(room), format, list)
}

/// `_vsnprintf_s`, `_vsnwprintf_s`.
///
/// # Errors
/// As [`sprintf`].
pub(crate) fn vsnprintf_s<const W: u64>(
    cx: &mut Cx<'_>,
    to: u64,
    room: u64,
    count: u64,
    format: u64,
    list: u64,
) -> Flow<i32> {
    let list = VaList::new(list);
    print::<W>(cx, to, Rule::SafeCount(room, count), format, list)
}
