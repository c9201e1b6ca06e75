//! Checkpoint files, as `diffattn-files` has them, and layers of them that run.

use crate::layers::attention::{MultiheadDiffAttnOptions, MultiheadDiffAttnV2Options, NormConfig};
use crate::{DiffAttnLayer, MultiheadDiffAttn, MultiheadDiffAttnV2};
use diffattn::Error;

pub use diffattn_files::*;

impl DiffAttnLayer {
    /// A layer of a checkpoint, of its weights ([`Layer::read`]), maybe converted
    /// ([`convert_layer`]).
    ///
    /// # Errors
    /// As [`MultiheadDiffAttn::new`] and [`MultiheadDiffAttnV2::new`].
    pub fn of_checkpoint(layer: &Layer, weights: &Weights<'_>) -> Result<Self, Error> {
        let HeadLayout {
            pairing,
            kv_repeat,
            ratio,
            heads,
            groups,
            head_dim,
            ..
        } = layer.heads;
        match layer.version {
            LayerVersion::V1(lambda_form) => {
                let depth = layer.depth.unwrap_or(0);
                let options = MultiheadDiffAttnOptions {
                    lambda_init: layer.lambda_init,
                    num_kv_heads: groups,
                    head_dim: Some(head_dim),
                    rope: layer.rope,
                    pairing,
                    kv_repeat,
                    ratio,
                    is_causal: layer.is_causal,
                    norm: Some(NormConfig {
                        eps: layer.eps,
                        affine: None,
                    }),
                    lambda_form,
                    ..MultiheadDiffAttnOptions::new(layer.embed_dim, depth, heads)
                };
                MultiheadDiffAttn::new(&options, weights).map(Self::from)
            }
            LayerVersion::V2 => {
                let options = MultiheadDiffAttnV2Options {
                    num_kv_heads: groups,
                    ratio,
                    rope: layer.rope,
                    is_causal: layer.is_causal,
                    ..MultiheadDiffAttnV2Options::new(layer.embed_dim, heads, head_dim)
                };
                MultiheadDiffAttnV2::new(&options, weights).map(Self::from)
            }
        }
    }
}
