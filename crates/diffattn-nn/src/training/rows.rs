//! What stands between maps: norms and factors of channels, forward over rows and backward. Sums of
//! weights run over stretches of 256 tokens, each from zero, added in order, as those of maps do:
//! micro-batches of whole stretches give the bits of one batch.

use super::arena::{Arena, ParameterId};
use diffattn::{
    DataMut, Error, LayerNormBackward, LayerNormOptions, NormGradients, RmsNorm, RmsNormBackward,
    RmsNormOptions, Run, Tensor, layer_norm,
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

/// A layer norm of rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerNormRows<'w> {
    pub(super) weight: &'w [f32],
    pub(super) bias: &'w [f32],
    pub(super) eps: f32,
    pub(super) run: Run,
}

impl<'w> LayerNormRows<'w> {
    fn options(&self) -> LayerNormOptions<'w> {
        LayerNormOptions {
            weight: Some(self.weight),
            bias: Some(self.bias),
            eps: self.eps,
            run: self.run,
        }
    }

    pub(super) fn forward(&self, x: &[f32], y: &mut [f32]) -> Result<(), Error> {
        let width = self.weight.len();
        let x = Tensor::f32(x, &[x.len() / width, width]);
        layer_norm(x, y, &self.options())
    }

    /// dx, and the gradients of weight and bias where they move.
    pub(super) fn backward(
        &self,
        [dy, x]: [&[f32]; 2],
        dx: &mut [f32],
        (arena, ids): (&mut Arena, [Option<ParameterId>; 2]),
    ) -> Result<(), Error> {
        let width = self.weight.len();
        let stretch = STRETCH * width;
        let mut sums = [vec![0.0; width], vec![0.0; width]];
        let of = dy.chunks(stretch).zip(x.chunks(stretch));
        for ((dy, x), dx) in of.zip(dx.chunks_mut(stretch)) {
            let shape = [x.len() / width, width];
            let [dy, x] = [dy, x].map(|values| Tensor::f32(values, &shape));
            let [dweight, dbias] = &mut sums;
            let call = LayerNormBackward::new(dy, x, &self.options())?;
            call.into_work(NormGradients {
                dx,
                dweight: Some(dweight),
                dbias: Some(dbias),
            })?
            .finish()?;
            for (id, of) in ids.into_iter().zip(&sums) {
                if let Some(id) = id {
                    add(arena.gradient(id), of);
                }
            }
        }
        Ok(())
    }
}

/// A factor per channel of rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChannelScale<'w>(pub(super) &'w [f32]);

impl ChannelScale<'_> {
    pub(super) fn forward(self, x: &[f32], y: &mut [f32]) {
        let width = self.0.len();
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            for ((y, x), factor) in y.iter_mut().zip(x).zip(self.0) {
                *y = x * factor;
            }
        }
    }

    /// dx in the place of dy, and the gradient of the factors where they move: each stretch in
    /// float64.
    pub(super) fn backward(
        self,
        dy: &mut [f32],
        x: &[f32],
        (arena, id): (&mut Arena, Option<ParameterId>),
    ) {
        let width = self.0.len();
        if let Some(id) = id {
            let mut sums = vec![0.0_f64; width];
            for (dy, x) in dy.chunks(STRETCH * width).zip(x.chunks(STRETCH * width)) {
                sums.fill(0.0);
                for (dy, x) in dy.chunks_exact(width).zip(x.chunks_exact(width)) {
                    for (sum, (&dy, &x)) in sums.iter_mut().zip(dy.iter().zip(x)) {
                        *sum += f64::from(dy) * f64::from(x);
                    }
                }
                for (to, sum) in arena.gradient(id).iter_mut().zip(&sums) {
                    *to += *sum as f32;
                }
            }
        }
        for dy in dy.chunks_exact_mut(width) {
            dy.iter_mut()
                .zip(self.0)
                .for_each(|(dy, factor)| *dy *= factor);
        }
    }
}

/// Adds values to others.
pub(super) fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}
