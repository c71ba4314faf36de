//! The version of Windows the machine is.
//!
//! Pages: *RtlGetVersion function*, *RtlVerifyVersionInfo function*, *Operating System Version*.

use crate::nt::WindowsVersion;

/// A version as the routines tell it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// 6 or 10.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// Build number.
    pub build: u32,
    /// Service pack, 0 if none.
    pub service_pack: u16,
}

impl Version {
    /// The numbers of a version.
    #[must_use]
    pub const fn of(windows: WindowsVersion) -> Self {
        match windows {
            WindowsVersion::Win7 => Self { major: 6, minor: 1, build: 7601, service_pack: 1 },
            WindowsVersion::Win81 => Self { major: 6, minor: 3, build: 9600, service_pack: 0 },
            WindowsVersion::Win10 => Self { major: 10, minor: 0, build: 19045, service_pack: 0 },
            WindowsVersion::Win11 => Self { major: 10, minor: 0, build: 26100, service_pack: 0 },
        }
    }
}
