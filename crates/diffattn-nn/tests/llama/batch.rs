//! Texts that come and go: each gets what it would get alone, to the id, whatever it takes over of
//! the others' beginnings and however its prompt is cut; and what is there is not computed again.

use crate::common::{Checkpoint, bits, forward, ok, random_ids, refusal};
use diffattn::CacheDType;
use diffattn_nn::{
    DiffLlama, DiffLlamaOptions, Finish, Generation, Generator, GeneratorOptions, ModelCache,
    ModelCacheOptions, SamplerOptions, TokenIds,
};
use std::collections::BTreeMap;

const BYTES: usize = 1 << 24;

fn batch(model: &DiffLlama, options: GeneratorOptions) -> Generator<&DiffLlama> {
    ok(Generator::new(model, Vec::new(), &options))
}

fn alone(model: &DiffLlama, generation: &Generation, options: &GeneratorOptions) -> Vec<u32> {
    let options = GeneratorOptions {
        prefix_bytes: None,
        step_tokens: None,
        ..*options
    };
    let mut generator = ok(Generator::new(model, vec![generation.clone()], &options));
    while !generator.is_finished() {
        ok(generator.step());
    }
    let ids = generator.ids(0).unwrap_or_default();
    ids[generation.prompt.len()..].to_vec()
}

/// Prompts that begin alike: with all of one, with 60 ids of it, with nothing.
fn generations(vocab: usize) -> Vec<Generation> {
    let system = random_ids(7, 300, vocab);
    (0..9)
        .map(|index| {
            let (shared, own) = [(300, 20), (60, 5), (0, 40), (300, 0), (299, 3)][index % 5];
            let mut prompt = system[..shared].to_vec();
            prompt.extend(random_ids(100 + index as u64, own, vocab));
            Generation {
                prompt,
                max_new_tokens: 3 + 2 * (index % 4),
                stop_ids: Some(Vec::new()),
                sampler: SamplerOptions {
                    temperature: if index % 2 == 0 { 0.0 } else { 1.2 },
                    seed: index as u64,
                    ..SamplerOptions::default()
                },
                ..Generation::default()
            }
        })
        .collect()
}

#[test]
fn texts_come_and_go() {
    for (name, dtype) in [
        ("diffllama_gqa", CacheDType::F32),
        ("motif_gda", CacheDType::F32),
        ("diffllama_gqa", CacheDType::Int8),
    ] {
        let checkpoint = Checkpoint::fixture(name);
        let model = checkpoint.model();
        let generations = generations(checkpoint.config.vocab_size);
        for (window, bytes, step_tokens) in [
            (None, BYTES, None),
            (None, BYTES, Some(17)),
            (None, 0, Some(1)),
            (Some(30), BYTES, Some(64)),
        ] {
            let options = GeneratorOptions {
                window,
                cache_dtype: dtype,
                prefix_bytes: Some(bytes),
                step_tokens,
                ..GeneratorOptions::default()
            };
            let mut batch = batch(&model, options);
            let mut waiting = generations.iter().enumerate().rev().collect::<Vec<_>>();
            let mut running = BTreeMap::new();
            let mut reused = 0;
            let mut steps = 0;
            while !waiting.is_empty() || !running.is_empty() {
                // Two at once, then one every third step, four side by side.
                while running.len() < 2 || (running.len() < 4 && steps % 3 == 0) {
                    let Some((index, generation)) = waiting.pop() else {
                        break;
                    };
                    let number = ok(batch.add(generation.clone(), None));
                    assert!(running.insert(number, (index, Vec::new())).is_none());
                }
                let tokens = ok(batch.step());
                for token in tokens {
                    let (index, ids) = running
                        .get_mut(&token.text)
                        .unwrap_or_else(|| panic!("a token of text {}, which is none", token.text));
                    if ids.is_empty() {
                        reused += token.reused;
                    }
                    ids.push(token.id);
                    if token.finish.is_some() {
                        let expected = alone(&model, &generations[*index], &options);
                        assert_eq!((*index, &*ids), (*index, &expected));
                        let kept = ids.len();
                        running.remove(&token.text);
                        ok(batch.remove(token.text, kept));
                    }
                }
                steps += 1;
                assert!(steps < 10_000);
            }
            assert_eq!(batch.running(), 0);
            let [own, kept] = batch.cache_bytes();
            assert!(own == 0 && kept <= bytes, "{own} and {kept} bytes");
            // Those that begin with the long beginning, but the first: all of it but for what is
            // no reason to wait.
            if window.is_none() && bytes > 0 {
                assert!(reused >= 4 * 267, "{reused} reused");
            }
        }
    }
}

/// Texts with the same prompt that are added at once: it is computed once.
#[test]
fn one_prompt_for_several() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let model = checkpoint.model();
    let generation = Generation {
        max_new_tokens: 4,
        ..generations(checkpoint.config.vocab_size).swap_remove(0)
    };
    let options = GeneratorOptions {
        prefix_bytes: Some(0),
        step_tokens: Some(100),
        ..GeneratorOptions::default()
    };
    let mut batch = batch(&model, options);
    for _ in 0..3 {
        ok(batch.add(generation.clone(), None));
    }
    let mut told = Vec::new();
    while !batch.is_finished() {
        let tokens = ok(batch.step());
        told.push(
            tokens
                .iter()
                .map(|token| (token.text, token.reused))
                .collect::<Vec<_>>(),
        );
    }
    // Three steps without a token; then the others take over what is there, as the rest is little.
    assert_eq!(told[..3], [vec![], vec![], vec![]]);
    assert_eq!(told[3], [(0, 0), (1, 300), (2, 300)]);
    let expected = alone(&model, &generation, &options);
    for text in 0..3 {
        let ids = batch.ids(text).unwrap_or_default();
        assert_eq!(ids[generation.prompt.len()..], expected);
    }
}

/// What is kept goes within its limit, the one first that was not used for the longest time.
#[test]
fn prefixes_are_kept_within_a_limit() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let model = checkpoint.model();
    let vocab = checkpoint.config.vocab_size;
    let one = ok(model.cache(&ModelCacheOptions {
        capacity: 100,
        ..ModelCacheOptions::default()
    }));
    let options = GeneratorOptions {
        prefix_bytes: Some(2 * one.bytes()),
        ..GeneratorOptions::default()
    };
    let mut batch = batch(&model, options);
    let mut write = |seed: u64| {
        let generation = Generation {
            prompt: random_ids(seed, 100, vocab),
            max_new_tokens: 1,
            ..Generation::default()
        };
        let number = ok(batch.add(generation, None));
        let tokens = ok(batch.step());
        ok(batch.remove(number, 1));
        assert_eq!(batch.cache_bytes()[0], 0);
        assert!(batch.cache_bytes()[1] <= 2 * one.bytes());
        tokens[0].reused
    };
    assert_eq!([write(1), write(2), write(1)], [0, 0, 99]);
    // The second goes, as the first was used since.
    assert_eq!([write(3), write(1), write(2)], [0, 99, 0]);
}

/// A text whose logits are no numbers ends, and no other with it; what cannot be is refused before
/// it joins.
#[test]
fn failures_are_their_own() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let model = checkpoint.model();
    let vocab = checkpoint.config.vocab_size;
    let options = GeneratorOptions {
        prefix_bytes: Some(BYTES),
        ..GeneratorOptions::default()
    };
    let mut batch = batch(&model, options);
    let good = generations(vocab).swap_remove(1);
    let banned = Generation {
        sampler: SamplerOptions {
            logit_bias: (0..vocab as u32)
                .map(|id| (id, f64::NEG_INFINITY))
                .collect(),
            ..SamplerOptions::default()
        },
        ..good.clone()
    };
    let first = ok(batch.add(good.clone(), None));
    let second = ok(batch.add(banned, None));
    let mut failed = Vec::new();
    while !batch.is_finished() {
        let tokens = ok(batch.step());
        let ended = tokens
            .iter()
            .filter(|token| token.finish == Some(Finish::Failed));
        failed.extend(ended.map(|token| token.text));
    }
    assert_eq!(failed, [second]);
    let ids = batch.ids(first).unwrap_or_default();
    assert_eq!(ids[good.prompt.len()..], alone(&model, &good, &options));

    let mut add = |generation| refusal(batch.add(generation, None)).1;
    assert!(add(Generation::default()).starts_with("prompt: "));
    let endless = Generation {
        max_new_tokens: usize::MAX,
        ..good
    };
    assert!(add(endless).starts_with("ids: "));
    let none = GeneratorOptions {
        step_tokens: Some(0),
        ..options
    };
    let refused = refusal(Generator::new(&model, Vec::new(), &none));
    assert!(refused.1.starts_with("step_tokens: "));
    assert!(refusal(batch.remove(99, 0)).1.starts_with("text: "));
}

/// A copy of a beginning computes the bits of the cache itself, rewound.
#[test]
fn copies_of_beginnings() {
    for name in ["diffllama_gqa", "llama"] {
        let checkpoint = Checkpoint::fixture(name);
        let model = checkpoint.model();
        let vocab = checkpoint.config.vocab_size;
        let ids = random_ids(3, 600, vocab);
        let append = |cache: &mut ModelCache, ids: &[u32]| {
            let caches = std::slice::from_mut(cache);
            let ids = TokenIds::u32(ids, &[1, ids.len()]);
            bits(&ok(model.forward(ids, Some(caches), &DiffLlamaOptions::default())).logits)
        };
        let expected = bits(&forward(&model, &ids, &[1, 600], &DiffLlamaOptions::default()).logits);
        let mut cache = ok(model.cache(&ModelCacheOptions::default()));
        append(&mut cache, &ids);
        for length in [0, 1, 255, 256, 257, 599, 600] {
            let mut copy = ok(cache.copy_prefix(length));
            assert_eq!((copy.len(), copy.ids()), (length, &ids[..length]));
            if length < 600 {
                assert_eq!(
                    append(&mut copy, &ids[length..]),
                    expected[length * vocab..]
                );
            }
            assert_eq!(cache.len(), 600);
        }
        assert_eq!(refusal(cache.copy_prefix(601)).0, "SHAPE");
    }
}
