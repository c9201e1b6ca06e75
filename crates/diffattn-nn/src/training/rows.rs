//! What stands between maps: RMS norm and the gate of an MLP, forward over rows and backward. Sums
//! of weights run over stretches of 256 tokens, each from zero, added in order, as those of maps
//! do: micro-batches of whole stretches give the bits of one batch.

use super::arena::{Arena, ParameterId};
use diffattn::{
    DataMut, Error, NormGradients, RmsNorm, RmsNormBackward, RmsNormOptions, Run, Tensor, sigmoid,
};

/// Tokens of a stretch.
pub(super) const STRETCH: usize = 256;

/// An RMS norm of rows of `width` values, `rows_per_token` to a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct RmsRows<'w> {
    pub(super) weight: Option<&'w [f32]>,
    pub(super) eps: f32,
    pub(super) scale: f32,
    pub(super) width: usize,
    pub(super) rows_per_token: usize,
    pub(super) run: Run,
}

impl<'w> RmsRows<'w> {
    /// One of hidden states.
    pub(super) fn of(weight: &'w [f32], eps: f32, run: Run) -> Self {
        Self {
            weight: Some(weight),
            eps,
            scale: 1.0,
            width: weight.len(),
            rows_per_token: 1,
            run,
        }
    }

    fn options(&self) -> RmsNormOptions<'w> {
        RmsNormOptions {
            eps: self.eps,
            weight: self.weight,
            scale: self.scale,
            run: self.run,
        }
    }

    pub(super) fn forward(&self, x: &[f32], y: &mut [f32]) -> Result<(), Error> {
        let x = Tensor::f32(x, &[x.len() / self.width, self.width]);
        RmsNorm::new(x, &self.options())?.finish_into(DataMut::F32(y))
    }

    /// dx, and the gradient of the weight where it moves.
    pub(super) fn backward(
        &self,
        dy: &[f32],
        x: &[f32],
        dx: &mut [f32],
        (arena, id): (&mut Arena, Option<ParameterId>),
    ) -> Result<(), Error> {
        let stretch = STRETCH * self.rows_per_token * self.width;
        let mut dweight = vec![0.0; self.weight.map_or(0, <[f32]>::len)];
        let of = dy.chunks(stretch).zip(x.chunks(stretch));
        for ((dy, x), dx) in of.zip(dx.chunks_mut(stretch)) {
            let shape = [x.len() / self.width, self.width];
            let [dy, x] = [dy, x].map(|values| Tensor::f32(values, &shape));
            let call = RmsNormBackward::new(dy, x, &self.options())?;
            call.into_work(NormGradients {
                dx,
                dweight: self.weight.map(|_| dweight.as_mut_slice()),
                dbias: None,
            })?
            .finish()?;
            if let Some(id) = id {
                for (sum, value) in arena.gradient(id).iter_mut().zip(&dweight) {
                    *sum += value;
                }
            }
        }
        Ok(())
    }
}

/// Of the gradient of `silu(gate) · up`: dup over it, and dgate. (`swiglu_backward` is exact to the
/// last digit, in float64; this is as exact as the forward pass that it belongs to.)
pub(super) fn gate_backward(
    gate: &[f32],
    up: &[f32],
    hidden: &mut [f32],
    dgate: &mut [f32],
    run: Run,
) {
    dgate.copy_from_slice(gate);
    sigmoid(dgate, run);
    let both = hidden.iter_mut().zip(dgate.iter_mut());
    for ((dh, dgate), (gate, up)) in both.zip(gate.iter().zip(up)) {
        let sigma = *dgate;
        *dgate = *dh * up * sigma * (1.0 + gate * (1.0 - sigma));
        *dh = *dh * gate * sigma;
    }
}
