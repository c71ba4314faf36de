//! Events as JSON, one object a line, for programs.
//!
//! The field names are stable: `n` (number), `t` (ns), `cpu`, `irql`, `strand`, `event` (its kind in kebab case), then the
//! kind's own. Addresses are strings, `"0x…"`, because they do not fit the numbers of every JSON reader; counts, bytes and
//! codes are numbers.

use kernel::event::{Event, Kind, Reader, Stamp};

use super::names::{export_name, request, tag};
use super::{Sink, SymbolBook};

/// Writes each event as a line.
pub struct Json {
    out: Sink,
    symbols: SymbolBook,
}

impl Json {
    /// Lines go to `out`; routines get their names from `symbols`.
    #[must_use]
    pub fn new(out: Sink, symbols: SymbolBook) -> Self {
        Self { out, symbols }
    }
}

impl Reader for Json {
    fn wants(&self, _kind: Kind) -> bool {
        true
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        self.out.line(&line(stamp, event, Some(&self.symbols)));
    }
}

/// A JSON object while it is written.
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new() -> Self {
        Self("{".to_owned())
    }

    fn key(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    pub(crate) fn number(mut self, name: &str, value: impl Into<u64>) -> Self {
        self.key(name);
        self.0.push_str(&value.into().to_string());
        self
    }

    pub(crate) fn flag(mut self, name: &str, value: bool) -> Self {
        self.key(name);
        self.0.push_str(if value { "true" } else { "false" });
        self
    }

    pub(crate) fn address(mut self, name: &str, value: u64) -> Self {
        self.key(name);
        self.0.push_str(&format!("\"{value:#x}\""));
        self
    }

    pub(crate) fn text(mut self, name: &str, value: &str) -> Self {
        self.key(name);
        self.0.push_str(&serde_json::Value::from(value).to_string());
        self
    }

    pub(crate) fn optional(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// A value that is JSON already.
    pub(crate) fn raw(mut self, name: &str, value: &str) -> Self {
        self.key(name);
        self.0.push_str(value);
        self
    }

    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A JSON array of values that are JSON already.
pub(crate) fn array(values: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", values.into_iter().collect::<Vec<_>>().join(","))
}

/// One event as one line, without its end; `symbols` adds names to routines.
#[must_use]
pub fn line(stamp: &Stamp, event: &Event, symbols: Option<&SymbolBook>) -> String {
    let object = Object::new()
        .number("n", stamp.number)
        .number("t", stamp.time)
        .number("cpu", stamp.processor)
        .number("irql", stamp.irql)
        .number("strand", stamp.strand.0)
        .text("event", kind_name(event.kind()));
    fields(object, event, symbols).end()
}

fn named(object: Object, address: u64, symbols: Option<&SymbolBook>) -> Object {
    let name = symbols.and_then(|book| book.name(address));
    object.address("routine", address).optional("symbol", name.as_deref())
}

fn fields(object: Object, event: &Event, symbols: Option<&SymbolBook>) -> Object {
    match event {
        Event::Call { export, arguments, caller } => {
            let arguments = array(arguments.iter().map(|argument| format!("\"{argument:#x}\"")));
            let by = symbols.and_then(|book| book.name(*caller));
            let object = object.text("export", export_name(*export)).raw("arguments", &arguments);
            object.address("caller", *caller).optional("symbol", by.as_deref())
        }
        Event::Return { export, value } => {
            object.text("export", export_name(*export)).address("value", *value)
        }
        Event::Enter { role, routine, object: of } => {
            named(object.text("role", role), *routine, symbols).address("object", *of)
        }
        Event::Leave { role, routine, value } => {
            named(object.text("role", role), *routine, symbols).address("value", *value)
        }
        Event::Device { port, address, bytes, write, value, what } => object
            .flag("port", *port)
            .address("address", *address)
            .number("bytes", *bytes)
            .flag("write", *write)
            .address("value", *value)
            .optional("register", what.as_deref()),
        Event::Line { line, asserted } => object.number("line", *line).flag("asserted", *asserted),
        Event::Transfer { device, address, bytes, write } => object
            .text("device", device)
            .address("address", *address)
            .number("bytes", *bytes)
            .flag("write", *write),
        Event::Message { vector, address, data, connected } => object
            .number("vector", *vector)
            .address("address", *address)
            .number("data", *data)
            .flag("connected", *connected),
        Event::Interrupt { vector, object: of, claimed } => {
            object.number("vector", *vector).address("object", *of).flag("claimed", *claimed)
        }
        Event::Connection { object: of, vector, irql, made } => {
            object.number("vector", *vector).address("object", *of).number("level", *irql).flag("made", *made)
        }
        Event::DpcQueued { dpc, inserted } => object.address("dpc", *dpc).flag("inserted", *inserted),
        Event::DpcRemoved { dpc } => object.address("dpc", *dpc),
        Event::Irql { from, to } => object.number("from", *from).number("to", *to),
        _ => other_fields(object, event),
    }
}

fn other_fields(object: Object, event: &Event) -> Object {
    match event {
        Event::IrpSent { irp, device, major, minor } => object
            .address("irp", *irp)
            .address("device", *device)
            .number("major", *major)
            .number("minor", *minor)
            .text("request", &request(*major, *minor)),
        Event::IrpCompleted { irp, status, information } => {
            object.address("irp", *irp).number("status", *status).number("information", *information)
        }
        Event::Request { name, detail } => object.text("name", name).text("detail", detail),
        Event::Answer { name, status, information } => {
            object.text("name", name).number("status", *status).number("information", *information)
        }
        Event::Allocated { address, bytes, tag: four, paged } => object
            .address("address", *address)
            .number("bytes", *bytes)
            .text("tag", &tag(*four))
            .flag("paged", *paged),
        Event::Freed { address } => object.address("address", *address),
        Event::Print { text } => object.text("text", text),
        Event::ErrorLog { source, code, unique, status } => object
            .text("source", source)
            .number("code", *code)
            .number("unique", *unique)
            .number("status", *status),
        Event::Switch { from, to } => object.number("from", from.0).number("to", to.0),
        Event::Wait { object: first, count } => object.address("object", *first).number("count", *count),
        Event::Woken { status } => object.number("status", *status),
        Event::Image { name, base, loaded } => {
            object.text("name", name).address("base", *base).flag("loaded", *loaded)
        }
        Event::Pnp { step } => object.text("step", step),
        Event::Exception { code, address } => object.number("code", *code).address("address", *address),
        Event::Unwound { frame, to } => object.address("frame", *frame).address("to", *to),
        Event::Finding { rule, message } => object.text("rule", rule).text("message", message),
        _ => unreachable!("a kind that `fields` writes"),
    }
}

/// The kind as JSON names it: `irp-sent`.
#[must_use]
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Call => "call",
        Kind::Return => "return",
        Kind::Enter => "enter",
        Kind::Leave => "leave",
        Kind::Device => "device",
        Kind::Line => "line",
        Kind::Message => "message",
        Kind::Transfer => "transfer",
        Kind::Interrupt => "interrupt",
        Kind::DpcQueued => "dpc-queued",
        Kind::DpcRemoved => "dpc-removed",
        Kind::Connection => "connection",
        Kind::Irql => "irql",
        Kind::IrpSent => "irp-sent",
        Kind::IrpCompleted => "irp-completed",
        Kind::Request => "request",
        Kind::Answer => "answer",
        Kind::Allocated => "allocated",
        Kind::Freed => "freed",
        Kind::Print => "print",
        Kind::ErrorLog => "error-log",
        Kind::Switch => "switch",
        Kind::Wait => "wait",
        Kind::Woken => "woken",
        Kind::Image => "image",
        Kind::Pnp => "pnp",
        Kind::Exception => "exception",
        Kind::Unwound => "unwound",
        Kind::Finding => "finding",
    }
}
