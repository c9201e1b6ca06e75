//! A state with the first tokens of another, for texts that begin alike. Only of what is whole.

use super::{Kv, State};
use diffattn::Error;

impl State {
    /// Whether it can be that of any of its tokens: no recurrent state, and nothing discarded.
    pub(crate) fn is_whole(&self) -> bool {
        match self {
            Self::Kv(kv) => kv.discarded == 0,
            Self::Recurrent(_) => false,
            Self::Nothing => true,
        }
    }

    /// Another with the first `length` tokens, which it holds; it is whole.
    pub(crate) fn copy_prefix(&self, length: usize) -> Result<Self, Error> {
        match self {
            Self::Kv(kv) => Ok(Self::Kv(Kv {
                cache: kv.cache.copy_prefix(length)?,
                discarded: kv.discarded,
                window: kv.window,
            })),
            Self::Recurrent(_) => Err(Error::internal("a copy of a recurrent state")),
            Self::Nothing => Ok(Self::Nothing),
        }
    }
}
