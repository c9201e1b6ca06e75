//! How fast each channel pair of a rotary embedding turns: the frequencies and their scalings, in
//! the words of Hugging Face `transformers` (`modeling_rope_utils.py`). All float64, by `libm`.

use std::f64::consts::TAU;

use crate::error::Error;
use crate::run::buffer::try_zeroed;

/// The kind of a [`RopeScaling`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RopeType {
    /// None.
    #[default]
    Default,
    /// Every frequency divided by `factor`.
    Linear,
    /// Long waves divided by `factor`, short ones kept, a blend between them (Llama 3.1).
    Llama3,
    /// A blend by the number of turns within the trained length, and a factor on cos and sin (arXiv
    /// 2309.00071).
    Yarn,
    /// None up to max_position_embeddings, which is wanted. Past it the base grows with the length
    /// of the text, so that a token's angles change with what follows it: not offered, see
    /// [`RopeFrequencies::longest`].
    Dynamic,
}

impl RopeType {
    /// Its name in a configuration file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Linear => "linear",
            Self::Llama3 => "llama3",
            Self::Yarn => "yarn",
            Self::Dynamic => "dynamic",
        }
    }
}

/// How the frequencies are stretched beyond the trained length: the entries of `rope_scaling`
/// (`rope_parameters`) of a Hugging Face configuration. Entries that a type does not know are
/// ignored, as there.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RopeScaling {
    /// The kind.
    pub rope_type: RopeType,
    /// Base of the frequencies, where the caller gives no theta of its own.
    pub rope_theta: Option<f64>,
    /// How many times longer the context is. Wanted by `Linear`, `Llama3` and `Dynamic`; `Yarn`
    /// takes max_position_embeddings / original_max_position_embeddings without it.
    pub factor: Option<f64>,
    /// `Llama3`, wanted: waves longer than original / low_freq_factor are divided by `factor`.
    pub low_freq_factor: Option<f64>,
    /// `Llama3`, wanted: waves shorter than original / high_freq_factor are kept.
    pub high_freq_factor: Option<f64>,
    /// The trained length, in tokens. `Llama3` and `Yarn` take max_position_embeddings without it.
    pub original_max_position_embeddings: Option<f64>,
    /// `Yarn`: the factor of cos and sin; without it 0.1 · ln(factor) + 1, or the quotient of the
    /// two mscales.
    pub attention_factor: Option<f64>,
    /// `Yarn`: pairs that turn more often within the trained length are kept; 32 by default.
    pub beta_fast: Option<f64>,
    /// `Yarn`: pairs that turn less often are divided by `factor`; 1 by default.
    pub beta_slow: Option<f64>,
    /// `Yarn`: slope of the numerator, (0.1 · mscale · ln(factor) + 1); counts when both mscales
    /// are given and not 0.
    pub mscale: Option<f64>,
    /// `Yarn`: slope of the denominator.
    pub mscale_all_dim: Option<f64>,
    /// `Yarn`: whether the bounds of the blend are whole channels; true by default.
    pub truncate: Option<bool>,
}

/// Base of the frequencies where nobody gives one.
const THETA: f64 = 10_000.0;

/// What decides how fast each pair of a rotary embedding turns: `theta^(−2i / rotary_dim)` per
/// position for pair i, scaled.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RopeFrequencies {
    /// Base of the frequencies; where given, it wins over `scaling.rope_theta`. 10000 by default.
    pub theta: Option<f64>,
    /// How the frequencies are stretched; not at all by default.
    pub scaling: Option<RopeScaling>,
    /// The length of the model's context, in tokens, which some scalings fall back to.
    pub max_position_embeddings: Option<f64>,
}

impl RopeFrequencies {
    /// Positions that there are angles for: with `Dynamic`, max_position_embeddings; `None` without
    /// a bound.
    #[must_use]
    pub fn longest(&self) -> Option<f64> {
        let is_dynamic = self
            .scaling
            .is_some_and(|scaling| scaling.rope_type == RopeType::Dynamic);
        self.max_position_embeddings.filter(|_| is_dynamic)
    }

    /// Whether there are angles up to the position before `end`.
    pub(super) fn check_end(&self, end: i64) -> Result<(), Error> {
        match self.longest() {
            Some(longest) if end as f64 > longest => Err(Error::option(
                "scaling.rope_type",
                format_args!(
                    "\"yarn\" or \"linear\" for more than {longest} positions (max_position_embeddings)"
                ),
                format_args!("\"dynamic\" for {end}"),
            )),
            _ => Ok(()),
        }
    }
}

/// Divides by `factor` the angles whose wave fits less than `low` times into the `original` length,
/// and in part those that it fits up to `high` times.
fn llama3_blend(angles: &mut [f64], factor: f64, [low, high]: [f64; 2], original: f64) {
    for angle in angles {
        // How often the wave fits into the trained length.
        let turns = original * *angle / TAU;
        if turns < low {
            *angle /= factor;
        } else if turns <= high {
            let keep = (turns - low) / (high - low);
            *angle = (1.0 - keep) * *angle / factor + keep * *angle;
        }
    }
}

/// The angle per position of each pair, and the factor of cos and sin.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Angles {
    pub(super) per_position: Vec<f64>,
    pub(super) factor: f64,
}

impl Angles {
    /// Of `rotary_dim` channels; of none, the options are checked all the same.
    pub(super) fn new(rotary_dim: usize, frequencies: &RopeFrequencies) -> Result<Self, Error> {
        let RopeFrequencies {
            theta,
            scaling,
            max_position_embeddings,
        } = *frequencies;
        let scaling = scaling.unwrap_or_default();
        if !rotary_dim.is_multiple_of(2) {
            return Err(Error::shape(
                "rotary_dim",
                "an even number of channels",
                rotary_dim,
            ));
        }
        let (name, theta) = match theta {
            Some(theta) => ("theta", theta),
            None => ("scaling.rope_theta", scaling.rope_theta.unwrap_or(THETA)),
        };
        let theta = positive(name, theta)?;
        let dim = rotary_dim as f64;
        let mut angles: Vec<f64> = try_zeroed(rotary_dim / 2)?;
        for (i, angle) in angles.iter_mut().enumerate() {
            *angle = libm::pow(theta, -2.0 * i as f64 / dim);
        }
        let original = || match (
            scaling.original_max_position_embeddings,
            max_position_embeddings,
        ) {
            (Some(length), _) | (None, Some(length)) => {
                positive("scaling.original_max_position_embeddings", length)
            }
            _ => Err(missing(
                "original_max_position_embeddings",
                scaling.rope_type,
            )),
        };
        let wanted = |name: &str, value: Option<f64>| match value {
            Some(value) => positive(&format!("scaling.{name}"), value),
            None => Err(missing(name, scaling.rope_type)),
        };
        let mut attention_factor = 1.0;
        match scaling.rope_type {
            RopeType::Default => {}
            RopeType::Linear => {
                let factor = wanted("factor", scaling.factor)?;
                angles.iter_mut().for_each(|angle| *angle /= factor);
            }
            RopeType::Llama3 => {
                let factor = wanted("factor", scaling.factor)?;
                let low = wanted("low_freq_factor", scaling.low_freq_factor)?;
                let high = wanted("high_freq_factor", scaling.high_freq_factor)?;
                if high <= low {
                    let expected = format_args!("more than low_freq_factor {low}").to_string();
                    return Err(Error::option("scaling.high_freq_factor", expected, high));
                }
                llama3_blend(&mut angles, factor, [low, high], original()?);
            }
            RopeType::Dynamic => {
                wanted("factor", scaling.factor)?;
                let longest = max_position_embeddings
                    .ok_or_else(|| missing("max_position_embeddings", scaling.rope_type))?;
                positive("max_position_embeddings", longest)?;
            }
            RopeType::Yarn => {
                let original = original()?;
                let factor = match (scaling.factor, max_position_embeddings) {
                    (None, Some(length)) => positive("max_position_embeddings", length)? / original,
                    (factor, _) => wanted("factor", factor)?,
                };
                attention_factor = scaling.yarn_attention_factor(factor);
                scaling.yarn_blend(&mut angles, theta, factor, original)?;
            }
        }
        Ok(Self {
            per_position: angles,
            factor: attention_factor,
        })
    }
}

impl RopeScaling {
    fn yarn_attention_factor(&self, factor: f64) -> f64 {
        let magnitude = |slope: f64| {
            if factor <= 1.0 {
                1.0
            } else {
                0.1 * slope * libm::log(factor) + 1.0
            }
        };
        match (self.attention_factor, self.mscale, self.mscale_all_dim) {
            (Some(factor), ..) => factor,
            (None, Some(mscale), Some(all)) if mscale != 0.0 && all != 0.0 => {
                magnitude(mscale) / magnitude(all)
            }
            _ => magnitude(1.0),
        }
    }

    fn yarn_blend(
        &self,
        angles: &mut [f64],
        theta: f64,
        factor: f64,
        original: f64,
    ) -> Result<(), Error> {
        let dim = 2.0 * angles.len() as f64;
        // The pair that turns `turns` times within the trained length.
        let pair_of = |name: &str, turns: Option<f64>, default: f64| {
            // As there: 0 counts as not given.
            let turns = positive(name, turns.filter(|&turns| turns != 0.0).unwrap_or(default))?;
            Ok(dim * libm::log(original / (turns * TAU)) / (2.0 * libm::log(theta)))
        };
        let mut low = pair_of("scaling.beta_fast", self.beta_fast, 32.0)?;
        let mut high = pair_of("scaling.beta_slow", self.beta_slow, 1.0)?;
        if self.truncate.unwrap_or(true) {
            (low, high) = (libm::floor(low), libm::ceil(high));
        }
        (low, high) = (low.max(0.0), high.min(dim - 1.0));
        if low == high {
            high += 0.001; // as there: the ramp must have a slope
        }
        for (pair, angle) in angles.iter_mut().enumerate() {
            let divide = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
            *angle = *angle / factor * divide + *angle * (1.0 - divide);
        }
        Ok(())
    }
}

fn positive(argument: &str, value: f64) -> Result<f64, Error> {
    if value > 0.0 && value.is_finite() {
        Ok(value)
    } else {
        Err(Error::option(argument, "a finite number above 0", value))
    }
}

fn missing(name: &str, rope_type: RopeType) -> Error {
    Error::option(
        format_args!("scaling.{name}"),
        format_args!("a number for rope_type {}", rope_type.name()),
        "none",
    )
}
