//! What the user's hand and the outside world do: Plug and Play, power, signals.

use engine::Flow;
use kernel::Cx;
use kernel::ke::interrupt;
use kernel::verdict::Verdict;

use super::carry::Outcome;
use super::expect::status;
use crate::machine::{Device, Step, step};
use crate::script::{Expectations, PnpEvent};

/// The outside world acts on a card.
pub(super) fn poke(cx: &mut Cx<'_>, device: &str, signal: &str, value: u64) -> Flow<Outcome> {
    let text = value.to_string();
    let poked = cx.with(|k| {
        let now = k.engine.now();
        k.hardware(now, |hardware, at| hardware.poke(at, device, signal, &text))
    });
    if poked.is_ok() {
        interrupt::deliver(cx)?;
    }
    Ok(poked)
}

/// The PnP manager, or the user's hand, does something to a device.
pub(super) fn pnp(
    cx: &mut Cx<'_>,
    event: PnpEvent,
    device: Option<String>,
    expect: &Expectations,
) -> Flow<Outcome> {
    let what = match event {
        PnpEvent::Start => Step::Start,
        PnpEvent::Stop => Step::Stop,
        PnpEvent::QueryStop => Step::QueryStop,
        PnpEvent::CancelStop => Step::CancelStop,
        PnpEvent::Remove => Step::Remove,
        PnpEvent::QueryRemove => Step::QueryRemove,
        PnpEvent::CancelRemove => Step::CancelRemove,
        PnpEvent::SurpriseRemove => Step::SurpriseRemove,
    };
    let device = device.map_or(Device::First, Device::Named);
    match step(cx, device, what)? {
        Ok(seen) => Ok(status(seen.0, &expect.status)),
        Err(why) => Ok(Err(why)),
    }
}

/// The device goes to a power state.
pub(super) fn power(
    cx: &mut Cx<'_>,
    _state: u8,
    _device: Option<String>,
    _expect: &Expectations,
) -> Flow<Outcome> {
    Err(cx.stop(Verdict::not_implemented("the script's command `power`")))
}
