//! Backward formulas with plain loops, over float64 (what is right) and float32 (what plain float32
//! makes of it).

use diffattn_reference::Real;

/// A norm as a formula: which elements share statistics, and which channel each is of.
pub(crate) struct Norm<'a> {
    /// The elements of each group.
    pub(crate) groups: Vec<Vec<usize>>,
    /// The channel of each element.
    pub(crate) channels: Vec<usize>,
    pub(crate) weight: Option<&'a [f32]>,
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) eps: f32,
    pub(crate) scale: f32,
    /// Whether a mean is taken away.
    pub(crate) centres: bool,
    pub(crate) silu: bool,
}

impl<'a> Norm<'a> {
    /// Of rows of `width` elements.
    pub(crate) fn of_rows(len: usize, width: usize, weight: Option<&'a [f32]>) -> Self {
        Self {
            groups: (0..len / width)
                .map(|row| (row * width..(row + 1) * width).collect())
                .collect(),
            channels: (0..len).map(|i| i % width).collect(),
            weight,
            bias: None,
            eps: 1e-5,
            scale: 1.0,
            centres: false,
            silu: false,
        }
    }

    /// dx, dweight and dbias, by channel whether the norm has these or not.
    pub(crate) fn backward<R: Real>(&self, dy: &[f32], x: &[f32]) -> [Vec<R>; 3] {
        let r = |x: f32| R::from_f64(f64::from(x));
        let (zero, one) = (r(0.0), r(1.0));
        let channels = self.channels.iter().max().map_or(0, |last| last + 1);
        let mut dx = vec![zero; x.len()];
        let (mut dweight, mut dbias) = (vec![zero; channels], vec![zero; channels]);
        for group in &self.groups {
            let n = r(group.len() as f32);
            let sum = |term: &dyn Fn(usize) -> R| {
                let mut sum = zero;
                for &i in group {
                    sum += term(i);
                }
                sum / n
            };
            let mean = if self.centres {
                sum(&|i| r(x[i]))
            } else {
                zero
            };
            let variance = sum(&|i| (r(x[i]) - mean) * (r(x[i]) - mean));
            let spread = (variance + r(self.eps)).sqrt();
            let divided = |x: R| {
                if spread == zero { zero } else { x / spread }
            };
            let normed = |i: usize| divided(r(x[i]) - mean);
            let weight = |i: usize| {
                self.weight
                    .map_or(one, |weight| r(weight[self.channels[i]]))
            };
            let upstream = |i: usize| {
                let dy = r(dy[i]) * r(self.scale);
                if !self.silu {
                    return dy;
                }
                let bias = self.bias.map_or(zero, |bias| r(bias[self.channels[i]]));
                let u = weight(i) * normed(i) + bias;
                let gate = one / (one + (zero - u).exp());
                dy * gate * (one + u * (one - gate))
            };
            let g = |i: usize| weight(i) * upstream(i);
            let mean_g = if self.centres { sum(&g) } else { zero };
            let mean_product = sum(&|i| g(i) * normed(i));
            for &i in group {
                dx[i] = divided(g(i) - mean_g - normed(i) * mean_product);
                dweight[self.channels[i]] += upstream(i) * normed(i);
                dbias[self.channels[i]] += upstream(i);
            }
        }
        [dx, dweight, dbias]
    }
}
