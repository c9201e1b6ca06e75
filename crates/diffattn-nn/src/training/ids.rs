//! Which parameters a layer's attention is made of. Computes nothing.

use super::arena::ParameterId;
use super::maps::MapIds;

/// Which parameters a layer's attention is made of.
#[derive(Debug, Clone, Default)]
pub(crate) struct AttentionIds {
    pub(crate) q: MapIds,
    pub(crate) k: MapIds,
    pub(crate) v: MapIds,
    pub(crate) out: MapIds,
    pub(crate) lambda: LambdaParameters,
    /// The weight of the norm per head.
    pub(crate) norm: Option<ParameterId>,
}

/// Which parameters λ is made of.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum LambdaParameters {
    /// None that moves.
    #[default]
    Frozen,
    /// `exp(q1·k1) − exp(q2·k2)`.
    Vectors([ParameterId; 4]),
    /// `exp(a) − exp(b)`.
    Scalars([ParameterId; 2]),
    /// A projection of x.
    Projected(MapIds),
    /// DEX's matrix and its λ.
    Dex([Option<ParameterId>; 2]),
}
