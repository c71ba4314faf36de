//! Which exports a run has called: what `docs/coverage.md` is made from.
//!
//! With the environment variable `DIRQL_COVERAGE` naming a file, every machine of this library appends the names of the
//! exports that were called in it, one a line, when it ends.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;

/// The environment variable that names the file.
const VARIABLE: &str = "DIRQL_COVERAGE";

/// Remembers the exports that were called.
pub(crate) struct Coverage {
    names: RefCell<BTreeSet<&'static str>>,
    /// Opened before the machine starts: a jailed one could not.
    file: std::io::Result<File>,
}

impl Coverage {
    /// One, if the environment asks for it.
    #[must_use]
    pub(crate) fn asked_for() -> Option<Self> {
        let path = std::env::var_os(VARIABLE)?;
        let file = OpenOptions::new().create(true).append(true).open(path);
        Some(Self { names: RefCell::default(), file })
    }

    /// The file that the names go to.
    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref().ok()
    }

    /// These exports were called: in a machine that is taken back and runs again, at the end of each run.
    pub(crate) fn add(&self, names: impl Iterator<Item = &'static str>) {
        self.names.borrow_mut().extend(names);
    }

    /// Appends the names to the file that the environment names. In one write, because tests run side by side.
    pub(crate) fn append(&self) -> Result<(), String> {
        let text: String = self.names.borrow().iter().flat_map(|name| [*name, "\n"]).collect();
        let mut file = self.file.as_ref().map_err(ToString::to_string)?;
        file.write_all(text.as_bytes()).map_err(|error| error.to_string())
    }
}
