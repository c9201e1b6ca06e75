//! A row's softmax from its strips: exponentials against each strip's own maximum, and what joins
//! the strips. Shared by `prefill/` and `decode/`, so that both have the same bits. Knows no heads
//! and no memory layout beyond a strip's.
//!
//! Each strip is finished while its scores are near (one walk over the row less than with the row's
//! maximum, and decode has one phase less). What puts a strip on the row's footing is a factor of
//! its weights, in float64.

use super::lanes::{load, store};
use crate::blocks::ROW_SUMS;
use crate::simd::Vector;
use crate::simd::math::{self, ExponentScale};

/// Turns the `N` vectors of `scores` into exponentials, in place, and gives them.
#[inline(always)]
pub(super) fn exponentials<V: Vector, const N: usize>(
    scores: &mut [f32],
    strip_max: V,
    scale: &ExponentScale,
) -> [V; N] {
    let mut t = [strip_max; N];
    for (t, score) in t.iter_mut().zip(scores.chunks_exact(V::LANES)) {
        *t = load::<V>(score).sub(strip_max);
    }
    let e = math::exp2_scaled(t, scale);
    for (&e, score) in e.iter().zip(scores.chunks_exact_mut(V::LANES)) {
        store(e, score);
    }
    e
}

/// Turns whole turns of [`ROW_SUMS`] vectors into exponentials and adds them to `sums`. (In
/// WebAssembly a function of its own: engines allocate registers function by function, and within a
/// row block JavaScriptCore keeps half of these values in memory. Two vectors at a time instead of
/// four take 0.99 to 1.00 of a call's time there.)
#[cfg_attr(target_arch = "wasm32", inline(never))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
fn add_whole<V: Vector>(
    mut sums: [V; ROW_SUMS],
    scores: &mut [f32],
    strip_max: V,
    scale: &ExponentScale,
) -> [V; ROW_SUMS] {
    for scores in scores.chunks_exact_mut(ROW_SUMS * V::LANES) {
        let e: [V; ROW_SUMS] = exponentials(scores, strip_max, scale);
        for (sum, &e) in sums.iter_mut().zip(&e) {
            *sum = sum.add(e);
        }
    }
    sums
}

/// The sums of exponentials of one strip, key by key modulo [`ROW_SUMS`].
pub(super) struct StripSums<V>([V; ROW_SUMS]);

impl<V: Vector> StripSums<V> {
    #[inline(always)]
    pub(super) fn zero() -> Self {
        Self([V::splat(0.0); ROW_SUMS])
    }

    /// Turns `scores`, a vector per key from key `from` on, into exponentials and adds them.
    #[inline(always)]
    pub(super) fn add(
        &mut self,
        scores: &mut [f32],
        from: usize,
        strip_max: V,
        scale: &ExponentScale,
    ) {
        let keys = scores.len() / V::LANES;
        let before = (from.next_multiple_of(ROW_SUMS) - from).min(keys);
        let (ragged, scores) = scores.split_at_mut(before * V::LANES);
        self.add_each(ragged, from, strip_max, scale);
        let whole = scores.len() / (ROW_SUMS * V::LANES) * (ROW_SUMS * V::LANES);
        let (whole, rest) = scores.split_at_mut(whole);
        self.0 = add_whole(self.0, whole, strip_max, scale);
        self.add_each(rest, 0, strip_max, scale);
    }

    /// [`StripSums::add`] key by key.
    #[inline(always)]
    fn add_each(&mut self, scores: &mut [f32], from: usize, strip_max: V, scale: &ExponentScale) {
        for (key, score) in (from..).zip(scores.chunks_exact_mut(V::LANES)) {
            let [e] = exponentials(score, strip_max, scale);
            self.0[key % ROW_SUMS] = self.0[key % ROW_SUMS].add(e);
        }
    }

    /// The strip's sum.
    #[inline(always)]
    pub(super) fn total(self) -> V {
        let [a, b, c, d] = self.0;
        a.add(b).add(c.add(d))
    }
}

/// The maximum to subtract: 0 for a strip of nothing but −∞, so that −∞ − max is no NaN.
#[inline(always)]
pub(super) fn safe_max<V: Vector>(strip_max: V) -> V {
    V::select(strip_max.lt(V::splat(f32::MIN)), V::splat(0.0), strip_max)
}

/// Maxima and sums of the strips of some rows, each `[strip][row]`.
pub(super) struct Strips<'s> {
    pub(super) max: &'s [f32],
    pub(super) sum: &'s [f32],
}

/// What joins the strips of some rows, `[row]`.
pub(super) struct Rows<'s> {
    pub(super) max: &'s mut [f32],
    /// Σ footing · strip_sum, strip after strip; 0 for a row that saw no key.
    pub(super) sum: &'s mut [f64],
}

/// Row maxima, row sums and footings, `[strip][row]`, of strips: footing = 2^(scale · (strip_max −
/// row_max)). `scale` makes a difference of scores an exponent of 2.
#[inline(always)]
pub(super) fn reduce(scale: f64, strips: &Strips<'_>, footing: &mut [f64], rows: Rows<'_>) {
    let count = rows.max.len();
    rows.max.fill(f32::NEG_INFINITY);
    rows.sum.fill(0.0);
    let strips_at = (0..strips.max.len()).step_by(count);
    for at in strips_at.clone() {
        raise(&strips.max[at..][..count], rows.max);
    }
    for at in strips_at {
        let strip = [strips.max, strips.sum].map(|values| &values[at..][..count]);
        let footing = &mut footing[at..][..count];
        add_strip(scale, strip, footing, (rows.max, rows.sum));
    }
}

/// Raises row maxima to those of a strip.
#[inline(always)]
pub(super) fn raise(strip_max: &[f32], row_max: &mut [f32]) {
    for (row_max, &strip_max) in row_max.iter_mut().zip(strip_max) {
        *row_max = if strip_max > *row_max {
            strip_max
        } else {
            *row_max
        };
    }
}

/// Adds a strip's sums to those of rows whose maxima are known; gives its footings.
#[inline(always)]
pub(super) fn add_strip(
    scale: f64,
    [strip_max, strip_sum]: [&[f32]; 2],
    footing: &mut [f64],
    (row_max, row_sum): (&[f32], &mut [f64]),
) {
    footings(scale, strip_max, row_max, footing);
    // Zipped, so that no bounds check keeps the loop from becoming vectors.
    for ((row_sum, &footing), &strip_sum) in row_sum.iter_mut().zip(&*footing).zip(strip_sum) {
        *row_sum += footing * f64::from(strip_sum);
    }
}

/// The footing of one strip on each row whose maximum is known.
#[inline(always)]
pub(super) fn footings(scale: f64, strip_max: &[f32], row_max: &[f32], footing: &mut [f64]) {
    for ((&strip_max, &row_max), footing) in strip_max.iter().zip(row_max).zip(footing) {
        // Where all is −∞ the difference must not be NaN.
        let row_max = if row_max < f32::MIN { 0.0 } else { row_max };
        let below = f64::from(strip_max) - f64::from(row_max);
        // (All rows of a single strip: where loops do not become vectors, as in WebAssembly, their
        // exponentials took a twentieth of the smallest call.)
        *footing = if below == 0.0 {
            1.0
        } else {
            math::exp2_wide(below * scale)
        };
    }
}

/// c ÷ row_sum (with its sink); 0 for a row that saw nothing, whatever its coefficient is.
#[inline(always)]
pub(super) fn share(coefficient: f32, row_sum: f64) -> f64 {
    if row_sum == 0.0 {
        0.0
    } else {
        f64::from(coefficient) / row_sum
    }
}

/// share · footing in two float32 parts: rounded to one, a weight would shift a whole strip.
/// (Dividing the finished row instead costs nothing, but sums of another magnitude round otherwise:
/// up to twice plain float32's largest error.) What float32 could only hold as a subnormal is 0.
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
