//! What Windows' own `ntoskrnl.exe` and `hal.dll` export, whether dirql has it or not: name, module, kind, documented
//! IRQL, the version it came with.
//!
//! Routines and levels are taken from Microsoft's driver documentation (CC BY 4.0, see NOTICE), completed by names that
//! compiled drivers import. It is not what dirql implements: that is `functions.rs` and `data.rs`.

use crate::nt::WindowsVersion;

/// One line for each name, sorted: name, module, `f` or `d`, IRQL, version.
static NAMES: &str = include_str!("documented.tsv");

/// How many there are.
const COUNT: usize = count(NAMES.as_bytes());

/// Where each line begins and its name ends, found when dirql is compiled: each boot goes through all names.
static LINES: [Line; COUNT] = lines(NAMES.as_bytes());

#[derive(Clone, Copy)]
struct Line {
    start: u32,
    /// Bytes of its name.
    name: u8,
    /// Bytes of the line.
    length: u8,
}

const fn count(text: &[u8]) -> usize {
    let (mut at, mut lines) = (0, 0);
    while at < text.len() {
        if text[at] == b'\n' {
            lines += 1;
        }
        at += 1;
    }
    lines
}

#[allow(clippy::cast_possible_truncation, reason = "a test finds each name, and each line is whole")]
const fn lines(text: &[u8]) -> [Line; COUNT] {
    let mut all = [Line { start: 0, name: 0, length: 0 }; COUNT];
    let (mut at, mut line) = (0, 0);
    while line < COUNT {
        let (start, mut name) = (at, 0);
        while text[at] != b'\n' {
            if text[at] == b'\t' && name == 0 {
                name = at - start;
            }
            at += 1;
        }
        all[line] = Line { start: start as u32, name: name as u8, length: (at - start) as u8 };
        (at, line) = (at + 1, line + 1);
    }
    all
}

impl Line {
    fn text(self) -> &'static str {
        &NAMES[self.start as usize..][..self.length.into()]
    }

    fn name(self) -> &'static str {
        &NAMES[self.start as usize..][..self.name.into()]
    }
}

/// An export of Windows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Documented {
    /// Its name.
    pub name: &'static str,
    /// `ntoskrnl.exe` or `hal.dll`.
    pub module: &'static str,
    /// A variable, not a routine.
    pub data: bool,
    /// Where it may be called: `0`, `0..2`, `any`, `dirql`, …; none if no page says.
    pub irql: Option<&'static str>,
    /// The first version that has it; [`WindowsVersion::Win7`] for all older ones.
    pub since: WindowsVersion,
}

/// The export of this name; case matters.
#[must_use]
pub fn find(name: &str) -> Option<Documented> {
    nth(LINES.binary_search_by(|line| line.name().cmp(name)).ok()?)
}

/// The names of all and the versions they came with, sorted.
pub(crate) fn names() -> impl Iterator<Item = (&'static str, WindowsVersion)> {
    LINES.iter().map(|line| {
        let (_, since) = line.text().rsplit_once('\t').unwrap_or_default();
        (line.name(), version(since))
    })
}

/// The one of this index among [`names`].
pub(crate) fn nth(index: usize) -> Option<Documented> {
    LINES.get(index).and_then(|line| parse(line.text()))
}

fn version(text: &str) -> WindowsVersion {
    match text {
        "11" => WindowsVersion::Win11,
        "10" => WindowsVersion::Win10,
        "8.1" => WindowsVersion::Win81,
        _ => WindowsVersion::Win7,
    }
}

fn parse(line: &'static str) -> Option<Documented> {
    let mut fields = line.split('\t');
    let (name, module) = (fields.next()?, fields.next()?);
    let data = fields.next()? == "d";
    let irql = fields.next().filter(|&irql| irql != "?");
    let since = version(fields.next()?);
    Some(Documented { name, module, data, irql, since })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_whole_and_names_are_sorted() {
        let names: Vec<_> = NAMES.lines().map(|line| parse(line).expect(line).name).collect();
        assert!(names.len() > 1_400);
        assert!(names.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_routine_is_found_with_its_level_and_version() {
        let wait = find("KeSetEvent").unwrap();
        assert_eq!((wait.module, wait.data, wait.irql), ("ntoskrnl.exe", false, Some("0..2")));
        assert_eq!(find("ExAllocatePool2").unwrap().since, WindowsVersion::Win10);
        assert!(find("HalDispatchTable").unwrap().data);
        assert_eq!(find("KeSetEvents"), None);
        for name in NAMES.lines().filter_map(|line| line.split('\t').next()) {
            assert_eq!(
                find(name).map(|found| found.name),
                Some(name),
                "each is found, the first and the last"
            );
        }
    }
}
