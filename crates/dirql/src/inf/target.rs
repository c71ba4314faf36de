//! The Windows a driver is installed on, and the decorations of section names that choose by it.
//!
//! Follows *INF Manufacturer Section*: `nt[Architecture][.[Major][.[Minor][.[ProductType][.[SuiteMask][.[Build]]]]]]`.
//! The machine is always an x64 workstation.

/// A version of Windows for x64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Target {
    /// 6 or 10.
    pub major: u32,
    /// 1 or 3 for major version 6, else 0.
    pub minor: u32,
    /// The build number, e.g. 19045.
    pub build: u32,
}

impl Target {
    /// Windows 7 with Service Pack 1.
    pub const WINDOWS_7: Self = Self { major: 6, minor: 1, build: 7601 };
    /// Windows 8.1.
    pub const WINDOWS_8_1: Self = Self { major: 6, minor: 3, build: 9600 };
    /// Windows 10, version 22H2.
    pub const WINDOWS_10_22H2: Self = Self { major: 10, minor: 0, build: 19045 };
    /// Windows 11, version 24H2.
    pub const WINDOWS_11_24H2: Self = Self { major: 10, minor: 0, build: 26100 };
}

/// `VER_NT_WORKSTATION`.
const WORKSTATION: u32 = 1;
/// `VER_SUITE_SINGLEUSERTS`, which every workstation has.
const SUITE: u32 = 0x100;

/// How closely a decoration fits: compares greater when closer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Fit {
    version: (u32, u32, u32),
    product: bool,
    suite: bool,
}

/// How closely `decoration` fits this Windows; `None` if it is not for it, or not well formed.
pub(super) fn fit(decoration: &str, target: Target) -> Option<Fit> {
    let lower = decoration.to_lowercase();
    let rest = lower.strip_prefix("ntamd64")?;
    let mut fields = [None; 5];
    if !rest.is_empty() {
        let parts: Vec<&str> = rest.strip_prefix('.')?.split('.').collect();
        if parts.len() > fields.len() {
            return None;
        }
        for (field, part) in fields.iter_mut().zip(parts) {
            if !part.is_empty() {
                *field = Some(number(part)?);
            }
        }
    }
    let [major, minor, product, suite, build] = fields;
    let version = (major.unwrap_or(0), minor.unwrap_or(0));
    let own = (target.major, target.minor);
    let new_enough = version < own || version == own && build.is_none_or(|build| build <= target.build);
    let fits = new_enough
        && product.is_none_or(|product| product == WORKSTATION)
        && suite.is_none_or(|suite| suite & !SUITE == 0);
    fits.then_some(Fit {
        version: (version.0, version.1, build.unwrap_or(0)),
        product: product.is_some(),
        suite: suite.is_some(),
    })
}

/// A number of an INF: decimal, or hexadecimal with `0x`.
pub(super) fn number(text: &str) -> Option<u32> {
    let lower = text.trim().to_lowercase();
    match lower.strip_prefix("0x") {
        Some(hex) if !hex.starts_with('+') => u32::from_str_radix(hex, 16).ok(),
        None if !lower.starts_with('+') => lower.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best<'a>(decorations: &[&'a str], target: Target) -> Option<&'a str> {
        let fits = decorations.iter().filter_map(|text| Some((fit(text, target)?, *text)));
        fits.max_by_key(|(fit, _)| *fit).map(|(_, text)| text)
    }

    #[test]
    fn the_highest_version_that_is_not_too_high_is_chosen() {
        let list = [
            "NTamd64",
            "NTamd64.6.0",
            "NTamd64.6.2",
            "NTamd64.10.0...16299",
            "NTamd64.10.0...99999",
            "NTx86.10.0",
        ];
        assert_eq!(best(&list, Target::WINDOWS_11_24H2), Some("NTamd64.10.0...16299"));
        assert_eq!(best(&list, Target::WINDOWS_8_1), Some("NTamd64.6.2"));
        assert_eq!(best(&list, Target::WINDOWS_7), Some("NTamd64.6.0"));
    }

    #[test]
    fn x64_windows_takes_only_what_is_decorated_for_it() {
        for other in [
            "NT",
            "NTx86",
            "NTarm64",
            "NT.6.1",
            "amd64",
            "NTamd64x",
            "NTamd64.6.x",
            "NTamd64.1.2.3.4.5.6",
            "",
        ] {
            assert_eq!(fit(other, Target::WINDOWS_10_22H2), None, "{other}");
        }
    }

    #[test]
    fn servers_and_data_centers_are_other_machines() {
        assert_eq!(fit("NTamd64.6.0.3", Target::WINDOWS_7), None);
        assert_eq!(fit("NTamd64....0x80", Target::WINDOWS_7), None);
        assert_eq!(best(&["NTamd64.6.1", "NTamd64.6.1.1"], Target::WINDOWS_7), Some("NTamd64.6.1.1"));
        assert_eq!(best(&["NTamd64.6.1", "NTamd64...1"], Target::WINDOWS_7), Some("NTamd64.6.1"));
    }
}
