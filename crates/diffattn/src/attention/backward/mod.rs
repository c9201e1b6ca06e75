//! Gradients of a call: checked, planned, run in slices and summed. The numbers of a block are made
//! in `prefill/gradient/`.

mod call;
mod options;
mod run;
mod sums;
mod waves;

pub use call::{DiffAttentionBackward, diff_attention_backward};
pub use options::{
    AttentionGradients, AttentionGradientsMut, AttentionNeeds, GradientOptions, GradientShapes,
    WholeRows,
};
