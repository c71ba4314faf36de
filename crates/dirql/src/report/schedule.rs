//! A schedule in words: where a run departs from the usual, which thread gave way in which routine and line, and which went on.
//!
//! What was chosen is the kernel's to note ([`kernel::departures`]); records keep it in a form of their own.

use std::fmt::Write as _;

use kernel::departures::Departure;

use super::{Report, line_json, place};
use crate::readers::{json_array, json_object};

/// So many of the last are in the text.
const SHOWN: usize = 30;

impl Report {
    /// Nothing, if all went as usual.
    pub(super) fn schedule_text(&self) -> String {
        let (all, more) = &self.departures;
        let mut text = String::new();
        if all.is_empty() {
            return text;
        }
        let _ = writeln!(text, "schedule, where it is not the usual one");
        let skipped = all.len().saturating_sub(SHOWN);
        if skipped > 0 {
            let _ = writeln!(text, "  {skipped} earlier departures");
        }
        for (index, departure) in all.iter().enumerate().skip(skipped) {
            let _ = writeln!(text, "  {}. {}", index + 1, self.sentence(departure));
        }
        if *more > 0 {
            let _ = writeln!(text, "  {more} more after these");
        }
        text
    }

    /// As a JSON array.
    pub(super) fn schedule_json(&self) -> String {
        let one = |departure: &Departure| {
            let object = json_object()
                .text("point", departure.point)
                .number("answer", departure.answer)
                .text("thread", &departure.thread)
                .optional("to", departure.to.as_deref())
                .number("number", departure.event)
                .text("words", &self.sentence(departure));
            match &departure.at {
                Some(line) => object.raw("at", &line_json(&self.symbols, line)).end(),
                None => object.raw("at", "null").end(),
            }
        };
        json_array(self.departures.0.iter().map(one))
    }

    fn sentence(&self, departure: &Departure) -> String {
        let Departure { point, thread, at, to, answer, event } = departure;
        let place = at.as_ref().map(|line| {
            let found = place(&self.symbols, line);
            let source = found.source.map(|source| format!(" ({source})")).unwrap_or_default();
            format!(", in {}{source},", found.symbol)
        });
        let place = place.unwrap_or_default();
        let to = to.as_deref().unwrap_or("another thread");
        match *point {
            "ke.turn" | "ke.next_thread" => format!("{to} went on instead of {thread} (event {event})"),
            "ke.before_export" => {
                format!("{thread}{place} gave way to {to} before that call (event {event})")
            }
            "ke.before_device" => {
                format!("{thread}{place} gave way to {to} before it accessed the device (event {event})")
            }
            "ke.before_interlocked" => {
                format!(
                    "{thread}{place} gave way to {to} before that interlocked instruction (event {event})"
                )
            }
            "ke.before_shared" => {
                format!(
                    "{thread}{place} gave way to {to} before it touched memory that others touch (event {event})"
                )
            }
            "ke.delay" => {
                format!("{thread}{place} was held up until what was due next had come (event {event})")
            }
            "ke.taker" => {
                format!("another processor took what came while {thread}{place} ran (event {event})")
            }
            "device.late" => {
                format!("a card's transfer took {} times as long as usual (event {event})", answer + 1)
            }
            "device.pieces" => format!("a card's transfer came in {} parts (event {event})", answer + 1),
            "device.order" => format!("of a card's transfer another part came first (event {event})"),
            "bus.posted" => format!("a write to the device arrived at once (event {event})"),
            "bus.evicted" => format!("a write-combining buffer was emptied early (event {event})"),
            "bus.order" => {
                format!("of several write-combining buffers another was emptied first (event {event})")
            }
            "bus.chunks" => format!("a write-combining buffer was emptied from its end (event {event})"),
            "ke.slice" => format!("{thread}{place} gave way to {to} at the end of its slice (event {event})"),
            "fault.card" => format!("the card was gone behind an access of {thread}{place} (event {event})"),
            _ => match point.strip_prefix("fault.") {
                Some(what) => format!("an allocation ({what}) of {thread}{place} failed (event {event})"),
                None => format!("{thread}{place} was answered {answer} at {point} (event {event})"),
            },
        }
    }
}
