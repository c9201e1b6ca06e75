//! The header of a safetensors file, checked from its first bytes and the file's length alone: whoever fetches the tensors
//! by range needs nothing else. Reads no file. The `safetensors` crate's own reader wants the whole file in memory,
//! takes offsets as `usize` (a 32-bit machine could not open what is larger than its memory) and loses repeated
//! names.
//!
//! The format: 8 bytes of header length n (little-endian), n bytes of JSON, then the tensors without a gap.

use super::json::{Texts, reason, repeated};
use super::kind::kind_of;
use super::text::excerpt;
use crate::dtype::Dtype;
use diffattn::Error;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Bytes of the header's length.
pub(crate) const PREFIX: u64 = 8;

/// Bytes of a header at most, as the `safetensors` crate has it.
pub(crate) const MAX_HEADER: u64 = 100_000_000;

/// Tensors of a checkpoint at most, unless its reader asks for more: what memory a header costs is in proportion to it.
pub const MAX_TENSORS: usize = 65_536;

/// Bytes of a header's shortest entry: `"":{"dtype":"U8","shape":[],"data_offsets":[0,0]}`.
const SHORTEST_ENTRY: usize = 50;

/// Axes of a tensor at most, as PyTorch has it.
pub(crate) const MAX_RANK: usize = 64;

/// The header's key that is no tensor.
pub(crate) const METADATA: &str = "__metadata__";

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// The extent of each axis, last axis fastest.
    pub shape: Vec<usize>,
    /// Where its bytes lie, from the start of the file.
    pub range: Range<u64>,
}

impl Entry {
    /// How many bytes it has.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// How many elements it has.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.byte_len().saturating_mul(8) / self.dtype.bitsize() as u64
    }
}

/// A checked header: every entry has the bytes that its shape and type ask for, none overlap, and together they fill the
/// file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    entries: Vec<Entry>,
    /// Indices of `entries`, by name.
    by_name: Vec<usize>,
    metadata: BTreeMap<String, String>,
    len: u64,
}

/// What the first bytes of a file gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// The header.
    Header(Header),
    /// Too few bytes: so many are needed, counted from the start of the file.
    Need(u64),
}

/// An entry as it stands in the header.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Info<'a> {
    dtype: String,
    #[serde(borrow)]
    shape: &'a RawValue,
    data_offsets: [u64; 2],
}

impl Header {
    /// Checks the header of a file of `file_len` bytes that begins with `first`; `file` is its name in errors. It may have
    /// [`MAX_TENSORS`]; see [`Header::parse_at_most`].
    ///
    /// # Errors
    /// As [`Header::parse_at_most`].
    pub fn parse(file: &str, first: &[u8], file_len: u64) -> Result<Parsed, Error> {
        Self::parse_at_most(file, first, file_len, MAX_TENSORS)
    }

    /// The same of a file of `max_tensors` at most, and as many entries of metadata. At most four times the header's own
    /// bytes are allocated for its tensors, whatever it claims; one tensor too many ends it before it is kept.
    ///
    /// Element types and offsets are those of the `safetensors` crate; tensors need not be aligned (they are copied then,
    /// see [`super::RawTensor::floats`]). An entry with keys that are not known is refused: they might change its meaning.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the file and the tensor: something else than a safetensors file, which is named where it is
    /// known (see [`super::kind_of`]); a length that is too large or reaches beyond the file; no UTF-8, no JSON or wrong
    /// types in it; too many or repeated names; an unknown element type; a shape that overflows or disagrees with its
    /// bytes; bytes that overlap, leave a hole or end before or after the file.
    pub fn parse_at_most(
        file: &str,
        first: &[u8],
        file_len: u64,
        max_tensors: usize,
    ) -> Result<Parsed, Error> {
        // What is refused for what it begins with is named by that, if it can be.
        let refuse = |expected: String, got: String| match kind_of(first) {
            Some(kind) => Error::file(file, "a safetensors file", kind),
            None => Error::file(file, expected, got),
        };
        let Some(data_len) = file_len.checked_sub(PREFIX) else {
            let is_whole = first.len() as u64 >= file_len && file_len > 0;
            let expected = format!("at least {PREFIX} bytes");
            return Err(match is_whole {
                true => refuse(expected, file_len.to_string()),
                false => Error::file(file, expected, file_len),
            });
        };
        let Some((prefix, rest)) = first.split_first_chunk() else {
            return Ok(Parsed::Need(PREFIX));
        };
        let len = u64::from_le_bytes(*prefix);
        if len > MAX_HEADER {
            let expected = format!("a header of at most {MAX_HEADER} bytes");
            return Err(refuse(expected, format!("one of {len}")));
        }
        let Some(data_len) = data_len.checked_sub(len) else {
            let expected = format!("a header within the {file_len} bytes of the file");
            return Err(refuse(expected, format!("one of {len}")));
        };
        // It fits a usize: it is at most 1e8.
        let header = rest.get(..len as usize);
        // The format has the brace first, so that a file is known by it: another one need not be read on.
        let begun = header.unwrap_or(rest);
        if header == Some(&[]) || begun.first().is_some_and(|&byte| byte != b'{') {
            let got = match begun {
                [] => "an empty one".to_owned(),
                _ => format!(
                    "{:?}",
                    excerpt(&String::from_utf8_lossy(begun.get(..320).unwrap_or(begun)))
                ),
            };
            return Err(refuse("a header that begins with {".to_owned(), got));
        }
        let Some(header) = header else {
            return Ok(Parsed::Need(PREFIX + len));
        };
        let (entries, by_name, metadata) = read(file, header, PREFIX + len, data_len, max_tensors)?;
        Ok(Parsed::Header(Self {
            entries,
            by_name,
            metadata,
            len: PREFIX + len,
        }))
    }

    /// The tensors, in the order of their bytes.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The tensor of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Entry> {
        let by_name = |&index: &usize| self.entries[index].name.as_str().cmp(name);
        let place = self.by_name.binary_search_by(by_name).ok()?;
        self.by_name.get(place).map(|&index| &self.entries[index])
    }

    /// What the file says of itself.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Where the tensors begin: the bytes of the header and of its length.
    #[must_use]
    pub fn data_start(&self) -> u64 {
        self.len
    }
}

/// How errors name a tensor of a file.
pub(crate) fn place(file: &str, name: &str) -> String {
    format!("{file}, tensor {:?}", excerpt(name))
}

/// A header that is being read: each entry is checked and kept when it is met, so nothing is held twice.
struct Reading<'f> {
    file: &'f str,
    start: u64,
    data_len: u64,
    max_tensors: usize,
    entries: Vec<Entry>,
    metadata: Option<BTreeMap<String, String>>,
    /// Why it ended before its end.
    refusal: Option<Error>,
}

impl Reading<'_> {
    fn take(&mut self, name: String, value: &RawValue) -> Result<(), Error> {
        if name != METADATA {
            if self.entries.len() == self.max_tensors {
                let expected = format!("at most {} tensors (maxTensors)", self.max_tensors);
                return Err(Error::file(self.file, expected, "more"));
            }
            let entry = entry(self.file, name, value, self.start, self.data_len)?;
            self.entries.push(entry);
            return Ok(());
        }
        if self.metadata.is_some() {
            return Err(twice(self.file, METADATA));
        }
        self.metadata = Some(read_metadata(self.file, value, self.max_tensors)?);
        Ok(())
    }
}

fn twice(file: &str, name: &str) -> Error {
    Error::file(place(file, name), "one entry of this name", "more than one")
}

impl<'de> DeserializeSeed<'de> for &mut Reading<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Reading<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            if let Err(error) = self.take(name, value) {
                self.refusal = Some(error);
                return Err(A::Error::custom("an entry that is refused"));
            }
        }
        Ok(())
    }
}

/// Entries by their bytes, their indices by name, and the metadata.
type Read = (Vec<Entry>, Vec<usize>, BTreeMap<String, String>);

/// Reads a header; the tensors have `data_len` bytes from `start` on.
fn read(
    file: &str,
    header: &[u8],
    start: u64,
    data_len: u64,
    max_tensors: usize,
) -> Result<Read, Error> {
    let text = std::str::from_utf8(header).map_err(|error| {
        let at = error.valid_up_to();
        let byte = header.get(at).copied().unwrap_or_default();
        let got = format_args!("byte {byte:#04x} at {at} of the header");
        Error::file(file, "a header in UTF-8", got.to_string())
    })?;
    // As many as there are, in an ordinary header: a list that grows is in memory twice.
    let braces = header.iter().filter(|&&byte| byte == b'{').count();
    let mut entries = Vec::new();
    let room = braces.min(header.len() / SHORTEST_ENTRY).min(max_tensors);
    entries
        .try_reserve_exact(room)
        .map_err(|_| Error::OutOfMemory {
            bytes: (room as u64).saturating_mul(size_of::<Entry>() as u64),
        })?;
    let mut reading = Reading {
        file,
        start,
        data_len,
        max_tensors,
        entries,
        metadata: None,
        refusal: None,
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let result = reading.deserialize(&mut json).and_then(|()| json.end());
    let Reading {
        mut entries,
        metadata,
        refusal,
        ..
    } = reading;
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    result.map_err(|error| Error::file(file, "a header in JSON", error.to_string()))?;
    if let Some(name) = repeated(entries.iter().map(|entry| entry.name.as_str())) {
        return Err(twice(file, name));
    }
    // Whatever the order of the names: what counts is that the bytes have no gap.
    entries.sort_by_key(|entry| (entry.range.start, entry.range.end));
    let mut end = start;
    for entry in &entries {
        if entry.range.start != end {
            let what = if entry.range.start < end {
                "an overlap"
            } else {
                "a hole"
            };
            return Err(Error::file(
                place(file, &entry.name),
                format_args!("data from offset {} on", end - start),
                format_args!("{what}: offset {}", entry.range.start - start),
            ));
        }
        end = entry.range.end;
    }
    if end != start + data_len {
        return Err(Error::file(
            file,
            format_args!("tensors that fill the {data_len} bytes behind the header"),
            format_args!("{}", end - start),
        ));
    }
    let mut by_name: Vec<usize> = (0..entries.len()).collect();
    by_name.sort_unstable_by(|&a, &b| entries[a].name.cmp(&entries[b].name));
    Ok((entries, by_name, metadata.unwrap_or_default()))
}

fn read_metadata(
    file: &str,
    value: &RawValue,
    max: usize,
) -> Result<BTreeMap<String, String>, Error> {
    let mut json = serde_json::Deserializer::from_str(value.get());
    match (Texts { max }).deserialize(&mut json) {
        Ok(texts) => Ok(texts),
        Err(error) => Err(Error::file(
            format_args!("{file}, {METADATA}"),
            "text by name",
            format_args!("{} ({})", excerpt(value.get()), reason(&error)),
        )),
    }
}

/// Checks one entry by itself; where it lies among others is checked later.
fn entry(
    file: &str,
    name: String,
    value: &RawValue,
    start: u64,
    data_len: u64,
) -> Result<Entry, Error> {
    let refuse = |expected: String, got: String| Error::file(place(file, &name), expected, got);
    let info: Info<'_> = serde_json::from_str(value.get()).map_err(|error| {
        refuse(
            "an object of dtype, shape and data_offsets".to_owned(),
            format!("{} ({})", excerpt(value.get()), reason(&error)),
        )
    })?;
    let dtype = Dtype::named(&info.dtype).ok_or_else(|| {
        let names = Dtype::ALL.map(|(_, name, _)| name).join(", ");
        refuse(
            format!("a dtype among {names}"),
            format!("{:?}", excerpt(&info.dtype)),
        )
    })?;
    let shape = shape(info.shape).map_err(|got| {
        refuse(
            format!("a shape of at most {MAX_RANK} sizes that fit this machine"),
            got,
        )
    })?;
    let [begin, end] = info.data_offsets;
    if begin > end || end > data_len {
        return Err(refuse(
            format!("offsets in order within the {data_len} bytes behind the header"),
            format!("[{begin}, {end}]"),
        ));
    }
    let bytes = byte_len(dtype, &shape).map_err(|expected| {
        refuse(
            expected.to_owned(),
            format!("{shape:?} of {dtype}, offsets [{begin}, {end}]"),
        )
    })?;
    if bytes != end - begin {
        return Err(refuse(
            format!("{bytes} bytes for {shape:?} of {dtype}"),
            format!("{} (offsets [{begin}, {end}])", end - begin),
        ));
    }
    Ok(Entry {
        name,
        dtype,
        shape,
        range: start + begin..start + end,
    })
}

/// The sizes, or what stands there instead. Counted before they are kept: a size takes two bytes in a file, eight here.
fn shape(value: &RawValue) -> Result<Vec<usize>, String> {
    if value.get().matches(',').count() >= MAX_RANK {
        return Err(excerpt(value.get()));
    }
    let mut shape: Vec<usize> = serde_json::from_str(value.get())
        .map_err(|error| format!("{} ({})", excerpt(value.get()), reason(&error)))?;
    shape.shrink_to_fit();
    Ok(shape)
}

/// The bytes of `shape`, or what was expected of it.
pub(crate) fn byte_len(dtype: Dtype, shape: &[usize]) -> Result<u64, &'static str> {
    let bits = shape
        .iter()
        .try_fold(1u64, |product, &size| product.checked_mul(size as u64))
        .and_then(|elements| elements.checked_mul(dtype.bitsize() as u64))
        .ok_or("a shape whose size does not overflow")?;
    match bits % 8 {
        0 => Ok(bits / 8),
        _ => Err("a shape of whole bytes"),
    }
}
