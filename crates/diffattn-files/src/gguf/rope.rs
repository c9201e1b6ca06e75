//! The rotary embedding that a GGUF file speaks of, as the `rope_scaling` of a configuration of
//! Hugging Face's. Turns nothing.

use super::keys::Keys;
use super::llama::of_llama;
use super::names::ROPE_FACTORS;
use crate::entry::place;
use diffattn::Error;
use serde_json::{Value, json};
use std::f64::consts::TAU;

/// How far a factor may be from what the entries of a configuration make of it: some roundings of
/// float32.
const NEAR: f64 = 2e-6;

/// What the keys or the table of factors say; none where the frequencies stay as they are.
pub(super) fn scaling(
    keys: &Keys<'_, '_>,
    theta: f64,
    width: u64,
    factors: Option<&[f32]>,
) -> Result<Option<Value>, Error> {
    let said = of_keys(keys)?;
    let Some(factors) = factors else {
        return Ok(said);
    };
    let argument = place(keys.file, ROPE_FACTORS);
    if said.is_some() {
        let expected = "none beside llama.rope.scaling";
        return Err(Error::file(argument, expected, "both"));
    }
    if factors.len() as u64 != width / 2 {
        let expected = format!("{} factors, one for each pair of channels", width / 2);
        return Err(Error::file(argument, expected, factors.len()));
    }
    let is_factor = |&&factor: &&f32| !(factor.is_finite() && factor > 0.0);
    if let Some(factor) = factors.iter().find(is_factor) {
        return Err(Error::file(argument, "finite factors above 0", factor));
    }
    of_factors(theta, factors).ok_or_else(|| {
        let expected = "factors as llama3 or linear scaling has them";
        Error::file(argument, expected, "others")
    })
}

/// What the keys `rope.scaling.*` say.
fn of_keys(keys: &Keys<'_, '_>) -> Result<Option<Value>, Error> {
    let number = |key: &str| keys.number(&of_llama(&format!("rope.scaling.{key}")));
    let factor = number("factor")?;
    let key = of_llama("rope.scaling.type");
    match keys.text(&key)? {
        Some("none") => Ok(None),
        Some("linear") => Ok(factor.map(linear)),
        // (Older files have the key of linear scaling alone.)
        None => Ok(factor
            .or(keys.number(&of_llama("rope.scale_linear"))?)
            .filter(|&factor| factor != 1.0)
            .map(linear)),
        Some("yarn") => {
            let factor_key = of_llama("rope.scaling.factor");
            let factor = keys.wanted(&factor_key, factor)?;
            let mut scaling = json!({ "rope_type": "yarn", "factor": factor });
            if let Some(own) = number("attn_factor")?.filter(|&own| own != 1.0) {
                let magnitude = if factor > 1.0 {
                    0.1 * libm::log(factor) + 1.0
                } else {
                    1.0
                };
                scaling["attention_factor"] = json!(own * magnitude);
            }
            for (from, to) in [
                (
                    "original_context_length",
                    "original_max_position_embeddings",
                ),
                ("yarn_beta_fast", "beta_fast"),
                ("yarn_beta_slow", "beta_slow"),
            ] {
                if let Some(value) = number(from)? {
                    scaling[to] = json!(value);
                }
            }
            match number("yarn_ext_factor")? {
                None | Some(1.0 | -1.0) => Ok(Some(scaling)),
                Some(other) => {
                    let key = of_llama("rope.scaling.yarn_ext_factor");
                    Err(keys.refuse(&key, "none or 1", other))
                }
            }
        }
        Some(other) => {
            let got = format!("{:?}", crate::text::excerpt(other));
            Err(keys.refuse(&key, "\"none\", \"linear\" or \"yarn\"", got))
        }
    }
}

fn linear(factor: f64) -> Value {
    json!({ "rope_type": "linear", "factor": factor })
}

/// Llama 3's scaling, as a configuration has it.
#[derive(Debug, Clone, Copy)]
struct Llama3 {
    factor: f64,
    low: f64,
    high: f64,
    original: f64,
}

impl Llama3 {
    /// The factor of a pair that turns `angle` per position.
    fn at(&self, angle: f64) -> f64 {
        let turns = self.original * angle / TAU;
        if turns < self.low {
            self.factor
        } else if turns > self.high {
            1.0
        } else {
            let keep = (turns - self.low) / (self.high - self.low);
            1.0 / ((1.0 - keep) / self.factor + keep)
        }
    }

    fn makes(&self, pairs: &[(f64, f64)]) -> bool {
        let near = |&(angle, factor): &(f64, f64)| (self.at(angle) / factor - 1.0).abs() < NEAR;
        self.low < self.high && pairs.iter().all(near)
    }
}

/// The scaling whose factors these are, `Some(None)` where they are all 1.
///
/// The table tells `factor`, its largest, and of the blend between 1 and that a line: how much of a
/// frequency is kept, over the frequency. A line has two numbers and the entries of llama3 three,
/// so `low_freq_factor` may be 1. What that makes is compared with the whole table.
fn of_factors(theta: f64, factors: &[f32]) -> Option<Option<Value>> {
    let width = 2.0 * factors.len() as f64;
    let angle = |pair: usize| libm::pow(theta, -2.0 * pair as f64 / width);
    let pairs = factors.iter().enumerate();
    let pairs: Vec<(f64, f64)> = pairs
        .map(|(pair, &factor)| (angle(pair), f64::from(factor)))
        .collect();
    let largest = pairs
        .iter()
        .fold(1.0f64, |most, (_, factor)| most.max(*factor));
    let is_one = |factor: f64| (factor - 1.0).abs() < NEAR;
    if is_one(largest) {
        return pairs
            .iter()
            .all(|&(_, factor)| is_one(factor))
            .then_some(None);
    }
    if pairs.iter().all(|&(_, factor)| is_one(factor / largest)) {
        return Some(Some(linear(largest)));
    }
    // How much of a frequency is kept: all of it at 1, none at the largest factor.
    let kept = |factor: f64| (1.0 / factor - 1.0 / largest) / (1.0 - 1.0 / largest);
    let blended = pairs.iter().filter(|(_, factor)| {
        let kept = kept(*factor);
        kept > 1e-4 && kept < 1.0 - 1e-4
    });
    let blended: Vec<(f64, f64)> = blended
        .map(|&(angle, factor)| (angle, kept(factor)))
        .collect();
    let (low, high) = (1.0, 4.0);
    let original = match (blended.first(), blended.last()) {
        // One point leaves the slope open: that of the published models.
        (Some(&(angle, kept)), Some(&(last, _))) if angle == last => {
            return found(
                &pairs,
                largest,
                [low, high],
                (kept * (high - low) + low) * TAU / angle,
            );
        }
        (Some(&(fast, more)), Some(&(slow, less))) => {
            let slope = (more - less) / (fast - slow);
            let none = fast - more / slope;
            let all = fast + (1.0 - more) / slope;
            return found(&pairs, largest, [low, low * all / none], low * TAU / none);
        }
        // None: its bounds lie anywhere between the last that is kept and the first that is not.
        _ => {
            let is_kept = |&&(_, factor): &&(f64, f64)| is_one(factor);
            let (last, _) = pairs.iter().rfind(is_kept)?;
            high * TAU / last * (1.0 + 1e-9)
        }
    };
    found(&pairs, largest, [low, high], original)
}

/// The scaling of these entries, or of the round numbers beside them, where it makes the table.
fn found(
    pairs: &[(f64, f64)],
    factor: f64,
    [low, high]: [f64; 2],
    original: f64,
) -> Option<Option<Value>> {
    let exact = Llama3 {
        factor,
        low,
        high,
        original,
    };
    let round = Llama3 {
        high: (2.0 * high).round() / 2.0,
        original: original.round(),
        ..exact
    };
    let scaling = [round, exact].into_iter().find(|one| one.makes(pairs))?;
    Some(Some(json!({
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low,
        "high_freq_factor": scaling.high,
        "original_max_position_embeddings": scaling.original,
    })))
}
