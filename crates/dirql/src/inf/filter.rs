//! Filters of a device, and their order: those that the registry lists (`LowerFilters`, `UpperFilters`) and those that are declared (`AddFilter`).
//!
//! Follows *Installing a Filter Driver*, *INF AddFilter Directive* and *Device filter driver ordering*. A base INF may define levels for the filters on one
//! side (`UpperFilterLevels`, `UpperFilterDefaultLevel` in its `DDInstall.HW`); then filters go by their level, and those that name none into the default one. The
//! pages call the order within a level arbitrary: here the registry's come first, then the declared ones as the INFs have them. A list begins with the filter that is attached
//! first, be it of levels or of names. Ours: where a base INF marks no default level it is the last one.

use super::addreg::Remarks;
use super::directives::FILTERS;
use super::error::{Outcome, Spot, fault};
use super::install::{concerns, entries, pass_over};
use super::registry::{RegistryWrite, Value, Write};
use super::sections::Sections;
use super::target::Target;
pub(super) use kernel::pnp::Filters;

/// Windows 10 version 1903.
const FIRST_WITH_ADD_FILTER: u32 = 18362;

/// The side of the function driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Below it.
    Lower,
    /// Above it.
    Upper,
}

/// Where a declared filter belongs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// `FilterPosition`.
    Position(Side),
    /// `FilterLevel`: a level of the base INF's, in any case.
    Level(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Position(Side::Lower) => out.write_str("Lower"),
            Self::Position(Side::Upper) => out.write_str("Upper"),
            Self::Level(level) => out.write_str(level),
        }
    }
}

/// A filter that says where it belongs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeclaredFilter {
    /// Where the INF says so.
    pub spot: Spot,
    /// The filter's service.
    pub name: String,
    /// Where it belongs.
    pub place: Place,
}

/// The levels on one side: their names, and the number of the default one. Without names there are none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SideLevels {
    /// In the order in which their filters are attached.
    pub names: Vec<String>,
    /// Where filters go that name no level.
    pub default: usize,
}

/// The levels that a base INF defines.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Levels {
    /// Below the function driver.
    pub lower: SideLevels,
    /// Above it.
    pub upper: SideLevels,
}

impl Levels {
    /// Those that the writes to a device's key define; they stay values of the key.
    pub(super) fn of(keys: &[RegistryWrite]) -> Self {
        Self { lower: SideLevels::of(keys, "Lower"), upper: SideLevels::of(keys, "Upper") }
    }
}

impl SideLevels {
    fn of(keys: &[RegistryWrite], side: &str) -> Self {
        let set = |name: &str| {
            keys.iter().rev().filter(|write| concerns(write, name)).find_map(|write| match &write.write {
                Write::Set { value, .. } => Some(value),
                _ => None,
            })
        };
        let names = match set(&format!("{side}FilterLevels")) {
            Some(Value::MultiSz(names)) => names.clone(),
            _ => Vec::new(),
        };
        let default = match set(&format!("{side}FilterDefaultLevel")) {
            Some(Value::Sz(name)) => position(&names, name),
            _ => None,
        };
        Self { default: default.unwrap_or(names.len().saturating_sub(1)), names }
    }
}

fn position(names: &[String], name: &str) -> Option<usize> {
    names.iter().position(|own| own.eq_ignore_ascii_case(name))
}

/// All filters in the order in which they are attached; and the declared ones whose level is not defined, which are left out.
pub(super) fn ordered(
    listed: &Filters,
    declared: &[DeclaredFilter],
    levels: &Levels,
) -> (Filters, Vec<DeclaredFilter>) {
    let lower = on_side(&listed.lower, declared, &levels.lower, Side::Lower);
    let upper = on_side(&listed.upper, declared, &levels.upper, Side::Upper);
    let lost = declared.iter().filter(|filter| match &filter.place {
        Place::Position(_) => false,
        Place::Level(level) => {
            position(&levels.lower.names, level).or(position(&levels.upper.names, level)).is_none()
        }
    });
    (Filters { lower, upper }, lost.cloned().collect())
}

fn on_side(listed: &[String], declared: &[DeclaredFilter], levels: &SideLevels, side: Side) -> Vec<String> {
    let mut placed: Vec<(usize, &String)> = listed.iter().map(|name| (levels.default, name)).collect();
    placed.extend(declared.iter().filter_map(|filter| {
        let level = match &filter.place {
            Place::Position(own) => (*own == side).then_some(levels.default),
            Place::Level(level) => position(&levels.names, level),
        };
        Some((level?, &filter.name))
    }));
    placed.sort_by_key(|(level, _)| *level);
    let mut names: Vec<String> = Vec::new();
    for (_, name) in placed {
        if position(&names, name).is_none() {
            names.push(name.clone());
        }
    }
    names
}

/// Takes the filters out of the writes to a device's or a class's key.
pub(super) fn registered(writes: &mut Vec<RegistryWrite>) -> Outcome<Filters> {
    let mut filters = Filters::default();
    for (property, names) in [("LowerFilters", &mut filters.lower), ("UpperFilters", &mut filters.upper)] {
        while let Some(at) = writes.iter().position(|write| concerns(write, property)) {
            let RegistryWrite { spot, write, .. } = writes.remove(at);
            if matches!(write, Write::DeleteValue { .. } | Write::DeleteText { .. }) {
                continue; // of an earlier installation, which there was not
            }
            let Write::Set { value: Value::MultiSz(more), append, .. } = write else {
                return fault(
                    Some(spot),
                    format!("{property} is a list: HKR,,{property},0x00010000,\"NameOfService\""),
                );
            };
            if !append {
                names.clear();
            }
            names.extend(more);
        }
    }
    Ok(filters)
}

/// The filters of `[DDInstall.Filters]`, which Windows knows since version 1903 of Windows 10.
pub(super) fn declared(
    sections: &Sections,
    section: &str,
    target: Target,
    remarks: &mut Remarks,
) -> Outcome<Vec<DeclaredFilter>> {
    let mut all = Vec::new();
    for entry in entries(sections, &format!("{section}.Filters"), remarks)? {
        let name = entry.value(0)?;
        if !entry.is("AddFilter") {
            pass_over(entry, FILTERS, remarks);
            continue;
        }
        if target.build < FIRST_WITH_ADD_FILTER {
            remarks.name(
                entry.spot(),
                format!("AddFilter = {name}: this Windows does not know it; Windows 10 version 1903 does"),
            );
            continue;
        }
        let section = sections.led_to(&entry.value(2)?, entry.spot_of(2))?;
        let wrong = |message| fault(Some(section.spot()), message);
        let place = match (section.value_of("FilterPosition"), section.value_of("FilterLevel")) {
            (Some(_), Some(_)) => {
                return wrong(format!("{name} has a FilterPosition and a FilterLevel; keep one of them"));
            }
            (Some(at), None) if at.eq_ignore_ascii_case("Lower") => Place::Position(Side::Lower),
            (Some(at), None) if at.eq_ignore_ascii_case("Upper") => Place::Position(Side::Upper),
            (Some(other), None) => {
                return wrong(format!("FilterPosition `{other}` of {name} is neither Upper nor Lower"));
            }
            (None, Some(level)) => Place::Level(level),
            (None, None) => {
                return wrong(format!(
                    "[{}] says nothing of where {name} belongs; write FilterPosition = Upper",
                    section.name
                ));
            }
        };
        all.push(DeclaredFilter { spot: entry.spot(), name, place });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|&text| text.to_owned()).collect()
    }

    fn filter(name: &str, place: Place) -> DeclaredFilter {
        DeclaredFilter { spot: Spot { line: 1, column: 1 }, name: name.to_owned(), place }
    }

    fn level(name: &str, level: &str) -> DeclaredFilter {
        filter(name, Place::Level(level.to_owned()))
    }

    #[test]
    fn filters_go_by_their_level_and_the_others_into_the_default_one() {
        let listed = Filters { lower: texts(&["low"]), upper: texts(&["old"]) };
        let declared = [
            level("c", "C"),
            filter("at", Place::Position(Side::Upper)),
            level("a", "a"),
            level("none", "D"),
            level("b", "B"),
        ];
        let order = |default| {
            let upper = SideLevels { names: texts(&["A", "B", "C"]), default };
            ordered(&listed, &declared, &Levels { lower: SideLevels::default(), upper })
        };
        let (filters, lost) = order(1);
        assert_eq!(filters.upper, ["a", "old", "at", "b", "c"]);
        assert_eq!(filters.lower, ["low"], "no levels are defined there");
        assert_eq!(lost.len(), 1, "D is no level");
        assert_eq!(order(2).0.upper, ["a", "b", "old", "c", "at"]);
    }

    #[test]
    fn a_filter_that_is_listed_and_declared_is_there_once() {
        let listed = Filters { lower: texts(&[]), upper: texts(&["Same"]) };
        let declared = [filter("same", Place::Position(Side::Upper))];
        assert_eq!(ordered(&listed, &declared, &Levels::default()).0.upper, ["Same"]);
    }
}
