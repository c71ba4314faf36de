//! Registry files in a machine: what the user gives is written beside what INFs install, and wins over it.
//!
//! All of it is written once the keys of services, and what INFs write without a device, are there, before anything is loaded. Whenever a device was
//! installed, at the start or later, what the files say of the keys that this has written is written once more. What drivers have
//! written meanwhile elsewhere stays. Lists that the PnP manager makes itself at each boot (`Enum` of a service, `Control` of a device) are passed over. Which
//! driver a device gets is decided by INFs alone, whatever the files say of `Service` or filters.

use std::fmt;

use abi::NtStatus;
use kernel::Cx;
use kernel::cm::access;

use super::registry::delete;
use crate::inf::Spot;
use crate::reg::{Action, RegFile, What, is_kept, is_within};

/// What the registry does not take.
pub(super) struct Refused<'f> {
    file: &'f str,
    spot: Spot,
    status: NtStatus,
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, spot, status } = self;
        write!(f, "{file}:{spot}: ")?;
        match *status {
            NtStatus::INSUFFICIENT_RESOURCES => f.write_str(
                "the machine has no memory for this; give it more with --memory, or keep only the keys that matter",
            ),
            status => write!(f, "the registry refuses this with {status}; take it out"),
        }
    }
}

/// Writes all that the files say.
///
/// # Errors
/// The first thing that the registry does not take.
pub(super) fn write<'f>(cx: &mut Cx<'_>, files: &'f [RegFile]) -> Result<(), Refused<'f>> {
    write_some(cx, files, |_| true)
}

/// Writes what they say of these keys, and of those below them.
///
/// # Errors
/// As [`write`].
pub(super) fn write_again<'f>(
    cx: &mut Cx<'_>,
    files: &'f [RegFile],
    keys: &[String],
) -> Result<(), Refused<'f>> {
    write_some(cx, files, |action| keys.iter().any(|key| is_within(&action.key, key)))
}

fn write_some<'f>(
    cx: &mut Cx<'_>,
    files: &'f [RegFile],
    wanted: impl Fn(&Action) -> bool,
) -> Result<(), Refused<'f>> {
    for file in files {
        for action in file.actions.iter().filter(|action| !is_kept(&action.key) && wanted(action)) {
            carry_out(cx, action).map_err(|status| Refused {
                file: &file.file,
                spot: action.spot,
                status,
            })?;
        }
    }
    Ok(())
}

fn carry_out(cx: &mut Cx<'_>, Action { key, what, .. }: &Action) -> Result<(), NtStatus> {
    match what {
        What::Make => access::create(cx, key).map(|_| ()),
        What::Delete => delete(cx, key, None),
        What::Set { name, kind, data } => access::set(cx, key, name, *kind, data),
        What::DeleteValue { name } => delete(cx, key, Some(name)),
    }
}
