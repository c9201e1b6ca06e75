//! Keys and values of past tokens, kept in the kernel's own panels.

use crate::error::Error;
use crate::shape::{DType, Tensor};
use super::Layout;

/// What a cache is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvCacheOptions {
    /// Sequences side by side; 1 by default.
    pub batch: usize,
    /// v heads G.
    pub groups: usize,
    /// k heads per group: 2 for interleaved and grouped, 1 for halves and shared.
    pub terms: usize,
    /// d.
    pub head_dim: usize,
    /// dv.
    pub value_dim: usize,
    /// Tokens to reserve memory for; it grows past them when `growing`.
    pub capacity: usize,
    /// The dtype of what is appended (and of q).
    pub dtype: DType,
}

/// Keys and values of past tokens: append, rewind, and use wherever k and v are taken.
#[derive(Debug, Clone)]
pub struct KvCache {
    options: KvCacheOptions,
    length: usize,
}

impl KvCache {
    /// An empty cache.
    ///
    /// # Errors
    /// [`Error::Shape`] for a zero size, [`Error::OutOfMemory`] when `capacity` cannot be reserved.
    pub fn new(options: KvCacheOptions) -> Result<Self, Error> {
        Ok(Self { options, length: 0 })
    }

    /// What it was made for.
    #[must_use]
    pub fn options(&self) -> &KvCacheOptions {
        &self.options
    }

    /// Tokens held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds tokens: k `[B, terms·groups, L, d]` and v `[B, groups, L, dv]` in `layout`.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Dtype`] when they do not fit; [`Error::OutOfMemory`], with the cache unchanged.
    pub fn append(&mut self, _k: Tensor<'_>, _v: Tensor<'_>, _layout: Layout) -> Result<(), Error> {
        todo!()
    }

    /// Forgets all but the first `length` tokens.
    ///
    /// # Errors
    /// [`Error::Shape`] when it holds fewer.
    pub fn rewind(&mut self, _length: usize) -> Result<(), Error> {
        todo!()
    }
}
