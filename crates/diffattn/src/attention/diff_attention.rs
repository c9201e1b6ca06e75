//! One attention call: checked and planned, then worked off into its outputs.

use super::call::Call;
use super::inputs::KeysValues;
use super::options::AttentionOptions;
use super::outputs::{Outputs, RowsOut};
use super::waves::Planned;
use crate::error::Error;
use crate::run::buffer::try_zeroed;
use crate::run::work::Work;
use crate::tensor::shape::checked_len;
use crate::tensor::{DType, DataMut, Tensor};

/// A checked and planned call: made by [`DiffAttention::new`], worked off by what
/// [`DiffAttention::into_work`] makes of it.
#[derive(Debug)]
pub struct DiffAttention<'a> {
    planned: Planned<'a>,
}

impl<'a> DiffAttention<'a> {
    /// Checks everything and allocates no scratch yet. q is `[B, n_q, Lq, d]` in the call's layout.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype)
    /// or [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
    pub fn new(
        q: Tensor<'a>,
        kv: KeysValues<'a>,
        options: &AttentionOptions<'a>,
    ) -> Result<Self, Error> {
        let call = Call::new(&q, kv.into(), options)?;
        let queries = call.axis.length;
        Ok(Self {
            planned: Planned::new(call, [0, queries], true),
        })
    }

    /// The result's shape in the call's layout.
    #[must_use]
    pub fn output_shape(&self) -> [usize; 4] {
        self.planned.call.axis.shape()
    }

    /// The result's element type: q's.
    #[must_use]
    pub fn output_dtype(&self) -> DType {
        self.planned.call.dtype()
    }

    /// `[B, H, T, Lq]`, T the largest number of terms of any head.
    #[must_use]
    pub fn lse_shape(&self) -> [usize; 4] {
        self.planned.call.lse_shape()
    }

    /// The work of the call into its outputs: `out` of [`DiffAttention::output_shape`], and `lse`
    /// of [`DiffAttention::lse_shape`] exactly when `return_lse` was asked.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype)
    /// or [`ErrorKind::Option`](crate::ErrorKind::Option) when an output does not fit.
    pub fn into_work<'o>(
        self,
        out: DataMut<'o>,
        lse: Option<&'o mut [f32]>,
    ) -> Result<Work<'o>, Error>
    where
        'a: 'o,
    {
        self.into_work_keeping(out, lse, None)
    }

    /// [`DiffAttention::into_work`] of a call whose rows go into `pre_norm`, too, where it is
    /// there, before their norm, which the call must have: float32, of
    /// [`DiffAttention::output_shape`].
    /// Gradients take it ([`GradientOptions::pre_norm`](crate::GradientOptions::pre_norm)).
    ///
    /// # Errors
    /// Those of [`DiffAttention::into_work`]; [`ErrorKind::Option`](crate::ErrorKind::Option) when
    /// the call has no norm.
    pub fn into_work_keeping<'o>(
        self,
        out: DataMut<'o>,
        lse: Option<&'o mut [f32]>,
        pre_norm: Option<&'o mut [f32]>,
    ) -> Result<Work<'o>, Error>
    where
        'a: 'o,
    {
        let call = &self.planned.call;
        let rows = RowsOut::new(call, out, lse, pre_norm)?;
        Ok(self.planned.into_work(Outputs::Rows(rows)))
    }
}

/// Attention of float32 tensors in one call: the result in the call's layout, `[B, H, Lq, dv]` for
/// `Bhsd`.
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or
/// [`ErrorKind::Option`](crate::ErrorKind::Option) for arguments that do not fit (halves and
/// `return_lse` need [`DiffAttention`]); [`Error::out_of_memory`] when memory is refused.
pub fn diff_attention(
    q: Tensor<'_>,
    k: Tensor<'_>,
    v: Tensor<'_>,
    options: &AttentionOptions<'_>,
) -> Result<Vec<f32>, Error> {
    let call = DiffAttention::new(q, KeysValues::Tensors { k, v }, options)?;
    let mut out = try_zeroed(checked_len("q", &call.output_shape())?)?;
    call.into_work(DataMut::F32(&mut out), None)?.finish()?;
    Ok(out)
}
