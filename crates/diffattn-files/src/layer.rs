//! One differential attention layer of a checkpoint: where its weights are, and what its heads are.
//! Finds none.

use crate::attention::{LambdaForm, RopeConfig};
use crate::convert::{LayerForm, LayerTarget};
use crate::layout::HeadLayout;
use crate::raw_weights::RawWeights;
use crate::shards::Shards;
use crate::source::ByteSource;
use crate::tensor::RawTensor;
use diffattn::Error;
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
    /// λ_init of V1, where it does not follow from `depth` as the first version has it.
    pub lambda_init: Option<f64>,
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

    /// The weights, of tensors from anywhere, by their names in the checkpoint.
    ///
    /// # Errors
    /// Those of `tensor`; [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) for rows that one has
    /// not.
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

    /// Refuses another layout for a layer whose λ_init does not follow from its index: who reads
    /// the layout would take another.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `layout`.
    pub fn check_target(&self, target: &LayerTarget) -> Result<(), Error> {
        let kept = LayerTarget {
            dtype: target.dtype,
            ..LayerTarget::keep(&self.heads)
        };
        if self.lambda_init.is_none() || *target == kept {
            return Ok(());
        }
        Err(Error::option(
            "layout",
            "the layout that the layer has, as its λ_init is not what other layouts take it for",
            format_args!("{:?} heads", target.pairing.name()),
        ))
    }

    /// The same layer with weights that lie as `form` says: what [`super::convert_layer`] made of
    /// it. Its `pieces` are still those of the checkpoint.
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
