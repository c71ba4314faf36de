//! Names of C++ as they stand in source code: `FxIoQueue::DispatchEvents` for `?DispatchEvents@FxIoQueue@@AEAAEPEAVFxRequest@@@Z`.
//!
//! Both ways of decorating names are known, Microsoft's and the Itanium ABI's, which mingw has. Types of arguments and results are left out: a line of
//! a stack has no room for them.

use std::borrow::Cow;

use cpp_demangle::{BorrowedSymbol, DemangleOptions};
use msvc_demangler::DemangleFlags;

/// Longer names stay as they are: a file may be damaged, and what they nest is not bounded otherwise.
const MOST: usize = 1024;

/// The name without decoration; as it is, if it has none.
pub(super) fn demangled(name: &str) -> Cow<'_, str> {
    let plain = match name.as_bytes() {
        _ if name.len() > MOST => None,
        [b'?', ..] => msvc_demangler::demangle(name, DemangleFlags::NAME_ONLY).ok(),
        [b'_', b'Z', ..] => itanium(name),
        _ => None,
    };
    plain.map_or(Cow::Borrowed(name), Cow::Owned)
}

fn itanium(name: &str) -> Option<String> {
    let options = DemangleOptions::new().no_params().no_return_type();
    BorrowedSymbol::new(name.as_bytes()).ok()?.demangle_with_options(&options).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_kinds_are_read_and_others_stay() {
        for (name, plain) in [
            ("?DispatchEvents@FxIoQueue@@AEAAEPEAVFxRequest@@@Z", "FxIoQueue::DispatchEvents"),
            ("?OnWrite@@YAXPEAUWDFQUEUE__@@PEAUWDFREQUEST__@@_K@Z", "OnWrite"),
            ("??0FxObject@@QEAA@GGPEAU_FX_DRIVER_GLOBALS@@@Z", "FxObject::FxObject"),
            ("_ZN4Card5writeEPKhj", "Card::write"),
            ("DriverEntry", "DriverEntry"),
            ("?", "?"),
            ("_Z", "_Z"),
            ("", ""),
        ] {
            assert_eq!(demangled(name), plain);
        }
    }

    #[test]
    fn what_is_damaged_stays_as_it_is() {
        for name in ["?A@", "??$", "_ZNNNNN", "_Z1é"] {
            assert_eq!(demangled(name), name);
        }
        let deep = format!("?f@@YAX{}H@Z", "PEA".repeat(400));
        assert_eq!(demangled(&deep), deep, "too long");
    }
}
