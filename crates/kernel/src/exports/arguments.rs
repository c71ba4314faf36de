//! Decoding of a driver's arguments and encoding of results, in the x64 calling convention: one 8-byte slot each,
//! of which only the argument's own bytes mean anything.

use abi::{DriverPtr, NtStatus};
use engine::{Args, Flow};

use crate::cx::Cx;

/// A type that an argument slot can hold.
pub trait FromArgument: Sized {
    /// From the slot's 64 bits.
    fn from_slot(slot: u64) -> Self;
}

macro_rules! truncating {
    ($($type:ty),*) => {$(
        impl FromArgument for $type {
            #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "the upper bits are undefined")]
            fn from_slot(slot: u64) -> Self {
                slot as $type
            }
        }
    )*};
}
truncating!(u8, u16, u32, u64, i32, i64);

impl FromArgument for bool {
    fn from_slot(slot: u64) -> Self {
        slot & 0xFF != 0
    }
}

impl<T> FromArgument for DriverPtr<T> {
    fn from_slot(slot: u64) -> Self {
        Self::new(slot)
    }
}

impl FromArgument for NtStatus {
    fn from_slot(slot: u64) -> Self {
        Self(u32::from_slot(slot))
    }
}

/// The `index`-th argument (from 0).
///
/// # Errors
/// A verdict if the driver's stack ends before it.
pub(crate) fn argument<T: FromArgument>(cx: &mut Cx<'_>, args: &Args, index: usize) -> Flow<T> {
    let slot = match args.registers.get(index) {
        Some(register) => *register,
        None => cx.read(DriverPtr::new(args.slot(index as u64)))?,
    };
    Ok(T::from_slot(slot))
}

/// A type that `rax` can return.
pub trait IntoResult {
    /// As 64 bits.
    fn into_rax(self) -> u64;
}

macro_rules! extending {
    ($($type:ty),*) => {$(
        impl IntoResult for $type {
            fn into_rax(self) -> u64 {
                self.into()
            }
        }
    )*};
}
extending!(u8, u16, u32, u64, bool);

impl IntoResult for () {
    fn into_rax(self) -> u64 {
        0
    }
}

impl IntoResult for i32 {
    fn into_rax(self) -> u64 {
        self.cast_unsigned().into()
    }
}

impl IntoResult for i64 {
    fn into_rax(self) -> u64 {
        self.cast_unsigned()
    }
}

impl IntoResult for NtStatus {
    fn into_rax(self) -> u64 {
        self.0.into()
    }
}

impl<T> IntoResult for DriverPtr<T> {
    fn into_rax(self) -> u64 {
        self.address
    }
}

/// Builds a table. `Name(arity) @ low..=high => path::to::service;`, with `hal`, `recorder`, `wdfldr` or `wmilib` before the colon where that module has it,
/// and `va` as arity where the service decodes its own variable arguments; behind the levels `~ low..=high` where Windows survives
/// others, or `at most Advice` of a routine that is harmless at others; then `is Wait` of a wait that a routine with Wait TRUE may promise.
macro_rules! exports {
    ($table:ident: $($($module:ident)? : $name:ident($arity:tt) @ $low:literal ..= $high:literal $(~ $from:literal ..= $to:literal)? $(at most $tier:ident)? $(is $what:ident)? => $service:path;)*) => {
        #[allow(unused_imports, reason = "a table's rows name the prefixes they need; a new row needs no second edit")]
        use $crate::{cm, etw, ex, fs, hal, io, kd, ke, ldr, mm, ob, pcw, pnp, po, ps, rtl, se, wdf, wmi};

        /// All rows of this file, sorted by name.
        pub static $table: &[$crate::exports::Export] = &[$(
            $crate::exports::Export {
                name: stringify!($name),
                module: exports!(@module $($module)?),
                irql_min: $low,
                irql_max: $high,
                irql_tier: exports!(@tier $($tier)?),
                is_wait: exports!(@wait $($what)?),
                survives: exports!(@survives $low $high $($from $to)?),
                refusal: $crate::exports::refusals::of(stringify!($name)),
                system_service: $crate::ke::system_service::is_one(stringify!($name)),
                call: exports!(@call $service, $arity),
            }
        ),*];
    };
    (@tier) => { $crate::verdict::Tier::Error };
    (@tier $tier:ident) => { $crate::verdict::Tier::$tier };
    (@wait) => { false };
    (@wait Wait) => { true };
    (@survives 0 0) => { (0, 1) };
    (@survives $low:literal $high:literal) => { ($low, $high) };
    (@survives $low:literal $high:literal $from:literal $to:literal) => { ($from, $to) };
    (@module) => { "ntoskrnl.exe" };
    (@module hal) => { "hal.dll" };
    (@module wdfldr) => { "wdfldr.sys" };
    (@module wmilib) => { "wmilib.sys" };
    (@module recorder) => { "wpprecorder.sys" };
    (@call $s:path, va) => { |cx, args| $s(cx, args).map(IntoResult::into_rax) };
    (@call $s:path, 0) => { |cx, _| $s(cx).map(IntoResult::into_rax) };
    (@call $s:path, 1) => { exports!(@decode $s, 0) };
    (@call $s:path, 2) => { exports!(@decode $s, 0 1) };
    (@call $s:path, 3) => { exports!(@decode $s, 0 1 2) };
    (@call $s:path, 4) => { exports!(@decode $s, 0 1 2 3) };
    (@call $s:path, 5) => { exports!(@decode $s, 0 1 2 3 4) };
    (@call $s:path, 6) => { exports!(@decode $s, 0 1 2 3 4 5) };
    (@call $s:path, 7) => { exports!(@decode $s, 0 1 2 3 4 5 6) };
    (@call $s:path, 8) => { exports!(@decode $s, 0 1 2 3 4 5 6 7) };
    (@call $s:path, 9) => { exports!(@decode $s, 0 1 2 3 4 5 6 7 8) };
    (@call $s:path, 10) => { exports!(@decode $s, 0 1 2 3 4 5 6 7 8 9) };
    (@call $s:path, 11) => { exports!(@decode $s, 0 1 2 3 4 5 6 7 8 9 10) };
    (@call $s:path, 13) => { exports!(@decode $s, 0 1 2 3 4 5 6 7 8 9 10 11 12) };
    (@call $s:path, 15) => { exports!(@decode $s, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14) };
    (@decode $s:path, $($i:literal)*) => {
        |cx, args| {
            // Evaluated left to right into a tuple first: each decoding borrows the context.
            exports!(@apply $s, cx, args, $($i)*)
        }
    };
    (@apply $s:path, $cx:ident, $args:ident, $($i:literal)*) => {{
        let call = $crate::exports::arguments::Call { args: $args };
        exports!(@nest $s, $cx, call, [] $($i)*)
    }};
    (@nest $s:path, $cx:ident, $call:ident, [$($done:ident)*]) => {
        $s($cx, $($done),*).map(IntoResult::into_rax)
    };
    (@nest $s:path, $cx:ident, $call:ident, [$($done:ident)*] $i:literal $($rest:literal)*) => {{
        let next = $call.get($cx, $i)?;
        exports!(@nest $s, $cx, $call, [$($done)* next] $($rest)*)
    }};
}
pub(crate) use exports;

/// The arguments of one call, while they are decoded.
pub(crate) struct Call<'a> {
    pub(crate) args: &'a Args,
}

impl Call<'_> {
    pub(crate) fn get<T: FromArgument>(&self, cx: &mut Cx<'_>, index: usize) -> Flow<T> {
        argument(cx, self.args, index)
    }
}
