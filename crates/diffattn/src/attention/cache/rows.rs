//! Rows of a cache as it holds them: put into its panels one by one, copied out and taken back,
//! which changes no bit of them.

use super::{KvCache, KvCacheOptions};
use crate::attention::held::{CacheDType, Held, held, held_mut, with_held};
use crate::blocks::{PANEL, STRIP};
use crate::error::Error;
use crate::run::buffer::try_zeroed;
use crate::tensor::axis::Layout;
use crate::tensor::shape::check_len;
use crate::tensor::{Data, Tensor};
use half::vec::HalfFloatVecExt;
use std::sync::atomic::Ordering;

/// Keys or values of a cache, `[B, heads, L, width]`, as it holds them.
#[derive(Debug, Clone, PartialEq)]
pub enum CacheRows {
    /// float32.
    F32(Vec<f32>),
    /// float16 bits.
    F16(Vec<u16>),
    /// bfloat16 bits.
    Bf16(Vec<u16>),
    /// int8: a number is code · scale, rounded to float32.
    Int8 {
        /// `[B, heads, L, width]`.
        codes: Vec<i8>,
        /// `[B, heads, L]`.
        scales: Vec<f32>,
    },
}

impl CacheRows {
    /// What they are held as.
    #[must_use]
    pub fn dtype(&self) -> CacheDType {
        match self {
            Self::F32(_) => CacheDType::F32,
            Self::F16(_) => CacheDType::F16,
            Self::Bf16(_) => CacheDType::Bf16,
            Self::Int8 { .. } => CacheDType::Int8,
        }
    }

    /// How many numbers they are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(bits) | Self::Bf16(bits) => bits.len(),
            Self::Int8 { codes, .. } => codes.len(),
        }
    }

    /// Whether they are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers, as attention sees them; `width` of them are a row.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) when they are not whole rows with a scale
    /// each; [`Error::out_of_memory`].
    pub fn to_f32(&self, width: usize) -> Result<Vec<f32>, Error> {
        match self {
            Self::F32(values) => Data::F32(values).to_f32(),
            Self::F16(bits) => Data::F16(bits).to_f32(),
            Self::Bf16(bits) => Data::Bf16(bits).to_f32(),
            Self::Int8 { codes, scales } => {
                check_len("codes", &[scales.len(), width], codes.len())?;
                let mut values = try_zeroed(codes.len())?;
                for (index, (to, &code)) in values.iter_mut().zip(codes).enumerate() {
                    *to = f32::from(code) * scales[index / width];
                }
                Ok(values)
            }
        }
    }

    /// As a tensor, where they are floats.
    fn floats(&self, shape: [usize; 4]) -> Option<Tensor<'_>> {
        let data = match self {
            Self::F32(values) => Data::F32(values),
            Self::F16(bits) => Data::F16(bits),
            Self::Bf16(bits) => Data::Bf16(bits),
            Self::Int8 { .. } => return None,
        };
        let shape = shape.to_vec();
        Some(Tensor { data, shape })
    }
}

impl KvCache {
    /// Puts a row into the panels of k head `index` (of all batch entries), for which there is
    /// room.
    pub(super) fn hold_key<E: Held>(&mut self, [index, token]: [usize; 2], row: &[E], scale: f32) {
        let first = token / PANEL * PANEL * row.len() + token % PANEL;
        let panels = &mut held_mut::<E>(&mut self.keys[index])[first..];
        for (to, &value) in panels.iter_mut().step_by(PANEL).zip(row) {
            *to = value;
        }
        if E::SCALED {
            self.key_scales[index][token] = scale;
        }
    }

    /// As [`KvCache::hold_key`], into the panels of v head `index`.
    pub(super) fn hold_value<E: Held>(
        &mut self,
        [index, token]: [usize; 2],
        row: &[E],
        scale: f32,
    ) {
        let shape = self.value_shape();
        let panels = held_mut::<E>(&mut self.values[index]);
        for (panel, row) in row.chunks(PANEL).enumerate() {
            panels[shape.index(token, panel * PANEL)..][..row.len()].copy_from_slice(row);
        }
        if E::SCALED {
            self.value_scales[index][token] = scale;
        }
        if !scale.is_finite() || row.iter().any(|value| value.is_special()) {
            self.special[index][token / STRIP].store(true, Ordering::Relaxed);
        }
    }

    /// Copies the tokens out, as the cache holds them: k `[B, terms·groups, L, d]` and v `[B,
    /// groups, L, dv]`. [`KvCache::import`] takes them back.
    ///
    /// # Errors
    /// [`Error::out_of_memory`].
    pub fn export(&self) -> Result<(CacheRows, CacheRows), Error> {
        let KvCacheOptions {
            groups,
            terms,
            head_dim,
            value_dim,
            dtype,
            ..
        } = self.options;
        with_held!(dtype, E => {
            let k_heads = terms * groups;
            let k = self.copied::<E>([self.keys.len(), head_dim], |index, token, row| {
                let keys = self.keys(index / k_heads, index % k_heads);
                let first = token / PANEL * PANEL * head_dim + token % PANEL;
                let from = held::<E>(keys.words)[first..].iter().step_by(PANEL);
                for (to, &value) in row.iter_mut().zip(from) {
                    *to = value;
                }
                keys.scales.get(token).copied()
            })?;
            let v = self.copied::<E>([self.values.len(), value_dim], |index, token, row| {
                let values = self.values(index / groups, index % groups);
                for (panel, row) in row.chunks_mut(PANEL).enumerate() {
                    let first = values.shape.index(token, panel * PANEL);
                    row.copy_from_slice(&held::<E>(values.words)[first..][..row.len()]);
                }
                values.scales.get(token).copied()
            })?;
            Ok((k, v))
        })
    }

    /// Rows of `[heads, width]`, each as `read` gives it with its head and token.
    fn copied<E: Exported>(
        &self,
        [heads, width]: [usize; 2],
        read: impl Fn(usize, usize, &mut [E]) -> Option<f32>,
    ) -> Result<CacheRows, Error> {
        let mut values = try_zeroed(heads * self.length * width)?;
        let mut scales = try_zeroed(if E::SCALED { heads * self.length } else { 0 })?;
        for (at, row) in values.chunks_exact_mut(width).enumerate() {
            let scale = read(at / self.length, at % self.length, row);
            if let (Some(scale), Some(to)) = (scale, scales.get_mut(at)) {
                *to = scale;
            }
        }
        Ok(E::rows(values, scales))
    }

    /// Adds the tokens that [`KvCache::export`] copied out of a cache of the same sizes. Floats may
    /// come from a cache of another type and are rounded, as [`KvCache::append`] does; codes go
    /// into a cache of codes alone.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `k` or `v`, and
    /// [`ErrorKind::Dtype`](crate::ErrorKind::Dtype), when they do not fit;
    /// [`Error::out_of_memory`]. The cache is then unchanged.
    pub fn import(&mut self, k: &CacheRows, v: &CacheRows) -> Result<(), Error> {
        let KvCacheOptions {
            batch,
            groups,
            terms,
            head_dim,
            value_dim,
            dtype,
            ..
        } = self.options;
        let (k_heads, v_heads) = (batch * groups * terms, batch * groups);
        let added = k.len() / (k_heads * head_dim);
        check_len("k", &[batch, terms * groups, added, head_dim], k.len())?;
        check_len("v", &[batch, groups, added, value_dim], v.len())?;
        let k_floats = k.floats([batch, terms * groups, added, head_dim]);
        let v_floats = v.floats([batch, groups, added, value_dim]);
        if let (Some(k), Some(v)) = (k_floats, v_floats) {
            return self.append(k, v, Layout::Bhsd);
        }
        for (argument, rows) in [("k", k), ("v", v)] {
            if rows.dtype() != CacheDType::Int8 || dtype != CacheDType::Int8 {
                return Err(Error::dtype(
                    argument,
                    format_args!("{} as the cache", dtype.name()),
                    rows.dtype().name(),
                ));
            }
        }
        let (
            CacheRows::Int8 { codes, scales },
            CacheRows::Int8 {
                codes: v_codes,
                scales: v_scales,
            },
        ) = (k, v)
        else {
            return Ok(());
        };
        check_len("k scales", &[k_heads, added], scales.len())?;
        check_len("v scales", &[v_heads, added], v_scales.len())?;
        let end = self.make_room(added)?;
        for (at, row) in codes.chunks_exact(head_dim).enumerate() {
            let place = [at / added, self.length + at % added];
            self.hold_key(place, row, scales[at]);
        }
        for (at, row) in v_codes.chunks_exact(value_dim).enumerate() {
            let place = [at / added, self.length + at % added];
            self.hold_value(place, row, v_scales[at]);
        }
        self.length = end;
        Ok(())
    }
}

/// Numbers as a list that a caller gets.
trait Exported: Held {
    fn rows(values: Vec<Self>, scales: Vec<f32>) -> CacheRows;
}

impl Exported for f32 {
    fn rows(values: Vec<f32>, _: Vec<f32>) -> CacheRows {
        CacheRows::F32(values)
    }
}

impl Exported for half::f16 {
    fn rows(values: Vec<Self>, _: Vec<f32>) -> CacheRows {
        CacheRows::F16(values.reinterpret_into())
    }
}

impl Exported for half::bf16 {
    fn rows(values: Vec<Self>, _: Vec<f32>) -> CacheRows {
        CacheRows::Bf16(values.reinterpret_into())
    }
}

impl Exported for i8 {
    fn rows(codes: Vec<i8>, scales: Vec<f32>) -> CacheRows {
        CacheRows::Int8 { codes, scales }
    }
}
