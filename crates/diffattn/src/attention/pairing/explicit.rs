//! A plan that the caller gave, head by head.

use crate::attention::options::{AttentionOptions, HeadPlan, Pairing};
use crate::attention::plan::{Head, HeadCounts, Plan, check_terms};
use crate::error::Error;

/// The plan that the caller gave.
pub(super) fn explicit(
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
    for (argument, is_given) in [
        ("ratio", options.ratio.is_some()),
        ("kv_repeat", options.kv_repeat.is_some()),
        ("pairing", options.pairing != Pairing::Interleaved),
    ] {
        if is_given {
            return Err(Error::option(argument, "none beside heads", "one"));
        }
    }
    let Some(first) = heads.first() else {
        return Err(Error::shape("heads", "one entry per output head", "none"));
    };
    let mut planned = Vec::with_capacity(heads.len());
    for (h, head) in heads.iter().enumerate() {
        check_heads(h, head, counts, first.v.len())?;
        planned.push(Head {
            terms: head.q.iter().copied().zip(head.k.iter().copied()).collect(),
            v: head.v.clone(),
            coefficients: own_coefficients(h, head)?,
        });
    }
    let terms = planned.iter().map(|head| head.terms.len());
    Ok(Plan {
        terms: terms.max().unwrap_or(0),
        values: first.v.len(),
        heads: planned,
    })
}

/// Checks that entry `h` of a given plan names heads that there are, `values` of v.
fn check_heads(h: usize, head: &HeadPlan, counts: HeadCounts, values: usize) -> Result<(), Error> {
    let terms = head.q.len();
    check_terms(&format!("heads[{h}].q"), terms)?;
    if head.k.len() != terms {
        return Err(Error::shape(
            format_args!("heads[{h}].k"),
            format_args!("{terms} entries as q"),
            head.k.len(),
        ));
    }
    let in_range = |name: &str, list: &[usize], count: usize| {
        let Some(head) = list.iter().find(|&&head| head >= count) else {
            return Ok(());
        };
        Err(Error::shape(
            format_args!("heads[{h}].{name}"),
            format_args!("head numbers below {count}"),
            head,
        ))
    };
    in_range("q", &head.q, counts.q)?;
    in_range("k", &head.k, counts.k)?;
    if let Some(n_v) = counts.v {
        in_range("v", &head.v, n_v)?;
        if head.v.is_empty() || head.v.len() != values {
            return Err(Error::shape(
                format_args!("heads[{h}].v"),
                format_args!("{} entries, as in every head", values.max(1)),
                head.v.len(),
            ));
        }
    }
    Ok(())
}

/// The coefficients of entry `h` of a given plan: its own, or those of one term or of a difference.
fn own_coefficients(h: usize, head: &HeadPlan) -> Result<Vec<f32>, Error> {
    let terms = head.q.len();
    match (&head.coefficients, terms) {
        (Some(given), _) if given.len() == terms => Ok(given.clone()),
        (Some(given), _) => Err(Error::shape(
            format_args!("heads[{h}].coefficients"),
            format_args!("{terms} entries as q"),
            given.len(),
        )),
        (None, 1) => Ok(vec![1.0]),
        (None, 2) => Ok(vec![1.0, -1.0]),
        (None, _) => Err(Error::option(
            format_args!("heads[{h}].coefficients"),
            format_args!("{terms} entries for {terms} terms"),
            "none",
        )),
    }
}
