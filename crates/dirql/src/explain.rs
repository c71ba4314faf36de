//! Who allocated, who freed, who took the lock: the run made again, with an eye on the moments that its verdict and findings name.
//!
//! A run keeps only the numbers of such moments. The second run must be of the same machine with the same script and choices; its
//! trace's hash says whether it was.

use std::fmt;
use std::str::FromStr;

use kernel::verdict::StackLine;

use crate::bench::Bench;
use crate::error::{Error, InputError};
use crate::play::Play;
use crate::readers::{SymbolBook, json_array, json_object};
use crate::report::{Report, line_json, stack_text};

/// Findings of a run that are explained at most: a leak may have thousands.
const MOST: usize = 16;

/// Which moments of which run. As text, in which it may be handed to another process: `HASH:allocated@12,freed@50`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moments {
    /// The trace's hash of the run.
    run: u128,
    /// What happened, and the number of the event, in the order of the report.
    wanted: Vec<(String, u64)>,
}

impl Moments {
    /// The moments that the verdict, the findings and the failure of a run name; none if they name none.
    #[must_use]
    pub fn of(report: &Report) -> Option<Self> {
        let verdicts = report.verdict.iter().chain(&report.findings).flat_map(|verdict| &verdict.related);
        let all = verdicts.chain(report.failure.iter().flat_map(|failure| &failure.moments));
        let mut wanted = Vec::new();
        for related in all {
            let moment = (related.what.to_owned(), related.event);
            if wanted.len() < MOST && !wanted.contains(&moment) {
                wanted.push(moment);
            }
        }
        (!wanted.is_empty()).then_some(Self { run: report.trace_hash, wanted })
    }
}

impl fmt::Display for Moments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.run)?;
        for (index, (what, event)) in self.wanted.iter().enumerate() {
            write!(f, "{}{what}@{event}", if index == 0 { ':' } else { ',' })?;
        }
        Ok(())
    }
}

impl FromStr for Moments {
    type Err = InputError;

    fn from_str(text: &str) -> Result<Self, InputError> {
        let wrong = || InputError::new(format!("`{text}`: moments are written HASH:WHAT@EVENT,WHAT@EVENT"));
        let (run, moments) = text.split_once(':').ok_or_else(wrong)?;
        let run = u128::from_str_radix(run, 16).map_err(|_| wrong())?;
        let moment = |moment: &str| {
            let (what, event) = moment.split_once('@')?;
            Some((what.to_owned(), event.parse().ok()?))
        };
        let wanted: Option<Vec<_>> = moments.split(',').map(moment).collect();
        Ok(Self { run, wanted: wanted.ok_or_else(wrong)? })
    }
}

/// What the second run has shown.
pub struct Explanation {
    moments: Vec<Moment>,
    symbols: SymbolBook,
}

/// One moment, and the driver's stack then, innermost first.
struct Moment {
    what: String,
    event: u64,
    stack: Vec<StackLine>,
}

/// Makes a run again and tells whose doing its `moments` were. `bench` and `play` must be those of the first run, made anew, its
/// policy included. None if the second run is another than the first: then nothing it shows is about the first.
///
/// # Errors
/// As [`Bench::run`].
pub fn explain(
    mut bench: Bench,
    play: Option<Play>,
    moments: &Moments,
) -> Result<Option<Explanation>, Error> {
    bench.settings.witness = moments.wanted.iter().map(|(_, event)| *event).collect();
    let report = bench.run(play)?;
    if report.trace_hash != moments.run {
        return Ok(None);
    }
    let moment = |(what, event): &(String, u64)| {
        let (_, stack) = report.witnessed.iter().find(|(number, _)| number == event)?;
        Some(Moment { what: what.clone(), event: *event, stack: stack.clone() })
    };
    let moments = moments.wanted.iter().filter_map(moment).collect();
    Ok(Some(Explanation { moments, symbols: report.symbols.clone() }))
}

impl Explanation {
    /// As a line of JSON: `{"event":"moments","moments":[{"what":"allocated","number":12,"stack":[…]}]}`.
    #[must_use]
    pub fn json_line(&self) -> String {
        let line = |line: &StackLine| line_json(&self.symbols, line);
        let moment = |moment: &Moment| {
            json_object()
                .text("what", &moment.what)
                .number("number", moment.event)
                .raw("stack", &json_array(moment.stack.iter().map(line)))
                .end()
        };
        let moments = json_array(self.moments.iter().map(moment));
        json_object().text("event", "moments").raw("moments", &moments).end()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Moment { what, event, stack } in &self.moments {
            writeln!(f, "{what} at (event {event})")?;
            f.write_str(&stack_text(&self.symbols, stack))?;
            if stack.is_empty() {
                writeln!(f, "    by the kernel: no driver code stood there")?;
            }
        }
        Ok(())
    }
}
