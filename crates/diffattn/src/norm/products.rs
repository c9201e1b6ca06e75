//! Sums over products of gradients with what a norm saw, in float64: along memory over the lanes of
//! `lanes`, and down rows by channel. Knows nothing of what they are sums for.

use super::lanes::{Terms, sum_terms};
use crate::blocks::norm::{POWER_LANES, SHIFTED_LANES};
use crate::simd::Wide;

/// x² and g · x.
struct Squared;

impl<W: Wide> Terms<W, 2, 2> for Squared {
    #[inline(always)]
    unsafe fn add(&self, [squares, products]: [W; 2], [x, dy]: [*const f32; 2]) -> [W; 2] {
        // SAFETY: the caller's promise.
        let (x, dy) = unsafe { (W::widen(x), W::widen(dy)) };
        [squares.add_square(x), products.add(dy.mul(x))]
    }
}

impl<W: Wide> Terms<W, 3, 2> for Squared {
    #[inline(always)]
    unsafe fn add(&self, [squares, products]: [W; 2], [x, dy, w]: [*const f32; 3]) -> [W; 2] {
        // SAFETY: the caller's promise.
        let (x, g) = unsafe { (W::widen(x), W::widen(dy).mul(W::widen(w))) };
        [squares.add_square(x), products.add(g.mul(x))]
    }
}

/// Σ x² and Σ g·x, g = dy times the weight where there is one.
#[inline(always)]
pub(super) fn squares_and_products<W: Wide>(
    x: &[f32],
    dy: &[f32],
    weight: Option<&[f32]>,
) -> [f64; 2] {
    match weight {
        None => sum_terms::<W, SHIFTED_LANES, 2, 2>([x, dy], [0.0; 2], Squared),
        Some(w) => sum_terms::<W, SHIFTED_LANES, 3, 2>([x, dy, w], [0.0; 3], Squared),
    }
}

/// g and g · (x − from).
struct Apart {
    from: f64,
}

impl<W: Wide> Terms<W, 2, 2> for Apart {
    #[inline(always)]
    unsafe fn add(&self, [sum, products]: [W; 2], [x, dy]: [*const f32; 2]) -> [W; 2] {
        // SAFETY: the caller's promise.
        let (x, dy) = unsafe { (W::widen(x), W::widen(dy)) };
        let difference = x.sub(W::splat(self.from));
        [sum.add(dy), products.add(dy.mul(difference))]
    }
}

impl<W: Wide> Terms<W, 3, 2> for Apart {
    #[inline(always)]
    unsafe fn add(&self, [sum, products]: [W; 2], [x, dy, w]: [*const f32; 3]) -> [W; 2] {
        // SAFETY: the caller's promise.
        let (x, g) = unsafe { (W::widen(x), W::widen(dy).mul(W::widen(w))) };
        let difference = x.sub(W::splat(self.from));
        [sum.add(g), products.add(g.mul(difference))]
    }
}

/// Σ g and Σ g·(x − from), g = dy times the weight where there is one.
#[inline(always)]
pub(super) fn sum_and_products<W: Wide>(
    x: &[f32],
    from: f64,
    dy: &[f32],
    weight: Option<&[f32]>,
) -> [f64; 2] {
    let apart = Apart { from };
    match weight {
        None => sum_terms::<W, SHIFTED_LANES, 2, 2>([x, dy], [0.0; 2], apart),
        Some(w) => sum_terms::<W, SHIFTED_LANES, 3, 2>([x, dy, w], [0.0; 3], apart),
    }
}

/// g, g · x, g · x² and g · x³.
struct WithPowers;

impl<W: Wide> Terms<W, 2, 4> for WithPowers {
    #[inline(always)]
    unsafe fn add(&self, sums: [W; 4], [x, g]: [*const f32; 2]) -> [W; 4] {
        // SAFETY: the caller's promise.
        let (x, g) = unsafe { (W::widen(x), W::widen(g)) };
        let linear = g.mul(x);
        let square = linear.mul(x);
        [
            sums[0].add(g),
            sums[1].add(linear),
            sums[2].add(square),
            sums[3].add(square.mul(x)),
        ]
    }
}

/// Σ g, Σ g·x, Σ g·x² and Σ g·x³.
#[inline(always)]
pub(super) fn sums_with_powers<W: Wide>(x: &[f32], g: &[f32]) -> [f64; 4] {
    sum_terms::<W, POWER_LANES, 2, 4>([x, g], [0.0; 2], WithPowers)
}

/// What the rows of a block add to `T` sums of each channel.
pub(super) trait RowTerms<const T: usize> {
    /// Of a row, for the vector of channels that begins with `at`.
    ///
    /// # Safety
    /// There are that row and those channels.
    unsafe fn vector<W: Wide>(&self, row: usize, at: usize) -> [W; T];

    /// For one channel, to the same bits.
    ///
    /// # Safety
    /// There are that row and that channel.
    unsafe fn one(&self, row: usize, at: usize) -> [f64; T];
}

/// Rows whose terms a sum takes between being read and written.
const ROWS: usize = 4;

/// Adds the terms of `rows` rows to `sums`, row by row, for each channel. (Some rows at a time, not
/// channels: rows that are a power of two apart would drive each other from L1.)
///
/// # Safety
/// There are so many rows, and as many channels as each of `sums` has.
#[inline(always)]
pub(super) unsafe fn add_rows<W: Wide, const T: usize>(
    rows: usize,
    terms: &impl RowTerms<T>,
    mut sums: [&mut [f64]; T],
) {
    let mut row = 0;
    // SAFETY: (both) the caller's promise.
    unsafe {
        while row + ROWS <= rows {
            add_some::<W, T, ROWS>(row, terms, &mut sums);
            row += ROWS;
        }
        while row < rows {
            add_some::<W, T, 1>(row, terms, &mut sums);
            row += 1;
        }
    }
}

/// [`add_rows`] of the `N` rows from `first` on: each channel is a sum of its own, so N changes no
/// bit.
///
/// # Safety
/// As [`add_rows`], for these rows.
#[inline(always)]
unsafe fn add_some<W: Wide, const T: usize, const N: usize>(
    first: usize,
    terms: &impl RowTerms<T>,
    sums: &mut [&mut [f64]; T],
) {
    let channels = sums.iter().map(|sums| sums.len()).min().unwrap_or(0);
    let sums = sums.each_mut().map(|sums| sums.as_mut_ptr());
    let whole = channels / W::LANES * W::LANES;
    for at in (0..whole).step_by(W::LANES) {
        // SAFETY: a whole vector of channels there is from `at` on; rows the caller promises.
        unsafe {
            let mut totals = [W::splat(0.0); T];
            for (total, sums) in totals.iter_mut().zip(sums) {
                *total = W::load(sums.add(at));
            }
            for row in first..first + N {
                let terms = terms.vector::<W>(row, at);
                for (total, term) in totals.iter_mut().zip(terms) {
                    *total = total.add(term);
                }
            }
            for (total, sums) in totals.iter().zip(sums) {
                total.store(sums.add(at));
            }
        }
    }
    for at in whole..channels {
        for row in first..first + N {
            // SAFETY: (all of it) as above.
            unsafe {
                for (sums, term) in sums.iter().zip(terms.one(row, at)) {
                    *sums.add(at) += term;
                }
            }
        }
    }
}
