//! Campaigns against a driver of which nothing is known: what is tried, in which order, and what comes of it.
//!
//! A [`Survey`] finds out what the driver offers. [`exercises`] makes scripts of that, from the simplest on. [`Campaign`] carries one of them out again
//! and again: the usual way, with each call failing that may fail, and in other orders of threads and interrupts. What is wrong is a [`Cause`], which
//! is equal for the same mistake in two runs. `dirql check` does all of it by processes; nothing here knows of them.

mod absent;
mod as_found;
mod campaign;
mod cause;
mod codes;
mod corpus;
mod counter;
mod coverage;
mod departures;
mod exercise;
mod fold;
mod groups;
mod inputs;
mod shrink;
mod signals;
mod simpler;
mod stories;
mod survey;
mod wanted;

pub use absent::Absent;
pub use as_found::at_once_as_found;
pub use campaign::{Campaign, HUNG, Totals, Tried, causes, hangs};
pub use cause::{Access, Aside, Awaited, Cause};
pub use corpus::worth_keeping;
pub use coverage::{Coverage, Function, coverage};
pub use departures::fewest_departures;
pub use exercise::{
    Effort, Exercise, KeptSequence, RACES, Stories, WithValues, exercises, exercises_beyond_reach,
    exercises_of_kept, exercises_of_neighbours, exercises_on_busy_line, exercises_with_values,
    registry_options,
};
pub use fold::folded;
pub use groups::{Place, groups, places};
pub use inputs::{Inputs, inputs};
pub use shrink::{Decided, Shown, commands, play, search_bounds, shrink};
pub use signals::{Outside, Signals};
pub use stories::stories;
pub use survey::{Ended, Extent, HARDWARE, Operation, Survey, survey};
