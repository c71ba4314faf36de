//! Readers of a machine's events: the flow that people read, its figure, JSON lines, the driver's own prints, the sums at the end,
//! a hash for comparing runs, and which exports were reached.
//!
//! The kernel emits an event once, where the thing happens; a reader subscribes, lives outside the machine and never acts
//! on it. They write to whatever they are handed: this crate prints nothing by itself.

mod coverage;
mod figure;
mod flow;
mod hash;
mod json;
mod names;
mod prints;
mod summary;
mod symbols;
#[cfg(test)]
mod tests;

pub use coverage::Coverage;
pub use figure::{Figure, FigureForm};
pub use flow::Flow;
pub use hash::{TraceHash, fnv128};
pub use json::{Json, kind_name, line as json_line};
pub use prints::{PrintLog, Prints};
pub use summary::{Summary, Sums, TagSum};
pub use symbols::SymbolBook;

pub(crate) use json::{Object, array as json_array};
pub(crate) use names::status_text;

/// A JSON object to be filled.
pub(crate) fn json_object() -> Object {
    Object::new()
}

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;

/// Where readers write: shared, because several may write to the same place.
#[derive(Clone)]
pub struct Sink(Rc<RefCell<Box<dyn Write>>>);

impl Sink {
    /// A sink that passes everything on to `out`.
    #[must_use]
    pub fn new(out: impl Write + 'static) -> Self {
        Self(Rc::new(RefCell::new(Box::new(out))))
    }

    /// Writes a line and its end. A reader that went away (`dirql … | head`) is not an error of the run.
    pub fn line(&self, text: &str) {
        let mut out = self.0.borrow_mut();
        let _ = out.write_all(text.as_bytes());
        let _ = out.write_all(b"\n");
        let _ = out.flush();
    }
}
