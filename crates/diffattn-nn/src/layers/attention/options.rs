//! What layers are made of and how they are run. Types only: checks are where layers are made.

use diffattn::{KvRepeat, Mask, Pairing};
pub use diffattn_files::{LambdaForm, RopeConfig};

/// The per-head RMS norm of [`crate::MultiheadDiffAttn`].
#[derive(Debug, Clone, Copy)]
pub struct NormConfig {
    /// Added to the mean square; 1e-5 by default.
    pub eps: f32,
    /// Whether there is a `subln.weight`; by default as the weights have it.
    pub affine: Option<bool>,
}

impl Default for NormConfig {
    fn default() -> Self {
        Self {
            eps: 1e-5,
            affine: None,
        }
    }
}

/// Some heads mix in attention over differences along the sequence: `(1 − fusion) · attention(q, k,
/// v) + fusion · attention(Δⁿq, Δⁿk, Δⁿv)`, the differences taken before the rotary embedding, with
/// zeros before the first token; the norm acts on the mixture.
///
/// This is not the difference that the DIFF Transformer is named after: the paper's is the one of
/// two attention maps, which every head of the layer has with or without this option. Some
/// descriptions of the architecture mean this one, so it is offered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SequenceFusion {
    /// n of Δⁿ, 1 or more.
    pub order: usize,
    /// The first ⌊share · H + ½⌋ output heads take part; from 0 to 1.
    pub share: f64,
    /// From 0 to 1.
    pub fusion: f64,
}

/// What a [`crate::MultiheadDiffAttn`] is made of.
#[derive(Debug, Clone)]
pub struct MultiheadDiffAttnOptions {
    /// Channels of x and y.
    pub embed_dim: usize,
    /// The layer's index from 0, for λ_init.
    pub depth: usize,
    /// λ_init, where it is not `0.8 − 0.6·exp(−0.3·depth)`, which is the default.
    pub lambda_init: Option<f64>,
    /// H, output heads; a checkpoint's flat q heads are 2H.
    pub num_heads: usize,
    /// G, key/value groups (with [`Pairing::Halves`]: flat k heads); by default no head shares k
    /// and v with another.
    pub num_kv_heads: Option<usize>,
    /// d; `embed_dim / num_heads / 2` by default.
    pub head_dim: Option<usize>,
    /// How wide v of an output head is; 2d by default.
    pub value_dim: Option<usize>,
    /// Rotary embedding; none by default.
    pub rope: Option<RopeConfig>,
    /// Which heads are partners.
    pub pairing: Pairing,
    /// Only with [`Pairing::Interleaved`]; [`KvRepeat::Paired`] by default.
    pub kv_repeat: Option<KvRepeat>,
    /// Signal heads per noise head, only with [`Pairing::Grouped`] and [`Pairing::Shared`]; 1 by
    /// default.
    pub ratio: Option<usize>,
    /// Whether a token sees only itself and those before it; true by default.
    pub is_causal: bool,
    /// The per-head norm; without one there is no factor 1 − λ_init either.
    pub norm: Option<NormConfig>,
    /// Where λ comes from.
    pub lambda_form: LambdaForm,
    /// Attention over differences along the sequence; none by default.
    pub sequence: Option<SequenceFusion>,
}

impl MultiheadDiffAttnOptions {
    /// A causal layer without rotary embedding, everything else as its default.
    #[must_use]
    pub fn new(embed_dim: usize, depth: usize, num_heads: usize) -> Self {
        Self {
            embed_dim,
            depth,
            lambda_init: None,
            num_heads,
            num_kv_heads: None,
            head_dim: None,
            value_dim: None,
            rope: None,
            pairing: Pairing::default(),
            kv_repeat: None,
            ratio: None,
            is_causal: true,
            norm: Some(NormConfig::default()),
            lambda_form: LambdaForm::default(),
            sequence: None,
        }
    }
}

/// What a [`crate::MultiheadDiffAttnV2`] is made of.
#[derive(Debug, Clone)]
pub struct MultiheadDiffAttnV2Options {
    /// Channels of x and y.
    pub embed_dim: usize,
    /// H, output heads; q has H + H / `ratio` heads.
    pub num_heads: usize,
    /// G, k and v heads; by default one per noise head.
    pub num_kv_heads: Option<usize>,
    /// d, the width of every head of q, k and v.
    pub head_dim: usize,
    /// Signal heads per noise head; 1 by default.
    pub ratio: Option<usize>,
    /// Rotary embedding; none by default.
    pub rope: Option<RopeConfig>,
    /// Whether a token sees only itself and those before it; true by default.
    pub is_causal: bool,
}

impl MultiheadDiffAttnV2Options {
    /// A causal layer without rotary embedding, everything else as its default.
    #[must_use]
    pub fn new(embed_dim: usize, num_heads: usize, head_dim: usize) -> Self {
        Self {
            embed_dim,
            num_heads,
            num_kv_heads: None,
            head_dim,
            ratio: None,
            rope: None,
            is_causal: true,
        }
    }
}

/// How a call of a layer is run.
#[derive(Debug, Clone, Default)]
pub struct ForwardOptions<'a> {
    /// `[B|1, H|1, L|1, Lk]`, Lk the cached tokens and the new ones; any non-zero byte takes part.
    pub attn_mask: Option<Mask<'a>>,
    /// How the call runs: instruction set, threads, fused or not.
    pub run: diffattn::Run,
}
