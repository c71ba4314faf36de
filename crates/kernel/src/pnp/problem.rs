//! Why a device does not run: the problem code that Device Manager shows.
//!
//! Page: *Device Manager Error Messages*. Only what the PnP manager finds out by itself has a code here; what a user disables is not.

use std::fmt;

/// The codes of Cfg.h that are given here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    /// `IRP_MN_START_DEVICE` or a request before it failed, the first time or another.
    FailedStart = 10,
    /// Its resources cannot be had.
    NormalConflict = 12,
    /// There is no driver for it.
    FailedInstall = 28,
    /// Its bus driver said when it was found, or its drivers later, that its hardware is disabled (`HardwareDisabled`, `PNP_DEVICE_DISABLED`).
    HardwareDisabled = 29,
    /// An `AddDevice` routine failed.
    FailedAdd = 31,
    /// It said that it failed (`PNP_DEVICE_FAILED`).
    FailedPostStart = 43,
    /// It was prepared for its removal by the user, and is still there.
    HeldForEject = 47,
}

impl Code {
    /// Its name.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::FailedStart => "CM_PROB_FAILED_START",
            Self::NormalConflict => "CM_PROB_NORMAL_CONFLICT",
            Self::FailedInstall => "CM_PROB_FAILED_INSTALL",
            Self::HardwareDisabled => "CM_PROB_HARDWARE_DISABLED",
            Self::FailedAdd => "CM_PROB_FAILED_ADD",
            Self::FailedPostStart => "CM_PROB_FAILED_POST_START",
            Self::HeldForEject => "CM_PROB_HELD_FOR_EJECT",
        }
    }
}

/// A code, and what it is in this case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Problem {
    /// What the system calls it.
    pub code: Code,
    /// In words; may be empty.
    pub why: String,
}

impl Problem {
    pub(super) fn new(code: Code, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "problem {} ({})", self.code as u32, self.code.name())?;
        if self.why.is_empty() { Ok(()) } else { write!(f, ": {}", self.why) }
    }
}
