//! Differential attention: check, plan, run blocks.

mod cache;
mod lambda;
mod options;

pub use cache::{KvCache, KvCacheOptions};
pub use lambda::{lambda_full, lambda_init, lambda_scalars};
pub use options::{AttentionOptions, HeadPlan, KeysValues, KvRepeat, Lambda, Layout, Mask, NormOptions, Pairing};

use crate::error::Error;
use crate::shape::{DType, DataMut, Tensor};
use crate::slices::Slices;

/// A checked and planned call: made by [`DiffAttention::new`], given its outputs by
/// [`DiffAttention::bind`], worked off by [`Slices::step`].
#[derive(Debug)]
pub struct DiffAttention<'a> {
    _todo: std::marker::PhantomData<&'a ()>,
}

impl<'a> DiffAttention<'a> {
    /// Checks everything and allocates no scratch yet.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Dtype`] or [`Error::Option`], naming the argument.
    pub fn new(_q: Tensor<'a>, _kv: KeysValues<'a>, _options: &AttentionOptions<'a>) -> Result<Self, Error> {
        todo!()
    }

    /// The result's shape in the call's layout.
    #[must_use]
    pub fn output_shape(&self) -> [usize; 4] {
        todo!()
    }

    /// The result's element type: q's.
    #[must_use]
    pub fn output_dtype(&self) -> DType {
        todo!()
    }

    /// `[B, H, T, Lq]`, T the largest number of terms of any head.
    #[must_use]
    pub fn lse_shape(&self) -> [usize; 4] {
        todo!()
    }

    /// Gives the outputs: `out` of [`DiffAttention::output_shape`], and `lse` exactly when `return_lse` was asked.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Dtype`] when an output does not fit.
    pub fn bind(&mut self, _out: DataMut<'a>, _lse: Option<&'a mut [f32]>) -> Result<(), Error> {
        todo!()
    }
}

impl Slices for DiffAttention<'_> {
    fn total(&self) -> usize {
        todo!()
    }
    fn done(&self) -> usize {
        todo!()
    }
    fn step(&mut self, _count: usize) -> Result<(), Error> {
        todo!()
    }
}

/// Attention of float32 tensors in one call: the result in the call's layout, `[B, H, Lq, dv]` for `Bhsd`.
///
/// # Errors
/// [`Error::Shape`], [`Error::Dtype`] or [`Error::Option`] for arguments that do not fit;
/// [`Error::OutOfMemory`] when memory is refused.
pub fn diff_attention<'a>(q: Tensor<'a>, k: Tensor<'a>, v: Tensor<'a>, options: &AttentionOptions<'a>) -> Result<Vec<f32>, Error> {
    let mut call = DiffAttention::new(q, KeysValues::Tensors { k, v }, options)?;
    let _ = &mut call;
    todo!()
}

/// Where the maps of a call go: float32, each `[B, H, rows, Lk]`.
#[derive(Debug)]
pub struct MapOutputs<'a> {
    /// One per term.
    pub terms: Vec<&'a mut [f32]>,
    /// `Σ_t c_t map_t`.
    pub diff: &'a mut [f32],
}

/// The maps of a call, term by term, for a range of query rows: a checked call, as [`DiffAttention`].
#[derive(Debug)]
pub struct DiffAttentionMaps<'a> {
    _todo: std::marker::PhantomData<&'a ()>,
}

impl<'a> DiffAttentionMaps<'a> {
    /// Checks everything. `k` may be a cache. `num_kv_heads`, where given, must be the number of v heads that
    /// the pairing implies; without it the number follows from k. `rows` is the half-open range of queries.
    ///
    /// # Errors
    /// As [`DiffAttention::new`].
    pub fn new(
        _q: Tensor<'a>,
        _k: KeysOnly<'a>,
        _options: &AttentionOptions<'a>,
        _num_kv_heads: Option<usize>,
        _rows: Option<[usize; 2]>,
    ) -> Result<Self, Error> {
        todo!()
    }

    /// T, the largest number of terms of any head.
    #[must_use]
    pub fn terms(&self) -> usize {
        todo!()
    }

    /// `[B, H, rows, Lk]`.
    #[must_use]
    pub fn map_shape(&self) -> [usize; 4] {
        todo!()
    }

    /// Gives the outputs.
    ///
    /// # Errors
    /// [`Error::Shape`] when one does not fit.
    pub fn bind(&mut self, _outputs: MapOutputs<'a>) -> Result<(), Error> {
        todo!()
    }
}

/// Keys of a maps call.
#[derive(Debug, Clone)]
pub enum KeysOnly<'a> {
    /// `[B, n_k, Lk, d]` in the call's layout.
    Tensor(Tensor<'a>),
    /// Everything that a cache holds.
    Cache(&'a KvCache),
}

impl Slices for DiffAttentionMaps<'_> {
    fn total(&self) -> usize {
        todo!()
    }
    fn done(&self) -> usize {
        todo!()
    }
    fn step(&mut self, _count: usize) -> Result<(), Error> {
        todo!()
    }
}
