//! One tensor of a file as its header lists it, and the format's limits. Reads nothing.

use crate::dtype::{BLOCK, Dtype};
use crate::text::excerpt;
use std::ops::Range;

/// Bytes of the header's length.
pub(crate) const PREFIX: u64 = 8;

/// Bytes of a header at most, as the `safetensors` crate has it.
pub(crate) const MAX_HEADER: u64 = 100_000_000;

/// Axes of a tensor at most, as PyTorch has it.
pub(crate) const MAX_RANK: usize = 64;

/// The header's key that is no tensor.
pub(crate) const METADATA: &str = "__metadata__";

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// The extent of each axis, last axis fastest.
    pub shape: Vec<usize>,
    /// Where its bytes lie, from the start of the file.
    pub range: Range<u64>,
}

impl Entry {
    /// How many bytes it has.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// How many elements it has.
    #[must_use]
    pub fn elements(&self) -> u64 {
        let sizes = self.shape.iter();
        sizes.fold(1u64, |product, &size| product.saturating_mul(size as u64))
    }
}

/// How errors name a tensor of a file.
pub(crate) fn place(file: &str, name: &str) -> String {
    format!("{file}, tensor {:?}", excerpt(name))
}

/// The bytes of `shape`, or what was expected of it.
pub(crate) fn byte_len(dtype: Dtype, shape: &[usize]) -> Result<u64, &'static str> {
    let is_whole = |&size: &usize| size.is_multiple_of(BLOCK);
    if dtype.block_bytes().is_some() && !shape.last().is_some_and(is_whole) {
        return Err("a last axis of whole blocks of 32");
    }
    let bits = shape
        .iter()
        .try_fold(1u64, |product, &size| product.checked_mul(size as u64))
        .and_then(|elements| dtype.bits(elements))
        .ok_or("a shape whose size does not overflow")?;
    match bits % 8 {
        0 => Ok(bits / 8),
        _ => Err("a shape of whole bytes"),
    }
}
