//! Names of files inside the volume.
//!
//! Page: *Naming Files, Paths, and Namespaces*. The kernel's names are not Win32's: `.` and `..` mean nothing in them and are refused, so no
//! name leads out of the volume.

use abi::NtStatus;

/// The most characters of one name.
pub(super) const LONGEST: usize = 255;
/// The most characters of a whole name.
const LONGEST_PATH: usize = 32_767;

/// The components of a name, and whether a `\` stands behind the last one.
///
/// # Errors
/// `OBJECT_NAME_INVALID`: a component that no file can have.
pub(super) fn split(path: &str) -> Result<(Vec<&str>, bool), NtStatus> {
    let inner = path.strip_prefix('\\').unwrap_or(path);
    if inner.is_empty() {
        return Ok((Vec::new(), !path.is_empty()));
    }
    let (inner, is_closed) = match inner.strip_suffix('\\') {
        Some(inner) => (inner, true),
        None => (inner, false),
    };
    let names: Vec<&str> = inner.split('\\').collect();
    let is_short = path.encode_utf16().count() <= LONGEST_PATH;
    if is_short && names.iter().all(|name| is_valid(name)) {
        Ok((names, is_closed))
    } else {
        Err(NtStatus::OBJECT_NAME_INVALID)
    }
}

/// Whether a file can have this name. `:` begins the name of a stream, which is not for this to say.
pub(super) fn is_valid(name: &str) -> bool {
    let allowed = |c: char| c >= ' ' && !"\"*/<>?\\|".contains(c);
    (1..=LONGEST).contains(&name.encode_utf16().count())
        && name != "."
        && name != ".."
        && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_components() {
        assert_eq!(split("\\a\\b c"), Ok((vec!["a", "b c"], false)));
        assert_eq!(split("a\\b\\"), Ok((vec!["a", "b"], true)));
        assert_eq!((split("\\"), split("")), (Ok((Vec::new(), true)), Ok((Vec::new(), false))));
    }

    #[test]
    fn what_leads_upwards_or_is_no_name_is_refused() {
        for path in ["\\..\\etc", "\\a\\..\\..\\b", "\\a\\.", "\\a\\\\b", "\\\\", "\\a*", "\\a/b", "\\\u{1}"]
        {
            assert_eq!(split(path), Err(NtStatus::OBJECT_NAME_INVALID), "{path}");
        }
        assert!(split(&format!("\\{}", "x".repeat(255))).is_ok());
        assert!(split(&format!("\\{}", "x".repeat(256))).is_err());
    }
}
