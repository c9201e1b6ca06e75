//! Attention over a context that no one machine holds: each rank has the q, k and v of a stretch of
//! tokens. Blocks of queries visit the ranks whose keys they can see: the maxima of their rows
//! first, then the sums, then the rows themselves on the whole row's footing, added strip by strip
//! in key order by a chain of ranks, which is pipelined over the blocks. The result is one rank's
//! bit for bit; gradients are within the rule of accuracy of one rank's. Computes nothing itself:
//! that is [`PartialAttention`](diffattn::PartialAttention) and
//! [`DiffAttentionBackward`](diffattn::DiffAttentionBackward).

mod backward;
mod blocks;
mod call;
mod forward;
mod side;
mod types;

pub use types::{Heads, STRETCH, SequenceAttention, SequenceForward, SequenceGradients};
