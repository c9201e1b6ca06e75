//! Attention over a context that no one machine holds: each rank has the q, k and v of a stretch of
//! tokens. Blocks of queries visit the ranks whose keys they can see: the maxima of their rows
//! first, then the sums, then the rows themselves on the whole row's footing, added strip by strip
//! in key order by a chain of ranks, which is pipelined over the blocks. The result is one rank's
//! bit for bit; gradients are within the rule of accuracy of one rank's. Computes nothing itself:
//! that is [`PartialAttention`] and [`DiffAttentionBackward`].

use diffattn::{
    AttentionGradients, AttentionNeeds, AttentionOptions, DataMut, DiffAttentionBackward, Error,
    GradientOptions, Lambda, Layout, PartialAttention, PartialStatistics, RowStatistics, Tensor,
    WholeRows, check_len, checked_len, try_zeroed,
};
use diffattn_nn::training::{Message, Ranks};
use std::ops::Range;

/// What the tokens of a rank begin at a multiple of: a strip of the kernel.
pub const STRETCH: usize = 256;

/// Blocks of each rank that are on their way at a time: with g of them a chain of N ranks works in
/// g N of g N + N − 1 turns.
const IN_FLIGHT: usize = 4;

/// What a message of a block of queries is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Queries,
    Lambda,
    Max,
    WholeMax,
    Sum,
    WholeSum,
    Rows,
    Result,
    Gradient,
    PreNorm,
    Delta,
    WholeDelta,
    QueryGradient,
}

/// Kinds at most.
const KINDS: u32 = 16;

/// A tensor of a rank's tokens, `[B, heads, tokens, width]`.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a> {
    /// The values.
    pub data: &'a [f32],
    /// Heads.
    pub heads: usize,
    /// Values of a token of a head.
    pub width: usize,
}

/// A call over the tokens of all ranks, each of which makes it with its own q, k and v.
#[derive(Debug, Clone)]
pub struct SequenceAttention<'o> {
    /// Batch entries.
    pub batch: usize,
    /// The tokens of each rank, one stretch behind the other from 0; each begins at a multiple of
    /// [`STRETCH`].
    pub stretches: Vec<Range<usize>>,
    /// Queries of a block, some hundreds: a chain has as many blocks to work at as there are.
    pub block: usize,
    /// The call's options. λ is one for all, of each head, or of each of the rank's own tokens
    /// (`[B, tokens, H]`). Refused are masks, biases, block masks, key_lengths, offsets, packed
    /// sequences, return_lse, and another layout than `bhsd`.
    pub options: AttentionOptions<'o>,
}

/// What a rank keeps of the forward pass for the backward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceForward {
    /// The rank's rows of the result, `[B, H, tokens, channels]`.
    pub y: Vec<f32>,
    /// Those before the norm, where there is one.
    pub pre_norm: Option<Vec<f32>>,
    /// H and channels; 0 where the rank has no tokens.
    heads: [usize; 2],
    /// The statistics of its rows, block after block.
    statistics: Vec<RowStatistics>,
}

/// The gradients that are a rank's.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceGradients {
    /// Of its q.
    pub dq: Vec<f32>,
    /// Of its k.
    pub dk: Vec<f32>,
    /// Of its v.
    pub dv: Vec<f32>,
    /// Of λ, where there is one: of its own tokens where each has one, else of all ranks' tokens.
    pub dlambda: Option<Vec<f32>>,
    /// Of the norm's weight, where there is one, of all ranks' tokens.
    pub dnorm_weight: Option<Vec<f32>>,
}

/// A block of queries.
#[derive(Debug, Clone)]
struct Block {
    /// Its place among those on their way, which tells its messages apart.
    place: usize,
    owner: usize,
    /// Its tokens, counted from the owner's first.
    rows: Range<usize>,
    /// The first of them in the whole context.
    first: usize,
    /// Ranks of whose keys it can see some.
    asked: Range<usize>,
}

impl Block {
    fn message(&self, kind: Kind, from: usize, to: usize) -> Message {
        Message {
            from,
            to,
            tag: self.place as u32 * KINDS + kind as u32,
        }
    }

    /// The ranks that are asked, but for its own.
    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let owner = self.owner;
        self.asked.clone().filter(move |&rank| rank != owner)
    }
}

/// What a rank has of a block that asks it.
#[derive(Debug, Clone, Default)]
struct Given {
    q: Vec<f32>,
    /// Of tokens, where each has a λ.
    lambda: Vec<f32>,
    rows: Option<RowStatistics>,
    dy: Vec<f32>,
    pre_norm: Vec<f32>,
    delta: Vec<f64>,
}

/// Float64 values as pairs of float32 values of the same bits, which messages have.
fn as_floats(values: &[f64]) -> Vec<f32> {
    let halves = values.iter().flat_map(|value| {
        let bits = value.to_bits();
        [(bits >> 32) as u32, bits as u32]
    });
    halves.map(f32::from_bits).collect()
}

/// [`as_floats`] backwards.
fn of_floats(values: &[f32]) -> Vec<f64> {
    let pairs = values.chunks_exact(2);
    pairs
        .map(|pair| {
            let [high, low] = [pair[0], pair[1]].map(|half| u64::from(half.to_bits()));
            f64::from_bits(high << 32 | low)
        })
        .collect()
}

/// Tokens `rows` of `[groups, tokens, width]`.
fn slice(data: &[f32], [tokens, width]: [usize; 2], rows: &Range<usize>) -> Vec<f32> {
    let groups = data.chunks_exact((tokens * width).max(1));
    groups
        .flat_map(|group| &group[rows.start * width..rows.end * width])
        .copied()
        .collect()
}

/// Writes tokens `rows` of `[groups, tokens, width]`.
fn put(data: &mut [f32], [tokens, width]: [usize; 2], rows: &Range<usize>, from: &[f32]) {
    let len = rows.len() * width;
    let groups = data.chunks_exact_mut((tokens * width).max(1));
    for (group, from) in groups.zip(from.chunks_exact(len.max(1))) {
        group[rows.start * width..rows.end * width].copy_from_slice(from);
    }
}

fn add(to: &mut [f32], values: &[f32]) {
    to.iter_mut().zip(values).for_each(|(to, of)| *to += of);
}

/// One rank's side of a call.
struct Side<'s, 'o> {
    of: &'s SequenceAttention<'o>,
    rank: usize,
    q: Heads<'s>,
    k: Heads<'s>,
    v: Heads<'s>,
}

impl<'o> SequenceAttention<'o> {
    /// This rank's rows of the result, of its own q, k and v; all ranks call it.
    ///
    /// # Errors
    /// As [`PartialAttention::new`]; [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming
    /// `stretches`, `block` or an option that is refused; what `ranks` says.
    pub fn forward(
        &self,
        ranks: &mut dyn Ranks,
        q: Heads<'_>,
        k: Heads<'_>,
        v: Heads<'_>,
    ) -> Result<SequenceForward, Error> {
        let rank = ranks.rank();
        self.check(ranks)?;
        let side = Side {
            of: self,
            rank,
            q,
            k,
            v,
        };
        side.check_tensors()?;
        let mut kept = SequenceForward {
            y: Vec::new(),
            pre_norm: self.options.norm.is_some().then(Vec::new),
            heads: [0; 2],
            statistics: Vec::new(),
        };
        for blocks in self.windows(ranks.size()) {
            let mut given = side.hand_out(ranks, &blocks, &[(Kind::Queries, q)])?;
            side.statistics(ranks, &blocks, &mut given)?;
            side.rows(ranks, &blocks, &mut given, &mut kept)?;
        }
        Ok(kept)
    }

    /// This rank's gradients, for `dy` of its rows of the result; all ranks call it.
    ///
    /// # Errors
    /// As [`SequenceAttention::forward`].
    pub fn backward(
        &self,
        ranks: &mut dyn Ranks,
        dy: &[f32],
        [q, k, v]: [Heads<'_>; 3],
        kept: &SequenceForward,
    ) -> Result<SequenceGradients, Error> {
        let rank = ranks.rank();
        self.check(ranks)?;
        let side = Side {
            of: self,
            rank,
            q,
            k,
            v,
        };
        side.check_tensors()?;
        check_len("dy", &[kept.y.len()], dy.len())?;
        let [heads, width] = kept.heads;
        let of_result = |data| Heads { data, heads, width };
        let mut to = SequenceGradients {
            dq: try_zeroed(q.data.len())?,
            dk: try_zeroed(k.data.len())?,
            dv: try_zeroed(v.data.len())?,
            dlambda: None,
            dnorm_weight: None,
        };
        let mut sums = Sums::default();
        let mut own = kept.statistics.iter();
        for blocks in self.windows(ranks.size()) {
            let mut parts = vec![(Kind::Queries, q), (Kind::Gradient, of_result(dy))];
            if let Some(pre_norm) = &kept.pre_norm {
                parts.push((Kind::PreNorm, of_result(pre_norm)));
            }
            let mut given = side.hand_out(ranks, &blocks, &parts)?;
            side.hand_out_statistics(ranks, &blocks, &mut given, &mut own)?;
            side.deltas(ranks, &blocks, &mut given)?;
            side.gradients(ranks, &blocks, &given, (&mut to, &mut sums))?;
        }
        sums.finish(self, ranks, &mut to)?;
        Ok(to)
    }

    fn check(&self, ranks: &dyn Ranks) -> Result<(), Error> {
        let options = &self.options;
        for (name, is_given) in [
            ("attn_mask", options.attn_mask.is_some()),
            ("attn_bias", options.attn_bias.is_some()),
            ("block_mask", options.block_mask.is_some()),
            ("key_lengths", options.key_lengths.is_some()),
            ("query_offset", options.query_offset.is_some()),
            ("cu_seqlens_q", options.cu_seqlens_q.is_some()),
            ("cu_seqlens_k", options.cu_seqlens_k.is_some()),
            ("return_lse", options.return_lse),
            ("layout", options.layout != Layout::Bhsd),
        ] {
            if is_given {
                return Err(Error::option(name, "none over several ranks", "one"));
            }
        }
        if self.block == 0 {
            return Err(Error::option("block", "1 query or more", 0));
        }
        let mut end = 0;
        let follow = self.stretches.iter().all(|stretch| {
            let follows = stretch.start == end && stretch.end >= stretch.start;
            end = stretch.end;
            follows && (stretch.is_empty() || stretch.start.is_multiple_of(STRETCH))
        });
        if !follow || self.stretches.len() != ranks.size() {
            return Err(Error::option(
                "stretches",
                format_args!(
                    "{} stretches, one behind the other, each from a multiple of {STRETCH} on",
                    ranks.size()
                ),
                format_args!("{:?}", self.stretches),
            ));
        }
        Ok(())
    }

    /// Ranks whose keys queries `first..end` can see some of.
    fn asked(&self, owner: usize, [first, end]: [usize; 2]) -> Range<usize> {
        let total = self.stretches.last().map_or(0, |stretch| stretch.end);
        let [left, right] = self.options.window.unwrap_or([None, None]);
        let low = left.map_or(0, |left| first.saturating_sub(left));
        let mut high = right.map_or(total, |right| end.saturating_add(right));
        if self.options.is_causal {
            high = high.min(end);
        }
        let sees = |stretch: &Range<usize>| stretch.start < high && stretch.end > low;
        let ranks = self.stretches.iter().enumerate();
        let mut seen = ranks
            .filter(|(_, stretch)| sees(stretch))
            .map(|(rank, _)| rank);
        let begin = seen.next().unwrap_or(owner);
        begin..seen.next_back().unwrap_or(begin) + 1
    }

    /// All blocks, some of each rank at a time.
    fn windows(&self, size: usize) -> Vec<Vec<Block>> {
        let mut windows = Vec::new();
        let longest = self.stretches.iter().map(Range::len).max().unwrap_or(0);
        for turn in (0..longest).step_by(self.block.saturating_mul(IN_FLIGHT)) {
            let mut window = Vec::with_capacity(size * IN_FLIGHT);
            for (owner, stretch) in self.stretches.iter().enumerate() {
                let end = (turn + self.block * IN_FLIGHT).min(stretch.len());
                for begin in (turn..end).step_by(self.block) {
                    let rows = begin..(begin + self.block).min(end);
                    let first = stretch.start + rows.start;
                    window.push(Block {
                        place: window.len(),
                        owner,
                        first,
                        asked: self.asked(owner, [first, stretch.start + rows.end]),
                        rows,
                    });
                }
            }
            windows.push(window);
        }
        windows
    }
}

/// Takes what a rank is told, of `len` values.
fn hear(ranks: &mut dyn Ranks, message: Message, len: usize) -> Result<Vec<f32>, Error> {
    ranks.expect(message, len)?;
    ranks.receive(message)
}

impl Side<'_, '_> {
    fn tokens(&self, rank: usize) -> usize {
        self.of.stretches[rank].len()
    }

    fn check_tensors(&self) -> Result<(), Error> {
        let tokens = self.tokens(self.rank);
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
    fn lambda_heads(&self) -> Option<usize> {
        match &self.of.options.lambda {
            Some(Lambda::PerToken { shape, .. }) => shape.get(2).copied(),
            _ => None,
        }
    }

    /// Tells the ranks that a block asks what they need of it, `parts` of its tokens and their λ;
    /// gives what this rank has of each block.
    fn hand_out(
        &self,
        ranks: &mut dyn Ranks,
        blocks: &[Block],
        parts: &[(Kind, Heads<'_>)],
    ) -> Result<Vec<Given>, Error> {
        let mut all = vec![Given::default(); blocks.len()];
        for block in blocks.iter().filter(|block| block.owner == self.rank) {
            let given = &mut all[block.place];
            let tokens = self.tokens(self.rank);
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
        for block in blocks {
            if block.owner == self.rank || !block.asked.contains(&self.rank) {
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
    fn options<'a>(&'a self, block: &Block, given: &'a Given) -> AttentionOptions<'a> {
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

    fn operands<'a>(&'a self, block: &Block, given: &'a Given) -> [Tensor<'a>; 3] {
        let of = |heads: &Heads<'a>, data: &'a [f32], rows: usize| {
            Tensor::f32(data, &[self.of.batch, heads.heads, rows, heads.width])
        };
        let tokens = self.tokens(self.rank);
        [
            of(&self.q, &given.q, block.rows.len()),
            of(&self.k, self.k.data, tokens),
            of(&self.v, self.v.data, tokens),
        ]
    }

    /// Does something with this rank's range of a block's keys.
    fn range<T>(
        &self,
        block: &Block,
        given: &Given,
        body: impl FnOnce(&PartialAttention<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let options = self.options(block, given);
        let [q, k, v] = self.operands(block, given);
        body(&PartialAttention::new(q, k, v, &options)?)
    }

    /// Maxima and sums of the rows of all blocks that ask this rank, of all ranks' keys.
    fn statistics(
        &self,
        ranks: &mut dyn Ranks,
        blocks: &[Block],
        given: &mut [Given],
    ) -> Result<(), Error> {
        let rank = self.rank;
        let mut parts: Vec<Option<PartialStatistics>> = vec![None; blocks.len()];
        for block in blocks.iter().filter(|block| block.asked.contains(&rank)) {
            let given = &mut given[block.place];
            let (part, rows) = self.range(block, given, |range| {
                let part = range.statistics()?;
                let mut rows = range.no_rows()?;
                range.add_max(&part, &mut rows.row_max)?;
                Ok((part, rows))
            })?;
            if block.owner != rank {
                let message = block.message(Kind::Max, rank, block.owner);
                ranks.send(message, &rows.row_max)?;
            }
            parts[block.place] = Some(part);
            given.rows = Some(rows);
        }
        for block in blocks.iter().filter(|block| block.owner == rank) {
            let Some(rows) = &mut given[block.place].rows else {
                return Err(Error::internal("a block that does not ask its own rank"));
            };
            for from in block.others() {
                let max = hear(
                    ranks,
                    block.message(Kind::Max, from, rank),
                    rows.row_max.len(),
                )?;
                for (row_max, of) in rows.row_max.iter_mut().zip(max) {
                    *row_max = if of > *row_max { of } else { *row_max };
                }
            }
            for to in block.others() {
                ranks.send(block.message(Kind::WholeMax, rank, to), &rows.row_max)?;
            }
        }
        // The chain of sums: each rank in turn adds its strips.
        for block in blocks.iter().filter(|block| block.asked.contains(&rank)) {
            let mut rows = given[block.place].rows.take().unwrap_or(RowStatistics {
                row_max: Vec::new(),
                row_sum: Vec::new(),
            });
            let len = rows.row_max.len();
            if block.owner != rank {
                let message = block.message(Kind::WholeMax, block.owner, rank);
                rows.row_max = hear(ranks, message, len)?;
            }
            let last = block.asked.end - 1;
            if rank > block.asked.start {
                let message = block.message(Kind::Sum, rank - 1, rank);
                rows.row_sum = of_floats(&hear(ranks, message, 2 * len)?);
            }
            if let Some(part) = parts[block.place].take() {
                let of = &given[block.place];
                self.range(block, of, |range| range.add_sum(&part, &mut rows))?;
            }
            let sums = as_floats(&rows.row_sum);
            if rank < last {
                ranks.send(block.message(Kind::Sum, rank, rank + 1), &sums)?;
            } else {
                for to in block.asked.clone().filter(|&to| to != rank) {
                    ranks.send(block.message(Kind::WholeSum, rank, to), &sums)?;
                }
            }
            ranks.progress()?;
            given[block.place].rows = Some(rows);
        }
        for block in blocks.iter().filter(|block| block.asked.contains(&rank)) {
            let last = block.asked.end - 1;
            if rank != last
                && let Some(rows) = &mut given[block.place].rows
            {
                let message = block.message(Kind::WholeSum, last, rank);
                rows.row_sum = of_floats(&hear(ranks, message, 2 * rows.row_max.len())?);
            }
        }
        Ok(())
    }

    /// The rows of all blocks, by a chain over the ranks that they ask.
    fn rows(
        &self,
        ranks: &mut dyn Ranks,
        blocks: &[Block],
        given: &mut [Given],
        kept: &mut SequenceForward,
    ) -> Result<(), Error> {
        let rank = self.rank;
        for block in blocks.iter().filter(|block| block.asked.contains(&rank)) {
            let of = &given[block.place];
            let accumulator = self.range(block, of, |range| {
                let len = checked_len("accumulator", &range.accumulator_shape())?;
                let mut accumulator = match rank > block.asked.start {
                    true => hear(ranks, block.message(Kind::Rows, rank - 1, rank), len)?,
                    false => try_zeroed(len)?,
                };
                let rows = of.rows.as_ref();
                let rows = rows.ok_or_else(|| Error::internal("a block without statistics"))?;
                range.accumulate(rows, &mut accumulator)?;
                Ok(accumulator)
            })?;
            let last = block.asked.end - 1;
            if rank < last {
                ranks.send(block.message(Kind::Rows, rank, rank + 1), &accumulator)?;
            } else if rank == block.owner {
                self.finish(block, &mut given[block.place], accumulator, kept)?;
            } else {
                let message = block.message(Kind::Result, rank, block.owner);
                ranks.send(message, &accumulator)?;
            }
            ranks.progress()?;
        }
        for block in blocks.iter().filter(|block| block.owner == rank) {
            let last = block.asked.end - 1;
            if last != rank {
                let of = &given[block.place];
                let len = self.range(block, of, |range| {
                    checked_len("accumulator", &range.accumulator_shape())
                })?;
                let accumulator = hear(ranks, block.message(Kind::Result, last, rank), len)?;
                self.finish(block, &mut given[block.place], accumulator, kept)?;
            }
        }
        Ok(())
    }

    /// The result of a block of this rank's own.
    fn finish(
        &self,
        block: &Block,
        given: &mut Given,
        mut accumulator: Vec<f32>,
        kept: &mut SequenceForward,
    ) -> Result<(), Error> {
        let rows = given.rows.take();
        let rows = rows.ok_or_else(|| Error::internal("a block without statistics"))?;
        let [batch, heads, queries, channels] =
            self.range(block, given, |range| Ok(range.accumulator_shape()))?;
        let len = batch * heads * self.tokens(self.rank) * channels;
        let place = [self.tokens(self.rank), channels];
        if kept.y.is_empty() {
            kept.y = try_zeroed(len)?;
            kept.heads = [heads, channels];
        }
        if let Some(pre_norm) = &mut kept.pre_norm {
            if pre_norm.is_empty() {
                *pre_norm = try_zeroed(len)?;
            }
            put(pre_norm, place, &block.rows, &accumulator);
        }
        let mut y = try_zeroed(batch * heads * queries * channels)?;
        self.range(block, given, |range| {
            range.finish(&rows, &mut accumulator, DataMut::F32(&mut y), None)
        })?;
        put(&mut kept.y, place, &block.rows, &y);
        kept.statistics.push(rows);
        Ok(())
    }

    /// Tells the ranks that a block asks the statistics of its rows.
    fn hand_out_statistics(
        &self,
        ranks: &mut dyn Ranks,
        blocks: &[Block],
        given: &mut [Given],
        own: &mut std::slice::Iter<'_, RowStatistics>,
    ) -> Result<(), Error> {
        for block in blocks.iter().filter(|block| block.owner == self.rank) {
            let rows = own.next().ok_or_else(|| {
                Error::option("kept", "what forward kept of these tokens", "other")
            })?;
            for to in block.others() {
                ranks.send(block.message(Kind::WholeMax, self.rank, to), &rows.row_max)?;
                let sums = as_floats(&rows.row_sum);
                ranks.send(block.message(Kind::WholeSum, self.rank, to), &sums)?;
            }
            given[block.place].rows = Some(rows.clone());
        }
        for block in blocks
            .iter()
            .filter(|block| block.asked.contains(&self.rank))
        {
            if block.owner == self.rank {
                continue;
            }
            let of = &given[block.place];
            let len = self.range(block, of, |range| {
                checked_len("q", &range.statistics_shape())
            })?;
            let message = |kind| block.message(kind, block.owner, self.rank);
            let row_max = hear(ranks, message(Kind::WholeMax), len)?;
            let row_sum = of_floats(&hear(ranks, message(Kind::WholeSum), 2 * len)?);
            given[block.place].rows = Some(RowStatistics { row_max, row_sum });
        }
        Ok(())
    }

    /// A call of gradients of a block over this rank's keys.
    fn backward<T>(
        &self,
        block: &Block,
        given: &Given,
        delta: Option<&[f64]>,
        body: impl FnOnce(DiffAttentionBackward<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let options = self.options(block, given);
        let rows = given.rows.as_ref();
        let statistics = rows.ok_or_else(|| Error::internal("a block without statistics"))?;
        let shape = self.range(block, given, |range| Ok(range.accumulator_shape()))?;
        let is_own = block.owner == self.rank;
        let has_weight = (options.norm.as_ref()).is_some_and(|norm| norm.weight.is_some());
        let gradients = GradientOptions {
            needs: Some(AttentionNeeds {
                q: true,
                k: true,
                v: true,
                lambda: is_own && options.lambda.is_some(),
                norm_weight: is_own && has_weight,
                ..AttentionNeeds::default()
            }),
            pre_norm: (options.norm.is_some()).then(|| Tensor::f32(&given.pre_norm, &shape)),
            whole_rows: Some(WholeRows { statistics, delta }),
        };
        let dy = Tensor::f32(&given.dy, &shape);
        let operands = self.operands(block, given);
        body(DiffAttentionBackward::new(
            dy, operands, &options, &gradients,
        )?)
    }

    /// δ of all blocks' rows, of all ranks' keys, added in the order of the ranks.
    fn deltas(
        &self,
        ranks: &mut dyn Ranks,
        blocks: &[Block],
        given: &mut [Given],
    ) -> Result<(), Error> {
        let rank = self.rank;
        for block in blocks.iter().filter(|block| block.asked.contains(&rank)) {
            let of = &mut given[block.place];
            let delta = self.backward(block, of, None, |call| call.deltas())?;
            if block.owner != rank {
                let message = block.message(Kind::Delta, rank, block.owner);
                ranks.send(message, &as_floats(&delta))?;
            }
            of.delta = delta;
        }
        for block in blocks.iter().filter(|block| block.owner == rank) {
            let own = std::mem::take(&mut given[block.place].delta);
            let mut whole = vec![0.0; own.len()];
            for from in block.asked.clone() {
                let part = if from == rank {
                    own.clone()
                } else {
                    let message = block.message(Kind::Delta, from, rank);
                    of_floats(&hear(ranks, message, 2 * own.len())?)
                };
                whole.iter_mut().zip(part).for_each(|(sum, of)| *sum += of);
            }
            for to in block.others() {
                let message = block.message(Kind::WholeDelta, rank, to);
                ranks.send(message, &as_floats(&whole))?;
            }
            given[block.place].delta = whole;
        }
        for block in blocks.iter().filter(|block| block.asked.contains(&rank)) {
            if block.owner != rank {
                let of = &mut given[block.place];
                let message = block.message(Kind::WholeDelta, block.owner, rank);
                of.delta = of_floats(&hear(ranks, message, 2 * of.delta.len())?);
            }
        }
        Ok(())
    }

    /// The gradients of all blocks: dk and dv of this rank's keys, dq of its queries.
    fn gradients(
        &self,
        ranks: &mut dyn Ranks,
        blocks: &[Block],
        given: &[Given],
        (to, sums): (&mut SequenceGradients, &mut Sums),
    ) -> Result<(), Error> {
        let rank = self.rank;
        let mut own: Vec<Option<Vec<f32>>> = vec![None; blocks.len()];
        for block in blocks.iter().filter(|block| block.asked.contains(&rank)) {
            let of = &given[block.place];
            let made = self.backward(block, of, Some(&of.delta), |call| {
                let mut made: AttentionGradients = call.shapes().zeros()?;
                call.into_work(made.as_outputs())?.finish()?;
                Ok(made)
            })?;
            add(&mut to.dk, made.dk.as_deref().unwrap_or_default());
            add(&mut to.dv, made.dv.as_deref().unwrap_or_default());
            let dq = made.dq.unwrap_or_default();
            if block.owner != rank {
                ranks.send(block.message(Kind::QueryGradient, rank, block.owner), &dq)?;
                ranks.progress()?;
                continue;
            }
            own[block.place] = Some(dq);
            if let Some(weight) = made.dnorm_weight {
                Sums::add(&mut sums.norm_weight, &weight);
            }
            match (made.dlambda, self.lambda_heads()) {
                (Some(dlambda), Some(heads)) => {
                    let tokens = self.tokens(rank);
                    let whole = to.dlambda.get_or_insert_with(Vec::new);
                    whole.resize(self.of.batch * tokens * heads, 0.0);
                    put(whole, [tokens, heads], &block.rows, &dlambda);
                }
                (Some(dlambda), None) => Sums::add(&mut sums.lambda, &dlambda),
                (None, _) => {}
            }
        }
        for block in blocks.iter().filter(|block| block.owner == rank) {
            let dq = own[block.place].take().unwrap_or_default();
            let mut whole = vec![0.0; dq.len()];
            for from in block.asked.clone() {
                if from == rank {
                    add(&mut whole, &dq);
                } else {
                    let message = block.message(Kind::QueryGradient, from, rank);
                    add(&mut whole, &hear(ranks, message, dq.len())?);
                }
            }
            let place = [self.tokens(rank), self.q.width];
            put(&mut to.dq, place, &block.rows, &whole);
        }
        Ok(())
    }
}

impl Given {
    fn set(&mut self, kind: Kind, values: Vec<f32>) {
        match kind {
            Kind::Gradient => self.dy = values,
            Kind::PreNorm => self.pre_norm = values,
            _ => self.q = values,
        }
    }
}

/// Sums over all tokens: of a rank's blocks, then of all ranks in their order.
#[derive(Debug, Default)]
struct Sums {
    lambda: Vec<f64>,
    norm_weight: Vec<f64>,
}

impl Sums {
    fn add(to: &mut Vec<f64>, values: &[f32]) {
        to.resize(values.len(), 0.0);
        for (sum, &value) in to.iter_mut().zip(values) {
            *sum += f64::from(value);
        }
    }

    fn finish(
        mut self,
        of: &SequenceAttention<'_>,
        ranks: &mut dyn Ranks,
        to: &mut SequenceGradients,
    ) -> Result<(), Error> {
        let options = &of.options;
        let weight = options.norm.as_ref().and_then(|norm| norm.weight);
        let lambda = match &options.lambda {
            Some(Lambda::Value(_)) => 1,
            Some(Lambda::PerHead(heads)) => heads.len(),
            _ => 0,
        };
        // (A rank without tokens has none of them.)
        self.lambda.resize(lambda, 0.0);
        self.norm_weight.resize(weight.map_or(0, <[f32]>::len), 0.0);
        for (own, whole) in [
            (self.lambda, &mut to.dlambda),
            (self.norm_weight, &mut to.dnorm_weight),
        ] {
            if own.is_empty() {
                continue;
            }
            let all = ranks.gather_numbers(&own, &vec![own.len(); ranks.size()])?;
            let mut sums = vec![0.0; own.len()];
            for part in all.chunks_exact(own.len()) {
                sums.iter_mut().zip(part).for_each(|(sum, of)| *sum += of);
            }
            *whole = Some(sums.into_iter().map(|sum| sum as f32).collect());
        }
        Ok(())
    }
}
