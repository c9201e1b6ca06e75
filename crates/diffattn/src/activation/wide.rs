//! Functions of float32 values that are computed in float64, over a slice, and what they are made
//! of. Nothing fuses, so every instruction set gives the same bits.

use crate::blocks::activation::AT_ONCE;
use crate::run::Run;
use crate::run::threads::{for_each_chunk, thread_count};
use crate::simd::math::MAX_LANES;
use crate::simd::{Kernel, Vector, Wide};

/// Values of one item of work: some tens of microseconds.
const ITEM: usize = 1 << 13;

/// Multiply-adds that one value costs.
const VALUE_WORK: usize = 64;

/// 2^r on [−½, ½]. Minimax in relative error (Lawson's reweighted least squares); 2⁻²⁹ off.
const EXP2: [f64; 7] = [
    1.000_000_000_554_213_8,
    0.693_147_205_737_112,
    0.240_226_468_902_894_4,
    0.055_503_287_772_172_92,
    0.009_618_488_994_425_356,
    0.001_339_993_113_830_12,
    0.000_153_458_019_654_160_66,
];

/// c₀ + c₁x + … by Horner, of all N side by side: one after the other, each step waits for the one
/// before.
#[inline(always)]
pub(super) fn polynomial<W: Wide, const C: usize, const N: usize>(
    coefficients: &[f64; C],
    x: [W; N],
) -> [W; N] {
    let mut p = [W::splat(coefficients[C - 1]); N];
    for coefficient in coefficients[..C - 1].iter().rev() {
        for i in 0..N {
            p[i] = p[i].mul(x[i]).add(W::splat(*coefficient));
        }
    }
    p
}

/// 2^power, where that is no subnormal and no infinity.
#[inline(always)]
pub(super) fn exp2<W: Wide, const N: usize>(power: [W; N]) -> [W; N] {
    // 1.5 · 2⁵²: adding it leaves the nearest integer in the low bits of the significand.
    let round = W::splat(6_755_399_441_055_744.0);
    let (mut shifted, mut rest) = (power, power);
    for i in 0..N {
        shifted[i] = power[i].add(round);
        rest[i] = power[i].sub(shifted[i].sub(round));
    }
    let mut p = polynomial(&EXP2, rest);
    for i in 0..N {
        p[i] = p[i].mul(shifted[i].low_bits_to_power());
    }
    p
}

/// A function of each lane, of N vectors side by side.
pub(super) trait Function: Send + Sync {
    fn of<W: Wide, const N: usize>(x: [W; N]) -> [W; N];
}

struct Map<'c, F>(&'c mut [f32], std::marker::PhantomData<F>);

impl<F: Function> Kernel for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let mut blocks = self.0.chunks_exact_mut(AT_ONCE * V::Wide::LANES);
        for block in &mut blocks {
            // SAFETY: a block has so many vectors.
            unsafe { replace::<V::Wide, F>(block.as_mut_ptr()) };
        }
        let tail = blocks.into_remainder();
        if !tail.is_empty() {
            let mut block = [0.0; AT_ONCE * MAX_LANES];
            block[..tail.len()].copy_from_slice(tail);
            // SAFETY: MAX_LANES is at least LANES.
            unsafe { replace::<V::Wide, F>(block.as_mut_ptr()) };
            tail.copy_from_slice(&block[..tail.len()]);
        }
    }
}

/// The values of [`AT_ONCE`] vectors by those of the function.
///
/// # Safety
/// So many values are at `values`.
#[inline(always)]
unsafe fn replace<W: Wide, F: Function>(values: *mut f32) {
    let mut x = [W::splat(0.0); AT_ONCE];
    for (i, x) in x.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *x = unsafe { W::widen(values.add(i * W::LANES)) };
    }
    for (i, y) in F::of(x).into_iter().enumerate() {
        // SAFETY: as above.
        unsafe { y.store_narrow(values.add(i * W::LANES)) };
    }
}

/// F of each value, in place.
pub(super) fn each<F: Function>(values: &mut [f32], run: Run) {
    let map = |values: &mut [f32]| {
        run.unfused_kernel(Map::<F>(values, std::marker::PhantomData));
    };
    let threads = thread_count(run.threads(), values.len().saturating_mul(VALUE_WORK));
    if threads == 1 {
        map(values);
    } else {
        for_each_chunk(threads, values, ITEM, |_, _, values| map(values));
    }
}
