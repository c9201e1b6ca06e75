//! Texts continued token by token: each step a forward pass over what is new, then a choice per
//! text. Texts of several lengths go on side by side, without padding; each gets what it would get
//! alone.

use super::cache::{ModelCache, ModelCacheOptions};
use super::logprobs::Logprobs;
use super::sampler::{Sampler, SamplerOptions};
use crate::models::{Decoder, TextForward, TextModel};
use diffattn::{CacheDType, Error, Run, Work, checked_len, try_zeroed};
use std::ops::Deref;

/// A text to go on with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Generation {
    /// The ids it begins with, one or more.
    pub prompt: Vec<u32>,
    /// How many ids are generated at most.
    pub max_new_tokens: usize,
    /// Each of these ends the text, and is its last id; the config's `eos_token_id` unless given.
    pub stop_ids: Option<Vec<u32>>,
    /// How ids are chosen.
    pub sampler: SamplerOptions,
    /// Whether to tell how probable each chosen id was, and of how many of the most probable ids
    /// beside it; not by default.
    pub logprobs: Option<usize>,
}

/// How a [`Generator`] is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct GeneratorOptions {
    /// Tokens that each token sees, itself included; all by default. (Caches that are given have
    /// their own.)
    pub window: Option<usize>,
    /// What caches of its own hold keys and values as; float32 by default. (Caches that are given
    /// have their own.)
    pub cache_dtype: CacheDType,
    /// How the call runs: instruction set, threads, fused or not.
    pub run: Run,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// It came to one of its stop ids.
    Stop,
    /// It has as many new ids as it may have.
    Length,
    /// Its logits were no numbers, which was an error of that step.
    Failed,
}

/// An id that a step chose.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Which of the texts it continues.
    pub text: usize,
    /// The id.
    pub id: u32,
    /// Whether it is the text's last, and why.
    pub finish: Option<Finish>,
    /// How probable it was, where [`Generation::logprobs`] asks.
    pub logprobs: Option<Logprobs>,
}

/// A text on its way.
#[derive(Debug)]
struct Text {
    /// Prompt and what was generated.
    ids: Vec<u32>,
    prompt: usize,
    max_new_tokens: usize,
    stop_ids: Vec<u32>,
    sampler: Sampler,
    logprobs: Option<usize>,
    finish: Option<Finish>,
    /// Holds the text but for what the next step computes: the rest of the prompt, or the last id.
    /// `None` once it was given up.
    cache: Option<ModelCache>,
}

/// Continues any number of texts, one id of each per step. Texts can join ([`Generator::add`]) and
/// leave ([`Generator::end`], [`Generator::take_cache`]) between steps. M is whatever leads to a
/// [`TextModel`]: a reference, or an [`Arc`](std::sync::Arc) for a generator that outlives its
/// maker.
#[derive(Debug)]
pub struct Generator<M> {
    model: M,
    run: Run,
    /// That of all caches.
    window: Option<usize>,
    /// What further caches hold.
    cache_dtype: CacheDType,
    texts: Vec<Text>,
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
        let mut texts = Vec::with_capacity(generations.len());
        for generation in generations {
            texts.push(text(&decoder, generation)?);
        }
        let window = caches.first().map_or(options.window, ModelCache::window);
        // Last, so that an error changes nothing.
        for (text, mut cache) in texts.iter_mut().zip(std::mem::take(caches)) {
            cache.keep_prefix(&text.ids);
            text.cache = Some(cache);
        }
        Ok(Self {
            model,
            run: options.run,
            window,
            cache_dtype: options.cache_dtype,
            texts,
            logits: Vec::new(),
        })
    }

    /// A further text, which later steps continue, too; with a cache of its own, or with the one
    /// given, of whose beginning nothing is computed again. Gives its number.
    ///
    /// # Errors
    /// As [`Generator::new`]; [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) for the cache of
    /// another model, [`ErrorKind::Option`](diffattn::ErrorKind::Option) for one of another window
    /// than the generator's.
    pub fn add(
        &mut self,
        generation: Generation,
        cache: Option<ModelCache>,
    ) -> Result<usize, Error> {
        let decoder = self.model.decoder();
        check_prompts(&decoder, std::slice::from_ref(&generation))?;
        let mut cache = match cache {
            None => {
                let options = ModelCacheOptions {
                    capacity: generation.prompt.len(),
                    window: self.window,
                    dtype: self.cache_dtype,
                };
                ModelCache::new(&decoder, &options)?
            }
            Some(cache) => {
                cache.check(&decoder)?;
                if cache.window() != self.window {
                    return Err(Error::option("caches", "caches of one window", "several"));
                }
                cache
            }
        };
        let mut text = text(&decoder, generation)?;
        cache.keep_prefix(&text.ids);
        text.cache = Some(cache);
        self.texts.push(text);
        Ok(self.texts.len() - 1)
    }

    /// Whether all texts ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.texts.iter().all(|text| text.finish.is_some())
    }

    /// Texts that have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        let texts = self.texts.iter();
        texts.filter(|text| text.finish.is_none()).count()
    }

    /// The ids of a text so far, those of its prompt first.
    #[must_use]
    pub fn ids(&self, text: usize) -> Option<&[u32]> {
        self.texts.get(text).map(|text| text.ids.as_slice())
    }

    /// Why a text ended, once it did.
    #[must_use]
    pub fn finish(&self, text: usize) -> Option<Finish> {
        self.texts.get(text).and_then(|text| text.finish)
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
            .get_mut(text)
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

    /// Ends a text that goes on, as it is, and gives up its cache; nothing where there is no such
    /// text or its cache was taken before.
    pub fn take_cache(&mut self, text: usize) -> Option<ModelCache> {
        let text = self.texts.get_mut(text)?;
        text.finish = text.finish.or(Some(Finish::Stop));
        text.cache.take()
    }

    /// Gives up the caches, for a later [`Generator::with_caches`]: those of all texts, in order,
    /// but for those that were taken.
    #[must_use]
    pub fn into_caches(self) -> Vec<ModelCache> {
        let texts = self.texts.into_iter();
        texts.filter_map(|text| text.cache).collect()
    }

    /// Prepares the next step: the first computes the prompts, each later one a token of each text
    /// that has not ended. A step that is dropped before its end changes nothing.
    ///
    /// # Errors
    /// As a forward pass of the model.
    pub fn step_job(&mut self) -> Result<GenerationStep<'_>, Error> {
        let decoder = self.model.decoder();
        let vocab = decoder.vocab_size();
        let (mut fresh, mut caches, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        for (index, text) in self.texts.iter_mut().enumerate() {
            let (None, Some(cache)) = (text.finish, &mut text.cache) else {
                continue;
            };
            fresh.push(text.ids[cache.len()..].to_vec());
            caches.push(cache);
            texts.push(Choice {
                text: index,
                ids: &mut text.ids,
                prompt: text.prompt,
                sampler: &mut text.sampler,
                logprobs: text.logprobs,
                stop_ids: &text.stop_ids,
                end: text.prompt.saturating_add(text.max_new_tokens),
                finish: &mut text.finish,
            });
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

/// A checked text, without its cache.
fn text(model: &Decoder<'_>, generation: Generation) -> Result<Text, Error> {
    let Generation {
        prompt,
        max_new_tokens,
        stop_ids,
        sampler,
        logprobs,
    } = generation;
    let vocab = model.vocab_size();
    sampler.check_ids(vocab)?;
    Ok(Text {
        prompt: prompt.len(),
        ids: prompt,
        max_new_tokens,
        stop_ids: stop_ids.unwrap_or_else(|| model.eos_token_ids.to_vec()),
        sampler: Sampler::new(&sampler)?,
        logprobs: logprobs.map(|best| best.min(vocab)),
        finish: (max_new_tokens == 0).then_some(Finish::Length),
        cache: None,
    })
}

/// Whether each text has ids, all of the vocabulary.
fn check_prompts(model: &Decoder<'_>, generations: &[Generation]) -> Result<(), Error> {
    for Generation { prompt, .. } in generations {
        if prompt.is_empty() {
            return Err(Error::option("prompt", "1 id or more", "none"));
        }
        model.check_ids("prompt", prompt.iter().map(|&id| i64::from(id)))?;
    }
    Ok(())
}

/// A text at the point where its next id is chosen.
#[derive(Debug)]
struct Choice<'g> {
    text: usize,
    ids: &'g mut Vec<u32>,
    /// How many of them are its prompt.
    prompt: usize,
    sampler: &'g mut Sampler,
    logprobs: Option<usize>,
    stop_ids: &'g [u32],
    /// Ids that it has at most.
    end: usize,
    finish: &'g mut Option<Finish>,
}

impl Choice<'_> {
    /// Chooses the next id.
    fn choose(&mut self, logits: &[f32]) -> Result<Token, Error> {
        let (prompt, generated) = self.ids.split_at(self.prompt.min(self.ids.len()));
        let chosen = self.sampler.sample(logits, prompt, generated);
        let told = chosen.and_then(|id| {
            let told = self.logprobs.map(|best| Logprobs::of(logits, id, best));
            Ok((id, told.transpose()?))
        });
        let (id, logprobs) = told.inspect_err(|_| {
            *self.finish = Some(Finish::Failed);
        })?;
        self.ids.push(id);
        *self.finish = if self.stop_ids.contains(&id) {
            Some(Finish::Stop)
        } else if self.ids.len() >= self.end {
            Some(Finish::Length)
        } else {
            None
        };
        Ok(Token {
            text: self.text,
            id,
            finish: *self.finish,
            logprobs,
        })
    }
}

/// A checked step of a [`Generator`], worked off by what [`GenerationStep::into_work`] makes of it.
#[derive(Debug)]
pub struct GenerationStep<'g> {
    /// `None` once all texts have ended.
    forward: Option<TextForward<'g>>,
    texts: Vec<Choice<'g>>,
    logits: &'g mut [f32],
    vocab: usize,
}

impl<'g> GenerationStep<'g> {
    /// How many ids it will choose.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.texts.len()
    }

    /// Of how many of the most probable ids it will tell at most; `None` where no text asks how
    /// probable its ids are.
    #[must_use]
    pub fn logprobs(&self) -> Option<usize> {
        self.texts.iter().filter_map(|text| text.logprobs).max()
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
        } = self;
        let Some(forward) = forward else {
            return Ok(Work::new(0, |_| async { Ok(()) }));
        };
        Ok(Work::new(total, |pace| async move {
            forward.run_into(&mut *logits, pace).await?;
            let mut failed = None;
            for (text, logits) in texts.iter_mut().zip(logits.chunks_exact(vocab)) {
                match text.choose(logits) {
                    Ok(token) => tokens.push(token),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            failed.map_or(Ok(()), Err)
        }))
    }
}
