//! What the driver prints (`DbgPrint`), line by line: shown as it comes, and kept for a script's `expect print`. What a script asks to see is
//! shown with it.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use kernel::event::{Event, Kind, Reader, Stamp};

use super::{Sink, wmi_shown};

/// Writes the driver's lines as they come, and those of the device tree and of WMI blocks where a script shows them, and nothing else: what
/// `--quiet` leaves.
pub struct Prints(Sink);

impl Prints {
    /// Lines go to `out`.
    #[must_use]
    pub fn new(out: Sink) -> Self {
        Self(out)
    }
}

impl Reader for Prints {
    fn wants(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Print | Kind::Tree | Kind::WmiBlock)
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        match event {
            Event::Print { text: line } | Event::Tree { line } => self.0.line(line),
            _ => wmi_shown::lines(event, usize::MAX).iter().for_each(|line| self.0.line(line)),
        }
    }
}

/// Writes the lines of the device tree where a script shows it, and nothing else.
pub struct Trees(Sink);

impl Trees {
    /// Lines go to `out`.
    #[must_use]
    pub fn new(out: Sink) -> Self {
        Self(out)
    }
}

impl Reader for Trees {
    fn wants(&self, kind: Kind) -> bool {
        kind == Kind::Tree
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        if let Event::Tree { line } = event {
            self.0.line(line);
        }
    }
}

/// Keeps the driver's lines. A clone is the same log.
#[derive(Clone, Default)]
pub struct PrintLog(Rc<RefCell<Vec<String>>>);

impl PrintLog {
    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether the driver has printed nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first line at or after `from` that contains `text`.
    #[must_use]
    pub fn find(&self, from: usize, text: &str) -> Option<usize> {
        let lines = self.0.borrow();
        lines.iter().enumerate().skip(from).find(|(_, line)| line.contains(text)).map(|(index, _)| index)
    }

    /// All lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.borrow().clone()
    }
}

impl Reader for PrintLog {
    fn wants(&self, kind: Kind) -> bool {
        kind == Kind::Print
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        if let Event::Print { text } = event {
            self.0.borrow_mut().push(text.clone());
        }
    }

    fn save(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.len()))
    }

    fn restore(&mut self, saved: &dyn Any) {
        // A log only grows: what it held then are its first lines.
        if let Some(length) = saved.downcast_ref() {
            self.0.borrow_mut().truncate(*length);
        }
    }
}
