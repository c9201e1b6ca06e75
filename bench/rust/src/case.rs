//! The cases of `bench/cases.json` as types; `bench/README.md` says what each field means.

use std::path::Path;
use std::{fs, io};

use crate::inputs::live_blocks;
use diffattn::{Activation, CacheDType, ChannelLayout, Pairing};
use serde::{Deserialize, Deserializer};

/// Queries and keys to a side of a block of a block mask.
pub(crate) const BLOCK: usize = 64;

/// One case.
#[derive(Debug, Clone, Deserialize)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// Shape of the result; of gradients that of what they belong to. An optimizer has none.
    #[serde(default)]
    pub out: Vec<usize>,
    /// The operator with its inputs.
    #[serde(flatten)]
    pub work: Work,
}

/// An operator with the shapes of its inputs.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Work {
    /// Attention over tensors.
    Attention(Heads),
    /// Gradients of q, k and v of attention over tensors.
    AttentionBackward(Heads),
    /// One query on each of `caches` caches in turn.
    Decode(Heads),
    /// Group norm.
    GroupNorm(Channels),
    /// Its gradients.
    GroupNormBackward(Channels),
    /// RMS norm over the last axis.
    RmsNorm {
        /// Shape of the input.
        x: Vec<usize>,
    },
    /// Its gradients.
    RmsNormBackward {
        /// Shape of the input.
        x: Vec<usize>,
    },
    /// A layer of attention with all of its gradients: of the package, which the crate is no part
    /// of. Only its answer is known here.
    LayerBackward(Layer),
    /// A step of AdamW.
    #[serde(rename = "adamw")]
    AdamW {
        /// Parameters.
        count: usize,
    },
}

/// A tensor with channels and their groups.
#[derive(Debug, Clone, Deserialize)]
pub struct Channels {
    /// Shape of the input.
    pub x: Vec<usize>,
    /// Groups of channels.
    pub groups: usize,
    /// Where channels lie: second ("nchw", where it is not said) or last ("nhwc").
    #[serde(default, deserialize_with = "channel_layout")]
    pub layout: ChannelLayout,
    /// What follows the norm.
    #[serde(default, deserialize_with = "activation")]
    pub activation: Option<Activation>,
}

impl Channels {
    /// How many channels there are.
    #[must_use]
    pub fn count(&self) -> usize {
        match self.layout {
            ChannelLayout::Nchw => self.x[1],
            ChannelLayout::Nhwc => self.x[self.x.len() - 1],
        }
    }
}

fn channel_layout<'de, D: Deserializer<'de>>(from: D) -> Result<ChannelLayout, D::Error> {
    match String::deserialize(from)?.as_str() {
        "nchw" => Ok(ChannelLayout::Nchw),
        "nhwc" => Ok(ChannelLayout::Nhwc),
        other => Err(serde::de::Error::custom(format_args!(
            "there is no layout {other:?}"
        ))),
    }
}

fn activation<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Activation>, D::Error> {
    match String::deserialize(from)?.as_str() {
        "silu" => Ok(Some(Activation::Silu)),
        other => Err(serde::de::Error::custom(format_args!(
            "there is no activation {other:?}"
        ))),
    }
}

/// A layer of V1: projections without biases, no rotary embedding, causal, a norm of each head.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// Shape of the input, `[B, L, E]`.
    pub x: [usize; 3],
    /// Output heads.
    pub heads: usize,
    /// Width of a head of q and k; those of v are twice as wide.
    pub head_dim: usize,
}

/// The tensors of attention, layout bhsd.
#[derive(Debug, Clone, Deserialize)]
pub struct Heads {
    /// The head layout.
    #[serde(deserialize_with = "pairing")]
    pub pairing: Pairing,
    /// Signal heads per noise head; only with grouped and shared.
    pub ratio: Option<usize>,
    /// Shape of q.
    pub q: [usize; 4],
    /// Shape of k.
    pub k: [usize; 4],
    /// Shape of v.
    pub v: [usize; 4],
    /// Score maps that useful work counts.
    pub maps: usize,
    /// Whether a query sees no later key.
    pub causal: bool,
    /// Keys to the left and right that a query sees.
    pub window: Option<[Option<usize>; 2]>,
    /// Caches in rotation, of decode.
    pub caches: Option<usize>,
    /// What the caches hold, of decode; float32 where it is not said.
    #[serde(default, rename = "cacheDtype")]
    pub cache_dtype: Option<String>,
    /// Of so many blocks one is live in each row of blocks; then there is no other mask.
    #[serde(rename = "blockMask")]
    pub block_mask: Option<usize>,
}

fn pairing<'de, D: Deserializer<'de>>(from: D) -> Result<Pairing, D::Error> {
    let name = String::deserialize(from)?;
    let all = [
        Pairing::Interleaved,
        Pairing::Halves,
        Pairing::Grouped,
        Pairing::Shared,
    ];
    all.into_iter()
        .find(|pairing| pairing.name() == name)
        .ok_or_else(|| serde::de::Error::custom(format_args!("there is no pairing {name:?}")))
}

impl Heads {
    /// What the caches hold.
    ///
    /// # Panics
    /// For a name that no type has.
    #[must_use]
    pub fn held(&self) -> CacheDType {
        let all = [
            CacheDType::F32,
            CacheDType::F16,
            CacheDType::Bf16,
            CacheDType::Int8,
        ];
        let name = self.cache_dtype.as_deref().unwrap_or("float32");
        let found = all.into_iter().find(|dtype| dtype.name() == name);
        found.unwrap_or_else(|| panic!("no cache holds {name}"))
    }

    /// The block mask, by rows of blocks.
    #[must_use]
    pub fn blocks(&self) -> Option<Vec<u8>> {
        let one_of = self.block_mask?;
        Some(live_blocks(self.blocks_shape(), one_of))
    }

    /// Rows and columns of blocks.
    #[must_use]
    pub fn blocks_shape(&self) -> [usize; 2] {
        [self.q[2], self.k[2]].map(|length| length.div_ceil(BLOCK))
    }

    /// (query, key) pairs that the mask leaves, of one map.
    #[must_use]
    pub fn pairs(&self) -> usize {
        let (rows, keys) = (self.q[2], self.k[2]);
        if let Some(blocks) = self.blocks() {
            let live: usize = blocks.iter().map(|&live| usize::from(live)).sum();
            return live * BLOCK * BLOCK;
        }
        let [left, right] = self.window.unwrap_or([None, None]);
        let right = if self.causal { Some(0) } else { right };
        (0..rows)
            .map(|row| {
                let position = row + keys - rows;
                let first = left.map_or(0, |left| position.saturating_sub(left));
                let end = right.map_or(keys, |right| (position + right + 1).min(keys));
                end.saturating_sub(first)
            })
            .sum()
    }
}

impl Case {
    /// Useful FLOPs of a call; of norms, an optimizer and a layer none are counted.
    #[must_use]
    pub fn flops(&self) -> Option<f64> {
        // How often scores' and rows' products are made: backward, scores are made anew, and each
        // product has two gradients.
        let (heads, [scores, rows]) = match &self.work {
            Work::Attention(heads) | Work::Decode(heads) => (heads, [1, 1]),
            Work::AttentionBackward(heads) => (heads, [3, 2]),
            _ => return None,
        };
        let steps = heads.caches.unwrap_or(1) * heads.q[0] * heads.pairs();
        let width = scores * heads.maps * heads.q[3] + rows * self.out[1] * self.out[3];
        Some(2.0 * steps as f64 * width as f64)
    }

    /// Bytes that a call cannot avoid to move: a norm's input and result, those and the gradient of
    /// the result, k and v of all caches, or what AdamW reads (p, g, m, v) and writes (p, m, v).
    #[must_use]
    pub fn bytes(&self) -> f64 {
        let count = |x: &[usize]| x.iter().product::<usize>();
        let floats = match &self.work {
            Work::Attention(heads) | Work::AttentionBackward(heads) | Work::Decode(heads) => {
                heads.caches.unwrap_or(1) * (count(&heads.k) + count(&heads.v))
            }
            Work::GroupNorm(Channels { x, .. }) | Work::RmsNorm { x } => 2 * count(x),
            Work::GroupNormBackward(Channels { x, .. }) | Work::RmsNormBackward { x } => {
                3 * count(x)
            }
            Work::LayerBackward(layer) => 2 * count(&layer.x),
            Work::AdamW { count } => 7 * count,
        };
        (floats * size_of::<f32>()) as f64
    }
}

/// The cases of `bench/cases.json` that are operators: models and layers are measured through the
/// package alone. Read when it runs, for the file lies outside of what Cargo packs.
///
/// # Errors
/// When that file is not there or does not read as cases.
pub fn cases() -> io::Result<Vec<Case>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../cases.json"))?;
    let listed: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    let of_a_model = |case: &serde_json::Value| {
        let prefixes = ["model_", "codec_", "layer_"];
        let is_model = |op: &str| prefixes.iter().any(|prefix| op.starts_with(prefix));
        case["op"].as_str().is_some_and(is_model)
    };
    listed
        .into_iter()
        .filter(|case| !of_a_model(case))
        .map(|case| serde_json::from_value(case).map_err(io::Error::from))
        .collect()
}
