//! The sampler against a plain version of Hugging Face's definitions: which ids may come, and how
//! often they do.

use crate::common::{ok, refusal};
use diffattn_nn::{Logprobs, Sampler, SamplerOptions};

/// Scores as `transformers` defines bias and the penalty of repetition, and OpenAI the others: each
/// step over the whole list.
fn adjusted(
    logits: &[f32],
    (prompt, generated): (&[u32], &[u32]),
    options: &SamplerOptions,
) -> Vec<f64> {
    let mut scores: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    for &(id, bias) in &options.logit_bias {
        scores[id as usize] += bias;
    }
    let mut seen = [prompt, generated].concat();
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
    for (id, score) in scores.iter_mut().enumerate() {
        let count = generated.iter().filter(|&&seen| seen == id as u32).count() as f64;
        let present = if count > 0.0 { 1.0 } else { 0.0 };
        *score -= count * options.frequency_penalty + present * options.presence_penalty;
    }
    scores
}

/// Probabilities as `transformers` defines them: −∞ where an id is out.
fn probabilities(logits: &[f32], text: (&[u32], &[u32]), options: &SamplerOptions) -> Vec<f64> {
    let mut scores = adjusted(logits, text, options);
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
    let softmax_of_kept = softmax(&scores);
    let most = softmax_of_kept.iter().copied().fold(0.0, f64::max);
    for (score, probability) in scores.iter_mut().zip(softmax_of_kept) {
        if probability < options.min_p * most {
            *score = f64::NEG_INFINITY;
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
        base.clone(),
        SamplerOptions {
            temperature: 0.4,
            ..base.clone()
        },
        SamplerOptions {
            temperature: 3.0,
            ..base.clone()
        },
        SamplerOptions {
            top_k: Some(1),
            ..base.clone()
        },
        SamplerOptions {
            top_k: Some(3),
            ..base.clone()
        },
        SamplerOptions {
            top_k: Some(100),
            ..base.clone()
        },
        SamplerOptions {
            top_p: 0.5,
            ..base.clone()
        },
        SamplerOptions {
            top_p: 0.9,
            ..base.clone()
        },
        SamplerOptions {
            top_p: 0.0,
            ..base.clone()
        },
        SamplerOptions {
            repetition_penalty: 1.7,
            ..base.clone()
        },
        SamplerOptions {
            repetition_penalty: 0.6,
            ..base.clone()
        },
        SamplerOptions {
            temperature: 1.6,
            top_k: Some(6),
            top_p: 0.85,
            repetition_penalty: 1.3,
            seed: 3,
            ..base.clone()
        },
        SamplerOptions {
            min_p: 0.3,
            ..base.clone()
        },
        SamplerOptions {
            min_p: 1.0,
            ..base.clone()
        },
        SamplerOptions {
            presence_penalty: 1.2,
            ..base.clone()
        },
        SamplerOptions {
            presence_penalty: -0.7,
            ..base.clone()
        },
        SamplerOptions {
            frequency_penalty: 0.8,
            ..base.clone()
        },
        SamplerOptions {
            logit_bias: vec![(10, 9.0), (8, f64::NEG_INFINITY), (3, -1.0), (3, 0.5)],
            ..base.clone()
        },
        SamplerOptions {
            temperature: 1.4,
            top_k: Some(9),
            top_p: 0.97,
            min_p: 0.05,
            repetition_penalty: 1.2,
            presence_penalty: 0.3,
            frequency_penalty: 0.4,
            logit_bias: vec![(0, 2.0), (5, -1.0)],
            seed: 9,
        },
    ];
    let (prompt, generated) = ([8, 1], [8, 8, 6]);
    for options in cases {
        let expected = probabilities(&LOGITS, (&prompt, &generated), &options);
        let mut sampler = ok(Sampler::new(&options));
        let draws = 40_000;
        let mut counts = [0u32; LOGITS.len()];
        for _ in 0..draws {
            counts[ok(sampler.sample(&LOGITS, &prompt, &generated)) as usize] += 1;
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
            .map(|_| ok(sampler.sample(&LOGITS, &[], &[])))
            .collect::<Vec<_>>()
    };
    assert_eq!(draw(0), draw(0));
    assert_ne!(draw(0), draw(1));
    assert_eq!(draw(42), SEED_42);
}

#[test]
fn greedy() {
    let mut sampler = ok(Sampler::new(&SamplerOptions::default()));
    assert_eq!(ok(sampler.sample(&LOGITS, &[8, 8], &[])), 8);
    assert_eq!(
        ok(sampler.sample(&[1.0, 5.0, 5.0, 2.0], &[], &[])),
        1,
        "of equal ones the lowest"
    );
    assert_eq!(
        ok(sampler.sample(&[-0.0, 0.0], &[], &[])),
        0,
        "zeros are equal"
    );
    let highest = [f32::NEG_INFINITY, -3.0, f32::NEG_INFINITY];
    assert_eq!(ok(sampler.sample(&highest, &[], &[])), 1);
    // The penalty acts without chance, too; an id counts once however often it was there.
    let options = SamplerOptions {
        repetition_penalty: 1.2,
        ..SamplerOptions::default()
    };
    let mut sampler = ok(Sampler::new(&options));
    assert_eq!(ok(sampler.sample(&LOGITS, &[8, 8, 8], &[])), 9);
    assert_eq!(ok(sampler.sample(&[3.0, 2.6], &[0, 0], &[])), 1);
    assert_eq!(ok(sampler.sample(&[3.0, 2.4], &[0, 0], &[])), 0);
    assert_eq!(ok(sampler.sample(&[-3.0, -3.5], &[0, 0], &[])), 1);
}

/// Without chance the highest of the plain version's scores is taken, whatever the options.
#[test]
fn adjusted_scores() {
    let mut random = Random(7);
    for case in 0..2000 {
        let logits: Vec<f32> = (0..12).map(|_| random.number(8.0) as f32).collect();
        let mut ids = |most: usize| -> Vec<u32> {
            let count = random.below(most);
            (0..count).map(|_| random.below(12) as u32).collect()
        };
        let (prompt, generated, biased) = (ids(6), ids(9), ids(4));
        let mut options = SamplerOptions {
            logit_bias: biased
                .into_iter()
                .map(|id| (id, random.number(4.0)))
                .collect(),
            ..SamplerOptions::default()
        };
        if random.below(2) == 0 {
            options.repetition_penalty = 1.0 + random.number(0.8);
        }
        if random.below(2) == 0 {
            options.presence_penalty = random.number(2.0);
        }
        if random.below(2) == 0 {
            options.frequency_penalty = random.number(2.0);
        }
        let expected = adjusted(&logits, (&prompt, &generated), &options);
        let best = expected.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut sampler = ok(Sampler::new(&options));
        for _ in 0..2 {
            let id = ok(sampler.sample(&logits, &prompt, &generated));
            // (The plain version multiplies with the inverse of a penalty.)
            let score = expected[id as usize];
            assert!(
                best - score < 1e-12,
                "case {case}, {options:?}: {score} of {best}"
            );
        }
    }
}

/// The prompt counts for repetition alone; frequency counts each time.
#[test]
fn penalties_of_what_was_generated() {
    let options = SamplerOptions {
        presence_penalty: 1.0,
        frequency_penalty: 0.5,
        ..SamplerOptions::default()
    };
    let mut sampler = ok(Sampler::new(&options));
    assert_eq!(ok(sampler.sample(&[3.0, 2.0], &[0, 0, 0], &[])), 0);
    assert_eq!(ok(sampler.sample(&[3.0, 1.6], &[0, 0, 0], &[0])), 1);
    assert_eq!(ok(sampler.sample(&[3.0, 1.4], &[0, 0, 0], &[0])), 0);
    assert_eq!(ok(sampler.sample(&[3.0, 1.4], &[], &[0, 0])), 1);
    // Penalties and bias that leave nothing, or no number.
    let banned = SamplerOptions {
        logit_bias: vec![(0, f64::NEG_INFINITY), (1, f64::NEG_INFINITY)],
        ..SamplerOptions::default()
    };
    for temperature in [0.0, 1.0] {
        let options = SamplerOptions {
            temperature,
            ..banned.clone()
        };
        let (code, sentence) = refusal(ok(Sampler::new(&options)).sample(&[1.0, 2.0], &[], &[]));
        assert_eq!(code, "OPTION");
        assert!(sentence.starts_with("logits: "), "{sentence}");
        let huge = SamplerOptions {
            temperature,
            top_p: 0.5,
            repetition_penalty: f64::MAX,
            ..SamplerOptions::default()
        };
        let mut sampler = ok(Sampler::new(&huge));
        refusal(sampler.sample(&[-3.0, -2.0], &[0], &[1]));
        let tiny = SamplerOptions {
            temperature,
            repetition_penalty: f64::MIN_POSITIVE,
            ..SamplerOptions::default()
        };
        refusal(ok(Sampler::new(&tiny)).sample(&[3e38, -2.0], &[0], &[1]));
        assert_eq!(ok(sampler.sample(&[-3.0, -2.0], &[0], &[])), 1, "goes on");
    }
}

/// The log-softmax in float64, of raw logits, whatever their scale.
#[test]
fn log_probabilities() {
    let mut random = Random(11);
    for (scale, count) in [(1.0, 12), (30.0, 97), (1e4, 5), (1e-6, 40), (2.0, 1)] {
        let mut logits: Vec<f32> = (0..count).map(|_| random.number(scale) as f32).collect();
        logits[count / 2] = logits[0];
        if count > 3 {
            logits[3] = f32::NEG_INFINITY;
        }
        let softmax = softmax(&logits.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
        let mut order: Vec<u32> = (0..count as u32).collect();
        order.sort_by(|&a, &b| {
            let logit = |id: u32| f64::from(logits[id as usize]);
            logit(b).total_cmp(&logit(a)).then(a.cmp(&b))
        });
        for best in [0, 1, 4, count, count + 9] {
            for id in 0..count as u32 {
                let told = ok(Logprobs::of(&logits, id, best));
                let near = |actual: f64, id: u32| {
                    let probability = softmax[id as usize];
                    if probability > 1e-290 {
                        let expected = probability.ln();
                        let bound = 1e-13 * expected.abs().max(1.0);
                        assert!((actual - expected).abs() <= bound, "{actual} of {expected}");
                    } else {
                        assert!(actual < -600.0);
                    }
                };
                near(told.chosen, id);
                let ids: Vec<u32> = told.best.iter().map(|(id, _)| *id).collect();
                assert_eq!(ids, order[..best.min(count)]);
                told.best.iter().for_each(|&(id, of)| near(of, id));
            }
        }
    }
    assert!(Logprobs::of(&[1.0], 1, 0).is_err());
}

/// Numbers without a library: a linear congruential generator.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.0 >> 33) as usize) % count
    }

    /// From −most to most.
    fn number(&mut self, most: f64) -> f64 {
        (self.below(2_000_001) as f64 / 1e6 - 1.0) * most
    }
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
                ..base.clone()
            },
            "temperature",
        ),
        (
            SamplerOptions {
                temperature: f64::NAN,
                ..base.clone()
            },
            "temperature",
        ),
        (
            SamplerOptions {
                temperature: f64::INFINITY,
                ..base.clone()
            },
            "temperature",
        ),
        (
            SamplerOptions {
                top_k: Some(0),
                ..base.clone()
            },
            "top_k",
        ),
        (
            SamplerOptions {
                top_p: -0.1,
                ..base.clone()
            },
            "top_p",
        ),
        (
            SamplerOptions {
                top_p: f64::NAN,
                ..base.clone()
            },
            "top_p",
        ),
        (
            SamplerOptions {
                repetition_penalty: 0.0,
                ..base.clone()
            },
            "repetition_penalty",
        ),
        (
            SamplerOptions {
                repetition_penalty: f64::INFINITY,
                ..base.clone()
            },
            "repetition_penalty",
        ),
        (
            SamplerOptions {
                min_p: 1.1,
                ..base.clone()
            },
            "min_p",
        ),
        (
            SamplerOptions {
                min_p: f64::NAN,
                ..base.clone()
            },
            "min_p",
        ),
        (
            SamplerOptions {
                presence_penalty: f64::INFINITY,
                ..base.clone()
            },
            "presence_penalty",
        ),
        (
            SamplerOptions {
                frequency_penalty: f64::NAN,
                ..base.clone()
            },
            "frequency_penalty",
        ),
        (
            SamplerOptions {
                logit_bias: vec![(0, 1.0), (1, f64::INFINITY)],
                ..base.clone()
            },
            "logit_bias",
        ),
    ] {
        let (code, sentence) = refusal(Sampler::new(&options));
        assert_eq!(code, "OPTION");
        assert!(sentence.starts_with(&format!("{name}: ")), "{sentence}");
    }
    for options in [
        SamplerOptions::default(),
        base.clone(),
        SamplerOptions {
            top_k: Some(2),
            top_p: 0.5,
            ..base.clone()
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
            let (code, sentence) = refusal(sampler.sample(logits, &[], &[]));
            assert_eq!(code, "OPTION");
            assert!(sentence.starts_with("logits: "), "{sentence}");
        }
        assert_eq!(
            ok(sampler.sample(&[f32::NEG_INFINITY, 1.0], &[], &[])),
            1,
            "goes on"
        );
    }
    let options = SamplerOptions {
        repetition_penalty: 2.0,
        ..base.clone()
    };
    let refused = refusal(ok(Sampler::new(&options)).sample(&[1.0, 2.0], &[2], &[])).1;
    assert_eq!(refused, "ids: expected ids from 0 to 1, got 2");
    let biased = SamplerOptions {
        logit_bias: vec![(2, 1.0)],
        ..base.clone()
    };
    let refused = refusal(ok(Sampler::new(&biased)).sample(&[1.0, 2.0], &[], &[])).1;
    assert_eq!(refused, "logit_bias: expected ids from 0 to 1, got 2");
    // So cold that quotients overflow, and so hot that all are equal.
    for temperature in [1e-300, 1e300] {
        let options = SamplerOptions {
            temperature,
            ..base.clone()
        };
        let mut sampler = ok(Sampler::new(&options));
        for _ in 0..100 {
            let id = ok(sampler.sample(&LOGITS, &[], &[]));
            assert!(if temperature < 1.0 { id == 8 } else { id != 4 });
        }
    }
}

/// What seed 42 gives (and gave in a plain version of the generator in another language).
const SEED_42: [u32; 16] = [8, 5, 8, 9, 11, 8, 11, 2, 3, 9, 9, 9, 8, 8, 3, 6];
