//! The attention call of a layer, over what its projection made. Owns both, so that a job can be kept between slices.

use crate::layer::{DiffAttnLayer, LambdaSource};
use crate::projection::{Projected, Run};
use diffattn::{
    AttentionOptions, DataMut, DiffAttention, DiffAttentionMaps, Error, KeysOnly, KeysValues,
    KvCache, KvCacheOptions, Lambda, Layout, MapOutputs, Mask, NormOptions, Tensor, check_len,
    checked_len, format_shape, try_zeroed,
};
use self_cell::{MutBorrow, self_cell};
use std::borrow::Cow;
use std::ops::Range;

/// A checked mask `[B|1, H|1, L|1, Lk]`.
#[derive(Debug, Clone)]
pub(crate) struct LayerMask<'a> {
    data: Cow<'a, [u8]>,
    shape: [usize; 4],
}

impl<'a> LayerMask<'a> {
    /// Checks the mask of a call, where it has one.
    pub(crate) fn check(
        mask: Option<&Mask<'a>>,
        layer: &DiffAttnLayer,
        run: &Run,
    ) -> Result<Option<Self>, Error> {
        let Some(mask) = mask else { return Ok(None) };
        let [batch, heads, queries, keys] = [
            run.batch,
            layer.num_heads(),
            run.length,
            run.past + run.length,
        ];
        match *mask.shape.as_slice() {
            [b, h, q, k]
                if (b == batch || b == 1)
                    && (h == heads || h == 1)
                    && (q == queries || q == 1)
                    && k == keys =>
            {
                check_len("attn_mask", &mask.shape, mask.data.len())?;
                Ok(Some(Self {
                    data: Cow::Borrowed(mask.data),
                    shape: [b, h, q, k],
                }))
            }
            _ => Err(Error::shape(
                "attn_mask",
                format_args!("shape [{batch}|1, {heads}|1, {queries}|1, {keys}]"),
                format_shape(&mask.shape),
            )),
        }
    }

    /// The same with a copy of the first `more` heads behind the last, for heads of differences.
    fn with_more_heads(self, more: usize) -> Result<Self, Error> {
        let [batch, heads, queries, keys] = self.shape;
        if heads == 1 || queries * keys == 0 {
            return Ok(Self {
                shape: [
                    batch,
                    if heads == 1 { 1 } else { heads + more },
                    queries,
                    keys,
                ],
                ..self
            });
        }
        let shape = [batch, heads + more, queries, keys];
        let mut data = try_zeroed(checked_len("attn_mask", &shape)?)?;
        let head = queries * keys;
        for (from, to) in self
            .data
            .chunks_exact(heads * head)
            .zip(data.chunks_exact_mut((heads + more) * head))
        {
            to[..heads * head].copy_from_slice(from);
            to[heads * head..].copy_from_slice(&from[..more * head]);
        }
        Ok(Self {
            data: Cow::Owned(data),
            shape,
        })
    }

    fn as_mask(&self) -> Mask<'_> {
        Mask {
            data: &self.data,
            shape: self.shape.to_vec(),
        }
    }
}

/// The cache of a call. Unless the call succeeds, what it appended is forgotten again.
#[derive(Debug)]
pub(crate) struct CacheLoan<'a> {
    pub(crate) cache: &'a mut KvCache,
    length: usize,
    pub(crate) keep: bool,
}

impl<'a> CacheLoan<'a> {
    pub(crate) fn new(cache: &'a mut KvCache) -> Self {
        let length = cache.len();
        Self {
            cache,
            length,
            keep: false,
        }
    }
}

impl Drop for CacheLoan<'_> {
    fn drop(&mut self) {
        if !self.keep {
            // It holds at least what it held before, so this cannot fail.
            let _ = self.cache.rewind(self.length);
        }
    }
}

/// What a layer's attention borrows.
pub(crate) struct Operands<'a> {
    pub(crate) layer: &'a DiffAttnLayer,
    pub(crate) run: Run,
    pub(crate) projected: Projected,
    pub(crate) mask: Option<LayerMask<'a>>,
    pub(crate) cache: Option<CacheLoan<'a>>,
    /// `[B, L, heads, head_width]`, the heads of differences behind the plain ones; normalised unless there are any.
    pub(crate) attended: MutBorrow<Vec<f32>>,
}

self_cell!(
    /// An attention call and what it borrows.
    pub(crate) struct Attending<'a> {
        owner: Operands<'a>,
        #[not_covariant]
        dependent: DiffAttention,
    }
);

self_cell!(
    /// A maps call and what it borrows.
    pub(crate) struct Mapping<'a> {
        owner: Operands<'a>,
        #[not_covariant]
        dependent: DiffAttentionMaps,
    }
);

impl Operands<'_> {
    fn shape(&self, heads: usize, width: usize) -> [usize; 4] {
        [self.run.batch, self.run.length, heads, width]
    }

    fn q(&self) -> Tensor<'_> {
        Tensor::f32(
            &self.projected.q,
            &self.shape(self.projected.q_heads, self.layer.heads.dimensions.head_dim),
        )
    }

    fn k(&self) -> Tensor<'_> {
        Tensor::f32(
            &self.projected.k,
            &self.shape(self.projected.k_heads, self.layer.heads.dimensions.head_dim),
        )
    }

    fn v(&self) -> Tensor<'_> {
        Tensor::f32(
            &self.projected.v,
            &self.shape(self.projected.v_heads, self.layer.heads.value_dim),
        )
    }

    /// What attention and maps of the plain heads share.
    fn options(&self) -> AttentionOptions<'_> {
        let dimensions = &self.layer.heads.dimensions;
        AttentionOptions {
            lambda: Some(match self.layer.lambda {
                LambdaSource::Value(value) => Lambda::Value(value),
                LambdaSource::Projected(_) => Lambda::PerToken {
                    data: &self.projected.lambda,
                    shape: vec![self.run.batch, self.run.length, dimensions.heads],
                },
            }),
            pairing: dimensions.pairing,
            ratio: dimensions.ratio,
            kv_repeat: dimensions.kv_repeat,
            layout: Layout::Bshd,
            is_causal: self.layer.is_causal,
            attn_mask: self.mask.as_ref().map(LayerMask::as_mask),
            run: self.run.run,
            ..AttentionOptions::default()
        }
    }
}

impl<'a> Operands<'a> {
    /// Adds new tokens of every sequence to the cache. Once they all are there, k and v are not needed any more.
    pub(crate) fn append(&mut self, tokens: Range<usize>) -> Result<(), Error> {
        let Self {
            run,
            projected,
            cache: Some(loan),
            ..
        } = self
        else {
            return Ok(());
        };
        let (batch, length, count) = (run.batch, run.length, tokens.len());
        let stretch = |data: &'_ [f32]| -> Result<Vec<f32>, Error> {
            let width = data.len() / (batch * length);
            let mut part = try_zeroed(batch * count * width)?;
            let sequences = data.chunks_exact(length * width);
            for (to, from) in part.chunks_exact_mut(count * width).zip(sequences) {
                to.copy_from_slice(&from[tokens.start * width..tokens.end * width]);
            }
            Ok(part)
        };
        let KvCacheOptions {
            head_dim,
            value_dim,
            ..
        } = *loan.cache.options();
        let (k, v) = (stretch(&projected.k)?, stretch(&projected.v)?);
        loan.cache.append(
            Tensor::f32(&k, &[batch, count, projected.k_heads, head_dim]),
            Tensor::f32(&v, &[batch, count, projected.v_heads, value_dim]),
            Layout::Bshd,
        )?;
        if tokens.end == length {
            (projected.k, projected.v) = (Vec::new(), Vec::new());
        }
        Ok(())
    }

    /// Prepares the call, over the cache where there is one.
    pub(crate) fn attend(mut self) -> Result<Attending<'a>, Error> {
        if let Some(fusion) = &self.layer.fusion {
            self.mask = self
                .mask
                .map(|mask| mask.with_more_heads(fusion.heads))
                .transpose()?;
        }
        let heads =
            self.layer.num_heads() + self.layer.fusion.as_ref().map_or(0, |fusion| fusion.heads);
        let len = checked_len(
            "x",
            &self.shape(heads, self.layer.heads.dimensions.head_width),
        )?;
        self.attended = MutBorrow::new(try_zeroed(len)?);
        Attending::try_new(self, |operands| {
            let mut options = operands.options();
            if let Some(fusion) = &operands.layer.fusion {
                (options.pairing, options.ratio, options.kv_repeat) = Default::default();
                options.heads = Some(fusion.plan.clone());
            } else if let Some(norm) = &operands.layer.norm {
                options.norm = Some(NormOptions {
                    eps: norm.eps,
                    weight: norm.weight.as_deref(),
                    scale: norm.scale,
                });
            }
            let source = match &operands.cache {
                Some(loan) => KeysValues::Cache(loan.cache),
                None => KeysValues::Tensors {
                    k: operands.k(),
                    v: operands.v(),
                },
            };
            let mut call = DiffAttention::new(operands.q(), source, &options)?;
            call.bind(DataMut::F32(operands.attended.borrow_mut()), None)?;
            Ok(call)
        })
    }

    /// Prepares the maps call.
    pub(crate) fn map(self, outputs: MapOutputs<'a>) -> Result<Mapping<'a>, Error> {
        Mapping::try_new(self, |operands| {
            let mut call = DiffAttentionMaps::new(
                operands.q(),
                KeysOnly::Tensor(operands.k()),
                &operands.options(),
                None,
                None,
            )?;
            call.bind(outputs)?;
            Ok(call)
        })
    }
}
