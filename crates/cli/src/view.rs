//! A run as it is shown: events while it goes on, its report at the end.

use anyhow::{Result, bail};
use dirql::readers::{Flow, Json, Prints, Sink, Trees, WmiText, cut_line};
use dirql::{Bench, Error, Jail, Moments, Outcome, Play, Report};

use crate::arguments::{Isolation, Only, View};
use crate::isolate::{self, Done};
use crate::out::{self, complain};
use crate::terminal;

/// The turn in which a run is made again for its moments, which follow.
pub(crate) const MOMENTS: &str = "moments:";

/// Where a run is shown, and how.
pub(crate) struct Show<'a> {
    view: &'a View,
    out: Sink,
    /// What happens is shown, and not only what came of it.
    events: bool,
}

impl<'a> Show<'a> {
    /// On standard output.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn new(view: &'a View, isolation: &Isolation) -> Result<Self> {
        Ok(Self { view, out: Sink::new(isolate::out(isolation)?), events: true })
    }

    /// Shows only what came of a run: what happened was shown before.
    pub(crate) fn without_events(mut self) -> Self {
        self.events = false;
        self
    }

    /// Runs the machine to be, in `jail` if there is one, and shows what happens and what came of it.
    ///
    /// # Errors
    /// Something given cannot be used, or this host cannot run a machine.
    pub(crate) fn run(&self, bench: Bench, play: Option<Play>, jail: Option<Jail>) -> Result<Report, Error> {
        let bench = if self.events { self.subscribed(bench) } else { bench };
        let report = silently(bench.narrated(), play, jail)?;
        self.report(&report);
        Ok(report)
    }

    /// How the run ended. If it is not clean and people or programs want to know all, it is to be made again for the moments
    /// that its report names, in a turn that begins with `turn`.
    pub(crate) fn done(&self, report: &Report, turn: &str) -> Done {
        let wanted = !self.view.quiet && matches!(report.outcome(), Outcome::Broken | Outcome::Unexpected);
        let code = report.outcome().exit_code();
        let done = match Some(report).filter(|_| wanted).and_then(Moments::of) {
            Some(moments) => Done::and(code, format!("{turn}{moments}")),
            None => Done::with(code),
        };
        self.behind_all(done, report)
    }

    /// The last line of JSON is `end`, whatever another machine has to add.
    pub(crate) fn behind_all(&self, done: Done, report: &Report) -> Done {
        done.last(self.view.json.then(|| report.json_end()))
    }

    /// Makes a run again and shows whose doing its `moments` were, and nothing else.
    ///
    /// # Errors
    /// As [`Show::run`].
    pub(crate) fn explain(
        &self,
        bench: Bench,
        play: Option<Play>,
        jail: Option<Jail>,
        moments: &str,
    ) -> Result<Done> {
        let Ok(moments) = moments.parse::<Moments>() else { bail!("`{moments}` names no moments of a run") };
        let bench = jail.into_iter().fold(bench, Bench::jailed);
        match dirql::explain(bench, play, &moments)? {
            Some(explanation) if self.view.json => self.out.line(&explanation.json_line()),
            Some(explanation) => self.out.line(&self.dressed(&explanation.to_string())),
            None => complain!(
                "dirql: whose doing the moments were is not known: made again, the run was another one; a fault of dirql's"
            ),
        }
        Ok(Done::with(0))
    }

    fn subscribed(&self, bench: Bench) -> Bench {
        let most = self.view.output_limit;
        let notice = if self.view.json {
            cut_line(most)
        } else {
            format!(
                "… what happens from here on is not shown, because it would be more than {most} bytes (--output-limit)"
            )
        };
        let (out, symbols) = (self.out.limited(most, notice), bench.symbols());
        match self.view.only {
            Some(Only::Wmi) if self.view.json => {
                bench.reader(Json::new(out, symbols).only(WmiText::is_about))
            }
            _ if self.view.json => {
                let json = Json::new(out, symbols);
                bench.reader(match &self.view.events {
                    Some(kinds) => json.of(kinds.0.clone()),
                    None => json,
                })
            }
            Some(Only::Tree) => bench.reader(Trees::new(out)),
            Some(Only::Wmi) => bench.reader(WmiText::new(out)),
            None if self.view.quiet => bench.reader(Prints::new(out)),
            None => {
                let flow = Flow::new(out, symbols);
                bench.reader(match &self.view.events {
                    Some(kinds) => flow.of(kinds.0.clone()),
                    None => flow,
                })
            }
        }
    }

    fn report(&self, report: &Report) {
        if self.view.json {
            report.json_findings().iter().for_each(|line| self.out.line(line));
        } else if self.view.quiet || self.view.only.is_some() {
            // What was left alone is not clean by that.
            report.notes.iter().for_each(|note| complain!("note: {note}"));
            self.out.line(&self.dressed(&report.verdict_text()));
        } else {
            self.out.line(&format!("\n{}", self.dressed(&report.to_string())));
        }
    }

    /// A text as the terminal shows it.
    pub(crate) fn dressed(&self, text: &str) -> String {
        terminal::dress(self.view.color).on(text.trim_end())
    }

    /// A line of the command's own answer.
    pub(crate) fn line(&self, text: &str) {
        self.out.line(text);
    }

    /// Whether the answer is JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.view.json
    }

    /// A line for people: after the report, or beside the JSON.
    pub(crate) fn note(&self, text: &str) {
        if self.view.json {
            complain!("{text}");
        } else {
            self.out.line(text);
        }
    }
}

impl Drop for Show<'_> {
    fn drop(&mut self) {
        out::note("standard output", self.out.flush());
    }
}

/// Runs `bench`, and shows nothing.
///
/// # Errors
/// As [`Show::run`].
pub(crate) fn silently(bench: Bench, play: Option<Play>, jail: Option<Jail>) -> Result<Report, Error> {
    let bench = jail.into_iter().fold(bench, Bench::jailed);
    if let Some(play) = &play {
        bench.check(play)?;
    }
    #[cfg(debug_assertions)]
    let checked = bench.is_checked();
    let machine = bench.start()?;
    #[cfg(debug_assertions)]
    crate::failing::as_asked(&machine, checked);
    Ok(machine.carry_out(play))
}
