//! The seam between pass 1 and what follows it. Knows no consumer.

use super::geometry::Geometry;
use super::row_block::RowBlock;
use crate::attention::groups::HeadStep;
use crate::simd::Vector;

/// What becomes of a head's exponentials.
pub(in crate::attention) trait Consumer: Sync {
    /// Takes one head, whose strips and those of the heads before it are exponentials now.
    /// `#[inline(always)]`, as all below a kernel.
    fn head<V: Vector>(
        &self,
        rows: &mut RowBlock<'_, '_>,
        geometry: &Geometry<'_>,
        step: &HeadStep,
    );
}
