//! A proof does not leave the routine that it was raised for.
use wdm::*;

fn keep(passive: &mut Passive) {
    let dispatch = at_dispatch(passive, |dispatch| dispatch);
    drop(dispatch);
}

fn main() {}
