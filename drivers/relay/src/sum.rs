//! Sums of factorials, which the driver below is asked for one by one.
//!
//! Page: *Creating IRPs for Lower-Level Drivers*. The request that wants to know is what the child keeps; the same child goes down again
//! for the next number.

use core::sync::atomic::Ordering;

use wdm::abi::{FILE_ANY_ACCESS, FILE_DEVICE_UNKNOWN, METHOD_BUFFERED, ctl_code};
use wdm::{
    Answer, AtMostDispatch, Child, Device, DispatchOrBelow, Ended, Irp, NtStatus, PendingIrp, Request, Result,
};

use crate::TAG;
use crate::filter::Filter;

/// What the driver below computes.
const FACTORIAL: u32 = ctl_code(FILE_DEVICE_UNKNOWN, 0xC00, METHOD_BUFFERED, FILE_ANY_ACCESS);

/// A sum so far.
struct Sum {
    irp: PendingIrp,
    /// The number whose factorial is asked for.
    number: u32,
    last: u32,
    sum: u32,
}

type Asking = Child<Filter, Sum, 4>;

/// The number of a request that has room for an answer.
fn number(irp: &mut Irp<'_>) -> Result<u32> {
    let number = irp.input()?;
    if irp.control().output < 4 { Err(NtStatus::BUFFER_TOO_SMALL) } else { Ok(number) }
}

/// Asks for the sum; the request ends with the last child.
pub(crate) fn begin<'irp>(
    device: &Device<Filter>,
    mut irp: Irp<'irp>,
    level: &mut DispatchOrBelow,
) -> Answer<'irp> {
    let last = match number(&mut irp) {
        Ok(last) => last,
        Err(status) => return irp.complete(status, 0, level),
    };
    let (irp, answer) = irp.pend();
    let sum = Sum { irp, number: 1, last, sum: 0 };
    if last == 0 {
        sum.end(NtStatus::SUCCESS, level);
    } else if let Ok(child) = Asking::new(device, sum, TAG, level) {
        ask(device, child, level);
    } // else the request has failed with what it was for
    answer
}

/// Asks for the next factorial.
fn ask<L: AtMostDispatch>(device: &Device<Filter>, mut child: Asking, level: &mut L) {
    *child.buffer() = child.context().number.to_le_bytes();
    let request = Request::Control { code: FACTORIAL, input: 4, output: 4 };
    if let Err((child, status)) = child.send(device, request, answered, level) {
        child.into_context().end(status, level);
    }
}

/// A child came back.
fn answered(device: &Device<Filter>, mut child: Asking, ended: Ended, level: &mut DispatchOrBelow) {
    device.children.fetch_add(1, Ordering::Relaxed);
    if !ended.status.is_success() || ended.information != 4 {
        return child.into_context().end(ended.status, level);
    }
    let factorial = u32::from_le_bytes(*child.buffer());
    let sum = child.context();
    sum.sum = sum.sum.wrapping_add(factorial);
    if sum.number == sum.last {
        return child.into_context().end(NtStatus::SUCCESS, level);
    }
    sum.number += 1;
    ask(device, child, level);
}

impl Sum {
    fn end<L: AtMostDispatch>(self, status: NtStatus, level: &mut L) {
        let Self { mut irp, sum, .. } = self;
        match irp.output(&sum) {
            Ok(bytes) if status.is_success() => irp.complete(status, bytes, level),
            Err(refused) if status.is_success() => irp.complete(refused, 0, level),
            _ => irp.complete(status, 0, level),
        }
    }
}

/// Asks and waits.
///
/// # Errors
/// Above `PASSIVE_LEVEL`, and what the driver below says.
pub(crate) fn wait(device: &Device<Filter>, irp: &mut Irp<'_>, level: &mut DispatchOrBelow) -> Result<usize> {
    let passive = level.as_passive().ok_or(NtStatus::INVALID_DEVICE_REQUEST)?;
    let mut sum = 0_u32;
    for number in 1..=number(irp)? {
        let mut factorial = [0; 4];
        let came = device.control_below(FACTORIAL, &number.to_le_bytes(), &mut factorial, passive)?;
        if came != factorial.len() {
            return Err(NtStatus::INVALID_DEVICE_STATE);
        }
        sum = sum.wrapping_add(u32::from_le_bytes(factorial));
    }
    irp.output(&sum)
}
