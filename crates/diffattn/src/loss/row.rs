//! One row: the loss of its logits in float64, and their gradient in their place. Knows neither
//! where logits come from nor how rows are joined.

use super::sums::{sum, sum_differences};
use crate::blocks::loss::{AT_ONCE, STRIP};
use crate::simd::lanes::{load, store};
use crate::simd::math::{ExponentScale, MAX_LANES, exp2_scaled};
use crate::simd::{Kernel, Vector};

/// What is asked of every row of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// log2 e, as exponentials take it.
    pub(super) scale: ExponentScale,
    pub(super) label_smoothing: f64,
    pub(super) z_loss: f64,
    /// The share of cross entropy; the rest is the teacher's.
    pub(super) alpha: f64,
    /// What a row's gradient is multiplied with.
    pub(super) weight: f64,
    /// Whether gradients are made.
    pub(super) has_gradient: bool,
}

/// A row that counts.
pub(super) struct Row<'r> {
    pub(super) terms: &'r Terms,
    /// Becomes the gradient, or stays.
    pub(super) logits: &'r mut [f32],
    /// Becomes anything.
    pub(super) teacher: Option<&'r mut [f32]>,
    /// Below as many as there are logits.
    pub(super) label: usize,
}

/// The losses of a row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RowLoss {
    /// Cross entropy, with what smoothing and the z-loss add.
    pub(super) cross_entropy: f64,
    /// KL(teacher ‖ student).
    pub(super) divergence: f64,
}

impl Kernel for Row<'_> {
    type Output = RowLoss;

    /// lse = max + ln Σ e^(x − max), exponentials in float32, their sum in float64 by strips. The
    /// teacher's are made first, while logits are what they were.
    #[inline(always)]
    fn run<V: Vector>(mut self) -> RowLoss {
        let Terms {
            label_smoothing,
            z_loss,
            alpha,
            weight,
            ..
        } = *self.terms;
        let count = self.logits.len() as f64;
        let label = f64::from(self.logits[self.label]);
        let mean = if label_smoothing > 0.0 {
            sum_strips::<V>(self.logits) / count
        } else {
            0.0
        };
        let taught = self.teach::<V>();
        let (row_max, row_sum) = self.exponentials::<V>();
        let lse = f64::from(row_max) + libm::log(row_sum);
        let smooth = label_smoothing * (lse - mean);
        let sharp = (1.0 - label_smoothing) * (lse - label);
        let loss = RowLoss {
            cross_entropy: sharp
                + if label_smoothing > 0.0 { smooth } else { 0.0 }
                + z_loss * lse * lse,
            divergence: taught.map_or(0.0, |taught| taught.mean - taught.lse + lse),
        };
        if self.terms.has_gradient {
            let of_z = alpha * 2.0 * z_loss * lse;
            let factors = Factors {
                student: weight * (1.0 + of_z) / row_sum,
                teacher: taught.map_or(0.0, |taught| -weight * (1.0 - alpha) / taught.sum),
                all: -weight * alpha * label_smoothing / count,
                label: -weight * alpha * (1.0 - label_smoothing),
            };
            self.gradient::<V>(&factors);
        }
        loss
    }
}

/// Of a teacher's row: Σ e^(t − max), lse, and the mean of t − x under its probabilities.
#[derive(Debug, Clone, Copy)]
struct Taught {
    sum: f64,
    lse: f64,
    mean: f64,
}

/// What makes a gradient: `e · student + e' · teacher + all`, and at the label another.
#[derive(Debug, Clone, Copy)]
struct Factors {
    student: f64,
    teacher: f64,
    all: f64,
    label: f64,
}

impl Row<'_> {
    /// What the teacher's row says; its logits become exponentials where gradients are wanted.
    #[inline(always)]
    fn teach<V: Vector>(&mut self) -> Option<Taught> {
        let teacher = self.teacher.as_deref_mut()?;
        let row_max = largest::<V>(teacher);
        let mut exps = [0.0; STRIP];
        let (mut total, mut differences) = (0.0, 0.0);
        for (t, x) in teacher.chunks_mut(STRIP).zip(self.logits.chunks(STRIP)) {
            exponentials::<V>(t, row_max, &self.terms.scale, &mut exps);
            let exps = &exps[..t.len()];
            total += sum::<V::Wide>(exps);
            differences += sum_differences::<V::Wide>(exps, t, x);
            t.copy_from_slice(exps);
        }
        Some(Taught {
            sum: total,
            lse: f64::from(row_max) + libm::log(total),
            mean: differences / total,
        })
    }

    /// The largest logit, and the sum of exponentials, which logits become where gradients are
    /// wanted.
    #[inline(always)]
    fn exponentials<V: Vector>(&mut self) -> (f32, f64) {
        let row_max = largest::<V>(self.logits);
        let mut exps = [0.0; STRIP];
        let mut total = 0.0;
        for x in self.logits.chunks_mut(STRIP) {
            exponentials::<V>(x, row_max, &self.terms.scale, &mut exps);
            let exps = &exps[..x.len()];
            total += sum::<V::Wide>(exps);
            if self.terms.has_gradient {
                x.copy_from_slice(exps);
            }
        }
        (row_max, total)
    }

    /// Gradients in the place of exponentials. The label's, which cancels, is made in float64.
    #[inline(always)]
    fn gradient<V: Vector>(&mut self, factors: &Factors) {
        let student = f64::from(self.logits[self.label]) * factors.student;
        let teacher = self.teacher.as_deref();
        let taught = teacher.map_or(0.0, |e| f64::from(e[self.label]) * factors.teacher);
        let at_label = student + factors.label + taught + factors.all;
        let [of_e, of_t, all] = [factors.student, factors.teacher, factors.all];
        let factors = [
            V::splat(of_e as f32),
            V::splat(of_t as f32),
            V::splat(all as f32),
        ];
        let whole = self.logits.len() / V::LANES * V::LANES;
        let (vectors, tail) = self.logits.split_at_mut(whole);
        for (vector, e) in vectors.chunks_exact_mut(V::LANES).enumerate() {
            let t = teacher.map_or(V::splat(0.0), |t| load(&t[vector * V::LANES..]));
            store(made(load(e), t, factors), e);
        }
        let (mut last, mut other) = ([0.0; MAX_LANES], [0.0; MAX_LANES]);
        last[..tail.len()].copy_from_slice(tail);
        if let Some(t) = teacher {
            other[..tail.len()].copy_from_slice(&t[whole..]);
        }
        let (e, t): (V, V) = (load(&last), load(&other));
        store(made(e, t, factors), &mut last);
        tail.copy_from_slice(&last[..tail.len()]);
        self.logits[self.label] = at_label as f32;
    }
}

/// Gradients of exponentials and the teacher's.
#[inline(always)]
fn made<V: Vector>(e: V, t: V, [of_e, of_t, all]: [V; 3]) -> V {
    e.mul_add(of_e, t.mul_add(of_t, all))
}

/// Σ x, by strips.
#[inline(always)]
fn sum_strips<V: Vector>(x: &[f32]) -> f64 {
    let mut total = 0.0;
    for strip in x.chunks(STRIP) {
        total += sum::<V::Wide>(strip);
    }
    total
}

/// The largest value; a NaN is passed over, as its exponential makes itself heard.
#[inline(always)]
fn largest<V: Vector>(x: &[f32]) -> f32 {
    let mut most = [V::splat(f32::NEG_INFINITY); AT_ONCE];
    let mut groups = x.chunks_exact(AT_ONCE * V::LANES);
    for group in &mut groups {
        for (i, most) in most.iter_mut().enumerate() {
            *most = load::<V>(&group[i * V::LANES..]).max(*most);
        }
    }
    let mut lanes = [f32::NEG_INFINITY; AT_ONCE * MAX_LANES];
    for (i, &most) in most.iter().enumerate() {
        store(most, &mut lanes[i * V::LANES..]);
    }
    let values = lanes.iter().chain(groups.remainder());
    values.fold(
        f32::NEG_INFINITY,
        |most, &x| if x > most { x } else { most },
    )
}

/// e^(x − shift) of a strip at most, into `to`; what lies behind them there is arbitrary.
#[inline(always)]
fn exponentials<V: Vector>(x: &[f32], shift: f32, scale: &ExponentScale, to: &mut [f32; STRIP]) {
    const { assert!(STRIP.is_multiple_of(AT_ONCE * MAX_LANES)) };
    let group = AT_ONCE * V::LANES;
    let mut last = [f32::NEG_INFINITY; AT_ONCE * MAX_LANES];
    let whole = x.len() / group * group;
    last[..x.len() - whole].copy_from_slice(&x[whole..]);
    let tail = (whole < x.len()).then_some(&last[..group]);
    let groups = x[..whole].chunks_exact(group).chain(tail);
    for (x, to) in groups.zip(to.chunks_exact_mut(group)) {
        let mut t = [V::splat(0.0); AT_ONCE];
        for (i, t) in t.iter_mut().enumerate() {
            *t = load::<V>(&x[i * V::LANES..]).sub(V::splat(shift));
        }
        for (i, e) in exp2_scaled(t, scale).into_iter().enumerate() {
            store(e, &mut to[i * V::LANES..]);
        }
    }
}
