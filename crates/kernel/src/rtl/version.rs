//! The version of Windows the machine is.
//!
//! Pages: *RtlGetVersion function*, *RtlVerifyVersionInfo function*, *Operating System Version*.

use std::cmp::Ordering;

use abi::{DriverPtr, NtStatus, OSVERSIONINFOEXW, UNICODE_STRING};
use engine::Flow;

use super::crt;
use crate::cx::Cx;
use crate::exports::data;
use crate::nt::WindowsVersion;

/// A version as the routines tell it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Version {
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
    pub(crate) const fn of(windows: WindowsVersion) -> Self {
        match windows {
            WindowsVersion::Win7 => Self { major: 6, minor: 1, build: 7601, service_pack: 1 },
            WindowsVersion::Win81 => Self { major: 6, minor: 3, build: 9600, service_pack: 0 },
            WindowsVersion::Win10 => Self { major: 10, minor: 0, build: 19045, service_pack: 0 },
            WindowsVersion::Win11 => Self { major: 10, minor: 0, build: 26100, service_pack: 0 },
        }
    }
}

/// What `RtlVerifyVersionInfo` compares, by bit of its type mask, in the order of weight.
mod compared {
    pub(super) const MINOR: u32 = 0x1;
    pub(super) const MAJOR: u32 = 0x2;
    pub(super) const BUILD: u32 = 0x4;
    pub(super) const PLATFORM: u32 = 0x8;
    pub(super) const PACK_MINOR: u32 = 0x10;
    pub(super) const PACK_MAJOR: u32 = 0x20;
    pub(super) const SUITE: u32 = 0x40;
    pub(super) const PRODUCT: u32 = 0x80;
}

/// `VER_PLATFORM_WIN32_NT`.
const PLATFORM_NT: u32 = 2;
/// `VER_NT_WORKSTATION`.
const WORKSTATION: u8 = 1;
/// `VER_SUITE_SINGLEUSERTS`.
const SUITES: u16 = 0x100;

/// `ExVerifySuite`: whether the system is one of this suite, a bit of the mask.
///
/// # Errors
/// None.
pub(crate) fn verify_suite(_cx: &mut Cx<'_>, suite: u32) -> Flow<bool> {
    Ok(u32::from(SUITES).checked_shr(suite).is_some_and(|suites| suites & 1 != 0))
}

fn now(cx: &mut Cx<'_>) -> Version {
    cx.with(|k| Version::of(k.ldr.windows))
}

/// `Service Pack 1`, or nothing.
pub(crate) fn service_pack_text(version: Version) -> Vec<u16> {
    match version.service_pack {
        0 => Vec::new(),
        number => format!("Service Pack {number}").encode_utf16().collect(),
    }
}

/// `RtlGetVersion`: fills `OSVERSIONINFOW`, or, as its size says, `OSVERSIONINFOEXW`.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn get_version(cx: &mut Cx<'_>, info: DriverPtr<OSVERSIONINFOEXW>) -> Flow<NtStatus> {
    let version = now(cx);
    cx.write(info + OSVERSIONINFOEXW::dwMajorVersion, version.major)?;
    cx.write(info + OSVERSIONINFOEXW::dwMinorVersion, version.minor)?;
    cx.write(info + OSVERSIONINFOEXW::dwBuildNumber, version.build)?;
    cx.write(info + OSVERSIONINFOEXW::dwPlatformId, PLATFORM_NT)?;
    let mut name = service_pack_text(version);
    name.push(0);
    crt::write::<2>(cx, (info + OSVERSIONINFOEXW::szCSDVersion).address, &name)?;
    let size = cx.read(info + OSVERSIONINFOEXW::dwOSVersionInfoSize)?;
    if size as usize == size_of::<OSVERSIONINFOEXW>() {
        cx.write(info + OSVERSIONINFOEXW::wServicePackMajor, version.service_pack)?;
        cx.write(info + OSVERSIONINFOEXW::wServicePackMinor, 0)?;
        cx.write(info + OSVERSIONINFOEXW::wSuiteMask, SUITES)?;
        cx.write(info + OSVERSIONINFOEXW::wProductType, WORKSTATION)?;
        cx.write(info + OSVERSIONINFOEXW::wReserved, 0)?;
    }
    Ok(NtStatus::SUCCESS)
}

/// `PsGetVersion`: each pointer may be null. A checked build it is not.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn ps_get_version(
    cx: &mut Cx<'_>,
    major: DriverPtr<u32>,
    minor: DriverPtr<u32>,
    build: DriverPtr<u32>,
    pack: DriverPtr<UNICODE_STRING>,
) -> Flow<bool> {
    let version = now(cx);
    for (to, value) in [(major, version.major), (minor, version.minor), (build, version.build)] {
        if !to.is_null() {
            cx.write(to, value)?;
        }
    }
    if !pack.is_null() {
        let bytes = 2 * service_pack_text(version).len() as u64;
        super::string::set(cx, pack, bytes, bytes + 2, data::service_pack_text())?;
    }
    Ok(false)
}

/// `RtlVerifyVersionInfo`.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn verify_version_info(
    cx: &mut Cx<'_>,
    info: DriverPtr<OSVERSIONINFOEXW>,
    types: u32,
    conditions: u64,
) -> Flow<NtStatus> {
    type Info = OSVERSIONINFOEXW;
    if types == 0 || conditions == 0 {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let version = now(cx);
    let major = cx.read(info + Info::dwMajorVersion)?;
    let minor = cx.read(info + Info::dwMinorVersion)?;
    let build = cx.read(info + Info::dwBuildNumber)?;
    let platform = cx.read(info + Info::dwPlatformId)?;
    let pack = (cx.read(info + Info::wServicePackMajor)?, cx.read(info + Info::wServicePackMinor)?);
    let suites = cx.read(info + Info::wSuiteMask)?;
    let product = cx.read(info + Info::wProductType)?;
    // The four version numbers are one comparison, by the condition of the first that is asked for.
    let numbers = [
        (compared::MAJOR, version.major, major),
        (compared::MINOR, version.minor, minor),
        (compared::PACK_MAJOR, version.service_pack.into(), pack.0.into()),
        (compared::PACK_MINOR, 0, pack.1.into()),
    ];
    let mut asked = numbers.iter().filter(|(kind, ..)| types & kind != 0);
    if let Some((kind, ..)) = asked.clone().next() {
        let order = asked.find_map(|(_, have, want)| Some(have.cmp(want)).filter(|order| order.is_ne()));
        if !holds(condition(conditions, *kind), order.unwrap_or(Ordering::Equal)) {
            return Ok(NtStatus::REVISION_MISMATCH);
        }
    }
    let single = [
        (compared::BUILD, version.build, build),
        (compared::PLATFORM, PLATFORM_NT, platform),
        (compared::PRODUCT, WORKSTATION.into(), product.into()),
    ];
    let single = single
        .iter()
        .filter(|(kind, ..)| types & kind != 0)
        .all(|(kind, have, want)| holds(condition(conditions, *kind), have.cmp(want)));
    let suite = types & compared::SUITE == 0
        || match condition(conditions, compared::SUITE) {
            6 => SUITES & suites == suites,
            _ => SUITES & suites != 0,
        };
    Ok(if single && suite { NtStatus::SUCCESS } else { NtStatus::REVISION_MISMATCH })
}

/// Three bits for each kind of comparison, as `VerSetConditionMask` packs them.
fn condition(conditions: u64, kind: u32) -> u64 {
    conditions >> (3 * kind.trailing_zeros()) & 7
}

/// `VER_EQUAL` to `VER_LESS_EQUAL`.
fn holds(condition: u64, order: Ordering) -> bool {
    match condition {
        1 => order.is_eq(),
        2 => order.is_gt(),
        3 => order.is_ge(),
        4 => order.is_lt(),
        5 => order.is_le(),
        _ => false,
    }
}

/// `VerSetConditionMask`: adds one condition to a mask.
///
/// # Errors
/// None.
pub(crate) fn set_condition_mask(_cx: &mut Cx<'_>, mask: u64, types: u32, condition: u8) -> Flow<u64> {
    let kinds = (0..8).filter(|bit| types & 1 << bit != 0);
    Ok(kinds.fold(mask, |mask, bit| mask | u64::from(condition & 7) << (3 * bit) | 1 << 63))
}
