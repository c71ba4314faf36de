//! Requests that end by themselves if they are made alone: one that never does though nothing keeps its driver from it, that fails by a time limit,
//! that is refused behind what has been cancelled, that gives what is another's, that ends before its time, or otherwise where the computer has been running for long.
//!
//! Pages: *When to Complete an IRP*, *Handling an IRP_MN_CANCEL_STOP_DEVICE Request* and *Handling an
//! IRP_MN_CANCEL_REMOVE_DEVICE Request* (what was held back goes on), *Writing an ISR* (the routine keeps what the DPC needs). Which requests end by
//! themselves, and which ends another, no page says: the script does that asks (`must-end`, `must-succeed`, `must-answer`, `must-last`, `must-be`, `must-differ`).
//!
//! *Ours* are the conditions: every device that has a driver is started, and in D0 or in a lower state that only its driver has asked for, the system works, no call was made to fail, and cards are neither
//! late nor silent (`--platform late-cards=1`, `silent-cards`). Time in which a policy holds threads up does not count: a driver's time limit cannot know of it.

use abi::{
    DriverPtr, IO_STATUS_BLOCK, NtStatus, PowerDeviceD0, PowerDeviceUnspecified, PowerSystemUnspecified,
};
use engine::Flow;

use super::{cancel, pending, violation};
use crate::cx::Cx;
use crate::hal::promptness;
use crate::ke::scheduler;
use crate::pnp::node::{Node, State};
use crate::po::fx;
use crate::verdict::{Awaited, Verdict};

/// What [`nothing_hinders`] is about, where no call was made to fail,
const CONDITIONS: &str =
    "all devices are started, and in D0 or powered down by their own drivers; no call was made to fail";
/// and where one was.
const CONDITIONS_BEHIND: &str = "all devices are started, and in D0 or powered down by their own drivers; a call was made to fail before it was asked for, and none since";

/// So many bytes of an answer are shown.
const SHOWN: usize = 8;

/// Nanoseconds since boot in which no thread was held up.
pub fn time(cx: &mut Cx<'_>) -> u64 {
    cx.with(|k| scheduler::time_of_its_own(k))
}

/// When the request whose end is written to `status_block` ended, in nanoseconds since boot; none if it ended at once, or many have since.
#[must_use]
pub fn ended_at(cx: &mut Cx<'_>, status_block: DriverPtr<IO_STATUS_BLOCK>) -> Option<u64> {
    cx.with(|k| k.io.ends.of(status_block))
}

/// How many calls were made to fail so far.
pub fn refusals(cx: &Cx<'_>) -> u64 {
    cx.nt().departures.refused()
}

/// Whether nothing keeps drivers from ending what they are asked for, but for calls that were made to fail.
pub fn nothing_hinders(cx: &mut Cx<'_>) -> bool {
    cx.with(|k| {
        let in_d0 = |state: u32| [PowerDeviceUnspecified, PowerDeviceD0].contains(&state);
        // A driver that has powered its device down for itself can power it up.
        let is_lowered = !k.po.lowered_from_outside.is_empty() || fx::directed::is_any_down(k);
        let can_be_up = |state: u32| !is_lowered || in_d0(state);
        let serves =
            |node: &Node| node.driver.is_null() || node.state == State::Started && can_be_up(node.power);
        !promptness::are_late(k)
            && k.po.asleep == PowerSystemUnspecified
            && k.po.devices.values().all(|state| can_be_up(*state))
            && k.pnp.nodes.values().all(serves)
    })
}

/// What a request is to end by, each as the script has it.
pub enum Ends<'a> {
    /// By itself.
    Alone,
    /// By this request, which has succeeded.
    Behind(&'a str),
    /// By itself or by this, which the outside world has done to a card since.
    Besides(&'a str),
    /// By itself, or as the handle is closed through which it was made, which has been closed since.
    Closed,
}

/// The request whose end will be written to `status_block` is not over: `what` it is, as the script has it, what `ends` it, and after how long.
///
/// # Errors
/// As reading the driver's memory.
pub fn forgotten(
    cx: &mut Cx<'_>,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    what: &str,
    ends: &Ends<'_>,
    seconds: u64,
) -> Flow<()> {
    for irp in cancel::ending_in(cx, status_block)? {
        let (device, name) = violation::holder(cx, DriverPtr::new(irp));
        let holder = if device.is_null() { "no driver" } else { &name };
        let expected = match ends {
            Ends::Alone => "Made alone it ends by itself".to_owned(),
            Ends::Closed => "Made alone it ends when its handle is closed, and that is closed".to_owned(),
            Ends::Behind(other) => format!("It ends when `{other}` is made, and that has succeeded since"),
            Ends::Besides(event) => {
                format!("It ends by itself or by what comes of `{event}`, and that has happened since")
            }
        };
        let conditions = if refusals(cx) == 0 { CONDITIONS } else { CONDITIONS_BEHIND };
        let message = format!(
            "`{what}` has not ended after {seconds} s: its IRP {irp:#x} is with {holder}. {expected}; {conditions}"
        );
        let awaited = match ends {
            Ends::Behind(other) => Some(Awaited { waits: what.to_owned(), ends: (*other).to_owned() }),
            Ends::Alone | Ends::Besides(_) | Ends::Closed => None,
        };
        let verdict = pending::of_irp(cx, irp, Verdict::warning("request-forgotten", message));
        let verdict = Verdict { awaited, ..verdict };
        cx.report(verdict);
    }
    Ok(())
}

/// The request has failed, and late.
pub fn timed_out(cx: &mut Cx<'_>, what: &str, status: NtStatus) {
    // A bus driver that answers later takes longer than some drivers wait for it, and rightly so.
    if cx.with(|k| k.hal.platform.later_bus) {
        return;
    }
    let message = format!(
        "`{what}` has failed with {status} by a time limit. Made alone it succeeds in time; {CONDITIONS}, and the device has done what it does then"
    );
    cx.report(Verdict::warning("request-timed-out", message));
}

/// The request has failed, and nothing that was asked for before is under way, or as what was asked for before it, `behind`, has succeeded.
pub fn refused(cx: &mut Cx<'_>, what: &str, status: NtStatus, behind: Option<&str>) {
    let expected = match behind {
        Some(other) => {
            format!(
                " as `{other}` had succeeded, which was asked for before it. It succeeds behind that, too"
            )
        }
        None => ". It succeeds alone, and all that was asked for before has ended".to_owned(),
    };
    let message = format!("`{what}` has failed with {status}{expected}; {CONDITIONS}");
    cx.report(Verdict::warning("request-refused", message));
}

/// The request has ended as if its time were over: it `lasted` so many nanoseconds, and it would `least` last so many with a shorter time.
pub fn ended_early(cx: &mut Cx<'_>, what: &str, status: NtStatus, (lasted, least): (u64, u64)) {
    let [lasted, least] = [lasted, least].map(|time| time / 1_000_000);
    let message = format!(
        "`{what}` has ended with {status} after {lasted} ms, as one whose time is over. With a shorter time it lasts {least} ms; {CONDITIONS}"
    );
    cx.report(Verdict::warning("request-ended-early", message));
}

/// So many nanoseconds the computer had been running when the machine was made.
pub fn uptime(cx: &mut Cx<'_>) -> u64 {
    cx.with(|k| k.hal.platform.uptime)
}

/// The request has this status, and another one, `usual`, where the same requests are made in a computer that was started lately.
pub fn depends_on_uptime(cx: &mut Cx<'_>, what: &str, [status, usual]: [NtStatus; 2]) {
    let state = |status| match status {
        NtStatus::PENDING => "is under way still".to_owned(),
        status => format!("has ended with {status}"),
    };
    let days = uptime(cx) / 1_000_000_000 / 864;
    let message = format!(
        "`{what}` {}, {}.{:02} days after the computer was started. Where that was lately, it {} behind the same requests; {CONDITIONS}",
        state(status),
        days / 100,
        days % 100,
        state(usual)
    );
    cx.report(Verdict::warning("request-depends-on-uptime", message));
}

/// A request has handed out the number, and another one the same before, which has not been given back.
pub fn given_twice(cx: &mut Cx<'_>, what: &str, number: u32) {
    let message = format!(
        "`{what}` has handed out the number {number}, which was handed out before and has not been given back: what takes it cannot tell whose it is; {CONDITIONS}"
    );
    cx.report(Verdict::warning("number-given-twice", message));
}

/// The request has succeeded with what is another's: `given`, and not its own answer.
pub fn mixed_up(cx: &mut Cx<'_>, what: &str, answer: &[u8], given: &[u8]) {
    let at = answer.iter().zip(given).position(|(own, given)| own != given);
    let at = at.unwrap_or_else(|| answer.len().min(given.len()));
    let shown = |bytes: &[u8]| {
        let bytes = bytes.get(at..).unwrap_or_default().iter().take(SHOWN);
        bytes.map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let message = format!(
        "`{what}` has succeeded with {} bytes that are of a request of another input (from byte {at} on: {}). Made alone, before others and behind them, it gives its own (there: {})",
        given.len(),
        shown(given),
        shown(answer)
    );
    // However it is asked for, and whatever it gives.
    let identity = what.split(" in ").next().map(str::to_owned);
    cx.report(Verdict { identity, ..Verdict::warning("answer-of-another", message) });
}
