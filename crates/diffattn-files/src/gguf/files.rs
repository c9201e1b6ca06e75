//! Open GGUF files: their headers, and tensors on demand, in Hugging Face's names and order of
//! rows.

use super::header::{GgufHeader, GgufParsed};
use super::{Gguf, GgufEntry, GgufTokenizer};
use crate::entry::place;
use crate::header::MAX_TENSORS;
use crate::source::ByteSource;
use crate::tensor::RawTensor;
use diffattn::Error;
use std::collections::BTreeMap;

/// What is read first.
const FIRST: u64 = 1 << 16;

/// A file, and the bytes of its header.
#[derive(Debug)]
struct Open<S> {
    name: String,
    header: Vec<u8>,
    source: S,
}

/// The files of a GGUF model as one, over bytes in memory, a memory map or files that are read by
/// range.
#[derive(Debug)]
pub struct GgufFiles<S> {
    files: Vec<Open<S>>,
    entries: Vec<GgufEntry>,
    places: BTreeMap<String, usize>,
    config: String,
    generation_config: String,
}

impl<S: ByteSource> GgufFiles<S> {
    /// Reads and checks the headers of all files of a model, by name and in order.
    ///
    /// # Errors
    /// As [`GgufHeader::parse`], [`Gguf::new`] and [`Gguf::config`], and those of the sources.
    pub fn new(files: Vec<(String, S)>) -> Result<Self, Error> {
        let opened = files.into_iter().map(|(name, source)| {
            let header = header(&name, &source)?;
            Ok(Open {
                name,
                header,
                source,
            })
        });
        let files: Vec<Open<S>> = opened.collect::<Result<_, Error>>()?;
        let model = gguf(&files)?;
        let factors = match model.rope_factors() {
            None => None,
            Some(factors) => Some(read(&files, factors)?.into_bytes()),
        };
        let config = model.config(factors.as_deref())?;
        let generation_config = model.generation_config()?;
        let entries = model.entries().to_vec();
        let names = entries.iter().enumerate();
        let places = names.map(|(at, entry)| (entry.entry.name.clone(), at));
        Ok(Self {
            places: places.collect(),
            entries,
            config,
            generation_config,
            files,
        })
    }

    /// The tensors, file by file.
    #[must_use]
    pub fn entries(&self) -> &[GgufEntry] {
        &self.entries
    }

    /// What a `config.json` would say.
    #[must_use]
    pub fn config(&self) -> &str {
        &self.config
    }

    /// What a `generation_config.json` would say.
    #[must_use]
    pub fn generation_config(&self) -> &str {
        &self.generation_config
    }

    /// The tokenizer; none where the file has none.
    ///
    /// # Errors
    /// As [`Gguf::tokenizer`].
    pub fn tokenizer(&self) -> Result<Option<GgufTokenizer>, Error> {
        gguf(&self.files)?.tokenizer()
    }

    /// A tensor by Hugging Face's name, its rows as Hugging Face has them, its elements as the file
    /// has them.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) when there is none of that name, and those of
    /// the source.
    pub fn raw(&self, name: &str) -> Result<RawTensor<'_>, Error> {
        let entry = self.places.get(name).and_then(|&at| self.entries.get(at));
        let entry = entry.ok_or_else(|| {
            let file = self.files.first().map_or("", |file| &file.name);
            Error::file(place(file, name), "a tensor of this name", "none")
        })?;
        read(&self.files, entry)
    }
}

/// Reads as much of a file as its header has.
fn header<S: ByteSource>(name: &str, source: &S) -> Result<Vec<u8>, Error> {
    let len = source.byte_len();
    let mut need = FIRST.min(len);
    loop {
        let first = source.read(name, 0..need)?;
        let end = match GgufHeader::parse(name, &first, len, MAX_TENSORS)? {
            GgufParsed::Header(header) => header.data_start(),
            // (More than there was, and no more than the file has.)
            GgufParsed::Need(more) => {
                need = more;
                continue;
            }
        };
        let mut bytes = first.into_owned();
        bytes.truncate(usize::try_from(end).unwrap_or(usize::MAX));
        return Ok(bytes);
    }
}

/// The model of open files.
fn gguf<S: ByteSource>(files: &[Open<S>]) -> Result<Gguf<'_>, Error> {
    let headers = files.iter().map(|file| {
        let len = file.source.byte_len();
        match GgufHeader::parse(&file.name, &file.header, len, MAX_TENSORS)? {
            GgufParsed::Header(header) => Ok((file.name.as_str(), header)),
            GgufParsed::Need(_) => Err(Error::internal("a header that is shorter than it was")),
        }
    });
    Gguf::new(headers.collect::<Result<_, Error>>()?)
}

fn read<'s, S: ByteSource>(
    files: &'s [Open<S>],
    entry: &GgufEntry,
) -> Result<RawTensor<'s>, Error> {
    let file = files.get(entry.file);
    let file = file.ok_or_else(|| Error::internal("a tensor of a file that is not open"))?;
    let argument = place(&file.name, &entry.entry.name);
    let bytes = file.source.read(&argument, entry.entry.range.clone())?;
    entry.with_bytes(bytes)
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use super::GgufFiles;
    use crate::gguf::split_names;
    use crate::source::FileRanges;
    use diffattn::Error;
    use std::path::Path;

    impl GgufFiles<FileRanges> {
        /// Opens a file, and the others of its model beside it, by the form of its name. Headers
        /// are read now, tensors when they are asked for.
        ///
        /// # Errors
        /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the file.
        pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
            let path = path.as_ref();
            let name = path.file_name().map(|name| name.to_string_lossy());
            let names = split_names(&name.unwrap_or_default());
            if let [_] = names.as_slice() {
                let file = path.display().to_string();
                return Self::new(vec![(file, FileRanges::open(path)?)]);
            }
            let files = names.into_iter().map(|name| {
                let source = FileRanges::open(path.with_file_name(&name))?;
                Ok((name, source))
            });
            Self::new(files.collect::<Result<_, Error>>()?)
        }
    }
}
