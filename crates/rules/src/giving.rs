//! Which strands are inside a function of the framework that may give a handle out, as far as is known.
//!
//! That a function has returned is no event: it has when its strand calls another, or leaves the callback that called it.

use std::collections::BTreeMap;

use engine::StrandId;
use kernel::event::Event;

/// By strand, in how many routines each is that began inside that function.
#[derive(Clone, Default)]
pub(crate) struct Giving(BTreeMap<StrandId, u32>);

impl Giving {
    /// An event of this strand: where a routine came between, the function has not returned.
    pub(crate) fn follow(&mut self, strand: StrandId, event: &Event) {
        match (event, self.0.get_mut(&strand)) {
            (Event::Enter { .. }, Some(routines)) => *routines += 1,
            (Event::Leave { .. } | Event::Ddi { .. }, Some(0)) => drop(self.0.remove(&strand)),
            (Event::Leave { .. }, Some(routines)) => *routines -= 1,
            _ => {}
        }
    }

    /// A strand calls such a function.
    pub(crate) fn begin(&mut self, strand: StrandId) {
        self.0.entry(strand).or_default();
    }

    /// Whether a handle may be given out now.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.0.is_empty()
    }
}
