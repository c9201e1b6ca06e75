//! The header of a safetensors file, checked from its first bytes and the file's length alone: whoever fetches the tensors
//! by range needs nothing else. Reads no file. The `safetensors` crate's own reader wants the whole file in memory,
//! takes offsets as `usize` (a 32-bit machine could not open what is larger than its memory) and loses repeated
//! names; of it come the element types.
//!
//! The format: 8 bytes of header length n (little-endian), n bytes of JSON, then the tensors without a gap.

use super::json::{Pairs, Texts, excerpt, reason, repeated};
use diffattn::Error;
use safetensors::Dtype;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as NameError, StrDeserializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of the header's length.
pub(crate) const PREFIX: u64 = 8;

/// Bytes of a header at most, as the `safetensors` crate has it.
pub(crate) const MAX_HEADER: u64 = 100_000_000;

/// Axes of a tensor at most, as PyTorch has it.
pub(crate) const MAX_RANK: usize = 64;

/// The header's key that is no tensor.
pub(crate) const METADATA: &str = "__metadata__";

/// Every element type, as errors list them.
const DTYPES: &str = "BOOL, U8, I8, U16, I16, U32, I32, U64, I64, F16, BF16, F32, F64, F8_E4M3, F8_E5M2, F8_E8M0, F8_E4M3FNUZ, F8_E5M2FNUZ, F4, F6_E2M3, F6_E3M2, C64";

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
    /// Checks the header of a file of `file_len` bytes that begins with `first`; `file` is its name in errors. At most
    /// ten times the header's own bytes are allocated, whatever it claims.
    ///
    /// Element types and offsets are those of the `safetensors` crate; tensors need not be aligned (they are copied then,
    /// see [`super::RawTensor::floats`]). An entry with keys that are not known is refused: they might change its meaning.
    ///
    /// # Errors
    /// [`Error::File`] naming the file and the tensor: a length that is too large or reaches beyond the file; no UTF-8, no
    /// JSON or wrong types in it; repeated names; an unknown element type; a shape that overflows or disagrees with its
    /// bytes; bytes that overlap, leave a hole or end before or after the file.
    pub fn parse(file: &str, first: &[u8], file_len: u64) -> Result<Parsed, Error> {
        let Some(data_len) = file_len.checked_sub(PREFIX) else {
            return Err(Error::file(
                file,
                format_args!("at least {PREFIX} bytes"),
                file_len,
            ));
        };
        let Some((prefix, rest)) = first.split_first_chunk() else {
            return Ok(Parsed::Need(PREFIX));
        };
        let len = u64::from_le_bytes(*prefix);
        if len > MAX_HEADER {
            return Err(Error::file(
                file,
                format_args!("a header of at most {MAX_HEADER} bytes"),
                format_args!("one of {len}"),
            ));
        }
        let Some(data_len) = data_len.checked_sub(len) else {
            return Err(Error::file(
                file,
                format_args!("a header within the {file_len} bytes of the file"),
                format_args!("one of {len}"),
            ));
        };
        // It fits a usize: it is at most 1e8.
        let Some(header) = rest.get(..len as usize) else {
            return Ok(Parsed::Need(PREFIX + len));
        };
        let (entries, metadata) = read(file, header, PREFIX + len, data_len)?;
        let mut by_name: Vec<usize> = (0..entries.len()).collect();
        by_name.sort_unstable_by(|&a, &b| entries[a].name.cmp(&entries[b].name));
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

/// The entries of a header, by their bytes, and the metadata; the tensors have `data_len` bytes from `start` on.
fn read(
    file: &str,
    header: &[u8],
    start: u64,
    data_len: u64,
) -> Result<(Vec<Entry>, BTreeMap<String, String>), Error> {
    let text = std::str::from_utf8(header).map_err(|error| {
        let at = error.valid_up_to();
        let byte = header.get(at).copied().unwrap_or_default();
        let got = format_args!("byte {byte:#04x} at {at} of the header");
        Error::file(file, "a header in UTF-8", got.to_string())
    })?;
    // The format has the brace first, so that a file is known by it.
    if !text.starts_with('{') {
        let got = match text.is_empty() {
            true => "an empty one".to_owned(),
            false => excerpt(text),
        };
        return Err(Error::file(file, "a header that begins with {", got));
    }
    let Pairs(pairs) = serde_json::from_str(text)
        .map_err(|error| Error::file(file, "a header in JSON", error.to_string()))?;
    if let Some(name) = repeated(pairs.iter().map(|(name, _)| name.as_str())) {
        return Err(Error::file(
            place(file, name),
            "one entry of this name",
            "more than one",
        ));
    }
    let mut metadata = BTreeMap::new();
    let mut entries = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        if name == METADATA {
            metadata = read_metadata(file, value)?;
        } else {
            entries.push(entry(file, name, value, start, data_len)?);
        }
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
    Ok((entries, metadata))
}

fn read_metadata(file: &str, value: &RawValue) -> Result<BTreeMap<String, String>, Error> {
    match serde_json::from_str(value.get()) {
        Ok(Texts(texts)) => Ok(texts),
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
    let named: StrDeserializer<'_, NameError> = info.dtype.as_str().into_deserializer();
    let dtype = Dtype::deserialize(named).map_err(|_| {
        refuse(
            format!("a dtype among {DTYPES}"),
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
    serde_json::from_str(value.get())
        .map_err(|error| format!("{} ({})", excerpt(value.get()), reason(&error)))
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
