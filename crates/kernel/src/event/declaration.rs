//! How events are declared: one table says each kind's name, fields and meaning, and how a field is written. Traces, hashes and
//! `docs/events.md` are made from it, so that none of them has a list of its own.

use engine::{AccessKind, StrandId};

use super::{LockKind, Role};

/// How the value of a field is written, so that every reader writes it alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A count, a size, a number of an event: a number.
    Number,
    /// An address, a value of a register, a code: hexadecimal.
    Hex,
    /// Several of these.
    Words,
    /// The address of code of a driver: hexadecimal, with its name where that is known.
    Code,
    /// The row of an export: its name.
    Export,
    /// A pool tag: its four letters.
    Tag,
    /// True or false.
    Flag,
    /// Text; left out where there is none.
    Text,
}

/// A field's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'e> {
    /// A number.
    Number(u64),
    /// Several.
    Words(&'e [u64]),
    /// True or false.
    Flag(bool),
    /// Text.
    Text(&'e str),
    /// There is none.
    None,
}

/// Takes fields in as words, in the order of their declaration.
pub trait Words {
    /// A number, a flag, or [`Words::NONE`].
    fn word(&mut self, word: u64);
    /// A text.
    fn bytes(&mut self, bytes: &[u8]);

    /// Stands for a field that has no value.
    const NONE: u64 = u64::MAX;
}

/// What a field's type can be.
pub(super) trait Field {
    /// As readers take it.
    fn value(&self) -> Value<'_>;

    /// As a hash takes it: what the type says needs no asking.
    fn words<W: Words>(&self, into: &mut W);
}

macro_rules! numbers {
    ($($type:ty),*) => { $(impl Field for $type {
        #[inline]
        fn value(&self) -> Value<'_> {
            Value::Number((*self).into())
        }

        #[inline(always)]
        fn words<W: Words>(&self, into: &mut W) {
            into.word((*self).into());
        }
    })* };
}

numbers!(u8, u32, u64);

impl Field for StrandId {
    #[inline]
    fn value(&self) -> Value<'_> {
        Value::Number(self.0.into())
    }

    #[inline(always)]
    fn words<W: Words>(&self, into: &mut W) {
        into.word(self.0.into());
    }
}

impl Field for bool {
    #[inline]
    fn value(&self) -> Value<'_> {
        Value::Flag(*self)
    }

    #[inline(always)]
    fn words<W: Words>(&self, into: &mut W) {
        into.word((*self).into());
    }
}

impl Field for [u64; 4] {
    #[inline]
    fn value(&self) -> Value<'_> {
        Value::Words(self)
    }

    #[inline(always)]
    fn words<W: Words>(&self, into: &mut W) {
        self.iter().for_each(|word| into.word(*word));
    }
}

impl Field for &'static str {
    #[inline]
    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }

    #[inline(always)]
    fn words<W: Words>(&self, into: &mut W) {
        into.bytes(self.as_bytes());
    }
}

/// One word for a name, so that a hash of it costs no more than that of a number.
pub(super) const fn word_of(name: &str) -> u64 {
    let mut word = 0xcbf2_9ce4_8422_2325_u64;
    let mut rest = name.as_bytes();
    while let [byte, behind @ ..] = rest {
        word = (word ^ *byte as u64).wrapping_mul(0x0000_0100_0000_01b3);
        rest = behind;
    }
    word
}

/// Fields of types whose values have names: in traces and hashes they stand for these, so that a new value changes no old run.
macro_rules! fields_by_name {
    ($($type:ty: $word:expr),*) => {$(
        impl Field for $type {
            #[inline]
            fn value(&self) -> Value<'_> {
                Value::Text(self.name())
            }

            #[inline(always)]
            fn words<W: Words>(&self, into: &mut W) {
                into.word($word(*self));
            }
        }
    )*};
}

fields_by_name!(
    Role: Role::word,
    LockKind: |kind: LockKind| word_of(kind.name()),
    AccessKind: |kind: AccessKind| word_of(kind.name())
);

impl Field for String {
    #[inline]
    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }

    #[inline(always)]
    fn words<W: Words>(&self, into: &mut W) {
        into.bytes(self.as_bytes());
    }
}

impl<T: Field> Field for Option<T> {
    #[inline]
    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::None, Field::value)
    }

    #[inline(always)]
    fn words<W: Words>(&self, into: &mut W) {
        match self {
            Some(value) => value.words(into),
            None => into.word(W::NONE),
        }
    }
}

/// A field as it is declared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Declared {
    /// Its name.
    pub name: &'static str,
    /// How it is written.
    pub form: Form,
    /// What it says.
    pub meaning: &'static str,
}

macro_rules! events {
    (@is) => { false };
    (@is detail) => { true };
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal $($detail:ident)? {
        $($(#[doc = $fdoc:literal])* $field:ident: $type:ty as $form:ident),* $(,)?
    })*) => {
        /// Something that happened.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum Event {
            $($(#[doc = $doc])* $name { $($(#[doc = $fdoc])* $field: $type),* },)*
        }

        /// What kind of event; one bit each in a reader's subscription.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[doc = $doc])* $name,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Kind] = &[$(Kind::$name),*];

            /// Its name, as traces and records have it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Kind::$name => $text,)*
                }
            }

            /// What hashes have for it: by its name, so that a new kind changes the hash of no old run.
            #[must_use]
            #[inline]
            pub const fn word(self) -> u64 {
                const WORDS: &[u64] = &[$(declaration::word_of($text)),*];
                WORDS[self as usize]
            }

            /// What has happened.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Kind::$name => concat!($($doc),*),)*
                }
            }

            /// Its fields, in their order.
            #[must_use]
            pub const fn fields(self) -> &'static [Declared] {
                match self {
                    $(Kind::$name => &[$(Declared {
                        name: stringify!($field),
                        form: Form::$form,
                        meaning: concat!($($fdoc),*),
                    }),*],)*
                }
            }

            /// Whether it is a detail: nothing counts such events, they are built only where a reader asks for their kind by
            /// [`Reader::wants_detail`], and each has the number of the counted event that comes next.
            #[must_use]
            #[inline]
            pub const fn is_detail(self) -> bool {
                match self {
                    $(Kind::$name => events!(@is $($detail)?),)*
                }
            }

            /// Whether such an event owns memory.
            #[must_use]
            #[inline]
            pub(crate) const fn owns(self) -> bool {
                match self {
                    $(Kind::$name => false $(|| std::mem::needs_drop::<$type>())*,)*
                }
            }
        }

        impl Event {
            /// Its kind.
            #[must_use]
            #[inline]
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Event::$name { .. } => Kind::$name,)*
                }
            }

            /// Gives each of its fields to `take`, in the order of their declaration: name, form and value.
            #[inline]
            pub fn each_field<'e>(&'e self, mut take: impl FnMut(&'static str, Form, Value<'e>)) {
                match self {
                    $(Event::$name { $($field),* } => {
                        $(take(stringify!($field), Form::$form, $field.value());)*
                    })*
                }
            }

            /// Gives all its fields to `into`, in the order of their declaration.
            #[inline]
            pub fn words<W: Words>(&self, into: &mut W) {
                match self {
                    $(Event::$name { $($field),* } => {
                        $($field.words(into);)*
                    })*
                }
            }
        }
    };
}

pub(super) use events;
