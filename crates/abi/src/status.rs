//! `NTSTATUS`: the error a driver gets. Values as in the page *NTSTATUS Values* ([MS-ERREF] 2.3.1).

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A status as drivers see it. The two upper bits are the severity: 0 success, 1 informational, 2 warning, 3 error.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
#[must_use]
pub struct NtStatus(pub u32);

impl NtStatus {
    /// `NT_SUCCESS`: success or informational.
    pub const fn is_success(self) -> bool {
        self.0 >> 31 == 0
    }
}

macro_rules! statuses {
    ($($name:ident = $value:literal;)*) => {
        #[allow(missing_docs, reason = "the names are Microsoft's")]
        impl NtStatus {
            $(pub const $name: NtStatus = NtStatus($value);)*

            /// The symbolic name, where this crate knows it.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(concat!("STATUS_", stringify!($name))),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    SUCCESS = 0x0000_0000;
    PENDING = 0x0000_0103;
    UNSUCCESSFUL = 0xC000_0001;
    NOT_IMPLEMENTED = 0xC000_0002;
    INVALID_PARAMETER = 0xC000_000D;
}

impl fmt::Debug for NtStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "NTSTATUS {:#010x}", self.0),
        }
    }
}

impl fmt::Display for NtStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
