//! How one image names an entry of another: by name, by ordinal, or through a forwarder `OTHER.Name`.
//!
//! As the Microsoft page "PE Format" has it under "Export Address Table". It looks nothing up.

use std::fmt;

/// Which of an exporter's entries is meant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Selector {
    /// The entry of this name; case matters.
    Name(String),
    /// The entry of this ordinal.
    Ordinal(u16),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ordinal(ordinal) => write!(f, "#{ordinal}"),
        }
    }
}

/// An export that another module provides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forwarder {
    /// The other module as written, without an extension; case does not matter.
    pub module: String,
    /// Its entry.
    pub selector: Selector,
}

impl Forwarder {
    /// Reads `OTHER.Name` or `OTHER.#12`. The module ends at the last dot. `None` if a side is empty or the ordinal is not
    /// one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (module, entry) = text.rsplit_once('.')?;
        if module.is_empty() || entry.is_empty() {
            return None;
        }
        let selector = match entry.strip_prefix('#') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Selector::Ordinal(digits.parse().ok()?)
            }
            Some(_) => return None,
            None => Selector::Name(entry.into()),
        };
        Some(Self { module: module.into(), selector })
    }
}

impl fmt::Display for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.module, self.selector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarder_names_an_entry_or_an_ordinal_of_another_module() {
        let by_name = Forwarder::parse("NTOSKRNL.KeSetEvent").unwrap();
        assert_eq!(
            (by_name.module.as_str(), by_name.selector.to_string().as_str()),
            ("NTOSKRNL", "KeSetEvent")
        );
        let by_ordinal = Forwarder::parse("class.v2.#12").unwrap();
        assert_eq!((by_ordinal.module.as_str(), by_ordinal.selector), ("class.v2", Selector::Ordinal(12)));
    }

    #[test]
    fn half_a_forwarder_is_none() {
        for text in
            ["", "KeSetEvent", ".KeSetEvent", "NTOSKRNL.", "NTOSKRNL.#", "NTOSKRNL.#x", "NTOSKRNL.#65536"]
        {
            assert_eq!(Forwarder::parse(text), None, "{text}");
        }
    }
}
