//! One declaration of a request gives its struct, how it is read, and its
//! [`schema`](crate::schema). Each field has an encoding, a type that says how its value lies in
//! the stream. Knows no operator.
//!
//! ```text
//! request! {
//!     /// Group norm with learned scale and shift.
//!     3 groupNorm GroupNormRequest {
//!         x: Tensor,
//!     } options {
//!         num_groups: Size,
//!         weight: Option<Vector>,
//!         eps: Option<Float>,
//!         layout: Or<ChannelLayout>,
//!     }
//! }
//! ```
//!
//! A field is called by its own name in errors, or by the one in parentheses: `keys("state.keys")`.

use std::sync::Arc;

use crate::objects::{Door, Held, Slot};
use crate::reader::{Reader, TensorAt};
use crate::schema::{self, Encoding};

/// How a value lies in a request. What is wrong with one stays with the [`Reader`], and something
/// stands in for it, which no one sees: a request is looked at once its reader has finished.
pub(crate) trait Encoded {
    /// What is read.
    type Value;
    /// The same as data.
    const ENCODING: &'static Encoding;
    /// Where the value may be absent.
    const MAYBE: &'static Encoding = &Encoding::Optional(Self::ENCODING);

    fn read(door: &Door, r: &mut Reader<'_>, argument: &'static str) -> Self::Value;

    /// Where the value may be absent.
    fn read_maybe(door: &Door, r: &mut Reader<'_>, argument: &'static str) -> Option<Self::Value> {
        r.flag(argument).then(|| Self::read(door, r, argument))
    }
}

/// A request by its declaration.
pub(crate) trait Request: Sized {
    const NUMBER: u32;
    const SCHEMA: &'static schema::Request;

    fn read(door: &Door, r: &mut Reader<'_>) -> Self;
}

/// Encodings of one value.
macro_rules! atoms {
    ($($(#[$meta:meta])* $atom:ident $name:literal $value:ty = $read:expr),* $(,)?) => {$(
        $(#[$meta])*
        pub(crate) enum $atom {}

        $(#[$meta])*
        impl Encoded for $atom {
            type Value = $value;
            const ENCODING: &'static Encoding = &Encoding::Atom($name);

            fn read(_door: &Door, r: &mut Reader<'_>, argument: &'static str) -> $value {
                $read(r, argument)
            }
        }
    )*};
}

atoms! {
    Number "number" f64 = Reader::number,
    Float "number" f32 = Reader::f32,
    Size "size" usize = Reader::size,
    Count "size" usize = Reader::count,
    Integer "integer" i64 = Reader::integer,
    Int32 "integer" i32 = Reader::int32,
    Flag "flag" bool = Reader::flag,
    Id "integer" u32 = Reader::object,
    #[cfg(feature = "models")]
    Long "size" u64 = Reader::long,
    #[cfg(feature = "models")]
    Seed "number" u64 = Reader::long,
    #[cfg(feature = "models")]
    Text "text" TensorAt = Reader::tensor,
}

/// Encodings of a tensor. What its elements must be is checked where they are taken.
macro_rules! tensors {
    ($($(#[$meta:meta])* $tensor:ident $name:literal),* $(,)?) => {$(
        $(#[$meta])*
        pub(crate) enum $tensor {}

        $(#[$meta])*
        impl Encoded for $tensor {
            type Value = TensorAt;
            const ENCODING: &'static Encoding = &Encoding::Atom($name);
            const MAYBE: &'static Encoding = &Encoding::Nullable(Self::ENCODING);

            fn read(_door: &Door, r: &mut Reader<'_>, argument: &'static str) -> TensorAt {
                r.tensor(argument)
            }

            fn read_maybe(
                _door: &Door,
                r: &mut Reader<'_>,
                argument: &'static str,
            ) -> Option<TensorAt> {
                r.tensor_or_none(argument)
            }
        }
    )*};
}

tensors! {
    Tensor "tensor",
    Vector "vector",
    Mask "mask",
    #[cfg(feature = "models")]
    Uint8 "uint8",
    #[cfg(feature = "models")]
    Ints "int32",
    #[cfg(feature = "models")]
    Numbers "numbers",
}

impl<E: Encoded> Encoded for Option<E> {
    type Value = Option<E::Value>;
    const ENCODING: &'static Encoding = E::MAYBE;

    fn read(door: &Door, r: &mut Reader<'_>, argument: &'static str) -> Self::Value {
        E::read_maybe(door, r, argument)
    }
}

/// What may be left out, or said not to be there.
pub(crate) struct OrNone<E>(E);

impl<E: Encoded> Encoded for OrNone<E> {
    /// `Some(None)` where it is not to be there.
    type Value = Option<Option<E::Value>>;
    const ENCODING: &'static Encoding = &Encoding::OrNone(E::ENCODING);

    fn read(door: &Door, r: &mut Reader<'_>, argument: &'static str) -> Self::Value {
        match r.index(argument, 3) {
            0 => None,
            1 => Some(None),
            _ => Some(Some(E::read(door, r, argument))),
        }
    }
}

/// What is always in the stream though the caller may leave it out: the choice of this index, or
/// this number, is written then.
pub(crate) struct Or<E, const VALUE: usize = 0>(E);

impl<E: Encoded, const VALUE: usize> Encoded for Or<E, VALUE> {
    type Value = E::Value;
    const ENCODING: &'static Encoding = &Encoding::Or(VALUE, E::ENCODING);

    fn read(door: &Door, r: &mut Reader<'_>, argument: &'static str) -> Self::Value {
        E::read(door, r, argument)
    }
}

/// Any number of values.
pub(crate) struct List<E>(E);

impl<E: Encoded> Encoded for List<E> {
    type Value = Vec<E::Value>;
    const ENCODING: &'static Encoding = &Encoding::List(E::ENCODING);

    fn read(door: &Door, r: &mut Reader<'_>, argument: &'static str) -> Self::Value {
        r.list(argument, |r, argument| E::read(door, r, argument))
    }
}

/// A list whose only value the caller may give alone.
pub(crate) struct OneOrMore<E>(E);

impl<E: Encoded> Encoded for OneOrMore<E> {
    type Value = Vec<E::Value>;
    const ENCODING: &'static Encoding = &Encoding::OneOrMore(E::ENCODING);

    fn read(door: &Door, r: &mut Reader<'_>, argument: &'static str) -> Self::Value {
        List::<E>::read(door, r, argument)
    }
}

/// An object of the door.
pub(crate) struct Object<T>(T);

impl<T: Held> Encoded for Object<T> {
    type Value = Arc<Slot<T>>;
    const ENCODING: &'static Encoding = &Encoding::Atom("object");

    fn read(door: &Door, r: &mut Reader<'_>, argument: &'static str) -> Self::Value {
        let id = r.object(argument);
        r.found(door.get(argument, id), Slot::empty)
    }
}

/// An object of the door as it is when the request is read: what takes its place while the call is
/// open ([`Slot::renew`]) is for calls after it.
pub(crate) struct Now<T>(T);

impl<T: Held> Encoded for Now<T> {
    type Value = Arc<Slot<T>>;
    const ENCODING: &'static Encoding = Object::<T>::ENCODING;

    fn read(door: &Door, r: &mut Reader<'_>, argument: &'static str) -> Self::Value {
        let id = r.object(argument);
        let slot = door.get(argument, id).and_then(|slot| slot.fixed());
        r.found(slot, Slot::empty)
    }
}

/// Two values of one encoding, by their names: `pair! { Rows [first, end]: Size }`.
macro_rules! pair {
    ($(#[$meta:meta])* $pair:ident [$first:ident, $second:ident]: $encoding:ty) => {
        $(#[$meta])*
        pub(crate) enum $pair {}

        impl $crate::encoding::Encoded for $pair {
            type Value = [<$encoding as $crate::encoding::Encoded>::Value; 2];
            const ENCODING: &'static $crate::schema::Encoding = &$crate::schema::Encoding::Pair(
                [stringify!($first), stringify!($second)],
                <$encoding as $crate::encoding::Encoded>::ENCODING,
            );

            fn read(
                door: &$crate::objects::Door,
                r: &mut $crate::reader::Reader<'_>,
                argument: &'static str,
            ) -> Self::Value {
                [
                    <$encoding as $crate::encoding::Encoded>::read(door, r, argument),
                    <$encoding as $crate::encoding::Encoded>::read(door, r, argument),
                ]
            }
        }
    };
}
pub(crate) use pair;

/// The values of an enum by their names, in the order of their indices.
macro_rules! choice {
    ($choice:ident { $($name:literal = $value:ident),* $(,)? }) => {
        impl $crate::encoding::Encoded for $choice {
            type Value = Self;
            const ENCODING: &'static $crate::schema::Encoding =
                &$crate::schema::Encoding::Choice(&[$($name),*]);

            fn read(
                _door: &$crate::objects::Door,
                r: &mut $crate::reader::Reader<'_>,
                argument: &'static str,
            ) -> Self {
                r.choice(argument, &[$(Self::$value),*])
            }
        }
    };
}
pub(crate) use choice;

/// What errors call a field: by the name it is given, else by its own, after what its record is
/// called.
macro_rules! argument {
    ($prefix:literal $field:ident $argument:literal) => {
        $argument
    };
    ($prefix:literal $field:ident) => {
        concat!($prefix, stringify!($field))
    };
}
pub(crate) use argument;

/// Fields one after another as data.
macro_rules! fields_of {
    ($($field:ident: $encoding:ty),* $(,)?) => {
        &[$($crate::schema::Field {
            field: stringify!($field),
            encoding: <$encoding as $crate::encoding::Encoded>::ENCODING,
        }),*]
    };
}
pub(crate) use fields_of;

/// A record: a struct whose fields stand one after another. Its values are an object of the caller
/// (`record`, with a name where several requests have it) or made by the package (`fields`). What
/// `in` says comes before its fields' names in errors.
macro_rules! record {
    ($(#[$meta:meta])* record $name:literal $($rest:tt)*) => {
        $crate::encoding::record! {
            @struct [$crate::schema::Encoding::Record(Some($name), Self::FIELDS)] $(#[$meta])* $($rest)*
        }
    };
    ($(#[$meta:meta])* record $($rest:tt)*) => {
        $crate::encoding::record! {
            @struct [$crate::schema::Encoding::Record(None, Self::FIELDS)] $(#[$meta])* $($rest)*
        }
    };
    ($(#[$meta:meta])* fields $name:literal $($rest:tt)*) => {
        $crate::encoding::record! {
            @struct [$crate::schema::Encoding::Fields(Some($name), Self::FIELDS)] $(#[$meta])* $($rest)*
        }
    };
    ($(#[$meta:meta])* fields $($rest:tt)*) => {
        $crate::encoding::record! {
            @struct [$crate::schema::Encoding::Fields(None, Self::FIELDS)] $(#[$meta])* $($rest)*
        }
    };
    (@struct $encoding:tt $(#[$meta:meta])* $record:ident { $($fields:tt)* }) => {
        $crate::encoding::record! { @struct $encoding $(#[$meta])* $record in "" { $($fields)* } }
    };
    (@struct [$form:expr] $(#[$meta:meta])* $record:ident in $prefix:literal {
        $($(#[$doc:meta])* $field:ident $(($argument:literal))?: $encoding:ty),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub(crate) struct $record {
            $($(#[$doc])* pub(crate) $field: <$encoding as $crate::encoding::Encoded>::Value,)*
        }

        impl $record {
            const FIELDS: &'static [$crate::schema::Field] =
                $crate::encoding::fields_of!($($field: $encoding),*);
        }

        impl $crate::encoding::Encoded for $record {
            type Value = Self;
            const ENCODING: &'static $crate::schema::Encoding = &$form;

            fn read(
                door: &$crate::objects::Door,
                r: &mut $crate::reader::Reader<'_>,
                _argument: &'static str,
            ) -> Self {
                Self {$(
                    $field: <$encoding as $crate::encoding::Encoded>::read(
                        door,
                        r,
                        $crate::encoding::argument!($prefix $field $($argument)?),
                    ),
                )*}
            }
        }
    };
}
pub(crate) use record;

/// A request: its number, its name, the struct, what it is about, and the caller's options after
/// that.
macro_rules! request {
    ($(#[$meta:meta])* $number:literal $name:ident $request:ident {
        $($(#[$doc:meta])* $field:ident $(($argument:literal))?: $encoding:ty),* $(,)?
    }) => {
        $crate::encoding::request! {
            @struct $(#[$meta])* $number $name $request [&[]]
            { $($(#[$doc])* $field $(($argument))?: $encoding,)* }
            { $($field: $encoding,)* }
        }
    };
    ($(#[$meta:meta])* $number:literal $name:ident $request:ident {
        $($(#[$doc:meta])* $field:ident $(($argument:literal))?: $encoding:ty),* $(,)?
    } options {
        $($(#[$odoc:meta])* $option:ident $(($oargument:literal))?: $oencoding:ty),* $(,)?
    }) => {
        $crate::encoding::request! {
            @struct $(#[$meta])* $number $name $request
            [$crate::encoding::fields_of!($($option: $oencoding),*)]
            {
                $($(#[$doc])* $field $(($argument))?: $encoding,)*
                $($(#[$odoc])* $option $(($oargument))?: $oencoding,)*
            }
            { $($field: $encoding,)* }
        }
    };
    (@struct $(#[$meta:meta])* $number:literal $name:ident $request:ident [$options:expr]
        { $($(#[$doc:meta])* $field:ident $(($argument:literal))?: $encoding:ty,)* }
        { $($operand:ident: $oencoding:ty,)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub(crate) struct $request {
            $($(#[$doc])* pub(crate) $field: <$encoding as $crate::encoding::Encoded>::Value,)*
        }

        impl $crate::encoding::Request for $request {
            const NUMBER: u32 = $number;
            const SCHEMA: &'static $crate::schema::Request = &$crate::schema::Request {
                number: $number,
                name: stringify!($name),
                operands: $crate::encoding::fields_of!($($operand: $oencoding),*),
                options: $options,
            };

            fn read(
                door: &$crate::objects::Door,
                r: &mut $crate::reader::Reader<'_>,
            ) -> Self {
                let _ = (door, &r); // (some requests have no fields)
                Self {$(
                    $field: <$encoding as $crate::encoding::Encoded>::read(
                        door,
                        r,
                        $crate::encoding::argument!("" $field $($argument)?),
                    ),
                )*}
            }
        }
    };
}
pub(crate) use request;

/// A name that may be left out.
macro_rules! name {
    () => {
        None
    };
    ($name:literal) => {
        Some($name)
    };
}
pub(crate) use name;

/// An enum whose index comes first, and then the fields of that one; a variant of one value has it
/// bare.
macro_rules! variant {
    ($(#[$meta:meta])* $variant:ident ($index:literal) $($name:literal)? { $(
        $(#[$doc:meta])* $key:literal $arm:ident($argument:literal: $encoding:ty)
    ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub(crate) enum $variant {
            $($(#[$doc])* $arm(<$encoding as $crate::encoding::Encoded>::Value)),*
        }

        impl $crate::encoding::Encoded for $variant {
            type Value = Self;
            const ENCODING: &'static $crate::schema::Encoding =
                &$crate::schema::Encoding::Variant($crate::encoding::name!($($name)?), &[$($crate::schema::Field {
                    field: $key,
                    encoding: <$encoding as $crate::encoding::Encoded>::ENCODING,
                }),*]);

            fn read(
                door: &$crate::objects::Door,
                r: &mut $crate::reader::Reader<'_>,
                _argument: &'static str,
            ) -> Self {
                type Read = fn(
                    &$crate::objects::Door,
                    &mut $crate::reader::Reader<'_>,
                ) -> $variant;
                let arms: &[Read] = &[$(|door, r| {
                    $variant::$arm(<$encoding as $crate::encoding::Encoded>::read(door, r, $argument))
                }),*];
                r.choice($index, arms)(door, r)
            }
        }
    };
}
pub(crate) use variant;
