//! Typed bit fields: a field belongs to one register type and cannot be used on another.
//!
//! It knows no register. Values are 32 bits; a field's value is right-aligned.

use std::marker::PhantomData;

/// `width` bits from bit `low` up, in a register of type `T`.
pub(crate) struct Field<T> {
    low: u32,
    width: u32,
    of: PhantomData<fn(T)>,
}

impl<T> Clone for Field<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Field<T> {}

impl<T> Field<T> {
    /// Bits `low` to `high`, both included.
    pub(crate) const fn new(low: u32, high: u32) -> Self {
        assert!(low <= high && high < 32, "a field lies inside its register");
        Self { low, width: high - low + 1, of: PhantomData }
    }

    /// Ones where the field is.
    pub(crate) const fn mask(self) -> u32 {
        (u32::MAX >> (32 - self.width)) << self.low
    }

    /// The field of a raw register value.
    pub(crate) const fn of(self, raw: u32) -> u32 {
        (raw & self.mask()) >> self.low
    }

    /// A raw register value with the field replaced.
    pub(crate) const fn put(self, raw: u32, value: u32) -> u32 {
        (raw & !self.mask()) | ((value << self.low) & self.mask())
    }
}

/// Declares a 32-bit register type and its fields: `NAME = low;` or `NAME = low ..= high;`.
macro_rules! bits {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$doc:meta])* $field:ident = $low:literal $(..= $high:literal)?;)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        $vis struct $name(pub(crate) u32);

        #[allow(dead_code, reason = "the list is the register's, used or not")]
        impl $name {
            $($(#[$doc])* pub(crate) const $field: $crate::bits::Field<$name> =
                $crate::bits::Field::new($low, bits!(@high $low $($high)?));)*

            /// The field's value, right-aligned.
            pub(crate) const fn get(self, field: $crate::bits::Field<$name>) -> u32 {
                field.of(self.0)
            }

            /// Whether any bit of the field is set.
            pub(crate) const fn is(self, field: $crate::bits::Field<$name>) -> bool {
                field.of(self.0) != 0
            }

            /// The same register with the field replaced.
            #[must_use]
            pub(crate) const fn with(self, field: $crate::bits::Field<$name>, value: u32) -> Self {
                Self(field.put(self.0, value))
            }

            /// The same register with `value` in the bits of `lanes`.
            #[must_use]
            pub(crate) const fn merged(self, value: u32, lanes: u32) -> Self {
                Self((self.0 & !lanes) | (value & lanes))
            }
        }
    };
    (@high $low:literal) => { $low };
    (@high $low:literal $high:literal) => { $high };
}
pub(crate) use bits;

#[cfg(test)]
mod tests {
    bits! {
        struct Sample {
            FIRST = 0;
            MIDDLE = 12..=13;
            LAST = 31;
        }
    }

    #[test]
    fn a_field_touches_only_its_own_bits() {
        let all = Sample(u32::MAX);
        assert_eq!(all.with(Sample::MIDDLE, 1).0, 0xFFFF_DFFF);
        assert_eq!(Sample(0).with(Sample::MIDDLE, 0xFF).0, 0x3000);
        assert_eq!(Sample(0x8000_0001).get(Sample::LAST), 1);
        assert!(Sample(1).is(Sample::FIRST));
        assert_eq!(Sample(0x1234_5678).merged(0xFFFF_FFFF, 0xFF00).0, 0x1234_FF78);
    }
}
