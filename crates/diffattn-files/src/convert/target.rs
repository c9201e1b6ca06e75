//! How a layer is to lie, and how it lies. Plain data.

use crate::attention::{O, OUT};
use crate::dtype::Dtype;
use crate::layout::HeadLayout;
use crate::raw_weights::RawWeights;
use diffattn::{KvRepeat, Pairing};

/// What becomes of `subln.weight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NormWeight {
    /// It stays as it is, there or not.
    #[default]
    Keep,
    /// It is multiplied into the output projection, which follows the norm: diffllama's norm has no weight.
    Fold,
    /// Ones where there is none: unilm's norm has a weight.
    Provide,
}

/// How a converted layer is to lie.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerTarget {
    /// Which heads are partners.
    pub pairing: Pairing,
    /// Only with [`Pairing::Interleaved`].
    pub kv_repeat: Option<KvRepeat>,
    /// Only with [`Pairing::Grouped`] and [`Pairing::Shared`].
    pub ratio: Option<usize>,
    /// Whether rope turns pairs (2i, 2i + 1); `None` keeps what the source has.
    pub rope_interleaved: Option<bool>,
    /// The norm's weight.
    pub norm_weight: NormWeight,
    /// Name of the output projection, `out_proj` or `o_proj`; `None` keeps the source's.
    pub output: Option<&'static str>,
    /// Element type of all weights, F32, F16 or BF16; `None` keeps each one's.
    pub dtype: Option<Dtype>,
}

impl LayerTarget {
    /// Hugging Face's diffllama: halves, half-split rope, no norm weight, `o_proj`.
    #[must_use]
    pub fn diffllama() -> Self {
        Self {
            pairing: Pairing::Halves,
            kv_repeat: None,
            ratio: None,
            rope_interleaved: Some(false),
            norm_weight: NormWeight::Fold,
            output: Some(O),
            dtype: None,
        }
    }

    /// unilm's `multihead_flashdiff_2.py`: interleaved heads and rope, `subln.weight`, `out_proj`.
    #[must_use]
    pub fn unilm() -> Self {
        Self {
            pairing: Pairing::Interleaved,
            kv_repeat: None,
            ratio: None,
            rope_interleaved: Some(true),
            norm_weight: NormWeight::Provide,
            output: Some(OUT),
            dtype: None,
        }
    }

    /// As a layer lies already.
    #[must_use]
    pub fn keep(heads: &HeadLayout) -> Self {
        Self {
            pairing: heads.pairing,
            kv_repeat: heads.kv_repeat,
            ratio: heads.ratio,
            rope_interleaved: None,
            norm_weight: NormWeight::Keep,
            output: None,
            dtype: None,
        }
    }
}

/// How a layer's weights lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerForm {
    /// The heads.
    pub heads: HeadLayout,
    /// Whether rope turns pairs (2i, 2i + 1); `None` for a layer without rope.
    pub rope_interleaved: Option<bool>,
}

/// A converted layer.
#[derive(Debug, Clone)]
pub struct Converted {
    /// The weights.
    pub weights: RawWeights<'static>,
    /// How they lie.
    pub form: LayerForm,
    /// Sentences on what was not exact or grew: repeated heads, folded weights, values that overflow.
    pub notes: Vec<String>,
}
