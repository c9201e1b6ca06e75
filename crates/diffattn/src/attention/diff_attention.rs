//! One attention call: checked, planned, bound to its outputs, worked off.

use super::call::Call;
use super::inputs::KeysValues;
use super::options::AttentionOptions;
use super::schedule::Run;
use crate::error::Error;
use crate::shape::{DType, DataMut, Tensor, checked_len, try_zeroed};
use crate::slices::Slices;

/// A checked and planned call: made by [`DiffAttention::new`], given its outputs by
/// [`DiffAttention::bind`], worked off by [`Slices::step`].
#[derive(Debug)]
pub struct DiffAttention<'a> {
    run: Run<'a>,
}

impl<'a> DiffAttention<'a> {
    /// Checks everything and allocates no scratch yet. q is `[B, n_q, Lq, d]` in the call's layout.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
    pub fn new(
        q: Tensor<'a>,
        kv: KeysValues<'a>,
        options: &AttentionOptions<'a>,
    ) -> Result<Self, Error> {
        let call = match kv {
            KeysValues::Tensors { k, v } => Call::new(q, Some(k), Some(v), None, options)?,
            KeysValues::Cache(cache) => Call::new(q, None, None, Some(cache), options)?,
        };
        let queries = call.lse_shape()[3];
        Ok(Self {
            run: Run::new(call, [0, queries], true),
        })
    }

    /// The result's shape in the call's layout.
    #[must_use]
    pub fn output_shape(&self) -> [usize; 4] {
        self.run.call.output_shape()
    }

    /// The result's element type: q's.
    #[must_use]
    pub fn output_dtype(&self) -> DType {
        self.run.call.dtype()
    }

    /// `[B, H, T, Lq]`, T the largest number of terms of any head.
    #[must_use]
    pub fn lse_shape(&self) -> [usize; 4] {
        self.run.call.lse_shape()
    }

    /// Gives the outputs: `out` of [`DiffAttention::output_shape`], and `lse` exactly when `return_lse` was asked.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or [`ErrorKind::Option`](crate::ErrorKind::Option) when an output does not fit.
    pub fn bind(&mut self, out: DataMut<'a>, lse: Option<&'a mut [f32]>) -> Result<(), Error> {
        self.run.call.bind(out, lse)
    }
}

impl Slices for DiffAttention<'_> {
    fn total(&self) -> usize {
        self.run.total()
    }
    fn done(&self) -> usize {
        self.run.done()
    }
    fn step(&mut self, count: usize) -> Result<(), Error> {
        self.run.step(count)
    }
}

/// Attention of float32 tensors in one call: the result in the call's layout, `[B, H, Lq, dv]` for `Bhsd`.
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or [`ErrorKind::Option`](crate::ErrorKind::Option) for arguments that do not fit (halves and
/// `return_lse` need [`DiffAttention`]); [`Error::OutOfMemory`] when memory is refused.
pub fn diff_attention(
    q: Tensor<'_>,
    k: Tensor<'_>,
    v: Tensor<'_>,
    options: &AttentionOptions<'_>,
) -> Result<Vec<f32>, Error> {
    let shape = DiffAttention::new(
        q.clone(),
        KeysValues::Tensors {
            k: k.clone(),
            v: v.clone(),
        },
        options,
    )?
    .output_shape();
    let mut out = try_zeroed(checked_len("q", &shape)?)?;
    {
        let mut call = DiffAttention::new(q, KeysValues::Tensors { k, v }, options)?;
        call.bind(DataMut::F32(&mut out), None)?;
        call.finish()?;
    }
    Ok(out)
}
