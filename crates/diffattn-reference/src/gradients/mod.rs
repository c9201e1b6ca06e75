//! The gradients of every operator by hand, in plain loops over [`crate::Real`]: float64 is the
//! oracle, float32 what plain float32 arithmetic gives. Beside them stand the forward passes that
//! the crate has nowhere else.
//!
//! It does: state the derivative of Σ dy·y as its formula reads, sums in the order of the loops. It
//! does not: run fast, save memory, keep a tape, or return errors; sizes that do not fit panic.
//!
//! ```
//! use diffattn_reference::gradients::attention_backward;
//! use diffattn_reference::{AttentionSpec, Pairing, Tensor, plan};
//!
//! // The example of the crate: both maps are 1/2, 1/2, and λ takes off the second.
//! let q = Tensor::new(&[1, 2, 2, 1], vec![0.0; 4]);
//! let k = Tensor::new(&[1, 2, 2, 1], vec![1.0; 4]);
//! let v = Tensor::new(&[1, 1, 2, 1], vec![2.0, 4.0]);
//! let heads = plan(Pairing::default(), [2, 2, 1], &[1.0, -1.0]);
//! let lambda = Some(Tensor::scalar(0.5));
//! let spec = AttentionSpec { lambda, ..AttentionSpec::new(q, k, v, heads) };
//! let gradients = attention_backward::<f64>(&spec, &Tensor::full(&[1, 1, 2, 1], 1.0));
//! // Each of the two rows gives its y = (1 − λ)·mean(v) to λ as −mean(v).
//! assert_eq!(gradients.dlambda, Some(Tensor::scalar(-6.0)));
//! assert_eq!(gradients.dv.data, [0.5, 0.5]);
//! ```

mod adamw;
mod attention;
mod lambda;
mod linear;
mod losses;
mod norms;
mod sequence;

pub use adamw::{AdamW, Named, clip_factor, gradient_norm};
pub use attention::{AttentionGradients, attention_backward};
pub use lambda::{
    LambdaGradients, lambda_from_scalars_backward, lambda_full_backward, sigmoid_backward,
};
pub use linear::{
    LinearGradients, SwigluGradients, embedding, embedding_backward, gelu, gelu_backward,
    linear_backward, swiglu, swiglu_backward,
};
pub use losses::{
    CrossEntropy, DistillationLoss, HeadGradients, IGNORED, Loss, cross_entropy,
    cross_entropy_backward, distillation, distillation_backward, linear_cross_entropy,
    linear_cross_entropy_backward, linear_distillation, linear_distillation_backward,
};
pub use norms::{
    LayerNorm, NormGradients, PolyNormGradients, group_norm_backward, layer_norm,
    layer_norm_backward, poly_norm_backward, rms_norm_backward,
};
pub use sequence::{
    apply_rope_backward, sequence_difference_backward, sequence_fused_attention_backward,
};
