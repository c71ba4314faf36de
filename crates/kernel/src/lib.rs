//! The Windows kernel services a WDM driver stands on, laid out as NT's own prefixes.
#![forbid(unsafe_code)]

pub mod hal;
