//! What a call of gradients reads beside the call whose gradients it computes, where they go, and
//! in which order blocks add to what they share. Knows nothing of how gradients are made.

use super::backward::WholeRows;
use super::call::Call;
use super::mask::{Broadcast, RowAt};
use crate::run::threads::Disjoint;
use crate::tensor::Data;
use crate::tensor::axis::{HeadAxis, Rows};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A tensor of heads.
pub(super) type Heads<'a> = (Data<'a>, HeadAxis);

/// A checked call of gradients.
#[derive(Debug)]
pub(super) struct GradientCall<'a> {
    /// The call whose gradients these are.
    pub(super) call: Call<'a>,
    pub(super) dy: Heads<'a>,
    /// The call's result before its norm, where it was kept.
    pub(super) pre_norm: Option<Heads<'a>>,
    pub(super) k: Heads<'a>,
    pub(super) v: Heads<'a>,
    /// q's, which dq has.
    pub(super) q_axis: HeadAxis,
    /// Of a range of keys.
    pub(super) whole_rows: Option<WholeRows<'a>>,
}

impl<'a> GradientCall<'a> {
    /// Whether the result before its norm is computed anew.
    pub(super) fn recomputes(&self) -> bool {
        self.call.norm().is_some() && self.pre_norm.is_none()
    }

    /// Whether δ alone is wanted, of a range of keys.
    pub(super) fn wants_deltas(&self) -> bool {
        self.whole_rows.is_some_and(|rows| rows.delta.is_none())
    }

    /// Rows of dy, or of the result before its norm, from (batch, head, query) on.
    pub(super) fn rows((data, axis): Heads<'a>, (batch, head, query): RowAt) -> Rows<'a> {
        axis.rows(data, batch, head, query)
    }
}

/// Where the sums of a call's blocks go. dq, dk and dv in the call's layout, zeros at first; what
/// is not wanted is absent.
#[derive(Debug)]
pub(super) struct GradientsOut<'o> {
    pub(super) dq: Option<Disjoint<'o, f32>>,
    pub(super) dk: Option<Disjoint<'o, f32>>,
    pub(super) dv: Option<Disjoint<'o, f32>>,
    /// δ_t = Σ_j P_t dP of each row, `[B, H, T, Lq]`: the gradient of its coefficient.
    pub(super) delta: Disjoint<'o, f64>,
    /// The gradient of each row's sinks, `[B, H, T, Lq]`.
    pub(super) sinks: Option<Disjoint<'o, f64>>,
    /// The gradient of the norm's weight before its factor, `[block of rows][H][channels]`.
    pub(super) norm_weight: Option<Disjoint<'o, f64>>,
    /// The gradient of the bias, of its own shape.
    pub(super) bias: Option<BiasOut<'o>>,
}

/// The gradient of a bias, which several rows may share.
#[derive(Debug)]
pub(super) struct BiasOut<'o> {
    pub(super) sums: Disjoint<'o, f64>,
    /// From batch entry to batch entry, head to head, query to query; 0 where they share.
    pub(super) strides: [usize; 3],
    pub(super) keys: usize,
}

impl<'o> BiasOut<'o> {
    pub(super) fn new(sums: &'o mut [f64], bias: &Broadcast<'_, f32>, keys: usize) -> Self {
        Self {
            sums: Disjoint::new(sums),
            strides: bias.strides,
            keys,
        }
    }

    /// Where the row of a (batch, head, query) begins.
    pub(super) fn at(&self, (batch, head, query): RowAt) -> usize {
        let [b, h, q] = self.strides;
        batch * b + head * h + query * q
    }
}

/// Which blocks of a sequence visit each strip of keys: without holes, as what rows see never moves
/// backwards.
#[derive(Debug, Clone, Default)]
pub(super) struct Visits {
    /// The first block, by strip.
    pub(super) first: Vec<usize>,
    /// How many, by strip.
    pub(super) count: Vec<usize>,
}

/// A block's place in the order in which blocks add to dk and dv of the heads that they share: head
/// group by group, block by block of its rows, head by head. However many threads work, each strip
/// of keys is added to in this order; a thread that is early waits. No block waits for a later one,
/// and earlier ones have begun, so that none waits for ever.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn<'c> {
    /// How many have added to each strip of keys.
    pub(super) added: &'c [AtomicUsize],
    pub(super) visits: &'c Visits,
    /// Heads of the groups before this one.
    pub(super) heads_before: usize,
    /// Heads of this group.
    pub(super) heads: usize,
    /// The block's number in its sequence.
    pub(super) block: usize,
}

impl Turn<'_> {
    /// Waits until it is the turn of the group's head number `head` at `strip`.
    pub(super) fn wait(&self, strip: usize, head: usize) {
        let visits = self.visits.count[strip];
        let blocks_before = self.block - self.visits.first[strip];
        let before = self.heads_before * visits + blocks_before * self.heads + head;
        let mut turns = 0_u32;
        while self.added[strip].load(Ordering::Acquire) < before {
            turns = turns.saturating_add(1);
            if turns < 1 << 12 {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Lets the next one add to `strip`.
    pub(super) fn pass(&self, strip: usize) {
        self.added[strip].fetch_add(1, Ordering::Release);
    }
}
