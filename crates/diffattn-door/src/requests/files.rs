//! Requests about checkpoint files: their headers, what is in them, element types. Reads no file:
//! whoever asks sends bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use diffattn::{Error, Work};
use diffattn_nn::checkpoint::{
    Dtype, Entry, FileLayout, Header, MAX_TENSORS, Parsed, RawTensor, ShardIndex, TensorSpec,
    WeightInfo, inspect, json_text, kind_of,
};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;

use super::ready::{Made, in_file, ready};
use crate::encoding::{Count, List, Long, Size, Text, Uint8, record, request};
use crate::job::{OutputSpec, Prepared};
use crate::kind::Kind;
use crate::operation::{Inputs, Operation};

/// An entry of a checkpoint in JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredEntry<'t> {
    pub(super) name: Cow<'t, str>,
    pub(super) dtype: Dtype,
    pub(super) shape: Cow<'t, [usize]>,
    #[serde(default)]
    pub(super) file: Cow<'t, str>,
    pub(super) range: [u64; 2],
    /// How many heads its rows are of, where they lie as GGUF files have them.
    #[serde(
        default,
        rename = "turnedHeads",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) turned_heads: Option<usize>,
}

/// Reads `tensors` as op 64 gave them.
pub(super) fn entries(text: &str) -> Result<Vec<StoredEntry<'static>>, Error> {
    serde_json::from_str(text)
        .map_err(|why| Error::file("tensors", "entries of a checkpoint in JSON", why))
}

/// The same as models take them.
pub(super) fn weights(text: &str) -> Result<Vec<WeightInfo>, Error> {
    let weight = |entry: StoredEntry<'_>| WeightInfo {
        name: entry.name.into_owned(),
        dtype: entry.dtype,
        shape: entry.shape.into_owned(),
    };
    Ok(entries(text)?.into_iter().map(weight).collect())
}

/// The same as the entries of one file.
pub(super) fn whole_entries(text: &str) -> Result<Vec<Entry>, Error> {
    let entries = entries(text)?.into_iter().map(|entry| Entry {
        name: entry.name.into_owned(),
        dtype: entry.dtype,
        shape: entry.shape.into_owned(),
        range: entry.range[0]..entry.range[1],
    });
    Ok(entries.collect())
}

/// An element type by its name in safetensors files.
pub(super) fn dtype(argument: &str, name: &str) -> Result<Dtype, Error> {
    Dtype::named(name).ok_or_else(|| {
        Error::file(
            argument,
            "an element type of safetensors files",
            format_args!("{name:?}"),
        )
    })
}

record! {
    /// The index of a checkpoint in shards.
    fields IndexAt {
        file("index"): Text,
        json("index"): Text,
    }
}

record! {
    /// A file by name, with its length and what it begins with.
    fields FileAt {
        file: Text,
        length: Long,
        first("file"): Uint8,
    }
}

request! {
    /// A request of `checkpoint`.
    64 checkpoint CheckpointRequest {
        index: Option<IndexAt>,
        files: List<FileAt>,
        max_tensors: Option<Count>,
    }
}

impl Operation for CheckpointRequest {
    fn prepares_at_length(&self) -> bool {
        true
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let operands = inputs.operands;
        let max_tensors = self.max_tensors.unwrap_or(MAX_TENSORS);
        let index = match &self.index {
            None => None,
            Some(IndexAt { file, json }) => Some(ShardIndex::parse_at_most(
                file.text(operands)?,
                json.u8(operands)?,
                max_tensors,
            )?),
        };
        let mut headers: Vec<(&str, Header)> = Vec::new();
        let mut need = Vec::new();
        let mut left = max_tensors;
        for FileAt {
            file,
            length,
            first,
        } in &self.files
        {
            let (file, first) = (file.text(operands)?, first.u8(operands)?);
            match Header::parse_at_most(file, first, *length, max_tensors)? {
                Parsed::Header(header) => {
                    left = left.checked_sub(header.entries().len()).ok_or_else(|| {
                        let expected = format!("at most {} tensors (maxTensors)", max_tensors);
                        Error::file(file, expected, "more, with those of the files before")
                    })?;
                    need.push(header.data_start());
                    headers.push((file, header));
                }
                Parsed::Need(bytes) => need.push(bytes),
            }
        }
        if headers.len() < need.len() {
            let json = Made::json(&json!({ "need": need }))?;
            return ready(vec![("checkpoint", json)]);
        }
        if let Some(index) = &index {
            let headers: Vec<_> = headers
                .iter()
                .map(|(file, header)| (*file, header))
                .collect();
            index.check(&headers)?;
        }
        let tensors = Listed {
            headers: &headers,
            index: index.as_ref(),
        };
        if index.is_none() && headers.len() > 1 {
            let mut files: BTreeMap<&str, &str> = BTreeMap::new();
            for StoredEntry { name, file, .. } in tensors.entries() {
                if let (Cow::Borrowed(name), Cow::Borrowed(file)) = (name, file)
                    && let Some(other) = files.insert(name, file)
                {
                    return Err(Error::file(
                        format_args!("{file}, tensor {name:?}"),
                        "a tensor that no other file has",
                        format_args!("one that {other} has, too"),
                    ));
                }
            }
        }
        let mut metadata: BTreeMap<&str, &str> = BTreeMap::new();
        for (_, header) in &headers {
            for (key, value) in header.metadata() {
                metadata.entry(key).or_insert(value);
            }
        }
        let json = Made::json(&Opened { tensors, metadata })?;
        ready(vec![("checkpoint", json)])
    }
}

/// An open checkpoint in JSON. (Written as it goes: a tree of values would be many times the
/// headers.)
#[derive(Serialize)]
struct Opened<'a> {
    tensors: Listed<'a>,
    metadata: BTreeMap<&'a str, &'a str>,
}

/// The tensors of files; those that an index does not name are not seen.
#[derive(Clone, Copy)]
struct Listed<'a> {
    headers: &'a [(&'a str, Header)],
    index: Option<&'a ShardIndex>,
}

impl<'a> Listed<'a> {
    fn entries(self) -> impl Iterator<Item = StoredEntry<'a>> {
        let of_file = move |(file, header): &'a (&'a str, Header)| {
            let is_listed = move |entry: &&'a Entry| {
                self.index.is_none_or(|index| {
                    let listed = index.weight_map().get(&entry.name);
                    listed.is_some_and(|listed| listed == file)
                })
            };
            let stored = |entry: &'a Entry| StoredEntry {
                name: entry.name.as_str().into(),
                dtype: entry.dtype,
                shape: entry.shape.as_slice().into(),
                file: (*file).into(),
                range: [entry.range.start, entry.range.end],
                turned_heads: None,
            };
            header.entries().iter().filter(is_listed).map(stored)
        };
        self.headers.iter().flat_map(of_file)
    }
}

impl Serialize for Listed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.entries())
    }
}

request! {
    /// A request of `fileKind`.
    70 fileKind FileKindRequest {
        first("file"): Uint8,
    }
}

impl Operation for FileKindRequest {
    fn prepares_at_length(&self) -> bool {
        true
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let kind = kind_of(self.first.u8(inputs.operands)?);
        ready(vec![("kind", Made::json(&kind)?)])
    }
}

request! {
    /// A request of `shardFiles`.
    65 shardFiles ShardFilesRequest {
        file: Text,
        json("index"): Text,
        max_tensors: Option<Count>,
    }
}

impl Operation for ShardFilesRequest {
    fn prepares_at_length(&self) -> bool {
        true
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let (file, json) = (
            self.file.text(inputs.operands)?,
            self.json.u8(inputs.operands)?,
        );
        let max_tensors = self.max_tensors.unwrap_or(MAX_TENSORS);
        let index = ShardIndex::parse_at_most(file, json, max_tensors)?;
        ready(vec![("files", Made::json(&index.files())?)])
    }
}

request! {
    /// A request of `safetensorsHeader`.
    66 safetensorsHeader HeaderRequest {
        spec("tensors"): Text,
    }
}

/// What a file is to hold.
#[derive(Debug, Deserialize)]
struct FileSpec {
    tensors: Vec<TensorJson>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TensorJson {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
}

impl Operation for HeaderRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let FileSpec { tensors, metadata } = serde_json::from_str(self.spec.text(inputs.operands)?)
            .map_err(|why| {
                Error::option("tensors", "names, element types of files and shapes", why)
            })?;
        let specs: Vec<TensorSpec<'_>> = tensors
            .iter()
            .map(|TensorJson { name, dtype, shape }| TensorSpec {
                name,
                dtype: *dtype,
                shape,
            })
            .collect();
        let layout = FileLayout::new(&specs, &metadata)?;
        // (An index fits: each spec took more bytes of the request.)
        let order = layout.order().iter().map(|&index| index as i32).collect();
        ready(vec![
            ("header", Made::Bytes(layout.header().to_vec())),
            ("order", Made::Ints(order)),
            ("file", Made::json(&json!({ "length": layout.file_len() }))?),
        ])
    }
}

request! {
    /// A request of `inspectCheckpoint`.
    67 inspectCheckpoint InspectRequest {
        entries("tensors"): Text,
        config: Option<Text>,
    }
}

impl Operation for InspectRequest {
    fn prepares_at_length(&self) -> bool {
        true
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let operands = inputs.operands;
        let entries = whole_entries(self.entries.text(operands)?)?;
        let config = self.config.as_ref();
        let config = config
            .map(|config| json_text("config.json", config.u8(operands)?))
            .transpose()?;
        ready(vec![(
            "inspection",
            Made::json(&inspect(&entries, config)?)?,
        )])
    }
}

request! {
    /// A request of `castTensor`.
    68 castTensor CastRequest {
        name: Text,
        from("dtype"): Text,
        to("dtype"): Text,
        shape: List<Size>,
        data: Uint8,
    }
}

/// Elements per unit of work of a cast: about a millisecond.
const CAST_UNIT: usize = 1 << 19;

impl Operation for CastRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let operands = inputs.operands;
        let name = self.name.text(operands)?;
        let (from, to) = (
            dtype(name, self.from.text(operands)?)?,
            dtype(name, self.to.text(operands)?)?,
        );
        let data = self.data.u8(operands)?;
        let tensor = RawTensor::new(name, from, &self.shape, data).map_err(in_file)?;
        // Whether there is a way from one to the other, asked of no elements.
        let width = cast(&RawTensor::new(name, from, &[0], Vec::new())?, name, to)
            .map(|_| to.bitsize() / 8)?;
        let elements = tensor.bytes().len() / (from.bitsize() / 8).max(1);
        let spec = OutputSpec::new(name.to_owned(), Kind::U8, &[elements.saturating_mul(width)])?;
        Ok(Prepared::new(vec![spec], move |outputs| {
            let out = outputs.u8()?;
            Ok(Work::new(elements.div_ceil(CAST_UNIT), |pace| async move {
                let (wide, narrow) = (from.bitsize() / 8, to.bitsize() / 8);
                pace.rows(0..elements, CAST_UNIT, |range| {
                    // (One unit at a time: each takes memory for its result.)
                    for first in range.clone().step_by(CAST_UNIT) {
                        let end = (first + CAST_UNIT).min(range.end);
                        let bytes = &data[first * wide..end * wide];
                        let tensor = RawTensor::new(name, from, &[end - first], bytes)?;
                        out[first * narrow..end * narrow]
                            .copy_from_slice(&cast(&tensor, name, to)?);
                    }
                    Ok(())
                })
                .await
            }))
        }))
    }
}

/// To float32 from whatever has a float32 form; among the others as [`RawTensor::cast`] has it.
fn cast(tensor: &RawTensor<'_>, name: &str, to: Dtype) -> Result<Vec<u8>, Error> {
    if to == Dtype::F32 && ![Dtype::F16, Dtype::BF16].contains(&tensor.dtype()) {
        let values = tensor.to_f32(name).map_err(in_file)?;
        let mut bytes = Vec::new();
        let len = values.len().saturating_mul(size_of::<f32>());
        bytes
            .try_reserve_exact(len)
            .map_err(|_| Error::out_of_memory(len as u64))?;
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        return Ok(bytes);
    }
    let cast = tensor.cast(name, to).map_err(in_file)?;
    Ok(cast.tensor.bytes().to_vec())
}
