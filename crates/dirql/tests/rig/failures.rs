//! Calls that fail where they could succeed: each one once, while a story runs.

use dirql::{Bench, Outcome, explore};

/// Which calls fail, of those that could: from the one with this number on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    /// That one.
    One,
    /// All.
    All,
}

/// Tells a story again and again, with other calls failing each time, until none is left that could: no rule is broken, and nothing is left
/// behind. How many could fail.
#[track_caller]
pub(crate) fn whichever_fails(bench: impl Fn() -> Bench, which: Failing, script: &str) -> u32 {
    for nth in 1.. {
        let count = if which == Failing::One { 1 } else { u64::MAX };
        let chooser = explore::Failing::new(nth.into(), count);
        let machine = bench().chooser(chooser.clone()).start().unwrap_or_else(|error| panic!("{error}"));
        // Without a device, or a handle to it, its commands fail.
        let _ = super::try_play(&machine, script);
        let report = machine.finish();
        let wrong = matches!(report.outcome(), Outcome::Broken | Outcome::OurFault);
        assert!(!wrong, "call {nth} fails: {report}");
        assert!(report.findings.is_empty(), "call {nth} fails: {report}");
        assert_eq!(report.sums.still_allocated(), 0, "call {nth} fails: {report}");
        if chooser.asked() < nth.into() {
            return nth - 1;
        }
    }
    unreachable!("a story has an end")
}
