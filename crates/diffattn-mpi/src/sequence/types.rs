//! What a call is, and what a rank has of it.

use diffattn::{AttentionOptions, RowStatistics};
use std::ops::Range;

/// What the tokens of a rank begin at a multiple of: a strip of the kernel.
pub const STRETCH: usize = 256;

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
    /// The statistics of its rows, block after block.
    pub(super) statistics: Vec<RowStatistics>,
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
