//! The Windows versions a machine can be, as users name them.

use kernel::nt::WindowsVersion;

use crate::error::InputError;
use crate::inf::Target;
use crate::script::suggest::nearest;

/// What can be typed after `--windows`, oldest first.
pub const VERSIONS: [(&str, WindowsVersion); 4] = [
    ("7", WindowsVersion::Win7),
    ("8.1", WindowsVersion::Win81),
    ("10-22h2", WindowsVersion::Win10),
    ("11-24h2", WindowsVersion::Win11),
];

/// What is typed for a version.
#[must_use]
pub fn name(version: WindowsVersion) -> &'static str {
    VERSIONS.iter().find(|(_, known)| *known == version).map_or("", |(name, _)| name)
}

/// The version of this name.
///
/// # Errors
/// There is none; the message lists those there are.
pub fn parse(name: &str) -> Result<WindowsVersion, InputError> {
    let lower = name.to_ascii_lowercase();
    if let Some((_, version)) = VERSIONS.iter().find(|(known, _)| *known == lower) {
        return Ok(*version);
    }
    let names: Vec<&str> = VERSIONS.iter().map(|(known, _)| *known).collect();
    let hint = nearest(&lower, names.iter().copied()).map(|near| format!(", did you mean `{near}`?"));
    let (hint, list) = (hint.unwrap_or_default(), names.join(", "));
    Err(InputError::new(format!("no Windows version `{name}`{hint}; there are: {list}")))
}

/// What an INF is installed on.
#[must_use]
pub fn target(version: WindowsVersion) -> Target {
    match version {
        WindowsVersion::Win7 => Target::WINDOWS_7,
        WindowsVersion::Win81 => Target::WINDOWS_8_1,
        WindowsVersion::Win10 => Target::WINDOWS_10_22H2,
        WindowsVersion::Win11 => Target::WINDOWS_11_24H2,
    }
}
