//! Which blocks of queries there are, whom each asks, and what its messages are called. Sends none.

use super::types::{STRETCH, SequenceAttention};
use diffattn::{Error, Layout};
use diffattn_nn::training::{Message, Ranks};
use std::ops::Range;

/// Blocks of each rank that are on their way at a time: with g of them a chain of N ranks works in
/// g N of g N + N − 1 turns.
const IN_FLIGHT: usize = 4;

/// What a message of a block of queries is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
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
pub(super) const KINDS: u32 = 16;

/// A block of queries.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// Its place among those on their way, which tells its messages apart.
    pub(super) place: usize,
    pub(super) owner: usize,
    /// Its tokens, counted from the owner's first.
    pub(super) rows: Range<usize>,
    /// The first of them in the whole context.
    pub(super) first: usize,
    /// Ranks of whose keys it can see some.
    pub(super) asked: Range<usize>,
}

impl Block {
    pub(super) fn message(&self, kind: Kind, from: usize, to: usize) -> Message {
        Message {
            from,
            to,
            tag: self.place as u32 * KINDS + kind as u32,
        }
    }

    /// The last rank that is asked, where a chain ends.
    pub(super) fn last(&self) -> usize {
        self.asked.end - 1
    }

    /// The ranks that are asked, but for its own.
    pub(super) fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let owner = self.owner;
        self.asked.clone().filter(move |&rank| rank != owner)
    }
}

impl SequenceAttention<'_> {
    pub(super) fn check(&self, ranks: &dyn Ranks) -> Result<(), Error> {
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
    pub(super) fn asked(&self, owner: usize, [first, end]: [usize; 2]) -> Range<usize> {
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
    pub(super) fn windows(&self, size: usize) -> Vec<Vec<Block>> {
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
