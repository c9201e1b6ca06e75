//! Multilayer perceptrons over rows, in two halves: what widens them and acts on them, and what
//! makes them as wide as they were.

use diffattn::{Error, Linear, PolyNormOptions, Run, gelu, gelu_tanh, poly_norm, sigmoid};

/// What acts on the gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Activation {
    /// `x · σ(x)`.
    Silu,
    /// The exact GELU.
    Gelu,
    /// The GELU by tanh.
    GeluTanh,
    /// PolyNorm over the whole row, its eps the default one.
    PolyNorm { weight: [f32; 3], bias: f32 },
}

/// An MLP.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mlp<'m> {
    /// `down(act(gate(x)) · up(x))`.
    Gated {
        gate: &'m Linear,
        up: &'m Linear,
        down: &'m Linear,
        act: Activation,
    },
    /// `fc2(gelu(fc1(x)))`, the exact GELU.
    Gelu { fc1: &'m Linear, fc2: &'m Linear },
}

impl Mlp<'_> {
    /// Channels between the halves.
    pub(crate) fn width(self) -> usize {
        match self {
            Self::Gated { down, .. } => down.inputs(),
            Self::Gelu { fc2, .. } => fc2.inputs(),
        }
    }

    /// Values of scratch that the first half takes per row.
    pub(crate) fn spare(self) -> usize {
        match self {
            Self::Gated {
                act: Activation::Silu,
                ..
            } => 2 * self.width(),
            Self::Gated { .. } => self.width(),
            Self::Gelu { .. } => 0,
        }
    }

    /// Multiply-adds of a row in each half.
    pub(crate) fn work(self) -> [usize; 2] {
        match self {
            Self::Gated { gate, down, .. } => {
                let first = gate.inputs().saturating_mul(gate.outputs());
                let second = down.inputs().saturating_mul(down.outputs());
                [first.saturating_mul(2), second]
            }
            Self::Gelu { fc1, fc2 } => {
                [fc1, fc2].map(|linear| linear.inputs().saturating_mul(linear.outputs()))
            }
        }
    }

    /// The first half: rows of x to rows of `hidden`, over scratch for as many.
    pub(crate) fn first(
        self,
        x: &[f32],
        hidden: &mut [f32],
        spare: &mut [f32],
        run: Run,
    ) -> Result<(), Error> {
        let (gate, up, act) = match self {
            Self::Gelu { fc1, .. } => {
                fc1.forward(x, hidden, run)?;
                gelu(hidden, run);
                return Ok(());
            }
            Self::Gated { gate, up, act, .. } => (gate, up, act),
        };
        let (raised, sigmoids) = spare.split_at_mut(hidden.len());
        gate.forward(x, hidden, run)?;
        up.forward(x, raised, run)?;
        match act {
            Activation::Silu => {
                silu_gated(hidden, raised, &mut sigmoids[..hidden.len()], run);
                return Ok(());
            }
            Activation::PolyNorm { weight, bias } => {
                let options = PolyNormOptions {
                    weight,
                    bias,
                    factors: Some(raised),
                    run,
                    ..PolyNormOptions::default()
                };
                return poly_norm(hidden, self.width(), &options);
            }
            Activation::Gelu => gelu(hidden, run),
            Activation::GeluTanh => gelu_tanh(hidden, run),
        }
        for (gate, up) in hidden.iter_mut().zip(raised.iter()) {
            *gate *= up;
        }
        Ok(())
    }

    /// The second half: rows of `hidden` to rows of y.
    pub(crate) fn second(self, hidden: &[f32], y: &mut [f32], run: Run) -> Result<(), Error> {
        match self {
            Self::Gated { down, .. } => down.forward(hidden, y, run),
            Self::Gelu { fc2, .. } => fc2.forward(hidden, y, run),
        }
    }
}

/// `gate · σ(gate) · up` over gate, with scratch as long.
pub(crate) fn silu_gated(gate: &mut [f32], up: &[f32], sigmoids: &mut [f32], run: Run) {
    sigmoids.copy_from_slice(gate);
    sigmoid(sigmoids, run);
    for (gate, (sigmoid, up)) in gate.iter_mut().zip(sigmoids.iter().zip(up)) {
        *gate = *gate * sigmoid * up;
    }
}
