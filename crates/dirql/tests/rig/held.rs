//! Holds each story's machine to what dirql guarantees drivers: a breach ends the run as a fault of dirql's own, and fails the story even
//! if that does not look at how the run ended.

use std::any::Any;

use kernel::event::{Event, Judgement, Kind, Reader, Stamp};
use rules::Guarantees;

/// The reader, and what it has concluded.
#[derive(Default)]
pub(crate) struct Held {
    guarantees: Guarantees,
    concluded: Option<Judgement>,
}

impl Reader for Held {
    fn wants(&self, kind: Kind) -> bool {
        self.guarantees.wants(kind)
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        self.guarantees.event(stamp, event);
    }

    fn judges(&self) -> bool {
        true
    }

    fn judgement(&mut self) -> Option<Judgement> {
        let judgement = self.guarantees.judgement()?;
        self.concluded.get_or_insert_with(|| judgement.clone());
        Some(judgement)
    }

    fn conclusions(&mut self) -> Vec<Judgement> {
        let conclusions = self.guarantees.conclusions();
        self.concluded = self.concluded.take().or_else(|| conclusions.first().cloned());
        conclusions
    }

    fn save(&self) -> Option<Box<dyn Any>> {
        self.guarantees.save()
    }

    fn restore(&mut self, saved: &dyn Any) {
        self.guarantees.restore(saved);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        assert!(self.concluded.is_none() || std::thread::panicking(), "{:?}", self.concluded);
    }
}
