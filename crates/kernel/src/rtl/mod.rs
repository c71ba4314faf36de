//! `Rtl*`: strings, memory, lists, the run-time library.
