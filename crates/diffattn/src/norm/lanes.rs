//! Sums in float64 over a fixed number of virtual lanes: plain arrays that the compiler turns into each
//! instruction set's vectors without changing the order of any addition.

/// Lanes of every sum along memory: four AVX-512 accumulators, enough to cover the latency of an addition.
pub(crate) const LANES: usize = 32;

/// Σ term(x): element i goes to lane i mod [`LANES`], and the lanes are added by halves.
#[inline(always)]
pub(super) fn sum(x: &[f32], term: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let (blocks, tail) = x.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            lanes[lane] += term(f64::from(block[lane]));
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(tail) {
        *lane += term(f64::from(x));
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
pub(super) fn sum_channels(x: &[f32], means: Option<&[f64]>, sums: &mut [f64]) {
    let mut c = 0;
    while c + LANES <= sums.len() {
        sum_channel_block::<LANES>(x, means, sums, c);
        c += LANES;
    }
    while c + 8 <= sums.len() {
        sum_channel_block::<8>(x, means, sums, c);
        c += 8;
    }
    while c < sums.len() {
        sum_channel_block::<1>(x, means, sums, c);
        c += 1;
    }
}

/// `N` neighbouring channels from `first` on, in registers: each is a sum of its own, so N changes no bit.
#[inline(always)]
fn sum_channel_block<const N: usize>(
    x: &[f32],
    means: Option<&[f64]>,
    sums: &mut [f64],
    first: usize,
) {
    let mut lanes = [0.0; N];
    let mut centres = [0.0; N];
    if let Some(means) = means {
        centres.copy_from_slice(&means[first..first + N]);
    }
    for row in x.chunks_exact(sums.len()) {
        let row = &row[first..first + N];
        for lane in 0..N {
            let value = f64::from(row[lane]) - centres[lane];
            lanes[lane] += if means.is_some() {
                value * value
            } else {
                value
            };
        }
    }
    sums[first..first + N].copy_from_slice(&lanes);
}
