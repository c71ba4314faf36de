//! Bug checks as Windows names them: the name, what it is about, what each parameter is.
//!
//! From tables made of Microsoft's *Bug Check Code Reference*. A code or parameter that is not there has a number only.

use std::fmt;

use kernel::verdict::BugCheck;

const NAMES: &str = include_str!("bugchecks.tsv");
const PARAMETERS: &str = include_str!("parameters.tsv");

/// The columns of the row for `code`: the one for this parameter 1 if there is one, else the one for any.
fn row(table: &'static str, code: u32, first: u64) -> Option<Vec<&'static str>> {
    let rows = table.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t'));
    let of_code: Vec<Vec<&str>> =
        rows.map(Iterator::collect).filter(|row: &Vec<&str>| hex(row[0]) == Some(code.into())).collect();
    let about = |row: &&Vec<&str>| hex(row[1]) == Some(first);
    let any = |row: &&Vec<&str>| row[1] == "-";
    of_code.iter().find(about).or_else(|| of_code.iter().find(any)).cloned()
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// The name of a code; none if it is a driver's own.
#[must_use]
pub fn name(code: u32) -> Option<&'static str> {
    let mut rows = NAMES.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t'));
    rows.find_map(|mut columns| {
        let found = hex(columns.next()?) == Some(code.into());
        columns.nth(1).filter(|_| found)
    })
}

/// What a bug check with this parameter 1 is about.
#[must_use]
pub fn meaning(code: u32, first: u64) -> Option<&'static str> {
    row(NAMES, code, first).and_then(|row| row.get(3).copied())
}

/// What each parameter is; `parameter 2` where that is not known.
#[must_use]
pub fn parameters(check: &BugCheck) -> [String; 4] {
    let row = row(PARAMETERS, check.code, check.parameters[0]);
    std::array::from_fn(|index| {
        let known = row.as_ref().and_then(|row| row.get(index + 2));
        known.map_or_else(|| format!("parameter {}", index + 1), ToString::to_string)
    })
}

/// A bug check, as the report shows it: a line for the code, one for each parameter.
pub(super) struct Shown<'a>(pub(super) &'a BugCheck);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BugCheck { code, parameters: values } = self.0;
        let name = name(*code).unwrap_or("the driver's own");
        writeln!(f, "  bug check    {name} ({code:#X})")?;
        if let Some(meaning) = meaning(*code, values[0]) {
            writeln!(f, "               {meaning}")?;
        }
        for (index, (value, what)) in values.iter().zip(parameters(self.0)).enumerate() {
            writeln!(f, "    {}  {value:#018x}  {what}", index + 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_its_name_and_its_parameters_theirs() {
        assert_eq!(name(0xD1), Some("DRIVER_IRQL_NOT_LESS_OR_EQUAL"));
        assert_eq!(name(0xDEAD_DEAD), None);
        let check = BugCheck { code: 0xD1, parameters: [0x10, 2, 1, 0x1234] };
        assert_eq!(parameters(&check)[0], "address that was referenced");
        assert_eq!(parameters(&BugCheck { code: 0xC9, parameters: [5, 0, 0, 2] })[3], "IRQL after");
        assert_eq!(parameters(&BugCheck { code: 0xC9, parameters: [0x999, 0, 0, 2] })[3], "IRP");
        assert_eq!(parameters(&BugCheck { code: 0xDEAD_DEAD, parameters: [1, 2, 3, 4] })[1], "parameter 2");
        assert_eq!(
            meaning(0xC4, 0x30),
            Some("KeRaiseIrql to a level below the current one or above HIGH_LEVEL")
        );
    }

    #[test]
    fn every_row_of_both_tables_is_well_formed_and_none_is_there_twice() {
        for (table, columns) in [(NAMES, 4), (PARAMETERS, 6)] {
            let mut seen = std::collections::BTreeSet::new();
            for line in table.lines().filter(|line| !line.starts_with('#')) {
                let row: Vec<&str> = line.split('\t').collect();
                assert_eq!(row.len(), columns, "{line}");
                assert!(hex(row[0]).is_some() && (row[1] == "-" || hex(row[1]).is_some()), "{line}");
                assert!(
                    row.iter().all(|cell| !cell.is_empty() && !cell.starts_with("depends on the")),
                    "{line}"
                );
                assert!(seen.insert((row[0], row[1])) || columns == 4, "twice: {line}");
            }
        }
        let parameters = PARAMETERS.lines().filter(|line| !line.starts_with('#'));
        for line in parameters {
            let code = hex(line.split('\t').next().unwrap()).unwrap();
            let code = u32::try_from(code).unwrap();
            assert!(name(code).is_some() || code == 0xE2, "{line}: the code has no name");
        }
    }
}
