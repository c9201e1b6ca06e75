//! One differential attention layer of a checkpoint: where its weights are, and what its heads are.
//! Found by names and shapes; what they cannot tell comes from elsewhere.

use super::convert::{LayerForm, RawWeights};
use super::header::Entry;
use super::layout::HeadLayout;
use super::shards::Shards;
use super::source::ByteSource;
use super::tensor::RawTensor;
use crate::attention::{LambdaForm, RopeConfig};
use diffattn::{Error, Pairing};
use std::collections::BTreeMap;
use std::ops::Range;

/// Which layer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerVersion {
    /// The first version: λ is one number per layer, and there is a norm per head.
    V1(LambdaForm),
    /// The second version: λ is projected from x, per token and head.
    V2,
}

/// Where one weight of a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The tensor's name.
    pub tensor: String,
    /// The rows of it, where q, k and v are one tensor.
    pub rows: Option<Range<usize>>,
}

/// A differential attention layer of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// What the names of its tensors begin with.
    pub prefix: String,
    /// The last number in `prefix`: the layer's index from 0, which λ_init of V1 depends on.
    pub depth: Option<usize>,
    /// Which layer it is.
    pub version: LayerVersion,
    /// E, channels of x and y.
    pub embed_dim: usize,
    /// Its heads.
    pub heads: HeadLayout,
    /// Its rotary embedding.
    pub rope: Option<RopeConfig>,
    /// Whether a token sees only itself and those before it.
    pub is_causal: bool,
    /// Added to the mean square of V1's norm.
    pub eps: f32,
    /// Whether V1's norm has a weight.
    pub norm_weight: bool,
    /// Where each weight is, by its name in [`Weights`](crate::Weights).
    pub pieces: BTreeMap<String, Piece>,
}

impl Layer {
    /// The weights, by the names of [`Weights`](crate::Weights).
    ///
    /// # Errors
    /// As [`Shards::raw`].
    pub fn read<'s, S: ByteSource>(&self, shards: &'s Shards<S>) -> Result<RawWeights<'s>, Error> {
        self.weights(|name| shards.raw(name))
    }

    /// The same of tensors from anywhere, by their names in the checkpoint.
    ///
    /// # Errors
    /// Those of `tensor`; [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) for rows that one has not.
    pub fn weights<'s>(
        &self,
        mut tensor: impl FnMut(&str) -> Result<RawTensor<'s>, Error>,
    ) -> Result<RawWeights<'s>, Error> {
        self.pieces
            .iter()
            .map(|(name, piece)| {
                let whole = tensor(&piece.tensor)?;
                let tensor = match &piece.rows {
                    None => whole,
                    Some(rows) => whole.rows(&piece.tensor, rows.clone())?,
                };
                Ok((name.clone(), tensor))
            })
            .collect()
    }

    /// How the weights lie, for [`super::convert_layer`].
    #[must_use]
    pub fn form(&self) -> LayerForm {
        LayerForm {
            heads: self.heads,
            rope_interleaved: self.rope.map(|rope| rope.interleaved),
        }
    }

    /// The same layer with weights that lie as `form` says: what [`super::convert_layer`] made of it. Its `pieces` are still
    /// those of the checkpoint.
    #[must_use]
    pub fn with_form(&self, form: &LayerForm) -> Self {
        Self {
            heads: form.heads,
            rope: match (self.rope, form.rope_interleaved) {
                (Some(rope), Some(interleaved)) => Some(RopeConfig {
                    interleaved,
                    ..rope
                }),
                _ => None,
            },
            ..self.clone()
        }
    }
}

/// The tensors of a checkpoint, by name.
pub(crate) type Entries<'e> = BTreeMap<&'e str, &'e Entry>;

/// What marks a layer: one of these tensors.
pub(crate) const MARKS: [&str; 3] = ["lambda_q1", "lambda_a", "lambda_proj.weight"];

/// Names of one weight in the sources, and the name that layers take.
const NAMES: [(&str, &str); 17] = [
    ("q_proj.weight", "q_proj.weight"),
    ("q_proj.bias", "q_proj.bias"),
    ("k_proj.weight", "k_proj.weight"),
    ("k_proj.bias", "k_proj.bias"),
    ("v_proj.weight", "v_proj.weight"),
    ("v_proj.bias", "v_proj.bias"),
    ("out_proj.weight", "out_proj.weight"),
    ("out_proj.bias", "out_proj.bias"),
    ("o_proj.weight", "o_proj.weight"),
    ("o_proj.bias", "o_proj.bias"),
    ("proj.weight", "out_proj.weight"),
    ("proj.bias", "out_proj.bias"),
    ("subln.weight", "subln.weight"),
    ("sub_norm.weight", "subln.weight"),
    ("lambda_proj.weight", "lambda_proj.weight"),
    ("lambda_proj.bias", "lambda_proj.bias"),
    ("lambda_a", "lambda_a"),
];

/// The rest of the λs.
const LAMBDAS: [&str; 5] = [
    "lambda_b",
    "lambda_q1",
    "lambda_k1",
    "lambda_q2",
    "lambda_k2",
];

/// A layer's tensors, gathered under the names that layers take, before anything is known of its heads.
pub(crate) struct Found<'e> {
    pub(crate) prefix: &'e str,
    pub(crate) pieces: BTreeMap<String, Piece>,
    shapes: BTreeMap<String, Vec<usize>>,
    /// The output projection's name in the file.
    pub(crate) output: Option<&'static str>,
}

impl<'e> Found<'e> {
    pub(crate) fn new(entries: &Entries<'e>, prefix: &'e str) -> Self {
        let mut found = Self {
            prefix,
            pieces: BTreeMap::new(),
            shapes: BTreeMap::new(),
            output: None,
        };
        let plain = NAMES.into_iter().chain(LAMBDAS.map(|name| (name, name)));
        for (name, as_layer) in plain {
            if let Some(entry) = entries.get(format!("{prefix}{name}").as_str()) {
                found.add(as_layer, entry, None);
                if let Some(stem) = name.strip_suffix(".weight")
                    && ["out_proj", "o_proj", "proj"].contains(&stem)
                {
                    found.output = Some(stem);
                }
            }
        }
        // timm keeps q, k and v in one, a third each.
        for part in ["weight", "bias"] {
            let Some(entry) = entries.get(format!("{prefix}qkv.{part}").as_str()) else {
                continue;
            };
            let third = entry.shape.first().copied().unwrap_or(0) / 3;
            for (at, name) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
                found.add(
                    &format!("{name}.{part}"),
                    entry,
                    Some(at * third..(at + 1) * third),
                );
            }
        }
        found
    }

    fn add(&mut self, name: &str, entry: &Entry, rows: Option<Range<usize>>) {
        let mut shape = entry.shape.clone();
        if let (Some(rows), Some(first)) = (&rows, shape.first_mut()) {
            *first = rows.len();
        }
        self.shapes.insert(name.to_owned(), shape);
        let tensor = entry.name.clone();
        self.pieces.insert(name.to_owned(), Piece { tensor, rows });
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.pieces.contains_key(name)
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    /// Rows and columns of a projection.
    pub(crate) fn matrix(&self, name: &str) -> Result<[usize; 2], String> {
        match self.shape(&format!("{name}.weight")) {
            Some(&[rows, columns]) => Ok([rows, columns]),
            Some(shape) => Err(format!("{name}.weight has shape {shape:?}, not two axes")),
            None => Err(format!("{name}.weight is missing")),
        }
    }

    /// The heads, as names and shapes have them; `head_dim` where no tensor tells. `halves` is diffllama's pairing.
    pub(crate) fn heads(
        &self,
        version: LayerVersion,
        halves: bool,
        head_dim: Option<usize>,
    ) -> Result<(HeadLayout, usize), String> {
        let [q, embed_dim] = self.matrix("q_proj")?;
        let [k, _] = self.matrix("k_proj")?;
        let [v, _] = self.matrix("v_proj")?;
        let output = if self.has("o_proj.weight") {
            "o_proj"
        } else {
            "out_proj"
        };
        let [_, columns] = self.matrix(output)?;
        let divided = |what: &str, size: usize, by: usize| match size.checked_div(by) {
            Some(count) if count > 0 && count * by == size => Ok(count),
            _ => Err(format!("{what} {size} is no multiple of {by}")),
        };
        let (heads, head_dim, head_width) = match version {
            LayerVersion::V1(_) => {
                let width = self.shape("subln.weight").and_then(|shape| shape.first());
                let vector = self.shape("lambda_q1").and_then(|shape| shape.first());
                let head_dim = vector
                    .copied()
                    .or(width.map(|width| width / 2))
                    .or(head_dim)
                    .ok_or("no tensor tells head_dim")?;
                let head_width = head_dim.saturating_mul(2);
                let heads = divided(
                    &format!("{output}.weight's second axis"),
                    columns,
                    head_width,
                )?;
                (heads, head_dim, head_width)
            }
            LayerVersion::V2 => {
                let [heads, _] = self.matrix("lambda_proj")?;
                let head_dim = divided(&format!("{output}.weight's second axis"), columns, heads)?;
                (heads, head_dim, head_dim)
            }
        };
        let n_q = divided("q_proj.weight's first axis", q, head_dim)?;
        let n_k = divided("k_proj.weight's first axis", k, head_dim)?;
        let noise = n_q
            .checked_sub(heads)
            .filter(|&noise| noise > 0)
            .ok_or_else(|| {
                format!("{n_q} q heads of {head_dim} are too few for {heads} output heads")
            })?;
        let ratio = match divided("the number of output heads", heads, noise)? {
            1 => None,
            ratio => Some(ratio),
        };
        let shares_k = match version {
            LayerVersion::V2 => true,
            LayerVersion::V1(_) => v == k.saturating_mul(2),
        };
        let (pairing, groups) = if shares_k {
            (Pairing::Shared, n_k)
        } else if halves {
            (Pairing::Halves, n_k)
        } else {
            let groups = divided("the number of k heads", n_k, 2)?;
            let pairing = if ratio.is_some() {
                Pairing::Grouped
            } else {
                Pairing::Interleaved
            };
            (pairing, groups)
        };
        let layout = HeadLayout {
            pairing,
            kv_repeat: None,
            ratio,
            heads,
            groups: Some(groups),
            head_dim,
            head_width,
        };
        layout.plan().map_err(|error| error.to_string())?;
        let wanted = if pairing == Pairing::Halves {
            head_dim
        } else {
            head_width
        };
        let values = groups.saturating_mul(wanted);
        if v != values {
            return Err(format!("v_proj.weight has {v} rows, not {values}"));
        }
        Ok((layout, embed_dim))
    }
}

/// The last number among the parts of a name.
pub(crate) fn depth_of(prefix: &str) -> Option<usize> {
    prefix
        .split('.')
        .rev()
        .find_map(|part| part.parse::<usize>().ok())
}
