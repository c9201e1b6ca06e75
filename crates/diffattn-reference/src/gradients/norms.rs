//! Gradients of the norms, and layer norm itself, which the crate has nowhere else. It does: RMS
//! norm, layer norm, group norm with SiLU, PolyNorm; a weight's gradient sums over the rows in
//! order. It does not: dynamic tanh.

use crate::{GroupNorm, Groups, Norm, PolyNorm, Real, Tensor, normalise, power_of, sigmoid};

/// What a norm gives back.
#[derive(Clone, Debug)]
pub struct NormGradients<R> {
    /// Shaped as x.
    pub dx: Tensor<R>,
    /// One per channel, where there is a weight.
    pub dweight: Option<Tensor<R>>,
    /// One per channel, where there is a bias.
    pub dbias: Option<Tensor<R>>,
}

/// Zeros, one per value of a weight or a bias.
fn zeros_like<R: Real>(values: Option<&Vec<f64>>) -> Option<Tensor<R>> {
    values.map(|values| Tensor::zeros(&[values.len()]))
}

/// Length of the last axis, at least 1.
fn width<R>(x: &Tensor<R>) -> usize {
    x.shape.last().map_or(1, |&width| width.max(1))
}

/// dx of y = normalised·…, whose mean is off, from g, the gradient of the normalised values:
/// (g − mean g − x̂·mean(g∘x̂)) / std; zeros where std is 0.
fn centred_backward<R: Real>(normalised: &[R], std: R, inner: &[R]) -> Vec<R> {
    if std == R::ZERO {
        return vec![R::ZERO; inner.len()];
    }
    let count = R::from_f64(inner.len() as f64);
    let mean = inner.iter().copied().sum::<R>() / count;
    let along: R = inner.iter().zip(normalised).map(|(&g, &n)| g * n).sum();
    let along = along / count;
    let dx = |(&g, &n): (&R, &R)| (g - mean - n * along) / std;
    inner.iter().zip(normalised).map(dx).collect()
}

impl Norm {
    /// dx of a row, whose share of the weight's gradient is added to `dweight`. A row of zeros with
    /// eps = 0 gives nothing.
    pub(super) fn row_backward<R: Real>(
        &self,
        x: &[R],
        dy: &[R],
        dweight: Option<&mut [R]>,
    ) -> Vec<R> {
        let count = R::from_f64(x.len() as f64);
        let squares: R = x.iter().map(|&x| x * x).sum();
        let rms = (squares / count + R::from_f64(self.eps)).sqrt();
        if rms == R::ZERO {
            return vec![R::ZERO; x.len()];
        }
        let scale = R::from_f64(self.scale);
        let normalised: Vec<R> = x.iter().map(|&x| x / rms).collect();
        if let Some(dweight) = dweight {
            for ((dweight, &dy), &n) in dweight.iter_mut().zip(dy).zip(&normalised) {
                *dweight += scale * dy * n;
            }
        }
        let weight = |c: usize| R::from_f64(self.weight.as_ref().map_or(1.0, |weight| weight[c]));
        let inner = |(c, &dy): (usize, &R)| scale * dy * weight(c);
        let inner: Vec<R> = dy.iter().enumerate().map(inner).collect();
        let along: R = inner.iter().zip(&normalised).map(|(&g, &n)| g * n).sum();
        let along = along / count;
        let dx = |(&g, &n): (&R, &R)| (g - n * along) / rms;
        inner.iter().zip(&normalised).map(dx).collect()
    }
}

/// The gradients of [`crate::rms_norm`].
pub fn rms_norm_backward<R: Real>(x: &Tensor<R>, norm: &Norm, dy: &Tensor<R>) -> NormGradients<R> {
    assert_eq!(x.shape, dy.shape, "dy is shaped as x");
    let mut dweight = zeros_like(norm.weight.as_ref());
    let mut dx = Vec::with_capacity(x.data.len());
    let width = width(x);
    for (x, dy) in x.data.chunks(width).zip(dy.data.chunks(width)) {
        let dweight = dweight.as_mut().map(|dweight| dweight.data.as_mut_slice());
        dx.extend(norm.row_backward(x, dy, dweight));
    }
    NormGradients {
        dx: Tensor::new(&x.shape, dx),
        dweight,
        dbias: None,
    }
}

/// Layer norm over the last axis: (x − mean) / √(biased variance + eps)·weight + bias.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f64,
    /// One factor per channel; none is 1.
    pub weight: Option<Vec<f64>>,
    /// Added per channel; none is 0.
    pub bias: Option<Vec<f64>>,
}

impl LayerNorm {
    fn weight<R: Real>(&self, c: usize) -> R {
        R::from_f64(self.weight.as_ref().map_or(1.0, |weight| weight[c]))
    }
}

/// [`LayerNorm`] of rows; a row of equal values is the bias, with eps = 0 too.
pub fn layer_norm<R: Real>(x: &Tensor<R>, norm: &LayerNorm) -> Tensor<R> {
    let mut y = x.clone();
    for row in y.data.chunks_mut(width(x)) {
        let (normalised, _) = normalise(row, norm.eps);
        for (c, (y, n)) in row.iter_mut().zip(normalised).enumerate() {
            let bias = norm.bias.as_ref().map_or(0.0, |bias| bias[c]);
            *y = n * norm.weight(c) + R::from_f64(bias);
        }
    }
    y
}

/// The gradients of [`layer_norm`].
pub fn layer_norm_backward<R: Real>(
    x: &Tensor<R>,
    norm: &LayerNorm,
    dy: &Tensor<R>,
) -> NormGradients<R> {
    assert_eq!(x.shape, dy.shape, "dy is shaped as x");
    let mut dweight = zeros_like::<R>(norm.weight.as_ref());
    let mut dbias = zeros_like::<R>(norm.bias.as_ref());
    let mut dx = Vec::with_capacity(x.data.len());
    let width = width(x);
    for (x, dy) in x.data.chunks(width).zip(dy.data.chunks(width)) {
        let (normalised, std) = normalise(x, norm.eps);
        let mut inner = Vec::with_capacity(width);
        for (c, (&dy, &n)) in dy.iter().zip(&normalised).enumerate() {
            if let Some(dweight) = &mut dweight {
                dweight.data[c] += dy * n;
            }
            if let Some(dbias) = &mut dbias {
                dbias.data[c] += dy;
            }
            inner.push(dy * norm.weight(c));
        }
        dx.extend(centred_backward(&normalised, std, &inner));
    }
    NormGradients {
        dx: Tensor::new(&x.shape, dx),
        dweight,
        dbias,
    }
}

/// The gradients of [`crate::group_norm`], its SiLU in them.
pub fn group_norm_backward<R: Real>(
    x: &Tensor<R>,
    spec: &GroupNorm,
    dy: &Tensor<R>,
) -> NormGradients<R> {
    assert_eq!(x.shape, dy.shape, "dy is shaped as x");
    let groups = Groups::new(spec, &x.shape);
    let mut dweight = zeros_like::<R>(spec.weight.as_ref());
    let mut dbias = zeros_like::<R>(spec.bias.as_ref());
    let mut dx = Tensor::zeros(&x.shape);
    for places in groups.places() {
        let (normalised, std) = groups.normalise(x, &places);
        let mut inner = Vec::with_capacity(places.len());
        for (&(c, at), &n) in places.iter().zip(&normalised) {
            let mut d = dy.data[at];
            if spec.silu {
                d = silu_backward(groups.affine(c, n), d);
            }
            if let Some(dweight) = &mut dweight {
                dweight.data[c] += d * n;
            }
            if let Some(dbias) = &mut dbias {
                dbias.data[c] += d;
            }
            inner.push(d * groups.weight(c));
        }
        let d = centred_backward(&normalised, std, &inner);
        for (&(_, at), d) in places.iter().zip(d) {
            dx.data[at] = d;
        }
    }
    NormGradients { dx, dweight, dbias }
}

/// dx of x·σ(x): dy·σ(x)·(1 + x·(1 − σ(x))).
pub(super) fn silu_backward<R: Real>(x: R, dy: R) -> R {
    let share = sigmoid(x);
    dy * share * (R::ONE + x * (R::ONE - share))
}

/// What [`poly_norm_backward`] returns.
#[derive(Clone, Debug)]
pub struct PolyNormGradients<R> {
    /// Shaped as x.
    pub dx: Tensor<R>,
    /// `[3]`: of the factors of cubes, squares and values.
    pub dweight: Tensor<R>,
    /// `[1]`.
    pub dbias: Tensor<R>,
}

/// The gradients of [`crate::poly_norm`].
pub fn poly_norm_backward<R: Real>(
    x: &Tensor<R>,
    norm: &PolyNorm,
    dy: &Tensor<R>,
) -> PolyNormGradients<R> {
    assert_eq!(x.shape, dy.shape, "dy is shaped as x");
    let rms = Norm {
        eps: norm.eps,
        ..Norm::default()
    };
    let width = width(x);
    let mut dx = Tensor::zeros(&x.shape);
    let mut dweight = Tensor::zeros(&[3]);
    for (n, (power, weight)) in [3, 2, 1].into_iter().zip(norm.weight).enumerate() {
        let weight = R::from_f64(weight);
        let rows = x.data.chunks(width).zip(dy.data.chunks(width));
        for ((x, dy), dx) in rows.zip(dx.data.chunks_mut(width)) {
            let powers: Vec<R> = x.iter().map(|&x| power_of(x, power)).collect();
            // The factor is a norm's weight that all channels share.
            let inner: Vec<R> = dy.iter().map(|&dy| dy * weight).collect();
            let mut along = vec![R::ZERO; x.len()];
            rms.row_backward(&powers, dy, Some(&mut along));
            dweight.data[n] += along.into_iter().sum();
            let dpowers = rms.row_backward(&powers, &inner, None);
            let slope = R::from_f64(power as f64);
            for ((dx, d), &x) in dx.iter_mut().zip(dpowers).zip(x) {
                *dx += d * slope * power_of(x, power - 1);
            }
        }
    }
    PolyNormGradients {
        dx,
        dweight,
        dbias: Tensor::new(&[1], vec![dy.data.iter().copied().sum()]),
    }
}
