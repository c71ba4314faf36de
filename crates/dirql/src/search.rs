//! All runs of a script within a bound, in one machine that is taken back to where the script begins.
//!
//! While the driver is loaded and started, everything goes its usual way: what could go wrong there otherwise is not
//! searched. Which plain loads and stores others see is learned from the runs themselves ([`Bounds::shared`]): what is shared
//! only in a schedule beyond the bound is not known to be.

use engine::{Chooser, Tracking};
use explore::{Bounds, Choices, Counted, Occurrences, Searched, Subject};

use crate::bench::Bench;
use crate::error::Error;
use crate::machine::Exploration;
use crate::play::Play;
use crate::report::Report;

/// An exploration, and what was asked before it began.
struct Rewound<'e, 'm> {
    exploration: &'e mut Exploration<'m>,
    before: Occurrences,
    /// How many shared instructions are watched.
    known: usize,
}

impl Subject for Rewound<'_, '_> {
    type Outcome = Report;

    fn run(&mut self, policy: Box<dyn Chooser>) -> Report {
        self.exploration.run(policy)
    }

    fn asked_before(&self) -> Occurrences {
        self.before.clone()
    }

    fn learn(&mut self) -> usize {
        let before = std::mem::replace(&mut self.known, self.exploration.watch_learned());
        self.known - before
    }
}

impl Bench {
    /// Carries a script out in every way within `bounds`, until `wanted` says of a run's report that it is the one. Its
    /// choices are those of a whole run: a replay of them from the machine's start ends alike.
    ///
    /// A driver that is not ready after its start is not searched: the one run is its start and end.
    ///
    /// # Errors
    /// As [`Bench::start`]; [`Error::Input`] if the machine is a checked one, which cannot be taken back.
    pub fn search(
        self,
        play: &Play,
        bounds: &Bounds,
        mut wanted: impl FnMut(&Report) -> bool,
    ) -> Result<Searched<Report>, Error> {
        self.check(play)?;
        if self.settings.checked {
            return Err(Error::Input(crate::error::InputError::new(
                "a checked machine cannot be taken back, so it cannot be searched; search without --checked, and replay what is found with it",
            )));
        }
        let start = Counted::default();
        let machine = self.chooser(start.clone()).start()?;
        if !machine.is_ready() {
            let report = machine.finish();
            let found = wanted(&report).then(|| (Choices::default(), report));
            return Ok(Searched { schedules: vec![1], repeated: 0, learned: 0, complete: true, found });
        }
        machine.explore(play, Tracking::Faults, |exploration| {
            if bounds.shared && !bounds.instructions {
                exploration.learn();
            }
            let mut subject = Rewound { exploration, before: start.asked(), known: 0 };
            explore::search(&mut subject, bounds, wanted)
        })
    }
}
