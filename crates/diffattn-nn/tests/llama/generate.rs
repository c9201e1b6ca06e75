//! Generation: each text gets what it would get alone, whatever goes on beside it.

use crate::common::{Checkpoint, ok, random_ids, refusal};
use diffattn::{Isa, Run};
use diffattn_nn::{
    DiffLlama, Finish, Generation, Generator, GeneratorOptions, Logits, Logprobs,
    ModelCacheOptions, SamplerOptions, TextOptions, TokenIds,
};

fn run(mut generator: Generator<&DiffLlama>, texts: usize) -> Vec<Vec<u32>> {
    let mut steps = 0;
    while !generator.is_finished() {
        let tokens = ok(generator.step());
        assert!(!tokens.is_empty() && tokens.len() <= texts);
        for token in tokens {
            assert_eq!(
                generator.ids(token.text).and_then(<[u32]>::last),
                Some(&token.id)
            );
            assert_eq!(generator.finish(token.text), token.finish);
        }
        steps += 1;
        assert!(steps < 1000);
    }
    assert!(ok(generator.step()).is_empty(), "nothing is left");
    (0..texts)
        .map(|text| {
            generator
                .ids(text)
                .unwrap_or_else(|| panic!("no text {text}"))
                .to_vec()
        })
        .collect()
}

fn generations(vocab: usize) -> Vec<Generation> {
    // Prompts from one id to more than a block of rows; some greedy, some by chance; each of its
    // own length.
    [1, 300, 2, 19, 64]
        .into_iter()
        .enumerate()
        .map(|(index, length)| Generation {
            prompt: random_ids(index as u64, length, vocab),
            max_new_tokens: 4 + 3 * index,
            stop_ids: Some(Vec::new()),
            sampler: if index % 2 == 0 {
                SamplerOptions::default()
            } else {
                SamplerOptions {
                    temperature: 1.3,
                    top_k: Some(40),
                    top_p: 0.95,
                    repetition_penalty: 1.1,
                    seed: index as u64,
                    ..SamplerOptions::default()
                }
            },
            logprobs: None,
        })
        .collect()
}

fn alone(model: &DiffLlama, generation: &Generation, options: &GeneratorOptions) -> Vec<u32> {
    let generator = ok(Generator::new(model, vec![generation.clone()], options));
    run(generator, 1).remove(0)
}

#[test]
fn together_and_alone() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let model = checkpoint.model();
    let generations = generations(checkpoint.config.vocab_size);
    for window in [None, Some(10)] {
        for threads in [1, 2] {
            let options = GeneratorOptions {
                window,
                run: on(Isa::detect(), threads),
                ..GeneratorOptions::default()
            };
            let together = run(ok(Generator::new(&model, generations.clone(), &options)), 5);
            for (generation, text) in generations.iter().zip(&together) {
                assert_eq!(
                    text.len(),
                    generation.prompt.len() + generation.max_new_tokens
                );
                assert_eq!(text, &alone(&model, generation, &options));
            }
        }
    }
}

#[test]
fn stop_ids_and_lengths() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let mut model_config = checkpoint.config.clone();
    let model = checkpoint.model();
    let base = Generation {
        prompt: vec![1, 2, 3],
        max_new_tokens: 20,
        stop_ids: Some(Vec::new()),
        ..Generation::default()
    };
    let options = GeneratorOptions::default();
    let free = alone(&model, &base, &options);
    let stop = free[3 + 5];
    let end = 3 + free[3..].iter().position(|&id| id == stop).unwrap_or(0) + 1;
    let stopped = Generation {
        stop_ids: Some(vec![stop]),
        ..base.clone()
    };
    let mut generator = ok(Generator::new(
        &model,
        vec![stopped, base.clone()],
        &options,
    ));
    while !generator.is_finished() {
        ok(generator.step());
    }
    assert_eq!(generator.ids(0), Some(&free[..end]));
    assert_eq!(generator.finish(0), Some(Finish::Stop));
    assert_eq!(
        (generator.ids(1), generator.finish(1)),
        (Some(&free[..]), Some(Finish::Length))
    );
    assert_eq!((generator.ids(2), generator.finish(2)), (None, None));

    // The config's own.
    model_config.eos_token_ids = vec![stop];
    let model = ok(DiffLlama::new(&model_config, &checkpoint.weights()));
    let by_config = Generation {
        stop_ids: None,
        ..base.clone()
    };
    assert_eq!(alone(&model, &by_config, &options), free[..end]);
    let nothing = Generation {
        max_new_tokens: 0,
        ..base
    };
    assert_eq!(alone(&model, &nothing, &options), [1, 2, 3]);
}

/// What is told of an id is the log-softmax of the logits that a pass gives, whatever the options.
#[test]
fn log_probabilities() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let model = checkpoint.model();
    let vocab = checkpoint.config.vocab_size;
    let mut generations = generations(vocab);
    for (generation, logprobs) in
        generations
            .iter_mut()
            .zip([Some(3), None, Some(0), Some(1), Some(vocab + 1)])
    {
        generation.logprobs = logprobs;
    }
    let options = GeneratorOptions::default();
    let mut generator = ok(Generator::new(&model, generations.clone(), &options));
    assert_eq!(ok(generator.step_job()).logprobs(), Some(vocab));
    let mut told = 0;
    while !generator.is_finished() {
        for token in ok(generator.step()) {
            let wanted = generations[token.text].logprobs;
            let Some(logprobs) = &token.logprobs else {
                assert_eq!(wanted, None);
                continue;
            };
            let ids = generator.ids(token.text).unwrap_or_default();
            let before: Vec<i32> = ids[..ids.len() - 1].iter().map(|&id| id as i32).collect();
            let shape = [1, before.len()];
            let output = ok(model.forward(
                TokenIds::i32(&before, &shape),
                None,
                &TextOptions {
                    logits: Logits::Last,
                    ..TextOptions::default()
                },
            ));
            let expected = Logprobs::of(&output.logits, token.id, wanted.unwrap_or(0));
            assert_eq!(*logprobs, ok(expected));
            told += 1;
        }
    }
    assert_eq!(told, 4 + 10 + 13 + 16);
    let biased = |id| Generation {
        sampler: SamplerOptions {
            logit_bias: vec![(id, 100.0)],
            ..SamplerOptions::default()
        },
        ..generations[0].clone()
    };
    let banned = Generator::new(&model, vec![biased(vocab as u32)], &options);
    assert!(refusal(banned).1.starts_with("logit_bias: "));
    let ids = alone(&model, &biased(5), &options);
    assert_eq!(ids[1..], [5; 4]);
}

/// Steps in slices, some of them dropped on the way.
#[test]
fn dropped_steps() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let model = checkpoint.model();
    let generations = generations(checkpoint.config.vocab_size);
    let options = GeneratorOptions::default();
    let expected = run(ok(Generator::new(&model, generations.clone(), &options)), 5);
    let mut generator = ok(Generator::new(&model, generations, &options));
    let mut drops = 0;
    while !generator.is_finished() {
        let mut tokens = Vec::new();
        let mut step = ok(ok(generator.step_job()).into_work(&mut tokens));
        let total = step.total();
        ok(step.step(total * drops / 3));
        if drops < 3 {
            drops += 1;
            continue;
        }
        drops = 0;
        while step.done() < step.total() {
            ok(step.step(1));
        }
    }
    for (text, expected) in expected.iter().enumerate() {
        assert_eq!(generator.ids(text), Some(expected.as_slice()));
    }
}

/// A text that is ended by its caller is left out of later steps, and its cache holds no more than
/// what was kept.
#[test]
fn texts_are_ended_one_by_one() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let model = checkpoint.model();
    let generations = generations(checkpoint.config.vocab_size);
    let options = GeneratorOptions::default();
    let expected = run(ok(Generator::new(&model, generations.clone(), &options)), 5);
    let mut generator = ok(Generator::new(&model, generations.clone(), &options));
    let told = |generator: &mut Generator<&DiffLlama>| {
        let tokens = ok(generator.step());
        tokens.iter().map(|token| token.text).collect::<Vec<_>>()
    };
    // None of its ids are kept; all but the last of its ids; more than it has.
    ok(generator.end(4, 0));
    assert_eq!(told(&mut generator), [0, 1, 2, 3]);
    assert_eq!(told(&mut generator), [0, 1, 2, 3]);
    ok(generator.end(1, 1));
    assert_eq!(told(&mut generator), [0, 2, 3]);
    ok(generator.end(3, 100));
    while !told(&mut generator).is_empty() {}
    assert_eq!(generator.finish(0), Some(Finish::Length));
    assert_eq!(generator.finish(1), Some(Finish::Stop));
    // One that has ended keeps its reason.
    ok(generator.end(0, 2));
    assert_eq!(generator.finish(0), Some(Finish::Length));
    let lengths = generations.iter().map(|generation| generation.prompt.len());
    let new = [2, 1, expected[2].len() - 2, 3, 0];
    for (text, (expected, (prompt, new))) in
        expected.iter().zip(lengths.clone().zip(new)).enumerate()
    {
        assert_eq!(generator.ids(text), Some(&expected[..prompt + new]));
    }
    let (kind, message) = refusal(generator.end(5, 0));
    assert_eq!(
        (kind, &*message),
        ("OPTION", "text: expected one of the 5 texts, got 5")
    );
    let caches = generator.into_caches();
    for ((cache, expected), (prompt, new)) in caches.iter().zip(&expected).zip(lengths.zip(new)) {
        // (The fifth had not begun.)
        let held = if new == 0 { 0 } else { prompt + new - 1 };
        assert_eq!(cache.ids(), &expected[..held]);
    }
}

#[test]
fn caches_are_used_again() {
    let checkpoint = Checkpoint::fixture("diffllama_llama3_rope");
    let model = checkpoint.model();
    let vocab = checkpoint.config.vocab_size;
    let options = GeneratorOptions::default();
    let first = Generation {
        prompt: random_ids(1, 50, vocab),
        max_new_tokens: 6,
        stop_ids: Some(Vec::new()),
        ..Generation::default()
    };
    let mut generator = ok(Generator::new(&model, vec![first.clone()], &options));
    while !generator.is_finished() {
        ok(generator.step());
    }
    let text = generator.ids(0).map(<[u32]>::to_vec).unwrap_or_default();
    let mut caches = generator.into_caches();
    assert_eq!(
        caches[0].ids(),
        &text[..55],
        "the last id was not computed yet"
    );
    // The conversation goes on: only what is new is computed.
    let mut prompt = text;
    prompt.extend(random_ids(2, 9, vocab));
    let next = Generation { prompt, ..first };
    assert_eq!(caches[0].common_prefix(&next.prompt), 55);
    let generator = ok(Generator::with_caches(
        &model,
        vec![next.clone()],
        &mut caches,
        &options,
    ));
    assert!(caches.is_empty());
    assert_eq!(run(generator, 1)[0], alone(&model, &next, &options));
}

#[test]
fn refusals() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let model = checkpoint.model();
    let good = Generation {
        prompt: vec![1],
        max_new_tokens: 1,
        ..Generation::default()
    };
    let options = GeneratorOptions::default();
    let sentence = |generation: Generation, options: &GeneratorOptions| {
        refusal(Generator::new(&model, vec![generation], options)).1
    };
    let empty = Generation {
        prompt: Vec::new(),
        ..good.clone()
    };
    assert_eq!(
        sentence(empty, &options),
        "prompt: expected 1 id or more, got none"
    );
    let wrong = Generation {
        prompt: vec![0, 97],
        ..good.clone()
    };
    assert_eq!(
        sentence(wrong, &options),
        "prompt: expected ids from 0 to 96, got 97 at 1"
    );
    let sampler = SamplerOptions {
        top_p: 1.5,
        ..SamplerOptions::default()
    };
    let wrong = Generation {
        sampler,
        ..good.clone()
    };
    assert!(sentence(wrong, &options).starts_with("top_p: "));
    let window = GeneratorOptions {
        window: Some(0),
        ..options
    };
    assert!(sentence(good.clone(), &window).starts_with("window: "));
    let mut one = vec![ok(model.cache(&ModelCacheOptions::default()))];
    let refused = refusal(Generator::with_caches(
        &model,
        Vec::new(),
        &mut one,
        &options,
    ));
    let refused = refused.1;
    assert!(refused.starts_with("caches: expected 0"), "{refused}");
    let window = GeneratorOptions {
        window: Some(3),
        ..options
    };
    let refused = refusal(Generator::with_caches(
        &model,
        vec![good],
        &mut one,
        &window,
    ))
    .1;
    assert!(refused.starts_with("window: "), "{refused}");
    assert_eq!(one.len(), 1, "an error takes no caches");
}

/// NaN in a weight: an error of the step, and the end of the text.
#[test]
fn logits_that_are_no_numbers() {
    use crate::common::Stored;
    let mut checkpoint = Checkpoint::fixture("diffllama_gqa");
    if let Some((_, Stored::F32(data))) = checkpoint.tensors.get_mut("model.embed_tokens.weight") {
        data[5 * 64] = f32::NAN;
    }
    let model = checkpoint.model();
    let text = |prompt: &[u32]| Generation {
        prompt: prompt.to_vec(),
        max_new_tokens: 3,
        stop_ids: Some(Vec::new()),
        ..Generation::default()
    };
    let options = GeneratorOptions::default();
    let texts = vec![text(&[1, 5]), text(&[1, 2])];
    let mut generator = ok(Generator::new(&model, texts, &options));
    let (code, sentence) = refusal(generator.step());
    assert_eq!(code, "OPTION");
    assert!(sentence.starts_with("logits: "), "{sentence}");
    assert_eq!(generator.finish(0), Some(Finish::Failed));
    while !generator.is_finished() {
        ok(generator.step());
    }
    assert_eq!(generator.ids(0), Some(&[1, 5][..]));
    assert_eq!(
        generator.ids(1),
        Some(&alone(&model, &text(&[1, 2]), &options)[..])
    );
}

fn on(isa: Isa, threads: usize) -> Run {
    Run::new(Some(isa), Some(threads), false).unwrap_or_else(|error| panic!("{error}"))
}

/// A text that joins between steps, and one that leaves, change nothing of the others; a cache that
/// was given up serves the next text.
#[test]
fn texts_join_and_leave() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let model = checkpoint.model();
    let vocab = checkpoint.config.vocab_size;
    for window in [None, Some(10)] {
        let options = GeneratorOptions {
            window,
            ..GeneratorOptions::default()
        };
        let all = generations(vocab);
        let (first, late) = all.split_at(3);
        let mut generator = ok(Generator::new(&model, first.to_vec(), &options));
        ok(generator.step());
        assert_eq!(ok(generator.add(late[0].clone(), None)), 3);
        ok(generator.step());
        // The second text leaves, and its cache goes on with another text that begins as it does.
        let left = generator.ids(1).map(<[u32]>::to_vec).unwrap_or_default();
        let Some(cache) = generator.take_cache(1) else {
            panic!("the text has no cache")
        };
        assert_eq!(generator.finish(1), Some(Finish::Stop));
        assert!(generator.take_cache(1).is_none() && generator.take_cache(9).is_none());
        assert_eq!(cache.common_prefix(&left), left.len() - 1);
        let next = Generation {
            prompt: [&left[..], &[3, 1, 4]].concat(),
            ..late[1].clone()
        };
        assert_eq!(ok(generator.add(next.clone(), Some(cache))), 4);
        while !generator.is_finished() {
            ok(generator.step());
        }
        for (index, generation) in [(0, &all[0]), (2, &all[2]), (3, &late[0]), (4, &next)] {
            let expected = alone(&model, generation, &options);
            assert_eq!(generator.ids(index), Some(&expected[..]), "text {index}");
        }
        let whole = alone(&model, &all[1], &options);
        assert_eq!(generator.ids(1), Some(&whole[..left.len()]));

        // What is refused changes nothing.
        let other = ok(model.cache(&ModelCacheOptions {
            capacity: 0,
            window: Some(7),
            ..ModelCacheOptions::default()
        }));
        let refused = refusal(generator.add(next, Some(other))).1;
        assert_eq!(
            refused,
            "caches: expected caches of one window, got several"
        );
        let refused = refusal(generator.add(Generation::default(), None)).1;
        assert_eq!(refused, "prompt: expected 1 id or more, got none");
        assert!(generator.is_finished());
        assert_eq!(generator.into_caches().len(), 4);
    }
}
