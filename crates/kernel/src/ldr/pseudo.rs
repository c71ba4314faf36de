//! The pseudo-image: the one place in the images' window where the kernel's exports have addresses.
//!
//! Export `number` is a thunk at `base + 1000h + 16 × number`: rows of the export table, then the internal rows, then,
//! in pages that are never mapped, one for each import that no module has: calling it and reading it both end in a verdict
//! that names it. Exported variables lie behind, headers (`kernel_image`) and what is code (`code`) on its first page. A thunk has no code:
//! the engine knows the addresses.

use abi::{Code, DriverPtr};
use engine::windows::{IMAGES, PAGE};
use engine::{Flow, Protection};

use super::kernel_image;
use crate::cx::Cx;
use crate::exports::{self, FUNCTIONS, INTERNAL, data};
use crate::ke::irql;
use crate::mm::map::Page;

/// The first number of imports that no module has.
pub(crate) const FIRST_MISSING: u32 = 0x4000;
/// Numbers from one missing import to the next: 256 bytes, since it may be a variable that is read at an offset.
pub(crate) const MISSING_STRIDE: u32 = 16;
/// Where a stub stands in an export's place ([`crate::nt::Settings::stubbed`]), its thunk calls the number that lies this far behind its own.
pub(crate) const STUBBED: u32 = 0x2000;
/// The first number where the code lies that stands between clients of a framework and the framework ([`super::between`]).
pub(crate) const FIRST_BETWEEN: u32 = 0xE_F000;
/// The first number of what Windows exports by a documented name and dirql does not: only the directory of the kernel's image leads there,
/// and nothing is defined for it.
pub(crate) const FIRST_DOCUMENTED: u32 = 0xF_0000;
/// The number behind the last.
pub(crate) const END: u32 = 0x10_0000;

/// Where driver images may begin.
pub(crate) const FIRST_IMAGE: u64 = IMAGES.base + 0x0200_0000;

const THUNKS: u64 = PAGE;

const _: () = assert!(THUNKS + 16 * (END as u64) <= data::OFFSET);
const _: () = assert!(exports_base() + data::OFFSET + data::PAGES * PAGE <= FIRST_IMAGE);

/// Where the pseudo-image begins.
#[must_use]
pub const fn exports_base() -> u64 {
    IMAGES.base
}

/// The address of export `number`.
pub(crate) const fn thunk(number: u32) -> u64 {
    exports_base() + THUNKS + 16 * (number as u64)
}

/// The number whose thunk `address` lies in.
pub(crate) fn number_at(address: u64) -> Option<u32> {
    let number = u32::try_from(address.checked_sub(exports_base() + THUNKS)? / 16).ok()?;
    (number < END).then_some(number)
}

/// The thunk of an exported routine.
#[must_use]
pub fn export_address(name: &str) -> Option<DriverPtr<Code>> {
    let row = FUNCTIONS.binary_search_by(|export| export.name.cmp(name)).ok()?;
    Some(DriverPtr::new(thunk(number(row))))
}

/// The row of an exported routine.
pub(super) fn export_row(name: &str) -> Option<&'static exports::Export> {
    let row = FUNCTIONS.binary_search_by(|export| export.name.cmp(name)).ok()?;
    Some(&FUNCTIONS[row])
}

/// The thunk of an internal routine, for the kernel to put into a structure.
///
/// # Panics
/// If there is none of that name: ours to get right.
#[must_use]
pub fn internal_address(name: &str) -> DriverPtr<Code> {
    let row = INTERNAL.iter().position(|export| export.name == name);
    let row = row.unwrap_or_else(|| panic!("no row {name} in exports/internal.rs"));
    DriverPtr::new(thunk(number(FUNCTIONS.len() + row)))
}

fn number(row: usize) -> u32 {
    u32::try_from(row).expect("the tables are far smaller")
}

/// Lays the pseudo-image out: thunks and variables. Once; later calls do nothing.
///
/// # Errors
/// None today; it is part of starting a machine, which may stop.
pub fn boot(cx: &mut Cx<'_>) -> Flow<()> {
    if cx.with(|k| std::mem::replace(&mut k.ldr.booted, true)) {
        return Ok(());
    }
    let rows = number(exports::own_rows());
    assert!(rows <= STUBBED, "more exports than the pseudo-image has room for");
    let stubbed = cx.with(|k| k.ldr.stubbed.clone());
    cx.engine().define_exports((0..rows).map(|number| {
        let name = exports::row(number).map(|export| export.name);
        if name == stubbed.as_deref() {
            return (thunk(number), STUBBED + number, None);
        }
        (thunk(number), number, name.and_then(irql::short))
    }));
    let thunk_pages = (THUNKS + 16 * u64::from(rows)).div_ceil(PAGE);
    // What a driver finds that looks at a routine's bytes: int3.
    map(cx, exports_base(), thunk_pages, Protection::READ, 0xCC);
    kernel_image::boot(cx)?;
    let variables = exports_base() + data::OFFSET;
    map(cx, variables, data::PAGES, Protection::READ_WRITE, 0);
    data::fill(cx);
    for page in 0..data::PAGES {
        cx.with(|k| k.mm.map.protect(k.engine, variables + page * PAGE, 1, data::protection(page * PAGE)));
    }
    kernel_image::list(cx)
}

fn map(cx: &mut Cx<'_>, address: u64, count: u64, protection: Protection, fill: u8) {
    cx.with(|k| {
        let pages = k.mm.physical.take_pages(count).expect("a machine that starts has memory");
        let page = Page { physical: 0, protection, pageable: false };
        k.mm.map
            .map_filled(k.engine, address, &pages, page, |engine| engine.fill(address, count * PAGE, fill));
    });
}
