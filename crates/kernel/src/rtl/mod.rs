//! `Rtl*`: strings, memory, lists, the run-time library.

pub mod format;
pub mod text;
pub mod version;
