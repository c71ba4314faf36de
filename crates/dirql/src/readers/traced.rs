//! What providers of events write, as a line for people; and what a trace message (WPP) says, where its format is known.
//!
//! Pages: *WPP Software Tracing*, *Trace Message Format File*. A format stands in a driver's PDB, which is no part of the machine: so the message is decoded here,
//! and the event has its GUID, its number and its arguments.

use kernel::event::Event;
use kernel::wmi::parse_guid;

use super::SymbolBook;

/// More of an event's data than this is not shown in a line.
const SHOWN: usize = 128;

/// The line of such an event; none for any other.
pub(super) fn line(event: &Event, symbols: &SymbolBook) -> Option<String> {
    match event {
        Event::Traced { provider, name, id, level, data, text, .. } => {
            let who = name.as_ref().unwrap_or(provider);
            let number = if *id == 0 { String::new() } else { format!(" event {id}") };
            let what = text.as_deref().map_or_else(|| bytes(data), str::to_owned);
            let colon = if what.is_empty() { "" } else { ": " };
            Some(format!("trace {who}{number}, level {level}{colon}{what}"))
        }
        Event::TraceMessage { .. } => Some(match said(symbols, event) {
            Some(text) => format!("trace: {text}"),
            None => format!("trace message {}", as_it_came(event)?),
        }),
        _ => None,
    }
}

/// What a trace message says, or what it is where its format is not known; none if it is none.
pub(crate) fn message_text(symbols: &SymbolBook, event: &Event) -> Option<String> {
    said(symbols, event).or_else(|| as_it_came(event))
}

fn as_it_came(event: &Event) -> Option<String> {
    let Event::TraceMessage { guid, number, arguments } = event else { return None };
    Some(format!("{guid} {number}: {}", bytes(arguments)))
}

/// What a trace message says; none if its format is not known, or it is no trace message.
pub(super) fn said(symbols: &SymbolBook, event: &Event) -> Option<String> {
    let Event::TraceMessage { guid, number, arguments } = event else { return None };
    let guid = parse_guid(guid)?;
    let arguments: Option<Vec<Vec<u8>>> = arguments.split_whitespace().map(argument).collect();
    symbols.trace_text(&guid, u16::try_from(*number).ok()?, &arguments?.concat())
}

/// An argument's bytes, as the event has them.
fn argument(text: &str) -> Option<Vec<u8>> {
    if text == "-" {
        return Some(Vec::new());
    }
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}

fn bytes(hex: &str) -> String {
    match hex.get(..SHOWN).filter(|_| hex.len() > SHOWN) {
        Some(shown) => format!("{shown}…"),
        None => hex.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_as_they_are_written() {
        assert_eq!(argument("-"), Some(Vec::new()));
        assert_eq!(argument("00ff10"), Some(vec![0, 0xFF, 0x10]));
        assert_eq!((argument("0"), argument("zz")), (None, None));
    }

    #[test]
    fn a_message_without_a_format_is_shown_as_it_came() {
        let guid = "{6B29FC40-CA47-1067-B31D-00DD010662DA}".to_owned();
        let event =
            Event::TraceMessage { guid: guid.clone(), number: 11, arguments: "2a000000 -".to_owned() };
        let text = line(&event, &SymbolBook::default());
        assert_eq!(text, Some(format!("trace message {guid} 11: 2a000000 -")));
    }
}
