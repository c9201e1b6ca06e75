//! Plain attention, one softmax per head, as a layer like the differential ones: makes a
//! [`DiffAttnLayer`] of its sizes and weights.

use super::heads::{Dimensions, Heads};
use super::layer::{DiffAttnLayer, LambdaSource};
use super::options::RopeConfig;
use diffattn::{Error, HeadPlan, Linear, Pairing};
use diffattn_files::Projections;

/// What plain attention is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlainAttention {
    pub(crate) embed_dim: usize,
    pub(crate) num_heads: usize,
    /// Heads of k and v, each for as many neighbouring heads of q.
    pub(crate) num_kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) rope: Option<RopeConfig>,
}

impl PlainAttention {
    /// Its heads.
    pub(super) fn heads(&self) -> Result<Heads, Error> {
        let &Self {
            embed_dim,
            num_heads,
            num_kv_heads,
            head_dim,
            ..
        } = self;
        if num_kv_heads == 0 || !num_heads.is_multiple_of(num_kv_heads) {
            return Err(Error::shape(
                "num_kv_heads",
                format_args!("a number that divides num_heads {num_heads}"),
                num_kv_heads,
            ));
        }
        let plan = (0..num_heads).map(|head| HeadPlan {
            q: vec![head],
            k: vec![head / (num_heads / num_kv_heads)],
            v: vec![head / (num_heads / num_kv_heads)],
            coefficients: Some(vec![1.0]),
        });
        Ok(Heads {
            dimensions: Dimensions {
                embed_dim,
                heads: num_heads,
                groups: Some(num_kv_heads),
                head_dim,
                head_width: head_dim,
                pairing: Pairing::default(),
                kv_repeat: None,
                ratio: None,
            },
            q: num_heads,
            k: num_kv_heads,
            v: num_kv_heads,
            value_dim: head_dim,
            plan: plan.collect(),
            is_own_plan: true,
        })
    }

    /// The layer of packed projections, causal.
    pub(crate) fn of_weights(
        self,
        projections: Projections<Linear>,
    ) -> Result<DiffAttnLayer, Error> {
        let (heads, rope) = (self.heads()?, self.rope);
        let lambda = LambdaSource::None;
        Ok(DiffAttnLayer::new(heads, projections, lambda, rope, true))
    }
}
