//! What stands between attention and its output projection in training: the mix with attention over
//! differences along the sequence, the norm per head, DEX. Knows no maps.

use super::arena::Arena;
use super::attention::AttentionPass;
use super::ids::{AttentionIds, LambdaParameters};
use super::rows::RmsRows;
use super::scratch::sized;
use super::sums::LayerSums;
use diffattn::{Error, LinearBackward, LinearGradients, try_zeroed};

impl AttentionPass<'_> {
    /// What was attended, with that over differences along the sequence mixed in, if it is.
    pub(super) fn mixed<'n>(
        &self,
        attended: &'n [f32],
        to: &'n mut Vec<f32>,
    ) -> Result<&'n [f32], Error> {
        let Some(fusion) = &self.layer.fusion else {
            return Ok(attended);
        };
        let widths = self.layer.mixed_widths(fusion);
        let to = sized(to, self.tokens.count() * widths[0])?;
        fusion.mix(attended, widths, to);
        Ok(to)
    }

    /// What the output projection reads: what was mixed, through the norm per head or DEX, if there
    /// is one.
    pub(super) fn normed<'n>(
        &self,
        mixed: &'n [f32],
        to: &'n mut Vec<f32>,
    ) -> Result<&'n [f32], Error> {
        if let Some(dex) = &self.layer.dex {
            *to = dex.rows(mixed, self.tokens.run)?;
            return Ok(to);
        }
        let Some(norm) = self.head_norm() else {
            return Ok(mixed);
        };
        let to = sized(to, mixed.len())?;
        norm.forward(mixed, to)?;
        Ok(to)
    }

    /// The gradient of what was mixed, for that of what the output projection reads; and those of
    /// the norm's weight, or DEX's matrix, where they move.
    pub(super) fn normed_backward(
        &self,
        [d_normed, mixed]: [&[f32]; 2],
        d_mixed: &mut [f32],
        (ids, arena, sums): (&AttentionIds, &mut Arena, &mut LayerSums),
    ) -> Result<(), Error> {
        if let Some(norm) = self.head_norm() {
            return norm.backward(d_normed, mixed, d_mixed, (arena, ids.norm));
        }
        d_mixed.copy_from_slice(d_normed);
        let Some(dex) = &self.layer.dex else {
            return Ok(());
        };
        let (d_taken, taken) = (dex.taken(d_normed)?, dex.taken(mixed)?);
        let mut dx = try_zeroed(taken.len())?;
        let moves = matches!(ids.lambda, LambdaParameters::Dex(_));
        if moves && sums.dex.is_empty() {
            sums.dex = try_zeroed(dex.map.inputs() * dex.map.outputs())?;
        }
        let gradients = LinearGradients {
            dx: Some(&mut dx),
            dweight: moves.then_some(&mut sums.dex),
            ..LinearGradients::default()
        };
        LinearBackward::new(&dex.map, &d_taken, &taken, self.tokens.run).finish_into(gradients)?;
        dex.add(&dx, d_mixed);
        Ok(())
    }

    fn head_norm(&self) -> Option<RmsRows<'_>> {
        self.layer.norm.as_ref().map(|norm| RmsRows {
            weight: norm.weight.as_deref(),
            eps: norm.eps,
            scale: norm.scale,
            width: self.layer.heads.dimensions.head_width,
            rows_per_token: self.layer.num_heads(),
            run: self.tokens.run,
        })
    }
}
