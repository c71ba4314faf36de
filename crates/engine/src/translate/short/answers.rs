//! Exports whose answer the guest has given in advance: it lies in a row of a table, and is returned from there, as long as the row's group is open and the level is one of the row's. Such an export's calls
//! may be noted with the place of a return address, as the guest would note them; or they may hand one word of the caller's stack on.
//!
//! The table lies in the machine, so it is taken back with it. What the guest emits for such a call is one event, and not two as for
//! other exports: they are counted apart ([`crate::Engine::answered_calls`]).

use std::cell::Cell;
use std::mem::offset_of;
use std::ops::RangeInclusive;

use super::inline::Inline;
use crate::arena::arena;
use crate::heap;
use crate::machine::state;
use crate::translate::emitter::condition::{ABOVE, ABOVE_OR_EQUAL, BELOW, EQUAL};
use crate::translate::emitter::{R10, R11, RAX, RDX};
use crate::translate::host_words::{ANSWERS as ROWS, NOTED_CALLS, host_words};
use crate::translate::scratch::{ANSWERED_CALLS, CALLS, FREE_UNTIL, LEVEL, OPEN_ANSWERS, scratch};

/// Rows of the table.
pub const ANSWERS: usize = 2048;

/// Places that are known at most.
const PLACES: usize = 256;

/// What an export of [`super::Short::Answer`] returns, and does besides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// What it returns.
    pub value: u64,
    /// The bit of its group: see [`crate::Engine::open_answers`]. 0: the guest is always asked.
    pub group: u8,
    /// The levels at which the guest need not be asked.
    pub levels: RangeInclusive<u8>,
    /// Offsets above the stack pointer: a word that is handed on, where to and where from. Equal: none is. Not of an export whose calls are noted.
    pub hands_on: (u16, u16),
}

/// A row, as the host code finds it.
#[derive(Default)]
#[repr(C)]
pub(super) struct Row {
    pub(super) value: Cell<u64>,
    pub(super) calls: Cell<u64>,
    pub(super) group: Cell<u8>,
    pub(super) lowest: Cell<u8>,
    pub(super) highest: Cell<u8>,
    unused: u8,
    pub(super) to: Cell<u16>,
    /// 0: nothing is handed on.
    pub(super) from: Cell<u16>,
    unused_either: [u16; 4],
}

/// By this the index of a row is shifted for its offset.
pub(super) const ROW_SHIFT: u32 = 5;
/// What of a place is the offset of its note, and by this it is shifted for that.
pub(super) const PLACE_MASK: u32 = 0x7F8;
pub(super) const PLACE_SHIFT: u8 = 2;

const _: () = assert!(PLACE_MASK as usize == 8 * (PLACES - 1));
const _: () = assert!(size_of::<Row>() == 1 << ROW_SHIFT);
const _: () = assert!(size_of::<NotedCall>() == 8 << PLACE_SHIFT);
/// Below that no host maps anything: should driver code change the scratch page where there is no table, its call faults, and goes on
/// at the gate.
const _: () = assert!(ANSWERS << ROW_SHIFT <= 0x1_0000);

/// A call that was noted.
#[derive(Clone, Default, Debug)]
#[repr(C)]
pub(super) struct NotedCall {
    pub(super) place: Cell<u64>,
    pub(super) return_address: Cell<u64>,
    pub(super) row: Cell<u64>,
    unused: u64,
}

/// The machine's table.
pub(crate) struct Answers {
    rows: Box<[Row]>,
    /// By the lowest bits of the place: one is forgotten for another.
    noted: Box<[NotedCall]>,
}

impl Answers {
    fn row(&self, row: u16) -> &Row {
        &self.rows[usize::from(row)]
    }

    #[allow(clippy::cast_possible_truncation, reason = "the lowest bits of the place are what counts")]
    fn note_of(&self, place: u64) -> &NotedCall {
        &self.noted[(place / 8) as usize % PLACES]
    }
}

/// Of the live machine.
fn table() -> &'static Answers {
    state();
    arena().answers.get().expect("the guest has made the table")
}

/// See [`crate::Engine::make_answers`].
pub(crate) fn make() {
    state();
    let answers = arena().answers.get_or_init(|| {
        heap::scope(true, || Answers {
            rows: std::iter::repeat_with(Row::default).take(ANSWERS).collect(),
            noted: vec![NotedCall::default(); PLACES].into_boxed_slice(),
        })
    });
    host_words().answers.set(answers.rows.as_ptr() as u64);
    host_words().noted_calls.set(answers.noted.as_ptr() as u64);
}

/// See [`crate::Engine::answer`].
pub(crate) fn set(row: u16, answer: &Answer) {
    let at = table().row(row);
    at.value.set(answer.value);
    at.group.set(answer.group);
    at.lowest.set(*answer.levels.start());
    at.highest.set(*answer.levels.end());
    let (to, from) = answer.hands_on;
    at.to.set(to);
    at.from.set(if to == from { 0 } else { from });
}

/// See [`crate::Engine::open_answers`].
pub(crate) fn open(groups: u8) {
    assert!(groups == 0 || arena().answers.get().is_some(), "the guest has made the table");
    scratch().open_answers.set(groups);
}

/// See [`crate::Engine::answered`].
pub(crate) fn answered(row: u16) -> u64 {
    arena().answers.get().map_or(0, |answers| answers.row(row).calls.get())
}

/// See [`crate::Engine::note_call`].
#[inline]
pub(crate) fn note(row: u16, place: u64, return_address: u64) {
    if let Some(answers) = arena().answers.get() {
        let note = answers.note_of(place);
        note.place.set(place);
        note.return_address.set(return_address);
        note.row.set(row.into());
    }
}

/// See [`crate::Engine::noted_call`].
pub(crate) fn noted(place: u64, return_address: u64) -> Option<u64> {
    let note = arena().answers.get()?.note_of(place);
    (note.place.get() == place && note.return_address.get() == return_address).then(|| note.row.get())
}

impl Inline<'_> {
    /// Returns the value of this row.
    ///
    /// What may fault comes first: until then `rcx` and `rdx` hold the call's arguments. Words of the stack are read in halves: a processor has to
    /// wait for what was stored in other pieces than it is loaded in, and return addresses are stored in halves
    /// ([`crate::translate::stubs::original_return_address`]).
    pub(super) fn answer(&mut self, row: u16, noted: u8) {
        self.unless_told();
        self.e.scratch(&[0x4C, 0x3B], R10.0, FREE_UNTIL); // cmp r10, [free_until]
        self.ordinary_if(ABOVE_OR_EQUAL);
        self.e.load_host(RAX, ROWS);
        self.e.scratch(&[0x44, 0x0F, 0xB6], R11.0, OPEN_ANSWERS); // movzx r11d, byte [open_answers]
        self.of_row(&[0x44, 0x84, 0x98], row, offset_of!(Row, group)); // test [...], r11b
        self.ordinary_if(EQUAL);
        self.e.scratch(&[0x44, 0x0F, 0xB6], R11.0, LEVEL); // movzx r11d, byte [level]
        self.of_row(&[0x44, 0x3A, 0x98], row, offset_of!(Row, lowest)); // cmp r11b, [...]
        self.ordinary_if(BELOW);
        self.of_row(&[0x44, 0x3A, 0x98], row, offset_of!(Row, highest));
        self.ordinary_if(ABOVE);
        if noted == 0 {
            self.hand_on(row);
        } else {
            self.note_call(row, noted);
        }
        self.e.scratch(&[0x48, 0xFF], 0, CALLS); // inc qword [...]
        self.e.scratch(&[0x48, 0xFF], 0, ANSWERED_CALLS);
        self.of_row(&[0x48, 0xFF, 0x80], row, offset_of!(Row, calls)); // inc qword [...]
        self.of_row(&[0x48, 0x8B, 0x80], row, offset_of!(Row, value)); // mov rax, [...]
        self.scrub();
    }

    /// An instruction with a field of a row, where `rax` is the table.
    fn of_row(&mut self, instruction: &[u8], row: u16, field: usize) {
        let offset = (u32::from(row) << ROW_SHIFT) + u32::try_from(field).expect("a row is small");
        self.e.bytes(instruction);
        self.e.bytes(&offset.to_le_bytes());
    }

    /// `movzx r11d, word [field]; test r11d, r11d`.
    fn offset_in_row(&mut self, row: u16, field: usize) {
        self.of_row(&[0x44, 0x0F, 0xB7, 0x98], row, field);
        self.e.bytes(&[0x45, 0x85, 0xDB]);
    }

    fn hand_on(&mut self, row: u16) {
        self.offset_in_row(row, offset_of!(Row, from));
        let nothing = self.e.jump_if_hole(EQUAL);
        self.e.bytes(&[0x4E, 0x8D, 0x5C, 0x1C, 0xF8]); // lea r11, [rsp+r11-8]
        self.of_row(&[0x0F, 0xB7, 0x80], row, offset_of!(Row, to)); // movzx eax, word [...]
        self.e.bytes(&[0x48, 0x8D, 0x44, 0x04, 0xF8]); // lea rax, [rsp+rax-8]
        self.e.bytes(&[0x45, 0x8B, 0x13]); // mov r10d, [r11]
        self.e.bytes(&[0x44, 0x89, 0x10]); // mov [rax], r10d
        self.e.bytes(&[0x45, 0x8B, 0x53, 4]); // mov r10d, [r11+4]
        self.e.bytes(&[0x44, 0x89, 0x50, 4]); // mov [rax+4], r10d
        self.e.load_host(RAX, ROWS);
        self.e.fill_here(nothing);
    }

    fn note_call(&mut self, row: u16, noted: u8) {
        let at = noted - 8; // the call itself is not made
        self.e.bytes(&[0x44, 0x8B, 0x54, 0x24, at]); // mov r10d, [rsp+...]
        self.e.bytes(&[0x8B, 0x4C, 0x24, at + 4]); // mov ecx, [rsp+...]
        self.e.bytes(&[0x4C, 0x8D, 0x5C, 0x24, at]); // lea r11, [rsp+...]
        self.e.bytes(&[0x44, 0x89, 0xDA, 0x81, 0xE2]); // mov edx, r11d; and edx, ...
        self.e.bytes(&PLACE_MASK.to_le_bytes());
        self.e.bytes(&[0xC1, 0xE2, PLACE_SHIFT]); // shl edx, ...
        self.e.add_host(RDX, NOTED_CALLS);
        let [place, address, noted_row] =
            [offset_of!(NotedCall, place), offset_of!(NotedCall, return_address), offset_of!(NotedCall, row)]
                .map(|field| u8::try_from(field).expect("a note is small"));
        self.e.bytes(&[0x4C, 0x89, 0x5A, place]); // mov [rdx+...], r11
        self.e.bytes(&[0x44, 0x89, 0x52, address]); // mov [rdx+...], r10d
        self.e.bytes(&[0x89, 0x4A, address + 4]); // mov [rdx+...], ecx
        self.e.bytes(&[0x48, 0xC7, 0x42, noted_row]); // mov qword [rdx+...], row
        self.e.bytes(&u32::from(row).to_le_bytes());
    }
}
