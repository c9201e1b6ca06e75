//! Keys and values of past tokens, kept in the kernel's own panels and in one of several types, so
//! that decoding reads them once, as few bytes as they have, and packs nothing.

mod append;
mod memory;
mod rows;

pub use rows::CacheRows;

use super::held::{CacheDType, Held, held, with_held};
use super::packed::{KeyPanels, ValuePanels, ValueShape};
use crate::blocks::{PANEL, STRIP};
use crate::error::Error;
use crate::tensor::shape::check_len;
use std::sync::atomic::{AtomicBool, Ordering};

/// Heads of a cache at most, in all batch entries: nothing but an option answers for their number.
const MAX_HEADS: usize = 1 << 20;

/// What a cache is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvCacheOptions {
    /// Sequences side by side.
    pub batch: usize,
    /// v heads G.
    pub groups: usize,
    /// k heads per group: 2 for interleaved and grouped, 1 for halves and shared.
    pub terms: usize,
    /// d.
    pub head_dim: usize,
    /// dv.
    pub value_dim: usize,
    /// Tokens to reserve memory for at once; it grows past them.
    pub capacity: usize,
    /// What it holds. What is appended, and q, may be of any type.
    pub dtype: CacheDType,
}

/// Keys and values of past tokens: append, rewind, and use wherever k and v are taken.
#[derive(Debug)]
pub struct KvCache {
    options: KvCacheOptions,
    length: usize,
    /// Strips of 256 tokens that each head has memory for; those up to the last token are in its
    /// lists.
    strips: usize,
    /// Panels, as words of memory: one list per (batch, k head); none before the first token or
    /// capacity, as the lists below.
    keys: Vec<Vec<f32>>,
    /// One per (batch, v head).
    values: Vec<Vec<f32>>,
    /// One number per token where the type has them, else empty lists.
    key_scales: Vec<Vec<f32>>,
    value_scales: Vec<Vec<f32>>,
    special: Vec<Vec<AtomicBool>>,
}

impl KvCache {
    /// An empty cache.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) for a zero size and for more than 2²⁰ heads in
    /// all, [`Error::out_of_memory`] when `capacity` cannot be reserved.
    pub fn new(options: KvCacheOptions) -> Result<Self, Error> {
        let KvCacheOptions {
            batch,
            groups,
            terms,
            head_dim,
            value_dim,
            capacity,
            ..
        } = options;
        for (name, size) in [
            ("batch", batch),
            ("groups", groups),
            ("terms", terms),
            ("head_dim", head_dim),
            ("value_dim", value_dim),
        ] {
            if size == 0 {
                return Err(Error::shape(name, "1 or more", size));
            }
        }
        let heads = batch
            .checked_mul(groups)
            .and_then(|heads| heads.checked_mul(terms));
        if heads.is_none_or(|heads| heads > MAX_HEADS) {
            return Err(Error::shape(
                "groups",
                format_args!("at most {MAX_HEADS} heads in all (batch · terms · groups)"),
                format_args!("{batch} · {terms} · {groups}"),
            ));
        }
        let mut cache = Self {
            options,
            length: 0,
            strips: 0,
            keys: Vec::new(),
            values: Vec::new(),
            key_scales: Vec::new(),
            value_scales: Vec::new(),
            special: Vec::new(),
        };
        cache.reserve(capacity)?;
        Ok(cache)
    }

    /// What it was made for.
    #[must_use]
    pub fn options(&self) -> &KvCacheOptions {
        &self.options
    }

    /// Tokens held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes of memory it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let lists = [
            &self.keys,
            &self.values,
            &self.key_scales,
            &self.value_scales,
        ];
        let words = lists.into_iter().flatten().map(Vec::capacity);
        words.sum::<usize>() * size_of::<f32>()
    }

    /// Forgets all but the first `length` tokens. Keeps the memory.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) when it holds fewer.
    pub fn rewind(&mut self, length: usize) -> Result<(), Error> {
        if length > self.length {
            return Err(Error::shape(
                "length",
                format_args!("at most {}, the tokens held", self.length),
                length,
            ));
        }
        self.length = length;
        Ok(())
    }

    /// Forgets the first tokens, for windows: as many whole strips of 256 as lie before token
    /// `token` (counted among those held), so that rows over what remains keep their bits. Gives
    /// how many tokens these are; [`KvCache::len`] is less by them, and all others are counted from
    /// there. Keeps the memory.
    pub fn discard_before(&mut self, token: usize) -> usize {
        let strips = token.min(self.length) / STRIP;
        let used = self.length.div_ceil(STRIP);
        if strips == 0 {
            return 0;
        }
        // Whole strips, with what lies past the last token: a strip's flag keeps belonging to its
        // values.
        let [key_len, value_len, scales] = self.strip_words();
        for (buffers, len) in [
            (&mut self.keys, key_len),
            (&mut self.values, value_len),
            (&mut self.key_scales, scales),
            (&mut self.value_scales, scales),
        ] {
            for buffer in buffers {
                buffer.copy_within(strips * len..used * len, 0);
            }
        }
        for special in &mut self.special {
            for strip in strips..used {
                let flag = special[strip].load(Ordering::Relaxed);
                special[strip - strips].store(flag, Ordering::Relaxed);
            }
        }
        self.length -= strips * STRIP;
        strips * STRIP
    }

    /// Copies one token's row of k head `head` (of `terms·groups`) to `to`, which has `head_dim`
    /// values, as float32.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) when there is no such row, or `to` has another
    /// length.
    pub fn key(
        &self,
        batch: usize,
        head: usize,
        token: usize,
        to: &mut [f32],
    ) -> Result<(), Error> {
        let KvCacheOptions {
            groups,
            terms,
            head_dim,
            dtype,
            ..
        } = self.options;
        for (name, index, count) in [
            ("batch", batch, self.options.batch),
            ("head", head, terms * groups),
            ("token", token, self.length),
        ] {
            if index >= count {
                return Err(Error::shape(
                    name,
                    format_args!("a number below {count}"),
                    index,
                ));
            }
        }
        check_len("to", &[head_dim], to.len())?;
        let keys = self.keys(batch, head);
        let first = token / PANEL * PANEL * head_dim + token % PANEL;
        let scale = keys.scales.get(token).copied().unwrap_or(1.0);
        with_held!(dtype, E => {
            let keys = held::<E>(keys.words)[first..].iter().step_by(PANEL);
            for (to, value) in to.iter_mut().zip(keys) {
                *to = value.widen() * scale;
            }
        });
        Ok(())
    }

    /// Words of memory that a strip of a k head takes, one of a v head, and the scales of either.
    fn strip_words(&self) -> [usize; 3] {
        let KvCacheOptions {
            head_dim, dtype, ..
        } = self.options;
        [
            dtype.words(STRIP * head_dim),
            dtype.words(self.value_shape().strip_len()),
            if dtype.is_scaled() { STRIP } else { 0 },
        ]
    }

    pub(super) fn value_shape(&self) -> ValueShape {
        ValueShape::new(STRIP, self.options.value_dim)
    }

    pub(super) fn keys(&self, batch: usize, head: usize) -> KeyPanels<'_> {
        let heads = self.options.terms * self.options.groups;
        let index = batch * heads + head;
        KeyPanels {
            words: list(&self.keys, index),
            dtype: self.options.dtype,
            scales: list(&self.key_scales, index),
            width: self.options.head_dim,
        }
    }

    pub(super) fn values(&self, batch: usize, head: usize) -> ValuePanels<'_> {
        let index = batch * self.options.groups + head;
        ValuePanels {
            words: list(&self.values, index),
            dtype: self.options.dtype,
            scales: list(&self.value_scales, index),
            shape: self.value_shape(),
            special: list(&self.special, index),
        }
    }
}

/// The list of that number; an empty one where there is none.
fn list<T>(lists: &[Vec<T>], index: usize) -> &[T] {
    lists.get(index).map_or(&[], Vec::as_slice)
}
