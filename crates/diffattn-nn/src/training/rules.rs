//! What a user says of weights by their names: which stay, which move more slowly. Knows no model.

use super::arena::Parameter;
use diffattn::{Error, format_shape};
use std::ops::Range;
use wildmatch::WildMatch;

/// A rule for the weights whose names fit: a pattern with `*` (any letters) and `?` (one letter) is
/// of whole names, one without is a part of them.
#[derive(Debug, Clone, PartialEq)]
pub struct NamePattern {
    text: String,
    matcher: WildMatch,
}

impl NamePattern {
    /// Of its text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let whole = if text.contains(['*', '?']) {
            text.to_owned()
        } else {
            format!("*{text}*")
        };
        Self {
            text: text.to_owned(),
            matcher: WildMatch::new(&whole),
        }
    }

    /// Whether a name fits.
    #[must_use]
    pub fn fits(&self, name: &str) -> bool {
        self.matcher.matches(name)
    }
}

/// What moves, and how fast: rules by patterns of names. The last that fits counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ParameterRules {
    /// Weights that stay as they are.
    pub freeze: Vec<NamePattern>,
    /// Rows (of the first axis) that stay as they are, of weights that move otherwise.
    pub freeze_rows: Vec<(NamePattern, Vec<Range<usize>>)>,
    /// What the learning rate is multiplied with.
    pub lr_scale: Vec<(NamePattern, f64)>,
}

impl ParameterRules {
    /// Whether a weight of that name stays.
    #[must_use]
    pub fn freezes(&self, name: &str) -> bool {
        self.freeze.iter().any(|pattern| pattern.fits(name))
    }

    /// Refuses a pattern of [`ParameterRules::freeze`] that no name fits: `seen`, names of weights.
    pub(super) fn check_frozen(&self, seen: &[String]) -> Result<(), Error> {
        let is_idle = |of: &&NamePattern| !seen.iter().any(|name| of.fits(name));
        match self.freeze.iter().find(is_idle) {
            Some(pattern) => Err(unmatched("freeze", pattern)),
            None => Ok(()),
        }
    }

    /// Says of each parameter how it moves.
    pub(super) fn apply(&self, parameters: &mut [Parameter]) -> Result<(), Error> {
        for (pattern, factor) in &self.lr_scale {
            if !(*factor >= 0.0 && factor.is_finite()) {
                return Err(Error::option("lrScale", "factors from 0", factor));
            }
            let mut fitting = fitting("lrScale", parameters, pattern)?;
            fitting.try_for_each(|parameter| {
                parameter.lr_scale = *factor;
                Ok::<_, Error>(())
            })?;
        }
        for (pattern, rows) in &self.freeze_rows {
            for parameter in fitting("freeze", parameters, pattern)? {
                let mut end = 0;
                for range in rows {
                    let of = parameter.shape.first().copied().unwrap_or(1);
                    if range.start < end || range.start > range.end || range.end > of {
                        return Err(Error::option(
                            "freeze",
                            format_args!(
                                "ranges that ascend within the rows of {} {}",
                                parameter.name,
                                format_shape(&parameter.shape)
                            ),
                            format_args!("{} to {}", range.start, range.end),
                        ));
                    }
                    end = range.end;
                }
                parameter.frozen_rows.clone_from(rows);
            }
        }
        Ok(())
    }
}

/// The parameters that a pattern fits, one at least.
fn fitting<'p>(
    argument: &str,
    parameters: &'p mut [Parameter],
    pattern: &NamePattern,
) -> Result<impl Iterator<Item = &'p mut Parameter>, Error> {
    if !parameters.iter().any(|of| pattern.fits(&of.name)) {
        return Err(unmatched(argument, pattern));
    }
    let pattern = pattern.clone();
    let of = parameters.iter_mut();
    Ok(of.filter(move |of| pattern.fits(&of.name)))
}

fn unmatched(argument: &str, pattern: &NamePattern) -> Error {
    Error::option(
        argument,
        "patterns of the names of weights",
        format_args!("{:?}, which none fits", pattern.text),
    )
}
