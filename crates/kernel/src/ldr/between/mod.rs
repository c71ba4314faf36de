//! Code of the pseudo-image that stands between clients of a driver framework and the framework: what a client calls in the place of the
//! framework's functions, and the framework in the place of the client's callbacks. It is executable, and is laid out when the first client is
//! bound. What is seen there is `wdf`'s.

pub(crate) mod callback;
pub(crate) mod ddi;

use engine::Protection;
use engine::windows::PAGE;

use super::{pseudo, symbols};
use crate::cx::{Cx, Kernel};
use crate::mm::map::Page;
use crate::wdf;

/// Lays it out, the first time. False if the machine has no memory for it.
#[must_use]
pub(crate) fn boot(cx: &mut Cx<'_>) -> bool {
    if cx.with(|k| k.ldr.has_clients) {
        return true;
    }
    let first = ddi::entry(0) & !(PAGE - 1);
    let count = (callback::end() - first).div_ceil(PAGE);
    let laid_out = cx.with(|k| {
        let Some(pages) = k.mm.physical.take_pages(count) else { return false };
        let page = Page { physical: 0, protection: Protection::READ_EXECUTE, pageable: false };
        k.mm.map.map_filled(k.engine, first, &pages, page, |engine| {
            engine.fill(first, count * PAGE, 0xcc)?;
            engine.write_bytes(ddi::entry(0), &ddi::code())?;
            engine.write_bytes(callback::entry(0), &callback::code())
        });
        k.ldr.has_clients = true;
        true
    });
    if laid_out {
        ddi::define(cx);
        callback::define(cx);
    }
    laid_out
}

/// Whether `address` lies in it: such frames say nothing to an engineer.
pub(crate) fn contains(address: u64) -> bool {
    ddi::contains(address) || callback::contains(address)
}

/// How far above the stack pointer the return address is at `address`.
pub(crate) fn pushed_at(address: u64) -> Option<u64> {
    ddi::pushed_at(address).or_else(|| callback::pushed_at(address))
}

/// The function or the callback whose entry `address` lies in.
pub(super) fn name_at(k: &Kernel, address: u64) -> Option<String> {
    let of_callback = || {
        let routine = wdf::callbacks::routine_of(k, callback::slot_at(address)?)?;
        Some(symbols::code(k, routine))
    };
    ddi::name_at(address).or_else(of_callback)
}

/// The displacement that leads from `behind` an instruction to `to`.
fn distance(behind: u64, to: u64) -> [u8; 4] {
    let distance = i64::try_from(to).expect("low") - i64::try_from(behind).expect("low");
    i32::try_from(distance).expect("both lie in the pseudo-image").to_le_bytes()
}

/// The address of a number, thunk or not.
fn place(number: u32) -> u64 {
    pseudo::thunk(number)
}
