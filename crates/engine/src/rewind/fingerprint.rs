//! One number for everything a rewind puts back: a test's way of seeing that nothing was forgotten.
//!
//! It holds within one process only: host stacks and the heap hold addresses of the host's code.

use super::Words;
use super::copies::SIZE;
use super::faults::mapped;
use crate::heap;
use crate::machine::{Engine, state};
use crate::strand;
use crate::windows::{HEAP, Window};

impl Engine {
    /// A hash of the whole machine: memory of drivers and what a checked machine knows of it, heap, host stacks, mappings, clock. On the host's side. Slow: it
    /// reads everything.
    #[must_use]
    pub fn fingerprint(self) -> u64 {
        super::assert_outside();
        let mut hash = Hash::default();
        hash.window(Window { base: HEAP.base(), size: heap::end() - HEAP.base() });
        strand::stacks(state().strands.stacks()).for_each(|stack| hash.window(stack));
        for run in mapped() {
            if run.entry.protection().read {
                let memory = Window { base: run.address, size: run.length };
                std::iter::once(memory)
                    .chain(state().shadow.of(memory))
                    .for_each(|window| hash.window(window));
            }
        }
        for run in mapped() {
            [run.address, run.length, run.entry.bits().into()].into_iter().for_each(|word| hash.word(word));
        }
        let words = Words::save();
        hash.bytes(words.scratch.bytes());
        hash.word(words.gs);
        hash.0
    }
}

struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(29) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        // Four streams side by side: one multiplication would wait for the other.
        let mut streams = [1u64, 2, 3, 4];
        let mut chunks = bytes.chunks_exact(32);
        for chunk in &mut chunks {
            for (stream, word) in streams.iter_mut().zip(chunk.chunks_exact(8)) {
                let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
                *stream = (stream.rotate_left(29) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            }
        }
        streams.into_iter().for_each(|stream| self.word(stream));
        chunks.remainder().iter().for_each(|byte| self.word((*byte).into()));
    }

    fn window(&mut self, window: Window) {
        self.word(window.base);
        for page in (window.base..window.end()).step_by(SIZE) {
            // SAFETY: the caller names readable memory of the machine, which is not written meanwhile.
            self.bytes(unsafe { std::slice::from_raw_parts(page as *const u8, SIZE) });
        }
    }
}
