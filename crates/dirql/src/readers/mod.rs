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
mod repeats;
mod schema;
mod summary;
mod symbols;
#[cfg(test)]
mod tests;

pub use coverage::Coverage;
pub use figure::{Figure, FigureForm};
pub use flow::Flow;
pub use hash::{Hash128, TraceHash};
pub use json::{Json, SCHEMA, line as json_line};
pub use prints::{PrintLog, Prints};
pub use schema::page as schema_page;
pub use summary::{Summary, Sums, TagSum};
pub use symbols::SymbolBook;

pub(crate) use hash::of_event;
pub(crate) use json::{Object, array as json_array};
pub(crate) use names::status_text;

/// A JSON object to be filled.
pub(crate) fn json_object() -> Object {
    Object::new()
}

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;

/// Where readers write: shared, because several may write to the same place. What comes of it is theirs who made it: see
/// [`Sink::flush`].
#[derive(Clone)]
pub struct Sink(Rc<RefCell<Paper>>);

struct Paper {
    out: Box<dyn Write>,
    /// The first thing that went wrong; nothing is written after it.
    trouble: Option<std::io::Error>,
}

impl Sink {
    /// A sink that passes everything on to `out`, which had better collect it: lines come one by one.
    #[must_use]
    pub fn new(out: impl Write + 'static) -> Self {
        Self(Rc::new(RefCell::new(Paper { out: Box::new(out), trouble: None })))
    }

    /// Writes a line and its end.
    pub fn line(&self, text: &str) {
        let paper = &mut *self.0.borrow_mut();
        if paper.trouble.is_none() {
            let written = paper.out.write_all(text.as_bytes()).and_then(|()| paper.out.write_all(b"\n"));
            paper.trouble = written.err();
        }
    }

    /// Hands everything on.
    ///
    /// # Errors
    /// What went wrong first, since this was asked last.
    pub fn flush(&self) -> std::io::Result<()> {
        let paper = &mut *self.0.borrow_mut();
        match paper.trouble.take() {
            Some(trouble) => Err(trouble),
            None => paper.out.flush(),
        }
    }
}
