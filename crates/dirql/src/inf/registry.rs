//! What an installation writes to the registry, as plain values.
//!
//! Value types and their bytes as in *Registry value types*. Nothing is written here.

use super::error::Spot;

/// One thing to do to the registry, from one line of an add-registry section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistryWrite {
    /// Where the INF says so.
    pub spot: Spot,
    /// Where the key's path begins.
    pub root: Root,
    /// The path below the root; empty: the root itself. Made where it does not exist.
    pub key: String,
    /// What to do there.
    pub write: Write,
}

/// Where a path begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Root {
    /// `HKR`: the key that the list of writes is for.
    Relative,
    /// `HKLM`: `\Registry\Machine`.
    LocalMachine,
}

/// What to do to a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// Make the key, nothing else (`FLG_ADDREG_KEYONLY`).
    Key,
    /// Set a value.
    Set {
        /// Its name; empty: the key's unnamed value.
        name: String,
        /// What it is set to.
        value: Value,
        /// Leave a value that exists as it is (`FLG_ADDREG_NOCLOBBER`).
        keep_existing: bool,
        /// Set it only if it exists (`FLG_ADDREG_OVERWRITEONLY`).
        only_existing: bool,
        /// Add the strings to those that exist, each once (`FLG_ADDREG_APPEND`); only with [`Value::MultiSz`].
        append: bool,
    },
    /// Delete a value (`FLG_ADDREG_DELVAL` with a name).
    DeleteValue {
        /// Its name.
        name: String,
    },
    /// Take a string out of a `REG_MULTI_SZ`, in any case (`FLG_DELREG_MULTI_SZ_DELSTRING`).
    DeleteText {
        /// The value's name.
        name: String,
        /// The string.
        text: String,
    },
    /// Set or clear bits of a byte of a binary value (`BitReg`).
    Bits {
        /// The value's name.
        name: String,
        /// Whether they are set, else cleared.
        set: bool,
        /// The bits.
        mask: u8,
        /// The number of the byte.
        byte: u32,
    },
    /// Delete the key and all below it (`FLG_ADDREG_DELVAL` without a name).
    DeleteKey,
}

impl Write {
    /// The value that it is about, if it is about one.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Set { name, .. }
            | Self::DeleteValue { name }
            | Self::DeleteText { name, .. }
            | Self::Bits { name, .. } => Some(name),
            Self::Key | Self::DeleteKey => None,
        }
    }
}

/// A registry value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// `REG_SZ`.
    Sz(String),
    /// `REG_EXPAND_SZ`.
    ExpandSz(String),
    /// `REG_MULTI_SZ`.
    MultiSz(Vec<String>),
    /// `REG_DWORD`.
    Dword(u32),
    /// `REG_BINARY`.
    Binary(Vec<u8>),
    /// `REG_NONE` (0), or a type by number (`REG_QWORD` is 11), given as bytes.
    Other {
        /// The type.
        kind: u32,
        /// The value's bytes.
        data: Vec<u8>,
    },
}

impl Value {
    /// The value's type: `REG_SZ` is 1, `REG_DWORD` 4.
    #[must_use]
    pub fn kind(&self) -> u32 {
        match self {
            Self::Sz(_) => 1,
            Self::ExpandSz(_) => 2,
            Self::Binary(_) => 3,
            Self::Dword(_) => 4,
            Self::MultiSz(_) => 7,
            Self::Other { kind, .. } => *kind,
        }
    }

    /// The bytes as the registry keeps them: strings in UTF-16 with their zeros, numbers little endian.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Sz(text) | Self::ExpandSz(text) => utf16_with_zero(text),
            Self::MultiSz(texts) => {
                texts.iter().flat_map(|text| utf16_with_zero(text)).chain([0, 0]).collect()
            }
            Self::Dword(value) => value.to_le_bytes().to_vec(),
            Self::Binary(data) | Self::Other { data, .. } => data.clone(),
        }
    }
}

fn utf16_with_zero(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}
