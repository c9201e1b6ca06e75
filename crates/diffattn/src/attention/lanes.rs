//! Vectors in slices, as attention names them. Has nothing of its own.

pub(super) use crate::simd::lanes::{load, load_held, store, transpose};
