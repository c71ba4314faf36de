//! How far many runs have come, for the user: one line on standard error where that is a terminal, written over and in the end
//! taken away. It is on no other stream and in no file, so nothing that a program reads depends on it.

use std::fmt;
use std::io::{IsTerminal, Write, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The host's clock: for the pace of a line on a terminal.
#[allow(clippy::disallowed_types, reason = "it is read outside any machine")]
type Clock = std::time::Instant;

/// How often the line changes at most.
const PACE: Duration = Duration::from_millis(100);
/// To the beginning of the line, which is made empty.
const EMPTY: &str = "\r\x1b[K";

/// How fast runs are made.
#[derive(Default)]
pub(crate) struct Rate {
    /// When the first was counted.
    began: Option<Clock>,
    runs: u64,
}

impl Rate {
    /// One more.
    pub(crate) fn count(&mut self) {
        self.runs += 1;
        self.began.get_or_insert_with(Clock::now);
    }

    /// So many a second since the first; none where that is too short a time to say.
    pub(crate) fn a_second(&self) -> Option<u64> {
        let passed = self.began?.elapsed();
        let runs = self.runs.saturating_sub(1);
        (passed >= PACE).then(|| runs.saturating_mul(1000) / u64::try_from(passed.as_millis()).unwrap_or(1))
    }
}

/// How much of all that there is to do is done.
pub(crate) struct Share {
    began: Clock,
    all: u64,
    done: AtomicU64,
}

impl Share {
    /// Nothing of so much, in any unit.
    pub(crate) fn of(all: u64) -> Self {
        Self { began: Clock::now(), all, done: AtomicU64::new(0) }
    }

    /// So much more is done.
    pub(crate) fn done(&self, more: u64) {
        self.done.fetch_add(more, Ordering::Relaxed);
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.done.load(Ordering::Relaxed).min(self.all);
        f.write_str(&of_all(done, self.all, self.began.elapsed()))
    }
}

/// So much in hundredths; and, where a hundredth is done, how long the rest takes if it goes on so.
fn of_all(done: u64, all: u64, passed: Duration) -> String {
    let percent = (100 * done).checked_div(all).unwrap_or(100);
    if percent == 0 {
        return "0 %".to_owned();
    }
    let left = passed.as_millis() * u128::from(all - done) / u128::from(done.max(1));
    format!("{percent} %, about {} s left", left.div_ceil(1_000))
}

/// A line that tells how far it has come.
pub(crate) struct Progress {
    /// When it was written last; none if it is not shown at all.
    shown: Option<Mutex<Option<Clock>>>,
}

impl Progress {
    /// On standard error, if that is a terminal and `wanted`.
    pub(crate) fn new(wanted: bool) -> Self {
        Self { shown: (wanted && stderr().is_terminal()).then(Mutex::default) }
    }

    /// So far it has come.
    pub(crate) fn at(&self, text: impl FnOnce() -> String) {
        let Some(shown) = &self.shown else { return };
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.is_none_or(|last| last.elapsed() >= PACE) {
            *shown = Some(Clock::now());
            write(&format!("{EMPTY}{}", text()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let shown = self.shown.as_mut().and_then(|shown| shown.get_mut().ok());
        if shown.is_some_and(|shown| shown.is_some()) {
            write(EMPTY);
        }
    }
}

/// What cannot be written here is no answer.
fn write(text: &str) {
    let mut stream = stderr();
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_is_done() {
        let minute = Duration::from_secs(60);
        assert_eq!(of_all(0, 1_000, minute), "0 %");
        assert_eq!(of_all(9, 1_000, minute), "0 %", "too little to say");
        assert_eq!(of_all(250, 1_000, minute), "25 %, about 180 s left");
        assert_eq!(of_all(1_000, 1_000, minute), "100 %, about 0 s left");
        assert_eq!(of_all(0, 0, Duration::ZERO), "100 %, about 0 s left");
    }
}
