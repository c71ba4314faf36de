//! The kernel's routines that are code themselves: they keep registers that a call of the kernel does not, and are entered
//! too often for one. They run as driver code does, from the first page of the pseudo-image.
//!
//! Pages: *__chkstk routine* (stack probes of functions with more than a page of locals), *Control Flow Guard for
//! platform security*. What the guard routines read is `guard`'s.

use engine::Protection;
use engine::windows::PAGE;

use super::{guard, pseudo};
use crate::cx::Kernel;
use crate::mm::map::Page;

/// A routine.
pub(crate) struct Routine {
    pub(crate) name: &'static str,
    /// Whether drivers import it by name.
    exported: bool,
    /// Bytes it has pushed where it may fault.
    pushed: u64,
    code: &'static [u8],
}

/// Where the first begins, behind the image's headers.
pub(super) const FIRST: u64 = 0x800;
/// Where each begins: this many bytes behind the one before.
const ROOM: u64 = 0x80;

const ROUTINES: [Routine; 4] = [
    Routine { name: "__chkstk", exported: true, pushed: 16, code: CHKSTK },
    Routine { name: "guard_check_icall", exported: false, pushed: 0, code: CHECK },
    Routine { name: "guard_dispatch_icall", exported: false, pushed: 0, code: DISPATCH },
    Routine { name: CAPTURE_CONTEXT, exported: true, pushed: 0, code: CAPTURE },
];

/// Touches each of the next `rax` bytes' pages below the caller's stack pointer, highest first; keeps all registers.
const CHKSTK: &[u8] = &[
    0x50, 0x41, 0x52, // push rax; push r10
    0x4c, 0x8d, 0x54, 0x24, 0x18, // lea r10, [rsp+18h]
    0x48, 0x3d, 0x00, 0x10, 0x00, 0x00, // next: cmp rax, 1000h
    0x72, 0x12, // jb last
    0x49, 0x81, 0xea, 0x00, 0x10, 0x00, 0x00, // sub r10, 1000h
    0x41, 0x84, 0x02, // test [r10], al
    0x48, 0x2d, 0x00, 0x10, 0x00, 0x00, // sub rax, 1000h
    0xeb, 0xe6, // jmp next
    0x49, 0x29, 0xc2, // last: sub r10, rax
    0x41, 0x84, 0x02, // test [r10], al
    0x41, 0x5a, 0x58, 0xc3, // pop r10; pop rax; ret
];

/// The routine of this name begins here, where the caller's registers still are as it left them, and goes on in the export's row
/// (`rtl::context`).
const CAPTURE_CONTEXT: &str = "RtlCaptureContext";

/// Stores the registers that a call does not keep in the `CONTEXT` at `rcx`; in `EFlags`, what `lahf` and `seto` have of the flags.
const CAPTURE: &[u8] = &[
    0x48, 0x89, 0x41, 0x78, // mov [rcx+78h], rax
    0x9f, 0x0f, 0x90, 0xc0, 0x89, 0x41, 0x44, // lahf; seto al; mov [rcx+44h], eax
    0x48, 0x89, 0x91, 0x88, 0x00, 0x00, 0x00, // mov [rcx+88h], rdx
    0x4c, 0x89, 0x81, 0xb8, 0x00, 0x00, 0x00, // mov [rcx+0B8h], r8
    0x4c, 0x89, 0x89, 0xc0, 0x00, 0x00, 0x00, // mov [rcx+0C0h], r9
    0x4c, 0x89, 0x91, 0xc8, 0x00, 0x00, 0x00, // mov [rcx+0C8h], r10
    0x4c, 0x89, 0x99, 0xd0, 0x00, 0x00, 0x00, // mov [rcx+0D0h], r11
    0x0f, 0x29, 0x81, 0xa0, 0x01, 0x00, 0x00, // movaps [rcx+1A0h], xmm0
    0x0f, 0x29, 0x89, 0xb0, 0x01, 0x00, 0x00, // movaps [rcx+1B0h], xmm1
    0x0f, 0x29, 0x91, 0xc0, 0x01, 0x00, 0x00, // movaps [rcx+1C0h], xmm2
    0x0f, 0x29, 0x99, 0xd0, 0x01, 0x00, 0x00, // movaps [rcx+1D0h], xmm3
    0x0f, 0x29, 0xa1, 0xe0, 0x01, 0x00, 0x00, // movaps [rcx+1E0h], xmm4
    0x0f, 0x29, 0xa9, 0xf0, 0x01, 0x00, 0x00, // movaps [rcx+1F0h], xmm5
    0xe9, 0, 0, 0, 0, // jmp to the export, which fills in the rest
];

/// Returns if `rcx` is a target of indirect calls; changes `rax`, `r10`, `r11` and flags.
const CHECK: &[u8] = &[
    0x49, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, // mov r11, guard::HEAD
    0x49, 0x89, 0xca, // mov r10, rcx
    0x4d, 0x2b, 0x13, // sub r10, [r11]: first image
    0x4d, 0x3b, 0x53, 0x08, // cmp r10, [r11+8]: bytes of images
    0x73, 0x35, // jae outside
    0x49, 0xc1, 0xea, 0x09, // shr r10, 9: two bits for 16 bytes
    0x4f, 0x8b, 0x9c, 0xd3, 0x00, 0x10, 0x00, 0x00, // mov r11, [r11+r10*8+1000h]
    0x49, 0x89, 0xca, 0x49, 0xc1, 0xea, 0x03, // mov r10, rcx; shr r10, 3
    0xf6, 0xc1, 0x0f, // test cl, 15
    0x75, 0x07, // jne between
    0x4d, 0x0f, 0xa3, 0xd3, // bt r11, r10
    0x73, 0x2e, // jae invalid
    0xc3, // ret
    0x49, 0x0f, 0xba, 0xf2, 0x00, // between: btr r10, 0
    0x4d, 0x0f, 0xa3, 0xd3, // bt r11, r10
    0x73, 0x22, // jae invalid
    0x49, 0x83, 0xca, 0x01, // or r10, 1
    0x4d, 0x0f, 0xa3, 0xd3, // bt r11, r10
    0x73, 0x18, // jae invalid
    0xc3, // ret
    0x49, 0x3b, 0x4b, 0x18, // outside: cmp rcx, [r11+18h]: end of images
    0x73, 0x10, // jae valid
    0xf6, 0xc1, 0x0f, // test cl, 15
    0x75, 0x0c, // jne invalid
    0x49, 0x3b, 0x4b, 0x10, // cmp rcx, [r11+10h]: first routine of the kernel's
    0x72, 0x06, // jb invalid
    0x49, 0x3b, 0x0b, // cmp rcx, [r11]
    0x73, 0x01, // jae invalid
    0xc3, // valid: ret
    0x48, 0x89, 0xc8, // invalid: mov rax, rcx
    0xb9, 0x0a, 0x00, 0x00, 0x00, 0xcd, 0x29, // mov ecx, 10; int 29h
];

/// Jumps to `rax` if that is a target of indirect calls; changes `r10`, `r11` and flags.
const DISPATCH: &[u8] = &[
    0x49, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, // mov r11, guard::HEAD
    0x49, 0x89, 0xc2, // mov r10, rax
    0x4d, 0x2b, 0x13, // sub r10, [r11]
    0x4d, 0x3b, 0x53, 0x08, // cmp r10, [r11+8]
    0x73, 0x36, // jae outside
    0x49, 0xc1, 0xea, 0x09, // shr r10, 9
    0x4f, 0x8b, 0x9c, 0xd3, 0x00, 0x10, 0x00, 0x00, // mov r11, [r11+r10*8+1000h]
    0x49, 0x89, 0xc2, 0x49, 0xc1, 0xea, 0x03, // mov r10, rax; shr r10, 3
    0xa8, 0x0f, // test al, 15
    0x75, 0x08, // jne between
    0x4d, 0x0f, 0xa3, 0xd3, // bt r11, r10
    0x73, 0x30, // jae invalid
    0xff, 0xe0, // jmp rax
    0x49, 0x0f, 0xba, 0xf2, 0x00, // between: btr r10, 0
    0x4d, 0x0f, 0xa3, 0xd3, // bt r11, r10
    0x73, 0x23, // jae invalid
    0x49, 0x83, 0xca, 0x01, // or r10, 1
    0x4d, 0x0f, 0xa3, 0xd3, // bt r11, r10
    0x73, 0x19, // jae invalid
    0xff, 0xe0, // jmp rax
    0x49, 0x3b, 0x43, 0x18, // outside: cmp rax, [r11+18h]
    0x73, 0x0f, // jae valid
    0xa8, 0x0f, // test al, 15
    0x75, 0x0d, // jne invalid
    0x49, 0x3b, 0x43, 0x10, // cmp rax, [r11+10h]
    0x72, 0x07, // jb invalid
    0x49, 0x3b, 0x03, // cmp rax, [r11]
    0x73, 0x02, // jae invalid
    0xff, 0xe0, // valid: jmp rax
    0xb9, 0x0a, 0x00, 0x00, 0x00, 0xcd, 0x29, // invalid: mov ecx, 10; int 29h
];

const _: () = {
    let mut index = 0;
    while index < ROUTINES.len() {
        assert!(ROUTINES[index].code.len() as u64 <= ROOM);
        index += 1;
    }
    assert!(FIRST + ROUTINES.len() as u64 * ROOM <= PAGE);
};

/// Where the routine of this index begins.
const fn begin(index: u64) -> u64 {
    pseudo::exports_base() + FIRST + index * ROOM
}

/// The routine that `address` lies in, and where that begins.
fn at(address: u64) -> Option<(&'static Routine, u64)> {
    let index = address.checked_sub(begin(0))? / ROOM;
    let routine = ROUTINES.get(usize::try_from(index).ok()?)?;
    Some((routine, begin(index)))
}

/// The name of the routine that `address` lies in, with the offset in it.
pub(crate) fn name_at(address: u64) -> Option<String> {
    let (routine, begin) = at(address)?;
    Some(match address - begin {
        0 => format!("ntoskrnl.exe!{}", routine.name),
        offset => format!("ntoskrnl.exe!{}+{offset:#x}", routine.name),
    })
}

/// How far above the stack pointer the return address is, for an instruction of a routine that may fault.
pub(crate) fn pushed_at(address: u64) -> Option<u64> {
    at(address).map(|(routine, _)| routine.pushed)
}

/// The address of a routine.
pub(crate) fn address(name: &str) -> Option<u64> {
    let index = ROUTINES.iter().position(|routine| routine.name == name)?;
    Some(begin(index as u64))
}

/// The address of a routine that drivers may import.
pub(crate) fn export(name: &str) -> Option<u64> {
    ROUTINES.iter().any(|routine| routine.exported && routine.name == name).then(|| address(name))?
}

/// Puts them into memory, on the page that begins with `headers`. Once.
pub(super) fn boot(k: &mut Kernel, headers: &[u8]) {
    let mut bytes = headers.to_vec();
    bytes.resize(usize::try_from(PAGE).expect("small"), 0xCC);
    for (index, routine) in (0..).zip(&ROUTINES) {
        let begin = usize::try_from(begin(index) - pseudo::exports_base()).expect("small");
        let to = &mut bytes[begin..begin + routine.code.len()];
        to.copy_from_slice(routine.code);
        if let [0x49, 0xbb, head @ ..] = to {
            head[..8].copy_from_slice(&guard::HEAD.to_le_bytes());
        }
        if routine.name == CAPTURE_CONTEXT {
            let end = begin + routine.code.len();
            let row = pseudo::export_address(CAPTURE_CONTEXT).expect("there is a row of this name").address;
            let distance = row - pseudo::exports_base() - end as u64;
            let distance = u32::try_from(distance).expect("rows are near").to_le_bytes();
            bytes[end - 4..end].copy_from_slice(&distance);
        }
    }
    let base = pseudo::exports_base();
    let pages = k.mm.physical.take_pages(1).expect("a machine that starts has memory");
    let page = Page { physical: 0, protection: Protection::READ_EXECUTE, pageable: false };
    k.mm.map.map_filled(k.engine, base, &pages, page, |engine| engine.write_bytes(base, &bytes));
}
