//! The JSON of a safetensors header: each entry is checked and kept when it is met, so nothing is
//! held twice, and together they must fill the file. Reads no file.

use crate::dtype::Dtype;
use crate::entry::{Entry, MAX_RANK, METADATA, byte_len, place};
use crate::json::{Texts, reason, repeated};
use crate::text::excerpt;
use diffattn::Error;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

/// Bytes of a header's shortest entry: `"":{"dtype":"U8","shape":[],"data_offsets":[0,0]}`.
const SHORTEST_ENTRY: usize = 50;

/// An entry as it stands in the header.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Info<'a> {
    dtype: String,
    #[serde(borrow)]
    shape: &'a RawValue,
    data_offsets: [u64; 2],
}

/// A header that is being read: each entry is checked and kept when it is met, so nothing is held
/// twice.
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
pub(crate) type Read = (Vec<Entry>, Vec<usize>, BTreeMap<String, String>);

/// Reads a header; the tensors have `data_len` bytes from `start` on.
pub(crate) fn read(
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
    entries.try_reserve_exact(room).map_err(|_| {
        Error::out_of_memory((room as u64).saturating_mul(size_of::<Entry>() as u64))
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
    check_filled(file, &mut entries, start, data_len)?;
    let mut by_name: Vec<usize> = (0..entries.len()).collect();
    by_name.sort_unstable_by(|&a, &b| entries[a].name.cmp(&entries[b].name));
    Ok((entries, by_name, metadata.unwrap_or_default()))
}

/// Sorts the entries by their bytes, which must have no gap: whatever the order of the names.
fn check_filled(file: &str, entries: &mut [Entry], start: u64, data_len: u64) -> Result<(), Error> {
    entries.sort_by_key(|entry| (entry.range.start, entry.range.end));
    let mut end = start;
    for entry in &*entries {
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
    Ok(())
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

/// The sizes, or what stands there instead. Counted before they are kept: a size takes two bytes in
/// a file, eight here.
fn shape(value: &RawValue) -> Result<Vec<usize>, String> {
    if value.get().matches(',').count() >= MAX_RANK {
        return Err(excerpt(value.get()));
    }
    let mut shape: Vec<usize> = serde_json::from_str(value.get())
        .map_err(|error| format!("{} ({})", excerpt(value.get()), reason(&error)))?;
    shape.shrink_to_fit();
    Ok(shape)
}
