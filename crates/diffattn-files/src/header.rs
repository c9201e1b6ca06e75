//! The header of a safetensors file, checked from its first bytes and the file's length alone: whoever fetches the tensors
//! by range needs nothing else. Reads no file. The `safetensors` crate's own reader wants the whole file in memory,
//! takes offsets as `usize` (a 32-bit machine could not open what is larger than its memory) and loses repeated
//! names.
//!
//! The format: 8 bytes of header length n (little-endian), n bytes of JSON, then the tensors without a gap.

use crate::entries::read;
use crate::entry::{Entry, MAX_HEADER, PREFIX};
use crate::kind::kind_of;
use crate::text::excerpt;
use diffattn::Error;
use std::collections::BTreeMap;

/// Tensors of a checkpoint at most, unless its reader asks for more: what memory a header costs is in proportion to it.
pub const MAX_TENSORS: usize = 65_536;

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
