//! Causal convolution of each channel along a sequence, followed by SiLU. Vectors run over the
//! channels, so a value's sum goes through its taps in order on every instruction set.

use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::{try_copied, try_zeroed};
use crate::run::threads::{for_each_chunk, thread_count};
use crate::simd::math::{MAX_LANES, silu};
use crate::simd::{Kernel, Vector};
use crate::tensor::shape::check_len;

/// Multiply-adds that the bias and the SiLU of a value cost.
const VALUE_WORK: usize = 32;

/// Values of one item of work: some tens of microseconds.
const ITEM: usize = 1 << 13;

/// A depthwise causal convolution along a sequence with SiLU behind it: `y[t] = silu(bias + Σ_k
/// weight[k] · x[t − taps + 1 + k])` in each channel, the oldest row first. What came before the
/// first row is a state of `taps − 1` rows, zeros at the start of a text.
///
/// ```
/// use diffattn::{CausalConvolution, Run};
///
/// // One channel that takes the row before its own.
/// let convolution = CausalConvolution::new([1, 2], &[1.0, 0.0], &[0.0])?;
/// let mut state = vec![0.0; convolution.state_len()];
/// let mut y = [0.0; 2];
/// convolution.forward(&[100.0, 200.0], &mut state, &mut y, Run::default())?;
/// assert_eq!((y, state), ([0.0, 100.0], vec![200.0]));
/// # Ok::<(), diffattn::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct CausalConvolution {
    channels: usize,
    taps: usize,
    /// `[taps, channels]`.
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl CausalConvolution {
    /// Takes a weight `[channels, taps]`, the oldest tap first, and a bias `[channels]`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `weight` or `bias` when its elements do
    /// not fill its shape, or `weight` where there are no channels or no taps;
    /// [`Error::out_of_memory`].
    pub fn new([channels, taps]: [usize; 2], weight: &[f32], bias: &[f32]) -> Result<Self, Error> {
        if channels == 0 || taps == 0 {
            let expected = "1 channel and 1 tap or more";
            let given = format_args!("{channels} channels of {taps} taps");
            return Err(Error::shape("weight", expected, given));
        }
        check_len("weight", &[channels, taps], weight.len())?;
        check_len("bias", &[channels], bias.len())?;
        let mut by_tap = try_zeroed(weight.len())?;
        for (tap, to) in by_tap.chunks_exact_mut(channels).enumerate() {
            for (to, from) in to.iter_mut().zip(weight.chunks_exact(taps)) {
                *to = from[tap];
            }
        }
        Ok(Self {
            channels,
            taps,
            weight: by_tap,
            bias: try_copied(bias)?,
        })
    }

    /// Channels of a row.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Rows that a value is made of.
    #[must_use]
    pub fn taps(&self) -> usize {
        self.taps
    }

    /// Values of a state: `[taps − 1, channels]`, the last inputs, oldest first.
    #[must_use]
    pub fn state_len(&self) -> usize {
        (self.taps - 1) * self.channels
    }

    /// Multiply-adds that a row costs in time.
    #[must_use]
    pub fn row_work(&self) -> usize {
        self.channels.saturating_mul(self.taps + VALUE_WORK)
    }

    /// Rows of x `[L, channels]` to rows of y, after those that `state` is of; `state` is that of
    /// the last row then.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `x`, `state` or `y` when it does not
    /// fit.
    pub fn forward(
        &self,
        x: &[f32],
        state: &mut [f32],
        y: &mut [f32],
        run: Run,
    ) -> Result<(), Error> {
        let rows = x.len() / self.channels;
        check_len("x", &[rows, self.channels], x.len())?;
        check_len("state", &[self.taps - 1, self.channels], state.len())?;
        check_len("y", &[rows, self.channels], y.len())?;
        let work = |rows: usize| rows.saturating_mul(self.row_work());
        let threads = thread_count(run.threads(), work(rows));
        let item = (ITEM / self.channels).max(1);
        let before = &*state;
        for_each_chunk(threads, y, item * self.channels, |_, index, y| {
            run.kernel(Rows {
                convolution: self,
                x,
                before,
                first: index * item,
                y,
            });
        });
        self.shift(x, state);
        Ok(())
    }

    /// The state behind the last row of x.
    fn shift(&self, x: &[f32], state: &mut [f32]) {
        let (kept, new) = (state.len(), x.len());
        if new >= kept {
            state.copy_from_slice(&x[new - kept..]);
        } else {
            state.copy_within(new.., 0);
            state[kept - new..].copy_from_slice(x);
        }
    }
}

/// Some rows of a call.
struct Rows<'c> {
    convolution: &'c CausalConvolution,
    /// All rows of the call.
    x: &'c [f32],
    /// The rows before them.
    before: &'c [f32],
    /// The first row of y among those of x.
    first: usize,
    y: &'c mut [f32],
}

impl Rows<'_> {
    /// What lies `tap` rows behind the oldest row that row `row` is made of.
    #[inline(always)]
    fn source(&self, row: usize, tap: usize) -> &[f32] {
        let channels = self.convolution.channels;
        let (at, before) = ((row + tap) * channels, self.before.len());
        if at < before {
            &self.before[at..at + channels]
        } else {
            &self.x[at - before..at - before + channels]
        }
    }
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let CausalConvolution {
            channels,
            taps,
            ref weight,
            ref bias,
        } = *self.convolution;
        let rows = self.y.len() / channels;
        let whole = channels / V::LANES * V::LANES;
        for row in 0..rows {
            let to = row * channels;
            for channel in (0..whole).step_by(V::LANES) {
                // SAFETY: (all) LANES channels from `channel` on are in every row.
                let mut sum = unsafe { V::load(bias.as_ptr().add(channel)) };
                for tap in 0..taps {
                    let from = self.source(self.first + row, tap);
                    // SAFETY: as above.
                    sum = unsafe {
                        let weight = V::load(weight.as_ptr().add(tap * channels + channel));
                        weight.mul_add(V::load(from.as_ptr().add(channel)), sum)
                    };
                }
                // SAFETY: as above.
                unsafe { silu(sum).store(self.y.as_mut_ptr().add(to + channel)) };
            }
            let rest = whole..channels;
            if rest.is_empty() {
                continue;
            }
            let mut sum = part::<V>(&bias[rest.clone()]);
            for tap in 0..taps {
                let from = part::<V>(&self.source(self.first + row, tap)[rest.clone()]);
                let at = tap * channels;
                sum = part::<V>(&weight[at + whole..at + channels]).mul_add(from, sum);
            }
            let mut last = [0.0; MAX_LANES];
            // SAFETY: MAX_LANES is at least LANES.
            unsafe { silu(sum).store(last.as_mut_ptr()) };
            self.y[to + whole..to + channels].copy_from_slice(&last[..rest.len()]);
        }
    }
}

/// Fewer values than a vector has, and zeros.
#[inline(always)]
fn part<V: Vector>(values: &[f32]) -> V {
    let mut all = [0.0; MAX_LANES];
    all[..values.len()].copy_from_slice(values);
    // SAFETY: MAX_LANES is at least LANES.
    unsafe { V::load(all.as_ptr()) }
}
