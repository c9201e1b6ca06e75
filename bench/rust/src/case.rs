//! The cases of `bench/cases.json` as types; `bench/README.md` says what each field means.

use std::path::Path;
use std::{fs, io};

use crate::inputs::live_blocks;
use diffattn::{CacheDType, Pairing};
use serde::{Deserialize, Deserializer};

/// Queries and keys to a side of a block of a block mask.
pub(crate) const BLOCK: usize = 64;

/// One case.
#[derive(Debug, Clone, Deserialize)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// Shape of the result.
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
    /// One query on each of `caches` caches in turn.
    Decode(Heads),
    /// Group norm, channels second.
    GroupNorm {
        /// Shape of the input.
        x: Vec<usize>,
        /// Groups of channels.
        groups: usize,
    },
    /// RMS norm over the last axis.
    RmsNorm {
        /// Shape of the input.
        x: Vec<usize>,
    },
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
    /// Useful FLOPs of a call; of a norm none are counted.
    #[must_use]
    pub fn flops(&self) -> Option<f64> {
        match &self.work {
            Work::Attention(heads) | Work::Decode(heads) => {
                let steps = heads.caches.unwrap_or(1) * heads.q[0] * heads.pairs();
                let width = heads.maps * heads.q[3] + self.out[1] * self.out[3];
                Some(2.0 * steps as f64 * width as f64)
            }
            Work::GroupNorm { .. } | Work::RmsNorm { .. } => None,
        }
    }

    /// Bytes that a call cannot avoid to move: a norm's input and result, or k and v of all caches.
    #[must_use]
    pub fn bytes(&self) -> f64 {
        let floats = match &self.work {
            Work::Attention(heads) | Work::Decode(heads) => {
                heads.caches.unwrap_or(1)
                    * (heads.k.iter().product::<usize>() + heads.v.iter().product::<usize>())
            }
            Work::GroupNorm { x, .. } | Work::RmsNorm { x } => 2 * x.iter().product::<usize>(),
        };
        (floats * size_of::<f32>()) as f64
    }
}

/// The cases of `bench/cases.json` that are operators: models are measured through the package
/// alone. Read when it runs, for the file lies outside of what Cargo packs.
///
/// # Errors
/// When that file is not there or does not read as cases.
pub fn cases() -> io::Result<Vec<Case>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../cases.json"))?;
    let listed: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    let of_a_model = |case: &serde_json::Value| {
        case["op"]
            .as_str()
            .is_some_and(|op| op.starts_with("model_"))
    };
    listed
        .into_iter()
        .filter(|case| !of_a_model(case))
        .map(|case| serde_json::from_value(case).map_err(io::Error::from))
        .collect()
}
