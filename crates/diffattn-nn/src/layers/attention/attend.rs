//! Attention of rows of queries over keys and values, wherever these are held, and its maps.

use super::layer::{DiffAttnLayer, LambdaSource};
use diffattn::{
    AttentionOptions, DataMut, DiffAttention, DiffAttentionMaps, Error, KeysOnly, KeysValues,
    Lambda, Layout, MapOutputs, Mask, NormOptions, Run, Tensor, Work, check_len, checked_len,
    format_shape, try_zeroed,
};
use std::borrow::Cow;

/// A checked mask `[B|1, H|1, L|1, Lk]`.
#[derive(Debug, Clone)]
pub(crate) struct LayerMask<'a> {
    data: Cow<'a, [u8]>,
    shape: [usize; 4],
}

impl<'a> LayerMask<'a> {
    /// Checks a mask for a call of these sizes: batch, heads, queries, keys.
    pub(crate) fn check(
        mask: &Mask<'a>,
        [batch, heads, queries, keys]: [usize; 4],
    ) -> Result<Self, Error> {
        match *mask.shape.as_slice() {
            [b, h, q, k]
                if (b == batch || b == 1)
                    && (h == heads || h == 1)
                    && (q == queries || q == 1)
                    && k == keys =>
            {
                check_len("attn_mask", &mask.shape, mask.data.len())?;
                Ok(Self {
                    data: Cow::Borrowed(mask.data),
                    shape: [b, h, q, k],
                })
            }
            _ => Err(Error::shape(
                "attn_mask",
                format_args!("shape [{batch}|1, {heads}|1, {queries}|1, {keys}]"),
                format_shape(&mask.shape),
            )),
        }
    }

    /// The mask with bytes of its own.
    #[cfg(feature = "training")]
    pub(crate) fn try_into_owned(self) -> Result<LayerMask<'static>, Error> {
        let data = diffattn::try_copied(&self.data)?;
        Ok(LayerMask {
            data: Cow::Owned(data),
            shape: self.shape,
        })
    }

    /// The mask with a copy of its first `more` heads behind the last, for heads of differences.
    pub(crate) fn with_more_heads(self, more: usize) -> Result<Self, Error> {
        let [batch, heads, queries, keys] = self.shape;
        if heads == 1 || queries * keys == 0 {
            let heads = if heads == 1 { 1 } else { heads + more };
            return Ok(Self {
                shape: [batch, heads, queries, keys],
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

/// Queries of texts of one length, and what they may see.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queries<'o> {
    pub(crate) q: &'o [f32],
    /// `[B, L, H]` where λ is projected.
    pub(crate) lambda: &'o [f32],
    /// B and L.
    pub(crate) shape: [usize; 2],
    pub(crate) mask: Option<&'o LayerMask<'o>>,
    /// Keys that each query sees, its own included; all where there is none.
    pub(crate) window: Option<usize>,
    /// Where the first query lies among the keys; they are the last keys where it is not said.
    pub(crate) place: Option<usize>,
    pub(crate) run: Run,
}

impl DiffAttnLayer {
    /// Attention over keys and values into `out` `[B, L, heads, head_width]`, the heads of
    /// differences behind the plain ones; normalised unless there are any.
    pub(crate) fn attend<'o>(
        &'o self,
        queries: &Queries<'o>,
        keys: KeysValues<'o>,
        out: &'o mut [f32],
    ) -> Result<Work<'o>, Error> {
        let mut options = self.attention_options(queries);
        self.with_differences(&mut options);
        if self.fusion.is_none()
            && let Some(norm) = &self.norm
        {
            options.norm = Some(NormOptions {
                eps: norm.eps,
                weight: norm.weight.as_deref(),
                scale: norm.scale,
            });
        }
        let q = self.q_tensor(queries);
        DiffAttention::new(q, keys, &options)?.into_work(DataMut::F32(out), None)
    }

    /// Options that have the heads of differences behind the plain ones, where there are any.
    pub(crate) fn with_differences<'o>(&'o self, options: &mut AttentionOptions<'o>) {
        if let Some(fusion) = &self.fusion {
            (options.pairing, options.ratio, options.kv_repeat) = Default::default();
            options.heads = Some(Cow::Borrowed(&fusion.plan));
        }
    }

    /// The maps of the plain heads.
    pub(crate) fn map<'o>(
        &'o self,
        queries: &Queries<'o>,
        keys: KeysOnly<'o>,
        outputs: MapOutputs<'o>,
    ) -> Result<Work<'o>, Error> {
        let options = self.attention_options(queries);
        let q = self.q_tensor(queries);
        DiffAttentionMaps::new(q, keys, &options, None, None)?.into_work(outputs)
    }

    /// Multiply-adds of a row that sees `keys` keys: scores and values of two flat heads each have
    /// as many per key.
    #[cfg(feature = "models")]
    pub(crate) fn attend_work(&self, keys: usize) -> usize {
        self.q.outputs().saturating_mul(2).saturating_mul(keys)
    }

    pub(crate) fn q_tensor<'o>(&self, queries: &Queries<'o>) -> Tensor<'o> {
        let [batch, length] = queries.shape;
        let head_dim = self.heads.dimensions.head_dim;
        let heads = queries.q.len() / (batch * length * head_dim).max(1);
        Tensor::f32(queries.q, &[batch, length, heads, head_dim])
    }

    /// What attention and maps of the plain heads share.
    pub(crate) fn attention_options<'o>(&'o self, queries: &Queries<'o>) -> AttentionOptions<'o> {
        let dimensions = &self.heads.dimensions;
        let [batch, length] = queries.shape;
        AttentionOptions {
            lambda: match self.lambda {
                #[cfg(feature = "models")]
                LambdaSource::None => None,
                LambdaSource::Value(value) => Some(Lambda::Value(value)),
                LambdaSource::Projected(_) => Some(Lambda::PerToken {
                    data: queries.lambda,
                    shape: vec![batch, length, dimensions.heads],
                }),
            },
            heads: self
                .heads
                .is_own_plan
                .then(|| Cow::Borrowed(&self.heads.plan[..])),
            pairing: dimensions.pairing,
            ratio: dimensions.ratio,
            kv_repeat: dimensions.kv_repeat,
            layout: Layout::Bshd,
            is_causal: self.is_causal,
            attn_mask: queries.mask.map(LayerMask::as_mask),
            window: queries.window.map(|window| [Some(window - 1), None]),
            query_offset: queries.place.map(|place| vec![place as i64]),
            run: queries.run,
            ..AttentionOptions::default()
        }
    }
}
