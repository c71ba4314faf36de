//! Readers of a machine's events: the flow that people read, its figure, JSON lines, the driver's own prints, the sums at the end,
//! a hash for comparing runs, and which exports were reached.
//!
//! The kernel emits an event once, where the thing happens; a reader subscribes, lives outside the machine and never acts
//! on it. They write to whatever they are handed: this crate prints nothing by itself.

mod coverage;
mod digits;
mod figure;
mod flow;
mod hash;
mod json;
mod markup;
mod names;
mod prints;
mod repeats;
mod schema;
mod summary;
mod symbols;
#[cfg(test)]
mod tests;
mod traced;
mod wmi_shown;
mod words;

pub use figure::{Figure, FigureForm};
pub use flow::Flow;
pub use hash::{Hash128, TraceHash};
pub use json::{Json, SCHEMA, cut_line, kinds, line as json_line};
pub use kernel::event::Kind;
pub use markup::escaped;
pub use prints::{PrintLog, Prints, Trees};
pub use schema::page as schema_page;
pub use summary::{Summary, Sums, TagSum};
pub use symbols::SymbolBook;
pub use wmi_shown::WmiText;

pub(crate) use coverage::Coverage;
pub(crate) use hash::of_event;
pub(crate) use json::{Object, array as json_array};
pub(crate) use names::{export_name, status_text};
pub(crate) use traced::message_text;

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
pub struct Sink {
    paper: Rc<RefCell<Paper>>,
    allowance: Option<Rc<RefCell<Allowance>>>,
}

/// What may still be written.
struct Allowance {
    bytes: u64,
    /// The line that is written instead of all that does not fit; none once it was.
    notice: Option<String>,
}

struct Paper {
    out: Box<dyn Write>,
    /// The first thing that went wrong; nothing is written after it.
    trouble: Option<std::io::Error>,
}

impl Sink {
    /// A sink that passes everything on to `out`, which had better collect it: lines come one by one.
    #[must_use]
    pub fn new(out: impl Write + 'static) -> Self {
        Self { paper: Rc::new(RefCell::new(Paper { out: Box::new(out), trouble: None })), allowance: None }
    }

    /// The same place, to which so many bytes are written; what comes then is not, and the line `notice` says so.
    #[must_use]
    pub fn limited(&self, bytes: u64, notice: String) -> Self {
        let allowance = Rc::new(RefCell::new(Allowance { bytes, notice: Some(notice) }));
        Self { paper: Rc::clone(&self.paper), allowance: Some(allowance) }
    }

    /// Whether nothing more is written.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.allowance.as_ref().is_some_and(|allowance| allowance.borrow().notice.is_none())
    }

    /// Writes a line and its end.
    pub fn line(&self, text: &str) {
        let Some(allowance) = &self.allowance else { return self.write(text) };
        let Allowance { bytes, notice } = &mut *allowance.borrow_mut();
        if notice.is_none() {
            return;
        }
        match bytes.checked_sub(text.len() as u64 + 1) {
            Some(left) => {
                *bytes = left;
                self.write(text);
            }
            None => notice.take().iter().for_each(|notice| self.write(notice)),
        }
    }

    fn write(&self, text: &str) {
        let paper = &mut *self.paper.borrow_mut();
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
        let paper = &mut *self.paper.borrow_mut();
        match paper.trouble.take() {
            Some(trouble) => Err(trouble),
            None => paper.out.flush(),
        }
    }
}
