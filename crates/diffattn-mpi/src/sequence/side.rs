//! One rank's side of a call: what it has of its own and of blocks that ask it, and how these
//! become calls over its keys. Decides no order.

use super::blocks::{Block, Kind};
use super::types::{Heads, SequenceAttention};
use diffattn::{
    AttentionOptions, Error, Lambda, PartialAttention, RowStatistics, Tensor, check_len,
};
use diffattn_nn::training::{Message, Ranks};
use std::ops::Range;

/// What a rank has of a block that asks it.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    pub(super) q: Vec<f32>,
    /// Of tokens, where each has a λ.
    pub(super) lambda: Vec<f32>,
    pub(super) rows: Option<RowStatistics>,
    pub(super) dy: Vec<f32>,
    pub(super) pre_norm: Vec<f32>,
    pub(super) delta: Vec<f64>,
}

impl Given {
    pub(super) fn set(&mut self, kind: Kind, values: Vec<f32>) {
        match kind {
            Kind::Gradient => self.dy = values,
            Kind::PreNorm => self.pre_norm = values,
            _ => self.q = values,
        }
    }
}

/// Float64 values as pairs of float32 values of the same bits, which messages have.
pub(super) fn as_floats(values: &[f64]) -> Vec<f32> {
    let halves = values.iter().flat_map(|value| {
        let bits = value.to_bits();
        [(bits >> 32) as u32, bits as u32]
    });
    halves.map(f32::from_bits).collect()
}

/// [`as_floats`] backwards.
pub(super) fn of_floats(values: &[f32]) -> Vec<f64> {
    let pairs = values.chunks_exact(2);
    pairs
        .map(|pair| {
            let [high, low] = [pair[0], pair[1]].map(|half| u64::from(half.to_bits()));
            f64::from_bits(high << 32 | low)
        })
        .collect()
}

/// Tokens `rows` of `[groups, tokens, width]`.
pub(super) fn slice(data: &[f32], [tokens, width]: [usize; 2], rows: &Range<usize>) -> Vec<f32> {
    let groups = data.chunks_exact((tokens * width).max(1));
    groups
        .flat_map(|group| &group[rows.start * width..rows.end * width])
        .copied()
        .collect()
}

/// Writes tokens `rows` of `[groups, tokens, width]`.
pub(super) fn put(
    data: &mut [f32],
    [tokens, width]: [usize; 2],
    rows: &Range<usize>,
    from: &[f32],
) {
    let len = rows.len() * width;
    let groups = data.chunks_exact_mut((tokens * width).max(1));
    for (group, from) in groups.zip(from.chunks_exact(len.max(1))) {
        group[rows.start * width..rows.end * width].copy_from_slice(from);
    }
}

pub(super) fn add(to: &mut [f32], values: &[f32]) {
    to.iter_mut().zip(values).for_each(|(to, of)| *to += of);
}

/// One rank's side of a call.
pub(super) struct Side<'s, 'o> {
    pub(super) of: &'s SequenceAttention<'o>,
    pub(super) rank: usize,
    pub(super) q: Heads<'s>,
    pub(super) k: Heads<'s>,
    pub(super) v: Heads<'s>,
    /// Of the result.
    pub(super) heads: usize,
    /// Of a head, at most.
    pub(super) terms: usize,
    /// Of the result.
    pub(super) channels: usize,
}

/// Takes what a rank is told, of `len` values.
pub(super) fn hear(ranks: &mut dyn Ranks, message: Message, len: usize) -> Result<Vec<f32>, Error> {
    ranks.expect(message, len)?;
    ranks.receive(message)
}

impl<'s, 'o> Side<'s, 'o> {
    /// That of `rank`, which has these tensors.
    pub(super) fn new(
        of: &'s SequenceAttention<'o>,
        rank: usize,
        [q, k, v]: [Heads<'s>; 3],
    ) -> Result<Self, Error> {
        let side = Self {
            of,
            rank,
            q,
            k,
            v,
            heads: 0,
            terms: 0,
            channels: 0,
        };
        side.check_tensors()?;
        // A block of no queries has what of the shapes is no block's own.
        let none = Block {
            place: 0,
            owner: rank,
            rows: 0..0,
            first: of.stretches[rank].start,
            asked: rank..rank + 1,
        };
        let shapes = side.range(&none, &Given::default(), |range| {
            Ok((range.statistics_shape(), range.accumulator_shape()))
        })?;
        let ([_, heads, terms, _], [.., channels]) = shapes;
        Ok(Self {
            heads,
            terms,
            channels,
            ..side
        })
    }

    /// The blocks that ask this rank.
    pub(super) fn asking<'b>(&self, blocks: &'b [Block]) -> impl Iterator<Item = &'b Block> {
        let rank = self.rank;
        blocks
            .iter()
            .filter(move |block| block.asked.contains(&rank))
    }

    /// The blocks of this rank's own queries.
    pub(super) fn own<'b>(&self, blocks: &'b [Block]) -> impl Iterator<Item = &'b Block> {
        let rank = self.rank;
        blocks.iter().filter(move |block| block.owner == rank)
    }

    /// The shape of a block's rows of the result.
    pub(super) fn result_shape(&self, block: &Block) -> [usize; 4] {
        [self.of.batch, self.heads, block.rows.len(), self.channels]
    }

    /// Statistics of a block's rows.
    pub(super) fn statistics_len(&self, block: &Block) -> usize {
        self.of.batch * self.heads * self.terms * block.rows.len()
    }

    /// This rank's tokens.
    pub(super) fn tokens(&self) -> usize {
        self.of.stretches[self.rank].len()
    }

    fn check_tensors(&self) -> Result<(), Error> {
        let tokens = self.tokens();
        for (name, of) in [("q", self.q), ("k", self.k), ("v", self.v)] {
            let shape = [self.of.batch, of.heads, tokens, of.width];
            check_len(name, &shape, of.data.len())?;
        }
        if let Some(Lambda::PerToken { data, shape }) = &self.of.options.lambda {
            let wanted = [self.of.batch, tokens];
            if shape.len() != 3 || shape[..2] != wanted {
                return Err(Error::option(
                    "lambda",
                    format_args!(
                        "one of each of the rank's tokens, [{}, {tokens}, H]",
                        wanted[0]
                    ),
                    format_args!("{shape:?}"),
                ));
            }
            check_len("lambda", shape, data.len())?;
        }
        Ok(())
    }

    /// Heads of a λ of each token.
    pub(super) fn lambda_heads(&self) -> Option<usize> {
        match &self.of.options.lambda {
            Some(Lambda::PerToken { shape, .. }) => shape.get(2).copied(),
            _ => None,
        }
    }

    /// Tells the ranks that a block asks what they need of it, `parts` of its tokens and their λ;
    /// gives what this rank has of each block.
    pub(super) fn hand_out(
        &self,
        ranks: &mut dyn Ranks,
        blocks: &[Block],
        parts: &[(Kind, Heads<'_>)],
    ) -> Result<Vec<Given>, Error> {
        let mut all = vec![Given::default(); blocks.len()];
        for block in self.own(blocks) {
            let given = &mut all[block.place];
            let tokens = self.tokens();
            for &(kind, of) in parts {
                let values = slice(of.data, [tokens, of.width], &block.rows);
                for to in block.others() {
                    ranks.send(block.message(kind, self.rank, to), &values)?;
                }
                given.set(kind, values);
            }
            if let Some(Lambda::PerToken { data, shape }) = &self.of.options.lambda {
                let values = slice(data, [tokens, shape[2]], &block.rows);
                for to in block.others() {
                    ranks.send(block.message(Kind::Lambda, self.rank, to), &values)?;
                }
                given.lambda = values;
            }
        }
        for block in self.asking(blocks) {
            if block.owner == self.rank {
                continue;
            }
            for &(kind, of) in parts {
                let len = self.of.batch * of.heads * block.rows.len() * of.width;
                let message = block.message(kind, block.owner, self.rank);
                all[block.place].set(kind, hear(ranks, message, len)?);
            }
            if let Some(heads) = self.lambda_heads() {
                let len = self.of.batch * block.rows.len() * heads;
                let message = block.message(Kind::Lambda, block.owner, self.rank);
                all[block.place].lambda = hear(ranks, message, len)?;
            }
        }
        Ok(all)
    }

    /// The options of a block over this rank's keys.
    pub(super) fn options<'a>(&'a self, block: &Block, given: &'a Given) -> AttentionOptions<'a> {
        let first_key = self.of.stretches[self.rank].start as i64;
        let lambda = match (&self.of.options.lambda, self.lambda_heads()) {
            (Some(Lambda::PerToken { .. }), Some(heads)) => Some(Lambda::PerToken {
                data: &given.lambda,
                shape: vec![self.of.batch, block.rows.len(), heads],
            }),
            (lambda, _) => lambda.clone(),
        };
        AttentionOptions {
            query_offset: Some(vec![block.first as i64 - first_key; self.of.batch]),
            lambda,
            ..self.of.options.clone()
        }
    }

    pub(super) fn operands<'a>(&'a self, block: &Block, given: &'a Given) -> [Tensor<'a>; 3] {
        let of = |heads: &Heads<'a>, data: &'a [f32], rows: usize| {
            Tensor::f32(data, &[self.of.batch, heads.heads, rows, heads.width])
        };
        let tokens = self.tokens();
        [
            of(&self.q, &given.q, block.rows.len()),
            of(&self.k, self.k.data, tokens),
            of(&self.v, self.v.data, tokens),
        ]
    }

    /// Does something with this rank's range of a block's keys.
    pub(super) fn range<T>(
        &self,
        block: &Block,
        given: &Given,
        body: impl FnOnce(&PartialAttention<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let options = self.options(block, given);
        let [q, k, v] = self.operands(block, given);
        body(&PartialAttention::new(q, k, v, &options)?)
    }
}
