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

impl Activation {
    /// `act(gate) · up` over gate, rows of `width` values; SiLU takes scratch as long.
    pub(crate) fn gate(
        self,
        gate: &mut [f32],
        up: &[f32],
        width: usize,
        spare: &mut [f32],
        run: Run,
    ) -> Result<(), Error> {
        match self {
            Self::Silu => {
                let sigmoids = &mut spare[..gate.len()];
                sigmoids.copy_from_slice(gate);
                sigmoid(sigmoids, run);
                for (gate, (sigmoid, up)) in gate.iter_mut().zip(sigmoids.iter().zip(up)) {
                    *gate = *gate * sigmoid * up;
                }
                return Ok(());
            }
            Self::PolyNorm { weight, bias } => {
                let options = PolyNormOptions {
                    weight,
                    bias,
                    factors: Some(up),
                    run,
                    ..PolyNormOptions::default()
                };
                return poly_norm(gate, width, &options);
            }
            Self::Gelu => gelu(gate, run),
            Self::GeluTanh => gelu_tanh(gate, run),
        }
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate *= up;
        }
        Ok(())
    }
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
        act.gate(hidden, raised, self.width(), sigmoids, run)
    }

    /// The second half: rows of `hidden` to rows of y.
    pub(crate) fn second(self, hidden: &[f32], y: &mut [f32], run: Run) -> Result<(), Error> {
        match self {
            Self::Gated { down, .. } => down.forward(hidden, y, run),
            Self::Gelu { fc2, .. } => fc2.forward(hidden, y, run),
        }
    }
}
