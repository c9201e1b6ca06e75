//! Which product is wanted of a packed weight: plain data. Computes nothing.

use super::panels::{Panels, with_format};
use super::rows::Rows;

/// Which product a weight's panels serve. Each way is compiled apart, so that who only maps
/// forward carries nothing of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// `x Wᵀ`, x as the weight's format meets it.
    Forward,
    /// `x Wᵀ`, x as it is, and W as float32 of whatever format.
    Float,
    /// `x W`, both as there: what gradients of x are.
    Turned,
}

/// A [`Way`] as a type.
pub(super) trait Met: Copy + Send + Sync {
    fn which(self) -> Way;
}

/// A type for each [`Way`].
macro_rules! ways {
    ($($way:ident),*) => {$(
        /// The [`Way`] of this name.
        #[derive(Debug, Clone, Copy)]
        pub(super) struct $way;

        impl Met for $way {
            #[inline(always)]
            fn which(self) -> Way {
                Way::$way
            }
        }
    )*};
}

ways!(Forward, Float, Turned);

/// A product with a weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product<'c, W> {
    pub(super) weight: &'c Panels,
    pub(super) way: W,
    /// Channels of a row of the result, and of x.
    pub(super) shape: [usize; 2],
    pub(super) bias: Option<&'c [f32]>,
    /// Whether it is added to what the result is already; there is no bias then.
    pub(super) adds: bool,
}

impl<W: Met> Product<'_, W> {
    /// As what rows of x are wanted.
    #[inline(always)]
    pub(super) fn rows(&self) -> Rows {
        match self.way.which() {
            Way::Forward => with_format!(self.weight, weight => weight.rows()),
            Way::Float | Way::Turned => Rows::Float,
        }
    }
}
