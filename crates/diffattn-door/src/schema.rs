//! What requests look like, as data: the tables of `PROTOCOL.md` and of the TypeScript package are
//! written from it. Reads and computes nothing; a door that asks for none of it carries none of it.

use crate::failure::in_camel_case;

/// A request: its number and name, and what stands in its stream, in order.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The number that asks for it.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// What comes first: arguments of the package's functions.
    pub operands: &'static [Field],
    /// What follows: options of the caller. A [`Encoding::Record`] among them is a table whose
    /// entries stand there themselves.
    pub options: &'static [Field],
}

/// A named place in a request or a record.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name in Rust.
    pub field: &'static str,
    /// How its value is written.
    pub encoding: &'static Encoding,
}

impl Field {
    /// Its name in TypeScript and in `PROTOCOL.md`.
    #[must_use]
    pub fn name(&self) -> String {
        in_camel_case(self.field)
    }
}

/// How a value is written in the stream of a request.
#[derive(Debug, Clone, Copy)]
pub enum Encoding {
    /// A value that has no parts of its own, by its name in `PROTOCOL.md`.
    Atom(&'static str),
    /// 0, or 1 and the value.
    Optional(&'static Encoding),
    /// 0, or 1 for null, which is not the default; or 2 and the value.
    OrNone(&'static Encoding),
    /// A tensor, or kind 0.
    Nullable(&'static Encoding),
    /// The value: of this index, or this number, where the caller gives none.
    Or(usize, &'static Encoding),
    /// How many, and so many values.
    List(&'static Encoding),
    /// A list; the caller may give its only value alone.
    OneOrMore(&'static Encoding),
    /// Two values, by their names.
    Pair([&'static str; 2], &'static Encoding),
    /// The index of one of these.
    Choice(&'static [&'static str]),
    /// The fields one after another, an object of the caller; with its name where several requests
    /// have it.
    Record(Option<&'static str>, &'static [Field]),
    /// The fields one after another, which the package makes; with a name likewise.
    Fields(Option<&'static str>, &'static [Field]),
    /// The index of one of these, and then that one; with a name likewise.
    Variant(Option<&'static str>, &'static [Field]),
    /// A tensor or kind 0 for each of the weights whose names it gives.
    Weights(fn() -> Vec<String>),
}
