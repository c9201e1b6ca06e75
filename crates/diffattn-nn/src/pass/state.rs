//! What a layer keeps of the tokens before those of a pass, by kind. A further kind is a variant of
//! each of the enums below; who makes caches, exports or imports them knows no kind.

use diffattn::{CacheDType, CacheRows, Error, KvCache, KvCacheOptions};

/// The name of the kind of keys and values.
const KV: &str = "kv";

/// What the state of a layer for one text is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StateOptions {
    /// Keys and values of every token.
    Kv(KvCacheOptions),
}

/// The state of one layer for one text, by kind.
///
/// There is one kind today. Others have a place here: a recurrent state (of Mamba: a few vectors,
/// which cannot be rewound), and a layer that reads what another keeps (YOCO: no memory of its own,
/// the number of that layer).
#[derive(Debug)]
pub(crate) enum State {
    /// Keys and values of every token.
    Kv(KvCache),
}

/// What one layer of a model held of a text, by kind: a part of a
/// [`ModelCacheState`](crate::ModelCacheState).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LayerState {
    /// Keys and values of every token.
    Kv {
        /// `[num_key_value_heads, tokens, head_dim]`, turned by position.
        keys: CacheRows,
        /// As the keys.
        values: CacheRows,
    },
}

/// A list of numbers of a layer's state: what it is called, what its elements are, its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePart {
    /// Keys and values: `"keys"` and `"values"`, with int8 also `"key_scales"` and
    /// `"value_scales"`.
    pub name: &'static str,
    /// The type of the elements; of int8 the codes.
    pub dtype: CacheDType,
    /// The extent of each axis.
    pub shape: Vec<usize>,
}

/// The elements of a [`StatePart`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PartData<'a> {
    /// float32.
    F32(&'a [f32]),
    /// float16 or bfloat16 bits.
    Halves(&'a [u16]),
    /// Codes of int8.
    Int8(&'a [i8]),
}

impl StateOptions {
    /// The same for so many tokens, held as `dtype`.
    pub(crate) fn holding(mut self, capacity: usize, dtype: CacheDType) -> Self {
        let Self::Kv(options) = &mut self;
        (options.capacity, options.dtype) = (capacity, dtype);
        self
    }
}

impl State {
    /// An empty one.
    pub(crate) fn new(options: &StateOptions) -> Result<Self, Error> {
        let StateOptions::Kv(options) = options;
        KvCache::new(*options).map(Self::Kv)
    }

    /// Whether it is of the kind and sizes that were asked for, whatever it holds numbers as.
    pub(crate) fn fits(&self, wanted: &StateOptions) -> bool {
        let (Self::Kv(cache), StateOptions::Kv(wanted)) = (self, wanted);
        let sizes = |options: &KvCacheOptions| {
            [
                options.batch,
                options.groups,
                options.terms,
                options.head_dim,
                options.value_dim,
            ]
        };
        sizes(cache.options()) == sizes(wanted)
    }

    /// Forgets all but the first `length` tokens, which it holds.
    pub(crate) fn rewind(&mut self, length: usize) {
        let Self::Kv(cache) = self;
        // (Fails only where it holds fewer.)
        let _ = cache.rewind(length);
    }

    /// The name of its kind, as [`LayerState::kind`].
    pub(crate) fn kind(&self) -> &'static str {
        let Self::Kv(_) = self;
        KV
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        let Self::Kv(cache) = self;
        cache.bytes()
    }

    /// Lets go of tokens before the one at `first`, in whole strips; gives how many these are.
    pub(crate) fn discard_before(&mut self, first: usize) -> usize {
        let Self::Kv(cache) = self;
        cache.discard_before(first)
    }

    /// Keys and values, where it is of that kind.
    pub(crate) fn kv(&self) -> &KvCache {
        let Self::Kv(cache) = self;
        cache
    }

    /// Keys and values, to be added to.
    pub(crate) fn kv_mut(&mut self) -> &mut KvCache {
        let Self::Kv(cache) = self;
        cache
    }

    /// Copies everything out.
    pub(crate) fn export(&self) -> Result<LayerState, Error> {
        let Self::Kv(cache) = self;
        let (keys, values) = cache.export()?;
        Ok(LayerState::Kv { keys, values })
    }

    /// What [`State::export`] gives, without copying it out.
    pub(crate) fn parts(&self) -> Vec<StatePart> {
        let Self::Kv(cache) = self;
        let KvCacheOptions {
            groups,
            terms,
            head_dim,
            value_dim,
            dtype,
            ..
        } = *cache.options();
        let of = [
            (["keys", "key_scales"], terms * groups, head_dim),
            (["values", "value_scales"], groups, value_dim),
        ];
        let mut parts = Vec::new();
        for ([name, scales], heads, width) in of {
            parts.push(StatePart {
                name,
                dtype,
                shape: vec![heads, cache.len(), width],
            });
            if dtype == CacheDType::Int8 {
                parts.push(StatePart {
                    name: scales,
                    dtype: CacheDType::F32,
                    shape: vec![heads, cache.len()],
                });
            }
        }
        parts
    }

    /// Takes `tokens` tokens that [`State::export`] gave; it has none. `argument` is what errors
    /// call the layer.
    pub(crate) fn import(
        &mut self,
        state: &LayerState,
        tokens: usize,
        argument: &str,
    ) -> Result<(), Error> {
        let (Self::Kv(cache), LayerState::Kv { keys, values }) = (self, state);
        let KvCacheOptions {
            groups,
            terms,
            head_dim,
            value_dim,
            ..
        } = *cache.options();
        for (name, rows, heads, width) in [
            ("k", keys, terms * groups, head_dim),
            ("v", values, groups, value_dim),
        ] {
            let name = format!("{argument} {name}");
            diffattn::check_len(&name, &[1, heads, tokens, width], rows.len())?;
            if let CacheRows::Int8 { scales, .. } = rows {
                let name = format!("{name} scales");
                diffattn::check_len(&name, &[1, heads, tokens], scales.len())?;
            }
        }
        cache.import(keys, values)
    }
}

impl LayerState {
    /// The name of its kind: `"kv"`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        let Self::Kv { .. } = self;
        KV
    }

    /// What its numbers are held as.
    #[must_use]
    pub fn dtype(&self) -> CacheDType {
        let Self::Kv { keys, .. } = self;
        keys.dtype()
    }

    /// The elements of its parts, as [`ModelCache::parts`](crate::ModelCache::parts) lists them.
    #[must_use]
    pub fn data(&self) -> Vec<PartData<'_>> {
        let Self::Kv { keys, values } = self;
        let mut data = Vec::new();
        for rows in [keys, values] {
            match rows {
                CacheRows::F32(values) => data.push(PartData::F32(values)),
                CacheRows::F16(bits) | CacheRows::Bf16(bits) => data.push(PartData::Halves(bits)),
                CacheRows::Int8 { codes, scales } => {
                    data.push(PartData::Int8(codes));
                    data.push(PartData::F32(scales));
                }
            }
        }
        data
    }

    /// Whether it is of the sizes and elements that are wanted, whatever its capacity.
    pub(crate) fn is_for(&self, wanted: &KvCacheOptions) -> bool {
        let capacity = 0;
        let sizes = |options: &KvCacheOptions| KvCacheOptions {
            capacity,
            ..*options
        };
        sizes(self.options()) == sizes(wanted)
    }

    /// `[k heads, head_dim]` and `[v heads, value_dim]`: what each token has.
    pub(crate) fn token_shapes(&self) -> [[usize; 2]; 2] {
        let KvCacheOptions {
            groups,
            terms,
            head_dim,
            value_dim,
            ..
        } = *self.options();
        [[terms * groups, head_dim], [groups, value_dim]]
    }
}
