//! An open safetensors file: its header, and its tensors on demand.

use super::entry::{Entry, place};
use super::header::{Header, MAX_TENSORS, Parsed};
use super::source::ByteSource;
use super::tensor::RawTensor;
use diffattn::Error;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What is read first: enough to say what a file is that is none.
const FIRST: u64 = 512;

/// An open safetensors file over bytes in memory (`&[u8]`, `Vec<u8>`), a memory map or a file that is read by range.
///
/// ```
/// use diffattn_files::{Checkpoint, Dtype, RawTensor, write};
///
/// let bytes: Vec<u8> = [1.0f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
/// let tensor = RawTensor::new("x", Dtype::F32, &[2], bytes)?;
/// let file = write(&[("x", tensor)], &Default::default())?;
///
/// let checkpoint = Checkpoint::open("x.safetensors", file)?;
/// assert_eq!(checkpoint.entries()[0].shape, [2]);
/// assert_eq!(checkpoint.read_f32("x")?, [1.0, 2.0]);
/// # Ok::<(), diffattn::Error>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint<S> {
    file: String,
    header: Header,
    source: S,
}

impl<S: ByteSource> Checkpoint<S> {
    /// Reads and checks the header; `file` is the file's name in errors.
    ///
    /// # Errors
    /// As [`Header::parse`], and those of the source.
    pub fn open(file: &str, source: S) -> Result<Self, Error> {
        Self::open_at_most(file, source, MAX_TENSORS)
    }

    /// The same of a file of `max_tensors` at most.
    ///
    /// # Errors
    /// As [`Header::parse_at_most`], and those of the source.
    pub fn open_at_most(file: &str, source: S, max_tensors: usize) -> Result<Self, Error> {
        let len = source.byte_len();
        let header = {
            let mut first = source.read(file, 0..FIRST.min(len))?;
            loop {
                match Header::parse_at_most(file, &first, len, max_tensors)? {
                    Parsed::Header(header) => break header,
                    // It is at most the file's length, and more than there was.
                    Parsed::Need(need) => first = source.read(file, 0..need)?,
                }
            }
        };
        Ok(Self {
            file: file.to_owned(),
            header,
            source,
        })
    }

    /// The file's name in errors.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The tensors, in the order of their bytes.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.header.entries()
    }

    /// What the file says of itself.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.header.metadata()
    }

    /// A tensor as it lies in the file: in place over memory, else copied.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) when there is none of that name, and those of the source.
    pub fn raw(&self, name: &str) -> Result<RawTensor<'_>, Error> {
        let argument = place(&self.file, name);
        let entry = self
            .header
            .get(name)
            .ok_or_else(|| Error::file(&argument, "a tensor of this name", "none"))?;
        let bytes = self.source.read(&argument, entry.range.clone())?;
        Ok(entry.tensor(bytes))
    }

    /// All elements of a tensor as float32; see [`RawTensor::to_f32`].
    ///
    /// # Errors
    /// As [`Checkpoint::raw`] and [`RawTensor::to_f32`].
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, Error> {
        self.raw(name)?.to_f32(&place(&self.file, name))
    }
}

impl Entry {
    /// The tensor that this entry is, of its own bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming the tensor when they are not as many as [`Entry::byte_len`].
    pub fn with_bytes<'a>(&self, bytes: impl Into<Cow<'a, [u8]>>) -> Result<RawTensor<'a>, Error> {
        RawTensor::new(&self.name, self.dtype, &self.shape, bytes)
    }

    /// The same of bytes that are known to be its own.
    fn tensor<'a>(&self, bytes: Cow<'a, [u8]>) -> RawTensor<'a> {
        RawTensor::checked(self.dtype, self.shape.clone(), bytes)
    }
}
