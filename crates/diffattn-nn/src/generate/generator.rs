//! Texts continued token by token: each step a forward pass over what is new, then a choice per
//! text. Texts of several lengths go on side by side, without padding; each gets what it would get
//! alone.

use super::cache::{ModelCache, ModelCacheOptions};
use super::prefixes::Prefixes;
use super::text::{Choice, Finish, Generation, Text, Token, check_prompts, text};
use crate::models::{TextForward, TextModel, check_length};
use diffattn::{CacheDType, Error, Run, Work, checked_len, try_zeroed};
use std::collections::BTreeMap;
use std::ops::Deref;

/// How a [`Generator`] is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct GeneratorOptions {
    /// Tokens that each token sees, itself included; all by default. (Caches that are given have
    /// their own.)
    pub window: Option<usize>,
    /// What caches of its own hold keys and values as; float32 by default. (Caches that are given
    /// have their own.)
    pub cache_dtype: CacheDType,
    /// For texts that come and go: what prompts have in common is computed once, as each text is
    /// begun with a copy of the longest beginning that another text holds or one of those that
    /// were removed, which are kept within so many bytes, 0 or more. A text waits for another that
    /// is computing what both begin with. Not so by default.
    pub prefix_bytes: Option<usize>,
    /// Ids of prompts that a step computes at most, so that long ones do not hold up others; all
    /// by default.
    pub step_tokens: Option<usize>,
    /// How the call runs: instruction set, threads, fused or not.
    pub run: Run,
}

/// Continues any number of texts, one id of each per step. Texts can join ([`Generator::add`]) and
/// leave ([`Generator::end`], [`Generator::remove`], [`Generator::take_cache`]) between steps. M is
/// whatever leads to a [`TextModel`]: a reference, or an [`Arc`](std::sync::Arc) for a generator
/// that outlives its maker.
#[derive(Debug)]
pub struct Generator<M> {
    model: M,
    run: Run,
    /// That of all caches.
    window: Option<usize>,
    /// What further caches hold.
    cache_dtype: CacheDType,
    prefixes: Option<Prefixes>,
    step_tokens: Option<usize>,
    /// By their numbers.
    texts: BTreeMap<usize, Text>,
    /// The number of the next text, unless another has it.
    next: usize,
    logits: Vec<f32>,
}

impl<M> Generator<M>
where
    M: Deref,
    M::Target: TextModel,
{
    /// Continues texts with caches of their own.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming what does not fit: an empty
    /// prompt, an id outside of the vocabulary, an option of a sampler; [`Error::out_of_memory`].
    pub fn new(
        model: M,
        generations: Vec<Generation>,
        options: &GeneratorOptions,
    ) -> Result<Self, Error> {
        let decoder = model.decoder();
        // Before the first cache is made: empty texts cost nothing, and there could be any number
        // of them.
        check_prompts(&decoder, &generations)?;
        let caches = generations.iter().map(|generation| {
            let options = ModelCacheOptions {
                capacity: generation.prompt.len(),
                window: options.window,
                dtype: options.cache_dtype,
            };
            ModelCache::new(&decoder, &options)
        });
        let mut caches = caches.collect::<Result<_, _>>()?;
        Self::build(model, generations, &mut caches, options)
    }

    /// Continues texts with a cache for each: what it holds of the prompt's beginning is not
    /// computed again ([`ModelCache::keep_prefix`]). Takes the caches out of the list; after an
    /// error they are still there, as they were.
    ///
    /// # Errors
    /// As [`Generator::new`]; [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) unless there are as
    /// many caches as texts; [`ErrorKind::Option`](diffattn::ErrorKind::Option) for a window, which
    /// caches have themselves, and for caches of several windows.
    pub fn with_caches(
        model: M,
        generations: Vec<Generation>,
        caches: &mut Vec<ModelCache>,
        options: &GeneratorOptions,
    ) -> Result<Self, Error> {
        if caches.len() != generations.len() {
            return Err(Error::shape(
                "caches",
                format_args!("{}, one per text", generations.len()),
                caches.len(),
            ));
        }
        if options.window.is_some() {
            let expected = "none with caches, which have their own";
            return Err(Error::option("window", expected, "one"));
        }
        Self::build(model, generations, caches, options)
    }

    fn build(
        model: M,
        generations: Vec<Generation>,
        caches: &mut Vec<ModelCache>,
        options: &GeneratorOptions,
    ) -> Result<Self, Error> {
        let decoder = model.decoder();
        for cache in caches.iter() {
            cache.check(&decoder)?;
        }
        check_prompts(&decoder, &generations)?;
        if options.step_tokens == Some(0) {
            return Err(Error::option("step_tokens", "1 or more", 0));
        }
        let mut texts = BTreeMap::new();
        for (number, generation) in generations.into_iter().enumerate() {
            texts.insert(number, text(&decoder, generation)?);
        }
        let window = caches.first().map_or(options.window, ModelCache::window);
        // Last, so that an error changes nothing.
        for (text, mut cache) in texts.values_mut().zip(std::mem::take(caches)) {
            text.reused = cache.keep_prefix(&text.ids);
            text.cache = Some(cache);
        }
        let next = texts.len();
        Ok(Self {
            model,
            run: options.run,
            window,
            cache_dtype: options.cache_dtype,
            prefixes: options.prefix_bytes.map(Prefixes::new),
            step_tokens: options.step_tokens,
            texts,
            next,
            logits: Vec::new(),
        })
    }

    /// A further text, which later steps continue, too; with a cache of its own, or with the one
    /// given, of whose beginning nothing is computed again. Gives its number, which no other text
    /// has until it is removed.
    ///
    /// # Errors
    /// As [`Generator::new`]; [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) for the cache of
    /// another model and, where texts come and go, for a text that may become longer than the model
    /// computes; [`ErrorKind::Option`](diffattn::ErrorKind::Option) for a cache of another window
    /// than the generator's.
    pub fn add(
        &mut self,
        generation: Generation,
        cache: Option<ModelCache>,
    ) -> Result<usize, Error> {
        let decoder = self.model.decoder();
        check_prompts(&decoder, std::slice::from_ref(&generation))?;
        if let Some(cache) = &cache {
            cache.check(&decoder)?;
            if cache.window() != self.window {
                return Err(Error::option("caches", "caches of one window", "several"));
            }
        }
        let mut text = text(&decoder, generation)?;
        let is_begun_later = self.prefixes.is_some() && cache.is_none();
        if self.prefixes.is_some() {
            // Here, as a step fails for all of its texts.
            check_length(&decoder, text.prompt, text.max_new_tokens)?;
        }
        if !is_begun_later {
            let options = self.cache_options(text.prompt);
            let mut cache = match cache {
                None => ModelCache::new(&self.model.decoder(), &options)?,
                Some(cache) => cache,
            };
            text.reused = cache.keep_prefix(&text.ids);
            text.cache = Some(cache);
        }
        let number = self.free_number();
        self.texts.insert(number, text);
        Ok(number)
    }

    /// A number that no text has, below 2³¹. (Numbers come again as late as can be: who is told of
    /// a text that was removed a moment ago takes it for no other.)
    fn free_number(&mut self) -> usize {
        loop {
            let number = self.next;
            self.next = (number + 1) & (i32::MAX as usize);
            if !self.texts.contains_key(&number) {
                return number;
            }
        }
    }

    fn cache_options(&self, capacity: usize) -> ModelCacheOptions {
        ModelCacheOptions {
            capacity,
            window: self.window,
            dtype: self.cache_dtype,
        }
    }

    /// Begins texts that came since the last step, each with what it can have of another's
    /// beginning; but not those of whose beginning another text is computing more.
    fn begin_texts(&mut self) -> Result<(), Error> {
        let Some(mut prefixes) = self.prefixes.take() else {
            return Ok(());
        };
        let new = self.texts.iter().filter(|(_, text)| text.is_new());
        let new: Vec<usize> = new.map(|(&number, _)| number).collect();
        let mut result = Ok(());
        for number in new {
            let Some(mut text) = self.texts.remove(&number) else {
                continue;
            };
            let others = self.texts.values();
            if !prefixes.is_worth_waiting(&text, others) {
                let options = self.cache_options(text.prompt);
                let others = self.texts.values();
                let begun = match prefixes.beginning(&text.ids, others) {
                    Some(cache) => Ok(cache),
                    None => ModelCache::new(&self.model.decoder(), &options),
                };
                match begun {
                    Ok(mut cache) => {
                        text.reused = cache.keep_prefix(&text.ids);
                        text.cache = Some(cache);
                    }
                    Err(error) => result = Err(error),
                }
            }
            self.texts.insert(number, text);
        }
        self.prefixes = Some(prefixes);
        result
    }

    /// Whether all texts ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.texts.values().all(|text| text.finish.is_some())
    }

    /// Texts that have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        let texts = self.texts.values();
        texts.filter(|text| text.finish.is_none()).count()
    }

    /// The ids of a text so far, those of its prompt first.
    #[must_use]
    pub fn ids(&self, text: usize) -> Option<&[u32]> {
        self.texts.get(&text).map(|text| text.ids.as_slice())
    }

    /// Why a text ended, once it did.
    #[must_use]
    pub fn finish(&self, text: usize) -> Option<Finish> {
        self.texts.get(&text).and_then(|text| text.finish)
    }

    /// Ends a text at the `kept` first of the ids that it was given (all, where it has fewer), as
    /// where they came to a stop string: later steps leave it out, and its cache forgets what lies
    /// past them. That holds them but for the last, whose keys no one has asked for, as after any
    /// step. (Where more than 2 are taken back, a cache with a window may keep them all.)
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `text` when there is none of that
    /// number.
    pub fn end(&mut self, text: usize, kept: usize) -> Result<(), Error> {
        let count = self.texts.len();
        let text = self
            .texts
            .get_mut(&text)
            .ok_or_else(|| Error::option("text", format_args!("one of the {count} texts"), text))?;
        text.ids.truncate(text.prompt.saturating_add(kept));
        text.finish = text.finish.or(Some(Finish::Stop));
        let held = text.ids.len().saturating_sub(1).max(text.prompt);
        if let Some(cache) = &mut text.cache
            && cache.len() > held
        {
            // As the last sentence of the documentation says.
            let _ = cache.rewind(held);
        }
        Ok(())
    }

    /// Ends a text as [`Generator::end`] does and forgets it; what its cache holds later texts may
    /// begin with ([`GeneratorOptions::prefix_bytes`]).
    ///
    /// # Errors
    /// As [`Generator::end`].
    pub fn remove(&mut self, text: usize, kept: usize) -> Result<(), Error> {
        self.end(text, kept)?;
        let cache = self.texts.remove(&text).and_then(|text| text.cache);
        if let (Some(prefixes), Some(cache)) = (&mut self.prefixes, cache) {
            prefixes.keep(cache);
        }
        Ok(())
    }

    /// Bytes of memory of keys and values: of texts, and of what later ones may begin with.
    #[must_use]
    pub fn cache_bytes(&self) -> [usize; 2] {
        let texts = self.texts.values().filter_map(|text| text.cache.as_ref());
        let kept = self.prefixes.as_ref().map_or(0, Prefixes::bytes);
        [texts.map(ModelCache::bytes).sum(), kept]
    }

    /// Ends a text that goes on, as it is, and gives up its cache; nothing where there is no such
    /// text or its cache was taken before.
    pub fn take_cache(&mut self, text: usize) -> Option<ModelCache> {
        let text = self.texts.get_mut(&text)?;
        text.finish = text.finish.or(Some(Finish::Stop));
        text.cache.take()
    }

    /// Gives up the caches, for a later [`Generator::with_caches`]: those of all texts, in order,
    /// but for those that were taken.
    #[must_use]
    pub fn into_caches(self) -> Vec<ModelCache> {
        let texts = self.texts.into_values();
        texts.filter_map(|text| text.cache).collect()
    }

    /// Prepares the next step: the first computes the prompts, each later one a token of each text
    /// that has not ended. A step that is dropped before its end changes nothing.
    ///
    /// # Errors
    /// As a forward pass of the model.
    pub fn step_job(&mut self) -> Result<GenerationStep<'_>, Error> {
        self.begin_texts()?;
        let decoder = self.model.decoder();
        let vocab = decoder.vocab_size();
        let (mut fresh, mut caches, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        let mut left = self.step_tokens.unwrap_or(usize::MAX);
        for (&number, text) in &mut self.texts {
            let Some(next) = text.next(number, left) else {
                continue;
            };
            if next.fresh.len() > 1 {
                left -= next.fresh.len();
            }
            fresh.push(next.fresh);
            caches.push(next.cache);
            texts.push(next.choice);
        }
        let mut forward = None;
        if !fresh.is_empty() {
            let len = checked_len("texts", &[fresh.len(), vocab])?;
            if self.logits.len() != len {
                self.logits = try_zeroed(len)?;
            }
            forward = Some(TextForward::of_texts(decoder, fresh, caches, self.run)?);
        }
        Ok(GenerationStep {
            forward,
            texts,
            logits: &mut self.logits,
            vocab,
            is_contained: self.prefixes.is_some(),
        })
    }

    /// The next id of each text that has not ended: [`Generator::step_job`] in one call. Nothing
    /// once all have.
    ///
    /// # Errors
    /// As [`Generator::step_job`] and [`GenerationStep::into_work`].
    pub fn step(&mut self) -> Result<Vec<Token>, Error> {
        let mut tokens = Vec::new();
        self.step_job()?.into_work(&mut tokens)?.finish()?;
        Ok(tokens)
    }
}

/// A checked step of a [`Generator`], worked off by what [`GenerationStep::into_work`] makes of it.
#[derive(Debug)]
pub struct GenerationStep<'g> {
    /// `None` once all texts have ended.
    forward: Option<TextForward<'g>>,
    /// `None` of those of whose prompt it computes a part.
    texts: Vec<Option<Choice<'g>>>,
    logits: &'g mut [f32],
    vocab: usize,
    /// Whether the failure of one text is that of none beside it.
    is_contained: bool,
}

impl<'g> GenerationStep<'g> {
    /// How many ids it will choose.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.texts.iter().flatten().count()
    }

    /// Of how many of the most probable ids it will tell at most; `None` where no text asks how
    /// probable its ids are.
    #[must_use]
    pub fn logprobs(&self) -> Option<usize> {
        let texts = self.texts.iter().flatten();
        texts.filter_map(|text| text.logprobs).max()
    }

    /// Units of its work.
    #[must_use]
    pub fn units(&self) -> usize {
        self.forward.as_ref().map_or(0, TextForward::units)
    }

    /// The work of the step: the forward pass, and in its last unit the choice of ids, which are
    /// appended to `tokens`. Its end is an error of kind
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `logits` when those of a text are
    /// no numbers: that text has ended then, the others went on.
    ///
    /// # Errors
    /// [`Error::internal`] for a bug of ours.
    pub fn into_work(self, tokens: &'g mut Vec<Token>) -> Result<Work<'g>, Error> {
        let total = self.units();
        let Self {
            forward,
            mut texts,
            logits,
            vocab,
            is_contained,
        } = self;
        let Some(forward) = forward else {
            return Ok(Work::new(0, |_| async { Ok(()) }));
        };
        Ok(Work::new(total, |pace| async move {
            forward.run_into(&mut *logits, pace).await?;
            let mut failed = None;
            for (text, logits) in texts.iter_mut().zip(logits.chunks_exact(vocab)) {
                let Some(text) = text else {
                    continue;
                };
                match text.choose(logits) {
                    Ok(token) => tokens.push(token),
                    Err(_) if is_contained => tokens.push(text.failed()),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            failed.map_or(Ok(()), Err)
        }))
    }
}
