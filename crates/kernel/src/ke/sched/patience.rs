//! How long a script's request may take in a machine that never falls quiet: while a periodic timer, a DPC or work item that queues
//! itself, or a polling thread is alive, a request that nothing ends would wait for ever. It follows no page: Windows does wait for ever.
//!
//! [`asks`] marks the beginning of a request. From then on a minute of virtual time may pass, unless the script grants another time
//! ([`grant`]). At half of it the pending one-shot events are noted (a time-out, a timer without a period, the device's next action): each of
//! them may still end the request, so the wait lasts until the last of them has come, and half a minute more for its consequences. After that
//! only repetition is left; the run is given up as if nothing could run any more (`scheduler`), and `stuck` says why.
//!
//! Where the driver costs the host much and takes little virtual time (DPCs that queue each other), a virtual minute would take hours of the
//! host's: so after a while the clock goes faster ([`hurry`]), as on a slow computer. A driver that reads the clock and ends the request in
//! time still can.

use std::collections::BTreeMap;

use engine::{Flow, StrandId};

use super::processor::Processor;
use super::{budget, slice};
use crate::cx::{Cx, Kernel};
use crate::ke::State;
use crate::ke::stuck::{self, Why};

/// So long a request may take, in nanoseconds of virtual time: a minute.
pub const USUAL: u64 = 60_000_000_000;
/// The cost before the clock goes faster, in thousandths of what `budget` grants a call: by default three tenths of a second
/// of the host's. As much again is granted until a minute has passed.
const PART: u64 = 300;
/// Once the run was given up, [`PART`] is divided by this: the driver's end must get through the same repetition.
const AGAIN: u64 = 3;
/// The least cost before the clock goes faster.
const AT_LEAST: u64 = 10_000_000;
/// Nanoseconds of virtual time that pass without cost to the host, for each nanosecond of cost.
const BY_ITSELF: u64 = 128;
/// What an event costs the host in a checked run, in nanoseconds. Whatever happens in a machine is an event, whether it is read or
/// not; measured, an event of a loop through exports, of a switch of threads, of a DPC takes 50 to 100. Accesses to devices count for
/// nothing: they take time, a register that is polled takes more and more (`hal::access`), and one that is not is progress.
const EVENT: u64 = 100;
/// What a new thread costs more than its events, as each work item has: the host maps its stacks.
const THREAD: u64 = 100_000;

/// The account is looked at after so many threads.
const THREADS: u64 = 32;
/// The clock jumps so far at most, in nanoseconds: code that reads it meanwhile is late by a few seconds at most.
const STEP: u64 = 5_000_000_000;

/// The state of the outside world's wait.
pub(crate) struct Patience {
    /// What is granted unless the script says otherwise, in nanoseconds.
    usual: u64,
    /// When the last request was made.
    since: u64,
    /// When half the time was over.
    half: Option<Half>,
    /// By thread, what the script grants: since when and how long.
    granted: BTreeMap<StrandId, (u64, u64)>,
    /// Why the run was given up.
    lost: Option<Why>,
    /// A run of this machine was given up.
    tired: bool,
    pace: Pace,
}

/// The state when half the time was over: what was set before that may still end the request.
#[derive(Clone, Copy)]
struct Half {
    /// How many things had been set.
    sequence: u64,
    /// When the hardware does something next.
    device: Option<u64>,
    /// What had been used up.
    cost: u64,
}

/// How the clock is made faster.
#[derive(Default)]
struct Pace {
    /// [`Patience::since`] when the pace was last computed: with another request the fields below begin anew.
    since: u64,
    /// The machine's cost then.
    cost: u64,
    /// Nanoseconds that have passed by this alone since then.
    added: u64,
}

impl Patience {
    /// Of a machine whose requests may take so many nanoseconds.
    pub(crate) fn new(usual: u64) -> Self {
        Self {
            usual: usual.max(1),
            since: 0,
            half: None,
            granted: BTreeMap::new(),
            lost: None,
            tired: false,
            pace: Pace::default(),
        }
    }

    /// Whether anything was given up before.
    #[inline]
    pub(crate) const fn is_tired(&self) -> bool {
        self.tired
    }
}

impl State {
    /// What the machine has cost the host since boot, in which so many events have happened: roughly in nanoseconds. The same on every
    /// host, and in a run whose events are not read.
    fn cost(&self, events: u64) -> u64 {
        EVENT * events.saturating_sub(self.sched.accesses) + self.sched.spending.charged() + self.sched.outlay
    }
}

/// A request, or another step of one, begins: its time counts from now on.
#[inline]
pub(crate) fn asks(k: &mut Kernel) {
    k.ke.sched.patience.since = k.engine.now();
}

/// The same, from outside: a script's request, a step of the PnP manager's.
pub(crate) fn renew(cx: &mut Cx<'_>) {
    cx.with(asks);
}

/// The current thread's next request may take exactly so many nanoseconds, whatever is still pending then; `None`: the usual time again.
pub fn grant(cx: &mut Cx<'_>, nanoseconds: Option<u64>) {
    let strand = cx.engine().strand();
    cx.with(|k| {
        let now = k.engine.now();
        k.ke.sched.patience.since = now;
        match nanoseconds {
            Some(limit) => k.ke.sched.patience.granted.insert(strand, (now, limit)),
            None => k.ke.sched.patience.granted.remove(&strand),
        };
        look_at(k, now);
    });
}

/// Why the machine was given up though something in it was alive; `None` if it fell quiet.
pub(crate) fn lost(cx: &mut Cx<'_>) -> Option<Why> {
    cx.with(|k| k.ke.sched.patience.lost.clone())
}

/// A run of the machine begins that is to achieve something.
pub(crate) fn begin(cx: &mut Cx<'_>) {
    cx.with(|k| {
        let now = k.engine.now();
        (k.ke.sched.patience.since, k.ke.sched.patience.lost) = (now, None);
        look_at(k, now);
    });
    cx.nt().give_up(false);
}

/// Sets the alarm for the earliest moment at which a request may have taken too long: the first granted time that ends, or half the usual one.
fn look_at(k: &mut Kernel, now: u64) {
    let Patience { usual, since, ref granted, .. } = k.ke.sched.patience;
    let first = granted.values().map(|(since, limit)| since.saturating_add(*limit)).min();
    let half = since.saturating_add(usual / 2).max(now + 1);
    k.ke.timing.timers_mut().watch(first.map_or(half, |first| first.clamp(now + 1, half)));
    k.ke.sched.patience.half = None;
    k.ke.invalidate_levels();
}

/// The alarm rings: how long the request has taken, if the run is to be given up.
pub(crate) fn rings(k: &mut Kernel, now: u64, events: u64) -> Option<u64> {
    let over = |&(since, limit): &(u64, u64)| since.saturating_add(limit) <= now;
    if let Some(since) =
        k.ke.sched.patience.granted.values().find(|granted| over(granted)).map(|granted| granted.0)
    {
        return Some(now - since);
    }
    let Patience { usual, since, half, .. } = k.ke.sched.patience;
    // A script's own wait ends by itself, and what it does next begins anew.
    let waits = k.ke.timing.timers().has_alarms() || !k.ke.sched.patience.granted.is_empty();
    if waits || since.saturating_add(usual / 2) > now {
        look_at(k, now);
        return None;
    }
    // Windows' watchdog has its own patience with DPCs and interrupt routines that let no thread run.
    let long = |since: u64| now.saturating_sub(since) >= usual / 2;
    let keeps = |own: &Processor| {
        own.running_dpc.is_some() && long(own.dispatch_since)
            || !own.floors.is_empty() && long(own.raised_since)
    };
    if k.ke.processors.iter().any(keeps) {
        k.ke.timing.timers_mut().watch(now.saturating_add(usual));
        return None;
    }
    let (sequence, device, cost) = (k.ke.timing.timers().sequence(), k.hal.deadline(), k.ke.cost(events));
    let Some(half) = half else {
        k.ke.sched.patience.half = Some(Half { sequence, device, cost });
        k.ke.timing.timers_mut().watch(now.saturating_add(usual / 2));
        return None;
    };
    let chance =
        k.ke.timing
            .timers()
            .last_single(half.sequence)
            .max(device.filter(|device| half.device == Some(*device)));
    match chance {
        Some(last) if cost - half.cost <= k.ke.sched.budget => {
            let end = last.max(now).saturating_add(usual / 2);
            k.ke.timing.timers_mut().watch(end.min(now.saturating_add(usual)));
            None
        }
        _ => Some(now - since),
    }
}

/// Gives the run up: nothing that happens ends what the outside has waited for so long.
pub(crate) fn give_up(cx: &mut Cx<'_>, waited: u64) {
    let lost = stuck::lost(cx, waited);
    cx.with(|k| {
        k.ke.timing.timers_mut().watch(u64::MAX);
        (k.ke.sched.patience.lost, k.ke.sched.patience.tired) = (Some(lost), true);
    });
    cx.nt().give_up(true);
}

/// If the current request has cost the host much, advances the clock: by the time that twice that cost is reached, a minute has
/// passed. Called after a fixed number of kernel calls or new threads, so that it does not depend on slices and schedules.
///
/// # Errors
/// [`engine::Leave`] of what the time brings.
pub(super) fn hurry(cx: &mut Cx<'_>) -> Flow<()> {
    let events = cx.next_event();
    let nanoseconds = cx.with(|k| {
        let (now, cost) = (k.engine.now(), k.ke.cost(events));
        let part = if k.ke.sched.patience.tired { PART / AGAIN } else { PART };
        let slow = (k.ke.sched.budget / 1_000 * part).max(AT_LEAST);
        let Patience { since, pace, .. } = &mut k.ke.sched.patience;
        if pace.since != *since {
            *pace = Pace { since: *since, cost, added: 0 };
        }
        // Time that passes by itself, as with a timer, is deducted.
        let passed = now.saturating_sub(*since + pace.added) / BY_ITSELF;
        let used = (cost - pace.cost).saturating_sub(passed);
        let wanted = used.saturating_sub(slow).saturating_mul(USUAL.div_ceil(slow));
        // The clock does not jump past the alarm.
        let alarm = k.ke.timing.timers().watched().saturating_sub(now);
        let step = if alarm == 0 { STEP } else { STEP.min(alarm) };
        let more = wanted.saturating_sub(pace.added).min(step);
        pace.added += more;
        more
    });
    if nanoseconds == 0 { Ok(()) } else { slice::pass_by(cx, nanoseconds) }
}

/// A thread has begun. After so many the account is looked at.
pub(in crate::ke) fn begins_thread(k: &mut Kernel) {
    k.ke.sched.outlay += THREAD;
    if (k.ke.sched.outlay / THREAD).is_multiple_of(THREADS) {
        budget::look_soon(k);
    }
}
