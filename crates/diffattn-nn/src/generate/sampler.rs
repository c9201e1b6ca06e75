//! The choice of the next token from logits: greedy, or by chance as Hugging Face `transformers`
//! defines it. All in float64 with `libm` and a generator of its own, so that a seed gives the same
//! tokens everywhere. Runs no model.

use diffattn::{Error, try_copied, try_zeroed};
use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng;
use std::cmp::Ordering;

/// How the next token is chosen. `logit_bias`, the penalties (of repetition, frequency, presence),
/// temperature, `top_k`, `top_p` and `min_p` act in this order.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerOptions {
    /// What logits are divided by before they become probabilities; 0, the default, takes the
    /// highest logit (of equal ones the lowest id), and nothing is left to chance.
    pub temperature: f64,
    /// Only the ids of so many highest logits, and those as high as the last of them; all by
    /// default.
    pub top_k: Option<usize>,
    /// Only the most probable ids, as few as together exceed it; 1, the default, takes all.
    pub top_p: f64,
    /// Only ids that are at least so many times as probable as the most probable one; 0, the
    /// default, takes all.
    pub min_p: f64,
    /// What a logit above 0 is divided by, and one below multiplied with, if the text has its id,
    /// in its prompt or since; 1 by default.
    pub repetition_penalty: f64,
    /// What is subtracted from the logit of an id that was generated, prompt apart; 0 by default.
    pub presence_penalty: f64,
    /// What is subtracted from the logit of an id for each time that it was generated, prompt
    /// apart; 0 by default.
    pub frequency_penalty: f64,
    /// What is added to the logits of these ids, each a number or −∞, which bans the id; of one
    /// that is listed twice, both. None by default.
    pub logit_bias: Vec<(u32, f64)>,
    /// Where the random numbers begin; 0 by default.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

/// The stream of the generator (PCG-XSH-RR 64/32): any, but always the same.
const STREAM: u64 = 0x0a02_bdbf_7bb3_c0a7;

/// Chooses tokens; each choice that is left to chance takes one random number.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplerOptions,
    random: Pcg32,
    scores: Vec<f64>,
    /// How often each id was met, while penalties are taken off; zeros otherwise.
    counts: Vec<u32>,
    candidates: Vec<Candidate>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Candidate {
    id: u32,
    score: f64,
    weight: f64,
}

impl Sampler {
    /// Checks the options.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming the one out of its range.
    pub fn new(options: &SamplerOptions) -> Result<Self, Error> {
        options.check()?;
        Ok(Self {
            options: options.clone(),
            random: Pcg32::new(options.seed, STREAM),
            scores: Vec::new(),
            counts: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// The next id after a text, of which the penalties alone take note: its prompt, and the ids
    /// that were generated since; given the logits of all ids.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `logits` when one is NaN or +∞ or
    /// none is above −∞, as they come or once penalties and bias acted on them; `ids` or
    /// `logit_bias` when one has no logit; [`Error::out_of_memory`].
    pub fn sample(
        &mut self,
        logits: &[f32],
        prompt: &[u32],
        generated: &[u32],
    ) -> Result<u32, Error> {
        let highest = check_logits(logits)?;
        let adjusts = self.options.adjusts();
        if self.options.temperature == 0.0 && !adjusts {
            return Ok(highest);
        }
        if self.scores.len() != logits.len() {
            self.scores = try_zeroed(logits.len())?;
        }
        for (score, &logit) in self.scores.iter_mut().zip(logits) {
            *score = f64::from(logit);
        }
        if adjusts {
            self.adjust(prompt, generated)?;
        }
        let highest = highest_of(&self.scores);
        if !self.scores[highest].is_finite() {
            let expected = "one above −∞ and none of +∞ after penalties and bias";
            return Err(Error::option("logits", expected, self.scores[highest]));
        }
        if self.options.temperature == 0.0 {
            return Ok(highest as u32);
        }
        self.keep_candidates(self.scores[highest])?;
        Ok(self.draw())
    }

    /// What bias and penalties make of the scores.
    fn adjust(&mut self, prompt: &[u32], generated: &[u32]) -> Result<(), Error> {
        let most = self.scores.len() as u64 - 1;
        let Self {
            options,
            scores,
            counts,
            ..
        } = self;
        for &(id, bias) in &options.logit_bias {
            let Some(score) = scores.get_mut(id as usize) else {
                let expected = format_args!("ids from 0 to {most}");
                return Err(Error::option("logit_bias", expected, id));
            };
            *score += bias;
        }
        if !options.penalises() {
            return Ok(());
        }
        for &id in prompt.iter().chain(generated) {
            if u64::from(id) > most {
                let expected = format_args!("ids from 0 to {most}");
                return Err(Error::option("ids", expected, id));
            }
        }
        if counts.len() != scores.len() {
            *counts = try_zeroed(scores.len())?;
        }
        let penalty = options.repetition_penalty;
        if penalty != 1.0 {
            // An id counts once however often the text has it.
            once(counts, prompt.iter().chain(generated), |id, _| {
                let score = &mut scores[id];
                *score = if *score < 0.0 {
                    *score * penalty
                } else {
                    *score / penalty
                };
            });
        }
        let (each, once_there) = (options.frequency_penalty, options.presence_penalty);
        if each != 0.0 || once_there != 0.0 {
            once(counts, generated.iter(), |id, count| {
                scores[id] -= f64::from(count) * each + once_there;
            });
        }
        Ok(())
    }

    /// The ids that may be drawn, in order, with weights in proportion to their probabilities.
    fn keep_candidates(&mut self, highest: f64) -> Result<(), Error> {
        let Self {
            options,
            scores,
            candidates,
            ..
        } = self;
        let mut least = f64::NEG_INFINITY;
        if let Some(top_k) = options.top_k.filter(|&top_k| top_k < scores.len()) {
            let mut sorted = try_copied(scores)?;
            let (_, kth, _) = sorted.select_nth_unstable_by(top_k - 1, |a, b| b.total_cmp(a));
            least = *kth;
        }
        candidates.clear();
        candidates
            .try_reserve(scores.len())
            .map_err(|_| Error::out_of_memory((scores.len() * size_of::<Candidate>()) as u64))?;
        for (id, &score) in scores.iter().enumerate() {
            if score >= least && score > f64::NEG_INFINITY {
                candidates.push(Candidate {
                    id: id as u32,
                    score,
                    weight: libm::exp((score - highest) / options.temperature),
                });
            }
        }
        if options.top_p < 1.0 {
            // From the least probable on, those go that together are not worth more than 1 − top_p;
            // of equal ones the higher ids first.
            let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
            candidates.sort_unstable_by(|a, b| match a.score.total_cmp(&b.score) {
                Ordering::Equal => b.id.cmp(&a.id),
                other => other,
            });
            let (mut sum, mut gone) = (0.0, 0);
            for candidate in &candidates[..candidates.len() - 1] {
                sum += candidate.weight / total;
                if sum > 1.0 - options.top_p {
                    break;
                }
                gone += 1;
            }
            candidates.drain(..gone);
            candidates.sort_unstable_by_key(|candidate| candidate.id);
        }
        // (The weight of the most probable is 1.)
        if options.min_p > 0.0 {
            candidates.retain(|candidate| candidate.weight >= options.min_p);
        }
        Ok(())
    }

    /// One of the candidates.
    fn draw(&mut self) -> u32 {
        let total: f64 = self
            .candidates
            .iter()
            .map(|candidate| candidate.weight)
            .sum();
        // 53 bits, from 0 up to but not including 1.
        let uniform = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = uniform * total;
        let mut chosen = 0;
        for candidate in &self.candidates {
            // (The last one of any weight, should rounding leave something over.)
            if candidate.weight > 0.0 {
                chosen = candidate.id;
                if left < candidate.weight {
                    break;
                }
                left -= candidate.weight;
            }
        }
        chosen
    }
}

impl SamplerOptions {
    /// Whether scores are others than logits.
    fn adjusts(&self) -> bool {
        self.penalises() || !self.logit_bias.is_empty()
    }

    fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
    }

    /// Whether each is within its range.
    fn check(&self) -> Result<(), Error> {
        let refused = |name, expected, got: f64| Err(Error::option(name, expected, got));
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            let expected = "0 (greedy) or a positive number";
            return refused("temperature", expected, self.temperature);
        }
        if self.top_k == Some(0) {
            return Err(Error::option("top_k", "1 or more", 0));
        }
        for (name, share) in [("top_p", self.top_p), ("min_p", self.min_p)] {
            if !(0.0..=1.0).contains(&share) {
                return refused(name, "a number from 0 to 1", share);
            }
        }
        let penalty = self.repetition_penalty;
        if !(penalty > 0.0 && penalty.is_finite()) {
            return refused("repetition_penalty", "a positive number", penalty);
        }
        for (name, penalty) in [
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ] {
            if !penalty.is_finite() {
                return refused(name, "a number", penalty);
            }
        }
        for &(_, bias) in &self.logit_bias {
            if bias.is_nan() || bias == f64::INFINITY {
                return refused("logit_bias", "numbers below infinity", bias);
            }
        }
        Ok(())
    }

    /// Whether ids of a vocabulary alone have a bias.
    pub(super) fn check_ids(&self, vocab: usize) -> Result<(), Error> {
        let mut biased = self.logit_bias.iter();
        match biased.find(|(id, _)| *id as usize >= vocab) {
            Some((id, _)) => {
                let expected = format_args!("ids from 0 to {}", vocab - 1);
                Err(Error::option("logit_bias", expected, id))
            }
            None => Ok(()),
        }
    }
}

/// Each of the ids once, with how often it is among them; `counts` are zeros before and after.
fn once<'i>(
    counts: &mut [u32],
    ids: impl Iterator<Item = &'i u32> + Clone,
    mut body: impl FnMut(usize, u32),
) {
    for &id in ids.clone() {
        counts[id as usize] = counts[id as usize].saturating_add(1);
    }
    for &id in ids {
        let count = std::mem::take(&mut counts[id as usize]);
        if count > 0 {
            body(id as usize, count);
        }
    }
}

/// Where the highest score is, the first of several.
fn highest_of(scores: &[f64]) -> usize {
    let mut best = 0;
    for (id, &score) in scores.iter().enumerate() {
        if score > scores[best] {
            best = id;
        }
    }
    best
}

/// Checks logits; gives the id of the highest, the lowest of several.
fn check_logits(logits: &[f32]) -> Result<u32, Error> {
    let mut best: Option<usize> = None;
    for (id, &logit) in logits.iter().enumerate() {
        if logit.is_nan() || logit == f32::INFINITY {
            return Err(Error::option(
                "logits",
                "numbers below infinity",
                format_args!("{logit} of id {id}"),
            ));
        }
        if best.map_or(logit > f32::NEG_INFINITY, |best| logit > logits[best]) {
            best = Some(id);
        }
    }
    best.map(|best| best as u32).ok_or_else(|| {
        Error::option(
            "logits",
            "one above −∞",
            format_args!("none among {}", logits.len()),
        )
    })
}
