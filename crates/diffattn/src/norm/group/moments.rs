//! The moments of a chunk: its mean and sum of squared deviations, in two walks over it in L1.
//! Chunks are combined in order. Knows nothing of what is made of them.

use super::runs::Runs;
use crate::blocks::norm::AHEAD;
use crate::error::Error;
use crate::norm::lanes;
use crate::run::buffer::try_zeroed;
use crate::simd::Vector;

/// Square of the distance from mean to shift, in standard deviations, from which a chunk is walked
/// again.
const FAR: f64 = 4.0;

/// Count of values, their mean and the sum of their squared deviations from it.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::norm) struct Moments {
    pub(super) count: f64,
    pub(super) mean: f64,
    pub(super) squares: f64,
}

impl Moments {
    #[inline(always)]
    pub(in crate::norm) fn mean(self) -> f64 {
        self.mean
    }

    /// Both together, after Chan, Golub and LeVeque (1983), eq. 2.1.
    #[inline(always)]
    pub(in crate::norm) fn merge(self, other: Self) -> Self {
        let count = self.count + other.count;
        let delta = other.mean - self.mean;
        let share = other.count / count;
        Self {
            count,
            mean: self.mean + delta * share,
            squares: self.squares + other.squares + delta * delta * (self.count * share),
        }
    }
}

/// Adds a chunk's moments to a run's, group by group.
#[inline]
pub(super) fn merge(to: &mut [Moments], chunk: &[Moments]) {
    for (to, &chunk) in to.iter_mut().zip(chunk) {
        *to = to.merge(chunk);
    }
}

/// Moments of a chunk in one walk, shifted by the mean of some values. The differences are rounded
/// to float32, so a shift that proves to lie further from the mean than the values do is replaced:
/// then a second walk. If `LARGE`, what is far ahead is asked for.
#[inline(always)]
pub(in crate::norm) fn shifted_moments<V: Vector, const LARGE: bool>(x: &[f32]) -> Moments {
    let count = x.len() as f64;
    let some = [0, 1, 2, 3].map(|quarter| f64::from(x[quarter * x.len() / 4]));
    let mut shift = (some.iter().sum::<f64>() / 4.0) as f32;
    let mut walks = 0;
    loop {
        walks += 1;
        let [sum, squares] = lanes::shifted_sums::<V, LARGE>(x, shift);
        let off = sum / count;
        let squares = squares - sum * off;
        let moments = Moments {
            count,
            mean: f64::from(shift) + off,
            squares,
        };
        // Also false for NaN.
        let is_far = sum * off > FAR * squares;
        if walks == 2 || !is_far {
            return moments;
        }
        shift = moments.mean as f32;
    }
}

/// What the moments of a chunk are summed in, with channels last only.
#[derive(Debug)]
pub(super) struct ChannelSums {
    /// Per channel: sums, then the mean of the channel's group.
    sums: Vec<f64>,
    means: Vec<f64>,
}

impl ChannelSums {
    pub(super) fn new(runs: &Runs) -> Result<Self, Error> {
        let channels = runs.last_channels();
        Ok(Self {
            sums: try_zeroed(channels)?,
            means: try_zeroed(channels)?,
        })
    }
}

/// Walks 1 and 2: the moments of the elements of one chunk, by group.
#[inline(always)]
pub(super) fn chunk_moments<V: Vector>(
    runs: &Runs,
    x: &[f32],
    sums: &mut ChannelSums,
    moments: &mut [Moments],
) {
    if runs.stretch > 1 {
        moments[0] = if V::STREAMS && runs.len > AHEAD {
            shifted_moments::<V, true>(x)
        } else {
            shifted_moments::<V, false>(x)
        };
        return;
    }
    let ChannelSums { sums, means } = sums;
    let width = runs.width;
    let count = (x.len() / runs.channels * width) as f64;
    lanes::sum_channels::<V::Wide>(x, None, sums);
    for ((moments, sums), means) in moments
        .iter_mut()
        .zip(sums.chunks_exact(width))
        .zip(means.chunks_exact_mut(width))
    {
        let mean = sums.iter().sum::<f64>() / count;
        means.fill(mean);
        *moments = Moments {
            count,
            mean,
            squares: 0.0,
        };
    }
    lanes::sum_channels::<V::Wide>(x, Some(means), sums);
    for (moments, sums) in moments.iter_mut().zip(sums.chunks_exact(width)) {
        moments.squares = sums.iter().sum();
    }
}
