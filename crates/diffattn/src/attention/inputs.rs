//! Where a call takes its keys and values from.

use super::cache::KvCache;
use crate::shape::Tensor;

/// Keys and values of a call.
#[derive(Debug, Clone)]
pub enum KeysValues<'a> {
    /// Tensors in the call's layout, of q's dtype.
    Tensors {
        /// `[B, n_k, Lk, d]` in the call's layout.
        k: Tensor<'a>,
        /// `[B, n_v, Lk, dv]` in the call's layout.
        v: Tensor<'a>,
    },
    /// Everything that a cache holds.
    Cache(&'a KvCache),
}

/// Keys of a maps call.
#[derive(Debug, Clone)]
pub enum KeysOnly<'a> {
    /// `[B, n_k, Lk, d]` in the call's layout.
    Tensor(Tensor<'a>),
    /// Everything that a cache holds.
    Cache(&'a KvCache),
}
