//! The values of a GGUF file's metadata, each read as what it should be, or refused by its name.
//! Knows no architecture.

use super::value::{List, Value};
use crate::text::excerpt;
use diffattn::Error;
use std::collections::BTreeMap;

/// The values of a file, and its name in errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys<'h, 'b> {
    pub(super) file: &'h str,
    pub(super) values: &'h BTreeMap<&'b str, Value<'b>>,
}

impl<'h, 'b> Keys<'h, 'b> {
    pub(super) fn value(&self, key: &str) -> Option<Value<'b>> {
        self.values.get(key).copied()
    }

    pub(super) fn refuse(&self, key: &str, expected: &str, got: impl std::fmt::Display) -> Error {
        Error::file(
            format_args!("{}, {}", self.file, excerpt(key)),
            expected,
            got,
        )
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(Value<'b>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(self.refuse(key, expected, value.shown())),
        }
    }

    pub(super) fn wanted<T>(&self, key: &str, value: Option<T>) -> Result<T, Error> {
        value.ok_or_else(|| self.refuse(key, "a value", "none"))
    }

    pub(super) fn count(&self, key: &str) -> Result<Option<u64>, Error> {
        self.read(key, "a whole number of 0 or more", Value::count)
    }

    /// A whole number that may stand once for each layer, and is to be the same in all.
    pub(super) fn same_count(&self, key: &str) -> Result<Option<u64>, Error> {
        self.read(key, "a whole number, the same in every layer", |value| {
            let Some(list) = value.list() else {
                return value.count();
            };
            let mut counts = list.scalars()?.map(Value::count);
            let first = counts.next()??;
            counts.all(|count| count == Some(first)).then_some(first)
        })
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        self.read(key, "a finite number", |value| {
            value.number().filter(|number| number.is_finite())
        })
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        self.read(key, "true or false", Value::flag)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'b str>, Error> {
        self.read(key, "a text in UTF-8", Value::text)
    }

    pub(super) fn list(&self, key: &str) -> Result<Option<List<'b>>, Error> {
        self.read(key, "a list", Value::list)
    }

    /// A token's id; files say −1 or 2³² − 1 for none.
    pub(super) fn id(&self, key: &str) -> Result<Option<u32>, Error> {
        let none = |value: Value<'_>| match value {
            Value::Signed(-1) => true,
            other => other.count() == Some(u64::from(u32::MAX)),
        };
        let id = |value: Value<'b>| match none(value) {
            true => Some(None),
            false => Some(Some(u32::try_from(value.count()?).ok()?)),
        };
        Ok(self.read(key, "the id of a token", id)?.flatten())
    }
}
