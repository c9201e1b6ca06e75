//! Differential attention: the layers that there are, and what they make of rows. Knows no texts,
//! no slices, and not where keys are held.

mod attend;
#[cfg(feature = "models")]
mod converted;
#[cfg(feature = "models")]
mod dex;
#[cfg(feature = "models")]
mod five_way;
mod fusion;
mod heads;
mod lambda;
mod layer;
mod options;
mod output;
#[cfg(feature = "models")]
mod plain;
mod project;
mod renew;
mod v1;
mod v2;

pub(crate) use attend::{LayerMask, Queries};
#[cfg(feature = "models")]
pub(crate) use converted::{ConvertedAttention, Difference};
#[cfg(feature = "models")]
pub(crate) use dex::DexParts;
#[cfg(feature = "training")]
pub(crate) use dex::{Annealing, Dex};
#[cfg(feature = "models")]
pub use five_way::{FiveWayDiffAttn, FiveWayDiffAttnOptions};
#[cfg(feature = "models")]
pub(crate) use five_way::{FiveWayWeights, heads_norm};
#[cfg(feature = "training")]
pub(crate) use fusion::Differences;
#[cfg(feature = "models")]
pub(crate) use lambda::LambdaWeights;
pub use layer::DiffAttnLayer;
#[cfg(feature = "training")]
pub(crate) use layer::LambdaSource;
pub use options::{
    ForwardOptions, LambdaForm, MultiheadDiffAttnOptions, MultiheadDiffAttnV2Options, NormConfig,
    RopeConfig, SequenceFusion,
};
#[cfg(feature = "models")]
pub(crate) use plain::PlainAttention;
pub(crate) use project::{Projected, Turn, Wanted, Widths};
pub use v1::MultiheadDiffAttn;
#[cfg(feature = "models")]
pub(crate) use v1::V1Weights;
pub use v2::MultiheadDiffAttnV2;
