//! Adds tokens to a cache: what fits it, packed into its panels, or row by row rounded to what it
//! holds.

use super::{KvCache, KvCacheOptions};
use crate::attention::held::{CacheDType, Held, held_mut, with_held};
use crate::attention::packed::{PackKeys, PackValues};
use crate::blocks::{PANEL, STRIP};
use crate::error::Error;
use crate::run::buffer::Buffer;
use crate::simd::Isa;
use crate::tensor::axis::{HeadAxis, Layout};
use crate::tensor::shape::{check_len, format_shape};
use crate::tensor::{Data, Tensor};
use std::sync::atomic::Ordering;

impl KvCache {
    /// Adds tokens: k `[B, terms·groups, L, d]` and v `[B, groups, L, dv]` in `layout`, of any type,
    /// rounded once to what the cache holds.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) when they do not fit;
    /// [`Error::out_of_memory`]. The cache is then unchanged.
    pub fn append(&mut self, k: Tensor<'_>, v: Tensor<'_>, layout: Layout) -> Result<(), Error> {
        let KvCacheOptions {
            groups,
            terms,
            head_dim,
            value_dim,
            ..
        } = self.options;
        let k_axis = self.tokens("k", &k, [terms * groups, head_dim], layout)?;
        let v_axis = self.tokens("v", &v, [groups, value_dim], layout)?;
        let added = k_axis.length;
        if v_axis.length != added {
            return Err(Error::shape(
                "v",
                format_args!("{added} tokens as k"),
                v_axis.length,
            ));
        }
        // Without tokens there is nothing to do, however wide a head is.
        if added == 0 {
            return Ok(());
        }
        let panel = PANEL
            .checked_mul(head_dim.max(value_dim))
            .ok_or_else(|| Error::shape("k", "a width that fits this machine", head_dim))?;
        let mut buffer = Buffer::new(panel)?;
        let end = self.make_room(added)?;
        match self.options.dtype {
            CacheDType::F32 => {
                self.pack_keys((k.data, k_axis), end, &mut buffer);
                self.pack_values((v.data, v_axis), end, &mut buffer);
            }
            dtype => with_held!(dtype, E => {
                self.hold_rows::<E>((k.data, k_axis), &mut buffer, Self::hold_key);
                self.hold_rows::<E>((v.data, v_axis), &mut buffer, Self::hold_value);
            }),
        }
        self.length = end;
        Ok(())
    }

    /// Memory for so many more tokens, filled; gives how many there will be.
    pub(super) fn make_room(&mut self, added: usize) -> Result<usize, Error> {
        let end = self
            .length
            .checked_add(added)
            .ok_or_else(|| Error::shape("k", "a length that fits", added))?;
        self.reserve(end)?;
        self.fill(end.div_ceil(STRIP));
        Ok(end)
    }

    /// The axis of tokens of `[heads, width]`, where they fit the cache.
    fn tokens(
        &self,
        argument: &str,
        tensor: &Tensor<'_>,
        [heads, width]: [usize; 2],
        layout: Layout,
    ) -> Result<HeadAxis, Error> {
        let batch = self.options.batch;
        check_len(argument, &tensor.shape, tensor.data.len())?;
        match (tensor.shape.as_slice(), layout) {
            (&[b, h, length, w], Layout::Bhsd) | (&[b, length, h, w], Layout::Bshd)
                if [b, h, w] == [batch, heads, width] =>
            {
                Ok(HeadAxis {
                    batch,
                    heads,
                    length,
                    width,
                    layout,
                })
            }
            _ => {
                let axes = if layout == Layout::Bhsd {
                    "B, heads, L, width"
                } else {
                    "B, L, heads, width"
                };
                Err(Error::shape(
                    argument,
                    format_args!(
                        "[{axes}] with batch {batch}, {heads} heads and width {width}, as the cache"
                    ),
                    format_shape(&tensor.shape),
                ))
            }
        }
    }

    /// Rounds rows of heads and hands each to `hold` with its head, token and scale; there is room
    /// for them past the last token.
    fn hold_rows<E: Held>(
        &mut self,
        (data, axis): (Data<'_>, HeadAxis),
        buffer: &mut [f32],
        hold: fn(&mut Self, [usize; 2], &[E], f32),
    ) {
        let (wide, narrow) = buffer.split_at_mut(axis.width);
        let narrow = &mut held_mut::<E>(narrow)[..axis.width];
        for index in 0..axis.batch * axis.heads {
            let rows = axis.rows(data, index / axis.heads, index % axis.heads, 0);
            for token in 0..axis.length {
                let (row, _) = rows.read(token, 1, wide);
                let scale = E::narrow(row, narrow);
                hold(self, [index, self.length + token], narrow, scale);
            }
        }
    }

    /// Packs float32 keys as tokens from the last to `end`, for which there is room.
    fn pack_keys(&mut self, (data, axis): (Data<'_>, HeadAxis), end: usize, buffer: &mut [f32]) {
        // Panels are the same whatever packed them.
        let isa = Isa::detect();
        for (index, panels) in self.keys.iter_mut().enumerate() {
            let kernel = PackKeys {
                rows: axis.rows(data, index / axis.heads, index % axis.heads, 0),
                from_row: 0,
                first: self.length,
                end,
                panels,
                buffer,
            };
            isa.run(false, kernel);
        }
    }

    /// Packs float32 values as tokens from the last to `end`, for which there is room.
    fn pack_values(&mut self, (data, axis): (Data<'_>, HeadAxis), end: usize, buffer: &mut [f32]) {
        let isa = Isa::detect();
        let shape = self.value_shape();
        for (index, (panels, special)) in self.values.iter_mut().zip(&self.special).enumerate() {
            let rows = axis.rows(data, index / axis.heads, index % axis.heads, 0);
            let mut from = self.length;
            while from < end {
                let strip = from / STRIP;
                let to = ((strip + 1) * STRIP).min(end);
                let memory = &mut panels[strip * shape.strip_len()..][..shape.strip_len()];
                let kernel = PackValues {
                    rows,
                    from_row: from - self.length,
                    first: from,
                    end: to,
                    shape,
                    strip: memory,
                    buffer,
                };
                if isa.run(false, kernel) {
                    special[strip].store(true, Ordering::Relaxed);
                }
                from = to;
            }
        }
    }
}
