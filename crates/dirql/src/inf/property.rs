//! `AddProperty` and `DelProperty`: properties of a device or of a device interface.
//!
//! Follows *INF AddProperty Directive*, *INF DelProperty Directive* and *Using the INF AddProperty Directive and the INF DelProperty Directive*. A binary value is
//! written as `AddReg` has it, bytes separated by commas, and a Boolean one is a number, which the pages do not say. Properties of classes are not carried out: no driver can read
//! them.

use super::addreg::{Remarks, bytes, named};
use super::error::{Outcome, Spot, fault};
use super::interface::is_guid;
use super::registry::Value;
use super::sections::{Entry, Sections};
use super::target::number;

/// The format of the properties `DEVPKEY_DrvPkg_*`, their names in INF files, their numbers, and whether they are lists.
const PACKAGE: &str = "{CF73BB51-3ABF-44A2-85E0-9A3DC7A12132}";
const PACKAGE_NAMES: [(&str, u32, bool); 6] = [
    ("DeviceModel", 2, false),
    ("DeviceVendorWebSite", 3, false),
    ("DeviceDetailedDescription", 4, false),
    ("DeviceDocumentationLink", 5, false),
    ("DeviceIcon", 6, true),
    ("DeviceBrandingIcon", 7, true),
];

const NOCLOBBER: u32 = 0x1;
const OVERWRITEONLY: u32 = 0x2;
const APPEND: u32 = 0x4;
const OR: u32 = 0x8;
const AND: u32 = 0x10;
/// `FLG_DELPROPERTY_MULTI_SZ_DELSTRING`.
const DELSTRING: u32 = 0x1;

/// `DEVPROP_TYPE_*`: the base types that an INF may name.
const UINT32: u32 = 0x07;
const BOOLEAN: u32 = 0x11;
const STRING: u32 = 0x12;
const BINARY: u32 = 0x1003;
const STRING_LIST: u32 = 0x2012;

/// One thing to do to a property.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PropertyWrite {
    /// Where the INF says so.
    pub spot: Spot,
    /// The name that the INF knows it by, if it has one: `DeviceModel`.
    pub name: Option<&'static str>,
    /// The category's GUID in braces (`DEVPROPKEY.fmtid`).
    pub format: String,
    /// The number within the category (`DEVPROPKEY.pid`).
    pub number: u32,
    /// What to do to it.
    pub change: PropertyChange,
}

/// What to do to a property.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PropertyChange {
    /// Set it.
    Set {
        /// `DEVPROP_TYPE_*`.
        kind: u32,
        /// What it is set to: text, list, binary value or number.
        value: Value,
        /// Leave one that exists as it is (`FLG_ADDPROPERTY_NOCLOBBER`).
        keep_existing: bool,
        /// Set it only if it exists (`FLG_ADDPROPERTY_OVERWRITEONLY`).
        only_existing: bool,
        /// What becomes of the value that is there.
        combine: Combine,
    },
    /// Delete it.
    Delete,
    /// Take a string out of a list, in any case (`FLG_DELPROPERTY_MULTI_SZ_DELSTRING`).
    DeleteText(String),
}

/// What becomes of the value that a property has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Combine {
    /// It is replaced.
    Replace,
    /// Strings are added to its list, each once.
    Append,
    /// A bitwise OR with it.
    Or,
    /// A bitwise AND with it.
    And,
}

/// What an entry does to properties, if it is one of the two directives: deletions before what is there already, additions behind it.
pub(super) fn writes(
    sections: &Sections,
    entry: Entry<'_>,
    remarks: &mut Remarks,
    all: &mut Vec<PropertyWrite>,
) -> Outcome<()> {
    if entry.is("AddProperty") {
        all.extend(lines(sections, entry, remarks, addition)?);
    } else if entry.is("DelProperty") {
        all.splice(0..0, lines(sections, entry, remarks, deletion)?);
    }
    Ok(())
}

type Line = fn(Entry<'_>, &mut Remarks) -> Outcome<PropertyWrite>;

fn lines(
    sections: &Sections,
    entry: Entry<'_>,
    remarks: &mut Remarks,
    read: Line,
) -> Outcome<Vec<PropertyWrite>> {
    let mut all = Vec::new();
    for (index, name) in named(entry)? {
        for line in sections.led_to(&name, entry.spot_of(index))?.entries() {
            all.push(read(line, remarks)?);
        }
    }
    Ok(all)
}

/// The property that a line begins with: its key, and for one that is known by its name the name and whether it is a list.
struct Key {
    format: String,
    number: u32,
    known: Option<(&'static str, bool)>,
}

fn key(entry: Entry<'_>) -> Outcome<Key> {
    if entry.raw_key().is_some() {
        return fault(
            Some(entry.spot()),
            "a `=` stands in a line of a property section; write `DeviceModel,,,,\"Model\"`".to_owned(),
        );
    }
    let first = entry.value(0)?;
    if let Some((name, number, is_list)) =
        PACKAGE_NAMES.into_iter().find(|(name, ..)| name.eq_ignore_ascii_case(&first))
    {
        return Ok(Key { format: PACKAGE.to_owned(), number, known: Some((name, is_list)) });
    }
    if !is_guid(&first) {
        let names = PACKAGE_NAMES.map(|(name, ..)| name).join(", ");
        return fault(
            Some(entry.spot_of(0)),
            format!(
                "`{first}` is neither a category's GUID in braces nor the name of a property; the names are: {names}"
            ),
        );
    }
    let written = entry.value(1)?;
    match number(&written) {
        Some(number) if number >= 2 => Ok(Key { format: first.to_uppercase(), number, known: None }),
        _ => fault(
            Some(entry.spot_of(1)),
            format!("the property identifier `{written}` is not a number from 2 on"),
        ),
    }
}

/// The flags at this place; none is 0.
fn flags(entry: Entry<'_>, index: usize, known: u32) -> Outcome<u32> {
    let written = entry.value(index)?;
    match number(&written) {
        None if written.is_empty() => Ok(0),
        Some(flags) if flags & !known == 0 => Ok(flags),
        _ => fault(
            Some(entry.spot_of(index)),
            format!("the flags `{written}` are not among those of a property: {known:#x}"),
        ),
    }
}

/// `property-name,,,[flags],value`, or `{guid},pid,type,[flags],value`.
pub(super) fn addition(entry: Entry<'_>, _: &mut Remarks) -> Outcome<PropertyWrite> {
    let Key { format, number: own, known } = key(entry)?;
    let kind = match known {
        Some((_, true)) => STRING_LIST,
        Some((_, false)) => STRING,
        None => {
            let written = entry.value(2)?;
            let kind =
                number(&written).filter(|kind| [UINT32, BOOLEAN, STRING, BINARY, STRING_LIST].contains(kind));
            match kind {
                Some(kind) => kind,
                None => {
                    return fault(
                        Some(entry.spot_of(2)),
                        format!(
                            "the type `{written}` is none that an INF may name: 7 (a number), 17 (Boolean), 18 (a string), 0x1003 (binary), 0x2012 (a list of strings)"
                        ),
                    );
                }
            }
        }
    };
    let flags = flags(entry, 3, NOCLOBBER | OVERWRITEONLY | APPEND | OR | AND)?;
    let combine = match flags & (APPEND | OR | AND) {
        0 => Combine::Replace,
        APPEND if kind == STRING_LIST => Combine::Append,
        OR if kind == UINT32 => Combine::Or,
        AND if kind == UINT32 => Combine::And,
        _ => {
            return fault(
                Some(entry.spot_of(3)),
                format!(
                    "the flags {flags:#x} do not fit the type: 4 appends to a list of strings, 8 and 0x10 combine numbers"
                ),
            );
        }
    };
    let change = PropertyChange::Set {
        kind,
        value: value(entry, kind)?,
        keep_existing: flags & NOCLOBBER != 0,
        only_existing: flags & OVERWRITEONLY != 0,
        combine,
    };
    Ok(PropertyWrite { spot: entry.spot(), name: known.map(|(name, _)| name), format, number: own, change })
}

fn value(entry: Entry<'_>, kind: u32) -> Outcome<Value> {
    match kind {
        STRING => Ok(Value::Sz(entry.value(4)?)),
        STRING_LIST => {
            let mut texts = entry.values_from(4)?;
            texts.retain(|text| !text.is_empty());
            Ok(Value::MultiSz(texts))
        }
        BINARY => Ok(Value::Binary(bytes(entry)?)),
        _ => {
            let written = entry.value(4)?;
            match number(&written) {
                // `DEVPROP_TRUE` and `DEVPROP_FALSE` are bytes.
                Some(value) if kind == BOOLEAN => Ok(Value::Binary(vec![if value == 0 { 0 } else { 0xFF }])),
                Some(value) => Ok(Value::Dword(value)),
                None => fault(
                    Some(entry.spot_of(4)),
                    format!("the value `{written}` is not a 32-bit number; write 16 or 0x10"),
                ),
            }
        }
    }
}

/// `property-name[,,flags[,value]]`, or `{guid},pid[,flags[,value]]`.
pub(super) fn deletion(entry: Entry<'_>, _: &mut Remarks) -> Outcome<PropertyWrite> {
    let Key { format, number, known } = key(entry)?;
    let change = match flags(entry, 2, DELSTRING)? {
        0 => PropertyChange::Delete,
        _ => PropertyChange::DeleteText(entry.value(3)?),
    };
    Ok(PropertyWrite { spot: entry.spot(), name: known.map(|(name, _)| name), format, number, change })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(directive: &str, lines: &str) -> Outcome<Vec<PropertyWrite>> {
        let sections = Sections::parse(format!("[I]\n{directive} = R\n[R]\n{lines}\n"))?;
        let entry = sections.get("I").unwrap().entries().next().unwrap();
        let mut found = Vec::new();
        writes(&sections, entry, &mut Remarks::default(), &mut found)?;
        Ok(found)
    }

    const OWN: &str = "{C22189E4-8BF3-4E6D-8467-8DC6D95E2A7E}";

    #[test]
    fn the_example_of_the_page_comes_out() {
        let text = "DeviceModel,,,,\"Sample Device Model Name\"\n{c22189e4-8bf3-4e6d-8467-8dc6d95e2a7e}, 2, 18,, \"String value for property 1\"";
        let got = all("AddProperty", text).unwrap();
        let found: Vec<_> = got.iter().map(|it| (it.name, it.format.as_str(), it.number)).collect();
        assert_eq!(found, [(Some("DeviceModel"), PACKAGE, 2), (None, OWN, 2)]);
        for (got, text) in got.iter().zip(["Sample Device Model Name", "String value for property 1"]) {
            let PropertyChange::Set { kind, value, .. } = &got.change else { panic!("{got:?}") };
            assert_eq!((*kind, value), (STRING, &Value::Sz(text.to_owned())));
        }
        let got = all(
            "DelProperty",
            "DeviceModel\n{c22189e4-8bf3-4e6d-8467-8dc6d95e2a7e}, 2, 0x00000001, \"DeleteThisString\"",
        )
        .unwrap();
        assert_eq!(got[0].change, PropertyChange::Delete);
        assert_eq!(got[1].change, PropertyChange::DeleteText("DeleteThisString".to_owned()));
    }

    #[test]
    fn every_type_of_property_comes_out_as_it_is_kept() {
        let set = |rest: &str| match all("AddProperty", &format!("{OWN},3,{rest}")).unwrap().remove(0).change
        {
            PropertyChange::Set { value, combine, .. } => (value.bytes(), combine),
            other => panic!("{other:?}"),
        };
        assert_eq!(set("7,,0x102"), (vec![2, 1, 0, 0], Combine::Replace));
        assert_eq!(set("7,8,1").1, Combine::Or);
        assert_eq!(set("7,0x10,1").1, Combine::And);
        assert_eq!(set("17,,1").0, [0xFF]);
        assert_eq!(set("17,,0").0, [0]);
        assert_eq!(set("0x1003,,1,0,A").0, [1, 0, 10]);
        assert_eq!(set("8210,4,a,b"), (vec![b'a', 0, 0, 0, b'b', 0, 0, 0, 0, 0], Combine::Append));
        let icons = all("AddProperty", "DeviceIcon,,,,a,b").unwrap().remove(0).change;
        assert!(matches!(icons, PropertyChange::Set { kind: STRING_LIST, .. }));
    }

    #[test]
    fn a_wrong_property_is_told_with_what_would_be_right() {
        for (line, says) in [
            ("Model,,,,x", "nor the name of a property"),
            ("{c22189e4-8bf3-4e6d-8467-8dc6d95e2a7e},1,18,,x", "not a number from 2 on"),
            ("{c22189e4-8bf3-4e6d-8467-8dc6d95e2a7e},2,13,,x", "none that an INF may name"),
            ("{c22189e4-8bf3-4e6d-8467-8dc6d95e2a7e},2,18,4,x", "do not fit the type"),
            ("{c22189e4-8bf3-4e6d-8467-8dc6d95e2a7e},2,18,0x40,x", "are not among those"),
            ("{c22189e4-8bf3-4e6d-8467-8dc6d95e2a7e},2,7,,ten", "is not a 32-bit number"),
            ("DeviceModel = x", "a `=` stands"),
        ] {
            let error = all("AddProperty", line).unwrap_err();
            assert_eq!(error.spot.map(|spot| spot.line), Some(4), "{line}");
            assert!(error.message.contains(says), "{line}: {}", error.message);
        }
    }
}
