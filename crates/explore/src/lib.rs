//! Which of a machine's possible runs to take: policies, each of them a [`Chooser`]; records of what one answered; replay
//! of a record; search of all runs within a bound.
//!
//! It knows no NT and runs no machine: who wants to search brings a [`Subject`]. What a campaign of many policies is made of, and how
//! what it finds is shortened, says who brings it.
#![forbid(unsafe_code)]

mod at_script;
mod choice;
mod counted;
mod early;
mod estimate;
mod failing;
mod guided;
mod histories;
mod late;
mod level;
mod local;
mod pct;
mod places;
mod policy;
mod random;
mod recorder;
mod remarks;
mod remembered;
mod replay;
mod rng;
mod rounds;
mod scarce;
mod schedule;
mod search;
mod shared;
mod subtree;

pub use choice::{Choice, ChoiceError, Choices, Occurrences};
pub use counted::Counted;
pub use engine::{Chooser, Defaults, Point, SLICE_END};
pub use failing::Failing;
pub use local::Local;
pub use pct::Pct;
pub use places::Places;
pub use policy::{Entry as PolicyEntry, Parameter, Policy, PolicyError, policies};
pub use random::Random;
pub use recorder::Recorder;
pub use remarks::{Remark, Remarked, Remarks};
pub use remembered::{Known, Memory, Remembering};
pub use replay::{Complaint, Replay};
pub use rng::Rng;
pub use schedule::{Questions, Schedule, ScheduleError};
pub use search::{
    Bounds, Lost, NotTried, Ran, Runner, Searched, SoFar, Subject, make_part, search, search_by,
};
pub use subtree::Subtree;
