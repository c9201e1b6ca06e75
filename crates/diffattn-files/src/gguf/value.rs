//! Values of a GGUF header's metadata, borrowed from its bytes. Knows no key.

use super::cursor::{Cursor, Stop};
use diffattn::Error;

/// The kinds of values, by their numbers: their names, and the bytes of one where all have as many.
const KINDS: [(&str, Option<u64>); 13] = [
    ("u8", Some(1)),
    ("i8", Some(1)),
    ("u16", Some(2)),
    ("i16", Some(2)),
    ("u32", Some(4)),
    ("i32", Some(4)),
    ("f32", Some(4)),
    ("bool", Some(1)),
    ("a text", None),
    ("a list", None),
    ("u64", Some(8)),
    ("i64", Some(8)),
    ("f64", Some(8)),
];

const F32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const LIST: u32 = 9;

/// A value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'b> {
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    Flag(bool),
    Text(&'b [u8]),
    List(List<'b>),
}

/// Values of one kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct List<'b> {
    kind: u32,
    len: usize,
    bytes: &'b [u8],
}

impl<'b> Value<'b> {
    /// Reads the kind and the value of `key`.
    pub(super) fn read(cursor: &mut Cursor<'_, 'b>, key: &str) -> Result<Self, Stop> {
        let kind = cursor.u32(key)?;
        match kind {
            TEXT => cursor.text(key).map(Self::Text),
            LIST => list(cursor, key).map(Self::List),
            _ => {
                let width = width(cursor.file, key, kind)?;
                let bytes = cursor.take(width, key)?;
                Ok(scalar(kind, bytes))
            }
        }
    }

    /// A whole number that is not negative, of whatever kind.
    pub(super) fn count(self) -> Option<u64> {
        match self {
            Self::Unsigned(count) => Some(count),
            Self::Signed(count) => u64::try_from(count).ok(),
            _ => None,
        }
    }

    /// A number, of whatever kind; of a float32 the shortest decimal that it is the nearest to, as
    /// the configuration said that it was made of.
    pub(super) fn number(self) -> Option<f64> {
        match self {
            Self::Unsigned(number) => Some(number as f64),
            Self::Signed(number) => Some(number as f64),
            Self::F64(number) => Some(number),
            Self::F32(number) => number.to_string().parse().ok(),
            _ => None,
        }
    }

    pub(super) fn flag(self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(flag),
            _ => None,
        }
    }

    pub(super) fn text(self) -> Option<&'b str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    pub(super) fn list(self) -> Option<List<'b>> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// What it is, in a sentence.
    pub(super) fn shown(self) -> String {
        match self {
            Self::Unsigned(number) => number.to_string(),
            Self::Signed(number) => number.to_string(),
            Self::F32(number) => number.to_string(),
            Self::F64(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Text(text) => format!(
                "{:?}",
                crate::text::excerpt(&String::from_utf8_lossy(text.get(..320).unwrap_or(text)))
            ),
            Self::List(list) => {
                let kind = KINDS.get(list.kind as usize).map_or("", |(name, _)| name);
                format!("a list of {} ({kind})", list.len)
            }
        }
    }
}

impl<'b> List<'b> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The texts, of a list of texts.
    pub(super) fn texts(self) -> Option<impl Iterator<Item = &'b [u8]>> {
        let mut rest = self.bytes;
        let next = move || {
            let (len, behind) = rest.split_first_chunk()?;
            let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
            let (text, behind) = behind.split_at_checked(len)?;
            rest = behind;
            Some(text)
        };
        (self.kind == TEXT).then(|| std::iter::from_fn(next))
    }

    /// The values, of a list of numbers or flags.
    pub(super) fn scalars(self) -> Option<impl Iterator<Item = Value<'b>>> {
        let (_, width) = KINDS.get(self.kind as usize)?;
        let chunks = self.bytes.chunks_exact((*width)? as usize);
        Some(chunks.map(move |bytes| scalar(self.kind, bytes)))
    }
}

/// Bytes of a value of that kind.
fn width(file: &str, key: &str, kind: u32) -> Result<u64, Error> {
    let known = KINDS.get(kind as usize).and_then(|(_, width)| *width);
    known.ok_or_else(|| {
        let got = match kind {
            LIST => "a list of lists".to_owned(),
            _ => format!("kind {kind}"),
        };
        let place = format!("{file}, {}", crate::text::excerpt(key));
        Error::file(place, "a value of a kind that GGUF 3 has", got)
    })
}

/// A list, whose values must be there, however many it says.
fn list<'b>(cursor: &mut Cursor<'_, 'b>, key: &str) -> Result<List<'b>, Stop> {
    let kind = cursor.u32(key)?;
    let len = cursor.u64(key)?;
    // (Each text has a length of 8 bytes.)
    let least = match kind {
        TEXT => 8,
        _ => width(cursor.file, key, kind)?,
    };
    if len > cursor.left() / least {
        let place = format!("{}, {}", cursor.file, crate::text::excerpt(key));
        let expected = format!("a list within the {} bytes behind it", cursor.left());
        return Err(Error::file(place, expected, format!("{len} values")).into());
    }
    let bytes = if kind == TEXT {
        texts(cursor, key, len)?
    } else {
        // (It does not overflow: they are within the file.)
        cursor.take(len * least, key)?
    };
    Ok(List {
        kind,
        len: usize::try_from(len).unwrap_or(usize::MAX),
        bytes,
    })
}

/// The bytes of so many texts, which only reading them tells.
fn texts<'b>(cursor: &mut Cursor<'_, 'b>, key: &str, len: u64) -> Result<&'b [u8], Stop> {
    let all = cursor.rest();
    let first = cursor.at();
    for _ in 0..len {
        cursor.text(key)?;
    }
    // (They were all there.)
    let read = (cursor.at() - first) as usize;
    Ok(all.get(..read).unwrap_or_default())
}

/// A number or flag of these bytes, as many as its kind has.
fn scalar<'b>(kind: u32, bytes: &[u8]) -> Value<'b> {
    let mut wide = [0; 8];
    for (to, from) in wide.iter_mut().zip(bytes) {
        *to = *from;
    }
    let bits = u64::from_le_bytes(wide);
    match kind {
        BOOL => Value::Flag(bits != 0),
        F32 => Value::F32(f32::from_bits(bits as u32)),
        12 => Value::F64(f64::from_bits(bits)),
        // i8, i16, i32, i64: the sign stands in the highest bit of as many as there are.
        1 | 3 | 5 | 11 => {
            let unused = 64 - 8 * bytes.len().clamp(1, 8) as u32;
            Value::Signed((bits << unused).cast_signed() >> unused)
        }
        _ => Value::Unsigned(bits),
    }
}
