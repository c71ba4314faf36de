//! Calls of frameworks' functions, and of clients' callbacks, that go on without the kernel: what the kernel would return to the code that stands between
//! both (`ldr::between`) is given to the engine in advance (`engine::Short::Answer`), a row for each function, and two for each callback.
//!
//! A group of rows is closed as long as a reader wants the event of such a call, and while copies of structures are to be freed at the next one
//! that their thread makes. Functions that are given callbacks or say whose a power policy is, those that clients of two frameworks have at different addresses, and what comes before
//! `EvtDriverDeviceAdd`, are always the kernel's.

use engine::{Answer, Engine, Short};

use super::ddis::{COUNT, DDIS};
use super::{callbacks, power_policy};
use crate::cx::Kernel;
use crate::event::{Kind, Role};
use crate::exports;
use crate::ldr::between::callback::{self, Moment, SLOTS};
use crate::ldr::between::ddi;

/// The group of the frameworks' functions, of what comes before a callback, and of what comes behind it.
const DDIS_GROUP: u8 = 1;
const BEFORE_GROUP: u8 = 2;
const BEHIND_GROUP: u8 = 4;

const _: () = assert!(COUNT + 2 * SLOTS <= engine::ANSWERS);

/// Which groups may be open.
#[derive(Default)]
pub(super) struct Answers {
    /// A reader wants their events.
    read: u8,
    /// The engine has the table.
    are_there: bool,
}

#[allow(clippy::cast_possible_truncation, reason = "the table is far smaller")]
const fn row(index: usize) -> u16 {
    index as u16
}

/// The row of a framework's function.
#[inline]
pub(super) fn row_of_ddi(index: usize) -> u16 {
    row(index)
}

/// The row of a callback's moment.
fn row_of_moment(moment: Moment) -> u16 {
    match moment {
        Moment::Before(slot) => row(COUNT + slot),
        Moment::Behind(slot) => row(COUNT + SLOTS + slot),
    }
}

/// What the thunk of a framework's function does without the kernel.
pub(crate) fn short_ddi(index: usize) -> Short {
    Short::Answer(row_of_ddi(index), 8 + ddi::PUSHED)
}

/// What a callback's thunk does.
pub(crate) fn short_moment(moment: Moment) -> Short {
    Short::Answer(row_of_moment(moment), 0)
}

/// The function that has this row.
pub(super) fn ddi_of(row: u16) -> Option<&'static str> {
    DDIS.get(usize::from(row)).map(|ddi| ddi.name)
}

/// See [`super::answered_calls`].
pub(super) fn calls(engine: Engine) -> impl Iterator<Item = (u32, u64)> {
    let all =
        (0..COUNT).map(move |index| (exports::number_of_ddi(index), engine.answered(row_of_ddi(index))));
    all.filter(|(_, count)| *count > 0)
}

/// See [`super::set_read`].
pub(super) fn set_read(k: &mut Kernel, reads: impl Fn(Kind) -> bool) {
    let groups = [(Kind::Ddi, DDIS_GROUP), (Kind::Enter, BEFORE_GROUP), (Kind::Leave, BEHIND_GROUP)];
    k.wdf.answers.read = groups.iter().filter(|(kind, _)| reads(*kind)).map(|(_, group)| group).sum();
    open(k);
}

/// Opens the groups that may be open now, and closes the others.
pub(super) fn open(k: &Kernel) {
    let Answers { read, are_there } = k.wdf.answers;
    if are_there {
        let to_free = if k.wdf.callbacks.has_any_copies() { DDIS_GROUP | BEHIND_GROUP } else { 0 };
        k.engine.open_answers((DDIS_GROUP | BEFORE_GROUP | BEHIND_GROUP) & !read & !to_free);
    }
}

/// A client has come or gone: what it calls is answered by the function that all clients have there.
pub(super) fn clients_change(k: &mut Kernel) {
    k.engine.make_answers();
    k.wdf.answers.are_there = true;
    for (index, export) in DDIS.iter().enumerate() {
        let mut functions = k.wdf.clients.iter().filter_map(|client| client.table.function(index));
        let first = functions.next();
        let is_kernels = callbacks::is_given(index) || power_policy::is_said_by(index);
        let agreed = first.filter(|first| !is_kernels && functions.all(|other| other == *first));
        let answer = Answer {
            value: agreed.unwrap_or_default(),
            group: if agreed.is_some() { DDIS_GROUP } else { 0 },
            levels: export.irql_min..=export.irql_max,
            hands_on: (0, 0),
        };
        k.engine.answer(row_of_ddi(index), &answer);
    }
    open(k);
}

/// A callback has got a slot. In a checked machine what is handed on to it is the kernel's to store.
pub(super) fn callback_comes(k: &Kernel, slot: usize, (routine, role): (u64, Role)) {
    let hands_on = callbacks::has_fifth_argument(role);
    let is_kernels = hands_on && k.engine.is_checked() || role == Role::EvtDriverDeviceAdd;
    let answer = Answer {
        value: routine,
        group: if is_kernels { 0 } else { BEFORE_GROUP },
        levels: 0..=u8::MAX,
        hands_on: if hands_on { callback::ARGUMENTS } else { (0, 0) },
    };
    k.engine.answer(row_of_moment(Moment::Before(slot)), &answer);
    let answer = Answer { value: callbacks::BEHIND, group: BEHIND_GROUP, hands_on: (0, 0), ..answer };
    k.engine.answer(row_of_moment(Moment::Behind(slot)), &answer);
}
