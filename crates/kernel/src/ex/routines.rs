//! Lists of drivers' routines that the system calls when something happens: callback objects, and notify routines for processes,
//! threads and images.
//!
//! A routine that is taken off the list is not called any more, and the caller that takes it off waits until no call of it is under way:
//! then what it uses may be freed.

use abi::{Code, DriverPtr};
use engine::{Flow, StrandId};

use crate::cx::{Cx, Kernel};
use crate::ke::{irql, wait};

/// A routine, with its driver's context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Routine {
    pub(crate) code: DriverPtr<Code>,
    pub(crate) context: u64,
}

struct Entry {
    /// What its driver knows it by.
    id: u64,
    /// Which of all that were ever on the list: one that is taken off may be put on again while it runs.
    serial: u64,
    routine: Routine,
    /// How many calls of it are under way, or are to follow those that were ([`keep`]).
    running: u32,
    /// The thread that waits until there is none: the routine is off the list.
    remover: Option<StrandId>,
}

/// Routines, in the order in which they are called.
#[derive(Default)]
pub(crate) struct Routines {
    entries: Vec<Entry>,
    last_serial: u64,
}

/// How a list is found, each time anew: what is called may change it.
pub(crate) trait List: Fn(&mut Kernel) -> Option<&mut Routines> {}
impl<F: Fn(&mut Kernel) -> Option<&mut Routines>> List for F {}

impl Routines {
    fn on(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.remover.is_none())
    }

    pub(crate) fn len(&self) -> usize {
        self.on().count()
    }

    pub(crate) fn has(&self, id: u64) -> bool {
        self.on().any(|entry| entry.id == id)
    }

    /// The code of all that are on the list.
    pub(crate) fn code(&self) -> impl Iterator<Item = DriverPtr<Code>> {
        self.on().map(|entry| entry.routine.code)
    }

    /// The contexts of all that are on the list.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = u64> {
        self.on().map(|entry| entry.routine.context)
    }

    /// Puts one at the end; its serial.
    pub(crate) fn add(&mut self, id: u64, routine: Routine) -> u64 {
        self.add_before(id, routine, |_| false)
    }

    /// Puts one before the first of those for which `is_behind` says, by what their drivers know them by, that they come later; its serial.
    pub(crate) fn add_before(&mut self, id: u64, routine: Routine, is_behind: impl Fn(u64) -> bool) -> u64 {
        self.last_serial += 1;
        let at = self.entries.iter().position(|entry| is_behind(entry.id)).unwrap_or(self.entries.len());
        let entry = Entry { id, serial: self.last_serial, routine, running: 0, remover: None };
        self.entries.insert(at, entry);
        self.last_serial
    }

    /// The routine that its driver knows by `id`.
    pub(crate) fn get(&self, id: u64) -> Option<Routine> {
        self.on().find(|entry| entry.id == id).map(|entry| entry.routine)
    }

    fn begin(&mut self, serial: u64) -> Option<(u64, Routine)> {
        let entry =
            self.entries.iter_mut().find(|entry| entry.serial == serial && entry.remover.is_none())?;
        entry.running += 1;
        Some((entry.id, entry.routine))
    }

    /// The one with this serial, on the list or not.
    fn find(&mut self, serial: u64) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.serial == serial)
    }

    /// A call is over; returns the thread that waits for that.
    fn end(&mut self, serial: u64) -> Option<StrandId> {
        let index = self.entries.iter().position(|entry| entry.serial == serial)?;
        let entry = &mut self.entries[index];
        entry.running -= 1;
        let remover = entry.remover.filter(|_| entry.running == 0);
        if remover.is_some() {
            self.entries.remove(index);
        }
        remover
    }

    /// Takes one off: none if it is not there; else whether `strand` has to wait for its calls.
    fn take(&mut self, id: u64, strand: StrandId) -> Option<bool> {
        let index = self.entries.iter().position(|entry| entry.id == id && entry.remover.is_none())?;
        if self.entries[index].running == 0 {
            self.entries.remove(index);
            return Some(false);
        }
        self.entries[index].remover = Some(strand);
        Some(true)
    }
}

/// The routines that are on the list now, in their order, by their serials.
pub(crate) fn all(cx: &mut Cx<'_>, list: &impl List) -> Vec<u64> {
    let all: Option<Vec<u64>> = cx.with(|k| Some(list(k)?.on().map(|entry| entry.serial).collect()));
    all.unwrap_or_default()
}

/// Has `call` call the one with this serial, given what its driver knows it by; none if it was taken off meanwhile.
///
/// # Errors
/// Whatever the routine comes to.
pub(crate) fn call_one<R>(
    cx: &mut Cx<'_>,
    list: &impl List,
    serial: u64,
    call: impl FnOnce(&mut Cx<'_>, u64, Routine) -> Flow<R>,
) -> Flow<Option<R>> {
    let Some((id, routine)) = cx.with(|k| list(k)?.begin(serial)) else { return Ok(None) };
    let called = call(cx, id, routine);
    ended(cx, list, serial);
    let called = called?;
    irql::settle(cx)?;
    Ok(Some(called))
}

/// While the one with this serial is called: another call of it will follow, [`call_kept`], which is waited for when it is taken off.
pub(crate) fn keep(cx: &mut Cx<'_>, list: &impl List, serial: u64) {
    cx.with(|k| {
        if let Some(entry) = list(k).and_then(|list| list.find(serial)) {
            entry.running += 1;
        }
    });
}

/// Has `call` call one that was kept, though it was taken off meanwhile.
///
/// # Errors
/// Whatever the routine comes to.
pub(crate) fn call_kept(
    cx: &mut Cx<'_>,
    list: &impl List,
    serial: u64,
    call: impl FnOnce(&mut Cx<'_>, u64, Routine) -> Flow<()>,
) -> Flow<()> {
    let kept = cx.with(|k| list(k)?.find(serial).map(|entry| (entry.id, entry.routine)));
    let Some((id, routine)) = kept else { return Ok(()) };
    let called = call(cx, id, routine);
    ended(cx, list, serial);
    called?;
    irql::settle(cx)
}

fn ended(cx: &mut Cx<'_>, list: &impl List, serial: u64) {
    cx.with(|k| {
        if let Some(strand) = list(k).and_then(|list| list.end(serial)) {
            wait::grant(k, strand);
        }
    });
}

/// Has `call` call each routine that is on the list now, in its order; one that is taken off meanwhile is not called any more.
///
/// # Errors
/// Whatever a routine comes to.
pub(crate) fn call_all(
    cx: &mut Cx<'_>,
    list: impl List,
    mut call: impl FnMut(&mut Cx<'_>, Routine) -> Flow<()>,
) -> Flow<()> {
    for serial in all(cx, &list) {
        call_one(cx, &list, serial, |cx, _, routine| call(cx, routine))?;
    }
    Ok(())
}

/// Takes a routine off the list and waits until no call of it is under way; false if it is not there.
///
/// # Errors
/// A verdict if the caller may not wait for the routine.
pub(crate) fn remove(cx: &mut Cx<'_>, list: impl List, id: u64, ddi: &str) -> Flow<bool> {
    let taken = cx.with(|k| {
        let strand = k.ke.processor().thread;
        list(k)?.take(id, strand)
    });
    if taken == Some(true) {
        wait::for_grant(cx, id, ddi)?;
    }
    Ok(taken.is_some())
}
