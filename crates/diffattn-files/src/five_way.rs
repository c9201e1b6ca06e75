//! The weights of five-way differential attention (Stable Audio 3): one projection for q1, k1, v,
//! q2 and k2, the output's, and the norms of q and k. Runs nothing.

use crate::declare::{Declare, Id, Need};

/// The form of the norms of q and k.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadsNormForm {
    /// There are none.
    None,
    /// RMS norm: `gamma`.
    Rms,
    /// Dynamic tanh: `alpha`, `gamma` and `beta`.
    DynamicTanh,
}

impl HeadsNormForm {
    /// The form that a layer's tensors are of; `has` tells which there are.
    pub fn of(has: impl Fn(&str) -> bool) -> Self {
        let any = |part: &str| {
            [Q_NORM, K_NORM]
                .iter()
                .any(|norm| has(&format!("{norm}.{part}")))
        };
        if any("alpha") || any("beta") {
            Self::DynamicTanh
        } else if any("gamma") {
            Self::Rms
        } else {
            Self::None
        }
    }
}

const Q_NORM: &str = "q_norm";
const K_NORM: &str = "k_norm";

/// The weights of a dynamic tanh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DynamicTanhIds {
    /// The factor on x.
    pub alpha: Id,
    /// The factors on the result.
    pub gamma: Id,
    /// What is added.
    pub beta: Id,
}

/// Lists a dynamic tanh over `width` channels.
pub(crate) fn dynamic_tanh(d: &mut Declare, name: &str, width: usize) -> DynamicTanhIds {
    let mut tensor =
        |part: &str, len: usize| d.tensor(&format!("{name}.{part}"), &[len], Need::Required);
    DynamicTanhIds {
        alpha: tensor("alpha", 1),
        gamma: tensor("gamma", width),
        beta: tensor("beta", width),
    }
}

/// The weights of the norm of q or k.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadsNormIds {
    /// RMS norm.
    Rms {
        /// The factors.
        gamma: Id,
    },
    /// Dynamic tanh.
    DynamicTanh(DynamicTanhIds),
}

/// Sizes of a layer. The default is for whoever wants names alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FiveWaySizes {
    /// Channels of x and y.
    pub embed_dim: usize,
    /// Channels of a head.
    pub head_dim: usize,
}

/// The weights of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FiveWayIds {
    /// The projection of q1, k1, v, q2 and k2, a fifth of the rows each.
    pub qkv: Id,
    /// The output projection.
    pub out: Id,
    /// The norms of q and of k.
    pub heads_norms: Option<[HeadsNormIds; 2]>,
}

impl FiveWaySizes {
    /// Names alone of all weights that there are.
    #[must_use]
    pub fn names() -> Declare {
        let mut list = Declare::new();
        Self::default().declare(HeadsNormForm::DynamicTanh, &mut list);
        list
    }

    /// Lists a layer.
    pub fn declare(&self, form: HeadsNormForm, d: &mut Declare) -> FiveWayIds {
        let width = self.embed_dim;
        let qkv = d.linear("to_qkv", [width.saturating_mul(5), width], None);
        let out = d.linear("to_out", [width, width], None);
        let mut norm = |name: &str| match form {
            HeadsNormForm::None => None,
            HeadsNormForm::Rms => Some(HeadsNormIds::Rms {
                gamma: d.tensor(&format!("{name}.gamma"), &[self.head_dim], Need::Required),
            }),
            HeadsNormForm::DynamicTanh => Some(HeadsNormIds::DynamicTanh(dynamic_tanh(
                d,
                name,
                self.head_dim,
            ))),
        };
        FiveWayIds {
            qkv,
            out,
            heads_norms: norm(Q_NORM).zip(norm(K_NORM)).map(|(q, k)| [q, k]),
        }
    }
}
