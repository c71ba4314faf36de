//! All runs of a script within a bound, in one machine that is taken back to where the script begins.
//!
//! While the driver is loaded and started, everything goes its usual way: what could go wrong there otherwise is not
//! searched. Which plain loads and stores others see is learned from the runs themselves ([`Bounds::shared`]): what is shared
//! only in a schedule beyond the bound is not known to be.

use std::collections::BTreeSet;

use engine::{Chooser, Question, Tracking};
use explore::{
    Bounds, Choices, Counted, Local, Occurrences, Places, Policy, Questions, Ran, Remark, Runner, Schedule,
    Searched, Subject, Subtree,
};

use crate::bench::Bench;
use crate::error::{Error, InputError};
use crate::machine::{Boots, Exploration, Mark};
use crate::play::Play;
use crate::report::Report;

/// An exploration, what was asked before it began, and where runs begin if not at its beginning.
struct Rewound<'e, 'm> {
    exploration: &'e mut Exploration<'m>,
    before: Occurrences,
    mark: Option<Mark>,
    /// The findings that were reported, by their keys.
    reported: BTreeSet<String>,
}

impl Subject for Rewound<'_, '_> {
    type Outcome = Report;

    fn run(&mut self, policy: Box<dyn Chooser>) -> Report {
        match &self.mark {
            Some(mark) => self.exploration.run_from(mark, policy),
            None => self.exploration.run(policy),
        }
    }

    fn begin_at(&mut self, policy: Box<dyn Chooser>, here: &mut dyn FnMut(&Question) -> bool) -> bool {
        self.begin_anew();
        // Where the host refuses, each run begins at the beginning.
        self.mark = self.exploration.mark_at(policy, here).ok().flatten();
        self.mark.is_some()
    }

    fn begin_anew(&mut self) {
        if let Some(mark) = self.mark.take() {
            self.exploration.forget(mark);
        }
    }

    fn asked_before(&self) -> Occurrences {
        self.before.clone()
    }

    fn compare(&mut self, on: bool) {
        self.exploration.keep_history(on);
    }

    fn must_learn_again(&mut self) -> bool {
        self.exploration.must_learn_again()
    }

    fn learned(&mut self) -> Places {
        self.exploration.learned().into_iter().collect()
    }

    fn watch(&mut self, places: &Places) {
        self.exploration.watch(&places.iter().collect::<Vec<_>>());
    }

    fn remarks(&mut self, report: &Report) -> Vec<Remark> {
        report.remarks(&mut self.reported)
    }
}

/// A machine whose driver is not ready after its start: each run is its start and end.
struct Unready {
    found: Option<(Choices, Report)>,
    remarks: Vec<Remark>,
}

impl Unready {
    fn new(report: Report, mut wanted: impl FnMut(&Report) -> bool) -> Self {
        let remarks = report.remarks(&mut BTreeSet::new());
        Self { found: wanted(&report).then(|| (Choices::default(), report)), remarks }
    }
}

impl Runner for Unready {
    type Outcome = Report;

    fn run(&mut self, _part: usize, _schedule: &Schedule) -> Ran<Report> {
        match self.found.take() {
            Some((choices, report)) => Ran::Wanted(choices, report),
            None => Ran::Usual(Questions::default(), Places::default()),
        }
    }

    fn remarks(&mut self) -> Vec<(Remark, Choices)> {
        self.remarks.drain(..).map(|remark| (remark, Choices::default())).collect()
    }
}

impl Bench {
    /// Carries a script out in every way within `bounds`, until `wanted` says of a run's report that it is the one. Its
    /// choices are those of a whole run: a replay of them from the machine's start ends alike.
    ///
    /// A driver that is not ready after its start is not searched: the one run is its start and end.
    ///
    /// # Errors
    /// As [`Bench::start`]; [`Error::Input`] if the policy has not so many seeds.
    pub fn search(
        self,
        play: &Play,
        bounds: &Bounds,
        wanted: impl FnMut(&Report) -> bool,
    ) -> Result<Searched<Report>, Error> {
        self.runner(play, bounds, wanted, |runner| explore::search_by(runner, bounds))
    }

    /// Makes one part of such a search, and tells what came of each of its runs, and which findings it had that only Driver Verifier
    /// stops for ([`Report::remarks`]).
    ///
    /// # Errors
    /// As [`Bench::search`].
    pub fn search_part(
        self,
        play: &Play,
        bounds: &Bounds,
        part: Subtree,
        wanted: impl FnMut(&Report) -> bool,
        tell: impl FnMut(&Ran<Report>, Vec<(Remark, Choices)>),
    ) -> Result<(), Error> {
        self.runner(play, bounds, wanted, |runner| explore::make_part(part, runner, tell))
    }

    fn runner<R>(
        self,
        play: &Play,
        bounds: &Bounds,
        wanted: impl FnMut(&Report) -> bool,
        search: impl FnOnce(&mut dyn Runner<Outcome = Report>) -> R,
    ) -> Result<R, Error> {
        self.check(play)?;
        check(bounds)?;
        let start = Counted::default();
        let machine = self.chooser(start.clone()).start()?;
        if !machine.is_ready() {
            return Ok(search(&mut Unready::new(machine.finish(), wanted)));
        }
        machine.explore(play, Tracking::Faults, |exploration| {
            search_in(exploration, start.asked(), bounds, wanted, search)
        })
    }
}

impl Boots {
    /// As [`Bench::search`], of a script that has been checked ([`Bench::check`]).
    ///
    /// # Errors
    /// As [`Boots::boot`]; [`Error::Input`] if the policy has not so many seeds.
    pub fn search(
        &mut self,
        play: &Play,
        bounds: &Bounds,
        wanted: impl FnMut(&Report) -> bool,
    ) -> Result<Searched<Report>, Error> {
        check(bounds)?;
        let search = |runner: &mut dyn Runner<Outcome = Report>| explore::search_by(runner, bounds);
        if let Some(report) = self.start_to_search()? {
            return Ok(search(&mut Unready::new(report, wanted)));
        }
        self.explore(play, |exploration, asked| search_in(exploration, asked, bounds, wanted, search))
    }
}

/// A search of an exploration that has just begun. `before` was asked until then.
fn search_in<R>(
    exploration: &mut Exploration<'_>,
    before: Occurrences,
    bounds: &Bounds,
    wanted: impl FnMut(&Report) -> bool,
    search: impl FnOnce(&mut dyn Runner<Outcome = Report>) -> R,
) -> R {
    if bounds.learns() {
        exploration.learn();
    }
    let mut subject = Rewound { exploration, before, mark: None, reported: BTreeSet::new() };
    let result = search(&mut Local::new(&mut subject, *bounds, wanted));
    subject.begin_anew();
    result
}

fn check(bounds: &Bounds) -> Result<(), InputError> {
    match bounds.policy {
        Some(policy) if policy.later(bounds.schedules.saturating_sub(1)).is_none() => {
            Err(InputError::new(format!(
                "policy {policy}: it has no seed for each of {} runs; use {}",
                bounds.schedules,
                Policy::seeded_forms()
            )))
        }
        _ => Ok(()),
    }
}
