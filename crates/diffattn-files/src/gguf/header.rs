//! The header of a GGUF file, checked from its first bytes and the file's length alone. Knows no
//! architecture, and believes no count: what is allocated is in proportion to bytes that came.
//!
//! The parsers that crates.io has (`gguf`, `gguf-rs`, `ggus`) want the file in memory or a reader
//! of all of it, allocate what a count says, or check no offset; and a header is little to read.
//!
//! The format: `GGUF`, a version, the numbers of tensors and of values; the values by name; the
//! tensors' names, extents (fastest first), types and offsets; then, aligned, their bytes.

use super::cursor::{Cursor, Stop};
use super::value::Value;
use crate::dtype::Dtype;
use crate::entry::{Entry, byte_len, place};
use crate::kind::kind_of;
use crate::text::excerpt;
use diffattn::Error;
use std::collections::BTreeMap;
use std::collections::btree_map;

/// What a GGUF file begins with.
pub const GGUF_MAGIC: [u8; 4] = *b"GGUF";

/// Values of a header at most: files have some dozens.
const MAX_VALUES: u64 = 65_536;

/// Axes of a tensor, and bytes of its name, at most: llama.cpp has 4 and 63.
const MAX_AXES: u32 = 4;
const MAX_NAME: u64 = 1024;

/// Where tensors are aligned if `general.alignment` says nothing.
const ALIGNMENT: u64 = 32;

/// The element types that are read, by the numbers that files have for them.
const TYPES: [(u32, Dtype); 6] = [
    (0, Dtype::F32),
    (1, Dtype::F16),
    (2, Dtype::Q4_0),
    (3, Dtype::Q4_1),
    (8, Dtype::Q8_0),
    (30, Dtype::BF16),
];

/// Names of others.
const OTHERS: [(u32, &str); 30] = [
    (6, "Q5_0"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (12, "Q4_K"),
    (13, "Q5_K"),
    (14, "Q6_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

/// A checked header: every tensor has the bytes that its extents and type ask for within the file,
/// and none overlap.
#[derive(Debug)]
pub struct GgufHeader<'b> {
    pub(super) values: BTreeMap<&'b str, Value<'b>>,
    entries: Vec<Entry>,
    len: u64,
}

/// What the first bytes of a file gave.
#[derive(Debug)]
pub enum GgufParsed<'b> {
    /// The header.
    Header(GgufHeader<'b>),
    /// Too few bytes: it is worth while to ask for so many, counted from the start of the file.
    /// (How many a header has, only its end tells: they are at least twice those that there were,
    /// or all of the file.)
    Need(u64),
}

impl<'b> GgufHeader<'b> {
    /// Checks the header of a file of `file_len` bytes that begins with `first`; `file` is its name
    /// in errors. It may have `max_tensors`.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the file and the tensor: something
    /// else than GGUF 2 or 3 of little-endian numbers; counts, texts or lists that reach beyond the
    /// file; names that repeat; a type that is not read; bytes that overlap, are not aligned or
    /// reach beyond the file.
    pub fn parse(
        file: &str,
        first: &'b [u8],
        file_len: u64,
        max_tensors: usize,
    ) -> Result<GgufParsed<'b>, Error> {
        match read(&mut Cursor::new(file, first, file_len), max_tensors) {
            Ok(header) => {
                header.check(file, file_len)?;
                Ok(GgufParsed::Header(header))
            }
            Err(Stop::Refused(error)) => Err(error),
            Err(Stop::Need(need)) => {
                let more = need.max(2 * first.len() as u64).max(1 << 12);
                Ok(GgufParsed::Need(more.min(file_len)))
            }
        }
    }

    /// The tensors by the file's own names, in its order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Where the tensors begin.
    #[must_use]
    pub fn data_start(&self) -> u64 {
        self.len
    }

    /// Whether tensors lie within the file, one behind the other.
    fn check(&self, file: &str, file_len: u64) -> Result<(), Error> {
        let mut order: Vec<&Entry> = self.entries.iter().collect();
        order.sort_unstable_by_key(|entry| (entry.range.start, entry.range.end));
        let mut end = self.len;
        for Entry { name, range, .. } in order {
            if range.start < end {
                let expected = format!("bytes from {end} on, where those before it end");
                return Err(Error::file(place(file, name), expected, range.start));
            }
            if range.end > file_len {
                let expected = format!("its bytes within the {file_len} of the file");
                let got = format!("bytes {} to {}", range.start, range.end);
                return Err(Error::file(place(file, name), expected, got));
            }
            end = range.end;
        }
        Ok(())
    }
}

fn read<'b>(cursor: &mut Cursor<'_, 'b>, max_tensors: usize) -> Result<GgufHeader<'b>, Stop> {
    let file = cursor.file;
    let begun = cursor.rest();
    let magic: [u8; 4] = cursor.array("what a GGUF file begins with")?;
    if magic != GGUF_MAGIC {
        let got = kind_of(begun).unwrap_or_else(|| format!("a file that begins with {magic:?}"));
        return Err(Error::file(file, "a GGUF file", got).into());
    }
    let version = cursor.u32("its version")?;
    if !(2..=3).contains(&version) {
        let got = match version.swap_bytes() {
            2 | 3 => "one of big-endian numbers".to_owned(),
            _ => format!("version {version}"),
        };
        let expected = "GGUF of version 2 or 3, little-endian";
        return Err(Error::file(file, expected, got).into());
    }
    let (tensors, values) = (cursor.u64("its counts")?, cursor.u64("its counts")?);
    if tensors > max_tensors as u64 {
        let expected = format!("at most {max_tensors} tensors (maxTensors)");
        return Err(Error::file(file, expected, tensors).into());
    }
    if values > MAX_VALUES {
        let expected = format!("at most {MAX_VALUES} values of metadata");
        return Err(Error::file(file, expected, values).into());
    }
    let values = read_values(cursor, values)?;
    let alignment = alignment(file, &values)?;
    let mut infos = Vec::new();
    for _ in 0..tensors {
        infos.push(info(cursor)?);
    }
    // (At most 1e8 + 2^31.)
    let len = cursor.at().next_multiple_of(alignment);
    let mut entries = Vec::new();
    for info in infos {
        entries.push(info.entry(file, len, alignment)?);
    }
    let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair.first() == pair.last()) {
        let name = pair.first().copied().unwrap_or_default();
        let expected = "one tensor of this name";
        return Err(Error::file(place(file, name), expected, "more than one").into());
    }
    Ok(GgufHeader {
        values,
        entries,
        len,
    })
}

fn read_values<'b>(
    cursor: &mut Cursor<'_, 'b>,
    count: u64,
) -> Result<BTreeMap<&'b str, Value<'b>>, Stop> {
    let mut values = BTreeMap::new();
    for _ in 0..count {
        let at = cursor.at();
        let key = cursor.text("the name of a value")?;
        let key = std::str::from_utf8(key).map_err(|error| {
            let got = format!("{error} (at byte {at})");
            Error::file(cursor.file, "names of values in UTF-8", got)
        })?;
        let value = Value::read(cursor, key)?;
        match values.entry(key) {
            btree_map::Entry::Vacant(place) => place.insert(value),
            btree_map::Entry::Occupied(_) => {
                let place = format!("{}, {}", cursor.file, excerpt(key));
                return Err(Error::file(place, "one value of this name", "more than one").into());
            }
        };
    }
    Ok(values)
}

fn alignment(file: &str, values: &BTreeMap<&str, Value<'_>>) -> Result<u64, Error> {
    let Some(value) = values.get("general.alignment") else {
        return Ok(ALIGNMENT);
    };
    let known = value.count().filter(|size| size.is_power_of_two());
    known.filter(|&size| size <= 1 << 31).ok_or_else(|| {
        let place = format!("{file}, general.alignment");
        Error::file(place, "a power of two below 2^32", value.shown())
    })
}

/// A tensor as the header says it.
struct Info {
    name: String,
    shape: Vec<u64>,
    kind: u32,
    offset: u64,
}

fn info(cursor: &mut Cursor<'_, '_>) -> Result<Info, Stop> {
    let file = cursor.file;
    let at = cursor.at();
    let name = cursor.text("the name of a tensor")?;
    let name = std::str::from_utf8(name).ok();
    let Some(name) = name.filter(|name| name.len() as u64 <= MAX_NAME) else {
        let expected = format!("names of tensors in UTF-8, of at most {MAX_NAME} bytes");
        return Err(Error::file(file, expected, format!("another at byte {at}")).into());
    };
    let axes = cursor.u32(name)?;
    if axes > MAX_AXES {
        let expected = format!("at most {MAX_AXES} axes");
        return Err(Error::file(place(file, name), expected, axes).into());
    }
    let mut shape = Vec::new();
    for _ in 0..axes {
        shape.push(cursor.u64(name)?);
    }
    // (Files have the axis first along which elements follow one another.)
    shape.reverse();
    Ok(Info {
        name: name.to_owned(),
        shape,
        kind: cursor.u32(name)?,
        offset: cursor.u64(name)?,
    })
}

impl Info {
    /// Its bytes count from `start` on.
    fn entry(self, file: &str, start: u64, alignment: u64) -> Result<Entry, Error> {
        let refuse =
            |expected: &str, got: String| Error::file(place(file, &self.name), expected, got);
        let known = TYPES.iter().find(|(kind, _)| *kind == self.kind);
        let Some(&(_, dtype)) = known else {
            let other = OTHERS.iter().find(|(kind, _)| *kind == self.kind);
            let got = other.map_or(format!("type {}", self.kind), |(_, name)| {
                (*name).to_owned()
            });
            let names = TYPES.map(|(_, dtype)| dtype.name()).join(", ");
            return Err(refuse(&format!("a type among {names}"), got));
        };
        let sizes = self.shape.iter().map(|&size| usize::try_from(size).ok());
        let shape: Vec<usize> = sizes.collect::<Option<_>>().ok_or_else(|| {
            let expected = "sizes that fit this machine";
            refuse(expected, format!("{:?}", self.shape))
        })?;
        let len = byte_len(dtype, &shape)
            .map_err(|expected| refuse(expected, format!("{shape:?} of {dtype}")))?;
        if !self.offset.is_multiple_of(alignment) {
            let expected = format!("an offset that is a multiple of {alignment}");
            return Err(refuse(&expected, self.offset.to_string()));
        }
        let first = start.checked_add(self.offset);
        let range = first.and_then(|first| Some(first..first.checked_add(len)?));
        let range = range.ok_or_else(|| {
            let got = format!("offset {}", self.offset);
            refuse("bytes within the file", got)
        })?;
        Ok(Entry {
            name: self.name,
            dtype,
            shape,
            range,
        })
    }
}
