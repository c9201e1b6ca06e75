//! The selective scan of Mamba: a linear recurrence in each channel whose step each row chooses.
//! Vectors run over the channels, so each state and each sum is one chain in the order of rows and
//! of states, whatever the instruction set, the threads and the cut of the rows.

use crate::blocks::PANEL;
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::threads::{Disjoint, for_each, thread_count};
use crate::simd::math::{ExponentScale, exp2_scaled};
use crate::simd::{Kernel, Vector};
use crate::tensor::shape::{check_len, checked_len};

/// Multiply-adds that one state of one row costs: an exponential, and what is done with it.
const STATE_WORK: usize = 16;

/// Panels that a thread takes at once: their states and rates (8 KiB with 16 states) stay in L1
/// while all rows pass.
const ITEM: usize = 4;

/// States whose exponentials go side by side, and sums that their results go into by turns. Part of
/// the numeric contract.
const AT_ONCE: usize = 4;

/// `h = exp(Δ · A) ⊙ h + Δ · u · B`, `y = h · C + D · u` in each channel, row after row (arXiv
/// 2312.00752): A `[channels, states]` and D `[channels]` are the layer's, u and Δ `[channels]`, B
/// and C `[states]` the row's.
///
/// Its state, h, is of no use but here: panels of 16 channels, the last filled up with zeros, in
/// each of which the channels of one state lie together. [`SelectiveScan::export`] gives it as
/// `[channels, states]`.
///
/// ```
/// use diffattn::{Run, ScanRows, SelectiveScan};
///
/// // One channel with one state, A = −1, that halves what it holds: e^(−ln 2).
/// let scan = SelectiveScan::new([1, 1], &[0.0], &[0.0])?;
/// let mut state = vec![0.0; scan.state_len()];
/// let mut y = [0.0; 2];
/// let step = std::f32::consts::LN_2;
/// let rows = ScanRows { u: &[1.0, 0.0], delta: &[step, step], b_c: &[1.0, 1.0, 1.0, 1.0] };
/// scan.forward(&rows, &mut state, &mut y, Run::default())?;
/// assert_eq!(y[0], step);
/// assert!((y[1] - step / 2.0).abs() < 1e-7);
/// # Ok::<(), diffattn::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SelectiveScan {
    channels: usize,
    states: usize,
    /// A, as a state lies: `[panels, states, PANEL]`.
    rates: Vec<f32>,
    /// D, filled up.
    skip: Vec<f32>,
}

/// What the rows of a scan bring.
#[derive(Debug, Clone, Copy)]
pub struct ScanRows<'a> {
    /// Inputs, `[L, channels]`.
    pub u: &'a [f32],
    /// Step sizes Δ, 0 or more, `[L, channels]`.
    pub delta: &'a [f32],
    /// B, then C, `[L, 2 · states]`.
    pub b_c: &'a [f32],
}

impl SelectiveScan {
    /// Takes `a_log` `[channels, states]`, of which A is −e^a_log, and `d` `[channels]`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `a_log` or `d` when its elements do not
    /// fill its shape, or `a_log` where there are no channels or no states;
    /// [`Error::out_of_memory`].
    pub fn new([channels, states]: [usize; 2], a_log: &[f32], d: &[f32]) -> Result<Self, Error> {
        if channels == 0 || states == 0 {
            let expected = "1 channel and 1 state or more";
            let given = format_args!("{channels} channels of {states} states");
            return Err(Error::shape("a_log", expected, given));
        }
        check_len("a_log", &[channels, states], a_log.len())?;
        check_len("d", &[channels], d.len())?;
        let panels = channels.div_ceil(PANEL);
        let mut rates = try_zeroed(checked_len("a_log", &[panels, states, PANEL])?)?;
        into_panels(states, a_log, &mut rates, |a_log| {
            -(libm::exp(f64::from(a_log)) as f32)
        });
        let mut skip = try_zeroed(panels * PANEL)?;
        skip[..channels].copy_from_slice(d);
        Ok(Self {
            channels,
            states,
            rates,
            skip,
        })
    }

    /// Channels of a row.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// States of a channel.
    #[must_use]
    pub fn states(&self) -> usize {
        self.states
    }

    /// Values of a state; all zeros at the start of a text.
    #[must_use]
    pub fn state_len(&self) -> usize {
        self.rates.len()
    }

    /// Multiply-adds that a row costs in time.
    #[must_use]
    pub fn row_work(&self) -> usize {
        self.rates.len().saturating_mul(STATE_WORK)
    }

    /// y `[L, channels]` of rows after those that `state` is of; `state` is that of the last row
    /// then.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `u`, `delta`, `b_c`, `state` or `y`
    /// when it does not fit.
    pub fn forward(
        &self,
        rows: &ScanRows<'_>,
        state: &mut [f32],
        y: &mut [f32],
        run: Run,
    ) -> Result<(), Error> {
        let length = rows.u.len() / self.channels;
        check_len("u", &[length, self.channels], rows.u.len())?;
        check_len("delta", &[length, self.channels], rows.delta.len())?;
        check_len("b_c", &[length, 2, self.states], rows.b_c.len())?;
        check_len("state", &[self.state_len()], state.len())?;
        check_len("y", &[length, self.channels], y.len())?;
        let threads = thread_count(run.threads(), length.saturating_mul(self.row_work()));
        let item = ITEM * PANEL * self.states;
        let (state, y) = (Disjoint::new(state), Disjoint::new(y));
        for_each(threads, self.state_len().div_ceil(item), |_, index| {
            let part = index * item..((index + 1) * item).min(state.len());
            run.kernel(Panels {
                scan: self,
                rows,
                first: index * ITEM,
                // SAFETY: an item is worked on once, and no two have a panel in common.
                state: unsafe { state.part(part) },
                y: &y,
            });
        });
        Ok(())
    }

    /// A state as `[channels, states]`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `state` when it is of another scan;
    /// [`Error::out_of_memory`].
    pub fn export(&self, state: &[f32]) -> Result<Vec<f32>, Error> {
        check_len("state", &[self.state_len()], state.len())?;
        let mut values = try_zeroed(self.channels * self.states)?;
        for (channel, to) in values.chunks_exact_mut(self.states).enumerate() {
            for (index, to) in to.iter_mut().enumerate() {
                *to = state[place(self.states, channel, index)];
            }
        }
        Ok(values)
    }

    /// The state that [`SelectiveScan::export`] gave as `[channels, states]`, into `state`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `values` or `state` when it does not
    /// fit.
    pub fn import(&self, values: &[f32], state: &mut [f32]) -> Result<(), Error> {
        check_len("values", &[self.channels, self.states], values.len())?;
        check_len("state", &[self.state_len()], state.len())?;
        state.fill(0.0);
        into_panels(self.states, values, state, |value| value);
        Ok(())
    }
}

/// Where a state of a channel lies.
fn place(states: usize, channel: usize, state: usize) -> usize {
    (channel / PANEL * states + state) * PANEL + channel % PANEL
}

/// Values `[channels, states]` to where they lie in panels.
fn into_panels(states: usize, values: &[f32], to: &mut [f32], map: impl Fn(f32) -> f32) {
    for (channel, values) in values.chunks_exact(states).enumerate() {
        for (state, &value) in values.iter().enumerate() {
            to[place(states, channel, state)] = map(value);
        }
    }
}

/// Some panels of a call.
struct Panels<'s> {
    scan: &'s SelectiveScan,
    rows: &'s ScanRows<'s>,
    /// The first one's number.
    first: usize,
    /// Theirs.
    state: &'s mut [f32],
    /// All rows, of which these channels are written.
    y: &'s Disjoint<'s, f32>,
}

impl Kernel for Panels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let SelectiveScan {
            channels,
            states,
            ref rates,
            ref skip,
        } = *self.scan;
        let ScanRows { u, delta, b_c } = *self.rows;
        let exponential = ExponentScale::new(std::f64::consts::LOG2_E);
        let size = PANEL * states;
        for (index, state) in self.state.chunks_exact_mut(size).enumerate() {
            let panel = self.first + index;
            let of_panel = Panel {
                rates: &rates[panel * size..(panel + 1) * size],
                skip: &skip[panel * PANEL..(panel + 1) * PANEL],
                exponential: &exponential,
            };
            let first = panel * PANEL;
            let width = PANEL.min(channels - first);
            for (row, b_c) in b_c.chunks_exact(2 * states).enumerate() {
                let range = row * channels + first..row * channels + first + width;
                // A panel that is not full passes through memory of its own.
                let (mut inputs, mut steps, mut results) =
                    ([0.0; PANEL], [0.0; PANEL], [0.0; PANEL]);
                inputs[..width].copy_from_slice(&u[range.clone()]);
                steps[..width].copy_from_slice(&delta[range.clone()]);
                for at in (0..PANEL).step_by(V::LANES) {
                    of_panel.row::<V>(at, [&inputs, &steps], b_c, (state, &mut results));
                }
                // SAFETY: no other item has these channels.
                let y = unsafe { self.y.part(range) };
                y.copy_from_slice(&results[..width]);
            }
        }
    }
}

/// What a panel's rows have in common.
struct Panel<'p> {
    /// `[states, PANEL]`.
    rates: &'p [f32],
    skip: &'p [f32],
    exponential: &'p ExponentScale,
}

impl Panel<'_> {
    /// One row of the channels of the vector at `at`.
    #[inline(always)]
    fn row<V: Vector>(
        &self,
        at: usize,
        [inputs, steps]: [&[f32; PANEL]; 2],
        b_c: &[f32],
        (state, y): (&mut [f32], &mut [f32; PANEL]),
    ) {
        let states = b_c.len() / 2;
        assert!(at + V::LANES <= PANEL && self.skip.len() == PANEL);
        assert!(self.rates.len() == states * PANEL && state.len() == states * PANEL);
        let (b, c) = b_c.split_at(states);
        // SAFETY: a panel has LANES channels from `at` on.
        let (u, step, skip) = unsafe {
            (
                V::load(inputs.as_ptr().add(at)),
                V::load(steps.as_ptr().add(at)),
                V::load(self.skip.as_ptr().add(at)),
            )
        };
        let mut steps = Steps {
            input: step.mul(u),
            sums: [V::splat(0.0); AT_ONCE],
        };
        let whole = states / AT_ONCE * AT_ONCE;
        for first in (0..whole).step_by(AT_ONCE) {
            // SAFETY: rates and state have PANEL values for each of the states.
            unsafe {
                let place = first * PANEL + at;
                let decays = self.decays::<V, AT_ONCE>(place, step);
                steps.take(
                    decays,
                    state.as_mut_ptr().add(place),
                    &b[first..],
                    &c[first..],
                );
            }
        }
        for index in whole..states {
            // SAFETY: as above.
            unsafe {
                let place = index * PANEL + at;
                let decays = self.decays::<V, 1>(place, step);
                steps.take(
                    decays,
                    state.as_mut_ptr().add(place),
                    &b[index..],
                    &c[index..],
                );
            }
        }
        let y = y.as_mut_ptr();
        // SAFETY: as for the inputs.
        unsafe { skip.mul_add(u, steps.joined()).store(y.add(at)) };
    }

    /// exp(Δ · A) of N states, the first at `place`.
    ///
    /// # Safety
    /// So many rows of PANEL values are there.
    #[inline(always)]
    unsafe fn decays<V: Vector, const N: usize>(&self, place: usize, step: V) -> [V; N] {
        let mut powers = [step; N];
        for (index, power) in powers.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            let rate = unsafe { V::load(self.rates.as_ptr().add(place + index * PANEL)) };
            *power = power.mul(rate);
        }
        exp2_scaled(powers, self.exponential)
    }
}

/// A row of one vector on its way through the states.
struct Steps<V> {
    /// Δ · u.
    input: V,
    /// h · C so far, by turns, what is left over in the first: shorter chains are more accurate.
    sums: [V; AT_ONCE],
}

impl<V: Vector> Steps<V> {
    /// All of h · C.
    #[inline(always)]
    fn joined(self) -> V {
        let [a, b, c, d] = self.sums;
        a.add(b).add(c.add(d))
    }

    /// Takes N states, the first at `state`, a step further.
    ///
    /// # Safety
    /// So many rows of PANEL values are there.
    #[inline(always)]
    unsafe fn take<const N: usize>(
        &mut self,
        decays: [V; N],
        state: *mut f32,
        b: &[f32],
        c: &[f32],
    ) {
        for (index, decay) in decays.into_iter().enumerate() {
            let (b, c) = (V::splat(b[index]), V::splat(c[index]));
            // SAFETY: the caller's promise.
            unsafe {
                let h = state.add(index * PANEL);
                let new = decay.mul_add(V::load(h), self.input.mul(b));
                new.store(h);
                self.sums[index] = new.mul_add(c, self.sums[index]);
            }
        }
    }
}
