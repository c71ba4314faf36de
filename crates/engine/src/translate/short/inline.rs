//! A short call inlined in its block: what the driver's call, the gate and the export would do together, with no call and no
//! return. First what a call stores on the stack: should that fault, or one of the tests say that the guest is to be asked, the
//! ordinary call follows as if nothing had happened, for it stores the same. `rax`, `r10` and `r11` are free: a call
//! preserves none of them. `r13` is the countdown.

use super::{Short, ShortExport, lock};
use crate::translate::emitter::condition::{ABOVE, ABOVE_OR_EQUAL, BELOW, LESS_OR_EQUAL, NOT_EQUAL};
use crate::translate::emitter::{Emitter, Hole, R10};
use crate::translate::scratch::{CALLS, FREE_LEVELS, HIGHEST_LEVEL, LEVEL, SHORT_CALLS, SHORT_UNTIL};

/// The highest level there is.
pub(super) const HIGHEST: u8 = 15;

/// What stands aside from a short call.
#[derive(Debug, Default)]
pub(in crate::translate) struct Rest {
    /// Jumps to the ordinary call.
    ordinary: Vec<Hole>,
    /// A jump to what looks at an address, and where it comes back to.
    unknown: Option<(Hole, u64)>,
}

/// Writes it, where a call returns to `next`, in the images' window.
pub(in crate::translate) fn write(e: &mut Emitter, short: ShortExport, next: u64) -> Rest {
    let ShortExport { what: short, counter } = short;
    let mut call = Inline { e, next, counter, rest: Rest::default() };
    call.store_what_a_call_stores();
    match short {
        Short::Level | Short::Raise | Short::RaiseTo(_) | Short::Lower => call.level(short),
        Short::AcquireRaise | Short::Acquire => call.acquire(short == Short::AcquireRaise),
        Short::ReleaseLower | Short::Release => call.release(short == Short::ReleaseLower),
        Short::Answer(row, noted) => call.answer(row, noted),
    }
    call.rest
}

impl Rest {
    /// Writes it; what comes behind is the ordinary call, which is entered at the address that is answered.
    pub(in crate::translate) fn write(self, e: &mut Emitter) -> u64 {
        let mut ordinary = self.ordinary;
        if let Some((hole, back)) = self.unknown {
            e.fill_here(hole);
            ordinary.extend(lock::look_at_address(e));
            e.jump(back);
        }
        let here = e.here();
        ordinary.into_iter().for_each(|hole| e.fill(hole, here));
        here
    }
}

pub(super) struct Inline<'e> {
    pub(super) e: &'e mut Emitter,
    pub(super) next: u64,
    counter: u8,
    rest: Rest,
}

impl Inline<'_> {
    /// The return address, and the arguments' home.
    fn store_what_a_call_stores(&mut self) {
        let next = self.next.to_le_bytes();
        self.e.bytes(&[0xC7, 0x44, 0x24, 0xF8]); // mov dword [rsp-8], low half
        self.e.bytes(&next[..4]);
        self.e.bytes(&[0xC7, 0x44, 0x24, 0xFC]); // mov dword [rsp-4], upper half
        self.e.bytes(&next[4..]);
        self.e.bytes(&[0x48, 0x89, 0x0C, 0x24]); // mov [rsp], rcx
        self.e.bytes(&[0x48, 0x89, 0x54, 0x24, 8]); // mov [rsp+8], rdx
        self.e.bytes(&[0x4C, 0x89, 0x44, 0x24, 16]); // mov [rsp+16], r8
        self.e.bytes(&[0x4C, 0x89, 0x4C, 0x24, 24]); // mov [rsp+24], r9
    }

    fn level(&mut self, short: Short) {
        self.unless_told();
        self.e.scratch(&[0x0F, 0xB6], 0, LEVEL); // movzx eax, byte [level]
        match short {
            Short::Level => {
                self.compare(FREE_LEVELS, HIGHEST);
                self.ordinary_if(ABOVE);
            }
            Short::Raise => {
                self.e.scratch(&[0x3A], 1, HIGHEST_LEVEL); // cmp cl, [highest_level]
                self.ordinary_if(ABOVE);
                self.e.bytes(&[0x38, 0xC1]); // cmp cl, al
                self.ordinary_if(BELOW);
                self.e.scratch(&[0x3A], 1, FREE_LEVELS); // cmp cl, [free_levels]
                self.ordinary_if(BELOW);
                self.set_level_to_cl();
            }
            Short::RaiseTo(level) => {
                self.e.bytes(&[0x3C, level]); // cmp al, level
                self.ordinary_if(ABOVE);
                self.compare(FREE_LEVELS, level);
                self.ordinary_if(ABOVE);
                self.compare(HIGHEST_LEVEL, level);
                self.ordinary_if(BELOW);
                self.set_level(level);
            }
            Short::Lower => {
                self.e.bytes(&[0x38, 0xC1]); // cmp cl, al
                self.ordinary_if(ABOVE);
                self.e.scratch(&[0x3A], 1, FREE_LEVELS); // cmp cl, [free_levels]
                self.ordinary_if(BELOW);
                self.unless_slice_ends();
                self.set_level_to_cl();
                self.e.bytes(&[0x31, 0xC0]); // xor eax, eax
            }
            _ => unreachable!("it is no matter of the level alone"),
        }
        self.count();
        self.scrub();
    }

    /// Leaves the number of calls before this one in `r10`.
    pub(super) fn unless_told(&mut self) {
        self.e.load(R10, CALLS);
        self.e.scratch(&[0x4C, 0x3B], R10.0, SHORT_UNTIL); // cmp r10, [short_until]
        self.ordinary_if(ABOVE_OR_EQUAL);
    }

    /// At a slice's end, what came with it comes first.
    pub(super) fn unless_slice_ends(&mut self) {
        self.e.bytes(&[0x4D, 0x85, 0xED]); // test r13, r13
        self.ordinary_if(LESS_OR_EQUAL);
    }

    pub(super) fn ordinary_if(&mut self, condition: u8) {
        let hole = self.e.jump_if_hole(condition);
        self.rest.ordinary.push(hole);
    }

    /// Goes aside to look at an address if the last comparison was not equal.
    pub(super) fn look_if_not_equal(&mut self) {
        let hole = self.e.jump_if_hole(NOT_EQUAL);
        self.rest.unknown = Some((hole, self.e.here()));
    }

    /// `cmp byte [word], value`.
    pub(super) fn compare(&mut self, word: u64, value: u8) {
        self.e.scratch(&[0x80], 7, word);
        self.e.bytes(&[value]);
    }

    pub(super) fn set_level_to_cl(&mut self) {
        self.e.scratch(&[0x88], 1, LEVEL); // mov [level], cl
        self.e.bytes(&[0x65, 0x88, 0x0C, 0x25]); // mov gs:[Irql], cl
        self.e.bytes(&irql());
    }

    pub(super) fn set_level(&mut self, level: u8) {
        self.e.scratch(&[0xC6], 0, LEVEL); // mov byte [level], level
        self.e.bytes(&[level]);
        self.e.bytes(&[0x65, 0xC6, 0x04, 0x25]); // mov byte gs:[Irql], level
        self.e.bytes(&irql());
        self.e.bytes(&[level]);
    }

    pub(super) fn count(&mut self) {
        self.e.bytes(&[0x49, 0xFF, 0xC2]); // inc r10
        self.e.store(CALLS, R10);
        self.e.scratch(&[0x48, 0xFF], 0, SHORT_CALLS + 8 * u64::from(self.counter)); // inc qword [...]
    }

    /// What the convention leaves undefined; and flags as the gate leaves them.
    pub(super) fn scrub(&mut self) {
        for number in 0..6u8 {
            self.e.bytes(&[0x66, 0x0F, 0xEF, 0xC0 | number << 3 | number]); // pxor xmm, xmm
        }
        self.e.bytes(&[0x31, 0xC9]); // xor ecx, ecx
        self.e.bytes(&[0x31, 0xD2]); // xor edx, edx
        self.e.bytes(&[0x45, 0x31, 0xC0]); // xor r8d, r8d
        self.e.bytes(&[0x45, 0x31, 0xC9]); // xor r9d, r9d
        self.e.bytes(&[0x45, 0x31, 0xD2]); // xor r10d, r10d
        self.e.bytes(&[0x45, 0x31, 0xDB]); // xor r11d, r11d
    }
}

/// Where the processor's control region has its level.
pub(super) fn irql() -> [u8; 4] {
    u32::try_from(abi::KPCR::Irql.offset()).expect("a small structure").to_le_bytes()
}
