//! What every layer of a model keeps of one text, with the ids that it is of. Runs nothing.

use crate::models::Decoder;
use crate::pass::{LayerState, MARKED, STRIP, State, StatePart, TAKEN_BACK};
use diffattn::{CacheDType, Error};

/// How a [`ModelCache`] is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModelCacheOptions {
    /// Tokens to reserve memory for at once; it grows past them. With a window no more is reserved
    /// than that needs.
    pub capacity: usize,
    /// Tokens that each token sees, itself included: attention as with a window mask, and memory
    /// for little more than the window (up to 257 tokens, beside those of a running forward pass).
    /// All by default.
    pub window: Option<usize>,
    /// What layers hold keys and values as; float32 by default.
    pub dtype: CacheDType,
}

/// The past of one text: its ids, and the keys and values of every layer. A
/// [`TextForward`](crate::TextForward) adds to it. A batch has one per text, of any lengths.
#[derive(Debug)]
pub struct ModelCache {
    pub(crate) layers: Vec<State>,
    ids: Vec<u32>,
    /// Tokens that the states are of: fewer than there are ids where a recurrent state could not be
    /// taken back as far as the text was. The next pass computes the others again.
    ready: usize,
    window: Option<usize>,
}

/// What a [`ModelCache`] holds, apart from any model: to be stored and imported again.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelCacheState {
    /// The ids of all tokens.
    pub ids: Vec<u32>,
    /// Tokens at the start of which there are no keys and values; a multiple of 256.
    pub discarded: usize,
    /// As in [`ModelCacheOptions`].
    pub window: Option<usize>,
    /// What each layer held of the ids past those.
    pub layers: Vec<LayerState>,
}

impl ModelCache {
    /// An empty cache for one text.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) for a window of nothing;
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or [`Error::out_of_memory`] for a capacity
    /// that is not to be had.
    pub fn new(model: &Decoder<'_>, options: &ModelCacheOptions) -> Result<Self, Error> {
        if options.window == Some(0) {
            return Err(Error::option("window", "1 token or more", 0));
        }
        let capacity = reserved(options.capacity, options.window, 0);
        let layers = model.states().map(|layer| {
            let capacity = reserved(capacity, layer.window(), MARKED);
            State::new(&layer.holding(capacity, options.dtype), true)
        });
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
            ids: Vec::new(),
            ready: 0,
            window: options.window,
        })
    }

    /// Tokens of the text so far: the position of the next.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The ids of the text so far.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Tokens that each token sees; all where there is none.
    #[must_use]
    pub fn window(&self) -> Option<usize> {
        self.window
    }

    /// Tokens of which it holds keys and values; without a window, all.
    #[must_use]
    pub fn held(&self) -> usize {
        self.ready.saturating_sub(self.discarded())
    }

    /// Tokens at the start of which no layer holds keys and values any more; a multiple of 256.
    #[must_use]
    pub fn discarded(&self) -> usize {
        let layers = self
            .layers
            .iter()
            .filter_map(State::kv)
            .map(|kv| kv.discarded);
        layers.min().unwrap_or(0)
    }

    /// Tokens that the states are of: the position of the next that a pass computes.
    pub(crate) fn ready(&self) -> usize {
        self.ready
    }

    /// The ids that the states are behind by: a pass computes them again.
    pub(crate) fn behind(&self) -> &[u32] {
        &self.ids[self.ready..]
    }

    /// Bytes of memory of keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(State::bytes).sum()
    }

    /// Forgets all but the first `length` tokens. Keeps the memory. Nothing is left over from a
    /// window when it forgets all.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) when there are fewer, or when the tokens
    /// that the next one would see have left the window.
    pub fn rewind(&mut self, length: usize) -> Result<(), Error> {
        if length > self.len() {
            return Err(Error::shape(
                "length",
                format_args!("at most {}, the tokens held", self.len()),
                length,
            ));
        }
        let Some(ready) = self.nearest(length) else {
            return Err(Error::shape(
                "length",
                format_args!(
                    "0, or a length whose window of {} begins at token {} or later, as those before were discarded",
                    self.window.unwrap_or(0),
                    self.discarded()
                ),
                length,
            ));
        };
        self.ids.truncate(length);
        self.ready = ready;
        self.roll_back();
        Ok(())
    }

    /// The longest of at most `length` tokens that the states can be of: that itself, but with
    /// recurrent states, which can be taken back only to where they were marked.
    fn nearest(&self, length: usize) -> Option<usize> {
        let can_be = |length: &usize| {
            let mut layers = self.layers.iter();
            layers.all(|layer| layer.can_be_at(*length, self.window))
        };
        let length = length.min(self.ready);
        let recurrent = self.layers.iter().find_map(State::recurrent);
        match recurrent {
            None => Some(length).filter(can_be),
            Some(recurrent) => {
                let lengths = recurrent.lengths().filter(|&marked| marked <= length);
                lengths.filter(can_be).max()
            }
        }
    }

    /// How many of the first `ids` are those of the cache: what a prompt that begins with them need
    /// not compute again.
    #[must_use]
    pub fn common_prefix(&self, ids: &[u32]) -> usize {
        let pairs = self.ids.iter().zip(ids);
        pairs.take_while(|(held, given)| held == given).count()
    }

    /// Prepares for the prompt `ids`: keeps the tokens that it begins with, all but its last (whose
    /// logits are wanted), and forgets the others. Gives how many were kept: the rest is to be
    /// computed. None are kept where they left the window.
    pub fn keep_prefix(&mut self, ids: &[u32]) -> usize {
        let kept = self.common_prefix(ids).min(ids.len().saturating_sub(1));
        match self.rewind(kept) {
            Ok(()) => kept,
            Err(_) => {
                self.clear();
                0
            }
        }
    }

    /// Whether [`ModelCache::copy_prefix`] can copy any beginning of it: where layers have
    /// recurrent states, or tokens have left a window, it cannot.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.ready == self.ids.len() && self.layers.iter().all(State::is_whole)
    }

    /// Another cache with the first `length` tokens, in memory for no more.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) when there are fewer, or unless it
    /// [is whole](ModelCache::is_whole); [`Error::out_of_memory`].
    pub fn copy_prefix(&self, length: usize) -> Result<Self, Error> {
        if length > self.len() || !self.is_whole() {
            let expected = format_args!("at most {} tokens of a whole cache", self.len());
            return Err(Error::shape("length", expected, length));
        }
        let layers = self.layers.iter().map(|layer| layer.copy_prefix(length));
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
            ids: self.ids[..length].to_vec(),
            ready: length,
            window: self.window,
        })
    }

    /// Forgets everything. Keeps the memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.ready = 0;
        self.roll_back();
    }

    /// Copies everything out; [`DiffLlama::import_cache`](crate::DiffLlama::import_cache) takes it
    /// back.
    ///
    /// # Errors
    /// [`Error::out_of_memory`].
    pub fn export(&self) -> Result<ModelCacheState, Error> {
        Ok(ModelCacheState {
            ids: self.ids.clone(),
            discarded: self.discarded(),
            window: self.window,
            layers: self
                .layers
                .iter()
                .map(State::export)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Layers of the model.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// The kind of a layer's state, as [`LayerState::kind`]; `""` where there is no layer of that
    /// number.
    #[must_use]
    pub fn kind(&self, layer: usize) -> &'static str {
        self.layers.get(layer).map_or("", State::kind)
    }

    /// The lists of numbers of a layer's state, in the order of [`LayerState::data`]; none where
    /// there is no layer of that number.
    #[must_use]
    pub fn parts(&self, layer: usize) -> Vec<StatePart> {
        self.layers.get(layer).map_or_else(Vec::new, State::parts)
    }

    /// The state of one layer, as [`ModelCache::export`] copies it.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `layer` when there is none of that
    /// number; [`Error::out_of_memory`].
    pub fn export_layer(&self, layer: usize) -> Result<LayerState, Error> {
        let cache = self.layers.get(layer);
        cache
            .ok_or_else(|| Error::option("layer", "a layer of the model", layer))?
            .export()
    }

    /// The cache that [`ModelCache::export`] copied out, from this model.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming the part that does not fit;
    /// [`Error::out_of_memory`].
    pub fn import(model: &Decoder<'_>, state: &ModelCacheState) -> Result<Self, Error> {
        let ModelCacheState {
            ids,
            discarded,
            window,
            layers,
        } = state;
        model.check_ids("state.ids", ids.iter().map(|&id| i64::from(id)))?;
        if layers.len() != model.layers.len() {
            return Err(Error::shape(
                "state.layers",
                format_args!("{} layers", model.layers.len()),
                layers.len(),
            ));
        }
        // What the next token sees must be there, and begin where a strip began.
        let most = window.map_or(0, |window| (ids.len() + 1).saturating_sub(window.max(1)));
        if *discarded > most || !discarded.is_multiple_of(STRIP) {
            return Err(Error::shape(
                "state.discarded",
                format_args!("a multiple of {STRIP} of at most {most}"),
                discarded,
            ));
        }
        // With recurrent states, which may be behind the ids, keys tell of how many they are.
        let recurs = model.states().any(|options| options.recurs());
        let mut told = model.states().zip(layers);
        let told = told.find_map(|(options, layer)| options.held(layer));
        let ready = told
            .filter(|_| recurs)
            .and_then(|held| held.checked_add(*discarded))
            .map_or(ids.len(), |ready| ready.min(ids.len()));
        let held = ready.saturating_sub(*discarded);
        let options = ModelCacheOptions {
            window: *window,
            ..ModelCacheOptions::default()
        };
        let mut cache = Self::new(model, &options)?;
        let wanted = model.states().zip(layers).enumerate();
        for (to, (index, (options, layer))) in cache.layers.iter_mut().zip(wanted) {
            *to = State::new(&options.holding(0, layer.dtype()), true)?;
            to.import(layer, [ready, held], &format!("state.layers[{index}]"))?;
        }
        cache.ids.clone_from(ids);
        cache.ready = ready;
        Ok(cache)
    }

    /// Checks that the model made it, or one of the same sizes.
    pub(crate) fn check(&self, model: &Decoder<'_>) -> Result<(), Error> {
        let mut pairs = self.layers.iter().zip(model.states());
        let fits = self.layers.len() == model.layers.len()
            && pairs.all(|(state, wanted)| state.fits(&wanted));
        if fits {
            Ok(())
        } else {
            Err(Error::shape(
                "cache",
                "one that this model made",
                format_args!("one of {} layers and other sizes", self.layers.len()),
            ))
        }
    }

    /// Takes over tokens that every layer now holds (those that were computed again, it has), and
    /// lets go of those that no later one sees, were the last taken back.
    pub(crate) fn commit(&mut self, ids: &[u32]) {
        let again = self.behind().len().min(ids.len());
        self.ids.extend_from_slice(&ids[again..]);
        self.ready += ids.len();
        let back = match self.layers.iter().any(|layer| layer.recurrent().is_some()) {
            true => MARKED,
            false => TAKEN_BACK,
        };
        for layer in &mut self.layers {
            layer.discard_before(self.ready.saturating_sub(back), self.window);
        }
    }

    /// Forgets what layers hold past the committed tokens.
    pub(crate) fn roll_back(&mut self) {
        for layer in &mut self.layers {
            // (Every layer holds at least the committed tokens.)
            layer.rewind(self.ready);
        }
    }
}

/// Tokens to reserve memory for, where each sees `window` of them, and the text may be taken back
/// by `back`.
fn reserved(capacity: usize, window: Option<usize>, back: usize) -> usize {
    window.map_or(capacity, |window| {
        let most = [STRIP, chunk_of(window), back].into_iter();
        capacity.min(most.fold(window, usize::saturating_add))
    })
}

/// Tokens that are computed at once through all layers where there is a window: as many as keep
/// memory near it.
pub(crate) fn chunk_of(window: usize) -> usize {
    window.clamp(STRIP, 8 * STRIP)
}
