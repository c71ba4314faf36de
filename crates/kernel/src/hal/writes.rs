//! What drivers have written to devices: how often, and a sketch of what: a bit for each register and value, in which others may share it. A search for inputs
//! takes a sequence that sets a bit which none before it has set for a new one.

/// Words of the sketch.
const WORDS: usize = 4;

/// A sketch of registers and values.
pub type Sketch = [u64; WORDS];

/// Writes to devices since the machine was made.
#[derive(Clone, Copy, Default)]
pub(crate) struct Writes {
    pub(super) count: u64,
    pub(super) sketch: Sketch,
}

impl Writes {
    /// This value is written there. Ports have [`super::polls::Polls::PORT`] in their addresses.
    #[inline]
    pub(super) fn note(&mut self, address: u64, value: u64) {
        self.count += 1;
        let mixed = (address.rotate_left(32) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // The product's highest bits depend on all of both.
        let bit = (mixed >> 56) as usize;
        self.sketch[bit / 64] |= 1 << (bit % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_value_or_another_register_sets_another_bit_nearly_always() {
        let sketch = |all: &[(u64, u64)]| {
            let mut writes = Writes::default();
            all.iter().for_each(|(address, value)| writes.note(*address, *value));
            writes.sketch
        };
        let bits = |sketch: Sketch| sketch.iter().map(|word| word.count_ones()).sum::<u32>();
        assert_eq!(bits(sketch(&[(0xE000_004C, 1), (0xE000_004C, 1)])), 1);
        let values: Vec<(u64, u64)> = (0..64).map(|value| (0xE000_004C, value)).collect();
        let registers: Vec<(u64, u64)> = (0..64).map(|at| (0xE000_0000 + 4 * at, 1)).collect();
        assert!(bits(sketch(&values)) > 48 && bits(sketch(&registers)) > 48);
    }
}
