//! Tables of prefixes: of all that a name begins with, the longest.
//!
//! Pages: *RtlInitializeUnicodePrefix function*, *RtlInsertUnicodePrefix function*, *RtlFindUnicodePrefix function*, *RtlNextUnicodePrefix function*,
//! *RtlRemoveUnicodePrefix function*; the `Pfx…` routines do the same for strings of bytes, where case matters. Prefixes are whole components of a
//! path. Tables and entries are the driver's, opaque to it; here they are a list in the order in which they came.

use abi::{
    DriverPtr, PREFIX_TABLE, PREFIX_TABLE_ENTRY, STRING, UNICODE_PREFIX_TABLE, UNICODE_PREFIX_TABLE_ENTRY,
    UNICODE_STRING,
};
use engine::Flow;

use super::{string, text, tree};
use crate::cx::Cx;
use crate::ke::budget;

const BACKSLASH: u16 = b'\\' as u16;

/// Where an entry has the next one, and the address of its prefix.
#[derive(Clone, Copy)]
struct Shape {
    next: u64,
    prefix: u64,
    wide: bool,
}

const UNICODE: Shape = Shape {
    next: UNICODE_PREFIX_TABLE_ENTRY::NextPrefixTree.offset(),
    prefix: UNICODE_PREFIX_TABLE_ENTRY::Prefix.offset(),
    wide: true,
};
const ANSI: Shape = Shape {
    next: PREFIX_TABLE_ENTRY::NextPrefixTree.offset(),
    prefix: PREFIX_TABLE_ENTRY::Prefix.offset(),
    wide: false,
};

/// A table has its first entry where an entry has the next one.
const _: () = assert!(UNICODE.next == UNICODE_PREFIX_TABLE::NextPrefixTree.offset());
const _: () = assert!(ANSI.next == PREFIX_TABLE::NextPrefixTree.offset());

impl Shape {
    fn next(self, cx: &mut Cx<'_>, of: u64) -> Flow<u64> {
        budget::spend(cx, tree::STEP)?; // entries that lead in a circle are an endless loop
        cx.read(DriverPtr::new(of + self.next))
    }

    /// The text of the string at `at`.
    fn read(self, cx: &mut Cx<'_>, at: u64) -> Flow<Vec<u16>> {
        if self.wide {
            string::read(cx, DriverPtr::new(at))
        } else {
            Ok(string::read_ansi(cx, DriverPtr::new(at))?.into_iter().map(u16::from).collect())
        }
    }

    fn text(self, cx: &mut Cx<'_>, entry: u64) -> Flow<Vec<u16>> {
        let prefix = cx.read(DriverPtr::<u64>::new(entry + self.prefix))?;
        self.read(cx, prefix)
    }

    /// Puts the entry at the end, unless its prefix is in the table.
    fn insert(self, cx: &mut Cx<'_>, table: u64, prefix: u64, entry: u64) -> Flow<bool> {
        let new = self.read(cx, prefix)?;
        let mut last = table;
        loop {
            let next = self.next(cx, last)?;
            if next == 0 {
                break;
            }
            if self.text(cx, next)? == new {
                return Ok(false);
            }
            last = next;
        }
        cx.write(DriverPtr::<u64>::new(entry + self.prefix), prefix)?;
        cx.write(DriverPtr::<u64>::new(entry + self.next), 0)?;
        cx.write(DriverPtr::<u64>::new(last + self.next), entry)?;
        Ok(true)
    }

    fn remove(self, cx: &mut Cx<'_>, table: u64, entry: u64) -> Flow<()> {
        let mut last = table;
        loop {
            let next = self.next(cx, last)?;
            if next == 0 {
                return Ok(()); // it is not there
            }
            if next == entry {
                let behind = self.next(cx, next)?;
                return cx.write(DriverPtr::<u64>::new(last + self.next), behind);
            }
            last = next;
        }
    }

    /// The entry with the longest prefix of a name, whose characters from `folded` on match in either case.
    fn find(self, cx: &mut Cx<'_>, table: u64, name: u64, folded: usize) -> Flow<u64> {
        let name = self.read(cx, name)?;
        let (mut best, mut longest) = (0, 0);
        let mut at = self.next(cx, table)?;
        while at != 0 {
            let prefix = self.text(cx, at)?;
            if is_prefix(&prefix, &name, folded) && (best == 0 || prefix.len() > longest) {
                (best, longest) = (at, prefix.len());
            }
            at = self.next(cx, at)?;
        }
        Ok(best)
    }
}

/// Whether the components of a path begin with these; those of `\` do always.
fn is_prefix(prefix: &[u16], name: &[u16], folded: usize) -> bool {
    let Some(start) = name.get(..prefix.len()) else { return false };
    let split = folded.min(prefix.len());
    let same =
        prefix[..split] == start[..split] && text::compare(&prefix[split..], &start[split..], true) == 0;
    let ends =
        prefix.last() == Some(&BACKSLASH) || name.get(prefix.len()).is_none_or(|&unit| unit == BACKSLASH);
    same && ends && !prefix.is_empty()
}

/// `RtlInitializeUnicodePrefix`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn initialize(cx: &mut Cx<'_>, table: DriverPtr<UNICODE_PREFIX_TABLE>) -> Flow<()> {
    cx.write(table, UNICODE_PREFIX_TABLE::zeroed())
}

/// `RtlInsertUnicodePrefix`: false if it is there already, in this case.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn insert(
    cx: &mut Cx<'_>,
    table: DriverPtr<UNICODE_PREFIX_TABLE>,
    prefix: DriverPtr<UNICODE_STRING>,
    entry: DriverPtr<UNICODE_PREFIX_TABLE_ENTRY>,
) -> Flow<bool> {
    UNICODE.insert(cx, table.address, prefix.address, entry.address)
}

/// `RtlFindUnicodePrefix`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn find(
    cx: &mut Cx<'_>,
    table: DriverPtr<UNICODE_PREFIX_TABLE>,
    name: DriverPtr<UNICODE_STRING>,
    case_insensitive_from: u32,
) -> Flow<u64> {
    UNICODE.find(cx, table.address, name.address, case_insensitive_from as usize)
}

/// `RtlRemoveUnicodePrefix`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn remove(
    cx: &mut Cx<'_>,
    table: DriverPtr<UNICODE_PREFIX_TABLE>,
    entry: DriverPtr<UNICODE_PREFIX_TABLE_ENTRY>,
) -> Flow<()> {
    let last = table + UNICODE_PREFIX_TABLE::LastNextEntry;
    if cx.read(last)? == entry {
        cx.write(last, DriverPtr::NULL)?; // the next one is the first again
    }
    UNICODE.remove(cx, table.address, entry.address)
}

/// `RtlNextUnicodePrefix`: the first, or the one behind that which was given last; null behind the last.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn next(cx: &mut Cx<'_>, table: DriverPtr<UNICODE_PREFIX_TABLE>, restart: bool) -> Flow<u64> {
    let last = table + UNICODE_PREFIX_TABLE::LastNextEntry;
    let before = cx.read(last)?.address;
    let from = if restart || before == 0 { table.address } else { before };
    let next = UNICODE.next(cx, from)?;
    cx.write(last, DriverPtr::new(next))?;
    Ok(next)
}

/// `PfxInitialize`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn initialize_ansi(cx: &mut Cx<'_>, table: DriverPtr<PREFIX_TABLE>) -> Flow<()> {
    cx.write(table, PREFIX_TABLE::zeroed())
}

/// `PfxInsertPrefix`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn insert_ansi(
    cx: &mut Cx<'_>,
    table: DriverPtr<PREFIX_TABLE>,
    prefix: DriverPtr<STRING>,
    entry: DriverPtr<PREFIX_TABLE_ENTRY>,
) -> Flow<bool> {
    ANSI.insert(cx, table.address, prefix.address, entry.address)
}

/// `PfxFindPrefix`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn find_ansi(
    cx: &mut Cx<'_>,
    table: DriverPtr<PREFIX_TABLE>,
    name: DriverPtr<STRING>,
) -> Flow<u64> {
    ANSI.find(cx, table.address, name.address, usize::MAX)
}

/// `PfxRemovePrefix`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn remove_ansi(
    cx: &mut Cx<'_>,
    table: DriverPtr<PREFIX_TABLE>,
    entry: DriverPtr<PREFIX_TABLE_ENTRY>,
) -> Flow<()> {
    ANSI.remove(cx, table.address, entry.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_whole_components() {
        let is = |prefix: &str, name: &str, folded| {
            let wide = |text: &str| text.encode_utf16().collect::<Vec<u16>>();
            is_prefix(&wide(prefix), &wide(name), folded)
        };
        assert!(is(r"\a\b", r"\a\b\c", 0) && is(r"\a\b", r"\A\B", 0) && is(r"\", r"\anything", 0));
        assert!(!is(r"\a\b", r"\a\bc", 0) && !is(r"\a\b", r"\a", 0) && !is("", r"\a", 0));
        assert!(!is(r"\a\b", r"\A\b", 2) && is(r"\a\b", r"\a\B", 2));
    }
}
