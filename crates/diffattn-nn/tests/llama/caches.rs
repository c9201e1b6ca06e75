//! Caches: rewinding, prefixes, windows, copies, and what a job that does not end leaves behind.

use crate::common::{Checkpoint, bits, forward, ok, random_ids, refusal};
use diffattn::CacheDType;
use diffattn_nn::{
    DiffLlama, DiffLlamaOptions, DiffLlamaOutputs, Generation, Generator, GeneratorOptions, Logits,
    ModelCache, ModelCacheOptions, TokenIds,
};

fn append(model: &DiffLlama, cache: &mut ModelCache, ids: &[u32]) -> Vec<u32> {
    let caches = std::slice::from_mut(cache);
    let ids = TokenIds::u32(ids, &[1, ids.len()]);
    bits(&ok(model.forward(ids, Some(caches), &DiffLlamaOptions::default())).logits)
}

fn whole(model: &DiffLlama, ids: &[u32], window: Option<usize>) -> Vec<u32> {
    let options = DiffLlamaOptions {
        window,
        ..DiffLlamaOptions::default()
    };
    bits(&forward(model, ids, &[1, ids.len()], &options).logits)
}

#[test]
fn rewind_and_prefixes() {
    rewind_and_prefixes_of("diffllama_gqa");
    rewind_and_prefixes_of("llama");
}

fn rewind_and_prefixes_of(name: &str) {
    let checkpoint = Checkpoint::fixture(name);
    let model = checkpoint.model();
    let vocab = checkpoint.config.vocab_size;
    let ids = random_ids(1, 280, vocab);
    let expected = whole(&model, &ids, None);
    let mut cache = ok(model.cache(&ModelCacheOptions {
        capacity: 280,
        window: None,
        ..ModelCacheOptions::default()
    }));
    let bytes = cache.bytes();
    append(&model, &mut cache, &ids);
    assert_eq!(cache.bytes(), bytes, "it was made large enough");
    for length in [279, 257, 256, 100, 1, 0] {
        ok(cache.rewind(length));
        assert_eq!(
            (cache.len(), cache.held(), cache.is_empty()),
            (length, length, length == 0)
        );
        assert_eq!(
            append(&model, &mut cache, &ids[length..]),
            expected[length * vocab..]
        );
    }
    assert_eq!(refusal(cache.rewind(281)).0, "SHAPE");

    // Another text that begins the same way.
    let mut other = ids[..150].to_vec();
    other.push((ids[150] + 1) % vocab as u32);
    other.extend(random_ids(2, 30, vocab));
    assert_eq!(cache.common_prefix(&other), 150);
    assert_eq!(cache.keep_prefix(&other), 150);
    let rest = append(&model, &mut cache, &other[150..]);
    assert_eq!(rest, whole(&model, &other, None)[150 * vocab..]);
    // The same text: its last token is computed anew.
    assert_eq!(cache.keep_prefix(&other), other.len() - 1);
    assert_eq!(
        append(&model, &mut cache, &other[180..]),
        rest[30 * vocab..]
    );
    assert_eq!(cache.keep_prefix(&[]), 0);
    assert!(cache.is_empty());
}

const DTYPES: [CacheDType; 4] = [
    CacheDType::F32,
    CacheDType::F16,
    CacheDType::Bf16,
    CacheDType::Int8,
];

/// Whatever a cache holds, a text in pieces and token by token has the bits of one pass, with a
/// window, after a rewind and from a copy.
#[test]
fn every_type_of_cache() {
    every_type_of("diffllama_gqa");
    every_type_of("llama");
}

fn every_type_of(name: &str) {
    let checkpoint = Checkpoint::fixture(name);
    let model = checkpoint.model();
    let vocab = checkpoint.config.vocab_size;
    let ids = random_ids(11, 330, vocab);
    let mut seen = Vec::new();
    for window in [None, Some(40)] {
        for dtype in DTYPES {
            let options = ModelCacheOptions {
                capacity: 0,
                window,
                dtype,
            };
            let mut cache = ok(model.cache(&options));
            let expected = append(&model, &mut cache, &ids);
            if dtype == CacheDType::F32 {
                assert_eq!(expected, whole(&model, &ids, window));
            }
            if window.is_none() {
                // (Of int8 each row has a scale beside its codes.)
                let bytes = model.cache(&ModelCacheOptions::default()).map(|mut cache| {
                    append(&model, &mut cache, &ids);
                    cache.bytes()
                });
                let share = cache.bytes() as f64 / ok(bytes) as f64;
                let (least, most) = match dtype {
                    CacheDType::F32 => (1.0, 1.0),
                    CacheDType::F16 | CacheDType::Bf16 => (0.5, 0.5),
                    CacheDType::Int8 => (0.25, 0.4),
                };
                assert!((least..=most).contains(&share), "{dtype:?}: {share}");
                assert!(!seen.contains(&expected), "{dtype:?} rounds nothing");
                seen.push(expected.clone());
            }
            let mut pieces = ok(model.cache(&options));
            let mut at = 0;
            for length in [1, 1, 20, 1, 230, 4, 1, 72] {
                let got = append(&model, &mut pieces, &ids[at..at + length]);
                let wanted = &expected[at * vocab..(at + length) * vocab];
                assert_eq!(got, wanted, "{dtype:?}, {window:?}, {length} at {at}");
                at += length;
            }
            ok(pieces.rewind(328));
            assert_eq!(
                append(&model, &mut pieces, &ids[328..]),
                expected[328 * vocab..]
            );
            let state = ok(pieces.export());
            assert!(state.layers.iter().all(|layer| layer.dtype() == dtype));
            assert_eq!(state.layers[0].kind(), "kv");
            let mut copy = ok(model.import_cache(&state));
            assert_eq!(ok(copy.export()), state);
            let next = append(&model, &mut pieces, &ids[..3]);
            assert_eq!(append(&model, &mut copy, &ids[..3]), next);
        }
    }
}

/// A generator's own caches hold what it was asked for: as one with such a cache given.
#[test]
fn generators_with_every_type_of_cache() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let model = checkpoint.model();
    let generation = || Generation {
        prompt: random_ids(12, 9, checkpoint.config.vocab_size),
        max_new_tokens: 6,
        stop_ids: Some(Vec::new()),
        ..Generation::default()
    };
    for dtype in DTYPES {
        let options = GeneratorOptions {
            cache_dtype: dtype,
            ..GeneratorOptions::default()
        };
        let mut own = ok(Generator::new(&model, vec![generation()], &options));
        let mut caches = vec![ok(model.cache(&ModelCacheOptions {
            dtype,
            ..ModelCacheOptions::default()
        }))];
        let options = GeneratorOptions::default();
        let mut given = ok(Generator::with_caches(
            &model,
            vec![generation()],
            &mut caches,
            &options,
        ));
        while !own.is_finished() {
            assert_eq!(ok(own.step()), ok(given.step()));
        }
        let state = own.take_cache(0).map(|cache| ok(cache.export()));
        let layers = state.map_or(Vec::new(), |state| state.layers);
        assert!(!layers.is_empty() && layers.iter().all(|layer| layer.dtype() == dtype));
    }
}

#[test]
fn windows() {
    windows_of("diffllama_mha", &[1, 3, 255, 256, 300, 700]);
    windows_of("llama", &[1, 256, 300]);
}

fn windows_of(name: &str, windows: &[usize]) {
    let checkpoint = Checkpoint::fixture(name);
    let model = checkpoint.model();
    let vocab = checkpoint.config.vocab_size;
    let ids = random_ids(3, 1400, vocab);
    for &window in windows {
        let expected = whole(&model, &ids, Some(window));
        let options = ModelCacheOptions {
            capacity: 100_000,
            window: Some(window),
            ..ModelCacheOptions::default()
        };
        for stretches in [vec![1400], vec![600, 1, 1, 500, 298], vec![255, 1, 1, 1143]] {
            let mut cache = ok(model.cache(&options));
            let bytes = cache.bytes();
            let mut at = 0;
            for stretch in stretches {
                let got = append(&model, &mut cache, &ids[at..at + stretch]);
                assert_eq!(
                    got,
                    expected[at * vocab..(at + stretch) * vocab],
                    "{window}, {at}"
                );
                at += stretch;
                assert_eq!(cache.len(), at);
                assert!(cache.held() < window + 258 && cache.held() >= at.min(window - 1));
            }
            assert_eq!(cache.bytes(), bytes, "it never grows");
        }
    }
    let no_window = whole(&model, &ids, None);
    assert_eq!(whole(&model, &ids, Some(1400)), no_window);
    assert_ne!(whole(&model, &ids, Some(1399)), no_window);
}

#[test]
fn rewind_in_a_window() {
    let checkpoint = Checkpoint::fixture("diffllama_mha");
    let model = checkpoint.model();
    let vocab = checkpoint.config.vocab_size;
    let ids = random_ids(4, 600, vocab);
    let expected = whole(&model, &ids, Some(100));
    let options = ModelCacheOptions {
        capacity: 0,
        window: Some(100),
        ..ModelCacheOptions::default()
    };
    let mut cache = ok(model.cache(&options));
    append(&model, &mut cache, &ids);
    // 256 were discarded: those past 355 see no other, 355 itself sees 256.
    assert_eq!(cache.held(), 344);
    ok(cache.rewind(355));
    assert_eq!(
        append(&model, &mut cache, &ids[355..]),
        expected[355 * vocab..]
    );
    let (code, sentence) = refusal(cache.rewind(354));
    assert_eq!(code, "SHAPE");
    assert!(sentence.contains("token 256"), "{sentence}");
    assert_eq!(cache.len(), 600, "unchanged");
    assert_eq!(cache.keep_prefix(&ids[..300]), 0);
    assert_eq!(append(&model, &mut cache, &ids), expected);
    ok(cache.rewind(0));
    assert_eq!(append(&model, &mut cache, &ids), expected);
}

/// Whatever the window has let go of, the last two tokens can be taken back and computed again.
#[test]
fn two_tokens_can_always_be_taken_back() {
    let checkpoint = Checkpoint::fixture("diffllama_mha");
    let model = checkpoint.model();
    let vocab = checkpoint.config.vocab_size;
    let ids = random_ids(4, 370, vocab);
    let expected = whole(&model, &ids, Some(100));
    let mut cache = ok(model.cache(&ModelCacheOptions {
        capacity: 0,
        window: Some(100),
        ..ModelCacheOptions::default()
    }));
    append(&model, &mut cache, &ids[..350]);
    // (At 357 tokens 256 are let go of.)
    for end in 352..370 {
        let held = cache.len();
        append(&model, &mut cache, &ids[held..end]);
        ok(cache.rewind(end - 2));
        assert_eq!(
            append(&model, &mut cache, &ids[end - 2..end]),
            expected[(end - 2) * vocab..end * vocab]
        );
    }
    assert_eq!(cache.held(), 369 - 256);
}

#[test]
fn copies() {
    copies_of("diffllama_gqa");
    copies_of("llama");
}

fn copies_of(name: &str) {
    let checkpoint = Checkpoint::fixture(name);
    let model = checkpoint.model();
    let vocab = checkpoint.config.vocab_size;
    let ids = random_ids(5, 700, vocab);
    for window in [None, Some(60)] {
        let options = ModelCacheOptions {
            capacity: 0,
            window,
            ..ModelCacheOptions::default()
        };
        let mut cache = ok(model.cache(&options));
        append(&model, &mut cache, &ids[..600]);
        let state = ok(cache.export());
        let expected = append(&model, &mut cache, &ids[600..]);
        let mut copy = ok(model.import_cache(&state));
        assert_eq!((copy.ids(), copy.window()), (&ids[..600], window));
        assert_eq!(append(&model, &mut copy, &ids[600..]), expected);
        assert_eq!(ok(copy.export()), ok(cache.export()));

        let fails = |change: &dyn Fn(&mut diffattn_nn::ModelCacheState)| {
            let mut state = state.clone();
            change(&mut state);
            refusal(model.import_cache(&state)).1
        };
        assert!(fails(&|state| state.ids[3] = vocab as u32).starts_with("state.ids"));
        assert!(fails(&|state| drop(state.layers.pop())).starts_with("state.layers"));
        assert!(fails(&|state| longer(state, true)).starts_with("state.layers[1] k"));
        assert!(fails(&|state| longer(state, false)).starts_with("state.layers[1] v"));
        for discarded in [1, 255, 768, usize::MAX] {
            let sentence = fails(&|state| state.discarded = discarded);
            assert!(sentence.starts_with("state.discarded"), "{sentence}");
        }
    }
}

/// Lets the second layer have one key, or value, more than fits.
fn longer(state: &mut diffattn_nn::ModelCacheState, keys: bool) {
    match &mut state.layers[1] {
        diffattn_nn::LayerState::Kv { keys: rows, .. } if keys => push(rows),
        diffattn_nn::LayerState::Kv { values, .. } => push(values),
        _ => panic!("keys and values"),
    }
}

fn push(rows: &mut diffattn::CacheRows) {
    match rows {
        diffattn::CacheRows::F32(values) => values.push(0.0),
        diffattn::CacheRows::F16(bits) | diffattn::CacheRows::Bf16(bits) => bits.push(0),
        diffattn::CacheRows::Int8 { codes, .. } => codes.push(0),
    }
}

#[test]
fn a_job_that_is_dropped() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let model = checkpoint.model();
    let vocab = checkpoint.config.vocab_size;
    let ids = random_ids(6, 900, vocab);
    for window in [None, Some(100)] {
        let expected = whole(&model, &ids, window);
        let options = ModelCacheOptions {
            capacity: 0,
            window,
            ..ModelCacheOptions::default()
        };
        let mut cache = ok(model.cache(&options));
        append(&model, &mut cache, &ids[..10]);
        let mut units = 1;
        loop {
            let before = cache.len();
            let mut logits = vec![0.0; (900 - before) * vocab];
            let shape = [1, 900 - before];
            let fresh = ids[before..].to_vec();
            let options = DiffLlamaOptions::default();
            let job = ok(model.forward_job(
                TokenIds::u32(&fresh, &shape),
                Some(vec![&mut cache]),
                &options,
            ));
            let mut job = ok(job.into_work(DiffLlamaOutputs {
                logits: &mut logits,
                ..DiffLlamaOutputs::default()
            }));
            ok(job.step(units));
            let is_done = job.done() == job.total();
            drop(job);
            if is_done {
                assert_eq!(bits(&logits), expected[before * vocab..]);
                assert_eq!(cache.ids(), ids);
                break;
            }
            // Without a window nothing has changed, with one whole stretches were kept.
            match window {
                None => assert_eq!(cache.len(), 10),
                Some(_) => assert_eq!((cache.len() - before) % 256, 0),
            }
            assert_eq!(cache.ids(), &ids[..cache.len()]);
            units = units * 3 / 2 + 1;
        }
    }
}

#[test]
fn texts_of_several_lengths_and_caches() {
    let checkpoint = Checkpoint::fixture("diffllama_bias");
    let model = checkpoint.model();
    let vocab = checkpoint.config.vocab_size;
    // Pasts of several lengths, then the same number of tokens each.
    let texts: Vec<Vec<u32>> = [0, 1, 30, 300]
        .map(|len| random_ids(7, len + 5, vocab))
        .into();
    let mut caches = Vec::new();
    for text in &texts {
        let mut cache = ok(model.cache(&ModelCacheOptions::default()));
        if text.len() > 5 {
            append(&model, &mut cache, &text[..text.len() - 5]);
        }
        caches.push(cache);
    }
    let fresh: Vec<u32> = texts
        .iter()
        .flat_map(|text| &text[text.len() - 5..])
        .copied()
        .collect();
    for logits in [Logits::All, Logits::Last] {
        let options = DiffLlamaOptions {
            logits,
            ..DiffLlamaOptions::default()
        };
        let ids = TokenIds::u32(&fresh, &[4, 5]);
        let output = ok(model.forward(ids, Some(&mut caches), &options));
        let rows = if logits == Logits::All { 5 } else { 1 };
        for (text, got) in texts.iter().zip(output.logits.chunks_exact(rows * vocab)) {
            let expected = whole(&model, text, None);
            assert_eq!(bits(got), expected[(text.len() - rows) * vocab..]);
        }
        for (cache, text) in caches.iter_mut().zip(&texts) {
            assert_eq!(cache.ids(), text);
            ok(cache.rewind(text.len() - 5));
        }
    }
}
