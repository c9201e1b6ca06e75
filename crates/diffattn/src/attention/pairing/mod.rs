//! Which q, k and v heads make an output head: by a head layout, or as the caller says. Checks the
//! counts and the options that belong to it.

mod explicit;
mod layouts;
#[cfg(test)]
mod tests;

use super::options::{AttentionOptions, HeadPlan, KvRepeat, Pairing};
use super::plan::{HeadCounts, Plan, check_terms};
use crate::error::Error;
use explicit::explicit;
use layouts::{grouped, halves, interleaved, shared};

/// Flat heads at most: a plan lists its heads, and an empty tensor or a layer's options can name
/// any number.
const MAX_HEADS: usize = 1 << 16;

impl Pairing {
    /// Flat heads of q, k and v that `heads` output heads and `groups` key/value groups take (with
    /// `Halves`: flat k heads); `groups` of `None` shares no k and v between heads. `None` when
    /// `ratio` does not divide `heads`, or when a count overflows. Whether `groups` fits is for
    /// [`Pairing::heads`] to say.
    #[must_use]
    pub fn head_counts(
        self,
        heads: usize,
        groups: Option<usize>,
        ratio: usize,
    ) -> Option<[usize; 3]> {
        match self {
            Self::Interleaved => {
                let groups = groups.unwrap_or(heads);
                Some([heads.checked_mul(2)?, groups.checked_mul(2)?, groups])
            }
            Self::Halves => {
                let flat = heads.checked_mul(2)?;
                let groups = groups.unwrap_or(flat);
                Some([flat, groups, groups])
            }
            Self::Grouped | Self::Shared => {
                let noise = heads
                    .checked_div(ratio)
                    .filter(|noise| noise * ratio == heads)?;
                let groups = groups.unwrap_or(noise);
                let k = if self == Self::Shared {
                    groups
                } else {
                    groups.checked_mul(2)?
                };
                Some([heads.checked_add(noise)?, k, groups])
            }
        }
    }

    /// The plan that this pairing makes of `[q, k, v]` flat heads with two terms: what `heads` of
    /// [`AttentionOptions`] would say.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) for counts or options that break a rule of
    /// the pairing.
    pub fn heads(
        self,
        counts: [usize; 3],
        kv_repeat: Option<KvRepeat>,
        ratio: Option<usize>,
    ) -> Result<Vec<HeadPlan>, Error> {
        let [q, k, v] = counts;
        let coefficients = Some(&[1.0, -1.0][..]);
        let options = AttentionOptions {
            coefficients,
            pairing: self,
            kv_repeat,
            ratio,
            ..AttentionOptions::default()
        };
        let plan = plan(HeadCounts { q, k, v: Some(v) }, &options)?;
        let heads = plan.heads.into_iter().map(|head| {
            let (q, k) = head.terms.into_iter().unzip();
            HeadPlan {
                q,
                k,
                v: head.v,
                coefficients: Some(head.coefficients),
            }
        });
        Ok(heads.collect())
    }
}

/// The plan of a call, or the error that says which rule its head counts break.
pub(super) fn plan(counts: HeadCounts, options: &AttentionOptions<'_>) -> Result<Plan, Error> {
    check_sizes(counts, options.ratio)?;
    if let Some(heads) = &options.heads {
        return explicit(counts, heads, options);
    }
    let coefficients = coefficients(options)?;
    let terms = coefficients.len();
    check_terms("coefficients", terms)?;
    let pairing = options.pairing;
    if terms != 2 && pairing != Pairing::Interleaved {
        return Err(Error::option(
            "coefficients",
            "2 terms unless the pairing is interleaved",
            terms,
        ));
    }
    let ratio = ratio(options)?;
    let flat = is_flat(options, terms)?;
    let heads = match pairing {
        Pairing::Interleaved => interleaved(counts, &coefficients, flat)?,
        Pairing::Halves => halves(counts, &coefficients)?,
        Pairing::Grouped => grouped(counts, &coefficients, ratio)?,
        Pairing::Shared => shared(counts, &coefficients, ratio)?,
    };
    let values = heads.first().map_or(1, |head| head.v.len());
    Ok(Plan {
        heads,
        terms,
        values,
    })
}

/// Checks that nothing names more heads than a plan may list.
fn check_sizes(counts: HeadCounts, ratio: Option<usize>) -> Result<(), Error> {
    for (argument, heads) in [
        ("q", counts.q),
        ("k", counts.k),
        ("v", counts.v.unwrap_or(0)),
    ] {
        if heads > MAX_HEADS {
            return Err(Error::shape(
                argument,
                format_args!("at most {MAX_HEADS} heads"),
                heads,
            ));
        }
    }
    match ratio {
        Some(ratio) if ratio > MAX_HEADS => Err(Error::option(
            "ratio",
            format_args!("at most {MAX_HEADS}"),
            ratio,
        )),
        _ => Ok(()),
    }
}

/// One coefficient per term: those given, or 1 and −1 for λ to scale.
fn coefficients(options: &AttentionOptions<'_>) -> Result<Vec<f32>, Error> {
    let got = match (&options.lambda, options.coefficients) {
        (Some(_), None) => return Ok(vec![1.0, -1.0]),
        (None, Some(coefficients)) => return Ok(coefficients.to_vec()),
        (Some(_), Some(_)) => "both",
        (None, None) => "neither",
    };
    let expected = "one of lambda and coefficients";
    Err(Error::option("lambda", expected, got))
}

/// Signal heads per noise head, 1 for pairings that have none.
fn ratio(options: &AttentionOptions<'_>) -> Result<usize, Error> {
    match (options.ratio, options.pairing) {
        (None, _) => Ok(1),
        (Some(_), Pairing::Interleaved | Pairing::Halves) => Err(Error::option(
            "ratio",
            "none unless the pairing is grouped or shared",
            "one",
        )),
        (Some(0), _) => Err(Error::option("ratio", "1 or more", 0)),
        (Some(ratio), _) => Ok(ratio),
    }
}

/// Whether k heads are repeated one by one.
fn is_flat(options: &AttentionOptions<'_>, terms: usize) -> Result<bool, Error> {
    let is_flat = match (options.kv_repeat, options.pairing) {
        (None, _) => false,
        (Some(repeat), Pairing::Interleaved) => repeat == KvRepeat::Flat,
        (Some(_), _) => {
            return Err(Error::option(
                "kv_repeat",
                "none unless the pairing is interleaved",
                "one",
            ));
        }
    };
    if is_flat && terms != 2 {
        return Err(Error::option(
            "kv_repeat",
            "\"paired\" unless there are 2 terms",
            "\"flat\"",
        ));
    }
    Ok(is_flat)
}
