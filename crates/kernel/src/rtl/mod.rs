//! `Rtl*`: strings, memory, lists, the run-time library.

pub mod text;
