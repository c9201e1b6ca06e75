//! Differential attention layers of a checkpoint, found by the names and shapes of its tensors;
//! what they cannot tell comes from elsewhere.

use crate::attention::{self, K, LAMBDA, NORM, O, OUT, Q, SCALARS, V, VECTORS};
use crate::declare::Declared;
use crate::entry::Entry;
use crate::layer::{LayerVersion, Piece};
use crate::layout::HeadLayout;
use diffattn::Pairing;
use std::collections::BTreeMap;
use std::ops::Range;

/// The tensors of a checkpoint, by name.
pub(crate) type Entries<'e> = BTreeMap<&'e str, &'e Entry>;

/// What marks a layer: one of these tensors.
pub(crate) const MARKS: [&str; 3] = [VECTORS[0], SCALARS[0], "lambda_proj.weight"];

/// What timm and diff-mlx call weights of a layer, and their names here.
const OTHER_SOURCES: [(&str, &str); 4] = [
    ("proj.weight", "out_proj.weight"),
    ("proj.bias", "out_proj.bias"),
    ("sub_norm.weight", NORM),
    ("subln.scale", NORM),
];

/// The module of λ and the norm within the attention of a Phi-4-mini-flash.
const FLASH: &str = "inner_cross_attn.";

/// Norms of q and k, and of all heads together.
const OTHER_NORMS: [&str; 3] = ["q_norm.weight", "k_norm.weight", "norm.weight"];

/// Every name of a tensor of a layer in the sources, and the name that layers take.
pub(crate) fn names() -> Vec<(String, String)> {
    let list = attention::any_version();
    let both = |weight: &Declared| [Some(weight.clone()), weight.renamed()];
    let own = list.weights().iter().flat_map(both).flatten();
    let own = own.flat_map(|weight| weight.tensors());
    let own = own.map(|tensor| (tensor.name.clone(), tensor.name));
    let others = OTHER_SOURCES.map(|(name, here)| (name.to_owned(), here.to_owned()));
    own.chain(others).collect()
}

/// A layer's tensors, gathered under the names that layers take, before anything is known of its
/// heads.
pub(crate) struct Found<'e> {
    pub(crate) prefix: &'e str,
    pub(crate) pieces: BTreeMap<String, Piece>,
    shapes: BTreeMap<String, Vec<usize>>,
    /// Norms that the layers here have not.
    pub(crate) other_norms: Vec<String>,
    /// Whether q, k and v are one tensor, as timm has them.
    pub(crate) is_fused: bool,
    /// Whether it is of a Phi-4-mini-flash.
    pub(crate) is_flash: bool,
    /// The output projection's name in the file.
    pub(crate) output: Option<&'static str>,
}

impl<'e> Found<'e> {
    /// The tensors under `prefix`, by [`names`].
    pub(crate) fn new(entries: &Entries<'e>, inner: &'e str, names: &[(String, String)]) -> Self {
        let outer = inner.strip_suffix(FLASH);
        let prefix = outer.unwrap_or(inner);
        let other = |name: &str| {
            let name = format!("{prefix}{name}");
            entries.contains_key(name.as_str()).then_some(name)
        };
        let mut found = Self {
            prefix,
            other_norms: OTHER_NORMS.into_iter().filter_map(other).collect(),
            is_fused: other("qkv.weight").is_some(),
            is_flash: outer.is_some(),
            pieces: BTreeMap::new(),
            shapes: BTreeMap::new(),
            output: None,
        };
        for (name, as_layer) in names {
            let within = |module: &str| entries.get(format!("{module}{name}").as_str());
            if let Some(entry) = within(inner).or_else(|| within(prefix)) {
                found.add(as_layer, entry, None);
                let stem = name.strip_suffix(".weight");
                let output = [OUT, O, "proj"].into_iter().find(|&out| stem == Some(out));
                found.output = output.or(found.output);
            }
        }
        found.split_flash(entries);
        // timm keeps q, k and v in one, a third each.
        for part in ["weight", "bias"] {
            let Some(entry) = entries.get(format!("{prefix}qkv.{part}").as_str()) else {
                continue;
            };
            let third = entry.shape.first().copied().unwrap_or(0) / 3;
            for (at, name) in [Q, K, V].into_iter().enumerate() {
                found.add(
                    &format!("{name}.{part}"),
                    entry,
                    Some(at * third..(at + 1) * third),
                );
            }
        }
        found
    }

    /// Phi-4-mini-flash keeps q, k and v in one; q is as wide as what goes into the output
    /// projection, and layers without keys and values of their own have q alone.
    fn split_flash(&mut self, entries: &Entries<'e>) {
        let output = self.shape("out_proj.weight");
        let Some(&[_, q]) = output.filter(|_| self.is_flash) else {
            return;
        };
        for part in ["weight", "bias"] {
            let name = format!("{}Wqkv.{part}", self.prefix);
            let Some(entry) = entries.get(name.as_str()) else {
                continue;
            };
            let rows = entry.shape.first().copied().unwrap_or(0);
            let (q, k) = (q.min(rows), rows.saturating_sub(q) / 2);
            self.add(&format!("{Q}.{part}"), entry, Some(0..q));
            if k > 0 {
                self.add(&format!("{K}.{part}"), entry, Some(q..q + k));
                self.add(&format!("{V}.{part}"), entry, Some(q + k..q + 2 * k));
            }
        }
    }

    /// Whether it reads another layer's keys and values.
    pub(crate) fn has_no_keys(&self) -> bool {
        self.is_flash && self.has("q_proj.weight") && !self.has("k_proj.weight")
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

    /// The heads, as names and shapes have them; `head_dim` where no tensor tells. `halves` is
    /// diffllama's pairing.
    pub(crate) fn heads(
        &self,
        version: LayerVersion,
        halves: bool,
        head_dim: Option<usize>,
    ) -> Result<(HeadLayout, usize), String> {
        let [q, embed_dim] = self.matrix(Q)?;
        let [k, _] = self.matrix(K)?;
        let [v, _] = self.matrix(V)?;
        let (heads, head_dim, head_width) = self.outputs(version, head_dim)?;
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
            match ratio {
                Some(_) => (Pairing::Grouped, groups),
                None => (Pairing::Interleaved, groups),
            }
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
        let wanted = match pairing {
            Pairing::Halves => head_dim,
            _ => head_width,
        };
        let values = groups.saturating_mul(wanted);
        if v != values {
            return Err(format!("v_proj.weight has {v} rows, not {values}"));
        }
        Ok((layout, embed_dim))
    }

    /// Output heads, the width of a head of q and k, and that of an output head.
    fn outputs(
        &self,
        version: LayerVersion,
        head_dim: Option<usize>,
    ) -> Result<(usize, usize, usize), String> {
        let output = match self.has("o_proj.weight") {
            true => O,
            false => OUT,
        };
        let [_, columns] = self.matrix(output)?;
        let axis = format!("{output}.weight's second axis");
        match version {
            LayerVersion::V1(_) => {
                let first = |name| self.shape(name).and_then(|shape| shape.first().copied());
                let head_dim = first(VECTORS[0])
                    .or(first(NORM).map(|width| width / 2))
                    .or(head_dim)
                    .ok_or("no tensor tells head_dim")?;
                let head_width = head_dim.saturating_mul(2);
                let heads = divided(&axis, columns, head_width)?;
                Ok((heads, head_dim, head_width))
            }
            LayerVersion::V2 => {
                let [heads, _] = self.matrix(LAMBDA)?;
                let head_dim = divided(&axis, columns, heads)?;
                Ok((heads, head_dim, head_dim))
            }
        }
    }
}

/// How often `by` is in `size`, or that it is no multiple.
fn divided(what: &str, size: usize, by: usize) -> Result<usize, String> {
    match size.checked_div(by) {
        Some(count) if count > 0 && count * by == size => Ok(count),
        _ => Err(format!("{what} {size} is no multiple of {by}")),
    }
}

/// The last number among the parts of a name.
pub(crate) fn depth_of(prefix: &str) -> Option<usize> {
    prefix
        .split('.')
        .rev()
        .find_map(|part| part.parse::<usize>().ok())
}
