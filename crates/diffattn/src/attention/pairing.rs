//! Which q, k and v heads make an output head. The only place that knows head layouts: a new one is a new
//! arm here. Sources: arXiv 2410.05258 (interleaved), Hugging Face diffllama (halves), arXiv 2510.06949
//! (grouped), the V2 note of microsoft/unilm (shared).

use super::options::{AttentionOptions, HeadPlan, KvRepeat, Pairing};
use crate::error::Error;

/// Terms of a head at most.
const MAX_TERMS: usize = 8;

/// Flat heads at most: a plan lists its heads, and an empty tensor or a layer's options can name any number.
const MAX_HEADS: usize = 1 << 16;

/// One output head: `Σ_t coefficients[t] · softmax(q[t] k[t]ᵀ)` times v heads side by side.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Head {
    /// (q head, k head) of each term.
    pub(super) terms: Vec<(usize, usize)>,
    pub(super) v: Vec<usize>,
    pub(super) coefficients: Vec<f32>,
}

/// Every output head of a call.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) heads: Vec<Head>,
    /// T: the largest number of terms of any head.
    pub(super) terms: usize,
    /// v heads that each output head concatenates.
    pub(super) values: usize,
}

/// Head counts of q, k and v; no v when only maps are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadCounts {
    pub(super) q: usize,
    pub(super) k: usize,
    pub(super) v: Option<usize>,
}

impl Pairing {
    /// Flat heads of q, k and v that `heads` output heads and `groups` key/value groups take (with `Halves`: flat
    /// k heads); `groups` of `None` shares no k and v between heads. `None` when `ratio` does not divide `heads`, or
    /// when a count overflows. Whether `groups` fits is for [`Pairing::heads`] to say.
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
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or [`ErrorKind::Option`](crate::ErrorKind::Option) for counts or options that break a rule of the pairing.
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
    if let Some(ratio) = options.ratio.filter(|&ratio| ratio > MAX_HEADS) {
        return Err(Error::option(
            "ratio",
            format_args!("at most {MAX_HEADS}"),
            ratio,
        ));
    }
    if let Some(heads) = &options.heads {
        return explicit(counts, heads, options);
    }
    let coefficients = match (&options.lambda, options.coefficients) {
        (Some(_), None) => vec![1.0, -1.0],
        (None, Some(coefficients)) => coefficients.to_vec(),
        (Some(_), Some(_)) => {
            return Err(Error::option(
                "lambda",
                "one of lambda and coefficients",
                "both",
            ));
        }
        (None, None) => {
            return Err(Error::option(
                "lambda",
                "one of lambda and coefficients",
                "neither",
            ));
        }
    };
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
    let ratio = match (options.ratio, pairing) {
        (None, _) => 1,
        (Some(_), Pairing::Interleaved | Pairing::Halves) => {
            return Err(Error::option(
                "ratio",
                "none unless the pairing is grouped or shared",
                "one",
            ));
        }
        (Some(0), _) => return Err(Error::option("ratio", "1 or more", 0)),
        (Some(ratio), _) => ratio,
    };
    let flat = match (options.kv_repeat, pairing) {
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
    if flat && terms != 2 {
        return Err(Error::option(
            "kv_repeat",
            "\"paired\" unless there are 2 terms",
            "\"flat\"",
        ));
    }
    let HeadCounts {
        q: n_q,
        k: n_k,
        v: n_v,
    } = counts;
    let head = |pairs: Vec<(usize, usize)>, v: Vec<usize>| Head {
        terms: pairs,
        v,
        coefficients: coefficients.clone(),
    };
    let heads: Vec<Head> = match pairing {
        Pairing::Interleaved => {
            let output = divided("q", "q heads", n_q, terms, "terms")?;
            let groups = divided("k", "k heads", n_k, terms, "terms")?;
            expect_values(n_v, groups, "k heads / terms")?;
            let repeat = divided("q", "output heads", output, groups, "key/value groups")?;
            (0..output)
                .map(|h| {
                    let pairs = (0..terms).map(|t| {
                        let k = if flat {
                            (2 * h + t) / repeat
                        } else {
                            terms * (h / repeat) + t
                        };
                        (terms * h + t, k)
                    });
                    head(pairs.collect(), vec![h / repeat])
                })
                .collect()
        }
        Pairing::Halves => {
            let output = divided("q", "q heads", n_q, 2, "halves")?;
            expect_values(n_v, n_k, "k heads")?;
            let repeat = divided("q", "q heads", n_q, n_k, "k heads")?;
            (0..output)
                .map(|h| {
                    let (first, second) = (h / repeat, (h + output) / repeat);
                    head(vec![(h, first), (h + output, second)], vec![first, second])
                })
                .collect()
        }
        Pairing::Grouped | Pairing::Shared => {
            let shared = pairing == Pairing::Shared;
            let noise_heads = divided(
                "q",
                "q heads",
                n_q,
                ratio + 1,
                "heads per noise group (ratio + 1)",
            )?;
            let groups = if shared {
                n_k
            } else {
                divided("k", "k heads", n_k, 2, "maps")?
            };
            expect_values(n_v, groups, if shared { "k heads" } else { "k heads / 2" })?;
            let repeat = divided("q", "noise groups", noise_heads, groups, "key/value groups")?;
            (0..noise_heads * ratio)
                .map(|h| {
                    let noise = h / ratio;
                    let first = noise * (ratio + 1);
                    let group = noise / repeat;
                    let (signal_k, noise_k) = if shared {
                        (group, group)
                    } else {
                        (2 * group, 2 * group + 1)
                    };
                    head(
                        vec![(first + h % ratio, signal_k), (first + ratio, noise_k)],
                        vec![group],
                    )
                })
                .collect()
        }
    };
    let values = heads.first().map_or(1, |head| head.v.len());
    Ok(Plan {
        heads,
        terms,
        values,
    })
}

fn explicit(
    counts: HeadCounts,
    heads: &[HeadPlan],
    options: &AttentionOptions<'_>,
) -> Result<Plan, Error> {
    if options.coefficients.is_some() {
        return Err(Error::option(
            "coefficients",
            "none beside heads, which carry their own",
            "both",
        ));
    }
    if options.ratio.is_some() {
        return Err(Error::option("ratio", "none beside heads", "one"));
    }
    if options.kv_repeat.is_some() {
        return Err(Error::option("kv_repeat", "none beside heads", "one"));
    }
    if options.pairing != Pairing::Interleaved {
        return Err(Error::option("pairing", "none beside heads", "one"));
    }
    if heads.is_empty() {
        return Err(Error::shape("heads", "one entry per output head", "none"));
    }
    let in_range = |argument: String, list: &[usize], count: usize| match list
        .iter()
        .find(|&&head| head >= count)
    {
        Some(head) => Err(Error::shape(
            argument,
            format_args!("head numbers below {count}"),
            head,
        )),
        None => Ok(()),
    };
    let mut planned = Vec::with_capacity(heads.len());
    for (h, head) in heads.iter().enumerate() {
        let terms = head.q.len();
        check_terms(&format!("heads[{h}].q"), terms)?;
        if head.k.len() != terms {
            return Err(Error::shape(
                format_args!("heads[{h}].k"),
                format_args!("{terms} entries as q"),
                head.k.len(),
            ));
        }
        in_range(format!("heads[{h}].q"), &head.q, counts.q)?;
        in_range(format!("heads[{h}].k"), &head.k, counts.k)?;
        if let Some(n_v) = counts.v {
            in_range(format!("heads[{h}].v"), &head.v, n_v)?;
            let expected = heads.first().map_or(1, |first| first.v.len());
            if head.v.is_empty() || head.v.len() != expected {
                return Err(Error::shape(
                    format_args!("heads[{h}].v"),
                    format_args!("{} entries, as in every head", expected.max(1)),
                    head.v.len(),
                ));
            }
        }
        let coefficients = match (&head.coefficients, terms) {
            (Some(given), _) if given.len() == terms => given.clone(),
            (Some(given), _) => {
                return Err(Error::shape(
                    format_args!("heads[{h}].coefficients"),
                    format_args!("{terms} entries as q"),
                    given.len(),
                ));
            }
            (None, 1) => vec![1.0],
            (None, 2) => vec![1.0, -1.0],
            (None, _) => {
                return Err(Error::option(
                    format_args!("heads[{h}].coefficients"),
                    format_args!("{terms} entries for {terms} terms"),
                    "none",
                ));
            }
        };
        let terms = head.q.iter().copied().zip(head.k.iter().copied()).collect();
        planned.push(Head {
            terms,
            v: head.v.clone(),
            coefficients,
        });
    }
    let terms = planned
        .iter()
        .map(|head| head.terms.len())
        .max()
        .unwrap_or(0);
    let values = planned.first().map_or(1, |head| head.v.len());
    Ok(Plan {
        heads: planned,
        terms,
        values,
    })
}

fn check_terms(argument: &str, terms: usize) -> Result<(), Error> {
    if (1..=MAX_TERMS).contains(&terms) {
        Ok(())
    } else {
        Err(Error::option(
            argument,
            format_args!("1 to {MAX_TERMS} terms"),
            terms,
        ))
    }
}

/// `count / by`, which must be a whole number of at least one.
fn divided(
    argument: &str,
    what: &str,
    count: usize,
    by: usize,
    by_what: &str,
) -> Result<usize, Error> {
    if by > 0 && count > 0 && count.is_multiple_of(by) {
        Ok(count / by)
    } else {
        Err(Error::shape(
            argument,
            format_args!("a number of {what} that {by} {by_what} divide"),
            format_args!("{count} {what}"),
        ))
    }
}

fn expect_values(n_v: Option<usize>, groups: usize, rule: &str) -> Result<(), Error> {
    match n_v {
        Some(n_v) if n_v != groups => Err(Error::shape(
            "v",
            format_args!("{groups} v heads ({rule})"),
            format_args!("{n_v} v heads"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::options::Lambda;

    fn of(
        pairing: Pairing,
        q: usize,
        k: usize,
        v: usize,
        ratio: Option<usize>,
    ) -> Result<Plan, Error> {
        let options = AttentionOptions {
            lambda: Some(Lambda::Value(0.5)),
            pairing,
            ratio,
            ..AttentionOptions::default()
        };
        plan(HeadCounts { q, k, v: Some(v) }, &options)
    }

    type Pairs = (Vec<(usize, usize)>, Vec<usize>);

    fn pairs(plan: Plan) -> Vec<Pairs> {
        plan.heads
            .into_iter()
            .map(|head| (head.terms, head.v))
            .collect()
    }

    #[test]
    fn the_table_of_the_fixtures() -> Result<(), Error> {
        assert_eq!(
            pairs(of(Pairing::Interleaved, 8, 4, 2, None)?)[2],
            (vec![(4, 2), (5, 3)], vec![1])
        );
        assert_eq!(
            pairs(of(Pairing::Halves, 6, 3, 3, None)?)[1],
            (vec![(1, 0), (4, 2)], vec![0, 2])
        );
        assert_eq!(
            pairs(of(Pairing::Grouped, 8, 4, 2, Some(3))?)[4],
            (vec![(5, 2), (7, 3)], vec![1])
        );
        assert_eq!(
            pairs(of(Pairing::Shared, 10, 1, 1, Some(4))?)[7],
            (vec![(8, 0), (9, 0)], vec![0])
        );
        Ok(())
    }

    #[test]
    fn counts_of_a_layer_fit_its_pairing() {
        for (pairing, heads, groups, ratio, counts) in [
            (Pairing::Interleaved, 6, Some(3), 1, Some([12, 6, 3])),
            (Pairing::Interleaved, 6, None, 1, Some([12, 12, 6])),
            (Pairing::Halves, 3, None, 1, Some([6, 6, 6])),
            (Pairing::Halves, 3, Some(3), 1, Some([6, 3, 3])),
            (Pairing::Grouped, 6, Some(1), 3, Some([8, 2, 1])),
            (Pairing::Shared, 6, None, 3, Some([8, 2, 2])),
            (Pairing::Shared, 6, None, 4, None),
            (Pairing::Shared, 6, None, 0, None),
            (Pairing::Interleaved, usize::MAX, None, 1, None),
        ] {
            let got = pairing.head_counts(heads, groups, ratio);
            assert_eq!(got, counts);
            let wanted = matches!(pairing, Pairing::Grouped | Pairing::Shared).then_some(ratio);
            let plan =
                got.map(|counts| pairing.heads(counts, None, wanted).map(|heads| heads.len()));
            assert_eq!(plan, got.map(|_| Ok(heads)));
        }
    }

    #[test]
    fn impossible_counts_name_the_rule() {
        for (pairing, q, k, v, ratio, says) in [
            (
                Pairing::Interleaved,
                3,
                2,
                1,
                None,
                "q: expected a number of q heads that 2 terms divide, got 3 q heads",
            ),
            (
                Pairing::Interleaved,
                4,
                4,
                1,
                None,
                "v: expected 2 v heads (k heads / terms), got 1 v heads",
            ),
            (
                Pairing::Interleaved,
                6,
                4,
                2,
                None,
                "q: expected a number of output heads that 2 key/value groups divide, got 3 output heads",
            ),
            (
                Pairing::Halves,
                4,
                3,
                3,
                None,
                "q: expected a number of q heads that 3 k heads divide, got 4 q heads",
            ),
            (
                Pairing::Grouped,
                9,
                4,
                2,
                Some(3),
                "q: expected a number of q heads that 4 heads per noise group (ratio + 1) divide, got 9 q heads",
            ),
            (
                Pairing::Interleaved,
                4,
                4,
                2,
                Some(1),
                "ratio: expected none unless the pairing is grouped or shared, got one",
            ),
        ] {
            let error = of(pairing, q, k, v, ratio)
                .map(|_| ())
                .map_err(|error| error.to_string());
            assert_eq!(error, Err(says.to_owned()));
        }
    }
}
