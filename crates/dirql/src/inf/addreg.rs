//! `AddReg` and `DelReg`, and the sections they lead to.
//!
//! Follows *INF AddReg Directive* and *INF DelReg Directive*. `HKCR`, `HKCU` and `HKU` are passed over, since no driver here has them.

use super::error::{Outcome, Remark, Spot, fault};
use super::registry::{RegistryWrite, Root, Value, Write};
use super::sections::{Entry, Sections};
use super::target::number;

const BINARY: u32 = 0x1;
const NOCLOBBER: u32 = 0x2;
const DELVAL: u32 = 0x4;
const APPEND: u32 = 0x8;
const KEYONLY: u32 = 0x10;
const OVERWRITEONLY: u32 = 0x20;
const KEY_64: u32 = 0x1000;
const KEYONLY_COMMON: u32 = 0x2000;
const KEY_32: u32 = 0x4000;
/// `FLG_ADDREG_TYPE_MULTI_SZ`.
const MULTI_SZ: u32 = 0x0001_0000;
/// `FLG_DELREG_MULTI_SZ_DELSTRING`.
const DELSTRING: u32 = 0x0001_8002;
const KNOWN: u32 =
    BINARY | NOCLOBBER | DELVAL | APPEND | KEYONLY | OVERWRITEONLY | KEY_64 | KEYONLY_COMMON | KEY_32;

/// What is collected while an installation is put together.
#[derive(Default)]
pub(super) struct Remarks {
    pub(super) ignored: Vec<Remark>,
    pub(super) unsupported: Vec<Remark>,
}

impl Remarks {
    pub(super) fn ignore(&mut self, spot: Spot, text: String) {
        self.ignored.push(Remark::new(spot, text));
    }

    pub(super) fn name(&mut self, spot: Spot, text: String) {
        self.unsupported.push(Remark::new(spot, text));
    }
}

/// The writes of all sections that an `AddReg` entry names.
pub(super) fn add_reg(
    sections: &Sections,
    entry: Entry<'_>,
    remarks: &mut Remarks,
) -> Outcome<Vec<RegistryWrite>> {
    for (_, name) in named(entry)? {
        if let Some(security) = sections.get(&format!("{name}.Security")) {
            remarks.ignore(security.spot(), format!("[{}]: keys have no security here", security.name));
        }
    }
    lines(sections, entry, remarks, write)
}

/// The deletions of all sections that a `DelReg` entry names.
pub(super) fn del_reg(
    sections: &Sections,
    entry: Entry<'_>,
    remarks: &mut Remarks,
) -> Outcome<Vec<RegistryWrite>> {
    lines(sections, entry, remarks, deletion)
}

/// What `read` makes of each line of the sections that an entry names.
pub(super) fn lines(
    sections: &Sections,
    entry: Entry<'_>,
    remarks: &mut Remarks,
    read: impl Fn(Entry<'_>, &mut Remarks) -> Outcome<Option<RegistryWrite>>,
) -> Outcome<Vec<RegistryWrite>> {
    let mut writes = Vec::new();
    for (index, name) in named(entry)? {
        for line in sections.led_to(&name, entry.spot_of(index))?.entries() {
            writes.extend(read(line, remarks)?);
        }
    }
    Ok(writes)
}

/// The values that are not empty, each with its number.
pub(super) fn named(entry: Entry<'_>) -> Outcome<Vec<(usize, String)>> {
    let values = entry.values_from(0)?;
    Ok(values.into_iter().enumerate().filter(|(_, name)| !name.is_empty()).collect())
}

/// `reg-root,[subkey],[value-entry-name],[flags]`, of which both kinds of section have lines.
pub(super) struct Place {
    pub(super) root: Root,
    pub(super) key: String,
    pub(super) name: String,
    pub(super) flags: u32,
}

/// Where a line writes or deletes; none if that is of no consequence.
pub(super) fn place(entry: Entry<'_>, remarks: &mut Remarks) -> Outcome<Option<Place>> {
    let spot = entry.spot();
    if entry.raw_key().is_some() {
        return fault(
            Some(spot),
            "a `=` stands in a line of an add-registry section; write `HKR,,Name,0x00010001,1`".to_owned(),
        );
    }
    let root = match entry.value(0)?.to_uppercase().as_str() {
        "HKR" => Root::Relative,
        "HKLM" => Root::LocalMachine,
        other @ ("HKCR" | "HKCU" | "HKU") => {
            remarks.ignore(spot, format!("{other}: no driver looks there"));
            return Ok(None);
        }
        other => {
            return fault(
                Some(spot),
                format!("`{other}` is not a root of the registry; there is: HKR, HKLM, HKCR, HKCU, HKU"),
            );
        }
    };
    let flags = flags(&entry.value(3)?, entry.spot_of(3))?;
    if flags & KEY_32 != 0 {
        remarks.name(spot, "FLG_ADDREG_32BITKEY: there is no 32-bit registry; not written".to_owned());
        return Ok(None);
    }
    let key = entry.value(1)?.trim_matches('\\').to_owned();
    Ok(Some(Place { root, key, name: entry.value(2)?, flags }))
}

/// One line: `reg-root,[subkey],[value-entry-name],[flags],[value][,value]…`.
pub(super) fn write(entry: Entry<'_>, remarks: &mut Remarks) -> Outcome<Option<RegistryWrite>> {
    let Some(Place { root, key, name, flags }) = place(entry, remarks)? else { return Ok(None) };
    known_bits(flags, KNOWN, entry)?;
    if flags & APPEND != 0 && flags & (0xffff_0000 | BINARY) != MULTI_SZ {
        return fault(
            Some(entry.spot_of(3)),
            format!("the flags {flags:#x} append to what is not a REG_MULTI_SZ; write 0x00010008"),
        );
    }
    let write = if flags & DELVAL != 0 {
        if name.is_empty() { Write::DeleteKey } else { Write::DeleteValue { name } }
    } else if flags & (KEYONLY | KEYONLY_COMMON) != 0 || entry.len() <= 2 {
        Write::Key
    } else {
        Write::Set {
            name,
            value: value(entry, flags, remarks)?,
            keep_existing: flags & NOCLOBBER != 0,
            only_existing: flags & OVERWRITEONLY != 0,
            append: flags & APPEND != 0,
        }
    };
    Ok(Some(RegistryWrite { spot: entry.spot(), root, key, write }))
}

/// One line of a del-registry section: `reg-root,subkey[,value-entry-name][,flags][,value]`.
pub(super) fn deletion(entry: Entry<'_>, remarks: &mut Remarks) -> Outcome<Option<RegistryWrite>> {
    let Some(Place { root, key, name, flags }) = place(entry, remarks)? else { return Ok(None) };
    known_bits(flags, DELSTRING | KEYONLY_COMMON | KEY_64 | KEY_32, entry)?;
    let write = if flags & DELSTRING == DELSTRING {
        Write::DeleteText { name, text: entry.value(4)? }
    } else if flags & KEYONLY_COMMON != 0 || name.is_empty() {
        Write::DeleteKey
    } else {
        Write::DeleteValue { name }
    };
    Ok(Some(RegistryWrite { spot: entry.spot(), root, key, write }))
}

fn flags(written: &str, spot: Spot) -> Outcome<u32> {
    if written.is_empty() {
        return Ok(0);
    }
    match number(written) {
        Some(flags) => Ok(flags),
        None => fault(
            Some(spot),
            format!(
                "the flags `{written}` are not a number; write 0x00010001 for a REG_DWORD, nothing for a REG_SZ"
            ),
        ),
    }
}

pub(super) fn known_bits(flags: u32, known: u32, entry: Entry<'_>) -> Outcome<()> {
    match flags & 0xffff & !known {
        0 => Ok(()),
        unknown => fault(
            Some(entry.spot_of(3)),
            format!("the flags {flags:#x} have unknown bits {unknown:#x}; see INF AddReg Directive"),
        ),
    }
}

fn value(entry: Entry<'_>, flags: u32, remarks: &mut Remarks) -> Outcome<Value> {
    let only = |remarks: &mut Remarks| {
        if entry.len() > 5 {
            remarks.ignore(
                entry.spot_of(5),
                "what follows a comma in the value; put the value in quotes".to_owned(),
            );
        }
        entry.value(4)
    };
    match flags & (0xffff_0000 | BINARY) {
        0x0000_0000 => Ok(Value::Sz(only(remarks)?)),
        0x0002_0000 => Ok(Value::ExpandSz(only(remarks)?)),
        0x0001_0000 => {
            let mut texts = entry.values_from(4)?;
            texts.retain(|text| !text.is_empty());
            Ok(Value::MultiSz(texts))
        }
        0x0000_0001 => Ok(Value::Binary(bytes(entry)?)),
        0x0001_0001 => dword(entry),
        0x0002_0001 => Ok(Value::Other { kind: 0, data: bytes(entry)? }),
        other if other & BINARY != 0 => Ok(Value::Other { kind: other >> 16, data: bytes(entry)? }),
        other => fault(
            Some(entry.spot_of(3)),
            format!("the flags say type {:#x}, which is none for a string value", other >> 16),
        ),
    }
}

/// A number, or four bytes.
fn dword(entry: Entry<'_>) -> Outcome<Value> {
    let written = entry.value(4)?;
    if entry.len() == 8
        && let [a, b, c, d] = bytes(entry)?[..]
    {
        return Ok(Value::Dword(u32::from_le_bytes([a, b, c, d])));
    }
    if written.is_empty() {
        return Ok(Value::Dword(0));
    }
    let negative = written.strip_prefix('-').and_then(number).map(u32::wrapping_neg);
    match number(&written).or(negative) {
        Some(value) => Ok(Value::Dword(value)),
        None => fault(
            Some(entry.spot_of(4)),
            format!("the REG_DWORD value `{written}` is not a 32-bit number; write 16 or 0x10"),
        ),
    }
}

/// Bytes in hexadecimal, separated by commas.
pub(super) fn bytes(entry: Entry<'_>) -> Outcome<Vec<u8>> {
    let mut data = Vec::new();
    for (index, written) in entry.values_from(4)?.into_iter().enumerate() {
        let lower = written.to_lowercase();
        let digits = lower.strip_prefix("0x").unwrap_or(&lower);
        match u8::from_str_radix(digits, 16) {
            _ if written.is_empty() => {}
            Ok(byte) if !digits.starts_with('+') => data.push(byte),
            _ => {
                return fault(
                    Some(entry.spot_of(index + 4)),
                    format!(
                        "`{written}` is not a byte; write two hexadecimal digits, separated by commas: 1,0,FF"
                    ),
                );
            }
        }
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &str) -> Outcome<Vec<RegistryWrite>> {
        let text = format!("[I]\nAddReg = R\n[R]\n{lines}\n[Strings]\nN = \"Name\"\n");
        let sections = Sections::parse(text)?;
        let entry = sections.get("I").unwrap().entries().next().unwrap();
        add_reg(&sections, entry, &mut Remarks::default())
    }

    fn set(line: &str) -> (String, Value) {
        match all(line).unwrap().remove(0).write {
            Write::Set { name, value, .. } => (name, value),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_type_of_value_comes_out_as_it_is_kept() {
        assert_eq!(set("HKR,,%N%,,text"), ("Name".into(), Value::Sz("text".into())));
        assert_eq!(set("HKR,,D,0x00010001,0x10").1, Value::Dword(16));
        assert_eq!(set("HKR,,D,0x10001,-1").1, Value::Dword(u32::MAX));
        assert_eq!(set("HKR,,D,0x10001").1, Value::Dword(0));
        assert_eq!(set("HKR,,D,65537,1,0,0,80").1, Value::Dword(0x8000_0001));
        assert_eq!(set("HKR,,M,0x00010000,a,\"b,c\"").1, Value::MultiSz(vec!["a".into(), "b,c".into()]));
        assert_eq!(set("HKR,,B,1,0,A,ff").1, Value::Binary(vec![0, 10, 255]));
        assert_eq!(set("HKR,,E,0x20000,\"%%SystemRoot%%\\x\"").1, Value::ExpandSz("%SystemRoot%\\x".into()));
        assert_eq!(set("HKR,,Q,0x000B0001,1,0,0,0,0,0,0,0").1.kind(), 11);
        assert_eq!(set("HKR,,N,0x00020001").1, Value::Other { kind: 0, data: vec![] });
    }

    #[test]
    fn strings_are_kept_with_their_zeros() {
        assert_eq!(Value::Sz("a".into()).bytes(), [b'a', 0, 0, 0]);
        assert_eq!(
            Value::MultiSz(vec!["a".into(), "b".into()]).bytes(),
            [b'a', 0, 0, 0, b'b', 0, 0, 0, 0, 0]
        );
        assert_eq!(Value::MultiSz(vec![]).bytes(), [0, 0]);
        assert_eq!(Value::Dword(0x0102).bytes(), [2, 1, 0, 0]);
    }

    #[test]
    fn flags_say_what_becomes_of_what_exists() {
        let writes = all("HKR,Parameters\nHKR,A,,0x10\nHKR,,V,2,x\nHKR,,V,4\nHKR,Old,,4\nHKR,,F,0x00010008,f\nHKLM,\\SOFTWARE\\X,,,y").unwrap();
        assert_eq!((writes[0].key.as_str(), &writes[0].write), ("Parameters", &Write::Key));
        assert_eq!(writes[1].write, Write::Key);
        assert!(matches!(writes[2].write, Write::Set { keep_existing: true, .. }));
        assert_eq!(writes[3].write, Write::DeleteValue { name: "V".into() });
        assert_eq!(writes[4].write, Write::DeleteKey);
        assert!(matches!(writes[5].write, Write::Set { append: true, .. }));
        assert_eq!((writes[6].root, writes[6].key.as_str()), (Root::LocalMachine, "SOFTWARE\\X"));
    }

    #[test]
    fn what_del_reg_names_is_deleted() {
        let text = "[I]\nDelReg = R\n[R]\nHKR,,Name\nHKR,Old\nHKLM,Soft\\X,,0x2000\nHKR,,List,0x00018002,gone\nHKCR,x\n";
        let sections = Sections::parse(text.to_owned()).unwrap();
        let entry = sections.get("I").unwrap().entries().next().unwrap();
        let mut remarks = Remarks::default();
        let writes = del_reg(&sections, entry, &mut remarks).unwrap();
        let got: Vec<_> = writes.into_iter().map(|write| (write.root, write.key, write.write)).collect();
        let list = Write::DeleteText { name: "List".into(), text: "gone".into() };
        assert_eq!(
            got,
            [
                (Root::Relative, String::new(), Write::DeleteValue { name: "Name".into() }),
                (Root::Relative, "Old".into(), Write::DeleteKey),
                (Root::LocalMachine, "Soft\\X".into(), Write::DeleteKey),
                (Root::Relative, String::new(), list),
            ]
        );
        assert_eq!(remarks.ignored.len(), 1);
    }

    #[test]
    fn a_wrong_line_is_told_with_what_would_be_right() {
        for (line, says) in [
            ("HKX,,a,,b", "`HKX` is not a root"),
            ("HKR,,a,zz,b", "are not a number"),
            ("HKR,,a,0x10001,ten", "not a 32-bit number"),
            ("HKR,,a,1,0,GG", "`GG` is not a byte"),
            ("HKR,,a,0x8000,b", "unknown bits 0x8000"),
            ("HKR,,a,8,b", "append to what is not a REG_MULTI_SZ"),
            ("a=b", "a `=` stands"),
            ("HKR,,a,0x00050000,x", "type 0x5"),
        ] {
            let error = all(line).unwrap_err();
            assert_eq!(error.spot.map(|spot| spot.line), Some(4), "{line}");
            assert!(error.message.contains(says), "{line}: {}", error.message);
        }
    }
}
