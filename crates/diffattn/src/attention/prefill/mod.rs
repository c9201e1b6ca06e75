//! THE fused kernel: one block of queries of one head group. Lanes are queries; scores are kept as
//! [vector of queries][key][query]: every sum runs down a lane in key order, no result depends on
//! the lane count, and what follows a tile reads one stretch of memory per vector. Knows nothing of
//! batches, threads or head layouts: callers hand it a block and its panels.
//!
//! Per head of the group:
//! 1. per strip of 256 keys: scores S_t = K_t Qᵀ, tile by tile, masked, with their strip_max; while
//!    they are near, exponentials E_t = exp(scale · (S_t − strip_max_t)) in place, with their
//!    strip_sum (`scores.rs`);
//! 2. row_max and row_sum of all strips, and what puts each strip on the row's footing: exp(scale ·
//!    (strip_max − row_max)) (`weights.rs`);
//! 3. per strip: P = Σ_t (c_t / row_sum_t) · footing_t · E_t, then outᵀ += Vᵀ P, from zero per
//!    strip;
//! 4. transpose to rows, norm, store (both `values.rs`).
//!
//! Pass 1 is everyone's; what follows is a [`Consumer`]'s: [`Values`] does the rest, [`Maps`] stops
//! before v, [`Partial`] gives and takes what ranges of keys hand one another. Which keys are
//! visited, `geometry.rs` says: a block of keys that a block mask hides costs nothing in any pass.
//!
//! The price: T × block × Lk scores per thread. The gain over one attention call per map: v is met
//! once.

mod consumer;
mod geometry;
mod gradient;
mod maps;
mod partial;
mod row_block;
mod scores;
mod sink;
mod strip_product;
mod values;
mod weights;

pub(super) use consumer::Consumer;
pub(super) use gradient::Gradients;
pub(super) use partial::Partial;
pub(super) use row_block::RowBlock;

use super::groups::HeadStep;
use super::outputs::Outputs;
use super::visible::MASK_BLOCK;
use crate::blocks::QUERY_STRIP;
use crate::simd::Kernel;
use crate::simd::Tile;
use crate::simd::Vector;
use geometry::{Geometry, MAX_VECTORS};
use maps::Maps;
use values::Values;

/// Queries of a row block on the vector type it is run with, where no sequence has more queries
/// than `longest`.
pub(super) struct BlockQueries {
    pub(super) longest: usize,
    /// Whether a block mask cuts the queries: its blocks are whole row blocks then, as far as
    /// scratch has the vectors for that.
    pub(super) is_block_masked: bool,
}

impl Kernel for BlockQueries {
    type Output = usize;
    #[inline(always)]
    fn run<V: Vector>(self) -> usize {
        let most = if self.is_block_masked {
            (MASK_BLOCK / V::LANES).min(MAX_VECTORS)
        } else {
            V::Tile::BLOCK_VECTORS
        };
        V::LANES * self.longest.div_ceil(V::LANES).clamp(1, most)
    }
}

/// Queries of a row block of gradients on the vector type it is run with, where no sequence has
/// more queries than `longest`.
pub(super) struct GradientQueries {
    pub(super) longest: usize,
}

impl Kernel for GradientQueries {
    type Output = usize;
    #[inline(always)]
    fn run<V: Vector>(self) -> usize {
        let most = QUERY_STRIP / V::LANES;
        V::LANES * self.longest.div_ceil(V::LANES).clamp(1, most)
    }
}

/// One block, ready to run.
pub(super) struct Prefill<'c, 'a, C> {
    pub(super) rows: RowBlock<'c, 'a>,
    pub(super) consumer: &'c C,
}

impl<C: Consumer> Kernel for Prefill<'_, '_, C> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { mut rows, consumer } = self;
        let geometry = rows.geometry::<V>();
        for step in &rows.block.group.steps {
            rows.exponentials::<V>(&geometry, step);
            consumer.head::<V>(&mut rows, &geometry, step);
        }
    }
}

/// What a call asks for: its maps or its rows. One kernel for both, so that pass 1 is compiled
/// once.
pub(super) struct Asked<'c, 'o> {
    pub(super) outputs: &'c Outputs<'o>,
}

impl Consumer for Asked<'_, '_> {
    #[inline(always)]
    fn head<V: Vector>(
        &self,
        rows: &mut RowBlock<'_, '_>,
        geometry: &Geometry<'_>,
        step: &HeadStep,
    ) {
        match self.outputs {
            Outputs::Rows(out) => Values { out }.head::<V>(rows, geometry, step),
            Outputs::Maps(out) => Maps { out }.head::<V>(rows, geometry, step),
        }
    }
}
