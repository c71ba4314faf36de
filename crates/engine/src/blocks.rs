//! Pool blocks between guards: filled, guarded and checked with few instructions.
//!
//! Only while accesses are not observed ([`crate::Engine::is_plain`]). The kernel above defines what guards and fills mean.

use crate::fill::Fill;
use crate::machine::Engine;
use crate::memory::{is_plain, usize_of};

std::arch::global_asm!(
    "dirql_blocks:",
    // Fills rdx bytes (a multiple of 16) from rdi on, a multiple of 16, with the 16 at rsi; then puts the 16 at rsi + 16 right before
    // them, right behind them, and at rcx, which overlaps the ones behind; the same with eax.
    ".global dirql_ram_lay",
    "dirql_ram_lay:",
    "movaps xmm0, [rsi]",
    "movaps xmm1, [rsi + 16]",
    "lea r8, [rdi + rdx]",
    "movaps [rdi - 16], xmm1",
    "lea r9, [r8 - 64]",
    "cmp rdi, r9",
    "ja 15f",
    "12: movaps [rdi], xmm0",
    "movaps [rdi + 16], xmm0",
    "movaps [rdi + 32], xmm0",
    "movaps [rdi + 48], xmm0",
    "add rdi, 64",
    "cmp rdi, r9",
    "jbe 12b",
    "15: cmp rdi, r8",
    "jae 13f",
    "16: movaps [rdi], xmm0",
    "add rdi, 16",
    "cmp rdi, r8",
    "jb 16b",
    "13: movaps [r8], xmm1",
    "movups [rcx], xmm1",
    "xor eax, eax",
    "ret",
    // Whether the 16 bytes before rdi, those at rsi and those at rdx are all as the 16 at rcx: 0 if so, 2 if not.
    ".global dirql_ram_guarded",
    "dirql_ram_guarded:",
    "movaps xmm3, [rcx]",
    "movups xmm0, [rdi - 16]",
    "movups xmm1, [rsi]",
    "movups xmm2, [rdx]",
    "pcmpeqb xmm0, xmm3",
    "pcmpeqb xmm1, xmm3",
    "pcmpeqb xmm2, xmm3",
    "pand xmm0, xmm1",
    "pand xmm0, xmm2",
    "pmovmskb ecx, xmm0",
    "xor eax, eax",
    "cmp ecx, 0xFFFF",
    "je 14f",
    "mov eax, 2",
    "14: ret",
    "dirql_blocks_end:",
    "dirql_blocks_fixup:",
    "mov eax, 1",
    "ret",
    ".global dirql_blocks",
    ".global dirql_blocks_end",
    ".global dirql_blocks_fixup",
);

unsafe extern "sysv64" {
    fn dirql_ram_lay(to: *mut u8, patterns: *const Patterns, bytes: usize, behind: *mut u8) -> u32;
    fn dirql_ram_guarded(to: *const u8, behind: *const u8, last: *const u8, pattern: *const Patterns) -> u32;
    static dirql_blocks: u8;
    static dirql_blocks_end: u8;
    static dirql_blocks_fixup: u8;
}

/// If the instruction at `rip` is one of these: where to go on after a fault there.
pub(crate) fn fixup(rip: u64) -> Option<u64> {
    let all = (&raw const dirql_blocks) as u64..(&raw const dirql_blocks_end) as u64;
    all.contains(&rip).then_some((&raw const dirql_blocks_fixup) as u64)
}

/// What [`Engine::lay`] puts into a block, and around it.
#[repr(C, align(16))]
struct Patterns([[u64; 2]; 2]);

/// How much a block of so many bytes has: the next multiple of 16, and not nothing. Of more bytes than there are addresses, nothing that
/// could be laid.
#[inline]
#[must_use]
const fn room(bytes: u64) -> u64 {
    let some = if bytes == 0 { 1 } else { bytes };
    some.wrapping_add(15) & !15
}

impl Engine {
    /// Makes a block for `bytes` bytes, at a multiple of 16: its [room](room), of the [`Fill`] `FILL`, between guards of 16 bytes of `GUARD`; what of
    /// its room lies behind the bytes is a guard too. False says nothing: it may be done in part.
    #[must_use]
    #[inline]
    pub fn lay<const FILL: u64, const GUARD: u8>(self, address: u64, bytes: u64) -> bool {
        let patterns = const { &Patterns([[FILL; 2], [Fill::of(GUARD).0; 2]]) };
        debug_assert!(address.is_multiple_of(16), "what is not aligned is not laid");
        let room = room(bytes);
        let (first, last) = (address.wrapping_sub(16), address.wrapping_add(room).wrapping_add(8));
        let behind = address.wrapping_add(bytes) as *mut u8;
        is_plain(first)
            && is_plain(last)
            // SAFETY: all of it lies between the two; a fault ends in the fix-up. The patterns are ours.
            && unsafe { dirql_ram_lay(address as *mut u8, patterns, usize_of(room), behind) == 0 }
    }

    /// Whether there are guards as [`Engine::lay`] makes them. None says nothing.
    #[must_use]
    #[inline]
    pub fn is_guarded<const GUARD: u8>(self, address: u64, bytes: u64) -> Option<bool> {
        let patterns = const { &Patterns([[Fill::of(GUARD).0; 2]; 2]) };
        let last = address.wrapping_add(room(bytes));
        if !is_plain(address.wrapping_sub(16)) || !is_plain(last.wrapping_add(8)) {
            return None;
        }
        let behind = address.wrapping_add(bytes);
        // SAFETY: as in `lay`.
        match unsafe { dirql_ram_guarded(address as _, behind as _, last as _, patterns) } {
            0 => Some(true),
            2 => Some(false),
            _ => None,
        }
    }
}
