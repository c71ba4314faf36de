//! The flow as it happened, for people: requests, routines, register accesses, lines, interrupts, DPCs, completions, one
//! line each, with time, processor, IRQL, thread and the event's number, indented by nesting.
//!
//! A request is known by the number of the event with which it begins, an IRP by that with which it was first sent: so one of them can
//! be followed among many. Threads are named where they first do something.
//!
//! Nesting is by strand: what interrupts a thread stands indented below what that thread was in. Exports, pool and
//! switches are left to the sums at the end and to JSON. A kind that is asked for by its name and has no words here (`call`, `access`) is shown by its
//! fields.

use std::collections::BTreeMap;

use engine::StrandId;
use kernel::event::{Class, Event, Kind, Reader, Role, Stamp};

use super::digits::{column, padded};
use super::names::{bytes, request, status_text};
use super::repeats::{Fate, Repeats};
use super::{Sink, SymbolBook, traced, wmi_shown, words};

/// Lines of the data of a WMI answer.
const DATA_LINES: usize = 4;
/// What stands above the first line.
const HEADING: &str = "     time µs  cpu irql thread   event  what happened";
/// Register accesses in a row that are shown one by one; of more, only the last.
const ACCESSES: u32 = 12;

/// Writes the flow.
pub struct Flow {
    out: Sink,
    symbols: SymbolBook,
    begun: bool,
    /// The requests (true) and routines (false) each strand is in, innermost last.
    frames: BTreeMap<StrandId, Vec<bool>>,
    /// What threads are called that have not done anything yet.
    threads: BTreeMap<StrandId, String>,
    /// An IRP on its way to a dispatch routine: its line is joined with the routine's. One that no routine of a driver
    /// ever sees, because the bus answers it, is not shown.
    sent: Option<(Stamp, u64, String)>,
    /// What each IRP under way asks for, and whether its `Information` is a number of bytes.
    requests: BTreeMap<u64, (String, bool)>,
    /// Register accesses since the last line of another kind, and the last one that was not shown.
    accesses: u32,
    unshown: Option<(Stamp, String)>,
    /// Lines that come again and again, and when the last one did that was not shown.
    repeats: Repeats,
    last: Option<Stamp>,
    /// Of these kinds only, if there is a list: those that have no words of their own by their fields.
    kinds: Option<Vec<Kind>>,
    /// What a line is put together in.
    text: String,
}

impl Flow {
    /// Lines go to `out`; routines get their names from `symbols`.
    #[must_use]
    pub fn new(out: Sink, symbols: SymbolBook) -> Self {
        Self {
            out,
            symbols,
            begun: false,
            frames: BTreeMap::new(),
            threads: BTreeMap::new(),
            sent: None,
            requests: BTreeMap::new(),
            accesses: 0,
            unshown: None,
            repeats: Repeats::default(),
            last: None,
            kinds: None,
            text: String::new(),
        }
    }

    /// Only events of these kinds, details among them.
    #[must_use]
    pub fn of(mut self, kinds: Vec<Kind>) -> Self {
        self.kinds = Some(kinds);
        self
    }

    fn has_asked(&self, kind: Kind) -> bool {
        self.kinds.as_ref().is_some_and(|kinds| kinds.contains(&kind))
    }

    fn line(&mut self, stamp: &Stamp, text: &str) {
        if !self.begun {
            self.begun = true;
            self.out.line(HEADING);
        }
        if let Some(name) = self.threads.remove(&stamp.strand) {
            self.put(stamp, 0, &format!("thread {} is {name}", stamp.strand.0));
        }
        let depth = self.frames.get(&stamp.strand).map_or(0, Vec::len);
        match self.repeats.look(text) {
            Fate::Hidden => self.last = Some(*stamp),
            Fate::Shown(hidden) => {
                self.tell_hidden(hidden);
                self.put(stamp, depth, text);
            }
        }
    }

    /// Lines that were passed over, up to the last of them.
    fn tell_hidden(&mut self, hidden: u64) {
        if let Some(last) = self.last.take().filter(|_| hidden > 0) {
            self.put(&last, 0, &format!("… {hidden} more lines like these (--json has them all)"));
        }
    }

    fn put(&mut self, stamp: &Stamp, depth: usize, text: &str) {
        if self.out.is_full() {
            return;
        }
        let to = &mut self.text;
        to.clear();
        column(to, stamp.time / 1000, 8);
        to.push('.');
        padded(to, stamp.time % 1000, 3);
        to.push(' ');
        let Stamp { number, processor, irql, strand, .. } = *stamp;
        for (value, width) in [(processor.into(), 3), (irql.into(), 4), (strand.0.into(), 6), (number, 7)] {
            to.push(' ');
            column(to, value, width);
        }
        to.push_str("  ");
        to.extend((0..2 * depth).map(|_| ' '));
        to.push_str(text);
        self.out.line(to);
    }

    fn deeper(&mut self, strand: StrandId, request: bool) {
        self.frames.entry(strand).or_default().push(request);
    }

    /// The strand leaves its innermost frame; whether that was a request's (or, if not, a routine's).
    fn back(&mut self, strand: StrandId, request: bool) -> bool {
        let frames = self.frames.entry(strand).or_default();
        let fits = frames.last() == Some(&request);
        if fits {
            frames.pop();
        }
        fits
    }

    fn access(&mut self, stamp: &Stamp, text: String) {
        self.accesses += 1;
        if self.accesses <= ACCESSES {
            self.line(stamp, &text);
        } else {
            self.unshown = Some((*stamp, text));
        }
    }

    /// Tells how many accesses were passed over, and the last of them.
    fn end_of_accesses(&mut self) {
        let hidden = self.accesses.saturating_sub(ACCESSES);
        self.accesses = 0;
        if let Some((stamp, text)) = self.unshown.take() {
            if hidden > 1 {
                self.line(&stamp, &format!("… {} more register accesses", hidden - 1));
            }
            self.line(&stamp, &text);
        }
    }

    fn flush_sent(&mut self) {
        if let Some((stamp, _, text)) = self.sent.take() {
            self.line(&stamp, &format!("{text} sent"));
        }
    }

    fn enter(&mut self, stamp: &Stamp, role: Role, routine: u64) {
        let name = self.symbols.describe(routine);
        let dispatch = role.is(Class::Dispatch);
        let asked = match self.sent.take() {
            Some((_, _, text)) if dispatch => format!("  ({text})"),
            Some(sent) => {
                self.sent = Some(sent);
                self.flush_sent();
                String::new()
            }
            None => String::new(),
        };
        self.line(stamp, &format!("{role} {name}{asked}"));
        self.deeper(stamp.strand, false);
    }

    fn leave(&mut self, stamp: &Stamp, role: Role, value: u64) {
        let status = u32::try_from(value & 0xFFFF_FFFF).unwrap_or(u32::MAX);
        if role.is(Class::Dispatch)
            || matches!(role, Role::DriverEntry | Role::AddDevice | Role::DllInitialize)
        {
            self.line(stamp, &format!("→ {}", status_text(status)));
        }
        self.back(stamp.strand, false);
    }

    fn completed(&mut self, stamp: &Stamp, (irp, id): (u64, Option<u64>), status: u32, information: u64) {
        let (what, counts) = self.requests.get(&irp).cloned().unwrap_or_else(|| ("IRP".to_owned(), true));
        let moved =
            if counts && information != 0 { format!(", {}", bytes(information)) } else { String::new() };
        let id = id.map_or_else(String::new, |id| format!("  (IRP {id})"));
        self.line(stamp, &format!("{what} completed: {}{moved}{id}", status_text(status)));
    }

    fn requests_and_routines(&mut self, stamp: &Stamp, event: &Event) {
        match event {
            Event::Request { .. } => {
                self.line(stamp, &words::request(event));
                self.deeper(stamp.strand, true);
            }
            Event::Answer { request, name, status, information } => {
                // One that was pending ends wherever it is completed: in a DPC, on another thread.
                let ends = if self.back(stamp.strand, true) { "returns" } else { "ends:" };
                let moved =
                    if *information == 0 { String::new() } else { format!(", {}", bytes(*information)) };
                let text = format!("{name} {ends} {}{moved}  (request {request})", status_text(*status));
                self.line(stamp, &text);
            }
            Event::IrpSent { irp, id, request: of, major, minor, .. } => {
                let what = request(*major, *minor);
                let of = of.map_or_else(String::new, |of| format!(" of request {of}"));
                let text = format!("{what}, IRP {id}{of}");
                self.requests.insert(*irp, (what, !matches!(*major, 0x1B | 0x16)));
                self.sent = Some((*stamp, *irp, text));
            }
            Event::IrpCompleted { irp, id, status, information } => {
                self.completed(stamp, (*irp, *id), *status, *information);
            }
            Event::Enter { role, routine, .. } => self.enter(stamp, *role, *routine),
            Event::Leave { role, value, .. } => self.leave(stamp, *role, *value),
            _ => self.hardware_and_words(stamp, event),
        }
    }

    fn hardware_and_words(&mut self, stamp: &Stamp, event: &Event) {
        let text = match event {
            Event::Line { line, asserted: true } => format!("interrupt line {line} asserted"),
            Event::Line { line, asserted: false } => format!("interrupt line {line} released"),
            Event::Transfer { device, address, bytes, write: true } => {
                format!("{device} writes {bytes} bytes to memory at {address:#x}")
            }
            Event::Transfer { device, address, bytes, write: false } => {
                format!("{device} reads {bytes} bytes from memory at {address:#x}")
            }
            Event::Message { vector, connected: true, .. } => format!("message for vector {vector:#x}"),
            Event::Message { vector, connected: false, .. } => {
                format!("message for vector {vector:#x}, which is not connected: lost")
            }
            Event::Interrupt { claimed: true, .. } => "interrupt claimed".to_owned(),
            Event::Interrupt { claimed: false, .. } => "interrupt not claimed".to_owned(),
            Event::Connection { vector, level, made: true, .. } => {
                format!("interrupt connected to vector {vector:#x}, its routine at IRQL {level}")
            }
            Event::Connection { vector, made: false, .. } => {
                format!("interrupt disconnected from vector {vector:#x}")
            }
            Event::DpcRemoved { .. } => "DPC removed from its queue".to_owned(),
            Event::DpcQueued { inserted: true, .. } => "DPC queued".to_owned(),
            Event::DpcQueued { inserted: false, .. } => "DPC queued already".to_owned(),
            Event::Print { text } => format!("│ {text}"),
            Event::Traced { .. } | Event::TraceMessage { .. } => match traced::line(event, &self.symbols) {
                Some(text) => text,
                None => return,
            },
            Event::ErrorLog { source, code, status, .. } => {
                format!("error log: {source}, code {code:#010x}, {}", status_text(*status))
            }
            Event::Image { name, base, loaded: true } => format!("{name} loaded at {base:#x}"),
            Event::Image { name, loaded: false, .. } => format!("{name} unloaded"),
            Event::Pnp { .. } => format!("PnP: {}", words::step(event)),
            Event::Tree { line } => format!("┆ {line}"),
            Event::WmiBlock { .. } | Event::WmiAnswer { .. } | Event::WmiEvent { .. } => {
                wmi_shown::lines(event, DATA_LINES)
                    .iter()
                    .for_each(|line| self.line(stamp, &format!("┆ {line}")));
                return;
            }
            Event::Resources { resources, .. } => format!("resources: {resources}"),
            Event::Exception { code, address } => {
                format!("exception {} at {address:#x}", status_text(*code))
            }
            Event::Unwound { to, .. } => format!("exception handled: on at {to:#x}"),
            Event::Finding { rule, message } => format!("! {rule}: {message}"),
            _ if self.has_asked(event.kind()) => words::fields(event, &self.symbols),
            _ => return,
        };
        self.line(stamp, &text);
    }
}

fn access_text(event: &Event) -> Option<String> {
    if let Event::Combined { address, bytes, value } = event {
        let digits = usize::from(*bytes).min(8) * 2;
        return Some(format!("store memory {address:#x} ← {value:0digits$x}, to be combined"));
    }
    let Event::Device { port, address, bytes, write, value, register } = event else { return None };
    let place = register.clone().unwrap_or_else(|| {
        let space = if *port { "port" } else { "memory" };
        format!("{space} {address:#x}")
    });
    let digits = usize::from(*bytes).min(8) * 2;
    Some(match write {
        true => format!("write {place} ← {value:0digits$x}"),
        false => format!("read  {place} → {value:0digits$x}"),
    })
}

impl Reader for Flow {
    fn wants(&self, kind: Kind) -> bool {
        if self.kinds.is_some() {
            return self.has_asked(kind);
        }
        !matches!(
            kind,
            Kind::Call
                | Kind::Return
                | Kind::Irql
                | Kind::Allocated
                | Kind::Freed
                | Kind::Switch
                | Kind::Wait
                | Kind::Woken
        )
    }

    fn wants_detail(&self, kind: Kind) -> bool {
        self.has_asked(kind)
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        if let Event::Thread { thread, name } = event {
            self.threads.insert(*thread, name.clone());
            return;
        }
        if let Some(text) = access_text(event) {
            self.flush_sent();
            self.access(stamp, text);
            return;
        }
        self.end_of_accesses();
        match (event, &self.sent) {
            (Event::Enter { .. }, _) => {}
            (Event::IrpCompleted { irp, .. }, Some((_, sent, _))) if irp == sent => {
                self.sent = None;
                return;
            }
            _ => self.flush_sent(),
        }
        self.requests_and_routines(stamp, event);
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.end_of_accesses();
        self.flush_sent();
        let hidden = self.repeats.rest();
        self.tell_hidden(hidden);
    }
}
