//! Checkpoints of several files, as Hugging Face's `model.safetensors.index.json` lists them. A checkpoint of one file is
//! one of one shard. The names in an index are names of files beside it or in folders beside it, and never lead out of there.

use super::entry::{Entry, place};
use super::header::{Header, MAX_TENSORS};
use super::json::{self, json_text, reason, repeated};
use super::reader::Checkpoint;
use super::source::ByteSource;
use super::tensor::RawTensor;
use super::text::excerpt;
use diffattn::Error;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The file that Hugging Face puts beside shards.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The file of a checkpoint that has only one.
pub const MODEL_FILE: &str = "model.safetensors";

/// Which file holds which tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardIndex {
    file: String,
    /// File by tensor.
    weight_map: BTreeMap<String, String>,
    total_size: Option<u64>,
}

impl ShardIndex {
    /// Reads an index of [`MAX_TENSORS`] at most; `file` is its own name in errors.
    ///
    /// # Errors
    /// As [`ShardIndex::parse_at_most`].
    pub fn parse(file: &str, json: &[u8]) -> Result<Self, Error> {
        Self::parse_at_most(file, json, MAX_TENSORS)
    }

    /// The same of an index of `max_tensors` at most.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File): no UTF-8 or JSON, wrong types in it, too many tensors or one named twice, the name of a file that
    /// leads out of the index's folder.
    pub fn parse_at_most(file: &str, json: &[u8], max_tensors: usize) -> Result<Self, Error> {
        let text = json_text(file, json)?;
        let pairs = json::pairs(text, max_tensors.max(MAX_TENSORS))
            .map_err(|error| json::none(file, "an object in JSON", text, &error))?;
        if let Some(key) = repeated(pairs.iter().map(|(key, _)| key.as_str())) {
            return Err(Error::file(
                file,
                "keys that differ",
                format_args!("{:?} more than once", excerpt(key)),
            ));
        }
        let value = |wanted: &str| {
            pairs
                .iter()
                .find(|(key, _)| key == wanted)
                .map(|(_, value)| *value)
        };
        let map = value("weight_map").ok_or_else(|| {
            let is_config = value("model_type").or_else(|| value("architecture"));
            let got = match is_config {
                Some(_) => "the configuration of a model: name its folder or its weights",
                None => "none",
            };
            Error::file(file, "a weight_map", got)
        })?;
        Ok(Self {
            file: file.to_owned(),
            weight_map: weight_map(file, map, max_tensors)?,
            total_size: total_size(value("metadata")),
        })
    }

    /// The file that holds each tensor.
    #[must_use]
    pub fn weight_map(&self) -> &BTreeMap<String, String> {
        &self.weight_map
    }

    /// `metadata.total_size`, the bytes of all tensors, where it is given and whole. For information only: writers that count
    /// tied tensors twice exist.
    #[must_use]
    pub fn total_size(&self) -> Option<u64> {
        self.total_size
    }

    /// The names of the files, each once.
    #[must_use]
    pub fn files(&self) -> Vec<&str> {
        let mut files: Vec<&str> = self.weight_map.values().map(String::as_str).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    /// Checks shards against the index, by the name of the file and its header.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File): a file that is not among them, a tensor that its file has not, or that another has too.
    pub fn check(&self, shards: &[(&str, &Header)]) -> Result<(), Error> {
        for file in self.files() {
            if !shards.iter().any(|(name, _)| *name == file) {
                return Err(Error::file(
                    &self.file,
                    format_args!("the file {file:?}"),
                    "none of this name",
                ));
            }
        }
        for (tensor, file) in &self.weight_map {
            let mut found = false;
            for (name, header) in shards {
                match (header.get(tensor).is_some(), *name == file) {
                    (true, true) => found = true,
                    (true, false) => {
                        return Err(Error::file(
                            place(&self.file, tensor),
                            format_args!("it in {file:?} alone"),
                            format_args!("it in {name:?} too"),
                        ));
                    }
                    (false, _) => {}
                }
            }
            if !found {
                return Err(Error::file(
                    place(&self.file, tensor),
                    format_args!("it in {file:?}"),
                    "no such tensor there",
                ));
            }
        }
        Ok(())
    }
}

fn weight_map(
    file: &str,
    value: &RawValue,
    max_tensors: usize,
) -> Result<BTreeMap<String, String>, Error> {
    let pairs = json::pairs(value.get(), max_tensors).map_err(|error| {
        Error::file(
            file,
            format_args!(
                "a weight_map of file names by tensor, {max_tensors} at most (maxTensors)"
            ),
            format_args!("{} ({})", excerpt(value.get()), reason(&error)),
        )
    })?;
    if let Some(name) = repeated(pairs.iter().map(|(name, _)| name.as_str())) {
        return Err(Error::file(
            place(file, name),
            "one entry of this name",
            "more than one",
        ));
    }
    let mut map = BTreeMap::new();
    for (name, value) in pairs {
        let shard: Option<String> = serde_json::from_str(value.get()).ok();
        match shard.filter(|shard| is_beside(shard)) {
            Some(shard) => map.insert(name, shard),
            None => {
                return Err(Error::file(
                    place(file, &name),
                    "the name of a file beside the index or in a folder there",
                    excerpt(value.get()),
                ));
            }
        };
    }
    Ok(map)
}

/// Whether it names a file beside the index or in folders beside it, on any system: no way up, no root, no drive.
fn is_beside(name: &str) -> bool {
    let is_name = |part: &str| {
        !matches!(part, "" | "." | "..")
            && !part
                .chars()
                .any(|letter| matches!(letter, '\\' | ':') || letter.is_control())
    };
    name.split('/').all(is_name)
}

/// Some writers give it as a float.
fn total_size(metadata: Option<&RawValue>) -> Option<u64> {
    let metadata: serde_json::Value = serde_json::from_str(metadata?.get()).ok()?;
    let size = metadata.get("total_size")?;
    let whole =
        |size: f64| ((0.0..1e18).contains(&size) && size.fract() == 0.0).then_some(size as u64);
    size.as_u64().or_else(|| size.as_f64().and_then(whole))
}

/// The files of a checkpoint as one.
#[derive(Debug)]
pub struct Shards<S> {
    shards: Vec<Checkpoint<S>>,
    /// The shard of every tensor, by name.
    places: BTreeMap<String, usize>,
}

impl<S: ByteSource> Shards<S> {
    /// A checkpoint of one file.
    #[must_use]
    pub fn single(checkpoint: Checkpoint<S>) -> Self {
        let places = checkpoint
            .entries()
            .iter()
            .map(|entry| (entry.name.clone(), 0))
            .collect();
        Self {
            shards: vec![checkpoint],
            places,
        }
    }

    /// The files that an index lists, in any order; each must be opened under the name that the index has for it. Tensors
    /// that the index does not name are not seen.
    ///
    /// # Errors
    /// As [`ShardIndex::check`].
    pub fn new(index: &ShardIndex, shards: Vec<Checkpoint<S>>) -> Result<Self, Error> {
        let headers: Vec<(&str, &Header)> = shards
            .iter()
            .map(|shard| (shard.file(), shard.header()))
            .collect();
        index.check(&headers)?;
        let shard_of = |file: &str| shards.iter().position(|shard| shard.file() == file);
        let places = index
            .weight_map
            .iter()
            .filter_map(|(name, file)| Some((name.clone(), shard_of(file)?)))
            .collect();
        Ok(Self { shards, places })
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &[Checkpoint<S>] {
        &self.shards
    }

    /// Every tensor, by name.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.places
            .iter()
            .filter_map(|(name, &shard)| self.shards.get(shard)?.header().get(name))
    }

    /// A tensor as it lies in its file; see [`Checkpoint::raw`].
    ///
    /// # Errors
    /// As [`Checkpoint::raw`].
    pub fn raw(&self, name: &str) -> Result<RawTensor<'_>, Error> {
        self.shard(name)?.raw(name)
    }

    /// All elements of a tensor as float32; see [`RawTensor::to_f32`].
    ///
    /// # Errors
    /// As [`Checkpoint::read_f32`].
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, Error> {
        self.shard(name)?.read_f32(name)
    }

    fn shard(&self, name: &str) -> Result<&Checkpoint<S>, Error> {
        self.places
            .get(name)
            .and_then(|&shard| self.shards.get(shard))
            .ok_or_else(|| {
                let files: Vec<&str> = self.shards.iter().map(Checkpoint::file).collect();
                Error::file(
                    place(&files.join(" + "), name),
                    "a tensor of this name",
                    "none",
                )
            })
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use super::{INDEX_FILE, MODEL_FILE, ShardIndex, Shards};
    use crate::reader::Checkpoint;
    use crate::source::{ByteSource, FileMap, FileRanges};
    use diffattn::Error;
    use std::path::Path;

    /// Bytes of an index at most: as many as a header may have.
    const MAX_INDEX: u64 = crate::entry::MAX_HEADER;

    impl Shards<FileRanges> {
        /// Opens a file, or a folder with `model.safetensors` or else `model.safetensors.index.json` and its shards. Headers
        /// are read now, tensors when they are asked for.
        ///
        /// # Errors
        /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the file.
        pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
            open(path.as_ref(), &|path| FileRanges::open(path))
        }
    }

    impl Shards<FileMap> {
        /// As [`Shards::open`], over memory maps.
        ///
        /// # Errors
        /// As [`Shards::open`].
        ///
        /// # Safety
        /// That of [`FileMap::open`], for each file.
        pub unsafe fn map(path: impl AsRef<Path>) -> Result<Self, Error> {
            // SAFETY: the caller promises it for every file below `path`; no name in an index leads out of there.
            open(path.as_ref(), &|path| unsafe { FileMap::open(path) })
        }
    }

    fn open<S: ByteSource>(
        path: &Path,
        source: &dyn Fn(&Path) -> Result<S, Error>,
    ) -> Result<Shards<S>, Error> {
        if !path.is_dir() {
            let file = path.display().to_string();
            return Ok(Shards::single(Checkpoint::open(&file, source(path)?)?));
        }
        let file = path.join(MODEL_FILE);
        if file.is_file() {
            return open(&file, source);
        }
        let list = path.join(INDEX_FILE);
        if !list.is_file() {
            return Err(Error::file(
                path.display(),
                format_args!("{MODEL_FILE} or {INDEX_FILE} in it"),
                "neither",
            ));
        }
        let name = list.display().to_string();
        let bytes = FileRanges::open(&list)?;
        let len = bytes.byte_len();
        if len > MAX_INDEX {
            return Err(Error::file(
                name,
                format_args!("at most {MAX_INDEX} bytes"),
                len,
            ));
        }
        let index = ShardIndex::parse(&name, &bytes.read(&name, 0..len)?)?;
        let mut shards = Vec::new();
        for file in index.files() {
            let shard = path.join(file);
            if !shard.is_file() {
                return Err(Error::file(
                    &name,
                    format_args!("the file {file:?}"),
                    "none of this name",
                ));
            }
            shards.push(Checkpoint::open(file, source(&shard)?)?);
        }
        Shards::new(&index, shards)
    }
}
