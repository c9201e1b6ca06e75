//! What a caller of attention may ask for. Types only: checks are in `check/`, `pairing/` and
//! `tensor/shape.rs`.

use crate::run::Run;
use crate::tensor::Tensor;
use crate::tensor::axis::Layout;
use std::borrow::Cow;

/// Which q, k and v heads make an output head; the rules stand in `pairing/layouts.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pairing {
    /// unilm V1: the terms of a head lie side by side, `q[T·h + t]`.
    #[default]
    Interleaved,
    /// Hugging Face diffllama: second terms in the second half; v heads h and h + H side by side on
    /// channels.
    Halves,
    /// GDA: `ratio` signal heads, then one noise head, per group; `n_k = 2G`.
    Grouped,
    /// unilm V2: as `Grouped`, with k and v shared by both maps.
    Shared,
}

impl Pairing {
    /// Its name in `api.md`'s spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Interleaved => "interleaved",
            Self::Halves => "halves",
            Self::Grouped => "grouped",
            Self::Shared => "shared",
        }
    }
}

/// How `Pairing::Interleaved` repeats k heads over output heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvRepeat {
    /// The pair of k heads of a group serves each of its output heads.
    #[default]
    Paired,
    /// Each k head is repeated on its own, as unilm's naive module does.
    Flat,
}

/// One output head of an explicit plan: `Σ_t coefficients[t] · softmax(q[t] k[t]ᵀ)`, times the v
/// heads concatenated on channels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeadPlan {
    /// Flat q head of each term.
    pub q: Vec<usize>,
    /// Flat k head of each term.
    pub k: Vec<usize>,
    /// v heads, concatenated on channels.
    pub v: Vec<usize>,
    /// One per term; `None` means `[1]` or `[1, −1]` by the number of terms.
    pub coefficients: Option<Vec<f32>>,
}

/// λ, which scales the second term's coefficient.
#[derive(Debug, Clone)]
pub enum Lambda<'a> {
    /// One for all.
    Value(f32),
    /// `[H]`.
    PerHead(&'a [f32]),
    /// `[B|1, Lq|1, H]`.
    PerToken {
        /// The values.
        data: &'a [f32],
        /// Their shape.
        shape: Vec<usize>,
    },
}

/// A boolean mask `[B|1, H|1, Lq|1, Lk]`; any non-zero byte takes part.
#[derive(Debug, Clone)]
pub struct Mask<'a> {
    /// The bytes.
    pub data: &'a [u8],
    /// Their shape.
    pub shape: Vec<usize>,
}

/// A mask of blocks of 64 queries by 64 keys, `[B|1, H|1, ⌈Lq/64⌉, ⌈Lk/64⌉]`; any non-zero byte
/// takes part. Queries count from the call's first, keys from key 0, of a cache too.
#[derive(Debug, Clone)]
pub struct BlockMask<'a> {
    /// The bytes.
    pub data: &'a [u8],
    /// Their shape.
    pub shape: Vec<usize>,
}

/// The per-head RMS norm fused at the end: `y · weight · scale / √(mean(y²) + eps)`.
#[derive(Debug, Clone)]
pub struct NormOptions<'a> {
    /// Added to the mean square; 1e-5 by default.
    pub eps: f32,
    /// `[dv of the result]`, shared by the heads.
    pub weight: Option<&'a [f32]>,
    /// A factor on the result; 1 by default (V1 passes 1 − λ_init).
    pub scale: f32,
}

impl Default for NormOptions<'_> {
    fn default() -> Self {
        Self {
            eps: 1e-5,
            weight: None,
            scale: 1.0,
        }
    }
}

/// Options of [`crate::diff_attention`] and [`crate::DiffAttentionMaps`].
///
/// One of `lambda` and `coefficients` is wanted, unless `heads` carries coefficients itself.
#[derive(Debug, Clone, Default)]
pub struct AttentionOptions<'a> {
    /// λ of two terms.
    pub lambda: Option<Lambda<'a>>,
    /// One coefficient per term instead of λ; its length is T.
    pub coefficients: Option<&'a [f32]>,
    /// The head layout; not with `heads`.
    pub pairing: Pairing,
    /// The plan itself, one entry per output head.
    pub heads: Option<Cow<'a, [HeadPlan]>>,
    /// Signal heads per noise head; only with `Grouped` and `Shared`; 1 by default.
    pub ratio: Option<usize>,
    /// Only with `Interleaved`; `Paired` by default.
    pub kv_repeat: Option<KvRepeat>,
    /// The layout of q, k, v and the result.
    pub layout: Layout,
    /// Factor of the scores; 1/√d by default.
    pub scale: Option<f32>,
    /// Whether query i sees only keys j ≤ i + `query_offset`.
    pub is_causal: bool,
    /// `softcap · tanh(score / softcap)`, before bias and mask.
    pub softcap: Option<f32>,
    /// `[left, right]` around i + `query_offset`; `None` is unbounded.
    pub window: Option<[Option<usize>; 2]>,
    /// Boolean mask.
    pub attn_mask: Option<Mask<'a>>,
    /// Additive bias, float32, `[B|1, H|1, Lq|1, Lk]`; −Inf masks.
    pub attn_bias: Option<Tensor<'a>>,
    /// Mask of 64 × 64 blocks, which joins all other masks; not with packed sequences. What it
    /// hides costs nothing.
    pub block_mask: Option<BlockMask<'a>>,
    /// A logit per head, `[H]`, or per head and term, `[H, T]`, that joins the softmax and meets no
    /// value; float32, −Inf is none.
    pub sinks: Option<Tensor<'a>>,
    /// `[B]` (packed: `[N]`): keys at and past it do not exist.
    pub key_lengths: Option<&'a [i32]>,
    /// Key position of the first query: one value, or `[B]` (packed: `[N]`); Lk − Lq by default
    /// (with a cache: the cached length − Lq).
    pub query_offset: Option<Vec<i64>>,
    /// `[N + 1]`: N packed sequences in B = 1. With `cu_seqlens_k`.
    pub cu_seqlens_q: Option<&'a [i32]>,
    /// `[N + 1]`.
    pub cu_seqlens_k: Option<&'a [i32]>,
    /// Per-head RMS norm of the result.
    pub norm: Option<NormOptions<'a>>,
    /// Whether to give the log-sum-exp of each term, `[B, H, T, Lq]`.
    pub return_lse: bool,
    /// How the call runs: instruction set, threads, fused or not.
    pub run: Run,
}

/// Where the maps of a call go: float32, each `[B, H, rows, Lk]`.
#[derive(Debug)]
pub struct MapOutputs<'a> {
    /// One per term; where heads differ in their number, a missing term's map is zeros.
    pub terms: Vec<&'a mut [f32]>,
    /// `Σ_t c_t map_t`.
    pub diff: &'a mut [f32],
}
