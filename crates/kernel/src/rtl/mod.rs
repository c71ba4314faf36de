//! `Rtl*`: strings, memory, lists, the run-time library.

pub mod assert;
pub mod back_trace;
pub mod bitmap;
pub mod bitmap_runs;
pub mod c_specific_handler;
pub mod context;
pub mod convert;
pub mod crt;
pub mod crt_more;
pub mod crt_secure;
pub mod format;
pub(crate) mod frames;
pub mod function_table;
pub mod generic_table;
pub mod guid;
pub mod hash;
pub mod image;
pub mod ipv4;
pub mod luid;
pub mod memory;
pub mod names83;
pub mod oem;
pub mod pattern;
pub mod print;
pub mod random;
pub mod run_once;
pub mod string;
#[cfg(test)]
mod tests;
pub mod text;
pub mod time;
pub mod tree;
pub mod unwind;
pub mod utf8;
pub mod version;
