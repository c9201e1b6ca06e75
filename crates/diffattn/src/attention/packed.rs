//! Keys and values in the panels that the kernels read. K: panels of 16 keys,
//! `[panel][channel][key]`. V: strips of 256 keys, `[strip][panel of 16 channels][key][channel]`.
//! Both serve prefill and decode on every instruction set. Packing for a call widens halves to
//! float32; a cache's panels are of the type that it holds. Knows nothing of heads or masks.

use super::held::{CacheDType, Held, held, with_held};
use super::lanes::{load, load_held, store};
use crate::blocks::{PANEL, STRIP};
use crate::simd::{Kernel, Vector, transpose, widen};
use crate::tensor::axis::Rows;
use half::{bf16, f16};
use std::sync::atomic::{AtomicBool, Ordering};

/// Keys to which packed K is rounded up: the widest decode tile, four vectors of 16 keys.
pub(super) const KEY_ROUND: usize = 4 * PANEL;

/// Float32 values that packed K of `keys` keys takes.
pub(super) fn keys_len(keys: usize, width: usize) -> Option<usize> {
    keys.checked_next_multiple_of(KEY_ROUND)?.checked_mul(width)
}

/// The shape of packed V.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ValueShape {
    /// Channels.
    pub(super) width: usize,
    /// Keys of a panel: [`STRIP`], or fewer when there is only one, shorter strip.
    pub(super) panel_keys: usize,
}

impl ValueShape {
    pub(super) fn new(keys: usize, width: usize) -> Self {
        Self {
            width,
            panel_keys: keys.next_multiple_of(PANEL).clamp(PANEL, STRIP),
        }
    }

    /// Channels with padding.
    pub(super) fn padded(&self) -> usize {
        self.width.next_multiple_of(PANEL)
    }

    pub(super) fn panel_len(&self) -> usize {
        self.panel_keys * PANEL
    }

    pub(super) fn strip_len(&self) -> usize {
        self.panel_keys * self.padded()
    }

    /// Where (`key`, `channel`) lies.
    #[inline(always)]
    pub(super) fn index(&self, key: usize, channel: usize) -> usize {
        key / STRIP * self.strip_len()
            + channel / PANEL * self.panel_len()
            + key % STRIP * PANEL
            + channel % PANEL
    }

    /// Float32 values that `keys` keys take.
    pub(super) fn len(&self, keys: usize) -> Option<usize> {
        keys.div_ceil(STRIP)
            .checked_mul(self.panel_keys)?
            .checked_mul(self.width.checked_next_multiple_of(PANEL)?)
    }
}

/// Packed K of one head, to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyPanels<'a> {
    /// Words of memory of `dtype`.
    pub(super) words: &'a [f32],
    pub(super) dtype: CacheDType,
    /// One per key, where the type has them.
    pub(super) scales: &'a [f32],
    pub(super) width: usize,
}

impl KeyPanels<'_> {
    /// Channel 0 of `key`; channel c lies `c · PANEL` further, the next keys of the panel beside
    /// it.
    #[inline(always)]
    pub(super) fn at<E: Held>(&self, key: usize) -> *const E {
        debug_assert!((key / PANEL + 1) * PANEL * self.width <= held::<E>(self.words).len());
        let first = self.words.as_ptr().cast::<E>();
        first.wrapping_add(key / PANEL * PANEL * self.width + key % PANEL)
    }

    /// The scales of N vectors of keys from `key` on, where there are any.
    #[inline(always)]
    pub(super) fn scales<V: Vector, const N: usize>(&self, key: usize) -> [V; N] {
        let mut scales = [V::splat(1.0); N];
        let from = self.scales[key..].chunks_exact(V::LANES);
        for (to, from) in scales.iter_mut().zip(from) {
            *to = load(from);
        }
        scales
    }

    /// Keys `key..key + keys`, whole panels, as float32, to be read as [`KeyPanels::at`] says:
    /// where they lie or in `buffer`, which has room for them.
    // (Not against the law of `Vector`: WebAssembly's features are the module's, not a function's.)
    #[cfg_attr(target_arch = "wasm32", inline(never))]
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    pub(super) fn near<V: Vector>(
        &self,
        key: usize,
        keys: usize,
        buffer: &mut [f32],
    ) -> *const f32 {
        let range = key * self.width..(key + keys) * self.width;
        match self.dtype {
            CacheDType::F32 => return self.at(key),
            CacheDType::F16 => widen::<V, f16>(&held(self.words)[range], buffer),
            CacheDType::Bf16 => widen::<V, bf16>(&held(self.words)[range], buffer),
            CacheDType::Int8 => {
                let panels = held::<i8>(self.words)[range].chunks_exact(PANEL * self.width);
                let scales = self.scales[key..].chunks_exact(PANEL);
                let to = buffer.chunks_exact_mut(PANEL * self.width);
                for ((panel, scales), to) in panels.zip(scales).zip(to) {
                    let rows = panel.chunks_exact(PANEL).zip(to.chunks_exact_mut(PANEL));
                    for (codes, to) in rows {
                        for ((codes, scales), to) in codes
                            .chunks_exact(V::LANES)
                            .zip(scales.chunks_exact(V::LANES))
                            .zip(to.chunks_exact_mut(V::LANES))
                        {
                            store(load_held::<V, i8>(codes).mul(load::<V>(scales)), to);
                        }
                    }
                }
                buffer
            }
        }
        .as_ptr()
    }
}

/// Packed V of one head, to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct ValuePanels<'a> {
    /// Words of memory of `dtype`.
    pub(super) words: &'a [f32],
    pub(super) dtype: CacheDType,
    /// One per key, where the type has them.
    pub(super) scales: &'a [f32],
    pub(super) shape: ValueShape,
    /// Per strip: whether a value is NaN or infinite, so that a masked key's 0 · value would not be
    /// 0.
    pub(super) special: &'a [AtomicBool],
}

impl ValuePanels<'_> {
    /// (`key`, `channel`); the next key lies `PANEL` further, the next channels of the panel beside
    /// it.
    #[inline(always)]
    pub(super) fn at<E: Held>(&self, key: usize, channel: usize) -> *const E {
        let index = self.shape.index(key, channel);
        debug_assert!(index < held::<E>(self.words).len());
        self.words.as_ptr().cast::<E>().wrapping_add(index)
    }

    /// Channels of one panel, `channel..channel + PANEL`, of `keys` keys from `first` on, all of
    /// one strip, as float32, to be read as [`ValuePanels::at`] says: where they lie or in
    /// `buffer`, which has room for them.
    // (Not against the law of `Vector`: WebAssembly's features are the module's, not a function's.)
    #[cfg_attr(target_arch = "wasm32", inline(never))]
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    pub(super) fn near<V: Vector>(
        &self,
        first: usize,
        keys: usize,
        channel: usize,
        buffer: &mut [f32],
    ) -> *const f32 {
        let start = self.shape.index(first, channel);
        let range = start..start + keys * PANEL;
        match self.dtype {
            CacheDType::F32 => return self.at(first, channel),
            CacheDType::F16 => widen::<V, f16>(&held(self.words)[range], buffer),
            CacheDType::Bf16 => widen::<V, bf16>(&held(self.words)[range], buffer),
            CacheDType::Int8 => {
                let codes = held::<i8>(self.words)[range].chunks_exact(PANEL);
                let rows = codes.zip(&self.scales[first..first + keys]);
                for ((codes, &scale), to) in rows.zip(buffer.chunks_exact_mut(PANEL)) {
                    let codes = codes.chunks_exact(V::LANES);
                    for (codes, to) in codes.zip(to.chunks_exact_mut(V::LANES)) {
                        store(load_held::<V, i8>(codes).mul(V::splat(scale)), to);
                    }
                }
                buffer
            }
        }
        .as_ptr()
    }

    #[inline(always)]
    pub(super) fn is_special(&self, strip: usize) -> bool {
        self.special
            .get(strip)
            .is_some_and(|special| special.load(Ordering::Relaxed))
    }

    /// (`key`, `channel`) as float32.
    pub(super) fn value(&self, key: usize, channel: usize) -> f32 {
        let index = self.shape.index(key, channel);
        let scale = self.scales.get(key).copied().unwrap_or(1.0);
        with_held!(self.dtype, E => held::<E>(self.words)[index].widen()) * scale
    }

    /// Channels `channel..channel + PANEL` of `keys` keys from `first`, with NaN and infinities as
    /// zeros.
    #[cold]
    pub(super) fn finite_copy<V: Vector>(
        &self,
        first: usize,
        keys: usize,
        channel: usize,
        to: &mut [f32],
    ) {
        let panel = channel / PANEL * PANEL;
        let to = &mut to[..keys * PANEL];
        if self.dtype == CacheDType::F32 {
            to.copy_from_slice(&self.words[self.shape.index(first, panel)..][..keys * PANEL]);
        } else {
            self.near::<V>(first, keys, panel, to);
        }
        for value in to {
            if !value.is_finite() {
                *value = 0.0;
            }
        }
    }

    /// Calls `each(key, channel, value)` for every NaN and infinity among `keys` keys from `first`.
    #[cold]
    pub(super) fn each_special(
        &self,
        first: usize,
        keys: usize,
        mut each: impl FnMut(usize, usize, f32),
    ) {
        for key in first..first + keys {
            for channel in 0..self.shape.width {
                let value = self.value(key, channel);
                if !value.is_finite() {
                    each(key, channel, value);
                }
            }
        }
    }
}

/// Packs rows `from_row..` of `rows` as keys `first..end` into the K panels of a head (`panels`
/// starts at key 0).
pub(super) struct PackKeys<'t> {
    pub(super) rows: Rows<'t>,
    pub(super) from_row: usize,
    pub(super) first: usize,
    pub(super) end: usize,
    pub(super) panels: &'t mut [f32],
    /// Scratch of [`PANEL`] rows.
    pub(super) buffer: &'t mut [f32],
}

impl Kernel for PackKeys<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let width = self.rows.width;
        let mut key = self.first;
        while key < self.end {
            let count = ((key / PANEL + 1) * PANEL).min(self.end) - key;
            let row = self.from_row + key - self.first;
            self.rows.prefetch::<V>(row + count, row + self.end - key);
            let (from, stride) = self.rows.read(row, count, self.buffer);
            let panel = &mut self.panels[key / PANEL * PANEL * width..][..PANEL * width];
            // SAFETY: `count` rows of `width` values, as `read` gives them; a panel is
            // [width][PANEL], and these keys end with it.
            unsafe {
                let to = panel.as_mut_ptr().add(key % PANEL);
                transpose::<V>((from.as_ptr(), stride), (to, PANEL), count, width);
            }
            key += count;
        }
    }
}

/// Packs rows `from_row..` of `rows` as keys `first..end`, all of one strip, into the V panels of
/// that strip. Gives whether a value was NaN or infinite.
pub(super) struct PackValues<'t> {
    pub(super) rows: Rows<'t>,
    pub(super) from_row: usize,
    pub(super) first: usize,
    pub(super) end: usize,
    pub(super) shape: ValueShape,
    pub(super) strip: &'t mut [f32],
    /// Scratch of [`PANEL`] rows.
    pub(super) buffer: &'t mut [f32],
}

impl Kernel for PackValues<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<V: Vector>(self) -> bool {
        let Self { shape, first, .. } = self;
        // A sum of x·0 is NaN exactly when one x is NaN or infinite; cheaper than a test per value.
        let (mut probe, zero) = ([V::splat(0.0); PANEL], V::splat(0.0));
        let mut is_special = false;
        let mut key = first;
        while key < self.end {
            // A few keys at a time: their rows stay in L1 while the panels, far apart, are written
            // one by one.
            let count = PANEL.min(self.end - key);
            let row = self.from_row + key - first;
            self.rows.prefetch::<V>(row + count, row + self.end - key);
            let (from, stride) = self.rows.read(row, count, self.buffer);
            for (panel, channel) in (0..shape.width).step_by(PANEL).enumerate() {
                let channels = PANEL.min(shape.width - channel);
                let start = panel * shape.panel_len() + key % STRIP * PANEL;
                let to = &mut self.strip[start..start + count * PANEL];
                for (i, to) in to.chunks_exact_mut(PANEL).enumerate() {
                    let from = &from[i * stride + channel..][..channels];
                    if channels < PANEL {
                        to[..channels].copy_from_slice(from);
                        is_special |= from.iter().any(|value| !value.is_finite());
                        continue;
                    }
                    for n in 0..PANEL / V::LANES {
                        let values = load::<V>(&from[n * V::LANES..]);
                        store(values, &mut to[n * V::LANES..]);
                        probe[n] = values.mul_add(zero, probe[n]);
                    }
                }
            }
            key += count;
        }
        let mut sums = [0.0; PANEL];
        for (probe, sums) in probe.iter().zip(sums.chunks_exact_mut(V::LANES)) {
            store(*probe, sums);
        }
        is_special || sums.iter().any(|sum| sum.is_nan())
    }
}
