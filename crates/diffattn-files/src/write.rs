//! Writes safetensors files, tensor by tensor. Laid out as the `safetensors` crate does it (widest
//! elements first, then by name, the header padded to 8 bytes), so that every tensor is aligned;
//! unlike it, metadata has an order, so the same tensors make the same bytes, and only one tensor
//! is held at a time.

use super::entry::{MAX_HEADER, METADATA, PREFIX, byte_len, place};
use super::json::repeated;
use super::tensor::RawTensor;
use crate::dtype::Dtype;
use diffattn::Error;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

/// A tensor that is to be written: all of it but its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type of its elements.
    pub dtype: Dtype,
    /// The extent of each axis, last axis fastest.
    pub shape: &'a [usize],
}

/// The layout of a file: its header, and the order of its tensors.
#[derive(Debug, Clone)]
pub struct FileLayout {
    header: Vec<u8>,
    /// Indices of the specs, in the order of their bytes.
    order: Vec<usize>,
    /// Bytes of each spec.
    lens: Vec<u64>,
    names: Vec<String>,
}

#[derive(Serialize)]
struct Info<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    data_offsets: [u64; 2],
}

struct Head<'a> {
    metadata: &'a BTreeMap<String, String>,
    entries: Vec<(&'a str, Info<'a>)>,
}

impl Serialize for Head<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.metadata.is_empty() {
            map.serialize_entry(METADATA, self.metadata)?;
        }
        for (name, info) in &self.entries {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}

impl FileLayout {
    /// Lays out a file of these tensors.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) for names that stand twice or are the
    /// format's own, element types that are none of its, or a header of more than 100 MB;
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) for sizes that overflow.
    pub fn new(
        tensors: &[TensorSpec<'_>],
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        if let Some(name) = repeated(tensors.iter().map(|tensor| tensor.name)) {
            return Err(Error::option(
                "tensors",
                "names that differ",
                format_args!("{name:?} more than once"),
            ));
        }
        if tensors.iter().any(|tensor| tensor.name == METADATA) {
            return Err(Error::option(
                "tensors",
                "names of tensors",
                format_args!("{METADATA:?}, which the format keeps for itself"),
            ));
        }
        let in_blocks = |tensor: &&TensorSpec<'_>| tensor.dtype.block_bytes().is_some();
        if let Some(tensor) = tensors.iter().find(in_blocks) {
            let expected = "an element type of safetensors files";
            return Err(Error::option(tensor.name, expected, tensor.dtype));
        }
        let mut order: Vec<usize> = (0..tensors.len()).collect();
        order.sort_by(|&a, &b| {
            let (a, b) = (&tensors[a], &tensors[b]);
            b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(b.name))
        });
        let mut lens = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let len = byte_len(tensor.dtype, tensor.shape).map_err(|expected| {
                Error::shape(
                    tensor.name,
                    expected,
                    format_args!("{:?} of {}", tensor.shape, tensor.dtype),
                )
            })?;
            lens.push(len);
        }
        let mut end = 0u64;
        let mut entries = Vec::with_capacity(tensors.len());
        for &index in &order {
            let TensorSpec { name, dtype, shape } = tensors[index];
            let begin = end;
            end = end.checked_add(lens[index]).ok_or_else(|| {
                Error::shape(name, "a file whose size does not overflow", lens[index])
            })?;
            let data_offsets = [begin, end];
            let info = Info {
                dtype,
                shape,
                data_offsets,
            };
            entries.push((name, info));
        }
        let head = Head { metadata, entries };
        let mut header = PREFIX.to_le_bytes().to_vec();
        serde_json::to_writer(&mut header, &head)
            .map_err(|error| Error::internal(format!("a header that is no JSON: {error}")))?;
        header.resize(header.len().next_multiple_of(PREFIX as usize), b' ');
        let len = header.len() as u64 - PREFIX;
        if len > MAX_HEADER {
            return Err(Error::option(
                "tensors",
                format_args!("a header of at most {MAX_HEADER} bytes"),
                len,
            ));
        }
        header[..PREFIX as usize].copy_from_slice(&len.to_le_bytes());
        Ok(Self {
            header,
            order,
            lens,
            names: tensors
                .iter()
                .map(|tensor| tensor.name.to_owned())
                .collect(),
        })
    }

    /// What the file begins with: the header and its length.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Indices of the tensors, in the order in which their bytes follow.
    #[must_use]
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.header.len() as u64 + self.lens.iter().sum::<u64>()
    }

    /// Writes the file: the header, then each tensor as `bytes` gives it (asked with its index, in
    /// [`FileLayout::order`]). Wants no buffer of its own around `out`: writes are whole tensors.
    ///
    /// # Errors
    /// Those of `bytes`; [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming a tensor whose
    /// bytes are not as many as was said; [`ErrorKind::File`](diffattn::ErrorKind::File) naming
    /// `file` when `out` refuses. What was written until then is no checkpoint.
    pub fn write<'a>(
        &self,
        file: &str,
        out: &mut impl Write,
        mut bytes: impl FnMut(usize) -> Result<Cow<'a, [u8]>, Error>,
    ) -> Result<(), Error> {
        let mut put = |name: &str, bytes: &[u8]| {
            out.write_all(bytes).map_err(|error| {
                Error::file(name, format_args!("to write {} bytes", bytes.len()), error)
            })
        };
        put(file, &self.header)?;
        for &index in &self.order {
            let (name, wanted) = (&self.names[index], self.lens[index]);
            let bytes = bytes(index)?;
            if bytes.len() as u64 != wanted {
                return Err(Error::shape(
                    name,
                    format_args!("{wanted} bytes"),
                    bytes.len(),
                ));
            }
            put(&place(file, name), &bytes)?;
        }
        out.flush()
            .map_err(|error| Error::file(file, "to write all", error))
    }
}

/// The bytes of a safetensors file of these tensors.
///
/// # Errors
/// As [`FileLayout::new`]; [`Error::out_of_memory`].
pub fn write(
    tensors: &[(&str, RawTensor<'_>)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, Error> {
    let mut file = Vec::new();
    write_to(&mut file, "file", tensors, metadata)?;
    Ok(file)
}

/// Writes a safetensors file of these tensors, one after another; `file` is its name in errors.
///
/// # Errors
/// As [`FileLayout::new`] and [`FileLayout::write`].
pub fn write_to(
    out: &mut impl Write,
    file: &str,
    tensors: &[(&str, RawTensor<'_>)],
    metadata: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let specs: Vec<TensorSpec<'_>> = tensors
        .iter()
        .map(|(name, tensor)| TensorSpec {
            name,
            dtype: tensor.dtype(),
            shape: tensor.shape(),
        })
        .collect();
    FileLayout::new(&specs, metadata)?.write(file, out, |index| {
        Ok(Cow::Borrowed(tensors[index].1.bytes()))
    })
}
