//! Which exports a run has called: what `docs/coverage.md` is made from.
//!
//! With the environment variable `DIRQL_COVERAGE` naming a file, every machine of this library appends the names of the
//! exports that were called in it, one a line, when it ends.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::rc::Rc;

use kernel::event::{Event, Kind, Reader, Stamp};

use super::names::export_name;

/// The environment variable that names the file.
const VARIABLE: &str = "DIRQL_COVERAGE";

/// Remembers the exports that were called. A clone is the same memory.
#[derive(Clone, Default)]
pub struct Coverage(Rc<RefCell<BTreeSet<&'static str>>>);

impl Coverage {
    /// One, if the environment asks for it.
    #[must_use]
    pub(crate) fn asked_for() -> Option<Self> {
        std::env::var_os(VARIABLE).map(|_| Self::default())
    }

    /// The names of the exports that were called, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.0.borrow().iter().copied().collect()
    }

    /// Appends the names to the file that the environment names. In one write, because tests run side by side.
    pub(crate) fn append(&self) -> std::io::Result<()> {
        let Some(path) = std::env::var_os(VARIABLE) else { return Ok(()) };
        let text: String = self.0.borrow().iter().flat_map(|name| [*name, "\n"]).collect();
        OpenOptions::new().create(true).append(true).open(path)?.write_all(text.as_bytes())
    }
}

impl Reader for Coverage {
    fn wants(&self, kind: Kind) -> bool {
        kind == Kind::Call
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        if let Event::Call { export, .. } = event {
            self.0.borrow_mut().insert(export_name(*export));
        }
    }
}
