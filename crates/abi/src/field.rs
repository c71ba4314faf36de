//! The vocabulary of layouts: an alleged pointer into driver memory, a field at an offset, and the macro that lists
//! the fields of a type.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Add;

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// An address that is said to hold a `T` in the machine's memory. Nothing is promised: it may be null, wild or freed.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct DriverPtr<T> {
    /// The virtual address in the machine.
    pub address: u64,
    points_to: PhantomData<fn() -> *const T>,
}

impl<T> DriverPtr<T> {
    /// The null pointer.
    pub const NULL: Self = Self::new(0);

    /// A pointer to `address`.
    #[must_use]
    pub const fn new(address: u64) -> Self {
        Self { address, points_to: PhantomData }
    }

    /// Whether this is the null pointer.
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.address == 0
    }

    /// The same address, said to hold a `U`.
    #[must_use]
    pub const fn cast<U>(self) -> DriverPtr<U> {
        DriverPtr::new(self.address)
    }

    /// The pointer `bytes` further on.
    #[must_use]
    pub const fn byte_add(self, bytes: u64) -> Self {
        Self::new(self.address.wrapping_add(bytes))
    }

    /// The `index`-th element of an array that starts here.
    #[must_use]
    pub const fn index(self, index: u64) -> Self {
        self.byte_add(index.wrapping_mul(size_of::<T>() as u64))
    }

    /// The object whose field `field` lies at this address (`CONTAINING_RECORD`).
    #[must_use]
    pub const fn container<C>(self, field: Field<C, T>) -> DriverPtr<C> {
        DriverPtr::new(self.address.wrapping_sub(field.offset))
    }
}

impl<T, const N: usize> DriverPtr<[T; N]> {
    /// The `index`-th element of the array here; it is not checked against the array's length.
    #[must_use]
    pub const fn element(self, index: u64) -> DriverPtr<T> {
        self.cast::<T>().index(index)
    }
}

impl<T> Clone for DriverPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DriverPtr<T> {}

impl<T> PartialEq for DriverPtr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl<T> Eq for DriverPtr<T> {}

impl<T> PartialOrd for DriverPtr<T> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for DriverPtr<T> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.address.cmp(&other.address)
    }
}

impl<T> Default for DriverPtr<T> {
    fn default() -> Self {
        Self::NULL
    }
}

impl<T> fmt::Debug for DriverPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address)
    }
}

impl<T, F> Add<Field<T, F>> for DriverPtr<T> {
    type Output = DriverPtr<F>;

    fn add(self, field: Field<T, F>) -> DriverPtr<F> {
        DriverPtr::new(self.address.wrapping_add(field.offset))
    }
}

/// The code of a routine: what a callback member points to. Its parameters are stated where it is called.
pub enum Code {}

/// A field of type `F` at a fixed offset in `T`.
///
/// It lies inside `T`, and cannot be constructed otherwise: the kernel's accesses to structures use the offset without another check.
///
/// ```compile_fail,E0616
/// let mut status = abi::IO_STATUS_BLOCK::Information;
/// status.offset = 0x1000;
/// ```
///
/// ```should_panic
/// let _ = abi::Field::<abi::IO_STATUS_BLOCK, u64>::at(u64::MAX - 3);
/// ```
pub struct Field<T, F> {
    offset: u64,
    belongs: PhantomData<fn() -> (*const T, *const F)>,
}

impl<T, F> Clone for Field<T, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, F> Copy for Field<T, F> {}

impl<T, F> Field<T, F> {
    /// The field at `offset`; it must lie inside `T` (checked when the constant is made).
    #[must_use]
    pub const fn at(offset: u64) -> Self {
        assert!(size_of::<F>() <= size_of::<T>(), "a field must not be longer than its type");
        assert!(offset as usize <= size_of::<T>() - size_of::<F>(), "a field must end inside its type");
        Self { offset, belongs: PhantomData }
    }

    /// Bytes from the start of `T`.
    #[must_use]
    #[inline]
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// Where the field lies in the object at `base`: for drivers, which have raw pointers.
    #[must_use]
    pub const fn of(self, base: *mut T) -> *mut F {
        base.cast::<u8>().wrapping_add(self.offset as usize).cast()
    }
}

/// The value at `offset` of a type's bytes.
#[inline]
pub(crate) fn get<F: FromBytes>(bytes: &[u8], offset: u64) -> F {
    let start = index(offset);
    F::read_from_bytes(&bytes[start..start + size_of::<F>()]).expect("a field has the size of its type")
}

/// Puts a value at `offset` of a type's bytes.
#[inline]
pub(crate) fn set<F: IntoBytes + Immutable>(bytes: &mut [u8], offset: u64, value: &F) {
    let start = index(offset);
    bytes[start..start + size_of::<F>()].copy_from_slice(value.as_bytes());
}

#[allow(clippy::cast_possible_truncation, reason = "an offset in a type")]
const fn index(offset: u64) -> usize {
    offset as usize
}

/// One line of a type's layout, as the generated C assertions need it.
#[derive(Clone, Copy, Debug)]
pub struct FieldLayout {
    /// The member as C spells it, e.g. `Tail.Overlay.Thread`.
    pub c_path: &'static str,
    /// Bytes from the start of the type.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// How far mingw's headers agree about a type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mingw {
    /// Size, alignment and every field.
    Whole,
    /// The type ends early there: at `size`, which is asserted, and so are the fields before it.
    EndsAt {
        /// Bytes, in mingw's headers.
        size: u64,
        /// Why they differ from `wdm.h`.
        why: &'static str,
    },
    /// Nothing can be asserted.
    Missing {
        /// What mingw's headers have instead.
        why: &'static str,
    },
}

/// A type's layout, as the generated C assertions need it.
#[derive(Clone, Copy, Debug)]
pub struct TypeLayout {
    /// The type as C spells it.
    pub c_name: &'static str,
    /// Bytes.
    pub size: u64,
    /// Bytes.
    pub align: u64,
    /// How far mingw's headers declare the type this way.
    pub mingw: Mingw,
    /// The fields in the order they are listed.
    pub fields: &'static [FieldLayout],
}

/// Declares types by size, alignment and fields at offsets. See the crate's documentation.
///
/// A field is `offset Name: Type,`; where C spells the member with dots: `offset Name = "a.b.c": Type,`. What C cannot be
/// asked, a word of bit-fields or a member newer than mingw's header, is `offset Name = "": Type,`. Where mingw's header
/// is known to be wrong the type says `not_in_mingw "why"`, or `mingw_ends_at size "why"` if it is only too short.
macro_rules! layouts {
    ($($(#[$meta:meta])* $name:ident [
        size $size:literal, align $align:literal
        $(, not_in_mingw $missing:literal)? $(, mingw_ends_at $end:literal $short:literal)?
    ] {
        $($offset:literal $field:ident $(= $c:literal)? : $type:ty),* $(,)?
    })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
            #[repr(C, align($align))]
            pub struct $name([u8; $size]);

            const _: () = assert!(size_of::<$name>() == $size);

            #[allow(missing_docs, reason = "the fields are Microsoft's, under Microsoft's names")]
            impl $name {
                $(pub const $field: $crate::Field<$name, $type> = $crate::Field::at($offset);)*

                /// All zeroes.
                #[must_use]
                pub const fn zeroed() -> Self {
                    Self([0; $size])
                }

                /// The field of a copy of it.
                #[must_use]
                #[inline]
                pub fn get<F: zerocopy::FromBytes>(&self, field: $crate::Field<$name, F>) -> F {
                    $crate::field::get(&self.0, field.offset())
                }

                /// Changes the field of a copy of it.
                #[inline]
                pub fn set<F: zerocopy::IntoBytes + zerocopy::Immutable>(
                    &mut self,
                    field: $crate::Field<$name, F>,
                    value: F,
                ) {
                    $crate::field::set(&mut self.0, field.offset(), &value);
                }
            }

            impl Default for $name {
                fn default() -> Self {
                    Self::zeroed()
                }
            }
        )*

        /// The layouts of this file, for the generated C assertions.
        pub(crate) const LAYOUTS: &[$crate::TypeLayout] = &[$(
            $crate::TypeLayout {
                c_name: stringify!($name),
                size: $size,
                align: $align,
                mingw: layouts!(@mingw $($missing)? $($end $short)?),
                fields: &[$($crate::FieldLayout {
                    c_path: layouts!(@path $field $($c)?),
                    offset: $offset,
                    size: size_of::<$type>() as u64,
                }),*],
            }
        ),*];
    };
    (@mingw) => { $crate::Mingw::Whole };
    (@mingw $why:literal) => { $crate::Mingw::Missing { why: $why } };
    (@mingw $size:literal $why:literal) => { $crate::Mingw::EndsAt { size: $size, why: $why } };
    (@path $field:ident) => { stringify!($field) };
    (@path $field:ident $c:literal) => { $c };
}
pub(crate) use layouts;
