//! Control flow guard: which addresses indirect calls of guarded drivers may reach, in a bitmap of two bits for 16 bytes.
//!
//! Pages: *Control Flow Guard for platform security*, *PE Metadata* (of it), *PE Format* (load configuration). As Windows 11
//! with memory integrity has it, which is its default: the bits are 0 for no target, 1 for one at the 16 bytes' start, 3 for
//! any in them. An image without a function table may be entered everywhere. Long jumps and export suppression are not
//! looked at.

use engine::Protection;
use engine::windows::{IMAGES, PAGE, SYSTEM};
use image::Image;

use super::{code, pseudo};
use crate::cx::Kernel;
use crate::mm::map::Page;
use crate::nt::WindowsVersion;

/// What the guard routines read: the first image, how many bytes of images there are, the first routine of the kernel's, the
/// end of images; a page further the bits. Behind all zones of system memory.
pub(super) const HEAD: u64 = SYSTEM.base + 0xE_0000_0000;
const BITS: u64 = HEAD + PAGE;

/// Bytes of images that a page of bits stands for.
const COVERED: u64 = PAGE * 8 / 2 * 16;

/// Whether this Windows guards drivers.
pub(super) fn is_on(k: &Kernel) -> bool {
    k.ldr.windows >= WindowsVersion::Win11
}

/// Has the pointers of the image that it calls the guard by point to ours.
pub(super) fn point(image: &Image, bytes: &mut [u8]) {
    let config = image.load_config();
    let pointers = [
        (config.guard_check, code::address("guard_check_icall")),
        (config.guard_dispatch, code::address("guard_dispatch_icall")),
    ];
    for (place, routine) in pointers {
        if let (Some(place), Some(routine)) = (place, routine)
            && let Some(slot) = bytes.get_mut(place as usize..).and_then(<[u8]>::first_chunk_mut)
        {
            *slot = routine.to_le_bytes();
        }
    }
}

/// Enters the targets of an image at `base`. False if the machine has no memory for the bits.
#[must_use]
pub(super) fn enter(k: &mut Kernel, base: u64, image: &Image) -> bool {
    let offset = base - pseudo::FIRST_IMAGE;
    if !cover(k, offset + u64::from(image.size())) {
        return false;
    }
    let mut bits = vec![0_u8; usize::try_from(image.size().div_ceil(64)).expect("far smaller")];
    match image.guard_targets() {
        Some(targets) => targets.into_iter().for_each(|rva| {
            let state = if rva.is_multiple_of(16) { 1 } else { 3 };
            set(&mut bits, rva, state);
        }),
        None => {
            for range in image.protections().iter().filter(|range| range.protection.execute) {
                (range.rva..range.rva + range.size).step_by(16).for_each(|rva| set(&mut bits, rva, 3));
            }
        }
    }
    write(k, offset, &bits);
    true
}

/// Takes the targets of an image away.
pub(super) fn leave(k: &mut Kernel, base: u64, size: u64) {
    if k.ldr.guarded > 0 {
        let bits = vec![0; usize::try_from(size.div_ceil(64)).expect("far smaller")];
        write(k, base - pseudo::FIRST_IMAGE, &bits);
    }
}

fn set(bits: &mut [u8], rva: u32, state: u8) {
    if let Some(byte) = bits.get_mut(rva as usize / 64) {
        *byte |= state << (rva / 16 % 4 * 2);
    }
}

/// An image begins at a multiple of 64 KiB: with a byte of its own.
fn write(k: &mut Kernel, offset: u64, bits: &[u8]) {
    let (at, count) = (BITS + offset / 64, (offset % COVERED / 64 + bits.len() as u64).div_ceil(PAGE));
    let first = at & !(PAGE - 1);
    k.mm.map.protect(k.engine, first, count, Protection::READ_WRITE);
    k.engine.write_bytes(at, bits).expect("the bits of every image are mapped");
    k.mm.map.protect(k.engine, first, count, Protection::READ);
}

/// Has bits for this many bytes of images, at least.
fn cover(k: &mut Kernel, bytes: u64) -> bool {
    let have = k.ldr.guarded;
    let want = bytes.next_multiple_of(COVERED);
    if want <= have {
        return true;
    }
    // The first time the head as well.
    let at = if have == 0 { HEAD } else { BITS + have / 64 };
    let count = (BITS + want / 64 - at) / PAGE;
    let page = Page { physical: 0, protection: Protection::READ, pageable: false };
    let Some(pages) = k.mm.physical.take_pages(count) else { return false };
    k.mm.map.map_filled(k.engine, at, &pages, page, |engine| engine.fill(at, count * PAGE, 0));
    k.mm.map.protect(k.engine, HEAD, 1, Protection::READ_WRITE);
    let head = [pseudo::FIRST_IMAGE, want, pseudo::thunk(0), IMAGES.end()];
    let head: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
    k.engine.write_bytes(HEAD, &head).expect("the page is mapped");
    k.mm.map.protect(k.engine, HEAD, 1, Protection::READ);
    k.ldr.guarded = want;
    true
}
