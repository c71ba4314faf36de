//! Driver images: PE32+ files taken apart and laid out as the loader would lay them out in memory.
//!
//! Sections, relocations, imports, exports, unwind data and symbols, by the Microsoft page "PE Format". It maps nothing,
//! opens no file and resolves no import: it reads the bytes it is handed, `engine` and `kernel` map what it prepares.
#![forbid(unsafe_code)]

mod checksum;
mod config;
mod debug;
mod error;
mod exports;
mod headers;
mod image;
mod imports;
mod load;
mod memory;
mod protection;
mod relocations;
mod runtime_functions;
mod sections;
mod selector;
mod symbols;
mod trace_formats;
pub mod unwind;

pub use checksum::Checksum;
pub use config::{DEFAULT_COOKIE, LoadConfig};
pub use debug::PdbReference;
pub use error::{ImageError, Problem};
pub use exports::{Export, ExportTarget};
pub use headers::MAX_SIZE_OF_IMAGE;
pub use image::Image;
pub use imports::Import;
pub use protection::{PAGE, PageRange, Protection};
pub use runtime_functions::RuntimeFunction;
pub use sections::Section;
pub use selector::{Forwarder, Selector};
pub use symbols::{Lines, SourceFrame, SourceLine, Symbol, Symbols};
pub use trace_formats::TraceFormats;
