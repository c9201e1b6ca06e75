//! The gate of an MLP backward: from the gradient of `act(gate) · up` to those of both, and of
//! PolyNorm's weights. Runs in slices. Knows no maps.

use super::arena::{Arena, ParameterId};
use super::maps;
use super::rows::{STRETCH, add};
use crate::layers::Activation;
use diffattn::{
    DataMut, Error, GeluBackward, Pace, PolyNormBackward, PolyNormGradients, PolyNormOptions, Run,
    Tensor, gelu, gelu_tanh, sigmoid, try_copied,
};

/// What it is the backward pass of: rows of `width` values.
#[derive(Debug, Clone, Copy)]
pub(super) struct GateBackward<'g> {
    pub(super) act: Activation,
    pub(super) width: usize,
    pub(super) gate: &'g [f32],
    pub(super) up: &'g [f32],
    pub(super) run: Run,
}

impl GateBackward<'_> {
    /// Of the gradient of its result in `hidden`: dup over it, and dgate; those of PolyNorm's
    /// factors and bias, `ids`, are added to the arena's.
    pub(super) async fn run(
        self,
        pace: &Pace,
        hidden: &mut [f32],
        dgate: &mut [f32],
        (arena, ids): (&mut Arena, [Option<ParameterId>; 2]),
    ) -> Result<(), Error> {
        match self.act {
            Activation::Silu => {
                self.silu(hidden, dgate);
                Ok(())
            }
            Activation::Gelu => self.gelu(pace, hidden, dgate, false).await,
            Activation::GeluTanh => self.gelu(pace, hidden, dgate, true).await,
            Activation::PolyNorm { weight, bias } => {
                let of = (arena, ids);
                self.poly_norm(pace, hidden, dgate, (weight, bias), of)
                    .await
            }
        }
    }

    /// (`swiglu_backward` is exact to the last digit, in float64; this is as exact as the forward
    /// pass that it belongs to.)
    fn silu(self, hidden: &mut [f32], dgate: &mut [f32]) {
        dgate.copy_from_slice(self.gate);
        sigmoid(dgate, self.run);
        let both = hidden.iter_mut().zip(dgate.iter_mut());
        for ((dh, dgate), (gate, up)) in both.zip(self.gate.iter().zip(self.up)) {
            let sigma = *dgate;
            *dgate = *dh * up * sigma * (1.0 + gate * (1.0 - sigma));
            *dh = *dh * gate * sigma;
        }
    }

    async fn gelu(
        self,
        pace: &Pace,
        hidden: &mut [f32],
        dgate: &mut [f32],
        is_by_tanh: bool,
    ) -> Result<(), Error> {
        let mut dy = try_copied(self.gate)?;
        match is_by_tanh {
            true => gelu_tanh(&mut dy, self.run),
            false => gelu(&mut dy, self.run),
        }
        for ((dh, act), up) in hidden.iter_mut().zip(&mut dy).zip(self.up) {
            (*dh, *act) = (*dh * *act, *dh * up);
        }
        let shape = [self.gate.len()];
        let [dy, x] = [&dy, self.gate].map(|values| Tensor::f32(values, &shape));
        let call = match is_by_tanh {
            true => GeluBackward::by_tanh(dy, x, self.run)?,
            false => GeluBackward::new(dy, x, self.run)?,
        };
        maps::finish(pace, call.into_work(DataMut::F32(dgate))?).await
    }

    async fn poly_norm(
        self,
        pace: &Pace,
        hidden: &mut [f32],
        dgate: &mut [f32],
        (weight, bias): ([f32; 3], f32),
        (arena, ids): (&mut Arena, [Option<ParameterId>; 2]),
    ) -> Result<(), Error> {
        let len = STRETCH * self.width;
        let mut dfactors = Vec::new();
        let of = hidden.chunks_mut(len).zip(dgate.chunks_mut(len));
        let gates = self.gate.chunks(len).zip(self.up.chunks(len));
        for ((hidden, dgate), (gate, up)) in of.zip(gates) {
            let options = PolyNormOptions {
                weight,
                bias,
                factors: Some(up),
                run: self.run,
                ..PolyNormOptions::default()
            };
            let shape = [gate.len() / self.width.max(1), self.width];
            dfactors.resize(hidden.len(), 0.0);
            let (mut dweight, mut dbias) = ([0.0; 3], [0.0]);
            let [dy, x] = [&*hidden, gate].map(|values| Tensor::f32(values, &shape));
            let call = PolyNormBackward::new(dy, x, &options)?;
            let work = call.into_work(PolyNormGradients {
                dx: dgate,
                dweight: &mut dweight,
                dbias: &mut dbias,
                dfactors: Some(&mut dfactors),
            })?;
            maps::finish(pace, work).await?;
            hidden.copy_from_slice(&dfactors);
            for (id, sums) in ids.into_iter().zip([&dweight[..], &dbias]) {
                if let Some(id) = id {
                    add(arena.gradient(id), sums);
                }
            }
        }
        Ok(())
    }
}
