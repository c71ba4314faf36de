//! Every event of a run in a lane of its own: one for each thread, each processor's interrupt routines and DPCs, each device.
//!
//! A long run is shown around what it is about: the events before a finding, and some behind it.

use std::collections::{BTreeMap, VecDeque};

use engine::StrandId;
use kernel::event::{Class, Event, Kind, Stamp};

use super::super::names::{bytes, export_name, request, status_text};
use super::super::{SymbolBook, words};

/// Events before a finding, or before the run's end, that are shown; what was before those is left out.
const BEFORE: usize = 2_000;
/// The same behind a finding.
const BEHIND: usize = 200;

/// Where an event stands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Track {
    /// A thread.
    Thread(StrandId),
    /// Interrupt routines and DPCs of a processor, and its scheduler.
    Processor(u32),
    /// A device, by its name; empty for accesses of which no name is known.
    Device(String),
    /// What devices signal by.
    Lines,
}

/// One event.
pub(super) struct Moment {
    pub(super) stamp: Stamp,
    pub(super) kind: Kind,
    pub(super) track: Track,
    /// In a few words,
    pub(super) text: String,
    /// and each of its fields.
    pub(super) fields: String,
}

/// What is shown: an event, or how many are left out here.
pub(super) enum Shown {
    Moment(Moment),
    LeftOut(usize),
}

/// The events of a run, as they come.
#[derive(Default)]
pub(super) struct Timeline {
    pub(super) shown: Vec<Shown>,
    /// Those of which it is not known yet whether they are shown, and how many were left out before them.
    recent: VecDeque<Moment>,
    left_out: usize,
    /// So many behind a finding are still to come.
    behind: usize,
    /// The names of threads, in the order in which they began.
    pub(super) threads: BTreeMap<StrandId, String>,
    /// Whether the routines that each strand is in, innermost last, belong to its processor.
    within: BTreeMap<StrandId, Vec<bool>>,
}

impl Timeline {
    /// Accesses are too many to be shown one by one.
    pub(super) fn wants(kind: Kind) -> bool {
        !matches!(kind, Kind::Access | Kind::StoreKept)
    }

    pub(super) fn event(&mut self, stamp: &Stamp, event: &Event, symbols: &SymbolBook) {
        if let Event::Thread { thread, name } = event {
            self.threads.insert(*thread, name.clone());
        }
        let entered = match event {
            Event::Enter { role, .. } => Some(matches!(role.class(), Class::Isr | Class::Dpc)),
            _ => None,
        };
        let within = self.within.entry(stamp.strand).or_default();
        within.extend(entered);
        let on_processor = stamp.strand == StrandId(0) || within.last().copied().unwrap_or_default();
        if matches!(event, Event::Leave { .. }) {
            within.pop();
        }
        let here = if on_processor { Track::Processor(stamp.processor) } else { Track::Thread(stamp.strand) };
        self.take(Moment {
            stamp: *stamp,
            kind: event.kind(),
            track: of_device(event).unwrap_or(here),
            text: in_words(event, symbols),
            fields: words::fields(event, symbols),
        });
    }

    fn take(&mut self, moment: Moment) {
        if moment.kind == Kind::Finding {
            self.end();
            self.shown.push(Shown::Moment(moment));
            self.behind = BEHIND;
        } else if let Some(left) = self.behind.checked_sub(1) {
            self.behind = left;
            self.shown.push(Shown::Moment(moment));
        } else {
            self.recent.push_back(moment);
            if self.recent.len() > BEFORE {
                self.recent.pop_front();
                self.left_out += 1;
            }
        }
    }

    /// Those before this are shown.
    pub(super) fn end(&mut self) {
        if self.left_out > 0 {
            self.shown.push(Shown::LeftOut(std::mem::take(&mut self.left_out)));
        }
        self.shown.extend(self.recent.drain(..).map(Shown::Moment));
    }
}

/// The lane of what a device does, or of what is done to it.
fn of_device(event: &Event) -> Option<Track> {
    Some(match event {
        Event::Device { register, .. } => {
            let name = register.as_ref().and_then(|register| register.split(' ').next());
            Track::Device(name.unwrap_or_default().to_owned())
        }
        Event::Combined { .. } => Track::Device(String::new()),
        Event::Transfer { device, .. } => Track::Device(device.clone()),
        Event::Line { .. } | Event::Message { .. } => Track::Lines,
        _ => return None,
    })
}

/// What people read of it: no addresses of objects, and names for numbers where there are any.
fn in_words(event: &Event, symbols: &SymbolBook) -> String {
    match event {
        Event::Call { export, caller, .. } => {
            format!("{} from {}", export_name(*export), symbols.describe(*caller))
        }
        Event::Return { export, value } => format!("{} = {value:#x}", export_name(*export)),
        Event::Enter { role, routine, .. } => format!("▶ {role} {}", symbols.describe(*routine)),
        Event::Leave { role, routine, value } => {
            format!("◀ {role} {} = {value:#x}", symbols.describe(*routine))
        }
        Event::Device { write, value, register, port, address, .. } => {
            let place = || format!("{} {address:#x}", if *port { "port" } else { "memory" });
            let register =
                register.as_ref().and_then(|register| Some(register.split_once(' ')?.1.to_owned()));
            let register = register.unwrap_or_else(place);
            if *write { format!("{register} ← {value:#x}") } else { format!("{register} → {value:#x}") }
        }
        Event::Transfer { bytes: count, write, address, .. } => {
            let (what, to) = if *write { ("writes", "to") } else { ("reads", "from") };
            format!("{what} {} {to} {address:#x}", bytes(*count))
        }
        Event::Line { line, asserted } => {
            format!("line {line} {}", if *asserted { "asserted" } else { "released" })
        }
        Event::Message { vector, connected, .. } => {
            format!("message, vector {vector:#x}{}", if *connected { "" } else { ": lost" })
        }
        Event::Interrupt { claimed, .. } => {
            (if *claimed { "TRUE: its own" } else { "FALSE: not its own" }).to_owned()
        }
        Event::DpcQueued { inserted, .. } => {
            (if *inserted { "queues a DPC" } else { "its DPC is queued already" }).to_owned()
        }
        Event::Irql { from, to } => format!("IRQL {from} → {to}"),
        Event::IrpSent { major, minor, .. } => format!("sends {}", request(*major, *minor)),
        Event::IrpCompleted { status, information, .. } => match information {
            0 => format!("completes: {}", status_text(*status)),
            count => format!("completes: {}, information {count:#x}", status_text(*status)),
        },
        Event::Request { .. } => words::request(event),
        Event::Answer { name, status, information, .. } => {
            format!("{name}: {}, {}", status_text(*status), bytes(*information))
        }
        Event::Print { text } => text.clone(),
        Event::Pnp { .. } => words::step(event),
        Event::Finding { rule, message } => format!("{rule}: {message}"),
        _ => words::fields(event, symbols),
    }
}
