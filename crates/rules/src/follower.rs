//! What judges of drivers share that follow events: what follows, and the reader that asks it.

use std::any::Any;

use kernel::event::{Event, Judgement, Kind, Reader, Stamp};
use kernel::verdict::Verdict;

/// Follows events to what a driver does wrong. A copy of it is its whole state.
pub(crate) trait Follower: Clone + 'static {
    /// It follows what clients of a driver framework do, and nothing else.
    const OF_FRAMEWORK: bool = false;
    /// Whether it follows events of this kind.
    fn wants(kind: Kind) -> bool;
    /// An event of such a kind happens.
    fn follow(&mut self, stamp: &Stamp, event: &Event);
    /// Whether the event that it has just followed shows something.
    fn shows(&self) -> bool;
    /// What that is, once.
    fn found(&mut self) -> Option<Verdict>;
}

/// The reader that asks it.
pub(crate) struct Following<F>(pub(crate) F);

impl<F: Follower> Reader for Following<F> {
    fn wants(&self, kind: Kind) -> bool {
        F::wants(kind)
    }

    fn reads_names(&self) -> bool {
        false
    }

    fn is_of_framework(&self) -> bool {
        F::OF_FRAMEWORK
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        self.0.follow(stamp, event);
    }

    fn event_shows(&mut self, stamp: &Stamp, event: &Event) -> bool {
        self.0.follow(stamp, event);
        self.0.shows()
    }

    fn judges(&self) -> bool {
        true
    }

    fn judgement(&mut self) -> Option<Judgement> {
        Some(Judgement::Finding(Box::new(self.0.found()?)))
    }

    fn save(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.0.clone()))
    }

    fn restore(&mut self, saved: &dyn Any) {
        self.0.clone_from(saved.downcast_ref().expect("it gave its state"));
    }
}
