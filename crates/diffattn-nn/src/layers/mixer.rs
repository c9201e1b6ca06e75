//! What moves values between the tokens of a text, by kind: what the pass asks of a layer whatever
//! it is. Computes nothing itself.

use super::attention::{DiffAttnLayer, Wanted, Widths};
#[cfg(feature = "models")]
use super::{Mamba, MemoryGate};
use diffattn::{Error, Run};

/// What a layer mixes tokens by.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mixer<'m> {
    /// Attention, differential or plain.
    Attention(Attention<'m>),
    /// A recurrent state.
    #[cfg(feature = "models")]
    Mamba(&'m Mamba),
    /// Nothing between tokens: it lets through what a recurrent layer before it gave of the same
    /// token.
    #[cfg(feature = "models")]
    MemoryGate(&'m MemoryGate),
}

/// Attention as a layer of a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention<'m> {
    pub(crate) layer: &'m DiffAttnLayer,
    /// Tokens that each token sees, itself included; all where there is none.
    #[cfg(feature = "models")]
    pub(crate) window: Option<usize>,
    /// The layer before it whose keys and values it reads; it makes and keeps none then.
    pub(crate) keys_of: Option<usize>,
}

impl<'m> From<&'m DiffAttnLayer> for Mixer<'m> {
    /// Attention over all keys before, of its own.
    fn from(layer: &'m DiffAttnLayer) -> Self {
        Self::Attention(Attention {
            layer,
            #[cfg(feature = "models")]
            window: None,
            keys_of: None,
        })
    }
}

impl<'m> Mixer<'m> {
    /// Attention, where it is of that kind.
    pub(crate) fn attention(self) -> Option<&'m DiffAttnLayer> {
        match self {
            Self::Attention(attention) => Some(attention.layer),
            #[cfg(feature = "models")]
            _ => None,
        }
    }

    /// The layer whose keys and values it reads, where these are not its own.
    #[cfg(feature = "models")]
    pub(crate) fn keys_of(self) -> Option<usize> {
        match self {
            Self::Attention(attention) => attention.keys_of,
            _ => None,
        }
    }

    /// Tokens that each token sees, where a call lets it see `given`.
    #[cfg(feature = "models")]
    pub(crate) fn window(self, given: Option<usize>) -> Option<usize> {
        let own = match self {
            Self::Attention(attention) => attention.window,
            _ => None,
        };
        // (`None` would be the smaller.)
        own.into_iter().chain(given).min()
    }

    /// Whether it keeps anything of a token for later ones.
    pub(crate) fn keeps(self) -> bool {
        match self {
            Self::Attention(attention) => attention.keys_of.is_none(),
            #[cfg(feature = "models")]
            Self::Mamba(_) => true,
            #[cfg(feature = "models")]
            Self::MemoryGate(_) => false,
        }
    }

    /// Channels of x and y.
    pub(crate) fn width(self) -> usize {
        match self {
            Self::Attention(attention) => attention.layer.embed_dim(),
            #[cfg(feature = "models")]
            Self::Mamba(mamba) => mamba.output.outputs(),
            #[cfg(feature = "models")]
            Self::MemoryGate(gate) => gate.output.outputs(),
        }
    }

    /// How wide the rows of its operands are.
    pub(crate) fn widths(self, wanted: Wanted) -> Widths {
        match self {
            Self::Attention(Attention { layer, keys_of, .. }) => {
                let widths = layer.widths(wanted);
                match keys_of {
                    None => widths,
                    Some(_) => Widths {
                        k: 0,
                        v: 0,
                        ..widths
                    },
                }
            }
            #[cfg(feature = "models")]
            Self::Mamba(mamba) => mamba.widths(),
            #[cfg(feature = "models")]
            Self::MemoryGate(gate) => Widths {
                attended: gate.gate.outputs(),
                ..Widths::default()
            },
        }
    }

    /// Values of scratch per row beside the operands.
    pub(crate) fn still(self, wanted: Wanted) -> usize {
        match self {
            Self::Attention(Attention { layer, .. }) => {
                match layer.has_still() && layer.fused(wanted).is_none() {
                    true => layer.q.outputs().max(layer.k.outputs()),
                    false => 0,
                }
            }
            #[cfg(feature = "models")]
            Self::Mamba(mamba) => mamba.b_c.outputs(),
            #[cfg(feature = "models")]
            Self::MemoryGate(_) => 0,
        }
    }

    /// Multiply-adds of a row before the output projection; of attention, without what it does with
    /// keys and values.
    pub(crate) fn project_work(self) -> usize {
        match self {
            Self::Attention(attention) => attention.layer.project_work(),
            #[cfg(feature = "models")]
            Self::Mamba(mamba) => mamba.row_work(),
            #[cfg(feature = "models")]
            Self::MemoryGate(gate) => gate.gate.inputs().saturating_mul(gate.gate.outputs()),
        }
    }

    /// Multiply-adds of a row in the output projection.
    pub(crate) fn output_work(self) -> usize {
        match self {
            Self::Attention(attention) => attention.layer.output_work(),
            #[cfg(feature = "models")]
            Self::Mamba(mamba) => mamba.output.inputs().saturating_mul(self.width()),
            #[cfg(feature = "models")]
            Self::MemoryGate(gate) => gate.output.inputs().saturating_mul(self.width()),
        }
    }

    /// Rows of y from rows of what it made.
    pub(crate) fn output(self, made: &[f32], y: &mut [f32], run: Run) -> Result<(), Error> {
        match self {
            Self::Attention(attention) => attention.layer.output(made, y, run),
            #[cfg(feature = "models")]
            Self::Mamba(mamba) => mamba.output.forward(made, y, run),
            #[cfg(feature = "models")]
            Self::MemoryGate(gate) => gate.output.forward(made, y, run),
        }
    }
}
