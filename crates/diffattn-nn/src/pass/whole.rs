//! Attention where all keys come before the first query: one call over all rows of all texts, which
//! shares its work out over threads itself.

use super::{Memory, Outputs, Pass};
use crate::layers::attention::Queries;
use diffattn::{
    Error, KeysOnly, KeysValues, KvCacheOptions, Layout, Tensor, Work, checked_len, try_zeroed,
};
use std::ops::Range;

/// Values of k and v per unit of filling a cache: some tenths of a millisecond.
const APPEND_VALUES: usize = 1 << 18;

/// Tokens of each text per unit of filling a cache.
pub(super) fn append_unit(cache: &KvCacheOptions) -> usize {
    let KvCacheOptions {
        batch,
        groups,
        terms,
        head_dim,
        value_dim,
        ..
    } = cache;
    let token = batch
        .saturating_mul(*groups)
        .saturating_mul(terms * head_dim + value_dim);
    (APPEND_VALUES / token.max(1)).max(1)
}

impl Pass<'_> {
    /// B and L.
    fn sizes(&self) -> [usize; 2] {
        let length = self.plan.texts.first().map_or(0, |text| text.length);
        [self.plan.texts.len(), length]
    }

    /// Adds new tokens of every text to the cache.
    pub(super) fn append(
        &mut self,
        index: usize,
        memory: &mut Memory<'_>,
        tokens: Range<usize>,
    ) -> Result<(), Error> {
        let Memory::Cache(cache) = memory else {
            return Ok(());
        };
        let [batch, length] = self.sizes();
        let widths = self.plan.layers[index]
            .mixer
            .widths(self.plan.wanted(index));
        let count = tokens.len();
        let stretch = |data: &[f32], width: usize| -> Result<Vec<f32>, Error> {
            let mut part = try_zeroed(batch * count * width)?;
            let texts = data.chunks_exact(length * width);
            for (to, from) in part.chunks_exact_mut(count * width).zip(texts) {
                to.copy_from_slice(&from[tokens.start * width..tokens.end * width]);
            }
            Ok(part)
        };
        let operands = &self.buffers.operands;
        let (k, v) = (
            stretch(&operands.k, widths.k)?,
            stretch(&operands.v, widths.v)?,
        );
        let KvCacheOptions {
            head_dim,
            value_dim,
            ..
        } = *cache.options();
        cache.append(
            Tensor::f32(&k, &[batch, count, widths.k / head_dim, head_dim]),
            Tensor::f32(&v, &[batch, count, widths.v / value_dim, value_dim]),
            Layout::Bshd,
        )
    }

    /// Attention of all rows into `attended`, which is made as long as it must be.
    pub(super) fn attend_whole<'p>(
        &'p mut self,
        index: usize,
        memory: &'p Memory<'_>,
        attended: &'p mut Vec<f32>,
    ) -> Result<Work<'p>, Error> {
        let attention = self.attention(index)?;
        let widths = attention.widths(self.plan.wanted(index));
        let [batch, length] = self.sizes();
        if matches!(memory, Memory::Cache(_)) {
            // What the cache has is not needed any more.
            (self.buffers.operands.k, self.buffers.operands.v) = (Vec::new(), Vec::new());
        }
        let rows = batch * length;
        let len = checked_len(self.settings.argument, &[rows, widths.attended])?;
        if attended.len() < len {
            *attended = try_zeroed(len)?;
        }
        let operands = &self.buffers.operands;
        let (head_dim, value_dim) = (
            attention.heads.dimensions.head_dim,
            attention.heads.value_dim,
        );
        let keys = match memory {
            Memory::Cache(cache) => KeysValues::Cache(cache),
            _ => KeysValues::Tensors {
                k: tensor(&operands.k, [batch, length], widths.k, head_dim),
                v: tensor(&operands.v, [batch, length], widths.v, value_dim),
            },
        };
        attention.attend(&self.queries(index)?, keys, &mut attended[..len])
    }

    /// The maps of all rows, into where they are wanted.
    pub(super) fn map_whole<'p>(
        &'p self,
        index: usize,
        outputs: &'p mut Outputs<'_>,
    ) -> Result<Work<'p>, Error> {
        let attention = self.attention(index)?;
        let widths = attention.widths(self.plan.wanted(index));
        let place = self
            .plan
            .map_layers
            .iter()
            .position(|&layer| layer == index);
        let Some(maps) = place.and_then(|place| outputs.maps.get_mut(place)) else {
            return Err(Error::internal("maps that go nowhere"));
        };
        let head_dim = attention.heads.dimensions.head_dim;
        let k = tensor(&self.buffers.operands.k, self.sizes(), widths.k, head_dim);
        let to = diffattn::MapOutputs {
            terms: maps.terms.iter_mut().map(|map| &mut **map).collect(),
            diff: &mut *maps.diff,
        };
        attention.map(&self.queries(index)?, KeysOnly::Tensor(k), to)
    }

    /// All queries.
    fn queries(&self, index: usize) -> Result<Queries<'_>, Error> {
        let attention = self.attention(index)?;
        let widths = attention.widths(self.plan.wanted(index));
        let [batch, length] = self.sizes();
        let operands = &self.buffers.operands;
        Ok(Queries {
            q: &operands.q[..batch * length * widths.q],
            lambda: &operands.lambda[..batch * length * widths.lambda],
            shape: [batch, length],
            mask: self.settings.mask,
            window: self.settings.window,
            place: None,
            run: self.settings.run,
        })
    }
}

/// Rows of heads as `[B, L, heads, width]`.
fn tensor(rows: &[f32], [batch, length]: [usize; 2], stride: usize, width: usize) -> Tensor<'_> {
    let shape = [batch, length, stride / width, width];
    Tensor::f32(&rows[..batch * length * stride], &shape)
}
