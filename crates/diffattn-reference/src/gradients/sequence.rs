//! Gradients of what acts along the sequence: rotary embedding, differences, and attention that
//! mixes in attention over differences.

use super::attention::{AttentionGradients, attention_backward};
use super::norms::rms_norm_backward;
use crate::{
    AttentionSpec, Real, Rope, SequenceFusion, Tensor, fused_before_norm, fused_parts, shape4, turn,
};

/// dx of [`crate::apply_rope`]: turns dy [B, n, L, d] back, by the same factor.
pub fn apply_rope_backward<R: Real>(
    dy: &Tensor<R>,
    rope: &Rope,
    positions: &Tensor<i64>,
) -> Tensor<R> {
    turn(dy, rope, positions, -1.0)
}

/// dx of [`crate::sequence_difference`]: `order`-th difference of dy [B, n, L, d] against the next
/// token; behind the last one lies zero.
pub fn sequence_difference_backward<R: Real>(dy: &Tensor<R>, order: usize) -> Tensor<R> {
    let [_, _, l, d] = shape4(dy);
    let mut dx = dy.clone();
    if l * d > 0 {
        for sequence in dx.data.chunks_mut(l * d) {
            for _ in 0..order {
                for at in 0..(l - 1) * d {
                    sequence[at] = sequence[at] - sequence[at + d];
                }
            }
        }
    }
    dx
}

/// The gradients of [`crate::sequence_fused_attention`]; dy is [B, H, L, channels].
pub fn sequence_fused_attention_backward<R: Real>(
    spec: &AttentionSpec,
    sequence: &SequenceFusion,
    dy: &Tensor<f64>,
) -> AttentionGradients<R> {
    let (mut dmixed, mut dnorm_weight) = (dy.cast::<R>(), None);
    if let Some(norm) = &spec.norm {
        let mixed = fused_before_norm::<R>(spec, sequence);
        let gradients = rms_norm_backward(&mixed, norm, &dmixed);
        (dmixed, dnorm_weight) = (gradients.dx, gradients.dweight);
    }
    let [dplain, ddifference] = sequence.mix_backward(&dmixed);
    let [plain, difference] = fused_parts::<R>(spec, sequence);
    let mut gradients = attention_backward::<R>(&plain, &dplain.widen());
    let mut other = attention_backward::<R>(&difference, &ddifference.widen());
    for dx in [&mut other.dq, &mut other.dk, &mut other.dv] {
        *dx = sequence_difference_backward(dx, sequence.order);
    }
    gradients.add(&other);
    gradients.dnorm_weight = dnorm_weight;
    gradients
}

impl SequenceFusion {
    /// The gradients of what [`Self::mix`] mixes, plain and difference.
    fn mix_backward<R: Real>(&self, dy: &Tensor<R>) -> [Tensor<R>; 2] {
        let [_, h_count, l, dv] = shape4(dy);
        let (mixing, fusion) = (self.mixing_heads(h_count), R::from_f64(self.fusion));
        let (mut plain, mut difference) = (dy.clone(), Tensor::zeros(&dy.shape));
        for (at, &dy) in dy.data.iter().enumerate() {
            if at / (l * dv) % h_count < mixing {
                plain.data[at] = (R::ONE - fusion) * dy;
                difference.data[at] = fusion * dy;
            }
        }
        [plain, difference]
    }
}
