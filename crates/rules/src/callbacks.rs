//! Which routines each strand is in, as the events of their beginnings and returns tell it.
//!
//! *It does not* know a callback that the kernel could not make seen, as where there was no memory for it: its strand is then in what had called it.

use std::collections::BTreeMap;

use engine::StrandId;
use kernel::event::{Event, Role};

/// Routines that have begun and not returned, with the objects that they were called for: by strand, innermost last.
#[derive(Clone, Default)]
pub(crate) struct Callbacks {
    open: BTreeMap<StrandId, Vec<(Role, u64)>>,
}

impl Callbacks {
    /// A routine begins or returns, if the event is of that kind. An exception may have left those within it without an event.
    pub(crate) fn follow(&mut self, strand: StrandId, event: &Event) {
        match event {
            Event::Enter { role, object, .. } => self.open.entry(strand).or_default().push((*role, *object)),
            Event::Leave { role, .. } => {
                let open = self.open.entry(strand).or_default();
                if let Some(at) = open.iter().rposition(|(known, _)| known == role) {
                    open.truncate(at);
                }
            }
            _ => {}
        }
    }

    /// In how many routines a strand is.
    pub(crate) fn depth(&self, strand: StrandId) -> usize {
        self.open.get(&strand).map_or(0, Vec::len)
    }

    /// The routine that a strand runs.
    pub(crate) fn innermost(&self, strand: StrandId) -> Option<Role> {
        Some(self.open.get(&strand)?.last()?.0)
    }

    /// Whether a strand is in such a routine, however deep.
    pub(crate) fn is_in(&self, strand: StrandId, role: Role) -> bool {
        self.any(strand, |(known, _)| *known == role)
    }

    /// Whether a strand is in a routine that was called for this object, of one of these roles.
    pub(crate) fn is_in_one_for(&self, strand: StrandId, roles: &[Role], object: u64) -> bool {
        self.any(strand, |(role, known)| roles.contains(role) && *known == object)
    }

    fn any(&self, strand: StrandId, is: impl Fn(&(Role, u64)) -> bool) -> bool {
        self.open.get(&strand).is_some_and(|open| open.iter().any(is))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::{enter, leave};

    const ONE: StrandId = StrandId(1);

    #[test]
    fn a_strand_is_in_the_routines_that_have_not_returned() {
        let mut callbacks = Callbacks::default();
        callbacks.follow(ONE, &enter(Role::EvtIoRead, 7));
        callbacks.follow(ONE, &enter(Role::CustomDpc, 8));
        assert_eq!(callbacks.innermost(ONE), Some(Role::CustomDpc));
        assert!(callbacks.is_in(ONE, Role::EvtIoRead) && !callbacks.is_in(StrandId(2), Role::EvtIoRead));
        assert!(callbacks.is_in_one_for(ONE, &[Role::EvtIoWrite, Role::EvtIoRead], 7));
        assert!(!callbacks.is_in_one_for(ONE, &[Role::EvtIoRead], 8));
        callbacks.follow(ONE, &leave(Role::EvtIoRead));
        assert_eq!(callbacks.innermost(ONE), None, "an exception has left the DPC");
        callbacks.follow(ONE, &leave(Role::EvtIoRead));
        assert_eq!(callbacks.innermost(ONE), None);
    }
}
