//! WMI as lines of text: the blocks that drivers offer, answers instance by instance, events.
//!
//! Data are bytes, shown in hexadecimal and as ASCII: what they mean says a class that only the driver's MOF resource describes, whose format has no public
//! description.

use abi::{
    WMIREG_FLAG_EVENT_ONLY_GUID, WMIREG_FLAG_EXPENSIVE, WMIREG_FLAG_TRACE_CONTROL_GUID,
    WMIREG_FLAG_TRACED_GUID,
};
use kernel::event::{Event, Kind, Reader, Stamp};

use super::{Sink, status_text};

/// Bytes of data on a line.
const ON_A_LINE: usize = 16;

/// Writes what a script asks of WMI, what came of it, and the events that drivers send, and nothing else.
pub struct WmiText(Sink);

impl WmiText {
    /// Lines go to `out`.
    #[must_use]
    pub fn new(out: Sink) -> Self {
        Self(out)
    }

    /// Whether an event of this kind is about WMI.
    #[must_use]
    pub fn is_about(kind: Kind) -> bool {
        matches!(kind, Kind::WmiBlock | Kind::WmiAnswer | Kind::WmiEvent)
    }
}

impl Reader for WmiText {
    fn wants(&self, kind: Kind) -> bool {
        Self::is_about(kind)
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        lines(event, usize::MAX).iter().for_each(|line| self.0.line(line));
    }
}

/// An event about WMI as lines, of which those of its data are `most` at most; of any other event none.
pub(super) fn lines(event: &Event, most: usize) -> Vec<String> {
    match event {
        Event::WmiBlock { guid, device, driver: _, flags, names, mof } => {
            let mut lines = vec![format!("{guid}  {device}"), format!("  {}", kind_of_block(*flags))];
            match names.as_deref() {
                _ if flags & WMIREG_FLAG_EVENT_ONLY_GUID != 0 && names.as_deref() == Some("") => {}
                None => lines.push("  instances: the driver names them when it is asked".to_owned()),
                Some("") => lines.push("  instances: none".to_owned()),
                Some(names) => {
                    let numbered = names.lines().enumerate();
                    lines.extend(numbered.map(|(index, name)| format!("  instance {index}: {name}")));
                }
            }
            lines.extend(mof.iter().map(|mof| {
                format!("  class: in the resource {mof}, which is not decoded; items are bytes here")
            }));
            lines
        }
        Event::WmiAnswer { question, guid, instance, status, data } => {
            let head = match data {
                None => format!("{question} {guid}: {}", status_text(*status)),
                Some(data) => format!("{question} {guid}{}: {} bytes", of(instance), data.len() / 2),
            };
            with_data(head, data.as_deref().unwrap_or_default(), most)
        }
        Event::WmiEvent { guid, instance, heard: has_consumer, data } => {
            let unheard = if *has_consumer { "" } else { ", which no application listens to" };
            let head = format!("event {guid}{}: {} bytes{unheard}", of(instance), data.len() / 2);
            with_data(head, data, most)
        }
        _ => Vec::new(),
    }
}

fn of(instance: &Option<String>) -> String {
    instance.as_ref().map(|name| format!(" of {name}")).unwrap_or_default()
}

/// What `WMIREG_FLAG_*` say of a block.
fn kind_of_block(flags: u32) -> String {
    let known = [
        (WMIREG_FLAG_EVENT_ONLY_GUID, "only events"),
        (WMIREG_FLAG_EXPENSIVE, "expensive to collect"),
        (WMIREG_FLAG_TRACED_GUID, "traced"),
        (WMIREG_FLAG_TRACE_CONTROL_GUID, "controls tracing"),
    ];
    let mut words: Vec<&str> =
        known.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, word)| *word).collect();
    if flags & WMIREG_FLAG_EVENT_ONLY_GUID == 0 {
        words.insert(0, "data");
    }
    format!("{}; flags {flags:#x}", words.join(", "))
}

/// A line, and below it data that come as hexadecimal digits.
fn with_data(head: String, digits: &str, most: usize) -> Vec<String> {
    let bytes: Vec<u8> = digits
        .as_bytes()
        .chunks_exact(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let rows = bytes.chunks(ON_A_LINE);
    let left = rows.len().saturating_sub(most);
    let mut lines = vec![head];
    lines.extend(rows.take(most).enumerate().map(|(row, bytes)| {
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        let plain =
            |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
        let text: String = bytes.iter().map(plain).collect();
        format!("  {:04x}  {hex:47}  {text}", row * ON_A_LINE)
    }));
    if left > 0 {
        lines.push(format!("  … and {left} lines more"));
    }
    lines
}
