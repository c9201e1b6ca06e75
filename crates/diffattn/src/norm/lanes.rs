//! Sums in float64 over a fixed number of virtual lanes, which each instruction set's registers
//! walk in as many turns as it takes: the order of every addition is the same on all.

use std::marker::PhantomData;

use crate::blocks::norm::{FAR_AHEAD, LANES, POWER_LANES, SHIFTED_LANES};
use crate::simd::{Use, Vector, Wide};

/// Accumulators at once: half of the sixteen registers that the smaller sets have.
const ACCUMULATORS: usize = 8;

/// The accumulators that hold `lanes` lanes, [`ACCUMULATORS`] at most.
const fn accumulators<W: Wide>(lanes: usize) -> usize {
    let wanted = lanes / W::LANES;
    if wanted < ACCUMULATORS {
        wanted
    } else {
        ACCUMULATORS
    }
}

/// What the values of vectors, one of each of `A` arrays, add to `T` sums. A type, not a closure,
/// as [`Results`](super::write::Results) are.
pub(super) trait Terms<W: Wide, const A: usize, const T: usize> {
    /// `sums`, each with its terms added of the vectors at `at`.
    ///
    /// # Safety
    /// `LANES` values are readable at each.
    unsafe fn add(&self, sums: [W; T], at: [*const f32; A]) -> [W; T];

    /// [`Terms::add`] of two vectors that lie side by side.
    ///
    /// # Safety
    /// Twice `LANES` values are readable at each.
    #[inline(always)]
    unsafe fn add_two(&self, [one, two]: [[W; T]; 2], at: [*const f32; A]) -> [[W; T]; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let second = at.map(|at| at.add(W::LANES));
            [self.add(one, at), self.add(two, second)]
        }
    }

    /// Is told where each block of values of the first array begins.
    fn meet(&self, _block: *const f32) {}
}

/// x².
struct Squares;

impl<W: Wide> Terms<W, 1, 1> for Squares {
    #[inline(always)]
    unsafe fn add(&self, [squares]: [W; 1], [x]: [*const f32; 1]) -> [W; 1] {
        // SAFETY: the caller's promise.
        [squares.add_square(unsafe { W::widen(x) })]
    }
}

/// x², which is exact, x⁴ and x⁶.
struct Powers;

impl<W: Wide> Terms<W, 1, 3> for Powers {
    #[inline(always)]
    unsafe fn add(&self, [second, fourth, sixth]: [W; 3], [x]: [*const f32; 1]) -> [W; 3] {
        // SAFETY: the caller's promise.
        let x = unsafe { W::widen(x) };
        let square = x.mul(x);
        let power = square.mul(square);
        [
            second.add(square),
            fourth.add(power),
            sixth.add(power.mul(square)),
        ]
    }
}

/// x − shift and (x − shift)²; if `LARGE`, the elements that [`FAR_AHEAD`] says are asked for.
struct Shifted<V, const LARGE: bool> {
    shift: f32,
    vector: PhantomData<V>,
}

impl<V: Vector, const LARGE: bool> Terms<V::Wide, 1, 2> for Shifted<V, LARGE> {
    #[inline(always)]
    unsafe fn add(&self, [sum, squares]: [V::Wide; 2], [x]: [*const f32; 1]) -> [V::Wide; 2] {
        // SAFETY: the caller's promise.
        let difference = unsafe { V::Wide::widen_less(x, self.shift) };
        [sum.add(difference), squares.add_square(difference)]
    }

    #[inline(always)]
    unsafe fn add_two(&self, sums: [[V::Wide; 2]; 2], [x]: [*const f32; 1]) -> [[V::Wide; 2]; 2] {
        // SAFETY: the caller's promise.
        let differences = unsafe { V::Wide::widen_two_less(x, self.shift) };
        let mut added = sums;
        for ([sum, squares], difference) in added.iter_mut().zip(differences) {
            *sum = sum.add(difference);
            *squares = squares.add_square(difference);
        }
        added
    }

    #[inline(always)]
    fn meet(&self, block: *const f32) {
        if LARGE {
            V::prefetch(block.wrapping_add(FAR_AHEAD), Use::Read);
        }
    }
}

/// Σ x²: element i goes to lane i mod [`LANES`], and the lanes are added by halves.
#[inline(always)]
pub(crate) fn sum_squares<W: Wide>(x: &[f32]) -> f64 {
    let [squares] = sum_terms::<W, LANES, 1, 1>([x], [0.0], Squares);
    squares
}

/// Σ (x − shift) and Σ (x − shift)², the differences rounded to float32; in the order of
/// [`sum_squares`], but over [`SHIFTED_LANES`]. If `LARGE`, the elements that [`FAR_AHEAD`] says
/// are asked for.
#[inline(always)]
pub(super) fn shifted_sums<V: Vector, const LARGE: bool>(x: &[f32], shift: f32) -> [f64; 2] {
    let terms = Shifted::<V, LARGE> {
        shift,
        vector: PhantomData,
    };
    sum_terms::<V::Wide, SHIFTED_LANES, 1, 2>([x], [shift], terms)
}

/// Σ x², Σ x⁴ and Σ x⁶; in the order of [`sum_squares`], but over [`POWER_LANES`].
#[inline(always)]
pub(super) fn sum_powers<W: Wide>(x: &[f32]) -> [f64; 3] {
    sum_terms::<W, POWER_LANES, 1, 3>([x], [0.0], Powers)
}

/// `T` sums at once, to which `terms` adds those of a vector of each array, which are of one
/// length; `padding` has terms of zero.
#[inline(always)]
pub(super) fn sum_terms<W: Wide, const N: usize, const A: usize, const T: usize>(
    arrays: [&[f32]; A],
    padding: [f32; A],
    terms: impl Terms<W, A, T>,
) -> [f64; T] {
    let blocks = arrays.map(|array| array.as_chunks::<N>().0);
    let has_tail = !arrays[0].len().is_multiple_of(N);
    let mut last = padding.map(|padding| [padding; N]);
    for (last, array) in last.iter_mut().zip(arrays) {
        let tail = array.as_chunks::<N>().1;
        last[..tail.len()].copy_from_slice(tail);
    }
    let used = accumulators::<W>(N * T) / T;
    let mut lanes = [[0.0; N]; T];
    for first in (0..N).step_by(used * W::LANES) {
        let mut sums = [[W::splat(0.0); T]; ACCUMULATORS];
        let sums = &mut sums[..used];
        for index in 0..blocks[0].len() {
            add_block(sums, &terms, blocks.map(|blocks| &blocks[index]), first);
        }
        if has_tail {
            add_block(sums, &terms, last.each_ref(), first);
        }
        for (i, sums) in sums.iter().enumerate() {
            for (sum, lanes) in sums.iter().zip(&mut lanes) {
                // SAFETY: `used` vectors from `first` on lie within the N lanes.
                unsafe { sum.store(lanes[first + i * W::LANES..].as_mut_ptr()) };
            }
        }
    }
    let mut totals = [0.0; T];
    for (total, lanes) in totals.iter_mut().zip(lanes) {
        *total = sum_by_halves::<W, N>(lanes);
    }
    totals
}

/// Adds the terms of as many vectors of a block as there are sums, from value `first` on.
#[inline(always)]
fn add_block<W: Wide, const N: usize, const A: usize, const T: usize>(
    sums: &mut [[W; T]],
    terms: &impl Terms<W, A, T>,
    block: [&[f32; N]; A],
    first: usize,
) {
    terms.meet(block[0].as_ptr());
    let from = block.map(|block| block[first..].as_ptr());
    let (twos, last) = sums.as_chunks_mut::<2>();
    for (i, sums) in twos.iter_mut().enumerate() {
        // SAFETY: `sum_terms` has as many sums as vectors lie within the block from `first` on.
        // (Added to one pointer, constants become the offsets of WebAssembly's loads.)
        *sums = unsafe { terms.add_two(*sums, from.map(|from| from.add(2 * i * W::LANES))) };
    }
    let from = from.map(|from| from.wrapping_add(2 * twos.len() * W::LANES));
    for sums in last {
        // SAFETY: as above.
        *sums = unsafe { terms.add(*sums, from) };
    }
}

/// The sum of N lanes: the upper half is added to the lower one until one is left.
#[inline(always)]
fn sum_by_halves<W: Wide, const N: usize>(mut lanes: [f64; N]) -> f64 {
    let mut width = N / 2;
    while width >= W::LANES {
        for lane in (0..width).step_by(W::LANES) {
            let (low, high) = (lanes[lane..].as_mut_ptr(), lanes[lane + width..].as_ptr());
            // SAFETY: `lane` and `lane + width` begin vectors within the N lanes.
            unsafe { W::load(low).add(W::load(high)).store(low) };
        }
        width /= 2;
    }
    // SAFETY: N is at least the lanes of a vector.
    unsafe { W::load(lanes.as_ptr()) }.sum()
}

/// Down the rows of `x`, row by row, for each of `sums.len()` channels: `Σ x`, or `Σ (x −
/// means[c])²` where there are means.
#[inline(always)]
pub(super) fn sum_channels<W: Wide>(x: &[f32], means: Option<&[f64]>, sums: &mut [f64]) {
    let mut c = 0;
    while c + LANES <= sums.len() {
        sum_channel_block::<W, LANES>(x, means, sums, c);
        c += LANES;
    }
    while c + 8 <= sums.len() {
        sum_channel_block::<W, 8>(x, means, sums, c);
        c += 8;
    }
    for c in c..sums.len() {
        let mean = means.map(|means| means[c]);
        let values = x.iter().skip(c).step_by(sums.len()).map(|&x| f64::from(x));
        let terms = values.map(|x| mean.map_or(x, |mean| (x - mean) * (x - mean)));
        sums[c] = terms.fold(0.0, |sum, term| sum + term);
    }
}

/// `N` neighbouring channels from `first` on, in registers: each is a sum of its own, so N changes
/// no bit.
#[inline(always)]
fn sum_channel_block<W: Wide, const N: usize>(
    x: &[f32],
    means: Option<&[f64]>,
    sums: &mut [f64],
    first: usize,
) {
    let rows = x.chunks_exact(sums.len()).map(|row| &row[first..first + N]);
    let lanes = match means {
        None => sum_blocks::<W, N>(rows, |x, _| x),
        Some(means) => {
            let means = &means[first..first + N];
            sum_blocks::<W, N>(rows, |x, lane| {
                debug_assert!(lane + W::LANES <= N);
                // SAFETY: `sum_blocks` gives lanes that begin a vector within N, and so many means
                // there are.
                let deviation = x.sub(unsafe { W::load(means.as_ptr().add(lane)) });
                deviation.mul(deviation)
            })
        }
    };
    sums[first..first + N].copy_from_slice(&lanes);
}

/// Lane by lane, `Σ term(block[lane], lane)` over blocks of N values, block by block from zero. N
/// is a power of two from 8 on.
#[inline(always)]
fn sum_blocks<'x, W: Wide, const N: usize>(
    blocks: impl Iterator<Item = &'x [f32]> + Clone,
    term: impl Fn(W, usize) -> W,
) -> [f64; N] {
    let mut lanes = [0.0; N];
    let used = accumulators::<W>(N);
    for first in (0..N).step_by(used * W::LANES) {
        let mut sums = [W::splat(0.0); ACCUMULATORS];
        for block in blocks.clone() {
            let block = &block[..N];
            for (i, sum) in sums[..used].iter_mut().enumerate() {
                let lane = first + i * W::LANES;
                // SAFETY: `used` vectors from `first` on lie within the N values of the block.
                *sum = sum.add(term(unsafe { W::widen(block.as_ptr().add(lane)) }, lane));
            }
        }
        for (i, sum) in sums[..used].iter().enumerate() {
            // SAFETY: as above, of the N lanes.
            unsafe { sum.store(lanes.as_mut_ptr().add(first + i * W::LANES)) };
        }
    }
    lanes
}
