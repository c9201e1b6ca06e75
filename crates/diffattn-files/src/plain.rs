//! One layer of plain attention of a checkpoint, one softmax per head, and one some of whose heads
//! were made differential: what their heads are. Plain data; finds none.

use crate::attention::RopeConfig;
use crate::decoder::ConversionKind;

/// A layer of plain attention of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainLayer {
    /// What the names of its tensors begin with.
    pub prefix: String,
    /// The last number in `prefix`: the layer's index from 0.
    pub depth: Option<usize>,
    /// E, channels of x and y.
    pub embed_dim: usize,
    /// Its heads; `None` where a configuration does not say them, or says what the tensors cannot
    /// be.
    pub heads: Option<PlainHeads>,
    /// Its rotary embedding.
    pub rope: RopeConfig,
    /// Whether a token sees only itself and those before it.
    pub is_causal: bool,
}

/// The heads of plain attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainHeads {
    /// H, heads of q.
    pub heads: usize,
    /// G, heads of k and v.
    pub groups: usize,
    /// d, channels of each.
    pub head_dim: usize,
}

/// A layer of a Llama that was converted to differential attention.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvertedLayer {
    /// The layer that it was: as many heads of the result as there were, of the same width.
    pub plain: PlainLayer,
    /// What its differential heads are.
    pub kind: ConversionKind,
    /// Which heads are differential; `None` where a configuration does not say it, or says what the
    /// tensors cannot be.
    pub differential: Option<HeadChoice>,
}

/// Some heads of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadChoice {
    /// All of them.
    All,
    /// Those of these numbers from 0.
    Listed(Vec<usize>),
}
