//! Plans of each head layout, and the rules that impossible counts break.

use super::plan;
use crate::attention::kept::KeptPlan;
use crate::attention::options::{AttentionOptions, HeadPlan, KvRepeat, Lambda, Pairing};
use crate::attention::plan::{HeadCounts, Plan};
use crate::error::Error;
use std::borrow::Cow;
use std::sync::Arc;

fn of(pairing: Pairing, q: usize, k: usize, v: usize, ratio: Option<usize>) -> Result<Plan, Error> {
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
        let plan = got.map(|counts| pairing.heads(counts, None, wanted).map(|heads| heads.len()));
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

/// A plan is kept for what it is made from, and nothing that it depends on is left out.
#[test]
fn plans_are_kept_for_what_they_are_made_from() -> Result<(), Error> {
    let counts = HeadCounts {
        q: 8,
        k: 4,
        v: Some(2),
    };
    let with = |lambda: f32| AttentionOptions {
        lambda: Some(Lambda::Value(lambda)),
        ..AttentionOptions::default()
    };
    // (Where another test looks for one just now, a plan is made anew.)
    type Made<'a> = (HeadCounts, AttentionOptions<'a>);
    let is_kept = |one: &Made<'_>, other: &Made<'_>| {
        let same = |_| {
            let plans = [one, other].map(|(counts, options)| KeptPlan::of(*counts, options));
            matches!(plans, [Ok(one), Ok(other)] if Arc::ptr_eq(&one, &other))
        };
        (0..1000).any(same)
    };
    assert!(is_kept(&(counts, with(0.5)), &(counts, with(0.25))));
    let coefficients = |coefficients| AttentionOptions {
        coefficients: Some(coefficients),
        ..AttentionOptions::default()
    };
    let heads = |coefficient| AttentionOptions {
        heads: Some(Cow::Owned(vec![HeadPlan {
            q: vec![0],
            k: vec![0],
            v: vec![0],
            coefficients: Some(vec![coefficient]),
        }])),
        ..AttentionOptions::default()
    };
    let flat = AttentionOptions {
        kv_repeat: Some(KvRepeat::Flat),
        ..with(0.5)
    };
    let halves = AttentionOptions {
        pairing: Pairing::Halves,
        ..with(0.5)
    };
    let fewer = HeadCounts {
        k: 2,
        v: None,
        ..counts
    };
    let four = HeadCounts {
        v: Some(4),
        ..counts
    };
    let others = [
        (counts, coefficients(&[1.0, 0.0])),
        (counts, coefficients(&[1.0, -0.0])),
        (counts, heads(0.0)),
        (counts, heads(-0.0)),
        (counts, flat),
        (four, halves),
        (fewer, with(0.5)),
    ];
    for other in &others {
        assert!(!is_kept(&(counts, with(0.5)), other), "{other:?}");
        assert!(is_kept(other, other), "{other:?}");
        let (counts, options) = other;
        let made = plan(*counts, options)?;
        assert_eq!(KeptPlan::of(*counts, options)?.heads, made.heads);
    }
    // A zero has a sign.
    for [one, other] in [[0, 1], [2, 3]] {
        assert!(!is_kept(&others[one], &others[other]));
    }
    Ok(())
}
