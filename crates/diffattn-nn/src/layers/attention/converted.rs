//! Plain attention some of whose heads were made differential, the others left as they were: makes
//! a [`DiffAttnLayer`] of its sizes and weights. One call of the kernel computes heads of both
//! kinds.

use super::dex::{Dex, DexParts};
use super::heads::Heads;
use super::lambda::{LambdaParts, LambdaWeights};
use super::layer::{DiffAttnLayer, LambdaSource, ProjectedLambda};
use super::plain::PlainAttention;
use diffattn::{Error, Linear, Pairing};
use diffattn_files::Projections;

/// What differential heads are, with their weights. λ is multiplied with `mix`.
#[derive(Debug)]
pub(crate) enum Difference {
    /// Two maps over one k head, λ projected per token, a row for each of these heads. Their second
    /// q heads lie behind all first ones, or each behind its own (`is_paired`).
    V2 {
        lambda: Linear,
        mix: f64,
        is_paired: bool,
    },
    /// Two maps over two k heads, in pairs as the q heads are; one λ. All heads are differential.
    V1 {
        lambda: LambdaWeights,
        init: f64,
        mix: f64,
    },
    /// [`Dex`] of heads of `head_dim`.
    Dex(DexParts),
}

/// Plain attention and its heads that are differential.
#[derive(Debug)]
pub(crate) struct ConvertedAttention {
    pub(crate) plain: PlainAttention,
    /// By their numbers, ascending; one or more.
    pub(crate) differential: Vec<usize>,
}

impl ConvertedAttention {
    /// The layer of packed projections, causal.
    pub(crate) fn of_weights(
        self,
        projections: Projections<Linear>,
        difference: Difference,
    ) -> Result<DiffAttnLayer, Error> {
        let Self {
            plain,
            differential,
        } = self;
        let mut heads = plain.heads()?;
        let (mut lambda, mut dex) = (LambdaSource::None, None);
        let mut lambda_parts = None;
        match difference {
            Difference::V2 {
                lambda: linear,
                mix,
                is_paired,
            } => {
                second_queries(&mut heads, &differential, is_paired);
                if is_paired {
                    paired(&mut heads, Pairing::Shared);
                }
                let is_all = differential.len() == plain.num_heads;
                lambda = LambdaSource::Projected(ProjectedLambda {
                    linear,
                    heads: (!is_all).then_some(differential),
                    mix: mix as f32,
                });
            }
            Difference::V1 {
                lambda: weights,
                init,
                mix,
            } => {
                second_queries(&mut heads, &differential, true);
                second_keys(&mut heads);
                paired(&mut heads, Pairing::Interleaved);
                let parts = LambdaParts { weights, init, mix };
                lambda = LambdaSource::Value(parts.value()? as f32);
                lambda_parts = Some(parts);
            }
            Difference::Dex(parts) => {
                dex = Some(Dex::new(parts, (differential, plain.num_heads))?);
            }
        }
        let rope = plain.rope;
        Ok(DiffAttnLayer {
            lambda_parts,
            dex,
            ..DiffAttnLayer::new(heads, projections, lambda, rope, true)
        })
    }
}

/// Gives differential heads their second q heads: behind all first ones, or each behind its own,
/// where all heads are differential.
fn second_queries(heads: &mut Heads, differential: &[usize], is_paired: bool) {
    let count = heads.plan.len();
    for (index, &head) in differential.iter().enumerate() {
        let plan = &mut heads.plan[head];
        plan.q = match is_paired {
            true => vec![2 * head, 2 * head + 1],
            false => vec![head, count + index],
        };
        // λ scales the second of 1 and −1.
        plan.coefficients = None;
        plan.k = vec![plan.k[0]; 2];
    }
    heads.q = count + differential.len();
}

/// Names the pairing whose plan it is now: attention need not be told it head by head.
fn paired(heads: &mut Heads, pairing: Pairing) {
    heads.dimensions.pairing = pairing;
    heads.is_own_plan = false;
}

/// Gives every head a second k head behind its first one.
fn second_keys(heads: &mut Heads) {
    for plan in &mut heads.plan {
        let group = plan.k[0];
        plan.k = vec![2 * group, 2 * group + 1];
    }
    heads.k *= 2;
}
