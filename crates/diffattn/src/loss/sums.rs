//! Sums of a stretch of a row in float64, over a fixed number of virtual lanes: the order of every
//! addition is the same on all instruction sets.

use crate::blocks::loss::LANES;
use crate::simd::Wide;
use crate::simd::lanes::{load_wide, store_wide};

/// Accumulators at once: half of the sixteen registers that the smaller sets have.
const ACCUMULATORS: usize = 8;

/// What each place adds to a sum. A type, not a closure, which the compiler need not inline.
trait Terms: Copy {
    /// The terms from place `at` of block `block` on.
    fn at<W: Wide>(self, block: usize, at: usize) -> W;
}

/// Turns of lanes.
type Blocks<'x> = &'x [[f32; LANES]];

/// x.
#[derive(Clone, Copy)]
struct Plain<'x>(Blocks<'x>);

/// e · (t − s) of e, t and s; infinities count as the largest numbers, so that what is nowhere adds
/// nothing.
#[derive(Clone, Copy)]
struct Differences<'x>([Blocks<'x>; 3]);

impl Terms for Plain<'_> {
    #[inline(always)]
    fn at<W: Wide>(self, block: usize, at: usize) -> W {
        load_wide(&self.0[block][at..])
    }
}

impl Terms for Differences<'_> {
    #[inline(always)]
    fn at<W: Wide>(self, block: usize, at: usize) -> W {
        let [e, t, s] = self.0;
        // (A NaN is the second operand, which the maximum gives then.)
        let lowest = W::splat(f64::from(f32::MIN));
        let t = lowest.max(load_wide(&t[block][at..]));
        let s = lowest.max(load_wide(&s[block][at..]));
        load_wide::<W>(&e[block][at..]).mul(t.sub(s))
    }
}

/// Σ x.
#[inline(always)]
pub(super) fn sum<W: Wide>(x: &[f32]) -> f64 {
    let (blocks, tail) = x.as_chunks();
    let last = [padded(tail)];
    lanes::<W, _>(Plain(blocks), blocks.len(), Plain(&last))
}

/// Σ e · (t − s) of slices of one length.
#[inline(always)]
pub(super) fn sum_differences<W: Wide>(e: &[f32], t: &[f32], s: &[f32]) -> f64 {
    assert!(e.len() == t.len() && e.len() == s.len());
    let (e, e_tail) = e.as_chunks();
    let (t, t_tail) = t.as_chunks();
    let (s, s_tail) = s.as_chunks();
    let (e_last, t_last, s_last) = ([padded(e_tail)], [padded(t_tail)], [padded(s_tail)]);
    let last = Differences([&e_last, &t_last, &s_last]);
    lanes::<W, _>(Differences([e, t, s]), e.len(), last)
}

/// Values and zeros.
#[inline(always)]
fn padded(tail: &[f32]) -> [f32; LANES] {
    let mut last = [0.0; LANES];
    last[..tail.len()].copy_from_slice(tail);
    last
}

/// Place i goes to lane i mod [`LANES`], and the lanes are added by halves. Of `terms` there are
/// `blocks`, of `last`, which comes first, one.
#[inline(always)]
fn lanes<W: Wide, T: Terms>(terms: T, blocks: usize, last: T) -> f64 {
    let used = (LANES / W::LANES).min(ACCUMULATORS);
    let mut lanes = [0.0; LANES];
    for first in (0..LANES).step_by(used * W::LANES) {
        let mut sums = [W::splat(0.0); ACCUMULATORS];
        for (i, sum) in sums[..used].iter_mut().enumerate() {
            *sum = last.at(0, first + i * W::LANES);
        }
        for block in 0..blocks {
            for (i, sum) in sums[..used].iter_mut().enumerate() {
                *sum = sum.add(terms.at(block, first + i * W::LANES));
            }
        }
        for (i, &sum) in sums[..used].iter().enumerate() {
            store_wide(sum, &mut lanes[first + i * W::LANES..]);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        for (low, high) in low.iter_mut().zip(high) {
            *low += *high;
        }
        width /= 2;
    }
    lanes[0]
}
