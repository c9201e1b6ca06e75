//! Sums in float64 over a fixed number of virtual lanes, which each instruction set's registers walk in as many
//! turns as it takes: the order of every addition is the same on all.

use crate::vector::Wide;

/// Lanes of every sum along memory: four AVX-512 accumulators, enough to cover the latency of an addition. Part of
/// the numeric contract.
const LANES: usize = 32;

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

/// Σ term(x): element i goes to lane i mod [`LANES`], and the lanes are added by halves.
#[inline(always)]
pub(super) fn sum<W: Wide>(x: &[f32], term: impl Fn(W) -> W) -> f64 {
    let (blocks, tail) = x.as_chunks::<LANES>();
    let mut lanes =
        sum_blocks::<W, LANES>(blocks.iter().map(<[f32; LANES]>::as_slice), |x, _| term(x));
    if !tail.is_empty() {
        let mut block = [0.0; LANES];
        block[..tail.len()].copy_from_slice(tail);
        let last = sum_blocks::<W, LANES>(std::iter::once(block.as_slice()), |x, _| term(x));
        // Only the lanes of the tail: a term of the padding need not be 0.
        for (lane, last) in lanes.iter_mut().zip(last).take(tail.len()) {
            *lane += last;
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Down the rows of `x`, row by row, for each of `sums.len()` channels: `Σ x`, or `Σ (x − means[c])²` where there
/// are means.
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

/// `N` neighbouring channels from `first` on, in registers: each is a sum of its own, so N changes no bit.
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
                // SAFETY: `sum_blocks` gives lanes that begin a vector within N, and so many means there are.
                let deviation = x.sub(unsafe { W::load(means.as_ptr().add(lane)) });
                deviation.mul(deviation)
            })
        }
    };
    sums[first..first + N].copy_from_slice(&lanes);
}

/// Lane by lane, `Σ term(block[lane], lane)` over blocks of N values, block by block from zero. N is a power of two
/// from 8 on.
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
