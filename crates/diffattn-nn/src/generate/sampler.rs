//! The choice of the next token from logits: greedy, or by chance as Hugging Face `transformers`
//! defines it. All in float64 with `libm` and a generator of its own, so that a seed gives the same
//! tokens everywhere. Runs no model.

use diffattn::{Error, try_zeroed};
use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng;
use std::cmp::Ordering;

/// How the next token is chosen. Penalty, temperature, `top_k` and `top_p` act in this order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplerOptions {
    /// What logits are divided by before they become probabilities; 0, the default, takes the
    /// highest logit (of equal ones the lowest id), and nothing is left to chance.
    pub temperature: f64,
    /// Only the ids of so many highest logits, and those as high as the last of them; all by
    /// default.
    pub top_k: Option<usize>,
    /// Only the most probable ids, as few as together exceed it; 1, the default, takes all.
    pub top_p: f64,
    /// What a logit above 0 is divided by, and one below multiplied with, if the text has its id; 1
    /// by default.
    pub repetition_penalty: f64,
    /// Where the random numbers begin; 0 by default.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            repetition_penalty: 1.0,
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
        let &SamplerOptions {
            temperature,
            top_k,
            top_p,
            repetition_penalty,
            seed,
        } = options;
        if !(temperature >= 0.0 && temperature.is_finite()) {
            let expected = "0 (greedy) or a positive number";
            return Err(Error::option("temperature", expected, temperature));
        }
        if top_k == Some(0) {
            return Err(Error::option("top_k", "1 or more", 0));
        }
        if !(0.0..=1.0).contains(&top_p) {
            return Err(Error::option("top_p", "a number from 0 to 1", top_p));
        }
        if !(repetition_penalty > 0.0 && repetition_penalty.is_finite()) {
            let expected = "a positive number";
            return Err(Error::option(
                "repetition_penalty",
                expected,
                repetition_penalty,
            ));
        }
        Ok(Self {
            options: *options,
            random: Pcg32::new(seed, STREAM),
            scores: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// The next id after the text `ids` (which only the repetition penalty looks at), given the
    /// logits of all ids.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `logits` when one is NaN or +∞ or
    /// none is above −∞, `ids` when one has no logit; [`Error::out_of_memory`].
    pub fn sample(&mut self, logits: &[f32], ids: &[u32]) -> Result<u32, Error> {
        let highest = check_logits(logits)?;
        let penalises = self.options.repetition_penalty != 1.0;
        if self.options.temperature == 0.0 && !penalises {
            return Ok(highest);
        }
        if self.scores.len() != logits.len() {
            self.scores = try_zeroed(logits.len())?;
        }
        for (score, &logit) in self.scores.iter_mut().zip(logits) {
            *score = f64::from(logit);
        }
        if penalises {
            self.penalise(logits, ids)?;
        }
        if self.options.temperature == 0.0 {
            return Ok(highest_of(&self.scores) as u32);
        }
        self.keep_candidates()?;
        Ok(self.draw())
    }

    fn penalise(&mut self, logits: &[f32], ids: &[u32]) -> Result<(), Error> {
        let penalty = self.options.repetition_penalty;
        for &id in ids {
            let (Some(score), Some(&logit)) =
                (self.scores.get_mut(id as usize), logits.get(id as usize))
            else {
                let expected = format!("ids from 0 to {}", logits.len() - 1);
                return Err(Error::option("ids", expected, id));
            };
            // From the logit, so that an id counts once however often the text has it.
            let logit = f64::from(logit);
            *score = if logit < 0.0 {
                logit * penalty
            } else {
                logit / penalty
            };
        }
        Ok(())
    }

    /// The ids that may be drawn, in order, with weights in proportion to their probabilities.
    fn keep_candidates(&mut self) -> Result<(), Error> {
        let Self {
            options,
            scores,
            candidates,
            ..
        } = self;
        let mut least = f64::NEG_INFINITY;
        if let Some(top_k) = options.top_k.filter(|&top_k| top_k < scores.len()) {
            let mut sorted = try_zeroed::<f64>(scores.len())?;
            sorted.copy_from_slice(scores);
            let (_, kth, _) = sorted.select_nth_unstable_by(top_k - 1, |a, b| b.total_cmp(a));
            least = *kth;
        }
        let highest = scores[highest_of(scores)];
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
