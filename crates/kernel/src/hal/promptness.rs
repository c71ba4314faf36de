//! Cards that do what they do by themselves sooner or later than is usual: `--platform quick-cards=N`, `meeting-cards=N`, `late-cards=N`, `silent-cards`.
//!
//! No page says how fast a device is, and none how slow: what a driver waits for may come in the moment in which it gives up. With late cards the
//! cards' clock stands still from the moment in which one of them would do something while a timer or the time-out of a wait is set for later,
//! and goes on when the N-th of these is due: both come at once then, and in which order is for the processors to say. With silent ones it stands still
//! longer than any driver's patience, but not for ever: what waits for them without a limit, as for the end of a transfer, is not lost. Accesses to
//! registers are answered meanwhile as they are at that moment. With quick cards their clock leaps to what is due next at the N-th access of a
//! driver's to any device since that became due next: between two reads of a service routine, say; or, with 0, behind the access that has begun it. With meeting
//! cards only accesses of service routines count: two ends of what a card is at meet there. *Ours*: how far a card may be late or early.

use engine::Flow;

use super::platform::Promptness;
use crate::cx::{Cx, Kernel};
use crate::ke::{interrupt, wait};

/// How late silent cards are, in nanoseconds: 200 s, longer than a loop may last before it counts as endless.
pub(crate) const SILENCE: u64 = 200_000_000_000;

/// After so many nanoseconds the next limit is looked for again, where the last has ended and nothing has come of it.
pub(crate) const MOMENT: u64 = 1_000;

/// So long cards take for what they owe when they answer again, in nanoseconds.
const CATCHING_UP: u64 = 1_000_000;

/// The farthest that the clock of quick cards leaps, in nanoseconds: what a driver has set a card's timer to may be later.
const LEAP: u64 = 10_000_000_000;

/// The cards' clock.
#[derive(Default)]
pub(crate) struct Clock {
    /// How far it is ahead of the processors', in nanoseconds,
    ahead: u64,
    /// and the accesses since it leapt, or since there was nothing to come.
    accesses: u32,
    still: Option<Still>,
    /// When it is right again, if cards were late once and owe nothing from then on.
    in_time_from: Option<u64>,
    /// When it went on last. What was due before that is not late again.
    went_on: u64,
    /// What it showed last.
    shown: u64,
}

/// It stands still.
struct Still {
    at: u64,
    /// Until the limit at this moment ends, and so many behind it.
    until: u64,
    more: u32,
}

impl super::State {
    /// When the hardware next does something by itself.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<u64> {
        match &self.promptness.still {
            Some(still) => Some(still.until),
            None if self.promptness.ahead != 0 => {
                self.hardware.deadline().map(|due| due.saturating_sub(self.promptness.ahead))
            }
            None if self.platform.cards == Promptness::Silent => {
                self.hardware.deadline().map(|due| due.saturating_add(SILENCE))
            }
            None => self.hardware.deadline(),
        }
    }

    /// Whether the hardware's lines are as given and it does nothing by itself before `until`, by the processors' time.
    #[inline]
    pub(crate) fn is_quiet(&self, lines: u64, until: u64) -> bool {
        self.hardware.is_quiet(lines, until + self.promptness.ahead)
    }
}

/// From now on cards are silent, until they [`answer`].
///
/// # Errors
/// As taking interrupts.
pub fn fall_silent(cx: &mut Cx<'_>) -> Flow<()> {
    change(cx, Promptness::Silent)
}

/// Whether what cards do now may come behind a driver's time limit.
pub(crate) fn are_late(k: &mut Kernel) -> bool {
    if k.hal.platform.cards == Promptness::Behind {
        // They may owe nothing any more.
        let now = k.engine.now();
        k.hardware(now, |_, _| ());
    }
    k.hal.platform.cards.is_late()
}

/// What cards do next they do late, at this time limit of a driver's, counted from 1 on, or the last there is; and all else when they should. What they owe by then is
/// late still.
///
/// # Errors
/// As taking interrupts.
pub fn be_late_once(cx: &mut Cx<'_>, limit: u32) -> Flow<()> {
    change(cx, Promptness::OnceAtLimit(limit))
}

/// From now on cards answer when they should. What they owe comes at once, and is late still.
///
/// # Errors
/// As waiting.
pub fn answer(cx: &mut Cx<'_>) -> Flow<()> {
    change(cx, Promptness::Behind)?;
    wait::sleep(cx, CATCHING_UP)?;
    change(cx, Promptness::InTime)
}

fn change(cx: &mut Cx<'_>, promptness: Promptness) -> Flow<()> {
    cx.with(|k| {
        // What was due before is as it was.
        let now = k.engine.now();
        k.hardware(now, |_, _| ());
        k.hal.platform.cards = promptness;
        k.hal.promptness.in_time_from = None;
        k.hardware(now, |_, _| ());
    });
    interrupt::deliver(cx).map(|_| ())
}

/// What time it is for the cards.
#[cold]
pub(super) fn time(k: &mut Kernel, now: u64) -> u64 {
    let shown = match k.hal.platform.cards {
        Promptness::InTime => now,
        Promptness::Behind => {
            if k.hal.promptness.in_time_from.is_some_and(|from| now >= from) {
                k.hal.promptness.in_time_from = None;
                k.hal.platform.cards = Promptness::InTime;
            }
            now
        }
        Promptness::AtAccess(_) | Promptness::AtRoutine(_) => now + k.hal.promptness.ahead,
        Promptness::AtLimit(limits) | Promptness::OnceAtLimit(limits) => late(k, now, limits),
        Promptness::Silent => match k.hal.hardware.deadline() {
            Some(due) if now < due.saturating_add(SILENCE) => now.min(due.saturating_sub(1)),
            _ => now,
        },
    };
    k.hal.promptness.shown = k.hal.promptness.shown.max(shown);
    k.hal.promptness.shown
}

/// A driver accesses a device; or it has, if `count` is 0.
#[cold]
pub(super) fn accessed(k: &mut Kernel, now: u64, count: u32) {
    let due = k.hal.hardware.deadline();
    let clock = &mut k.hal.promptness;
    let shown = now + clock.ahead;
    let Some(far) = due.and_then(|due| due.checked_sub(shown)).filter(|far| (1..=LEAP).contains(far)) else {
        clock.accesses = 0;
        return;
    };
    clock.accesses += 1;
    if clock.accesses >= count {
        clock.ahead += far;
        clock.accesses = 0;
    }
}

fn late(k: &mut Kernel, now: u64, limits: u32) -> u64 {
    let timers = k.ke.timing.timers();
    let clock = &mut k.hal.promptness;
    if let Some(still) = &mut clock.still {
        if now < still.until {
            return still.at;
        }
        // A timer that is set again when it has run out has not been yet.
        if still.more > 0 && timers.is_anything_due(still.until) {
            still.until += MOMENT;
            return still.at;
        }
        match timers.first_limit(still.until) {
            Some(next) if still.more > 0 => {
                (still.until, still.more) = (next, still.more - 1);
                return still.at;
            }
            _ => {
                clock.went_on = still.until;
                clock.still = None;
                if matches!(k.hal.platform.cards, Promptness::OnceAtLimit(_)) {
                    k.hal.platform.cards = Promptness::Behind;
                    clock.in_time_from = Some(clock.went_on + CATCHING_UP);
                }
                return now;
            }
        }
    }
    let Some(due) = k.hal.hardware.deadline() else { return now };
    match timers.first_limit(due) {
        Some(limit) if clock.went_on < due => {
            let at = now.min(due - 1);
            clock.still = Some(Still { at, until: limit, more: limits - 1 });
            at
        }
        _ => now,
    }
}
