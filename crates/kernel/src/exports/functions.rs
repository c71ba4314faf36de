//! Every exported function, one line each, sorted by name: its arity, its IRQL contract, its service.

use super::arguments::{IntoResult, exports};
use crate::ke;

exports! { FUNCTIONS:
    : KeClearEvent(1) @ 0..=2 => ke::event::clear;
    : KeSetEvent(3) @ 0..=2 => ke::event::set;
}
