//! Requests that end otherwise where the computer has been running for long: times that do not fit into 31 or 32 bits.
//!
//! Two of them are made in turn, on two handles, in a computer that was started lately, and in one in which a count of time is about to begin anew, or to become
//! negative, as the first is made. Where one ends otherwise only in that, and not where the computer has been running for ten days, the driver counts time so.

use abi::NtStatus;
use kernel::ke::{TICK, UNIT};

use super::asking::Asking;
use super::company::PAIRED;
use super::known::Known;
use super::question::{Answer, LONG, Question, ended};
use super::{Aged, Made, needed_before, usual};
use crate::error::Error;
use crate::machine::{Handle, Machine, Tempo};

/// What drivers count time in, in nanoseconds: milliseconds, ticks, microseconds, and the unit of Windows' times.
const COUNTED_IN: [u64; 4] = [1_000_000, TICK, 1_000, UNIT];
/// The first counts that do not fit into unsigned and into signed words.
const TOO_GREAT: [u64; 2] = [1 << 32, 1 << 31];
/// No such count comes near it: ten days, in nanoseconds.
const ELSEWHERE: u64 = 864_000_000_000_000;

/// Requests one after the other, each on the first or the second of two handles.
type Sequence = Vec<(usize, bool)>;

impl Asking<'_> {
    /// Those that do, and what they are made behind.
    pub(super) fn aged(&mut self, known: &[Known]) -> Result<Vec<Aged>, Error> {
        let tried = known.iter().enumerate().filter(|(_, one)| one.operation.is_usual());
        let tried: Vec<usize> = tried.map(|(place, _)| place).take(PAIRED).collect();
        let pairs =
            tried.iter().enumerate().flat_map(|(at, one)| tried[at..].iter().map(|other| (*one, *other)));
        let mut watched: Vec<(Sequence, Ends)> = Vec::new();
        for sequence in pairs.map(|pair| in_turn(known, pair)).collect::<Vec<_>>() {
            let usual = self.ends(known, &sequence, None)?;
            watched.extend(usual.filter(|usual| usual.look_at_uptime).map(|usual| (sequence, usual)));
        }
        let mut aged = Vec::new();
        for count in TOO_GREAT.into_iter().flat_map(|count| COUNTED_IN.map(|unit| (count - 1) * unit)) {
            let mut rest = Vec::new();
            for (sequence, usual) in watched {
                match self.differs(known, &sequence, &usual, count)? {
                    Some(one) => aged.push(one),
                    None => rest.push((sequence, usual)),
                }
            }
            watched = rest;
        }
        let mut sure = Vec::new();
        for one in aged {
            let elsewhere = self.ends(
                known,
                &one.made.iter().map(|made| (made.place, made.second)).collect(),
                Some(ELSEWHERE),
            )?;
            sure.extend(elsewhere.filter(|ends| ends.made.last() == one.made.last()).map(|_| one));
        }
        Ok(sure)
    }

    /// The requests up to the first that ends otherwise where the first of them is made in the last moment in which a count fits: so many nanoseconds since boot.
    fn differs(
        &mut self,
        known: &[Known],
        sequence: &Sequence,
        usual: &Ends,
        count: u64,
    ) -> Result<Option<Aged>, Error> {
        let Some(uptime) = count.checked_sub(usual.begun) else { return Ok(None) };
        let Some(aged) = self.ends(known, sequence, Some(uptime))? else { return Ok(None) };
        let at = usual.made.iter().zip(&aged.made).position(|(usual, aged)| usual != aged);
        Ok(at.map(|at| Aged { made: usual.made[..=at].to_vec(), uptime }))
    }

    /// How they end. None if the machine does.
    fn ends(
        &mut self,
        known: &[Known],
        sequence: &Sequence,
        uptime: Option<u64>,
    ) -> Result<Option<Ends>, Error> {
        let Self { boots, name } = self;
        let (ends, _) = boots.boot_with(uptime.map(Tempo::Uptime), usual(), |machine| {
            let handles = [machine.open_overlapped(name).ok()?, machine.open_overlapped(name).ok()?];
            let (begun, looks) = (machine.now() / TICK * TICK, machine.looks_at_uptime());
            let made = sequence.iter().map(|&(place, second)| {
                let handle = &handles[usize::from(second)];
                let (status, waits) = made(machine, handle, known[place].question)?;
                Some(Made { place, second, status, waits })
            });
            let made = made.collect::<Option<Vec<_>>>()?;
            Some(Ends { made, begun, look_at_uptime: machine.looks_at_uptime() > looks })
        })?;
        Ok(ends)
    }
}

/// How requests end.
struct Ends {
    made: Vec<Made>,
    /// The tick at which the first is made, in nanoseconds.
    begun: u64,
    /// The driver has looked how long the computer has been running.
    look_at_uptime: bool,
}

/// What both need, and these in turn.
fn in_turn(known: &[Known], (one, other): (usize, usize)) -> Sequence {
    let needed = needed_before([one, other], |place| known[place].operation.needs);
    let turns = [(one, false), (other, true), (one, true), (other, false)];
    needed.into_iter().map(|place| (place, false)).chain(turns).chain(turns).collect()
}

/// Makes it, and waits a while where it is not over at once: its status, which is that of a request that is under way where it does not end in that time. None if the
/// machine ends.
fn made(machine: &Machine, handle: &Handle<'_>, question: Question) -> Option<(u32, bool)> {
    let request = question.begin(handle).ok()?;
    let waits = !request.is_over();
    if waits {
        let _ = machine.wait(LONG);
    }
    match ended(request) {
        Answer::Status(status) | Answer::Later(status) => Some((status, waits)),
        Answer::Waits => Some((NtStatus::PENDING.0, waits)),
        Answer::Ends(_) => None,
    }
}
