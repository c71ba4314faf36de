//! RAM by its physical address: where it is shown, or in a place of its own for the time of one access.
//!
//! Pages: *Bug Check 0xE6: DRIVER_VERIFIER_DMA_VIOLATION*, *Device\PhysicalMemory Object*: bus masters reach it so, and views of physical
//! memory that are not all RAM. They check the right to it.

use engine::windows::PAGE;
use engine::{Engine, Protection};

use super::State;
use super::map::Page;
use super::physical::is_ram;
use super::space::Zone;
use crate::cx::Kernel;

/// Goes to where the page that holds `physical` is shown; to a place of its own, if it is shown nowhere that allows it.
pub(super) fn at(
    engine: Engine,
    mm: &mut State,
    physical: u64,
    shown: &[(u64, Page)],
    write: bool,
    go: impl FnOnce(Engine, u64),
) {
    let (page, offset) = (physical & !(PAGE - 1), physical % PAGE);
    let allows = |protection: Protection| if write { protection.write } else { protection.read };
    if let Some((at, _)) = shown.iter().find(|(_, page)| allows(page.protection)) {
        go(engine, at + offset);
    } else {
        let at = mm.space.take(Zone::Mappings, 1).expect("there are addresses for one page");
        let own = Page { physical: page, protection: Protection::READ_WRITE, pageable: false };
        mm.map.map(engine, at, &[page], own);
        go(engine, at + offset);
        mm.map.unmap(engine, at, 1);
        mm.space.give(Zone::Mappings, at, 1);
    }
}

/// Loads up to 8 bytes; none if there is no RAM.
pub(crate) fn load(k: &mut Kernel, physical: u64, bytes: usize) -> Option<u64> {
    if !is_ram(physical) {
        return None;
    }
    let mut value = [0; 8];
    for (address, byte) in (physical..).zip(&mut value[..bytes]) {
        go_to(k, address, false, |engine, at| {
            engine.read_bytes(at, std::slice::from_mut(byte)).expect("a page that was found can be read");
        });
    }
    Some(u64::from_le_bytes(value))
}

/// Loads bytes of one page; false if there is no RAM.
pub(crate) fn load_bytes(k: &mut Kernel, physical: u64, into: &mut [u8]) -> bool {
    if !is_ram(physical) {
        return false;
    }
    go_to(k, physical, false, |engine, at| {
        engine.read_bytes(at, into).expect("a page that was found can be read");
    });
    true
}

/// Stores up to 8 bytes; false if there is no RAM.
pub(crate) fn store(k: &mut Kernel, physical: u64, bytes: usize, value: u64) -> bool {
    if !is_ram(physical) {
        return false;
    }
    for (address, byte) in (physical..).zip(&value.to_le_bytes()[..bytes]) {
        go_to(k, address, true, |engine, at| {
            engine.write_bytes(at, &[*byte]).expect("a page that was found can be written");
            engine.stored(at, 1);
        });
    }
    true
}

/// Copies memory from one physical address to another; where there is no RAM, nothing.
pub(crate) fn copy(k: &mut Kernel, from: u64, to: u64, bytes: u64) {
    let mut done = 0;
    while done < bytes {
        let (source, target) = (from.wrapping_add(done), to.wrapping_add(done));
        let step = (PAGE - source % PAGE).min(PAGE - target % PAGE).min(bytes - done);
        let mut data = vec![0; usize::try_from(step).unwrap_or(0)];
        go_to(k, source, false, |engine, at| {
            engine.read_bytes(at, &mut data).expect("a page that was found can be read");
        });
        go_to(k, target, true, |engine, at| {
            engine.write_bytes(at, &data).expect("a page that was found can be written");
            engine.stored(at, step);
        });
        done += step;
    }
}

/// As [`at`]; where RAM ends within an access, nothing happens.
fn go_to(k: &mut Kernel, physical: u64, write: bool, go: impl FnOnce(Engine, u64)) {
    if is_ram(physical) {
        let shown = k.mm.map.showing(physical & !(PAGE - 1));
        at(k.engine, &mut k.mm, physical, &shown, write, go);
    }
}
