//! How probable a chosen token was, and which were the most probable: the log-softmax of raw
//! logits, whatever options of sampling made of them. In float64 with `libm`. Chooses nothing.

use diffattn::{Error, try_zeroed};
use std::cmp::Ordering;

/// Natural logarithms of probabilities, before any option of sampling acts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Logprobs {
    /// That of the id that was chosen.
    pub chosen: f64,
    /// The most probable ids with theirs, the most probable first, of equal ones the lowest.
    pub best: Vec<(u32, f64)>,
}

impl Logprobs {
    /// Of the id `chosen`, and of so many of the `best` (all, where there are fewer), given the
    /// logits of all ids: none NaN or +∞, one above −∞.
    ///
    /// # Errors
    /// [`Error::out_of_memory`]; [`Error::internal`] for an id without a logit.
    pub fn of(logits: &[f32], chosen: u32, best: usize) -> Result<Self, Error> {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let highest = f64::from(highest);
        let exponentials = logits
            .iter()
            .map(|&logit| libm::exp(f64::from(logit) - highest));
        let log_sum = libm::log(exponentials.sum());
        // (In this order: the difference is exact wherever logits are near the highest.)
        let of = |logit: f32| f64::from(logit) - highest - log_sum;
        let chosen = logits.get(chosen as usize);
        let chosen = chosen.ok_or_else(|| Error::internal("an id without a logit"))?;
        Ok(Self {
            chosen: of(*chosen),
            best: most_probable(logits, best)?
                .into_iter()
                .map(|id| (id, of(logits[id as usize])))
                .collect(),
        })
    }
}

/// The ids of the highest logits, the highest first, of equal ones the lowest.
fn most_probable(logits: &[f32], count: usize) -> Result<Vec<u32>, Error> {
    let count = count.min(logits.len());
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut ids = try_zeroed::<u32>(logits.len())?;
    for (id, to) in ids.iter_mut().enumerate() {
        *to = id as u32;
    }
    let logit = |id: u32| logits[id as usize];
    // (Zeros of either sign are equal, and there is no NaN.)
    let order = |&a: &u32, &b: &u32| {
        let by_logit = logit(b).partial_cmp(&logit(a)).unwrap_or(Ordering::Equal);
        by_logit.then(a.cmp(&b))
    };
    if count < ids.len() {
        ids.select_nth_unstable_by(count - 1, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by(order);
    Ok(ids)
}
