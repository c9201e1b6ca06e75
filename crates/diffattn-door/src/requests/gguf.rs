//! Requests about GGUF files: what a model in them is, in the words of a folder of Hugging Face's.
//! Reads no file: whoever asks sends bytes.

use std::collections::BTreeMap;

use diffattn::Error;
use diffattn_nn::checkpoint::{
    Entry, Gguf, GgufEntry, GgufHeader, GgufParsed, MAX_TENSORS, split_names,
};
use serde::{Serialize, Serializer};
use serde_json::json;

use super::files::{FileAt, StoredEntry};
use super::ready::{Made, in_file, ready};
use crate::encoding::{Count, List, Text, Uint8, request};
use crate::job::Prepared;
use crate::operation::{Inputs, Operation};

request! {
    /// A request of `gguf`.
    71 gguf GgufRequest {
        files: List<FileAt>,
        factors: Option<Uint8>,
        max_tensors: Option<Count>,
    }
}

/// What headers gave: all of them, or how many bytes of each file are needed.
enum Headers<'m> {
    All(Vec<(&'m str, GgufHeader<'m>)>),
    Need(Vec<u64>),
}

/// Reads the headers of files, of `max_tensors` in all.
fn headers<'m>(
    files: &[FileAt],
    operands: &[&'m [u8]],
    max_tensors: usize,
) -> Result<Headers<'m>, Error> {
    let mut headers: Vec<(&'m str, GgufHeader<'m>)> = Vec::new();
    let mut need = Vec::new();
    let mut left = max_tensors;
    for at in files {
        let (file, first) = (at.file.text(operands)?, at.first.u8(operands)?);
        match GgufHeader::parse(file, first, at.length, max_tensors)? {
            GgufParsed::Header(header) => {
                left = left.checked_sub(header.entries().len()).ok_or_else(|| {
                    let expected = format!("at most {max_tensors} tensors (maxTensors)");
                    Error::file(file, expected, "more, with those of the files before")
                })?;
                need.push(header.data_start().min(at.length));
                headers.push((file, header));
            }
            GgufParsed::Need(bytes) => need.push(bytes),
        }
    }
    Ok(match headers.len() == need.len() {
        true => Headers::All(headers),
        false => Headers::Need(need),
    })
}

impl Operation for GgufRequest {
    fn prepares_at_length(&self) -> bool {
        true
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let operands = inputs.operands;
        let max_tensors = self.max_tensors.unwrap_or(MAX_TENSORS);
        let headers = match headers(&self.files, operands, max_tensors)? {
            Headers::All(headers) => headers,
            Headers::Need(need) => {
                let json = Made::json(&json!({ "need": need }))?;
                return ready(vec![("checkpoint", json)]);
            }
        };
        let names: Vec<&str> = headers.iter().map(|(file, _)| *file).collect();
        let model = Gguf::new(headers)?;
        let factors = self.factors.as_ref();
        let factors = factors.map(|at| at.u8(operands)).transpose()?;
        if let (Some(entry), None) = (model.rope_factors(), factors) {
            let json = Made::json(&json!({ "factors": stored(entry, &names) }))?;
            return ready(vec![("checkpoint", json)]);
        }
        let config = model.config(factors).map_err(in_file)?;
        let generation = model.generation_config()?;
        let about = Opened {
            tensors: Listed {
                entries: model.entries(),
                names: &names,
            },
            metadata: model.metadata(),
            chat_template: model.chat_template(),
        };
        ready(vec![
            ("checkpoint", Made::json(&about)?),
            ("config", Made::Bytes(config.into_bytes())),
            ("generationConfig", Made::Bytes(generation.into_bytes())),
        ])
    }
}

/// An open model in JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Opened<'a> {
    tensors: Listed<'a>,
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_template: Option<&'a str>,
}

struct Listed<'a> {
    entries: &'a [GgufEntry],
    names: &'a [&'a str],
}

impl Serialize for Listed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = self.entries.iter();
        serializer.collect_seq(entries.map(|entry| stored(entry, self.names)))
    }
}

/// A tensor as requests about checkpoints take it.
fn stored<'a>(entry: &'a GgufEntry, names: &'a [&'a str]) -> StoredEntry<'a> {
    let Entry {
        name,
        dtype,
        shape,
        range,
    } = &entry.entry;
    StoredEntry {
        name: name.as_str().into(),
        dtype: *dtype,
        shape: shape.as_slice().into(),
        file: names.get(entry.file).copied().unwrap_or_default().into(),
        range: [range.start, range.end],
        turned_heads: entry.turned_heads,
    }
}

request! {
    /// A request of `ggufTokenizer`.
    74 ggufTokenizer GgufTokenizerRequest {
        files: List<FileAt>,
        max_tensors: Option<Count>,
    }
}

impl Operation for GgufTokenizerRequest {
    fn prepares_at_length(&self) -> bool {
        true
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let max_tensors = self.max_tensors.unwrap_or(MAX_TENSORS);
        let tokenizer = match headers(&self.files, inputs.operands, max_tensors)? {
            Headers::All(headers) => Gguf::new(headers)?.tokenizer()?,
            Headers::Need(need) => {
                let got = format!("fewer than {need:?}");
                return Err(Error::file("files", "all bytes of their headers", got));
            }
        };
        let (tokenizer, config) = match tokenizer {
            Some(read) => (read.tokenizer, read.config),
            None => Default::default(),
        };
        ready(vec![
            ("tokenizer", Made::Bytes(tokenizer.into_bytes())),
            ("tokenizerConfig", Made::Bytes(config.into_bytes())),
        ])
    }
}

request! {
    /// A request of `ggufFiles`.
    75 ggufFiles GgufFilesRequest {
        file: Text,
    }
}

impl Operation for GgufFilesRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let names = split_names(self.file.text(inputs.operands)?);
        ready(vec![("files", Made::json(&names)?)])
    }
}
