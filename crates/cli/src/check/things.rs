//! What was found, put together by what is wrong: a thing that is wrong is listed once, with all the places where it shows.

use dirql::check::{self, Aside, Cause};

use super::report::Found;

/// One instruction, or one thing that belongs to none.
pub(super) struct Place {
    /// What says most.
    pub(super) found: Found,
    /// What it shows as in other attempts.
    pub(super) also: Vec<Found>,
}

/// One thing that is wrong: its places. The first one stands for all.
pub(super) type Thing = Vec<Place>;

/// What is wrong with the driver, and what does not count: advice, and what is dismissed. A place is dismissed by its first cause.
pub(super) fn things(found: Vec<Found>) -> (Vec<Thing>, Vec<Found>) {
    let is_advice = |found: &Found| found.cause.aside == Some(Aside::Advice);
    let (mut aside, found): (Vec<Found>, Vec<Found>) = found.into_iter().partition(is_advice);
    let mut places = Vec::new();
    for mut place in places_of(found) {
        if place.found.cause.aside.is_some() {
            aside.push(place.found);
            continue;
        }
        let (out, also) = place.also.into_iter().partition(|found| found.cause.aside.is_some());
        place.also = also;
        aside.extend::<Vec<_>>(out);
        places.push(place);
    }
    let heads: Vec<&Cause> = places.iter().map(|place| &place.found.cause).collect();
    let groups = check::groups(&heads);
    let mut places: Vec<Option<Place>> = places.into_iter().map(Some).collect();
    let thing = |group: Vec<usize>| group.into_iter().filter_map(|at| places[at].take()).collect();
    (groups.into_iter().map(thing).collect(), aside)
}

fn places_of(found: Vec<Found>) -> Vec<Place> {
    let causes: Vec<&Cause> = found.iter().map(|found| &found.cause).collect();
    let places = check::places(&causes);
    let mut found: Vec<Option<Found>> = found.into_iter().map(Some).collect();
    let place = |check::Place { cause, also }| {
        let also = also.into_iter().filter_map(|at| found[at].take()).collect();
        Some(Place { found: found[cause].take()?, also })
    };
    places.into_iter().filter_map(place).collect()
}
