//! GGUF, llama.cpp's format, read as what a folder of Hugging Face's holds: a configuration, a
//! tokenizer, and tensors under its names. Of one architecture, `llama`, and of the element types
//! F32, F16, BF16, Q8_0, Q4_0 and Q4_1. Writes none.
//!
//! A q or k head lies there as llama.cpp turns it, row 2i + j where Hugging Face has i + j·d/2
//! ([`GgufEntry::turned_heads`]); [`RawTensor::half_split`] puts the rows right, whatever they are
//! made of. Quantised blocks are handed on as they are ([`RawTensor::blocks`]), or widened
//! ([`RawTensor::to_f32`]).

mod config;
mod cursor;
mod files;
mod header;
mod keys;
mod llama;
mod names;
mod rope;
mod splits;
mod tokenizer;
mod value;

pub use files::GgufFiles;
pub use header::{GGUF_MAGIC, GgufHeader, GgufParsed};
pub use splits::split_names;
pub use tokenizer::GgufTokenizer;

use crate::dtype::Dtype;
use crate::entry::{Entry, place};
use crate::tensor::RawTensor;
use config::HeadCounts;
use diffattn::Error;
use keys::Keys;
use names::{Heads, ROPE_FACTORS, hugging_face};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A tensor of a GGUF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufEntry {
    /// The tensor, by Hugging Face's name.
    pub entry: Entry,
    /// Which of the files it lies in.
    pub file: usize,
    /// How many heads its rows are of, where those lie as llama.cpp turns them.
    pub turned_heads: Option<usize>,
}

impl GgufEntry {
    /// The tensor of its own bytes as the file has them: rows where Hugging Face has them, elements
    /// as they are.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming the tensor when the bytes are not as
    /// many as [`Entry::byte_len`]; [`Error::out_of_memory`].
    pub fn with_bytes<'a>(&self, bytes: impl Into<Cow<'a, [u8]>>) -> Result<RawTensor<'a>, Error> {
        let tensor = self.entry.with_bytes(bytes)?;
        match self.turned_heads {
            None => Ok(tensor),
            Some(heads) => tensor.half_split(&self.entry.name, heads),
        }
    }
}

/// The checked headers of a GGUF model, in one file or several, and what they say.
#[derive(Debug)]
pub struct Gguf<'b> {
    /// The file of the metadata, which is the first.
    file: &'b str,
    values: BTreeMap<&'b str, value::Value<'b>>,
    entries: Vec<GgufEntry>,
    factors: Option<GgufEntry>,
}

impl<'b> Gguf<'b> {
    /// The model of these files, by name, in the order of their numbers.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the file, and the value or tensor:
    /// another architecture than `llama`, what no Llama of Hugging Face's has, files that are
    /// missing or in disorder, a tensor in two of them.
    pub fn new(headers: Vec<(&'b str, GgufHeader<'b>)>) -> Result<Self, Error> {
        splits::check(&headers)?;
        let mut headers = headers.into_iter();
        let Some((file, first)) = headers.next() else {
            return Err(Error::file("files", "a GGUF file", "none"));
        };
        let keys = Keys {
            file,
            values: &first.values,
        };
        config::check_architecture(&keys)?;
        let heads = HeadCounts::read(&keys)?;
        let mut listed = Listed::default();
        listed.take(file, &first, &heads)?;
        for (file, header) in headers {
            listed.take(file, &header, &heads)?;
        }
        Ok(Self {
            file,
            values: first.values,
            entries: listed.entries,
            factors: listed.factors,
        })
    }

    fn keys(&self) -> Keys<'_, 'b> {
        Keys {
            file: self.file,
            values: &self.values,
        }
    }

    /// The tensors, file by file, without the factors of the rotary embedding.
    #[must_use]
    pub fn entries(&self) -> &[GgufEntry] {
        &self.entries
    }

    /// The factors of the rotary embedding, F32, where there are any: [`Gguf::config`] wants their
    /// bytes.
    #[must_use]
    pub fn rope_factors(&self) -> Option<&GgufEntry> {
        self.factors.as_ref()
    }

    /// What a `config.json` would say. `factors` are the bytes of [`Gguf::rope_factors`]: those of
    /// llama3 or linear scaling, which a configuration has words for.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the value that is missing or not what
    /// it should be; factors of another scaling.
    pub fn config(&self, factors: Option<&[u8]>) -> Result<String, Error> {
        let factors = match (&self.factors, factors) {
            (Some(entry), Some(bytes)) => {
                let argument = place(self.file, ROPE_FACTORS);
                let tensor = entry.with_bytes(bytes)?;
                Some(tensor.to_f32(&argument)?)
            }
            _ => None,
        };
        let entries: Vec<&Entry> = self.entries.iter().map(|entry| &entry.entry).collect();
        config::config(&self.keys(), &entries, factors.as_deref())
    }

    /// What a `generation_config.json` would say: the ids that begin, end and fill a text.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the value that is not what it should
    /// be.
    pub fn generation_config(&self) -> Result<String, Error> {
        config::generation_config(&self.keys())
    }

    /// The tokenizer; none where the file has none.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming a model or a pre-tokenizer that is not
    /// read, or the value that is missing or not what it should be.
    pub fn tokenizer(&self) -> Result<Option<GgufTokenizer>, Error> {
        tokenizer::read(&self.keys())
    }

    /// The template that makes a prompt of messages, where the file has one.
    #[must_use]
    pub fn chat_template(&self) -> Option<&'b str> {
        self.keys().value(tokenizer::CHAT_TEMPLATE)?.text()
    }

    /// Texts and numbers of the first file's metadata, by their keys; lists and long texts are left
    /// out.
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<String, String> {
        const LONGEST: usize = 200;
        let short = self.values.iter().filter_map(|(key, value)| {
            let text = match value {
                value::Value::List(_) => return None,
                value::Value::Text(_) => value.text()?.to_owned(),
                other => other.shown(),
            };
            (text.len() <= LONGEST).then(|| ((*key).to_owned(), text))
        });
        short.collect()
    }
}

/// Tensors on their way from names of llama.cpp's to Hugging Face's.
#[derive(Default)]
struct Listed {
    entries: Vec<GgufEntry>,
    /// The file of each name.
    files: BTreeMap<String, String>,
    factors: Option<GgufEntry>,
    file: usize,
}

impl Listed {
    fn take(
        &mut self,
        file: &str,
        header: &GgufHeader<'_>,
        counts: &HeadCounts,
    ) -> Result<(), Error> {
        for entry in header.entries() {
            self.add(file, entry, counts)?;
        }
        self.file += 1;
        Ok(())
    }

    fn add(&mut self, file: &str, entry: &Entry, counts: &HeadCounts) -> Result<(), Error> {
        let refuse =
            |expected: &str, got: String| Error::file(place(file, &entry.name), expected, got);
        if let Some(other) = self.files.insert(entry.name.clone(), file.to_owned()) {
            let got = format!("one that {other} has, too");
            return Err(refuse("a tensor that no other file has", got));
        }
        if entry.name == ROPE_FACTORS {
            if entry.dtype != Dtype::F32 {
                return Err(refuse("factors of F32", entry.dtype.to_string()));
            }
            self.factors = Some(GgufEntry {
                entry: entry.clone(),
                file: self.file,
                turned_heads: None,
            });
            return Ok(());
        }
        let Some((name, heads)) = hugging_face(&entry.name) else {
            let expected = "a tensor that a Llama has";
            return Err(refuse(expected, "one of another model".to_owned()));
        };
        let heads = match heads {
            Heads::None => None,
            Heads::Q => Some(counts.q),
            Heads::K => Some(counts.k),
        };
        // (What its rows have to be, is known before its bytes are read.)
        let rows = entry.shape.first().copied().unwrap_or(0) as u64;
        if let Some(heads) = heads
            && heads.checked_mul(counts.width) != Some(rows)
        {
            let expected = format!("the rows of {heads} heads of {}", counts.width);
            return Err(refuse(&expected, rows.to_string()));
        }
        if heads.is_some() && !counts.width.is_multiple_of(2) {
            return Err(refuse("heads of an even width", counts.width.to_string()));
        }
        self.entries.push(GgufEntry {
            entry: Entry {
                name,
                ..entry.clone()
            },
            file: self.file,
            // (It divides the rows, so it fits.)
            turned_heads: heads.and_then(|heads| usize::try_from(heads).ok()),
        });
        Ok(())
    }
}
