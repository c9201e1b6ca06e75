//! Where a call takes its keys and values from.

use super::cache::KvCache;
use super::held::CacheDType;
use crate::tensor::axis::HeadAxis;
use crate::tensor::{Data, Tensor};

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
    /// Everything that a cache holds, of whatever type.
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

/// Keys, and values where they are wanted.
#[derive(Debug)]
pub(super) enum Keys<'a> {
    Tensors {
        k: Tensor<'a>,
        /// None where only maps are wanted.
        v: Option<Tensor<'a>>,
    },
    Cache(&'a KvCache),
}

impl<'a> From<KeysValues<'a>> for Keys<'a> {
    fn from(kv: KeysValues<'a>) -> Self {
        match kv {
            KeysValues::Tensors { k, v } => Self::Tensors { k, v: Some(v) },
            KeysValues::Cache(cache) => Self::Cache(cache),
        }
    }
}

impl<'a> From<KeysOnly<'a>> for Keys<'a> {
    fn from(k: KeysOnly<'a>) -> Self {
        match k {
            KeysOnly::Tensor(k) => Self::Tensors { k, v: None },
            KeysOnly::Cache(cache) => Self::Cache(cache),
        }
    }
}

/// Checked keys, and values where they are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    Tensors {
        k: (Data<'a>, HeadAxis),
        v: Option<(Data<'a>, HeadAxis)>,
    },
    Cache(&'a KvCache),
}

impl Source<'_> {
    /// What keys and values lie as before the kernels.
    pub(super) fn dtype(&self) -> CacheDType {
        match self {
            Self::Tensors { .. } => CacheDType::F32,
            Self::Cache(cache) => cache.options().dtype,
        }
    }

    /// Whether there are values.
    pub(super) fn has_values(&self) -> bool {
        !matches!(self, Self::Tensors { v: None, .. })
    }
}
