//! AdamW with clipping by the joint norm, as PyTorch has them: decay first and decoupled, corrected
//! moments, eps outside the root. It does not: schedules, groups of parameters.

use std::collections::BTreeMap;

use crate::{Real, Tensor};

/// Tensors by name.
pub type Named<R> = BTreeMap<String, Tensor<R>>;

/// √Σ g² over all tensors, in the order of their names.
pub fn gradient_norm<R: Real>(gradients: &Named<R>) -> R {
    let all = gradients.values().flat_map(|g| &g.data);
    all.map(|&g| g * g).sum::<R>().sqrt()
}

/// The factor that clips gradients of a joint norm: min(1, max / (norm + 1e-6)).
pub fn clip_factor<R: Real>(norm: R, max_norm: f64) -> R {
    let factor = R::from_f64(max_norm) / (norm + R::from_f64(1e-6));
    if factor < R::ONE { factor } else { R::ONE }
}

/// The optimizer with its moments. Factors of a step (1 − lr·decay, the corrections) are float64,
/// rounded once.
#[derive(Clone, Debug)]
pub struct AdamW<R> {
    /// How much of the first and second moment a step keeps.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Per tensor; 0 where it is not named.
    pub weight_decay: BTreeMap<String, f64>,
    /// Steps made.
    pub steps: i32,
    /// First moments; zeros before the first step.
    pub m: Named<R>,
    /// Second moments.
    pub v: Named<R>,
}

impl<R: Real> AdamW<R> {
    /// Before its first step.
    pub fn new(betas: [f64; 2], eps: f64, weight_decay: BTreeMap<String, f64>) -> Self {
        Self {
            betas,
            eps,
            weight_decay,
            steps: 0,
            m: Named::new(),
            v: Named::new(),
        }
    }

    /// Moves the parameters that have a gradient; returns the joint norm before clipping.
    pub fn step(
        &mut self,
        parameters: &mut Named<R>,
        gradients: &Named<R>,
        lr: f64,
        max_norm: Option<f64>,
    ) -> R {
        let norm = gradient_norm(gradients);
        let clip = max_norm.map_or(R::ONE, |max| clip_factor(norm, max));
        self.steps += 1;
        let correction = |beta: f64| 1.0 - libm::pow(beta, f64::from(self.steps));
        let [beta1, beta2] = self.betas;
        let rate = R::from_f64(lr / correction(beta1));
        let root = R::from_f64(libm::sqrt(correction(beta2)));
        let [keep1, take1, keep2, take2] =
            [beta1, 1.0 - beta1, beta2, 1.0 - beta2].map(R::from_f64);
        for (name, gradient) in gradients {
            let Some(parameter) = parameters.get_mut(name) else {
                panic!("a gradient of {name}, which is no parameter")
            };
            assert_eq!(parameter.shape, gradient.shape, "{name} and its gradient");
            let moments = |moments: &mut Named<R>| {
                let zeros = || Tensor::zeros(&gradient.shape);
                moments.remove(name).unwrap_or_else(zeros)
            };
            let (mut m, mut v) = (moments(&mut self.m), moments(&mut self.v));
            let decay = self.weight_decay.get(name).copied().unwrap_or(0.0);
            let decay = R::from_f64(1.0 - lr * decay);
            for (at, &g) in gradient.data.iter().enumerate() {
                let g = g * clip;
                m.data[at] = m.data[at] * keep1 + g * take1;
                v.data[at] = v.data[at] * keep2 + g * g * take2;
                let denominator = v.data[at].sqrt() / root + R::from_f64(self.eps);
                let p = &mut parameter.data[at];
                *p = *p * decay - rate * m.data[at] / denominator;
            }
            self.m.insert(name.clone(), m);
            self.v.insert(name.clone(), v);
        }
        norm
    }
}
