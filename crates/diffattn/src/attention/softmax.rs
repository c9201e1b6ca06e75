//! A row's softmax from its strips: exponentials against each strip's own maximum, and what joins the strips. Shared by
//! `row_block.rs` and `decode.rs`, so that both have the same bits. Knows no heads and no memory layout.
//!
//! Each strip is finished while its scores are near (one walk over the row less than with the row's maximum, and decode
//! has one phase less). What puts a strip on the row's footing is a factor of its weights, in float64.

use crate::tile::ROW_SUMS;
use crate::vector::Vector;
use crate::vector::math::{self, ExponentScale};

/// Turns `N` vectors of scores into exponentials, in place, and gives them.
///
/// # Safety
/// `at` has `N` vectors.
#[inline(always)]
pub(super) unsafe fn exponentials<V: Vector, const N: usize>(
    at: *mut f32,
    strip_max: V,
    scale: &ExponentScale,
) -> [V; N] {
    let mut t = [strip_max; N];
    for (i, t) in t.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *t = unsafe { V::load(at.add(i * V::LANES)) }.sub(strip_max);
    }
    let e = math::exp2_scaled(t, scale);
    for (i, e) in e.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { e.store(at.add(i * V::LANES)) };
    }
    e
}

/// [`exponentials`] of keys `from..to` of one strip, and their sum.
///
/// # Safety
/// `scores` has `to − from` vectors.
#[inline(always)]
pub(super) unsafe fn exponential_strip<V: Vector>(
    scores: *mut f32,
    from: usize,
    to: usize,
    strip_max: V,
    scale: &ExponentScale,
) -> V {
    let mut sums = [V::splat(0.0); ROW_SUMS];
    let mut key = from;
    // SAFETY: (all of this function) the caller's promise.
    unsafe {
        let at = |key: usize| scores.add((key - from) * V::LANES);
        while key < to && !key.is_multiple_of(ROW_SUMS) {
            let [e] = exponentials(at(key), strip_max, scale);
            sums[key % ROW_SUMS] = sums[key % ROW_SUMS].add(e);
            key += 1;
        }
        while key + ROW_SUMS <= to {
            let e: [V; ROW_SUMS] = exponentials(at(key), strip_max, scale);
            for (sum, &e) in sums.iter_mut().zip(&e) {
                *sum = sum.add(e);
            }
            key += ROW_SUMS;
        }
        while key < to {
            let [e] = exponentials(at(key), strip_max, scale);
            sums[key % ROW_SUMS] = sums[key % ROW_SUMS].add(e);
            key += 1;
        }
    }
    sums[0].add(sums[1]).add(sums[2].add(sums[3]))
}

/// The maximum to subtract: 0 for a strip of nothing but −∞, so that −∞ − max is no NaN.
#[inline(always)]
pub(super) fn safe_max<V: Vector>(strip_max: V) -> V {
    V::select(strip_max.lt(V::splat(f32::MIN)), V::splat(0.0), strip_max)
}

/// Row maxima, row sums and footings from `[strip][row]` maxima and sums: footing = 2^(scale · (strip_max − row_max)),
/// row_sum = Σ footing · strip_sum, strip after strip. `scale` makes a difference of scores an exponent of 2.
#[inline(always)]
pub(super) fn reduce(
    scale: f64,
    strip_max: &[f32],
    strip_sum: &[f32],
    footing: &mut [f64],
    row_max: &mut [f32],
    row_sum: &mut [f64],
) {
    let rows = row_max.len();
    row_max.fill(f32::NEG_INFINITY);
    row_sum.fill(0.0);
    for strip_max in strip_max.chunks_exact(rows) {
        for (row_max, &strip_max) in row_max.iter_mut().zip(strip_max) {
            *row_max = if strip_max > *row_max {
                strip_max
            } else {
                *row_max
            };
        }
    }
    let strips = strip_max
        .chunks_exact(rows)
        .zip(strip_sum.chunks_exact(rows));
    for ((strip_max, strip_sum), footing) in strips.zip(footing.chunks_exact_mut(rows)) {
        // Zipped, so that no bounds check keeps the loop from becoming vectors.
        let strip = strip_max.iter().zip(strip_sum).zip(footing);
        for (((&strip_max, &strip_sum), footing), (&row_max, row_sum)) in
            strip.zip(row_max.iter().zip(row_sum.iter_mut()))
        {
            // Where all is −∞ the difference must not be NaN.
            let row_max = if row_max < f32::MIN { 0.0 } else { row_max };
            *footing = math::exp2_wide((f64::from(strip_max) - f64::from(row_max)) * scale);
            *row_sum += *footing * f64::from(strip_sum);
        }
    }
}

/// c / row_sum; 0 for a row that saw nothing, whatever its coefficient is.
#[inline(always)]
pub(super) fn share(coefficient: f32, row_sum: f64) -> f64 {
    if row_sum == 0.0 {
        0.0
    } else {
        f64::from(coefficient) / row_sum
    }
}

/// share · footing in two float32 parts: rounded to one, a weight would shift a whole strip. (Dividing the
/// finished row instead costs nothing, but sums of another magnitude round otherwise: up to twice plain float32's
/// largest error.) What float32 could only hold as a subnormal is 0.
#[inline(always)]
pub(super) fn weight(share: f64, footing: f64) -> [f32; 2] {
    let weight = share * footing;
    let flushed = |x: f32| if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x };
    let high = flushed(weight as f32);
    // An infinite weight has no low part.
    let low = if high.is_finite() {
        flushed((weight - f64::from(high)) as f32)
    } else {
        0.0
    };
    [high, low]
}
