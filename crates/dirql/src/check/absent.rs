//! What the driver asks the registry for and what is not there, where it is an administrator's to set: in the key of its service, in `Device Parameters` of a
//! device, in the key of a device's driver.
//!
//! Keys that a framework reads for its clients are left out, and so are values by which a driver stops for a debugger.

use abi::{REG_BINARY, REG_DWORD, REG_EXPAND_SZ, REG_MULTI_SZ, REG_QWORD, REG_SZ};
use kernel::cm::absent;
use serde::{Deserialize, Serialize};

/// The roots of a path from `\Registry` on and of one in a registry file.
const MACHINE: [&str; 2] = [r"\Registry\Machine\", r"HKLM\"];
const CONTROL_SET: &str = r"System\ControlSet001\";
/// What the name of a value has in it by which a driver stops in a debugger: `BreakOnEntry`.
const BREAK: &str = "break";

/// A key or a value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Absent {
    /// The key, as registry files name it: `HKLM\System\ControlSet001\Services\card\Parameters`.
    pub key: String,
    /// The value's name; none if the key itself is not there.
    pub name: Option<String>,
    /// The type that the driver says the value has (`REG_SZ`, …), or `REG_NONE`.
    pub kind: u32,
    /// So many bytes of data the driver's buffer has room for; 0 if that is not known.
    pub room: u32,
}

/// What a value is where it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Data {
    /// 1, or a text or bytes that say so.
    One,
    /// A number that is more than most tables have room for.
    Large,
    /// This number, as of records whose size in bytes does not fit into 32 bits.
    Many(u32),
    /// A text where a number is expected or where the driver does not say what it expects; a number where a text is.
    OfAnotherType,
    /// Bytes that fill the driver's buffer.
    Bytes,
    /// The same as zeroes that begin with this number, as of records whose size in bytes does not fit into 32 bits.
    Records(u32),
    /// A text of this type that fills it and has no end.
    OpenText(u32),
    /// So many bytes of a text, fewer than a character and its end have.
    Stub(u8),
}

/// More than most tables have room for, and not more than there can be.
const LARGE: u32 = 0x1000;
/// So many bytes are data where it is not known how many the driver has room for, and so many are it at most.
const BYTES: u32 = 512;
const MOST_BYTES: u32 = 2048;
/// A text that is longer than a number.
const TEXT: &str = "\"one, two, three, four, five, six, seven\"";

impl Absent {
    /// What is an administrator's to set for the driver of this service, and can be named in an option.
    pub(super) fn of_driver(absent: &absent::Absent, service: &str) -> Option<Self> {
        let below = strip(&absent.key, MACHINE[0])?;
        let name = absent.name.as_deref();
        let is_set_here = is_drivers(strip(below, CONTROL_SET)?, service);
        let is_plain = |text: &str| !text.contains(['=', '"']) && !text.contains(char::is_control);
        let is_meant = name.is_none_or(|name| {
            is_plain(name) && !name.contains('\\') && !name.to_ascii_lowercase().contains(BREAK)
        });
        (is_set_here && is_meant && is_plain(below)).then(|| Self {
            key: format!("{}{below}", MACHINE[1]),
            name: absent.name.clone(),
            kind: absent.kind,
            room: absent.room,
        })
    }

    /// Whether both are one key or value.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.key, &self.name, self.kind) == (&other.key, &other.name, other.kind)
    }

    /// Whether it makes this key, in which or below which it is.
    pub(super) fn is_below(&self, key: &Self) -> bool {
        let is_in = self.key == key.key && self.name.is_some();
        is_in || strip(&self.key, &key.key).is_some_and(|rest| rest.starts_with('\\'))
    }

    /// The steps of a script by which it gets this number while the driver runs, through a handle of this name; none if it is a key.
    pub(super) fn set_by_script(&self, handle: &str, number: u32) -> Option<String> {
        let key = self.key.strip_prefix(MACHINE[1])?;
        let kind = if self.kind == REG_QWORD { "qword u64" } else { "dword u32" };
        let (root, name) = (MACHINE[0], self.name.as_ref()?);
        Some(format!(
            "create-key \"{root}{key}\" as {handle}; set-value {handle} \"{name}\" {kind}:{number}; close {handle}"
        ))
    }

    /// The option by which it is there.
    pub(super) fn option(&self, data: Data) -> String {
        let Self { key, name, kind, room } = self;
        match name {
            None => format!(r"--registry-value={key}\"),
            Some(name) => format!(r"--registry-value={key}\{name}={}", data.of_kind(*kind, *room)),
        }
    }
}

impl Data {
    /// As a registry file has it, for a value that is expected to have this type.
    fn of_kind(self, kind: u32, room: u32) -> String {
        let is_text = is_text(kind);
        let length = if room == 0 { BYTES } else { room.min(MOST_BYTES) } as usize;
        let number = match self {
            Self::OfAnotherType if !is_text => return TEXT.to_owned(),
            Self::Bytes if self.is_for(kind) => return format!("hex:{}", vec!["ff"; length].join(",")),
            Self::Records(number) if self.is_for(kind) => {
                let mut bytes = number.to_le_bytes().map(|byte| format!("{byte:02x}")).to_vec();
                bytes.resize(length.max(bytes.len()), "00".to_owned());
                return format!("hex:{}", bytes.join(","));
            }
            Self::OpenText(of) if self.is_for(kind) => {
                let kind = if is_text { kind } else { of };
                return format!("hex({kind:x}):{}", vec!["41,00"; length / 2].join(","));
            }
            Self::Stub(bytes) if self.is_for(kind) => {
                let kind = if is_text { kind } else { REG_SZ };
                return format!("hex({kind:x}):{}", vec!["41"; bytes.into()].join(","));
            }
            Self::Large => LARGE,
            Self::Many(number) => number,
            Self::One
            | Self::OfAnotherType
            | Self::Bytes
            | Self::Records(_)
            | Self::OpenText(_)
            | Self::Stub(_) => 1,
        };
        let bytes = |bytes: &[u8]| {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            bytes.join(",")
        };
        let text = |zeroes: usize| {
            let units =
                number.to_string().encode_utf16().chain(std::iter::repeat_n(0, zeroes)).collect::<Vec<_>>();
            bytes(&units.iter().flat_map(|unit| unit.to_le_bytes()).collect::<Vec<u8>>())
        };
        match kind {
            _ if self == Self::OfAnotherType => format!("dword:{number:08x}"),
            REG_SZ => format!("\"{number}\""),
            REG_EXPAND_SZ => format!("hex(2):{}", text(1)),
            REG_MULTI_SZ => format!("hex(7):{}", text(2)),
            REG_BINARY => format!("hex:{}", bytes(&number.to_le_bytes())),
            REG_QWORD => format!("hex(b):{}", bytes(&u64::from(number).to_le_bytes())),
            _ => format!("dword:{number:08x}"),
        }
    }

    /// Whether there is such data for a value that is expected to have this type.
    pub(super) const fn is_for(self, kind: u32) -> bool {
        match self {
            Self::One | Self::OfAnotherType => true,
            Self::Large | Self::Many(_) => matches!(kind, REG_DWORD | REG_QWORD | abi::REG_NONE),
            Self::Bytes | Self::Records(_) => matches!(kind, REG_BINARY | abi::REG_NONE),
            Self::OpenText(REG_MULTI_SZ) => matches!(kind, REG_MULTI_SZ | abi::REG_NONE),
            Self::OpenText(_) => matches!(kind, REG_SZ | REG_EXPAND_SZ | abi::REG_NONE),
            Self::Stub(_) => is_text(kind) || kind == abi::REG_NONE,
        }
    }
}

/// Whether a value of this type is a text, or several.
const fn is_text(kind: u32) -> bool {
    matches!(kind, REG_SZ | REG_EXPAND_SZ | REG_MULTI_SZ)
}

/// What comes behind this beginning, whose letters may be capitals or not.
fn strip<'p>(path: &'p str, beginning: &str) -> Option<&'p str> {
    let (head, rest) = path.split_at_checked(beginning.len())?;
    head.eq_ignore_ascii_case(beginning).then_some(rest)
}

/// Whether a key below the control set is the driver's, by whose service or device it is one, or lies below such a key.
fn is_drivers(key: &str, service: &str) -> bool {
    let names: Vec<String> = key.split('\\').map(str::to_ascii_lowercase).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    match names.as_slice() {
        ["services", _, "enum", ..] | ["services", _, "parameters", "wdf", ..] => false,
        ["services", of, ..] => *of == service.to_ascii_lowercase(),
        ["enum", _, _, _, "device parameters", rest @ ..] => rest.first() != Some(&"wdf"),
        ["control", "class", _, _, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use abi::REG_NONE;

    use super::*;

    fn of(key: &str, name: &str) -> Option<Absent> {
        let key = format!(r"\Registry\Machine\System\ControlSet001\{key}");
        let absent = absent::Absent { key, name: Some(name.to_owned()), kind: REG_NONE, room: 6 };
        Absent::of_driver(&absent, "Card")
    }

    #[test]
    fn what_is_set_is_in_the_drivers_own_keys() {
        assert!(of(r"Services\CARD\Parameters", "Extra").is_some());
        assert!(of(r"Enum\PCI\VEN_1234&DEV_5678\3&1\Device Parameters", "Extra").is_some());
        assert!(of(r"Control\Class\{4d36e978-e325-11ce-bfc1-08002be10318}\0000", "Extra").is_some());
        for key in
            [r"Services\other", r"Control\Lsa", r"Services\card\Parameters\Wdf", r"Enum\PCI\VEN_1234\3&1"]
        {
            assert_eq!(of(key, "Extra"), None, "{key}");
        }
        assert_eq!(of(r"Services\card", "BreakOnEntry"), None, "it stops for a debugger");
        assert_eq!(of(r"Services\card", "a=b"), None, "no option can have it");
    }

    #[test]
    fn a_value_has_the_type_that_is_expected_or_another() {
        let with = |kind, data| Absent { kind, ..of(r"Services\card", "Extra").unwrap() }.option(data);
        let begins = r"--registry-value=HKLM\System\ControlSet001\Services\card\Extra=";
        assert_eq!(with(REG_NONE, Data::One), format!("{begins}dword:00000001"));
        assert_eq!(with(REG_DWORD, Data::Large), format!("{begins}dword:00001000"));
        assert_eq!(with(REG_DWORD, Data::OfAnotherType), format!("{begins}{TEXT}"));
        assert_eq!(with(REG_SZ, Data::One), format!("{begins}\"1\""));
        assert_eq!(with(REG_SZ, Data::OfAnotherType), format!("{begins}dword:00000001"));
        assert_eq!(with(REG_MULTI_SZ, Data::One), format!("{begins}hex(7):31,00,00,00,00,00"));
        assert_eq!(with(REG_NONE, Data::Bytes), format!("{begins}hex:ff,ff,ff,ff,ff,ff"));
        assert_eq!(with(REG_BINARY, Data::Records(0x4000_0001)), format!("{begins}hex:01,00,00,40,00,00"));
        assert_eq!(with(REG_NONE, Data::OpenText(REG_SZ)), format!("{begins}hex(1):41,00,41,00,41,00"));
        let texts = Data::OpenText(REG_MULTI_SZ);
        assert_eq!(with(REG_NONE, texts), format!("{begins}hex(7):41,00,41,00,41,00"));
        assert_eq!((texts.is_for(REG_MULTI_SZ), texts.is_for(REG_SZ)), (true, false));
        assert_eq!(with(REG_DWORD, Data::OpenText(REG_SZ)), format!("{begins}dword:00000001"));
        assert_eq!(with(REG_SZ, Data::Stub(0)), format!("{begins}hex(1):"));
        assert_eq!(with(REG_MULTI_SZ, Data::Stub(1)), format!("{begins}hex(7):41"));
        let key = Absent { name: None, ..of(r"Services\card\Parameters", "").unwrap() };
        assert_eq!(
            key.option(Data::One),
            r"--registry-value=HKLM\System\ControlSet001\Services\card\Parameters\"
        );
    }
}
