//! What models are made of: layers over rows of hidden states. A layer knows no texts, no slices
//! and no caches: it is handed rows, which [`crate::pass`] cuts for it, and none of its results
//! depends on how.

pub(crate) mod attention;
#[cfg(feature = "models")]
mod embedding;
#[cfg(feature = "models")]
mod head;
#[cfg(feature = "models")]
mod mamba;
mod mixer;
#[cfg(feature = "models")]
mod mlp;
#[cfg(feature = "models")]
mod norm;

#[cfg(feature = "models")]
pub(crate) use embedding::Embedding;
#[cfg(feature = "models")]
pub(crate) use head::Head;
#[cfg(feature = "models")]
pub(crate) use mamba::{Mamba, MambaRows, MemoryGate};
#[cfg(feature = "models")]
pub(crate) use mixer::Attention;
pub(crate) use mixer::Mixer;
#[cfg(feature = "models")]
pub(crate) use mlp::{Activation, Mlp};
#[cfg(feature = "models")]
pub(crate) use norm::{DynamicTanh, HeadsNorm, Norm};

use attention::DiffAttnLayer;

/// A layer of a model: a mixer (attention, mostly) and an MLP, each behind a norm and beside a
/// residual connection, `x = x + scale · mixer(norm(x))`, then `x = x + scale · mlp(norm(x))`.
/// Without norm and MLP it is attention alone, whose result replaces the rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer<'m> {
    pub(crate) mixer: Mixer<'m>,
    /// The norm before the mixer; `None` for attention alone.
    #[cfg(feature = "models")]
    pub(crate) norm: Option<Norm<'m>>,
    /// One factor per channel of what the mixer adds.
    #[cfg(feature = "models")]
    pub(crate) scale: Option<&'m [f32]>,
    #[cfg(feature = "models")]
    pub(crate) mlp: Option<MlpBranch<'m>>,
}

/// The second half of a layer.
#[cfg(feature = "models")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct MlpBranch<'m> {
    /// `None`: the MLP reads what the mixer reads, `mlp(norm(x))` of the x before the mixer's
    /// result is added.
    pub(crate) norm: Option<Norm<'m>>,
    pub(crate) mlp: Mlp<'m>,
    /// One factor per channel of what the MLP adds.
    pub(crate) scale: Option<&'m [f32]>,
}

impl<'m> Layer<'m> {
    /// Attention alone.
    pub(crate) fn alone(attention: &'m DiffAttnLayer) -> Self {
        Self {
            mixer: attention.into(),
            #[cfg(feature = "models")]
            norm: None,
            #[cfg(feature = "models")]
            scale: None,
            #[cfg(feature = "models")]
            mlp: None,
        }
    }
}
