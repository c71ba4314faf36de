//! The vocabulary of constants: the macro that declares them and lists them for the generated C assertions.

/// A constant, as the generated C assertions need it.
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    /// The name, here and in C.
    pub name: &'static str,
    /// The value's bits, not sign-extended.
    pub value: u64,
    /// How many bits the value has: 8, 16, 32 or 64.
    pub bits: u32,
    /// Why mingw's headers do not declare it, where they do not.
    pub not_in_mingw: Option<&'static str>,
}

/// Declares constants by type: `u32 { NAME = value; … }`, with `u32, not_in_mingw "why" { … }` for what the compiler
/// cannot compare.
macro_rules! constants {
    ($($type:ident $(, not_in_mingw $why:literal)? {
        $($(#[$meta:meta])* $name:ident = $value:expr;)*
    })*) => {
        $($(
            $(#[$meta])*
            #[allow(missing_docs, reason = "the constant is Microsoft's, under Microsoft's name")]
            pub const $name: $type = $value;
        )*)*

        /// The constants of this file by group, for the generated C assertions.
        pub(crate) const CONSTANTS: &[&[$crate::Constant]] =
            &[$(constants!(@group $type [$($why)?] $($name)*)),*];
    };
    (@group $type:ident $why:tt $($name:ident)*) => {
        &[$($crate::Constant {
            name: stringify!($name),
            #[allow(clippy::cast_sign_loss, clippy::cast_lossless, reason = "only the bits are compared")]
            value: $name as u64 & (u64::MAX >> (64 - $type::BITS)),
            bits: $type::BITS,
            not_in_mingw: constants!(@why $why),
        }),*]
    };
    (@why []) => { None };
    (@why [$why:literal]) => { Some($why) };
}
pub(crate) use constants;
