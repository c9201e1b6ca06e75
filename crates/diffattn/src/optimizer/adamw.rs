//! AdamW (arXiv 1711.05101) as one walk over flat arrays. Nothing fuses, so every instruction set
//! gives the same bits; an element's depend on its own values alone.

use crate::blocks::optimizer::{AT_ONCE, CHUNK, ELEMENT_WORK};
use crate::error::Error;
use crate::run::Run;
use crate::run::threads::{Disjoint, for_each, thread_count};
use crate::simd::lanes::{load, store};
use crate::simd::math::MAX_LANES;
use crate::simd::{Kernel, Vector};
use crate::tensor::shape::check_len;

/// What AdamW is told; the defaults are those of `torch.optim.AdamW`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// The learning rate. Default 10⁻³.
    pub lr: f64,
    /// The shares of what was there in the moments. Default 0.9, 0.999.
    pub betas: [f64; 2],
    /// Added to the root. Default 10⁻⁸.
    pub eps: f64,
    /// Default 0.01.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.01,
        }
    }
}

/// Parameters, or some of them, and what belongs to each: slices of one length.
#[derive(Debug)]
pub struct Parameters<'p> {
    /// The parameters: moved.
    pub parameters: &'p mut [f32],
    /// Their gradients.
    pub gradients: &'p [f32],
    /// First moments, zeros before the first step: updated.
    pub first_moments: &'p mut [f32],
    /// Second moments, zeros before the first step: updated.
    pub second_moments: &'p mut [f32],
}

/// What a step multiplies with, as float32.
#[derive(Debug, Clone, Copy)]
struct Factors {
    /// Of the gradient.
    clip: f32,
    /// lr · weight_decay.
    decay: f32,
    /// β and 1 − β of each moment.
    first: [f32; 2],
    second: [f32; 2],
    /// Of the root of the second moment: 1 / √(1 − β₂ᵗ).
    root: f32,
    eps: f32,
    /// lr / (1 − β₁ᵗ).
    step: f32,
}

impl AdamW {
    /// Step `step`, counted from 1, of `of`, whose gradients are multiplied with `clip`
    /// ([`clip_coefficient`](crate::clip_coefficient), or 1):
    ///
    /// `p −= lr · weight_decay · p`, `m = β₁ m + (1 − β₁) g`, `v = β₂ v + (1 − β₂) g²`,
    /// `p −= lr · m̂ / (√v̂ + eps)`, m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ).
    ///
    /// Tensors without decay are a call of their own, with `weight_decay` 0. A step over parts of
    /// the arrays, whatever they are, gives the bits of one over all.
    ///
    /// ```
    /// use diffattn::{AdamW, Parameters, Run};
    ///
    /// let (mut p, mut m, mut v) = ([1.0, -1.0], [0.0; 2], [0.0; 2]);
    /// let of = Parameters {
    ///     parameters: &mut p,
    ///     gradients: &[0.5, -0.25],
    ///     first_moments: &mut m,
    ///     second_moments: &mut v,
    /// };
    /// AdamW { lr: 0.1, weight_decay: 0.0, ..AdamW::default() }.step(1, of, 1.0, Run::default())?;
    /// assert!((p[0] - 0.9).abs() < 1e-6 && (p[1] + 0.9).abs() < 1e-6);
    /// # Ok::<(), diffattn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `gradients`, `first_moments` or
    /// `second_moments`; [`ErrorKind::Option`](crate::ErrorKind::Option) naming `step`, `lr`,
    /// `betas`, `eps` or `weight_decay`.
    pub fn step(&self, step: u64, of: Parameters<'_>, clip: f64, run: Run) -> Result<(), Error> {
        let factors = self.factors(step, clip)?;
        let len = of.parameters.len();
        check_len("gradients", &[len], of.gradients.len())?;
        check_len("first_moments", &[len], of.first_moments.len())?;
        check_len("second_moments", &[len], of.second_moments.len())?;
        let threads = thread_count(run.threads(), len.saturating_mul(ELEMENT_WORK));
        let [p, m, v] = [of.parameters, of.first_moments, of.second_moments].map(Disjoint::new);
        for_each(threads, len.div_ceil(CHUNK), |_, chunk| {
            let range = chunk * CHUNK..((chunk + 1) * CHUNK).min(len);
            // SAFETY: (all three) a chunk is one item's.
            let values = unsafe {
                [
                    p.part(range.clone()),
                    m.part(range.clone()),
                    v.part(range.clone()),
                ]
            };
            run.unfused_kernel(Walk {
                factors,
                gradients: &of.gradients[range],
                values,
            });
        });
        Ok(())
    }

    /// Checks the options.
    fn factors(&self, step: u64, clip: f64) -> Result<Factors, Error> {
        if step == 0 {
            return Err(Error::option("step", "1 or more", step));
        }
        for (name, value) in [
            ("lr", self.lr),
            ("eps", self.eps),
            ("weight_decay", self.weight_decay),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::option(name, "a number from 0 on", value));
            }
        }
        for beta in self.betas {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::option("betas", "numbers from 0 to below 1", beta));
            }
        }
        let [first, second] = self.betas;
        // (libm's, so that every machine has the same; so large a t has long made 0 of the power.)
        let corrections = self.betas.map(|beta| 1.0 - libm::pow(beta, step as f64));
        Ok(Factors {
            clip: clip as f32,
            decay: (self.lr * self.weight_decay) as f32,
            first: [first as f32, (1.0 - first) as f32],
            second: [second as f32, (1.0 - second) as f32],
            root: (1.0 / corrections[1].sqrt()) as f32,
            eps: self.eps as f32,
            step: (self.lr / corrections[0]) as f32,
        })
    }
}

/// A chunk: its gradients; its parameters and both moments.
struct Walk<'c> {
    factors: Factors,
    gradients: &'c [f32],
    values: [&'c mut [f32]; 3],
}

impl Kernel for Walk<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            factors,
            gradients,
            values: [p, m, v],
        } = self;
        let group = AT_ONCE * V::LANES;
        let whole = gradients.len() / group * group;
        for at in (0..whole).step_by(group) {
            let range = at..at + group;
            let [p, m, v] = [
                &mut p[range.clone()],
                &mut m[range.clone()],
                &mut v[range.clone()],
            ];
            walk::<V>(&factors, &gradients[range], [p, m, v]);
        }
        let count = gradients.len() - whole;
        if count > 0 {
            let mut last = [[0.0; AT_ONCE * MAX_LANES]; 4];
            let tails: [&[f32]; 4] = [&gradients[whole..], &p[whole..], &m[whole..], &v[whole..]];
            for (last, tail) in last.iter_mut().zip(tails) {
                last[..count].copy_from_slice(tail);
            }
            let [of_g, of_p, of_m, of_v] = &mut last;
            walk::<V>(&factors, of_g, [of_p, of_m, of_v]);
            p[whole..].copy_from_slice(&of_p[..count]);
            m[whole..].copy_from_slice(&of_m[..count]);
            v[whole..].copy_from_slice(&of_v[..count]);
        }
    }
}

/// [`AT_ONCE`] vectors of a step.
#[inline(always)]
fn walk<V: Vector>(factors: &Factors, g: &[f32], [p, m, v]: [&mut [f32]; 3]) {
    let [first, first_rest] = [V::splat(factors.first[0]), V::splat(factors.first[1])];
    let [second, second_rest] = [V::splat(factors.second[0]), V::splat(factors.second[1])];
    for at in (0..AT_ONCE * V::LANES).step_by(V::LANES) {
        let gradient = load::<V>(&g[at..]).mul(V::splat(factors.clip));
        let m_new = load::<V>(&m[at..]).mul(first).add(gradient.mul(first_rest));
        let square = gradient.mul(gradient).mul(second_rest);
        let v_new = load::<V>(&v[at..]).mul(second).add(square);
        let root = v_new.sqrt().mul(V::splat(factors.root));
        let ratio = m_new.div(root.add(V::splat(factors.eps)));
        // (Both parts at once: the parameter, which is larger than they are, is rounded once.)
        let parameter = load::<V>(&p[at..]);
        let decayed = parameter.mul(V::splat(factors.decay));
        let moved = decayed.add(ratio.mul(V::splat(factors.step)));
        store(parameter.sub(moved), &mut p[at..]);
        store(m_new, &mut m[at..]);
        store(v_new, &mut v[at..]);
    }
}
