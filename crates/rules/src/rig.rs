//! Events for the tests of judges.

use engine::StrandId;
use kernel::event::{Event, Judgement, Reader, Role, Stamp};
use kernel::exports;

/// A client calls this function of its framework, of an object, with one more argument.
pub(crate) fn call(name: &str, object: u64, more: u64) -> Event {
    let is_named = |number: &u32| exports::row(*number).is_some_and(|row| row.name == name);
    let export = (0..10_000).find(is_named).unwrap_or_else(|| panic!("{name} is no function"));
    Event::Ddi { export, arguments: [0, object, more, 0], caller: 0 }
}

/// A routine begins, for this object.
pub(crate) fn enter(role: Role, object: u64) -> Event {
    Event::Enter { role, routine: 0, object }
}

/// A routine returns.
pub(crate) fn leave(role: Role) -> Event {
    Event::Leave { role, routine: 0, value: 0 }
}

/// What a judge says after events, each on its strand: the first that it finds, which must come with the last.
pub(crate) fn said(judge: &mut dyn Reader, events: impl IntoIterator<Item = (u32, Event)>) -> Option<String> {
    let mut found = None;
    for (number, (strand, event)) in (0..).zip(events) {
        assert!(found.is_none(), "something was found before: {found:?}");
        judge.event(&Stamp { number, time: number, processor: 0, irql: 0, strand: StrandId(strand) }, &event);
        found = judge.judgement().map(|judgement| match judgement {
            Judgement::Finding(verdict) => verdict.message,
            _ => panic!("it is about a driver"),
        });
    }
    found
}
