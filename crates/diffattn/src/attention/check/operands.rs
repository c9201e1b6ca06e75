//! q, k, v or a cache: element types, head widths and lengths that fit each other, and the result's
//! axis.

use crate::attention::cache::KvCache;
use crate::attention::inputs::{Keys, Source};
use crate::attention::options::AttentionOptions;
use crate::attention::packed::ValueShape;
use crate::attention::plan::{HeadCounts, Plan};
use crate::error::Error;
use crate::tensor::axis::HeadAxis;
use crate::tensor::shape::checked_len;
use crate::tensor::{DType, Data, Tensor};

/// Keys at most: key positions are exact in float32 (score masks compare them so).
const MAX_KEYS: usize = 1 << 24;

/// Channels of a value at most where there are no keys: the result has them, and no element of v
/// answers for them.
const MAX_UNBACKED: usize = 1 << 16;

/// Checked q, k and v.
#[derive(Debug)]
pub(in crate::attention) struct Operands<'a> {
    pub(in crate::attention) q: Data<'a>,
    pub(in crate::attention) q_axis: HeadAxis,
    pub(in crate::attention) source: Source<'a>,
    pub(in crate::attention) counts: HeadCounts,
    /// Lk, with padding.
    pub(in crate::attention) keys: usize,
    pub(in crate::attention) value_shape: ValueShape,
}

/// q beside its keys and values, in the call's layout.
pub(in crate::attention) fn operands<'a>(
    q: &Tensor<'a>,
    keys: Keys<'a>,
    options: &AttentionOptions<'a>,
) -> Result<Operands<'a>, Error> {
    let q_axis = HeadAxis::new("q", q, options.layout)?;
    let operands = match keys {
        Keys::Cache(cache) => cached(q.data, q_axis, cache)?,
        Keys::Tensors { k, v } => tensors((q.data, q_axis), &k, v.as_ref(), options)?,
    };
    if operands.keys >= MAX_KEYS {
        return Err(Error::shape(
            "k",
            format_args!("fewer than {MAX_KEYS} keys"),
            operands.keys,
        ));
    }
    let channels = operands.value_shape.width;
    if operands.keys == 0 && q_axis.length > 0 && channels > MAX_UNBACKED {
        return Err(Error::shape(
            "v",
            format_args!("at most {MAX_UNBACKED} channels where there are no keys"),
            channels,
        ));
    }
    Ok(operands)
}

fn cached<'a>(q: Data<'a>, q_axis: HeadAxis, cache: &'a KvCache) -> Result<Operands<'a>, Error> {
    let of = cache.options();
    same("cache", "batch", q_axis.batch, of.batch)?;
    same("cache", "head_dim", q_axis.width, of.head_dim)?;
    Ok(Operands {
        q,
        q_axis,
        source: Source::Cache(cache),
        counts: HeadCounts {
            q: q_axis.heads,
            k: of.terms * of.groups,
            v: Some(of.groups),
        },
        keys: cache.len(),
        value_shape: cache.value_shape(),
    })
}

fn tensors<'a>(
    (q, q_axis): (Data<'a>, HeadAxis),
    k: &Tensor<'a>,
    v: Option<&Tensor<'a>>,
    options: &AttentionOptions<'a>,
) -> Result<Operands<'a>, Error> {
    let k_axis = HeadAxis::new("k", k, options.layout)?;
    as_q("k", k.data.dtype(), q.dtype())?;
    same("k", "batch", q_axis.batch, k_axis.batch)?;
    same("k", "head width", q_axis.width, k_axis.width)?;
    let mut values = None;
    if let Some(v) = v {
        let v_axis = HeadAxis::new("v", v, options.layout)?;
        as_q("v", v.data.dtype(), q.dtype())?;
        same("v", "batch", q_axis.batch, v_axis.batch)?;
        if v_axis.length != k_axis.length {
            return Err(Error::shape(
                "v",
                format_args!("{} keys as k", k_axis.length),
                v_axis.length,
            ));
        }
        values = Some((v.data, v_axis));
    }
    let width = values.map_or(0, |(_, axis)| axis.width);
    let longest = longest(options.cu_seqlens_k, k_axis.length);
    Ok(Operands {
        q,
        q_axis,
        source: Source::Tensors {
            k: (k.data, k_axis),
            v: values,
        },
        counts: HeadCounts {
            q: q_axis.heads,
            k: k_axis.heads,
            v: values.map(|(_, axis)| axis.heads),
        },
        keys: k_axis.length,
        value_shape: ValueShape::new(longest, width),
    })
}

/// The most keys that a sequence has, as far as `cu_seqlens_k` can be believed before it is
/// checked.
fn longest(cu_seqlens_k: Option<&[i32]>, keys: usize) -> usize {
    let Some(cu) = cu_seqlens_k else { return keys };
    let lengths = cu.windows(2).map(|ends| ends[1].saturating_sub(ends[0]));
    (lengths.max().unwrap_or(0).max(0) as usize).min(keys)
}

fn as_q(argument: &str, dtype: DType, q: DType) -> Result<(), Error> {
    if dtype == q {
        return Ok(());
    }
    Err(Error::dtype(
        argument,
        format_args!("{} as q", q.name()),
        dtype.name(),
    ))
}

fn same(argument: &str, what: &str, q: usize, got: usize) -> Result<(), Error> {
    if got == q {
        return Ok(());
    }
    Err(Error::shape(argument, format_args!("{what} {q} as q"), got))
}

/// The axis of the result, whose size, with that of the log-sum-exps, fits this machine.
pub(in crate::attention) fn out_axis(
    operands: &Operands<'_>,
    plan: &Plan,
) -> Result<HeadAxis, Error> {
    let (heads, channels) = (plan.heads.len(), operands.value_shape.width);
    let width = plan
        .values
        .checked_mul(channels)
        .ok_or_else(|| Error::shape("v", "a result whose channels fit this machine", channels))?;
    let axis = HeadAxis {
        heads,
        width,
        ..operands.q_axis
    };
    checked_len("q", &axis.shape())?;
    checked_len("q", &[axis.batch, heads, plan.terms, axis.length])?;
    Ok(axis)
}
