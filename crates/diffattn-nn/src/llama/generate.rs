//! Texts continued token by token: each step a forward pass over what is new, then a choice per text. Texts of several lengths
//! go on side by side, without padding; each gets what it would get alone.

use super::DiffLlama;
use super::cache::{ModelCache, ModelCacheOptions};
use super::forward::{DiffLlamaForward, DiffLlamaOptions, DiffLlamaOutputs, Logits};
use super::sampler::{Sampler, SamplerOptions};
use diffattn::{Error, Slices, checked_len, try_zeroed};

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
}

/// How a [`Generator`] is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct GeneratorOptions {
    /// Tokens that each token sees, itself included; all by default. (Caches that are given have their own.)
    pub window: Option<usize>,
    /// How the call runs: instruction set, threads, fused or not.
    pub run: diffattn::Run,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Which of the texts it continues.
    pub text: usize,
    /// The id.
    pub id: u32,
    /// Whether it is the text's last, and why.
    pub finish: Option<Finish>,
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
    finish: Option<Finish>,
}

/// Continues one or several texts, one id of each per step.
#[derive(Debug)]
pub struct Generator<'m> {
    model: &'m DiffLlama,
    options: DiffLlamaOptions,
    texts: Vec<Text>,
    /// Each holds its text but for what the next step computes: the rest of the prompt, or the last id.
    caches: Vec<ModelCache>,
    logits: Vec<f32>,
}

impl<'m> Generator<'m> {
    /// Continues texts with caches of their own.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming what does not fit: an empty prompt, an id outside of the vocabulary, an option of a sampler;
    /// [`Error::OutOfMemory`].
    pub fn new(
        model: &'m DiffLlama,
        generations: Vec<Generation>,
        options: &GeneratorOptions,
    ) -> Result<Self, Error> {
        // Before the first cache is made: empty texts cost nothing, and there could be any number of them.
        check_prompts(model, &generations)?;
        let caches = generations.iter().map(|generation| {
            model.cache(&ModelCacheOptions {
                capacity: generation.prompt.len(),
                window: options.window,
            })
        });
        let mut caches = caches.collect::<Result<_, _>>()?;
        Self::build(model, generations, &mut caches, options)
    }

    /// Continues texts with a cache for each: what it holds of the prompt's beginning is not computed again
    /// ([`ModelCache::keep_prefix`]). Takes the caches out of the list; after an error they are still there, as they were.
    ///
    /// # Errors
    /// As [`Generator::new`]; [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) unless there are as many caches as texts; [`ErrorKind::Option`](diffattn::ErrorKind::Option) for a window, which
    /// caches have themselves, and for caches of several windows.
    pub fn with_caches(
        model: &'m DiffLlama,
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
        model: &'m DiffLlama,
        generations: Vec<Generation>,
        caches: &mut Vec<ModelCache>,
        options: &GeneratorOptions,
    ) -> Result<Self, Error> {
        for cache in caches.iter() {
            cache.check(model)?;
        }
        check_prompts(model, &generations)?;
        let mut texts = Vec::with_capacity(generations.len());
        for generation in generations {
            let Generation {
                prompt,
                max_new_tokens,
                stop_ids,
                sampler,
            } = generation;
            texts.push(Text {
                prompt: prompt.len(),
                ids: prompt,
                max_new_tokens,
                stop_ids: stop_ids.unwrap_or_else(|| model.config.eos_token_ids.clone()),
                sampler: Sampler::new(&sampler)?,
                finish: (max_new_tokens == 0).then_some(Finish::Length),
            });
        }
        // Last, so that an error changes nothing.
        for (cache, text) in caches.iter_mut().zip(&texts) {
            cache.keep_prefix(&text.ids);
        }
        Ok(Self {
            model,
            options: DiffLlamaOptions {
                logits: Logits::Last,
                run: options.run,
                ..DiffLlamaOptions::default()
            },
            texts,
            caches: std::mem::take(caches),
            logits: Vec::new(),
        })
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

    /// Ends a text at the `kept` first of the ids that it was given (all, where it has fewer), as where they came to a stop string:
    /// later steps leave it out, and its cache forgets what lies past them. That holds them but for the last, whose keys no one
    /// has asked for, as after any step. (Where more than 2 are taken back, a cache with a window may keep
    /// them all.)
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `text` when there is none of that number.
    pub fn end(&mut self, text: usize, kept: usize) -> Result<(), Error> {
        let count = self.texts.len();
        let both = self.texts.get_mut(text).zip(self.caches.get_mut(text));
        let (text, cache) = both
            .ok_or_else(|| Error::option("text", format_args!("one of the {count} texts"), text))?;
        text.ids.truncate(text.prompt.saturating_add(kept));
        text.finish = text.finish.or(Some(Finish::Stop));
        let held = text.ids.len().saturating_sub(1).max(text.prompt);
        if cache.len() > held {
            // As the last sentence of the documentation says.
            let _ = cache.rewind(held);
        }
        Ok(())
    }

    /// Gives up the caches, for a later [`Generator::with_caches`].
    #[must_use]
    pub fn into_caches(self) -> Vec<ModelCache> {
        self.caches
    }

    /// Prepares the next step: the first computes the prompts, each later one a token of each text that has not ended. A
    /// step that is dropped before its end changes nothing.
    ///
    /// # Errors
    /// As [`DiffLlama::forward_job`].
    pub fn step_job(&mut self) -> Result<GenerationStep<'_>, Error> {
        let Self {
            model,
            options,
            texts,
            caches,
            logits,
        } = self;
        let vocab = model.config.vocab_size;
        let mut fresh = Vec::new();
        let mut used = Vec::new();
        for (cache, text) in caches.iter_mut().zip(texts.iter()) {
            if text.finish.is_none() {
                fresh.push(text.ids[cache.len()..].to_vec());
                used.push(cache);
            }
        }
        let mut job = None;
        if !fresh.is_empty() {
            let len = checked_len("texts", &[fresh.len(), vocab])?;
            if logits.len() != len {
                *logits = try_zeroed(len)?;
            }
            let longest = fresh.iter().map(Vec::len).max().unwrap_or(0);
            let shape = [fresh.len(), longest];
            let mut forward = DiffLlamaForward::of_texts(model, fresh, shape, Some(used), options)?;
            forward.bind(DiffLlamaOutputs {
                logits,
                ..DiffLlamaOutputs::default()
            })?;
            job = Some(forward);
        }
        Ok(GenerationStep { job, texts, vocab })
    }

    /// The next id of each text that has not ended: [`Generator::step_job`] in one call. Nothing once all have.
    ///
    /// # Errors
    /// As [`Generator::step_job`] and [`GenerationStep::tokens`].
    pub fn step(&mut self) -> Result<Vec<Token>, Error> {
        let mut step = self.step_job()?;
        step.finish()?;
        step.tokens()
    }
}

/// Whether each text has ids, all of the vocabulary.
fn check_prompts(model: &DiffLlama, generations: &[Generation]) -> Result<(), Error> {
    for Generation { prompt, .. } in generations {
        if prompt.is_empty() {
            return Err(Error::option("prompt", "1 id or more", "none"));
        }
        model.check_ids("prompt", prompt.iter().map(|&id| i64::from(id)))?;
    }
    Ok(())
}

/// A step of a [`Generator`]: worked off by [`Slices::step`], then asked for its [`GenerationStep::tokens`].
#[derive(Debug)]
pub struct GenerationStep<'g> {
    job: Option<DiffLlamaForward<'g>>,
    texts: &'g mut [Text],
    vocab: usize,
}

impl GenerationStep<'_> {
    /// Chooses the next ids, once the work is done.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `logits` when those of a text are no numbers: that text has ended then, the others went on.
    /// [`Error::Internal`] before the work is done.
    pub fn tokens(self) -> Result<Vec<Token>, Error> {
        let Self { job, texts, vocab } = self;
        let Some(mut job) = job else {
            return Ok(Vec::new());
        };
        if job.done() < job.total() {
            return Err(Error::Internal(
                "a step was asked for its tokens before it was done".to_owned(),
            ));
        }
        let outputs = job.take_outputs().unwrap_or_default();
        let mut tokens = Vec::new();
        let mut failed = None;
        let running = texts
            .iter_mut()
            .enumerate()
            .filter(|(_, text)| text.finish.is_none());
        for ((index, text), logits) in running.zip(outputs.logits.chunks_exact(vocab)) {
            match text.sampler.sample(logits, &text.ids) {
                Ok(id) => {
                    text.ids.push(id);
                    text.finish = if text.stop_ids.contains(&id) {
                        Some(Finish::Stop)
                    } else if text.ids.len() - text.prompt >= text.max_new_tokens {
                        Some(Finish::Length)
                    } else {
                        None
                    };
                    tokens.push(Token {
                        text: index,
                        id,
                        finish: text.finish,
                    });
                }
                Err(error) => {
                    text.finish = Some(Finish::Failed);
                    failed = failed.or(Some(error));
                }
            }
        }
        match failed {
            None => Ok(tokens),
            Some(error) => Err(error),
        }
    }
}

impl Slices for GenerationStep<'_> {
    fn total(&self) -> usize {
        self.job.as_ref().map_or(0, Slices::total)
    }

    fn done(&self) -> usize {
        self.job.as_ref().map_or(0, Slices::done)
    }

    fn step(&mut self, count: usize) -> Result<(), Error> {
        match &mut self.job {
            Some(job) => job.step(count),
            None => Ok(()),
        }
    }
}
