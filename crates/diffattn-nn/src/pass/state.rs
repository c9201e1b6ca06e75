//! What a layer keeps of the tokens before those of a pass, by kind. A further kind is a variant of
//! each of the enums below; who makes caches, exports or imports them knows no kind.

mod prefix;

use super::marks::Recurrent;
use crate::layers::{Attention, Mixer};
use diffattn::{CacheDType, CacheRows, Error, KvCache, KvCacheOptions, check_len};

/// The name of the kind of keys and values.
const KV: &str = "kv";

/// The name of the kind of recurrent states.
const RECURRENT: &str = "recurrent";

/// The name of the kind that keeps nothing.
const NOTHING: &str = "none";

/// What the state of a layer for one text is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateOptions {
    /// Keys and values of every token, or of those in a window.
    Kv {
        options: KvCacheOptions,
        /// Tokens that each token sees, itself included.
        window: Option<usize>,
    },
    /// Of a recurrent layer: values of the convolution's window, and of the scan.
    Recurrent { window: usize, scan: usize },
    /// Nothing: what the layer needs, others keep.
    Nothing,
}

/// The state of one layer for one text, by kind.
#[derive(Debug)]
pub(crate) enum State {
    /// Keys and values.
    Kv(Kv),
    /// A recurrent state, which can be taken back to where it was marked.
    Recurrent(Recurrent),
    /// Nothing.
    Nothing,
}

/// Keys and values of the last tokens.
#[derive(Debug)]
pub(crate) struct Kv {
    pub(crate) cache: KvCache,
    /// Tokens before them, of which it holds nothing any more.
    pub(crate) discarded: usize,
    /// Tokens that each token sees, itself included, where the layer says so.
    window: Option<usize>,
}

/// What one layer of a model held of a text, by kind: a part of a
/// [`ModelCacheState`](crate::ModelCacheState).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LayerState {
    /// Keys and values of every token, or of the last ones where the layer has a window.
    Kv {
        /// `[k heads, tokens, head_dim]`, turned by position.
        keys: CacheRows,
        /// `[v heads, tokens, value_dim]`.
        values: CacheRows,
    },
    /// The state of a recurrent layer behind all tokens.
    Recurrent {
        /// The convolution's last inputs, `[taps − 1, channels]`, oldest first.
        window: Vec<f32>,
        /// The scan's state, as [`diffattn::SelectiveScan`] has it.
        scan: Vec<f32>,
    },
    /// Of a layer that reads what others keep.
    Nothing,
}

/// A list of numbers of a layer's state: what it is called, what its elements are, its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePart {
    /// Keys and values: `"keys"` and `"values"`, with int8 also `"key_scales"` and
    /// `"value_scales"`. Recurrent states: `"window"` and `"scan"`.
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
    /// What a layer keeps of one text, before it is said how many tokens and how it holds them.
    pub(crate) fn of(mixer: Mixer<'_>) -> Self {
        match mixer {
            Mixer::Attention(Attention {
                layer,
                window,
                keys_of: None,
            }) => Self::Kv {
                options: layer.cache_options(1, 0),
                window,
            },
            Mixer::Mamba(mamba) => {
                let [window, scan] = mamba.state_lens();
                Self::Recurrent { window, scan }
            }
            Mixer::Attention(_) | Mixer::MemoryGate(_) => Self::Nothing,
        }
    }

    /// The same for so many tokens, their keys and values held as `dtype`.
    pub(crate) fn holding(mut self, capacity: usize, dtype: CacheDType) -> Self {
        if let Self::Kv { options, .. } = &mut self {
            (options.capacity, options.dtype) = (capacity, dtype);
        }
        self
    }

    /// Whether it is a recurrent state.
    pub(crate) fn recurs(&self) -> bool {
        matches!(self, Self::Recurrent { .. })
    }

    /// Tokens whose keys and values a layer without a window of its own held.
    pub(crate) fn held(&self, state: &LayerState) -> Option<usize> {
        let (
            Self::Kv {
                options,
                window: None,
            },
            LayerState::Kv { keys, .. },
        ) = (self, state)
        else {
            return None;
        };
        let row = options.terms.saturating_mul(options.groups);
        keys.len().checked_div(row.saturating_mul(options.head_dim))
    }

    /// Tokens that each token sees, itself included, where the layer says so.
    pub(crate) fn window(&self) -> Option<usize> {
        match self {
            Self::Kv { window, .. } => *window,
            Self::Recurrent { .. } | Self::Nothing => None,
        }
    }
}

impl State {
    /// An empty one; `is_kept`: whether it outlives a pass, and may be taken back.
    pub(crate) fn new(options: &StateOptions, is_kept: bool) -> Result<Self, Error> {
        Ok(match *options {
            StateOptions::Kv { options, window } => Self::Kv(Kv {
                cache: KvCache::new(options)?,
                discarded: 0,
                window,
            }),
            StateOptions::Recurrent { window, scan } => {
                Self::Recurrent(Recurrent::new([window, scan], is_kept)?)
            }
            StateOptions::Nothing => Self::Nothing,
        })
    }

    /// Whether it is of the kind and sizes that were asked for, whatever it holds numbers as.
    pub(crate) fn fits(&self, wanted: &StateOptions) -> bool {
        let sizes = |options: &KvCacheOptions| {
            [
                options.batch,
                options.groups,
                options.terms,
                options.head_dim,
                options.value_dim,
            ]
        };
        match (self, wanted) {
            (Self::Kv(kv), StateOptions::Kv { options, window }) => {
                sizes(kv.cache.options()) == sizes(options) && kv.window == *window
            }
            (Self::Recurrent(recurrent), StateOptions::Recurrent { window, scan }) => {
                recurrent.lens() == [*window, *scan]
            }
            (Self::Nothing, StateOptions::Nothing) => true,
            _ => false,
        }
    }

    /// Forgets all but the first `length` tokens of the text: a length that [`State::can_be_at`]
    /// agreed to.
    pub(crate) fn rewind(&mut self, length: usize) {
        match self {
            Self::Kv(kv) => {
                if length == 0 {
                    kv.discarded = 0;
                }
                // (Fails only where it holds fewer.)
                let _ = kv.cache.rewind(length.saturating_sub(kv.discarded));
            }
            Self::Recurrent(recurrent) => recurrent.rewind(length),
            Self::Nothing => {}
        }
    }

    /// Whether it can be taken back to `length` tokens and go on from there, where a call's window
    /// is `given`.
    pub(crate) fn can_be_at(&self, length: usize, given: Option<usize>) -> bool {
        match self {
            _ if length == 0 => true,
            Self::Kv(kv) => kv.discarded <= kv.first_seen(length, given),
            Self::Recurrent(recurrent) => recurrent.lengths().any(|tokens| tokens == length),
            Self::Nothing => true,
        }
    }

    /// The name of its kind, as [`LayerState::kind`].
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Kv(_) => KV,
            Self::Recurrent(_) => RECURRENT,
            Self::Nothing => NOTHING,
        }
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Kv(kv) => kv.cache.bytes(),
            Self::Recurrent(recurrent) => recurrent.bytes(),
            Self::Nothing => 0,
        }
    }

    /// Lets go of tokens that none from the one at `position` on sees, in whole strips.
    pub(crate) fn discard_before(&mut self, position: usize, given: Option<usize>) {
        if let Self::Kv(kv) = self {
            let first = kv.first_seen(position, given).max(kv.discarded);
            kv.discarded += kv.cache.discard_before(first - kv.discarded);
        }
    }

    /// Keys and values, where it is of that kind.
    pub(crate) fn kv(&self) -> Option<&Kv> {
        match self {
            Self::Kv(kv) => Some(kv),
            Self::Recurrent(_) | Self::Nothing => None,
        }
    }

    /// Keys and values, to be added to.
    pub(crate) fn cache_mut(&mut self) -> Result<&mut KvCache, Error> {
        match self {
            Self::Kv(kv) => Ok(&mut kv.cache),
            Self::Recurrent(_) | Self::Nothing => Err(of_another_kind()),
        }
    }

    /// A recurrent state, where it is of that kind.
    pub(crate) fn recurrent(&self) -> Option<&Recurrent> {
        match self {
            Self::Recurrent(recurrent) => Some(recurrent),
            Self::Kv(_) | Self::Nothing => None,
        }
    }

    /// A recurrent state, to go on with.
    pub(crate) fn recurrent_mut(&mut self) -> Result<&mut Recurrent, Error> {
        match self {
            Self::Recurrent(recurrent) => Ok(recurrent),
            Self::Kv(_) | Self::Nothing => Err(of_another_kind()),
        }
    }

    /// A pass begins to work on it: it can be taken back to where it is now.
    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        match self {
            Self::Recurrent(recurrent) => recurrent.begin(),
            Self::Kv(_) | Self::Nothing => Ok(()),
        }
    }

    /// A pass has worked on it; it is of `tokens` tokens now.
    pub(crate) fn end(&mut self, tokens: usize) {
        if let Self::Recurrent(recurrent) = self {
            recurrent.end(tokens);
        }
    }

    /// Copies everything out.
    pub(crate) fn export(&self) -> Result<LayerState, Error> {
        Ok(match self {
            Self::Kv(kv) => {
                let (keys, values) = kv.cache.export()?;
                LayerState::Kv { keys, values }
            }
            Self::Recurrent(recurrent) => {
                let [window, scan] = recurrent.export()?;
                LayerState::Recurrent { window, scan }
            }
            Self::Nothing => LayerState::Nothing,
        })
    }

    /// What [`State::export`] gives, without copying it out.
    pub(crate) fn parts(&self) -> Vec<StatePart> {
        let floats = |name, len| StatePart {
            name,
            dtype: CacheDType::F32,
            shape: vec![len],
        };
        match self {
            Self::Kv(kv) => kv.parts(),
            Self::Recurrent(recurrent) => {
                let [window, scan] = recurrent.lens();
                vec![floats("window", window), floats("scan", scan)]
            }
            Self::Nothing => Vec::new(),
        }
    }

    /// Takes what [`State::export`] gave of a text of `tokens` tokens, of which keys and values
    /// without a window of their own hold `held`; it has none. `argument` is what errors call the
    /// layer.
    pub(crate) fn import(
        &mut self,
        state: &LayerState,
        [tokens, held]: [usize; 2],
        argument: &str,
    ) -> Result<(), Error> {
        match (self, state) {
            (Self::Kv(kv), LayerState::Kv { keys, values }) => {
                kv.import([keys, values], [tokens, held], argument)
            }
            (Self::Recurrent(recurrent), LayerState::Recurrent { window, scan }) => {
                let lens = recurrent.lens();
                for ((name, values), len) in [("window", window), ("scan", scan)].iter().zip(lens) {
                    check_len(&format!("{argument} {name}"), &[len], values.len())?;
                }
                recurrent.import([window, scan], tokens);
                Ok(())
            }
            (Self::Nothing, LayerState::Nothing) => Ok(()),
            (to, from) => Err(Error::option(
                argument,
                format_args!("a state of the kind {:?}", to.kind()),
                format_args!("{:?}", from.kind()),
            )),
        }
    }
}

impl Kv {
    /// The first token that the one at `position` sees.
    fn first_seen(&self, position: usize, given: Option<usize>) -> usize {
        let window = self.window.into_iter().chain(given).min();
        window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    fn parts(&self) -> Vec<StatePart> {
        let KvCacheOptions {
            groups,
            terms,
            head_dim,
            value_dim,
            dtype,
            ..
        } = *self.cache.options();
        let of = [
            (["keys", "key_scales"], terms * groups, head_dim),
            (["values", "value_scales"], groups, value_dim),
        ];
        let mut parts = Vec::new();
        for ([name, scales], heads, width) in of {
            parts.push(StatePart {
                name,
                dtype,
                shape: vec![heads, self.cache.len(), width],
            });
            if dtype == CacheDType::Int8 {
                parts.push(StatePart {
                    name: scales,
                    dtype: CacheDType::F32,
                    shape: vec![heads, self.cache.len()],
                });
            }
        }
        parts
    }

    fn import(
        &mut self,
        rows: [&CacheRows; 2],
        [tokens, held]: [usize; 2],
        argument: &str,
    ) -> Result<(), Error> {
        let KvCacheOptions {
            groups,
            terms,
            head_dim,
            value_dim,
            ..
        } = *self.cache.options();
        let [keys, values] = rows;
        // Where the layer has a window of its own, it may have let go of more.
        let row = terms.saturating_mul(groups).saturating_mul(head_dim);
        let own = keys.len().checked_div(row).unwrap_or(0);
        let most = self.first_seen(tokens, None);
        let may_be = self.window.is_some()
            && own < held
            && tokens - own <= most
            && (tokens - own).is_multiple_of(STRIP);
        let held = if may_be { own } else { held };
        for (name, rows, heads, width) in [
            ("k", keys, terms * groups, head_dim),
            ("v", values, groups, value_dim),
        ] {
            let name = format!("{argument} {name}");
            check_len(&name, &[1, heads, held, width], rows.len())?;
            if let CacheRows::Int8 { scales, .. } = rows {
                let name = format!("{name} scales");
                check_len(&name, &[1, heads, held], scales.len())?;
            }
        }
        self.discarded = tokens - held;
        self.cache.import(keys, values)
    }
}

fn of_another_kind() -> Error {
    Error::internal("a state of another kind")
}

/// Tokens that a [`KvCache`] discards at a time.
pub(crate) const STRIP: usize = 256;

impl LayerState {
    /// The name of its kind: `"kv"`, `"recurrent"` or `"none"`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kv { .. } => KV,
            Self::Recurrent { .. } => RECURRENT,
            Self::Nothing => NOTHING,
        }
    }

    /// What its numbers are held as; float32 where they are not keys and values.
    #[must_use]
    pub fn dtype(&self) -> CacheDType {
        match self {
            Self::Kv { keys, .. } => keys.dtype(),
            Self::Recurrent { .. } | Self::Nothing => CacheDType::F32,
        }
    }

    /// The elements of its parts, as [`ModelCache::parts`](crate::ModelCache::parts) lists them.
    #[must_use]
    pub fn data(&self) -> Vec<PartData<'_>> {
        let (keys, values) = match self {
            Self::Kv { keys, values } => (keys, values),
            Self::Recurrent { window, scan } => {
                return vec![PartData::F32(window), PartData::F32(scan)];
            }
            Self::Nothing => return Vec::new(),
        };
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
}
