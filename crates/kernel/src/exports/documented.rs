//! What Windows' own `ntoskrnl.exe` and `hal.dll` export, whether dirql has it or not: name, module, kind, documented
//! IRQL, the version it came with.
//!
//! Routines and levels are taken from Microsoft's driver documentation (CC BY 4.0, see NOTICE), completed by names that
//! compiled drivers import. It is not what dirql implements: that is `functions.rs` and `data.rs`.

use std::cmp::Ordering;

use crate::nt::WindowsVersion;

/// One line for each name, sorted: name, module, `f` or `d`, IRQL, version.
static NAMES: &str = include_str!("documented.tsv");

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
    // Asked for each import of each image: half of what is left, each time.
    let mut left = NAMES;
    while !left.is_empty() {
        let middle = left.as_bytes()[..left.len() / 2].iter().rposition(|byte| *byte == b'\n');
        let (before, rest) = left.split_at(middle.map_or(0, |end| end + 1));
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        match line.split('\t').next().unwrap_or_default().cmp(name) {
            Ordering::Equal => return parse(line),
            Ordering::Less => left = after,
            Ordering::Greater => left = before,
        }
    }
    None
}

/// The names of all and the versions they came with, sorted. Asked at each boot: nothing else of a line is looked at.
pub(crate) fn names() -> impl Iterator<Item = (&'static str, WindowsVersion)> {
    NAMES.lines().filter_map(|line| {
        let (name, since) = (line.find('\t')?, line.rfind('\t')?);
        Some((&line[..name], version(&line[since + 1..])))
    })
}

/// The one of this index among [`names`].
pub(crate) fn nth(index: usize) -> Option<Documented> {
    NAMES.lines().nth(index).and_then(parse)
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
