//! Memory of a cache: reserved for all heads or none, then filled as tokens come.

use super::{KvCache, KvCacheOptions};
use crate::blocks::STRIP;
use crate::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};

impl KvCache {
    /// Memory for `tokens`, all heads or none, none of it touched: doubled when it must grow, so
    /// that appending is linear.
    pub(super) fn reserve(&mut self, tokens: usize) -> Result<(), Error> {
        let wanted = tokens.div_ceil(STRIP);
        if wanted <= self.strips {
            return Ok(());
        }
        let strips = if self.strips == 0 {
            wanted
        } else {
            wanted.max(self.strips * 2)
        };
        let KvCacheOptions {
            batch,
            groups,
            terms,
            head_dim,
            dtype,
            ..
        } = self.options;
        let overflow = || Error::shape("capacity", "a size that fits this machine", tokens);
        let tokens = strips.checked_mul(STRIP).ok_or_else(overflow)?;
        let key_len = tokens.checked_mul(head_dim).ok_or_else(overflow)?;
        let value_len = self.value_shape().len(tokens).ok_or_else(overflow)?;
        let scales = if dtype.is_scaled() { tokens } else { 0 };
        // (Both head counts are small, see `MAX_HEADS`.)
        let (k_heads, v_heads) = (batch * groups * terms, batch * groups);
        let wanted = [
            (dtype.words(key_len), k_heads),
            (dtype.words(value_len), v_heads),
            (scales, k_heads),
            (scales, v_heads),
        ];
        let mut all = 0usize;
        for (len, heads) in wanted {
            let len = len.checked_mul(heads).ok_or_else(overflow)?;
            all = all.checked_add(len).ok_or_else(overflow)?;
        }
        let refused =
            |len: usize| Error::out_of_memory((len as u64).saturating_mul(size_of::<f32>() as u64));
        // Reserve everything first: a refusal leaves the cache as it was. Asked for as one first,
        // as a system that gives out memory it has not refuses one great piece, and never many
        // small ones.
        Vec::<f32>::new()
            .try_reserve_exact(all)
            .map_err(|_| refused(all))?;
        let lists = [
            &mut self.keys,
            &mut self.values,
            &mut self.key_scales,
            &mut self.value_scales,
        ];
        for (lists, (len, heads)) in lists.into_iter().zip(wanted) {
            try_extended(lists, heads)?;
            for list in lists {
                list.try_reserve_exact(len - list.len())
                    .map_err(|_| refused(len))?;
            }
        }
        try_extended(&mut self.special, v_heads)?;
        for special in &mut self.special {
            special
                .try_reserve_exact(strips - special.len())
                .map_err(|_| refused(strips))?;
        }
        self.strips = strips;
        Ok(())
    }

    /// Another cache with the first `length` tokens, in memory for no more: what a call over it
    /// computes has the bits of the same over this one, rewound.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) when it holds fewer, [`Error::out_of_memory`].
    pub fn copy_prefix(&self, length: usize) -> Result<Self, Error> {
        if length > self.length {
            return Err(Error::shape(
                "length",
                format_args!("at most {}, the tokens held", self.length),
                length,
            ));
        }
        let mut copy = Self::new(KvCacheOptions {
            capacity: length,
            ..self.options
        })?;
        // Whole strips, with what lies past the last token, as after a rewind: a strip's flag keeps
        // belonging to its values.
        let strips = length.div_ceil(STRIP);
        let [keys, values, scales] = self.strip_words();
        for (to, from, words) in [
            (&mut copy.keys, &self.keys, keys),
            (&mut copy.values, &self.values, values),
            (&mut copy.key_scales, &self.key_scales, scales),
            (&mut copy.value_scales, &self.value_scales, scales),
        ] {
            for (to, from) in to.iter_mut().zip(from) {
                // (In the memory that was reserved.)
                to.extend_from_slice(&from[..strips * words]);
            }
        }
        for (to, from) in copy.special.iter_mut().zip(&self.special) {
            let flags = from[..strips].iter();
            to.extend(flags.map(|flag| AtomicBool::new(flag.load(Ordering::Relaxed))));
        }
        copy.length = length;
        copy.options.capacity = self.options.capacity;
        Ok(copy)
    }

    /// Makes the lists of each head at least `strips` strips long, in memory that is reserved.
    pub(super) fn fill(&mut self, strips: usize) {
        let [keys, values, scales] = self.strip_words();
        let words = [keys, values, scales, scales];
        let lists = [
            &mut self.keys,
            &mut self.values,
            &mut self.key_scales,
            &mut self.value_scales,
        ];
        for (lists, words) in lists.into_iter().zip(words) {
            for list in lists {
                list.resize((strips * words).max(list.len()), 0.0);
            }
        }
        for special in &mut self.special {
            special.resize_with(strips.max(special.len()), AtomicBool::default);
        }
    }
}

/// Makes a list at least `len` long with empty ones.
fn try_extended<T>(lists: &mut Vec<Vec<T>>, len: usize) -> Result<(), Error> {
    if lists.len() < len {
        lists.try_reserve_exact(len - lists.len()).map_err(|_| {
            Error::out_of_memory((len as u64).saturating_mul(size_of::<Vec<T>>() as u64))
        })?;
        lists.resize_with(len, Vec::new);
    }
    Ok(())
}
