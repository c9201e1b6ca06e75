//! The sampler against a plain version of Hugging Face's definitions: which ids may come, and how
//! often they do.

use crate::common::{ok, refusal};
use diffattn_nn::{Sampler, SamplerOptions};

/// Probabilities as `transformers` defines them: each step over a list of scores, −∞ where an id is
/// out.
fn probabilities(logits: &[f32], ids: &[u32], options: &SamplerOptions) -> Vec<f64> {
    let mut scores: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    let mut seen = ids.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        let score = &mut scores[id as usize];
        *score *= if *score < 0.0 {
            options.repetition_penalty
        } else {
            1.0 / options.repetition_penalty
        };
    }
    scores
        .iter_mut()
        .for_each(|score| *score /= options.temperature);
    if let Some(top_k) = options.top_k {
        let mut sorted = scores.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let least = sorted[top_k.min(sorted.len()) - 1];
        scores
            .iter_mut()
            .filter(|score| **score < least)
            .for_each(|score| *score = f64::NEG_INFINITY);
    }
    if options.top_p < 1.0 {
        let softmax = softmax(&scores);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
        let mut sum = 0.0;
        for &id in &order[..order.len() - 1] {
            sum += softmax[id];
            if sum <= 1.0 - options.top_p {
                scores[id] = f64::NEG_INFINITY;
            }
        }
    }
    softmax(&scores)
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

const LOGITS: [f32; 12] = [
    0.3,
    -1.2,
    2.0,
    2.0,
    f32::NEG_INFINITY,
    0.0,
    1.1,
    -0.4,
    3.1,
    2.9,
    -7.0,
    0.9,
];

#[test]
fn distributions() {
    let base = SamplerOptions {
        temperature: 1.0,
        ..SamplerOptions::default()
    };
    let cases = [
        base,
        SamplerOptions {
            temperature: 0.4,
            ..base
        },
        SamplerOptions {
            temperature: 3.0,
            ..base
        },
        SamplerOptions {
            top_k: Some(1),
            ..base
        },
        SamplerOptions {
            top_k: Some(3),
            ..base
        },
        SamplerOptions {
            top_k: Some(100),
            ..base
        },
        SamplerOptions { top_p: 0.5, ..base },
        SamplerOptions { top_p: 0.9, ..base },
        SamplerOptions { top_p: 0.0, ..base },
        SamplerOptions {
            repetition_penalty: 1.7,
            ..base
        },
        SamplerOptions {
            repetition_penalty: 0.6,
            ..base
        },
        SamplerOptions {
            temperature: 1.6,
            top_k: Some(6),
            top_p: 0.85,
            repetition_penalty: 1.3,
            seed: 3,
        },
    ];
    let ids = [8, 1, 8, 8, 6];
    for options in cases {
        let expected = probabilities(&LOGITS, &ids, &options);
        let mut sampler = ok(Sampler::new(&options));
        let draws = 40_000;
        let mut counts = [0u32; LOGITS.len()];
        for _ in 0..draws {
            counts[ok(sampler.sample(&LOGITS, &ids)) as usize] += 1;
        }
        // Pearson's χ², at most 11 degrees of freedom: 40 is exceeded once in 30 000 times.
        let mut chi_squared = 0.0;
        for (id, (&count, &probability)) in counts.iter().zip(&expected).enumerate() {
            let mean = probability * f64::from(draws);
            if mean == 0.0 {
                assert_eq!(count, 0, "{options:?}: {id} is out");
            } else if mean > 5.0 {
                chi_squared += (f64::from(count) - mean).powi(2) / mean;
                assert!(count > 0 || mean < 15.0, "{options:?}: {id} is in");
            }
        }
        assert!(chi_squared < 40.0, "{options:?}: χ² {chi_squared}");
    }
}

/// The numbers of a seed are a promise: the same on every machine.
#[test]
fn seeds() {
    let draw = |seed| {
        let options = SamplerOptions {
            temperature: 1.0,
            seed,
            ..SamplerOptions::default()
        };
        let mut sampler = ok(Sampler::new(&options));
        (0..16)
            .map(|_| ok(sampler.sample(&LOGITS, &[])))
            .collect::<Vec<_>>()
    };
    assert_eq!(draw(0), draw(0));
    assert_ne!(draw(0), draw(1));
    assert_eq!(draw(42), SEED_42);
}

#[test]
fn greedy() {
    let mut sampler = ok(Sampler::new(&SamplerOptions::default()));
    assert_eq!(ok(sampler.sample(&LOGITS, &[8, 8])), 8);
    assert_eq!(
        ok(sampler.sample(&[1.0, 5.0, 5.0, 2.0], &[])),
        1,
        "of equal ones the lowest"
    );
    assert_eq!(ok(sampler.sample(&[-0.0, 0.0], &[])), 0, "zeros are equal");
    let highest = [f32::NEG_INFINITY, -3.0, f32::NEG_INFINITY];
    assert_eq!(ok(sampler.sample(&highest, &[])), 1);
    // The penalty acts without chance, too; an id counts once however often it was there.
    let options = SamplerOptions {
        repetition_penalty: 1.2,
        ..SamplerOptions::default()
    };
    let mut sampler = ok(Sampler::new(&options));
    assert_eq!(ok(sampler.sample(&LOGITS, &[8, 8, 8])), 9);
    assert_eq!(ok(sampler.sample(&[3.0, 2.6], &[0, 0])), 1);
    assert_eq!(ok(sampler.sample(&[3.0, 2.4], &[0, 0])), 0);
    assert_eq!(ok(sampler.sample(&[-3.0, -3.5], &[0, 0])), 1);
}

#[test]
fn refusals() {
    let base = SamplerOptions {
        temperature: 1.0,
        ..SamplerOptions::default()
    };
    for (options, name) in [
        (
            SamplerOptions {
                temperature: -1.0,
                ..base
            },
            "temperature",
        ),
        (
            SamplerOptions {
                temperature: f64::NAN,
                ..base
            },
            "temperature",
        ),
        (
            SamplerOptions {
                temperature: f64::INFINITY,
                ..base
            },
            "temperature",
        ),
        (
            SamplerOptions {
                top_k: Some(0),
                ..base
            },
            "top_k",
        ),
        (
            SamplerOptions {
                top_p: -0.1,
                ..base
            },
            "top_p",
        ),
        (
            SamplerOptions {
                top_p: f64::NAN,
                ..base
            },
            "top_p",
        ),
        (
            SamplerOptions {
                repetition_penalty: 0.0,
                ..base
            },
            "repetition_penalty",
        ),
        (
            SamplerOptions {
                repetition_penalty: f64::INFINITY,
                ..base
            },
            "repetition_penalty",
        ),
    ] {
        let (code, sentence) = refusal(Sampler::new(&options));
        assert_eq!(code, "OPTION");
        assert!(sentence.starts_with(&format!("{name}: ")), "{sentence}");
    }
    for options in [
        SamplerOptions::default(),
        base,
        SamplerOptions {
            top_k: Some(2),
            top_p: 0.5,
            ..base
        },
    ] {
        let mut sampler = ok(Sampler::new(&options));
        for logits in [
            &[][..],
            &[f32::NAN],
            &[1.0, f32::NAN, 2.0],
            &[f32::INFINITY],
            &[f32::NEG_INFINITY; 3],
        ] {
            let (code, sentence) = refusal(sampler.sample(logits, &[]));
            assert_eq!(code, "OPTION");
            assert!(sentence.starts_with("logits: "), "{sentence}");
        }
        assert_eq!(
            ok(sampler.sample(&[f32::NEG_INFINITY, 1.0], &[])),
            1,
            "goes on"
        );
    }
    let options = SamplerOptions {
        repetition_penalty: 2.0,
        ..base
    };
    let refused = refusal(ok(Sampler::new(&options)).sample(&[1.0, 2.0], &[2])).1;
    assert_eq!(refused, "ids: expected ids from 0 to 1, got 2");
    // So cold that quotients overflow, and so hot that all are equal.
    for temperature in [1e-300, 1e300] {
        let options = SamplerOptions {
            temperature,
            ..base
        };
        let mut sampler = ok(Sampler::new(&options));
        for _ in 0..100 {
            let id = ok(sampler.sample(&LOGITS, &[]));
            assert!(if temperature < 1.0 { id == 8 } else { id != 4 });
        }
    }
}

/// What seed 42 gives (and gave in a plain version of the generator in another language).
const SEED_42: [u32; 16] = [8, 5, 8, 9, 11, 8, 11, 2, 3, 9, 9, 9, 8, 8, 3, 6];
