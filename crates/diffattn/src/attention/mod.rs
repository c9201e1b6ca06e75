//! Differential attention: check, plan, run blocks. The public doors of attention; the numbers are made in
//! `prefill/` and `decode/`.

mod adjust;
mod cache;
mod call;
mod decode;
mod lambda;
mod lanes;
mod mask;
mod options;
mod packed;
mod pairing;
mod prefill;
mod schedule;
mod scratch;
mod softmax;

pub use cache::{KvCache, KvCacheOptions};
pub use lambda::{lambda_full, lambda_init, lambda_scalars};
pub use options::{
    AttentionOptions, HeadPlan, KeysOnly, KeysValues, KvRepeat, Lambda, Layout, MapOutputs, Mask,
    NormOptions, Pairing,
};

use crate::error::Error;
use crate::shape::{DType, DataMut, Tensor, check_len, checked_len, format_shape, try_zeroed};
use crate::slices::Slices;
use call::{Call, MapsOut};
use schedule::Run;

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

/// The maps of a call, term by term, for a range of query rows: a checked call, as [`DiffAttention`].
#[derive(Debug)]
pub struct DiffAttentionMaps<'a> {
    run: Run<'a>,
    rows: [usize; 2],
}

impl<'a> DiffAttentionMaps<'a> {
    /// Checks everything. `num_kv_heads`, where given, must be the number of v heads that the pairing implies;
    /// without it the number follows from k. `rows` is the half-open range of queries; all by default.
    /// `options.norm` and `options.return_lse` have no meaning here and are refused.
    ///
    /// # Errors
    /// As [`DiffAttention::new`].
    pub fn new(
        q: Tensor<'a>,
        k: KeysOnly<'a>,
        options: &AttentionOptions<'a>,
        num_kv_heads: Option<usize>,
        rows: Option<[usize; 2]>,
    ) -> Result<Self, Error> {
        if options.norm.is_some() {
            return Err(Error::option("norm", "none for maps", "one"));
        }
        if options.return_lse {
            return Err(Error::option("return_lse", "none for maps", "one"));
        }
        let call = match k {
            KeysOnly::Tensor(k) => Call::new(q, Some(k), None, None, options)?,
            KeysOnly::Cache(cache) => Call::new(q, None, None, Some(cache), options)?,
        };
        if let Some(given) = num_kv_heads {
            let groups = call.value_heads();
            if given != groups {
                return Err(Error::shape(
                    "num_kv_heads",
                    format_args!("{groups}, as the pairing and k imply"),
                    given,
                ));
            }
        }
        let queries = call.lse_shape()[3];
        let rows = rows.unwrap_or([0, queries]);
        if rows[0] > rows[1] || rows[1] > queries {
            return Err(Error::shape(
                "rows",
                format_args!("[first, end) within 0 to {queries}"),
                format_shape(&rows),
            ));
        }
        Ok(Self {
            run: Run::new(call, rows, false),
            rows,
        })
    }

    /// T, the largest number of terms of any head.
    #[must_use]
    pub fn terms(&self) -> usize {
        self.run.call.plan.terms
    }

    /// `[B, H, rows, Lk]`.
    #[must_use]
    pub fn map_shape(&self) -> [usize; 4] {
        let [batch, heads, ..] = self.run.call.lse_shape();
        [
            batch,
            heads,
            self.rows[1] - self.rows[0],
            self.run.call.keys,
        ]
    }

    /// Gives the outputs, each of [`DiffAttentionMaps::map_shape`].
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) when one does not fit or overflows.
    pub fn bind(&mut self, outputs: MapOutputs<'a>) -> Result<(), Error> {
        outputs.check(self.terms(), &self.map_shape())?;
        self.run.call.maps = Some(MapsOut {
            terms: outputs.terms.into_iter().map(<[f32]>::as_mut_ptr).collect(),
            diff: outputs.diff.as_mut_ptr(),
            rows: self.rows,
        });
        Ok(())
    }
}

impl MapOutputs<'_> {
    /// Checks that there is a map per term, and that each and the difference are of `shape`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `maps` or `diff` when one does not fit or overflows.
    pub fn check(&self, terms: usize, shape: &[usize; 4]) -> Result<(), Error> {
        if self.terms.len() != terms {
            return Err(Error::shape(
                "maps",
                format_args!("{terms} maps"),
                self.terms.len(),
            ));
        }
        for map in &self.terms {
            check_len("maps", shape, map.len())?;
        }
        check_len("diff", shape, self.diff.len())?;
        Ok(())
    }
}

impl Slices for DiffAttentionMaps<'_> {
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
