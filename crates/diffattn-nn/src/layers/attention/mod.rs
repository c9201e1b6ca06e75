//! Differential attention over rows: what it takes of hidden states, what it makes of keys and
//! values that are held somewhere, and its output projection. Knows no texts, no slices, and not
//! where keys are held.

mod attend;
mod output;
mod project;

pub(crate) use attend::{LayerMask, Queries};
pub(crate) use project::{Projected, Turn, Wanted, Widths};
