//! `DbgPrint` and its relatives: text for the debugger, a line at a time.
//!
//! Pages: *DbgPrint function*, *DbgPrintEx function*, *vDbgPrintEx function*, *Reading and Filtering Debugging Messages*.
//! Every component prints its levels 0 to 3 (as if each `Kd_…_Mask` were 0xF) unless `DbgSetDebugFilterState` says
//! otherwise; `DbgPrint` always prints. One call makes at most 512 bytes, as in Windows.

use abi::{DPFLTR_MASK, NtStatus};
use engine::{Args, Flow};

use crate::cx::Cx;
use crate::event::Event;
use crate::ke::budget;
use crate::rtl::format::Uses;
use crate::rtl::print::{VaList, make};
use crate::rtl::{crt, text};
use crate::verdict::Verdict;

/// Bytes of one call.
const LONGEST: u64 = 512;
/// Bytes of a line that does not end, after which it is emitted all the same.
const LONGEST_LINE: usize = 4096;
/// Bytes of all lines that are emitted, with what keeping a line takes.
const MOST_PRINTED: usize = 64 << 20;
const OF_LINE: usize = 64;
/// Levels that print by default: ERROR, WARNING, TRACE, INFO.
const DEFAULT_MASK: u32 = 0xF;

/// `DbgPrint`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn dbg_print(cx: &mut Cx<'_>, args: &Args) -> Flow<NtStatus> {
    let list = VaList::new(args.slot(1));
    print(cx, "DbgPrint", "", args.registers[0], list)
}

/// `DbgPrintEx`.
///
/// # Errors
/// As [`dbg_print`].
pub(crate) fn dbg_print_ex(cx: &mut Cx<'_>, args: &Args) -> Flow<NtStatus> {
    let list = VaList::new(args.slot(3));
    let [component, level, format, _] = args.registers;
    filtered(cx, "DbgPrintEx", "", (low32(component), low32(level)), format, list)
}

/// `vDbgPrintEx`.
///
/// # Errors
/// As [`dbg_print`].
pub(crate) fn v_dbg_print_ex(
    cx: &mut Cx<'_>,
    component: u32,
    level: u32,
    format: u64,
    list: u64,
) -> Flow<NtStatus> {
    let list = VaList::new(list);
    filtered(cx, "vDbgPrintEx", "", (component, level), format, list)
}

/// `vDbgPrintExWithPrefix`.
///
/// # Errors
/// As [`dbg_print`].
pub(crate) fn v_dbg_print_ex_with_prefix(
    cx: &mut Cx<'_>,
    prefix: u64,
    component: u32,
    level: u32,
    format: u64,
    list: u64,
) -> Flow<NtStatus> {
    let prefix = crt::read::<1>(cx, prefix, LONGEST)?;
    let prefix: String = prefix.iter().map(|unit| text::ansi_to_char(unit.to_le_bytes()[0])).collect();
    let list = VaList::new(list);
    filtered(cx, "vDbgPrintExWithPrefix", &prefix, (component, level), format, list)
}

/// `DbgQueryDebugFilterState`: whether a component prints a level.
///
/// # Errors
/// None.
pub(crate) fn query_filter(cx: &mut Cx<'_>, component: u32, level: u32) -> Flow<bool> {
    Ok(shows(cx, component, level))
}

/// `DbgSetDebugFilterState`.
///
/// # Errors
/// None.
pub(crate) fn set_filter(cx: &mut Cx<'_>, component: u32, level: u32, on: bool) -> Flow<NtStatus> {
    cx.with(|k| {
        let mask = k.kd.masks.entry(component).or_insert(DEFAULT_MASK);
        *mask = if on { *mask | bits(level) } else { *mask & !bits(level) };
    });
    Ok(NtStatus::SUCCESS)
}

/// A level below 32 is a bit's number; a larger one is a mask itself.
const fn bits(level: u32) -> u32 {
    if level < 32 { 1 << level } else { level & !DPFLTR_MASK }
}

fn shows(cx: &mut Cx<'_>, component: u32, level: u32) -> bool {
    cx.with(|k| k.kd.masks.get(&component).copied().unwrap_or(DEFAULT_MASK)) & bits(level) != 0
}

fn filtered(
    cx: &mut Cx<'_>,
    name: &str,
    prefix: &str,
    (component, level): (u32, u32),
    format: u64,
    list: VaList,
) -> Flow<NtStatus> {
    if shows(cx, component, level) { print(cx, name, prefix, format, list) } else { Ok(NtStatus::SUCCESS) }
}

fn print(cx: &mut Cx<'_>, name: &str, prefix: &str, format: u64, list: VaList) -> Flow<NtStatus> {
    cx.with(|k| budget::charge(k, budget::PRINT));
    let (made, _, uses) = make::<1>(cx, format, list, LONGEST)?;
    judge(cx, name, uses);
    let made: String = made.iter().map(|unit| text::ansi_to_char(unit.to_le_bytes()[0])).collect();
    put(cx, &format!("{prefix}{made}"));
    Ok(NtStatus::SUCCESS)
}

fn judge(cx: &mut Cx<'_>, name: &str, uses: Uses) {
    let irql = crate::ke::irql::current(cx);
    if uses.unicode && irql > 0 {
        let message =
            format!("{name} printed Unicode at IRQL {irql}; %ws, %wZ, %wc and %S are for PASSIVE_LEVEL");
        cx.report(Verdict::warning("print-unicode-irql", message));
    }
}

/// Whether a line is emitted: not after too much was printed, which is reported once.
fn fits(cx: &mut Cx<'_>, text: &str) -> bool {
    let (before, now) = cx.with(|k| {
        let before = k.kd.printed;
        k.kd.printed = before.saturating_add(text.len() + OF_LINE);
        (before, k.kd.printed)
    });
    if before <= MOST_PRINTED && now > MOST_PRINTED {
        let message = format!(
            "the driver printed more than {} MiB; what it prints from here on is not shown",
            MOST_PRINTED >> 20
        );
        cx.report(Verdict::advice("print-cut", message));
    }
    now <= MOST_PRINTED
}

/// Adds to the line; each one that ends is emitted.
pub(crate) fn put(cx: &mut Cx<'_>, text: &str) {
    let lines = cx.with(|k| {
        // Only what is new can have an end in it.
        let mut lines: Vec<String> = Vec::new();
        for piece in text.split_inclusive('\n') {
            k.kd.line.push_str(piece);
            if piece.ends_with('\n') || k.kd.line.len() >= LONGEST_LINE {
                let line = std::mem::take(&mut k.kd.line);
                lines.push(line.trim_end_matches(['\n', '\r']).to_owned());
            }
        }
        lines
    });
    for text in lines {
        if fits(cx, &text) {
            cx.emit(Event::Print { text });
        }
    }
}

/// Emits what is left of a line that never ended: at the end of a run.
pub fn flush(cx: &mut Cx<'_>) {
    let text = cx.with(|k| std::mem::take(&mut k.kd.line));
    if !text.is_empty() {
        cx.emit(Event::Print { text });
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the upper half of an int argument is undefined")]
const fn low32(value: u64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::event::{Kind, Reader, Stamp};
    use crate::mm::rig::{ansi, arguments, machine, unicode};

    struct Lines(Rc<RefCell<Vec<String>>>);

    impl Reader for Lines {
        fn wants(&self, kind: Kind) -> bool {
            kind == Kind::Print
        }
        fn event(&mut self, _stamp: &Stamp, event: &Event) {
            if let Event::Print { text } = event {
                self.0.borrow_mut().push(text.clone());
            }
        }
    }

    /// What was printed while `test` ran.
    fn printed(test: impl FnOnce(&mut Cx<'_>)) -> Vec<String> {
        let lines = Rc::new(RefCell::new(Vec::new()));
        let reader = Lines(lines.clone());
        machine(|cx| {
            cx.nt().subscribe(engine::outside(|| Box::new(reader)));
            test(cx);
            flush(cx);
        });
        lines.take()
    }

    #[test]
    fn a_line_is_told_when_it_ends_however_many_calls_it_took() {
        let lines = printed(|cx| {
            let (start, end) = (ansi(cx, "card %d: "), ansi(cx, "%wZ ready\r\nnext\n\nand"));
            let name = unicode(cx, "\\Device\\X");
            let args = arguments(cx, &[start, 3]);
            assert_eq!(dbg_print(cx, &args), Ok(NtStatus::SUCCESS));
            let args = arguments(cx, &[end, name.address]);
            assert_eq!(dbg_print(cx, &args), Ok(NtStatus::SUCCESS));
        });
        assert_eq!(lines, ["card 3: \\Device\\X ready", "next", "", "and"]);
    }

    #[test]
    fn a_component_prints_its_first_four_levels_until_told_otherwise() {
        let lines = printed(|cx| {
            const IHVDRIVER: u32 = 77;
            let format = ansi(cx, "level %u\n");
            for level in [0_u32, 3, 4, 0x8000_0100] {
                let args = arguments(cx, &[IHVDRIVER.into(), level.into(), format, level.into()]);
                assert_eq!(dbg_print_ex(cx, &args), Ok(NtStatus::SUCCESS));
            }
            assert_eq!(set_filter(cx, IHVDRIVER, 0x8000_0100, true), Ok(NtStatus::SUCCESS));
            assert_eq!(set_filter(cx, IHVDRIVER, 3, false), Ok(NtStatus::SUCCESS));
            assert!(!query_filter(cx, IHVDRIVER, 3).unwrap());
            for level in [3_u32, 0x8000_0100] {
                let list = arguments(cx, &[level.into()]).slot(0);
                let prefix = ansi(cx, "drv: ");
                assert_eq!(
                    v_dbg_print_ex_with_prefix(cx, prefix, IHVDRIVER, level, format, list),
                    Ok(NtStatus::SUCCESS)
                );
            }
        });
        assert_eq!(lines, ["level 0", "level 3", "drv: level 2147483904"]);
    }

    #[test]
    fn a_line_that_does_not_end_is_told_in_pieces() {
        let lines = printed(|cx| {
            let format = ansi(cx, &"0123456789abcdef".repeat(32));
            let args = arguments(cx, &[format]);
            for _ in 0..20 {
                assert_eq!(dbg_print(cx, &args), Ok(NtStatus::SUCCESS));
            }
        });
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [4096, 4096, 2048]);
    }

    #[test]
    fn one_call_prints_at_most_512_bytes() {
        let lines = printed(|cx| {
            let (format, long) = (ansi(cx, "%s\n"), ansi(cx, &"x".repeat(600)));
            let args = arguments(cx, &[format, long]);
            assert_eq!(dbg_print(cx, &args), Ok(NtStatus::SUCCESS));
        });
        assert_eq!(lines, ["x".repeat(512)]);
    }

    /// Not: print-cut
    #[test]
    fn what_is_printed_beyond_any_use_is_cut_and_told_once() {
        machine(|cx| {
            let line = ansi(cx, "a line\n");
            let print = |cx: &mut Cx<'_>| {
                let args = arguments(cx, &[line]);
                assert_eq!(dbg_print(cx, &args), Ok(NtStatus::SUCCESS));
            };
            print(cx);
            assert!(cx.nt().findings().is_empty());
            cx.with(|k| k.kd.printed = MOST_PRINTED);
            print(cx);
            print(cx);
            let rules: Vec<_> = cx.nt().findings().iter().map(|finding| finding.rule).collect();
            assert_eq!(rules, ["print-cut"]);
        });
    }
}
