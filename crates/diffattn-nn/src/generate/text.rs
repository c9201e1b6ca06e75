//! A text that is being continued: what it is made of, what a step takes of it, how its next id is
//! chosen. Runs no model.

use super::cache::ModelCache;
use super::logprobs::Logprobs;
use super::sampler::{Sampler, SamplerOptions};
use crate::models::Decoder;
use diffattn::Error;

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

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// It came to one of its stop ids.
    Stop,
    /// It has as many new ids as it may have.
    Length,
    /// Its logits were no numbers, which was an error of that step; where texts come and go
    /// ([`GeneratorOptions::prefix_bytes`](super::GeneratorOptions::prefix_bytes)) it is told of
    /// that text alone, with an id that means nothing.
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
    /// How many of the ids of its prompt were not computed, as a cache held them.
    pub reused: usize,
}

/// A text on its way.
#[derive(Debug)]
pub(super) struct Text {
    /// Prompt and what was generated.
    pub(super) ids: Vec<u32>,
    /// How many of them are its prompt.
    pub(super) prompt: usize,
    pub(super) max_new_tokens: usize,
    stop_ids: Vec<u32>,
    sampler: Sampler,
    logprobs: Option<usize>,
    pub(super) finish: Option<Finish>,
    /// As in [`Token`].
    pub(super) reused: usize,
    /// Holds the text but for what later steps compute: the rest of the prompt, or the last id.
    /// `None` before the step that begins it, and once it was given up.
    pub(super) cache: Option<ModelCache>,
}

/// A checked text, without its cache.
pub(super) fn text(model: &Decoder<'_>, generation: Generation) -> Result<Text, Error> {
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
        reused: 0,
        cache: None,
    })
}

/// Whether each text has ids, all of the vocabulary.
pub(super) fn check_prompts(model: &Decoder<'_>, generations: &[Generation]) -> Result<(), Error> {
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
pub(super) struct Choice<'g> {
    text: usize,
    ids: &'g mut Vec<u32>,
    /// How many of them are its prompt.
    prompt: usize,
    sampler: &'g mut Sampler,
    pub(super) logprobs: Option<usize>,
    stop_ids: &'g [u32],
    /// Ids that it has at most.
    end: usize,
    finish: &'g mut Option<Finish>,
    reused: usize,
}

impl Text {
    /// Whether a later step begins it.
    pub(super) fn is_new(&self) -> bool {
        self.finish.is_none() && self.cache.is_none()
    }

    /// Of the ids that its cache does not hold, as many as `most` allows of a prompt's, with that
    /// cache; and the choice that follows where that is all of them. Nothing where there is nothing
    /// to compute.
    pub(super) fn next(&mut self, number: usize, most: usize) -> Option<Next<'_>> {
        let (None, Some(cache)) = (self.finish, &mut self.cache) else {
            return None;
        };
        let rest = self.ids.get(cache.len()..).unwrap_or_default();
        // (The last id that was chosen waits for no one.)
        let taken = if rest.len() == 1 {
            1
        } else {
            rest.len().min(most)
        };
        let is_all = taken == rest.len();
        let fresh = rest[..taken].to_vec();
        let choice = is_all.then_some(Choice {
            text: number,
            ids: &mut self.ids,
            prompt: self.prompt,
            sampler: &mut self.sampler,
            logprobs: self.logprobs,
            stop_ids: &self.stop_ids,
            end: self.prompt.saturating_add(self.max_new_tokens),
            finish: &mut self.finish,
            reused: self.reused,
        });
        (taken > 0).then_some(Next {
            fresh,
            cache,
            choice,
        })
    }
}

/// What a step does with a text.
#[derive(Debug)]
pub(super) struct Next<'g> {
    /// What the forward pass adds to the cache.
    pub(super) fresh: Vec<u32>,
    pub(super) cache: &'g mut ModelCache,
    /// `None` where the prompt has further ids.
    pub(super) choice: Option<Choice<'g>>,
}

impl Choice<'_> {
    /// Chooses the next id.
    pub(super) fn choose(&mut self, logits: &[f32]) -> Result<Token, Error> {
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
            reused: self.reused,
        })
    }

    /// What is told of a text that has failed.
    pub(super) fn failed(&self) -> Token {
        Token {
            text: self.text,
            id: 0,
            finish: Some(Finish::Failed),
            logprobs: None,
            reused: self.reused,
        }
    }
}
