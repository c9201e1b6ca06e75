//! Gradients of what a feed-forward block and the ends of a model are made of, and their forward
//! passes where the crate has none: linear maps, SwiGLU, GELU, embeddings.

use std::f64::consts::{PI, SQRT_2};

use super::norms::silu_backward;
use crate::recurrent::silu;
use crate::{Real, Tensor};

/// What [`linear_backward`] returns.
#[derive(Clone, Debug)]
pub struct LinearGradients<R> {
    /// Shaped as x.
    pub dx: Tensor<R>,
    /// [out × in].
    pub dweight: Tensor<R>,
    /// `[out]`, whether or not there is a bias.
    pub dbias: Tensor<R>,
}

/// The gradients of [`crate::linear`]: dy·weight, dyᵀ·x and Σ dy, over the tokens in order.
pub fn linear_backward<R: Real>(
    x: &Tensor<R>,
    weight: &Tensor<R>,
    dy: &Tensor<R>,
) -> LinearGradients<R> {
    let [outputs, inputs] = weight.shape[..] else {
        panic!("weight of shape {:?}", weight.shape)
    };
    assert_eq!(x.shape.last(), Some(&inputs), "inputs of a linear layer");
    let rows = x.data.len() / inputs.max(1);
    assert_eq!(dy.data.len(), rows * outputs, "dy is shaped as y");
    let mut gradients = LinearGradients {
        dx: Tensor::zeros(&x.shape),
        dweight: Tensor::zeros(&weight.shape),
        dbias: Tensor::zeros(&[outputs]),
    };
    for r in 0..rows {
        let x = &x.data[r * inputs..(r + 1) * inputs];
        let dx = &mut gradients.dx.data[r * inputs..(r + 1) * inputs];
        for o in 0..outputs {
            let d = dy.data[r * outputs + o];
            gradients.dbias.data[o] += d;
            for (dx, &w) in dx.iter_mut().zip(weight.row(&[o])) {
                *dx += d * w;
            }
            for (dw, &x) in gradients.dweight.row_mut(&[o]).iter_mut().zip(x) {
                *dw += d * x;
            }
        }
    }
    gradients
}

/// silu(gate)·up.
pub fn swiglu<R: Real>(gate: &Tensor<R>, up: &Tensor<R>) -> Tensor<R> {
    assert_eq!(gate.shape, up.shape, "gate and up have one shape");
    let y = gate.data.iter().zip(&up.data);
    Tensor::new(&gate.shape, y.map(|(&g, &u)| silu(g) * u).collect())
}

/// What [`swiglu_backward`] returns.
#[derive(Clone, Debug)]
pub struct SwigluGradients<R> {
    /// Shaped as the gate.
    pub dgate: Tensor<R>,
    /// Shaped as up.
    pub dup: Tensor<R>,
}

/// The gradients of [`swiglu`].
pub fn swiglu_backward<R: Real>(
    gate: &Tensor<R>,
    up: &Tensor<R>,
    dy: &Tensor<R>,
) -> SwigluGradients<R> {
    assert_eq!(gate.shape, up.shape, "gate and up have one shape");
    assert_eq!(gate.shape, dy.shape, "dy is shaped as the gate");
    let dup = gate.data.iter().zip(&dy.data).map(|(&g, &d)| d * silu(g));
    let dgate = gate.data.iter().zip(&up.data).zip(&dy.data);
    let dgate = dgate.map(|((&g, &u), &d)| silu_backward(g, d * u));
    SwigluGradients {
        dgate: Tensor::new(&gate.shape, dgate.collect()),
        dup: Tensor::new(&gate.shape, dup.collect()),
    }
}

/// Φ(x), the share of a normal distribution below x.
fn normal_below<R: Real>(x: R) -> R {
    let half = R::from_f64(0.5);
    half * (R::ONE + (x * R::from_f64(1.0 / SQRT_2)).erf())
}

/// x·Φ(x), with the error function.
pub fn gelu<R: Real>(x: &Tensor<R>) -> Tensor<R> {
    let y = x.data.iter().map(|&x| x * normal_below(x));
    Tensor::new(&x.shape, y.collect())
}

/// dx of [`gelu`]: dy·(Φ(x) + x·φ(x)).
pub fn gelu_backward<R: Real>(x: &Tensor<R>, dy: &Tensor<R>) -> Tensor<R> {
    assert_eq!(x.shape, dy.shape, "dy is shaped as x");
    let root = R::from_f64(1.0 / libm::sqrt(2.0 * PI));
    let density = |x: R| (x * x * R::from_f64(-0.5)).exp() * root;
    let dx = x.data.iter().zip(&dy.data);
    let dx = dx.map(|(&x, &d)| d * (normal_below(x) + x * density(x)));
    Tensor::new(&x.shape, dx.collect())
}

/// The rows of `weight` [V × E] that the ids name, in the shape of the ids.
pub fn embedding<R: Real>(weight: &Tensor<R>, ids: &Tensor<i64>) -> Tensor<R> {
    let row = |&id: &i64| weight.row(&[row_of(id)]).iter().copied();
    let shape = [ids.shape.as_slice(), &weight.shape[1..]].concat();
    Tensor::new(&shape, ids.data.iter().flat_map(row).collect())
}

/// The gradient of the weight of [`embedding`], [`rows` × E]: rows of dy added in the order of the
/// tokens.
pub fn embedding_backward<R: Real>(rows: usize, ids: &Tensor<i64>, dy: &Tensor<R>) -> Tensor<R> {
    let width = dy.shape.last().copied().unwrap_or(0);
    assert_eq!(dy.data.len(), ids.data.len() * width, "a row of dy per id");
    let mut dweight = Tensor::zeros(&[rows, width]);
    for (&id, dy) in ids.data.iter().zip(dy.data.chunks(width.max(1))) {
        for (dw, &d) in dweight.row_mut(&[row_of(id)]).iter_mut().zip(dy) {
            *dw += d;
        }
    }
    dweight
}

fn row_of(id: i64) -> usize {
    usize::try_from(id).unwrap_or_else(|_| panic!("id {id}"))
}
