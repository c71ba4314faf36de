//! Sequences of requests, tried by the thousand from one place: the machine is booted once, its device opened, and taken back to there for each.
//!
//! Nothing of a machine's end is gone through, so what only the end shows (a leak, a driver that does not unload) is not seen here.

use std::cell::RefCell;
use std::rc::Rc;

use engine::{Flow, outside};
use kernel::Cx;
use kernel::hal::writes::Sketch;
use kernel::io::cancel::cancel_request;
use kernel::io::file;
use kernel::ke::wait;
use kernel::ob;
use kernel::verdict::Tier;

use super::transfer::{self, Begun, Completion, Transfer};
use super::{Boots, Machine};
use crate::error::Error;
use crate::play;
use crate::report::{HANGS, key};

/// How long an answer may take, in the machine's time, before the request is cancelled: 20 ms.
pub(crate) const PATIENCE: u64 = 20_000_000;
/// How long each thing that the outside world does has before the next, in ns: 1 ms.
const APART: u64 = 1_000_000;

/// A thing that the application does with one of its two handles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    /// With the second.
    pub(crate) on_other: bool,
    pub(crate) deed: Deed,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Deed {
    /// A request whose end is awaited; it is cancelled if that takes long.
    Ask(Transfer<'static>),
    /// The same request so many times, which are left under way until all else is done.
    Leave(Transfer<'static>, u32),
    /// The handle is closed.
    Close,
    /// The outside world does something to a card: signals and their values, a while apart.
    Poke(Vec<Poke>),
}

/// A signal of a card, and what becomes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Poke {
    pub(crate) device: String,
    pub(crate) signal: String,
    pub(crate) value: u64,
}

/// What a driver answered to a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    /// Which step.
    pub(crate) step: usize,
    /// It was not over when its dispatch routine returned.
    pub(crate) waited: bool,
    pub(crate) end: Completion,
}

/// What came of a sequence.
#[derive(Default, Debug)]
pub(crate) struct Came {
    /// Answers to what was awaited, in order.
    pub(crate) answers: Vec<Answer>,
    /// Code was come to that no run of this machine had come to.
    pub(crate) new_code: bool,
    /// What the driver has written to which registers since it was loaded.
    pub(crate) written: Sketch,
    /// What is wrong by it, as [`key`] has it.
    pub(crate) wrong: Vec<String>,
    /// It did not come to its end.
    pub(crate) stopped: bool,
    /// The driver hung.
    pub(crate) hangs: bool,
}

/// A machine at the place that sequences begin at.
pub(crate) struct Trial<'m> {
    machine: &'m Machine,
    handles: [Option<ob::Handle>; 2],
    mark: super::Mark,
    reached: usize,
}

impl Boots {
    /// Boots the machine the usual way, opens `name` twice, has the events of these WMI `blocks` enabled, and has `work` try sequences there. None if the device
    /// cannot be opened.
    ///
    /// # Errors
    /// As [`Boots::boot`].
    pub(crate) fn try_sequences<R>(
        &mut self,
        name: &str,
        blocks: &[String],
        work: impl FnOnce(&mut Trial<'_>) -> Result<R, Error>,
    ) -> Result<Option<R>, Error> {
        self.keep_reached();
        let (worked, _) = self.boot_to_script(Box::new(explore::Failing::new(0, 1)), |machine| {
            if !machine.is_ready() {
                return Ok(None);
            }
            let [Ok(first), other] = [(); 2].map(|()| machine.open_overlapped(name)) else { return Ok(None) };
            let handles = [Some(first.handle()), other.ok().map(|other| other.handle())];
            for block in blocks {
                machine.listen(block)?;
            }
            let reached = machine.host.reached_count();
            let mut trial = Trial { machine, handles, mark: machine.mark()?, reached };
            let result = work(&mut trial);
            trial.back();
            machine.host.discard(trial.mark.snapshot);
            result.map(Some)
        })?;
        worked
    }
}

impl Trial<'_> {
    /// Whether there are two handles.
    pub(crate) fn has_other(&self) -> bool {
        self.handles[1].is_some()
    }

    /// Tries a sequence.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub(crate) fn run(&mut self, steps: &[Step]) -> Result<Came, Error> {
        self.back();
        // In the machine, where it is forgotten with the thread that has not come to its end.
        let (answers, own) = self.machine.inside(|_| (Rc::new(RefCell::new(Vec::new())), steps.to_vec()));
        let (slot, handles) = (Rc::clone(&answers), self.handles);
        let ended = self.machine.on_thread("a sequence of requests", move |cx| {
            carry_out(cx, handles, &own, &mut |answer| outside(|| slot.borrow_mut().push(answer.clone())))
        });
        let nt = self.machine.nt();
        let reached = self.machine.host.reached_count();
        let new_code = std::mem::replace(&mut self.reached, reached) < reached;
        let written = self.machine.registers_written();
        let verdicts = nt.findings().into_iter().chain(nt.verdict());
        let hangs = nt.verdict().is_some_and(|verdict| verdict.rule == HANGS);
        let wrong =
            verdicts.filter(|verdict| verdict.tier != Tier::Advice).map(|verdict| key(&verdict)).collect();
        Ok(Came { answers: answers.take(), new_code, written, wrong, stopped: ended.is_err(), hangs })
    }

    /// Takes the machine back to where sequences begin.
    fn back(&self) {
        self.machine.back(&self.mark);
        self.machine.stuck.set(false);
    }
}

fn carry_out(
    cx: &mut Cx<'_>,
    mut handles: [Option<ob::Handle>; 2],
    steps: &[Step],
    answered: &mut dyn FnMut(&Answer),
) -> Flow<()> {
    let mut left: Vec<Begun> = Vec::new();
    for (step, Step { on_other, deed }) in steps.iter().enumerate() {
        let of = usize::from(*on_other);
        match (deed, handles[of]) {
            (Deed::Poke(pokes), _) => {
                for Poke { device, signal, value } in pokes {
                    let _ = play::poke(cx, device, signal, *value)?;
                    wait::sleep(cx, APART)?;
                }
            }
            (Deed::Ask(request), Some(handle)) => {
                let begun = transfer::begin(cx, handle, request, false)?;
                let waited = !begun.is_over(cx)?;
                if waited {
                    wait::sleep(cx, PATIENCE)?;
                }
                cancel(cx, &begun)?;
                answered(&Answer { step, waited, end: begun.wait(cx)? });
            }
            (Deed::Leave(request, times), Some(handle)) => {
                for _ in 0..*times {
                    left.push(transfer::begin(cx, handle, request, false)?);
                }
            }
            (Deed::Close, Some(handle)) => {
                let _ = file::close(cx, handle)?;
                handles[of] = None;
            }
            // It is closed.
            (_, None) => {}
        }
    }
    if !left.is_empty() {
        wait::sleep(cx, PATIENCE)?;
        for begun in left {
            cancel(cx, &begun)?;
            let _ = begun.wait(cx)?;
        }
    }
    for handle in handles.into_iter().flatten() {
        let _ = file::close(cx, handle)?;
    }
    Ok(())
}

/// Cancels a request, if it is under way.
fn cancel(cx: &mut Cx<'_>, begun: &Begun) -> Flow<()> {
    if let Some(overlapped) = begun.overlapped()
        && !begun.is_over(cx)?
    {
        let _ = cancel_request(cx, overlapped.status_block)?;
    }
    Ok(())
}
