//! Other resources for a device that is stopped: other bus addresses for its windows, another interrupt line, other messages.
//!
//! Pages: *Stopping a Device to Rebalance Resources*, *IRP_MN_START_DEVICE*. What Windows' arbiters do to make room for a new device is
//! done here to the device the caller names, room or not: each window goes to the next free place of its kind, the pin to the next line. What the
//! stack's (filtered) requirements do not allow stays where it was. *It does not* move the windows of other devices.

use abi::NtStatus;
use engine::Flow;

use super::enumerate::{routed, tell};
use super::lock::exclusively;
use super::node::{self, NodeId, State};
use super::start::{StartFailure, Started};
use super::supply::Supply;
use super::{message, requirements, resource, stop};
use crate::cx::{Cx, Kernel};
use crate::hal::hardware::{Function, PciAddress, Width, Window};

/// Where memory windows below 4 GiB, those above, and ports lie; what lies elsewhere (below 1 MiB) is not moved.
const MEMORY: (u64, u64) = (0xE000_0000, 0xFEC0_0000);
const HIGH_MEMORY: (u64, u64) = (0x80_0000_0000, 0x100_0000_0000);
const PORTS: (u64, u64) = (0xC000, 0x1_0000);
/// Memory windows have pages of their own.
const PAGE: u64 = 0x1000;
/// The interrupt lines of PCI.
const LINES: (u32, u32) = (16, 24);
/// The first base address register in configuration space.
const BASES: u16 = 0x10;

/// Starts a stopped device again, with other resources than it had, as far as there are any that its stack can use.
///
/// # Errors
/// As [`stop::restart`].
pub fn restart(cx: &mut Cx<'_>, id: NodeId) -> Flow<Started> {
    exclusively(cx, |cx| {
        let state = node::state(cx, id);
        if state != State::Stopped {
            let why = format!("the device is {}", state.name());
            return Ok(Err(StartFailure { step: "restart", status: NtStatus::INVALID_DEVICE_STATE, why }));
        }
        give(cx, id);
        stop::restart_while_locked(cx, id)
    })
}

/// Gives a device other resources, which it has from its next `IRP_MN_START_DEVICE` on. False if its stack can use none.
pub(super) fn give(cx: &mut Cx<'_>, id: NodeId) -> bool {
    let (list, is_card) = cx.with(|k| {
        let node = k.pnp.node(id);
        (node.requirements.clone(), node.card().is_some())
    });
    if list.is_empty() || !is_card {
        return false;
    }
    let (moved, offered) = cx.with(|k| {
        let moved = others(k, id);
        let interrupt = moved.line.map(|line| routed(k, line));
        let offered = resource::of_function(&moved, interrupt);
        (moved, offered)
    });
    let offer = message::offer(cx, id);
    let supply = offer.map(|offer| cx.with(|k| Supply::new(k, offer)));
    let given = requirements::assign(&list, &offered, supply.as_ref());
    tell(cx, id, if given.is_ok() { "other resources for" } else { "no other resources for" });
    let Ok(resources) = given else { return false };
    cx.with(|k| {
        k.pnp.card_mut(id).moves = Some(moved);
        k.pnp.node_mut(id).resources = resources;
    });
    true
}

/// The bus driver starts a device: if it has been given other places, it is there from now on.
pub(super) fn settle(k: &mut Kernel, id: NodeId) {
    let Some(moved) = k.pnp.card_mut(id).moves.take() else { return };
    let before = std::mem::replace(&mut k.pnp.card_mut(id).function, moved.clone());
    for window in moved.windows.iter().filter(|window| window.base != 0) {
        write_base(k, moved.address, window);
    }
    if let Some(line) = moved.line {
        k.hal.hardware.route(moved.address, line);
    }
    k.hal.stale.moved(&moved.name, &before.windows, &moved.windows);
}

/// The line after this one.
const fn next_line(line: u32) -> u32 {
    if line + 1 < LINES.1 { line + 1 } else { LINES.0 }
}

/// The function with its windows at other places, where there are any, and its pin on another line.
fn others(k: &Kernel, id: NodeId) -> Function {
    let mut taken: Vec<Window> = k.hal.hardware.functions().into_iter().flat_map(|f| f.windows).collect();
    let mut moved = k.pnp.card(id).function.clone();
    for window in &mut moved.windows {
        if let Some(base) = free_place(window, &taken) {
            window.base = base;
            taken.push(*window);
        }
    }
    moved.line = moved.line.map(next_line);
    moved
}

/// The next free place for a window behind its own, or from the beginning of the space.
fn free_place(window: &Window, taken: &[Window]) -> Option<u64> {
    let spaces = if window.port { &[PORTS][..] } else { &[MEMORY, HIGH_MEMORY] };
    let (start, end) = *spaces.iter().find(|(start, end)| (*start..*end).contains(&window.base))?;
    let step = if window.port { window.length } else { window.length.max(PAGE) };
    let is_free = |base: &u64| {
        base + step <= end
            && !taken.iter().any(|other| {
                let length = if other.port { other.length } else { other.length.max(PAGE) };
                other.port == window.port && other.base < base + step && *base < other.base + length
            })
    };
    let from = |first: u64| (0..(end - start) / step).map(move |n| first.next_multiple_of(step) + n * step);
    from(window.base + step)
        .take_while(|base| *base < end)
        .find(is_free)
        .or_else(|| from(start).find(is_free))
}

fn write_base(k: &mut Kernel, at: PciAddress, window: &Window) {
    let register = BASES + 4 * u16::from(window.bar);
    let [low, high] = [window.base, window.base >> 32].map(|half| (half & 0xFFFF_FFFF) as u32);
    let hardware = k.configuration();
    hardware.config_write(at, register, Width::Dword, low);
    if high != 0 {
        hardware.config_write(at, register + 4, Width::Dword, high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn window(port: bool, base: u64, length: u64) -> Window {
        Window { bar: 0, port, base, length, prefetchable: false }
    }

    #[test]
    fn a_window_goes_to_the_next_free_place_of_its_kind() {
        let card = window(false, 0xE000_0000, 0x80);
        assert_eq!(free_place(&card, &[card]), Some(0xE000_1000), "a page of its own");
        let next = window(false, 0xE000_1000, 0x2000);
        assert_eq!(free_place(&card, &[card, next]), Some(0xE000_3000));
        let big = window(false, 0xE010_0000, 0x10_0000);
        assert_eq!(free_place(&big, &[card, big]), Some(0xE020_0000), "aligned to its size");
        let last = window(false, 0xFEBF_F000, 0x1000);
        assert_eq!(free_place(&last, &[last, card]), Some(0xE000_1000), "and from the beginning");
        let ports = window(true, 0xC000, 0x100);
        assert_eq!(free_place(&ports, &[ports, card]), Some(0xC100));
        let high = window(false, 0x80_0000_0000, 0x1000);
        assert_eq!(free_place(&high, &[high]), Some(0x80_0000_1000));
    }

    #[test]
    fn a_window_without_another_place_stays() {
        let option_rom = window(false, 0xD_0000, 0x1000);
        assert_eq!(free_place(&option_rom, &[option_rom]), None, "below 1 MiB nothing is moved");
        let all = window(true, 0xC000, 0x4000);
        assert_eq!(free_place(&all, &[all]), None, "there are no other ports");
    }

    #[test]
    fn a_line_is_followed_by_the_next_of_the_eight() {
        assert_eq!((next_line(16), next_line(22), next_line(23)), (17, 23, 16));
    }
}
