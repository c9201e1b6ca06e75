//! The one reader of JSON files: a byte order mark is skipped, and what is no JSON at all is named. Objects as lists of pairs where
//! a map would keep the last of two equal keys in silence. Knows no file format.

use super::kind::instead_of_json;
use super::text::excerpt;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

/// The text of a JSON file, without the byte order mark that editors may put before it; `file` is its name in errors.
///
/// # Errors
/// [`ErrorKind::File`](diffattn::ErrorKind::File) for what is not UTF-8, naming what it is where that is known: a Git LFS pointer, an archive, UTF-16.
pub fn json_text<'b>(file: &str, bytes: &'b [u8]) -> Result<&'b str, diffattn::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(without_mark(text)),
        Err(error) => {
            let got = instead_of_json(bytes).unwrap_or_else(|| error.to_string());
            Err(diffattn::Error::file(file, "JSON in UTF-8", got))
        }
    }
}

fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The text of a file as `expected` puts it in words.
pub(crate) fn parse<'t, T: Deserialize<'t>>(
    file: &str,
    expected: &str,
    text: &'t str,
) -> Result<T, diffattn::Error> {
    serde_json::from_str(without_mark(text)).map_err(|error| none(file, expected, text, &error))
}

/// The error for a text that is no JSON, or other JSON.
pub(crate) fn none(
    file: &str,
    expected: &str,
    text: &str,
    error: &serde_json::Error,
) -> diffattn::Error {
    let got = instead_of_json(text.as_bytes()).unwrap_or_else(|| error.to_string());
    diffattn::Error::file(file, expected, got)
}

/// The object that a configuration's text is.
///
/// # Errors
/// [`ErrorKind::File`](diffattn::ErrorKind::File) naming `file` for what is no JSON object.
pub fn json_object(file: &str, text: &str) -> Result<Map<String, Value>, diffattn::Error> {
    match parse(file, "a JSON object", text)? {
        Value::Object(object) => Ok(object),
        other => {
            let got = excerpt(&other.to_string());
            Err(diffattn::Error::file(file, "a JSON object", got))
        }
    }
}

/// The pairs of an object, in order, values not yet parsed: `max` of them, or it is refused.
pub(crate) fn pairs(text: &str, max: usize) -> serde_json::Result<Vec<(String, &RawValue)>> {
    let mut json = serde_json::Deserializer::from_str(text);
    let pairs = (Pairs { max }).deserialize(&mut json)?;
    json.end()?;
    Ok(pairs)
}

struct Pairs {
    max: usize,
}

impl<'de> DeserializeSeed<'de> for Pairs {
    type Value = Vec<(String, &'de RawValue)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            if pairs.len() == self.max {
                return Err(A::Error::custom(format_args!("more than {}", self.max)));
            }
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

/// An object of texts by name, each name once and no more than `max` of them.
#[derive(Debug)]
pub(crate) struct Texts {
    pub(crate) max: usize,
}

impl<'de> DeserializeSeed<'de> for Texts {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Texts {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut texts = BTreeMap::new();
        while let Some((name, text)) = map.next_entry::<String, String>()? {
            if texts.len() == self.max {
                return Err(A::Error::custom(format_args!("more than {}", self.max)));
            }
            match texts.entry(name) {
                Entry::Vacant(place) => {
                    place.insert(text);
                }
                Entry::Occupied(place) => {
                    let name = excerpt(place.key());
                    return Err(A::Error::custom(format_args!("{name:?} more than once")));
                }
            }
        }
        Ok(texts)
    }
}

/// The first key that stands twice.
pub(crate) fn repeated<'k>(keys: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let mut keys: Vec<&str> = keys.collect();
    keys.sort_unstable();
    keys.windows(2).find_map(|pair| match pair {
        [first, second] if first == second => Some(*first),
        _ => None,
    })
}

/// What serde says, without the position in a value that the sentence quotes anyway.
pub(crate) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    text[..end].to_owned()
}
