//! The figure of a run: who calls whom, from the application's request through dispatch routine, device, interrupt routine and
//! DPC to its end, drawn as it happened, as text or as SVG; or as a page that has every event besides.
//!
//! Each row is one step, in the lane of its thread, routine or device; an arrow leads from a step's cause to the step: a request to its
//! dispatch routine, a line or message to the interrupt routine, a queued DPC to its run, a completion to the application. It
//! begins with the first request and ends with the last answer or verdict; register accesses in a row are one step.

mod page;
mod svg;
mod text;
mod timeline;

use std::collections::BTreeMap;

use engine::StrandId;
use kernel::event::{Class, Event, Kind, Reader, Role, Stamp};

use super::names::{bytes, status_text};
use super::{Sink, SymbolBook, words};
use timeline::Timeline;

/// Steps that are drawn; a figure with more is unreadable.
const MOST_ROWS: usize = 400;

/// Who takes a step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Lane {
    Application,
    Driver,
    Device,
    Interrupt,
    Dpc,
}

impl Lane {
    const ALL: [Self; 5] = [Self::Application, Self::Driver, Self::Device, Self::Interrupt, Self::Dpc];

    const fn title(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Driver => "driver, in a thread",
            Self::Device => "device",
            Self::Interrupt => "interrupt routine",
            Self::Dpc => "DPC",
        }
    }

    /// Where a routine of this role stands.
    fn of_role(role: Role) -> Self {
        match role.class() {
            Class::Isr | Class::PassiveIsr => Self::Interrupt,
            Class::Dpc | Class::ThreadedDpc => Self::Dpc,
            _ => Self::Driver,
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// A step: where it was taken, and what caused it.
struct Row {
    stamp: Stamp,
    lane: Lane,
    text: String,
    cause: Option<(Lane, String)>,
}

impl Row {
    /// A broken rule, or another finding.
    fn is_verdict(&self) -> bool {
        self.text.starts_with(VERDICT)
    }
}

/// Before the rule of a verdict or finding.
const VERDICT: &str = "✗ ";

/// As what a figure is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FigureForm {
    /// Lines of text, lanes beside each other.
    Text,
    /// A picture.
    Svg,
    /// A page with the picture, and every event in a lane of its thread, processor or device.
    Page,
}

/// Draws the figure when the machine has ended.
pub struct Figure {
    out: Sink,
    form: FigureForm,
    symbols: SymbolBook,
    begun: bool,
    rows: Vec<Row>,
    left_out: usize,
    /// The lanes of the routines each strand is in, innermost last.
    within: BTreeMap<StrandId, Vec<Lane>>,
    /// What is to cause the next step of a lane.
    causes: BTreeMap<Lane, (Stamp, Lane, String)>,
    accesses: Option<Accesses>,
    /// The request that an IRP is for, by the IRP's number.
    irps: BTreeMap<u64, u64>,
    /// Requests whose IRP is completed, and that are not answered yet.
    completions: BTreeMap<u64, (Stamp, Lane, String)>,
    /// For a page.
    timeline: Option<Timeline>,
}

/// Accesses to a device in a row, from one lane.
struct Accesses {
    stamp: Stamp,
    lane: Lane,
    reads: u32,
    writes: u32,
    /// The last one's register.
    what: String,
}

impl Figure {
    /// Written to `out` when this is dropped; routines get their names from `symbols`.
    #[must_use]
    pub fn new(out: Sink, form: FigureForm, symbols: SymbolBook) -> Self {
        Self {
            out,
            form,
            symbols,
            begun: false,
            rows: Vec::new(),
            left_out: 0,
            within: BTreeMap::new(),
            causes: BTreeMap::new(),
            accesses: None,
            irps: BTreeMap::new(),
            completions: BTreeMap::new(),
            timeline: (form == FigureForm::Page).then(Timeline::default),
        }
    }

    fn lane(&self, strand: StrandId) -> Lane {
        self.within.get(&strand).and_then(|lanes| lanes.last()).copied().unwrap_or(Lane::Application)
    }

    fn row(&mut self, row: Row) {
        if self.rows.len() < MOST_ROWS {
            self.rows.push(row);
        } else {
            self.left_out += 1;
        }
    }

    /// A step that nothing is shown to have caused.
    fn step(&mut self, stamp: &Stamp, lane: Lane, text: String) {
        self.row(Row { stamp: *stamp, lane, text, cause: None });
    }

    /// What will cause the next step of `to`; what was to cause it before stands alone.
    fn cause(&mut self, stamp: &Stamp, lane: Lane, text: String, to: Lane) {
        if let Some((stamp, lane, text)) = self.causes.insert(to, (*stamp, lane, text)) {
            self.step(&stamp, lane, text);
        }
    }

    /// A step, with its cause if there is one.
    fn effect(&mut self, stamp: &Stamp, lane: Lane, text: String) {
        let cause = self.causes.remove(&lane).map(|(_, lane, text)| (lane, text));
        self.row(Row { stamp: *stamp, lane, text, cause });
    }

    /// A request is answered: what completed it is the cause, however many a DPC completes before the first is answered.
    fn answer(&mut self, stamp: &Stamp, request: u64, text: String) {
        let cause = self.completions.remove(&request).map(|(_, lane, text)| (lane, text));
        self.row(Row { stamp: *stamp, lane: Lane::Application, text, cause });
    }

    /// An IRP is completed, in `lane`: a step of its own, unless it is an application's request that is answered next.
    fn completed(&mut self, stamp: &Stamp, lane: Lane, id: Option<u64>, text: String) {
        let Some(request) = id.and_then(|id| self.irps.get(&id).copied()) else {
            return self.step(stamp, lane, text);
        };
        if let Some((stamp, lane, text)) = self.completions.insert(request, (*stamp, lane, text)) {
            self.step(&stamp, lane, text);
        }
    }

    fn access(&mut self, stamp: &Stamp, write: bool, what: String) {
        let lane = self.lane(stamp.strand);
        let same = |accesses: &Accesses| accesses.lane == lane && accesses.stamp.strand == stamp.strand;
        if !self.accesses.as_ref().is_some_and(same) {
            self.end_of_accesses();
        }
        let accesses = self.accesses.get_or_insert(Accesses {
            stamp: *stamp,
            lane,
            reads: 0,
            writes: 0,
            what: String::new(),
        });
        *(if write { &mut accesses.writes } else { &mut accesses.reads }) += 1;
        accesses.what = what;
    }

    fn end_of_accesses(&mut self) {
        let Some(Accesses { stamp, lane, reads, writes, what }) = self.accesses.take() else { return };
        let count = |count: u32, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what}")),
            count => Some(format!("{count} {what}s")),
        };
        let counts: Vec<String> =
            [count(reads, "read"), count(writes, "write")].into_iter().flatten().collect();
        self.row(Row { stamp, lane: Lane::Device, text: what, cause: Some((lane, counts.join(", "))) });
    }

    fn take(&mut self, stamp: &Stamp, event: &Event) {
        let here = self.lane(stamp.strand);
        match event {
            Event::Request { .. } => {
                self.cause(stamp, Lane::Application, words::request(event), Lane::Driver);
            }
            Event::IrpSent { id, request: Some(request), .. } => {
                self.irps.insert(*id, *request);
            }
            Event::Finding { rule, .. } => self.step(stamp, here, format!("{VERDICT}{rule}")),
            Event::Answer { request, name, status, information } => {
                let moved =
                    if *information == 0 { String::new() } else { format!(", {}", bytes(*information)) };
                self.answer(stamp, *request, format!("{name}: {}{moved}", status_text(*status)));
            }
            Event::Enter { role, routine, .. } => {
                let lane = match (Lane::of_role(*role), here) {
                    // What a DPC or an interrupt routine has called back runs there.
                    (Lane::Driver, Lane::Dpc | Lane::Interrupt) => here,
                    (lane, _) => lane,
                };
                let name = format!("{role} {}", self.symbols.describe(*routine));
                self.effect(stamp, lane, name);
                self.within.entry(stamp.strand).or_default().push(lane);
            }
            Event::Leave { .. } => {
                self.within.entry(stamp.strand).or_default().pop();
            }
            Event::Line { line, asserted: true } => {
                self.cause(stamp, Lane::Device, format!("line {line} asserted"), Lane::Interrupt);
            }
            Event::Line { line, .. } => self.step(stamp, Lane::Device, format!("line {line} released")),
            Event::Message { vector, connected: true, .. } => {
                self.cause(stamp, Lane::Device, format!("message, vector {vector:#x}"), Lane::Interrupt);
            }
            Event::Message { vector, .. } => {
                self.step(stamp, Lane::Device, format!("message, vector {vector:#x}: lost"));
            }
            Event::Interrupt { claimed, .. } => {
                let answer = if *claimed { "TRUE: its own" } else { "FALSE: not its own" };
                self.step(stamp, Lane::Interrupt, answer.to_owned());
            }
            Event::DpcQueued { inserted: true, .. } => {
                self.cause(stamp, here, "queues a DPC".to_owned(), Lane::Dpc);
            }
            Event::DpcQueued { .. } => self.step(stamp, here, "its DPC is queued already".to_owned()),
            Event::IrpCompleted { id, status, .. } => {
                self.completed(stamp, here, *id, format!("completes: {}", status_text(*status)));
            }
            _ => {}
        }
    }
}

/// Whether such events are steps of the story.
const fn is_of_the_story(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Request
            | Kind::Answer
            | Kind::Enter
            | Kind::Leave
            | Kind::Device
            | Kind::Line
            | Kind::Message
            | Kind::Interrupt
            | Kind::DpcQueued
            | Kind::IrpSent
            | Kind::IrpCompleted
            | Kind::Finding
    )
}

impl Reader for Figure {
    fn wants(&self, kind: Kind) -> bool {
        is_of_the_story(kind) || self.timeline.is_some() && Timeline::wants(kind)
    }

    fn wants_detail(&self, kind: Kind) -> bool {
        self.timeline.is_some() && Timeline::wants(kind)
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        if let Some(timeline) = &mut self.timeline {
            timeline.event(stamp, event, &self.symbols);
        }
        if !is_of_the_story(event.kind()) {
            return;
        }
        self.begun |= matches!(event, Event::Request { .. });
        if !self.begun {
            return;
        }
        if let Event::Device { write, register, port, address, .. } = event {
            let space = if *port { "port" } else { "memory" };
            let what = register.clone().unwrap_or_else(|| format!("{space} {address:#x}"));
            self.access(stamp, *write, what);
            return;
        }
        self.end_of_accesses();
        self.take(stamp, event);
    }
}

impl Drop for Figure {
    fn drop(&mut self) {
        self.end_of_accesses();
        let left = std::mem::take(&mut self.causes).into_values();
        for (stamp, lane, text) in left.chain(std::mem::take(&mut self.completions).into_values()) {
            self.step(&stamp, lane, text);
        }
        // What was displaced stands where it happened; what follows the last answer is the machine's end.
        self.rows.sort_by_key(|row| row.stamp.time);
        if let Some(last) =
            self.rows.iter().rposition(|row| row.lane == Lane::Application || row.is_verdict())
        {
            self.rows.truncate(last + 1);
        }
        let lines = match self.form {
            FigureForm::Text => text::lines(&self.rows, self.left_out),
            FigureForm::Svg => svg::lines(&self.rows, self.left_out),
            FigureForm::Page => {
                let mut timeline = self.timeline.take().unwrap_or_default();
                timeline.end();
                page::lines(svg::lines(&self.rows, self.left_out), &timeline)
            }
        };
        for line in lines {
            self.out.line(&line);
        }
    }
}

/// `text`, cut to so many letters.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}
