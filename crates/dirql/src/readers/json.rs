//! Events as JSON, one object a line, for programs: `docs/events.md` describes them, and is made from the same declarations.
//!
//! Each line has `n` (number), `t` (ns), `cpu`, `irql`, `strand`, `event` (its kind) and then the kind's own fields. What is a pattern of
//! bits (addresses, values of registers, codes) is a string, `"0x…"`, because such do not fit the numbers of every JSON reader; what
//! can be counted is a number. Before the first event a line names the version of all this.

use kernel::event::{Event, Form, Kind, Reader, Stamp, Value};

use super::digits::{decimal, hexadecimal};
use super::names::{export_name, request, tag};
use super::{Sink, SymbolBook, traced};
use crate::script::suggest::nearest;

/// Of the lines that [`Json`] and a report write. It counts what a reader could stumble over: a field or a line that means something
/// else, or is gone. A new one changes nothing.
pub const SCHEMA: u32 = 2;

/// Writes each event as a line.
pub struct Json {
    out: Sink,
    symbols: SymbolBook,
    wanted: fn(Kind) -> bool,
    /// Of these kinds only, details too; if there is no list, of all but details.
    kinds: Option<Vec<Kind>>,
    /// What a line is put together in.
    line: Object,
}

impl Json {
    /// Lines go to `out`, the first of them at once; routines get their names from `symbols`.
    #[must_use]
    pub fn new(out: Sink, symbols: SymbolBook) -> Self {
        out.line(&first_line());
        Self { out, symbols, wanted: |_| true, kinds: None, line: Object::new() }
    }

    /// Only events of these kinds.
    #[must_use]
    pub fn only(self, wanted: fn(Kind) -> bool) -> Self {
        Self { wanted, ..self }
    }

    /// Only events of these kinds, details among them.
    #[must_use]
    pub fn of(self, kinds: Vec<Kind>) -> Self {
        Self { kinds: Some(kinds), ..self }
    }
}

/// The kinds that a list names: names with commas between them. `all` is all but [`Kind::Access`], of which there are too many for one who has
/// not asked for them.
///
/// # Errors
/// Says which name no kind has, and which one may be meant.
pub fn kinds(list: &str) -> Result<Vec<Kind>, String> {
    let mut kinds = Vec::new();
    for name in list.split(',').map(str::trim) {
        match Kind::ALL.iter().find(|kind| kind.name() == name) {
            Some(kind) => kinds.push(*kind),
            None if name == "all" => kinds.extend(Kind::ALL.iter().filter(|kind| **kind != Kind::Access)),
            None => {
                let meant = nearest(name, Kind::ALL.iter().map(|kind| kind.name()));
                let hint = meant.map(|kind| format!(", did you mean `{kind}`?")).unwrap_or_default();
                return Err(format!("there is no kind of event `{name}`{hint} (docs/events.md lists them)"));
            }
        }
    }
    Ok(kinds)
}

/// The line instead of events that are left out, because they would be more bytes than `most`.
#[must_use]
pub fn cut_line(most: u64) -> String {
    Object::new().text("event", "cut").number("limit", most).end()
}

/// The line before all events.
fn first_line() -> String {
    Object::new()
        .text("event", "begin")
        .number("schema", SCHEMA)
        .text("dirql", env!("CARGO_PKG_VERSION"))
        .end()
}

impl Reader for Json {
    fn wants(&self, kind: Kind) -> bool {
        (self.wanted)(kind) && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }

    fn wants_detail(&self, kind: Kind) -> bool {
        self.kinds.as_ref().is_some_and(|kinds| kinds.contains(&kind))
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        if self.out.is_full() {
            return;
        }
        self.line.again();
        write_event(&mut self.line, stamp, event, Some(&self.symbols));
        self.out.line(self.line.close());
    }
}

/// A JSON object while it is written.
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new() -> Self {
        Self("{".to_owned())
    }

    /// Another one, in the same memory.
    fn again(&mut self) {
        self.0.clear();
        self.0.push('{');
    }

    fn key(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    fn add_number(&mut self, name: &str, value: u64) {
        self.key(name);
        decimal(&mut self.0, value);
    }

    fn add_flag(&mut self, name: &str, value: bool) {
        self.key(name);
        self.0.push_str(if value { "true" } else { "false" });
    }

    fn add_address(&mut self, name: &str, value: u64) {
        self.key(name);
        push_address(&mut self.0, value);
    }

    fn add_text(&mut self, name: &str, value: &str) {
        self.key(name);
        push_text(&mut self.0, value);
    }

    pub(crate) fn number(mut self, name: &str, value: impl Into<u64>) -> Self {
        self.add_number(name, value.into());
        self
    }

    pub(crate) fn flag(mut self, name: &str, value: bool) -> Self {
        self.add_flag(name, value);
        self
    }

    pub(crate) fn address(mut self, name: &str, value: u64) -> Self {
        self.add_address(name, value);
        self
    }

    pub(crate) fn text(mut self, name: &str, value: &str) -> Self {
        self.add_text(name, value);
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

    fn close(&mut self) -> &str {
        self.0.push('}');
        &self.0
    }

    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn push_address(to: &mut String, value: u64) {
    to.push_str("\"0x");
    hexadecimal(to, value);
    to.push('"');
}

fn push_text(to: &mut String, value: &str) {
    let plain = |byte: &u8| *byte >= b' ' && *byte != b'"' && *byte != b'\\';
    if value.as_bytes().iter().all(plain) {
        to.push('"');
        to.push_str(value);
        to.push('"');
    } else {
        to.push_str(&serde_json::Value::from(value).to_string());
    }
}

/// A JSON array of values that are JSON already.
pub(crate) fn array(values: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", values.into_iter().collect::<Vec<_>>().join(","))
}

/// One event as one line, without its end; `symbols` adds names to routines.
#[must_use]
pub fn line(stamp: &Stamp, event: &Event, symbols: Option<&SymbolBook>) -> String {
    let mut object = Object::new();
    write_event(&mut object, stamp, event, symbols);
    object.end()
}

fn write_event(object: &mut Object, stamp: &Stamp, event: &Event, symbols: Option<&SymbolBook>) {
    object.add_number("n", stamp.number);
    object.add_number("t", stamp.time);
    object.add_number("cpu", stamp.processor.into());
    object.add_number("irql", stamp.irql.into());
    object.add_number("strand", stamp.strand.0.into());
    object.add_text("event", event.kind().name());
    event.each_field(|name, form, value| field(object, name, (form, value), symbols));
    if let Event::IrpSent { major, minor, .. } = event {
        object.add_text(FUNCTION.1, &request(*major, *minor));
    }
    if let Some(text) = symbols.and_then(|book| traced::said(book, event)) {
        object.add_text(SAID.1, &text);
    }
}

/// What lines have beside the fields that are declared: of which kinds, its name, what it says.
pub(super) const FUNCTION: (Kind, &str, &str) =
    (Kind::IrpSent, "function", "Major function, or of Plug and Play and power the minor one, by name.");

/// The same of trace messages.
pub(super) const SAID: (Kind, &str, &str) =
    (Kind::TraceMessage, "text", "What the message says, where its format is known.");

fn field(object: &mut Object, name: &str, (form, value): (Form, Value<'_>), symbols: Option<&SymbolBook>) {
    match (value, form) {
        (Value::Number(row), Form::Export) => {
            object.add_text(name, export_name(u32::try_from(row).unwrap_or(u32::MAX)));
        }
        (Value::Number(four), Form::Tag) => {
            object.add_text(name, &tag(u32::try_from(four).unwrap_or_default()));
        }
        (Value::Number(address), Form::Code) => {
            object.add_address(name, address);
            if let Some(symbol) = symbols.and_then(|book| book.shared(address)) {
                object.add_text("symbol", &symbol);
            }
        }
        (Value::Number(bits), Form::Hex) => object.add_address(name, bits),
        (Value::Number(number), _) => object.add_number(name, number),
        (Value::Words(words), _) => {
            object.key(name);
            for (index, word) in words.iter().enumerate() {
                object.0.push(if index == 0 { '[' } else { ',' });
                push_address(&mut object.0, *word);
            }
            object.0.push(']');
        }
        (Value::Flag(flag), _) => object.add_flag(name, flag),
        (Value::Text(text), _) => object.add_text(name, text),
        (Value::None, _) => {}
    }
}
