//! Ranges that are mapped before they are asked for: kernel stacks, pages from which places for small blocks are cut, and an application's
//! small buffers.
//!
//! No page. Windows, too, keeps some stacks of threads that have ended, and grows pool and heaps by many pages at once; a driver sees
//! none of it. What is gained is time: a machine that is taken back again and again would have the host map the same ranges one by one
//! in each run. Some of each are made when the devices are started ([`fill_up`]), and stacks that are given back wait here again. For
//! drivers a range that waits is not there (`Map` has no page, and in a checked machine it is marked so); only a fast machine does not
//! see that an instruction touches it. The pages before and behind it are never mapped, but for small buffers, which lie side
//! by side, each at the start of its page: the host opens all of them by one call, and closes them so when their process has ended.

use std::collections::VecDeque;

use engine::windows::PAGE;
use engine::{Fill, Protection};

use super::map::{self, Page};
use super::pool::GUARD_FILL;
use super::space::Zone;
use crate::cx::Kernel;
use crate::ke::budget;

/// Stacks that wait: more than the threads of most scripts.
const STACKS: usize = 6;
/// Pages of nonpaged pool that wait.
const POOL: usize = 4;
/// Small buffers of applications that wait.
const BUFFERS: u64 = 16;
/// What is small: half of the page behind such a buffer is still its own.
pub(super) const SMALL_BUFFER: u64 = PAGE / 2;
/// The host's areas that a range takes by itself: one for its pages, and one for what lies behind.
const AREAS_OF_RANGE: usize = 2;

/// What a range is for, and what it holds when it is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sort {
    zone: Zone,
    count: u64,
    page: Page,
    fill: Fill,
}

/// A range that waits.
struct Waiting {
    address: u64,
    pages: Vec<u64>,
    /// It was in use and may hold anything.
    used: bool,
}

/// All that wait, oldest first. A sort that is not here is not kept.
#[derive(Default)]
pub struct State(Vec<(Sort, VecDeque<Waiting>)>);

impl State {
    /// Those of a sort, which is kept from now on.
    fn waiting(&mut self, sort: Sort) -> &mut VecDeque<Waiting> {
        let known = self.0.iter().position(|(known, _)| *known == sort);
        let place = known.unwrap_or_else(|| {
            self.0.push((sort, VecDeque::new()));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }

    fn of(&mut self, wanted: impl Fn(&Sort) -> bool) -> Option<&mut (Sort, VecDeque<Waiting>)> {
        self.0.iter_mut().find(|(sort, _)| wanted(sort))
    }
}

/// Has as many ranges of each sort wait as may, unless memory is short.
pub fn fill_up(k: &mut Kernel) {
    if !k.mm.physical.memory.is_plenty() {
        return;
    }
    let stack = k.ke.stack_bytes();
    let nonpaged = Page { physical: 0, protection: Protection::READ_WRITE, pageable: false };
    let stacks =
        Sort { zone: Zone::Stacks, count: stack.div_ceil(PAGE).max(1), page: nonpaged, fill: Fill::of(0) };
    let pool = Sort { zone: Zone::NonPagedPool, count: 1, page: nonpaged, fill: Fill::of(GUARD_FILL) };
    for (sort, most) in [(stacks, STACKS), (pool, POOL)] {
        while k.mm.ready.waiting(sort).len() < most {
            let Sort { zone, count, page, fill } = sort;
            let Some(address) = map::allocate_anew(k, zone, count, page, fill) else { return };
            keep_as(k, sort, address, false);
        }
    }
    let buffers =
        Sort { zone: Zone::User, count: 1, page: Page { pageable: true, ..nonpaged }, fill: Fill::of(0) };
    if k.mm.ready.waiting(buffers).is_empty() {
        fill_buffers(k, buffers);
    }
}

/// Buffers side by side.
fn fill_buffers(k: &mut Kernel, buffers: Sort) {
    let Sort { zone, page, fill, .. } = buffers;
    let Some(first) = map::allocate_anew(k, zone, BUFFERS, page, fill) else { return };
    // Each goes by itself, and gives its areas back then.
    let more = usize::try_from(BUFFERS - 1).unwrap_or(0) * AREAS_OF_RANGE;
    if k.mm.physical.memory.take_areas(more) {
        (0..BUFFERS).for_each(|number| keep_as(k, buffers, first + number * PAGE, false));
    } else {
        map::release(k, zone, first, BUFFERS);
    }
}

/// A range that waits, with these contents; none if none does.
pub(super) fn take(k: &mut Kernel, zone: Zone, count: u64, page: Page, fill: Fill) -> Option<u64> {
    let sort = Sort { zone, count, page, fill };
    let (_, waiting) = k.mm.ready.of(|known| *known == sort)?;
    let Waiting { address, pages, used } = waiting.pop_front()?;
    k.mm.map.show(k.engine, address, &pages, page);
    budget::mapped(k, AREAS_OF_RANGE, count);
    if used {
        map::clear(k.engine, address, count, fill);
        k.engine.stored(address, count * PAGE);
    }
    Some(address)
}

/// Keeps a stack that is given back; false if it is none, not of a thread's size, or enough of them wait.
pub(super) fn keep(k: &mut Kernel, zone: Zone, address: u64, count: u64) -> bool {
    if zone != Zone::Stacks {
        return false;
    }
    let stacks = k.mm.ready.of(|sort| (sort.zone, sort.count) == (zone, count));
    let Some(sort) = stacks.filter(|(_, waiting)| waiting.len() < STACKS).map(|(sort, _)| *sort) else {
        return false;
    };
    budget::mapped(k, AREAS_OF_RANGE, count);
    keep_as(k, sort, address, true);
    true
}

fn keep_as(k: &mut Kernel, sort: Sort, address: u64, used: bool) {
    let pages = k.mm.map.hide(k.engine, address, sort.count);
    assert_eq!(pages.len() as u64, sort.count, "what is given back is mapped");
    k.mm.ready.waiting(sort).push_back(Waiting { address, pages, used });
}
