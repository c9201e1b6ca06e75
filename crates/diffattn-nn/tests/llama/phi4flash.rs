//! Phi-4-mini-flash: against the original's numbers in float64, and its states: in whatever pieces a
//! text comes, whatever stands beside it and wherever it is taken back to.

use crate::common::{Stored, Tensors, bits, ok, random_ids, read, refusal};
use crate::flash_formulas::{Formulas, Given};
use diffattn::{Data, Isa, Run, Tensor};
use diffattn_nn::{
    Generation, Generator, GeneratorOptions, Logits, Maps, ModelCache, ModelCacheOptions,
    Phi4Flash, Phi4FlashConfig, TextForward, TextModel, TextOptions, TextOutputs, TokenIds,
    Weights,
};
use diffattn_reference::{Accuracy, CaseErrors, Real};
use std::path::{Path, PathBuf};

const FIXTURES: [&str; 3] = ["phi4flash", "phi4flash_bf16", "phi4flash_wide"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../test/models")
        .join(name)
}

fn config_text(name: &str) -> String {
    std::fs::read_to_string(folder(name).join("config.json")).unwrap_or_else(|e| panic!("{e}"))
}

fn weights(tensors: &Tensors) -> Weights<'_> {
    tensors
        .iter()
        .map(|(name, (shape, stored))| {
            let data = match stored {
                Stored::F32(data) => Data::F32(data),
                Stored::Bf16(data) => Data::Bf16(data),
                other => panic!("a weight of {other:?}"),
            };
            let shape = shape.clone();
            (name.clone(), Tensor { data, shape })
        })
        .collect()
}

fn model(name: &str) -> Phi4Flash {
    let tensors = read(&folder(name).join("model.safetensors"));
    let config = ok(Phi4FlashConfig::from_json(&config_text(name)));
    ok(Phi4Flash::load(&config, &mut &weights(&tensors)))
}

fn expected(tensors: &Tensors, name: &str) -> Vec<f64> {
    match tensors.get(name) {
        Some((_, Stored::F64(values))) => values.clone(),
        other => panic!("{name} is {other:?}"),
    }
}

fn ids_of(tensors: &Tensors, name: &str) -> (Vec<usize>, Vec<u32>) {
    match tensors.get(name) {
        Some((shape, Stored::I64(ids))) => {
            (shape.clone(), ids.iter().map(|&id| id as u32).collect())
        }
        other => panic!("{name} is {other:?}"),
    }
}

struct Output {
    logits: Vec<f32>,
    hidden: Vec<f32>,
    maps: Vec<Maps>,
}

fn forward(
    model: &Phi4Flash,
    (ids, shape): (&[u32], &[usize]),
    caches: Option<&mut [ModelCache]>,
    options: &TextOptions,
) -> Output {
    let caches = caches.map(|caches| caches.iter_mut().collect());
    let ids = TokenIds::u32(ids, shape);
    let job = ok(TextForward::new(model.decoder(), &ids, caches, options));
    let zeros = |shape: &[usize]| vec![0.0; shape.iter().product()];
    let layers = options.map_layers.iter();
    let mut output = Output {
        logits: zeros(&job.logits_shape()),
        hidden: zeros(&job.hidden_states_shape()),
        maps: layers
            .map(|&layer| Maps {
                shape: job.map_shape(layer),
                terms: vec![zeros(&job.map_shape(layer)); job.terms(layer)],
                diff: zeros(&job.map_shape(layer)),
            })
            .collect(),
    };
    let maps = output.maps.iter_mut().map(|maps| diffattn::MapOutputs {
        terms: maps.terms.iter_mut().map(Vec::as_mut_slice).collect(),
        diff: &mut maps.diff,
    });
    let outputs = TextOutputs {
        logits: &mut output.logits,
        hidden_states: &mut output.hidden,
        maps: maps.collect(),
    };
    ok(ok(job.into_work(outputs)).finish());
    output
}

fn cache(model: &Phi4Flash) -> ModelCache {
    let options = ModelCacheOptions::default();
    ok(ModelCache::new(&model.decoder(), &options))
}

/// Logits of ids behind what the cache has.
fn next(model: &Phi4Flash, cache: &mut ModelCache, ids: &[u32]) -> Vec<f32> {
    let (text, caches) = ((ids, &[1, ids.len()][..]), std::slice::from_mut(cache));
    forward(model, text, Some(caches), &TextOptions::default()).logits
}

fn last() -> TextOptions {
    TextOptions {
        logits: Logits::Last,
        ..TextOptions::default()
    }
}

/// What formulas give of texts of one length, together as the model gives it.
fn by_formulas<R: Real>(formulas: &Formulas<'_>, (ids, shape): (&[u32], &[usize])) -> Given<R> {
    let texts = ids.chunks_exact(shape[1]);
    let mut given: Vec<Given<R>> = texts.map(|ids| formulas.run(ids)).collect();
    let states = 0..given[0].hidden_states.len();
    Given {
        hidden_states: states
            .map(|state| {
                let texts = given.iter_mut();
                let states = texts.flat_map(|text| std::mem::take(&mut text.hidden_states[state]));
                states.collect()
            })
            .collect(),
        logits: given.into_iter().flat_map(|text| text.logits).collect(),
    }
}

/// Judges all that the model gives of ids as attention is judged, by what plain float32 is off by:
/// two computations, which differ in the order of their sums alone. `largest`: also the largest
/// error, which in long texts is that of one row or two whose differences are near zero, where plain
/// computations differ several times among themselves.
fn judge(accuracy: &mut Accuracy, name: &str, (ids, shape): (&[u32], &[usize]), largest: bool) {
    let tensors = read(&folder(name).join("model.safetensors"));
    let model = model(name);
    let mut formulas = Formulas::new(model.config(), &tensors);
    let expected: Given<f64> = by_formulas(&formulas, (ids, shape));
    let forward_sums: Given<f32> = by_formulas(&formulas, (ids, shape));
    formulas.backward = true;
    let backward_sums: Given<f32> = by_formulas(&formulas, (ids, shape));
    let mut near = |case: &str, expected: &[f64], plain: [&[f32]; 2], got: &[f32]| {
        let (expected, plain) = ([expected, expected].concat(), plain.concat());
        let got = [got, got].concat();
        let judged = accuracy.case(case, &expected, &plain, &got);
        if largest {
            ok(judged);
        } else {
            let [got, plain] = [&got, &plain].map(|x| CaseErrors::new(&expected, x).rms);
            assert!(got <= 1.25 * plain, "{case}: {got:e}, plain {plain:e}");
        }
    };
    for deterministic in [false, true] {
        let options = TextOptions {
            hidden_states: true,
            run: Run::default().with_deterministic(deterministic),
            ..TextOptions::default()
        };
        let got = forward(&model, (ids, shape), None, &options);
        let plain = [&forward_sums, &backward_sums];
        let states = got
            .hidden
            .chunks_exact(ids.len() * model.config().hidden_size);
        for (state, got) in states.enumerate() {
            let plain = plain.map(|plain| plain.hidden_states[state].as_slice());
            let case = format!("{name}, hidden state {state}");
            near(&case, &expected.hidden_states[state], plain, got);
        }
        let plain = plain.map(|plain| plain.logits.as_slice());
        near(name, &expected.logits, plain, &got.logits);
    }
}

#[test]
fn the_formulas_are_the_originals() {
    for name in FIXTURES {
        let tensors = read(&folder(name).join("model.safetensors"));
        let file = read(&folder(name).join("expected.safetensors"));
        let (shape, ids) = ids_of(&file, "input_ids");
        let model = model(name);
        let formulas = Formulas::new(model.config(), &tensors);
        let given: Given<f64> = by_formulas(&formulas, (&ids, &shape));
        let near = |name: &str, got: &[f64]| {
            let expected = expected(&file, name);
            assert_eq!(expected.len(), got.len(), "{name}");
            let pairs = expected.iter().zip(got);
            let worst = pairs.fold(0.0f64, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(worst < 1e-11, "{name}: {worst:e}");
        };
        near("expected.logits", &given.logits);
        for (state, got) in given.hidden_states.iter().enumerate() {
            near(&format!("expected.hidden_{state}"), got);
        }
    }
}

#[test]
fn hidden_states_and_logits_are_as_accurate_as_plain_float32() {
    let mut accuracy = Accuracy::new();
    for name in FIXTURES {
        let file = read(&folder(name).join("expected.safetensors"));
        let (shape, ids) = ids_of(&file, "input_ids");
        judge(&mut accuracy, name, (&ids, &shape), true);
        // Longer texts, past windows, blocks and marks.
        let long = random_ids(21, 2 * 290, 97);
        judge(&mut accuracy, name, (&long, &[2, 290]), false);
    }
    ok(accuracy.pooled());
}

#[test]
fn above_the_lower_half_the_last_rows_alone_have_the_bits_of_all() {
    for name in FIXTURES {
        let model = model(name);
        let (ids, shape) = (random_ids(3, 2 * 280, 97), [2, 280]);
        let all = forward(&model, (&ids, &shape), None, &TextOptions::default()).logits;
        let rows = all.chunks_exact(97 * shape[1]);
        let wanted = rows.flat_map(|rows| &rows[rows.len() - 97..]);
        let wanted: Vec<f32> = wanted.copied().collect();
        let got = forward(&model, (&ids, &shape), None, &last()).logits;
        assert_eq!(bits(&got), bits(&wanted), "{name}");
    }
}

#[test]
fn greedy_ids_are_the_originals() {
    for name in FIXTURES {
        let (model, file) = (
            model(name),
            read(&folder(name).join("expected.safetensors")),
        );
        let (shape, ids) = ids_of(&file, "expected.greedy");
        let prompt = shape[1] - 16;
        let generation = Generation {
            prompt: ids[..prompt].to_vec(),
            max_new_tokens: 16,
            stop_ids: Some(Vec::new()),
            ..Generation::default()
        };
        let options = GeneratorOptions::default();
        let mut generator = ok(Generator::new(&model, vec![generation], &options));
        while !generator.is_finished() {
            ok(generator.step());
        }
        assert_eq!(generator.ids(0), Some(&ids[..]), "{name}");
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_instructions() {
    let model = model("phi4flash");
    let ids = random_ids(5, 41, 97);
    let run = |run: Run| {
        let options = TextOptions {
            run,
            ..TextOptions::default()
        };
        bits(&forward(&model, (&ids, &[1, 41]), None, &options).logits)
    };
    let (mut fused, mut unfused) = (None, None);
    for isa in Isa::available() {
        for threads in [1, 3] {
            for deterministic in [false, true] {
                let got = run(ok(Run::new(Some(isa), Some(threads), deterministic)));
                let is_unfused = deterministic || isa.name() == "scalar";
                let class = if is_unfused { &mut unfused } else { &mut fused };
                assert!(
                    *class.get_or_insert_with(|| got.clone()) == got,
                    "{}",
                    isa.name()
                );
            }
        }
    }
}

#[test]
fn a_text_in_pieces_has_the_bits_of_the_whole() {
    for name in FIXTURES {
        let model = model(name);
        let ids = random_ids(7, 620, 97);
        let whole = forward(&model, (&ids, &[1, 620]), None, &TextOptions::default()).logits;
        for steps in [
            &[620][..],
            &[1, 2, 253, 1, 300, 63],
            &[255, 258, 107],
            &[256, 256, 108],
        ] {
            let (mut cache, mut at) = (cache(&model), 0);
            for &step in steps {
                let got = next(&model, &mut cache, &ids[at..at + step]);
                let wanted = &whole[at * 97..(at + step) * 97];
                assert_eq!(bits(&got), bits(wanted), "{name}: {step} from {at}");
                at += step;
            }
            assert_eq!((at, cache.len()), (620, 620));
        }
        // Token by token, across a mark.
        let mut cache = cache(&model);
        next(&model, &mut cache, &ids[..250]);
        for at in 250..264 {
            let got = next(&model, &mut cache, &ids[at..=at]);
            assert_eq!(
                bits(&got),
                bits(&whole[at * 97..(at + 1) * 97]),
                "{name}: {at}"
            );
        }
    }
}

#[test]
fn texts_side_by_side_have_the_bits_of_each_alone() {
    let model = model("phi4flash_bf16");
    let ids = random_ids(9, 3 * 290, 97);
    let together = forward(&model, (&ids, &[3, 290]), None, &TextOptions::default()).logits;
    let mut caches = [cache(&model), cache(&model), cache(&model)];
    let held = forward(&model, (&ids, &[3, 290]), Some(&mut caches), &last()).logits;
    for (text, ids) in ids.chunks_exact(290).enumerate() {
        let alone = forward(&model, (ids, &[1, 290]), None, &TextOptions::default()).logits;
        let rows = &together[text * 290 * 97..(text + 1) * 290 * 97];
        assert_eq!(bits(&alone), bits(rows), "text {text}");
        assert_eq!(
            bits(&alone[289 * 97..]),
            bits(&held[text * 97..(text + 1) * 97])
        );
    }
    // Of several lengths: packed, as each alone.
    let generation = |length: usize| Generation {
        prompt: ids[..length].to_vec(),
        max_new_tokens: 5,
        stop_ids: Some(Vec::new()),
        ..Generation::default()
    };
    let lengths = [1, 300, 3, 257, 40];
    let generate = |lengths: &[usize]| {
        let texts = lengths.iter().map(|&length| generation(length)).collect();
        let mut generator = ok(Generator::new(&model, texts, &GeneratorOptions::default()));
        while !generator.is_finished() {
            ok(generator.step());
        }
        let texts = 0..lengths.len();
        let ids = texts.map(|text| generator.ids(text).map(<[u32]>::to_vec));
        ids.collect::<Vec<_>>()
    };
    let alone: Vec<_> = lengths
        .iter()
        .flat_map(|&length| generate(&[length]))
        .collect();
    assert_eq!(generate(&lengths), alone);
}

#[test]
fn taking_a_text_back_is_never_having_gone_there() {
    for name in FIXTURES {
        let model = model(name);
        let ids = random_ids(11, 1700, 97);
        let other = random_ids(13, 30, 97);
        for (held, length) in [
            (300, 298),
            (300, 297),
            (300, 256),
            (300, 255),
            (300, 0),
            (1700, 1699),
            (1700, 1536),
            (1700, 1300),
            (1700, 700),
            (1700, 40),
        ] {
            let mut gone = cache(&model);
            next(&model, &mut gone, &ids[..held]);
            ok(gone.rewind(length));
            assert_eq!(gone.len(), length);
            let mut fresh = cache(&model);
            if length > 0 {
                next(&model, &mut fresh, &ids[..length]);
            }
            let (a, b) = (
                next(&model, &mut gone, &other),
                next(&model, &mut fresh, &other),
            );
            assert_eq!(bits(&a), bits(&b), "{name}: {held} back to {length}");
            assert_eq!(gone.ids(), fresh.ids());
            // And once more, back and on, in small steps.
            ok(gone.rewind(length + 7));
            ok(gone.rewind(length + 3));
            for (at, id) in other.iter().enumerate().skip(3).take(5) {
                let got = next(&model, &mut gone, &[*id]);
                assert_eq!(bits(&got), bits(&b[at * 97..(at + 1) * 97]), "{name}: {at}");
            }
        }
    }
}

#[test]
fn a_pass_that_is_given_up_changes_nothing() {
    let model = model("phi4flash");
    let ids = random_ids(15, 600, 97);
    let mut held = cache(&model);
    next(&model, &mut held, &ids[..100]);
    for steps in [1, 3, 9, 20] {
        let text = TokenIds::u32(&ids[100..600], &[1, 500]);
        let job = ok(TextForward::new(
            model.decoder(),
            &text,
            Some(vec![&mut held]),
            &last(),
        ));
        let mut logits = vec![0.0; 97];
        let outputs = TextOutputs {
            logits: &mut logits,
            ..TextOutputs::default()
        };
        let mut work = ok(job.into_work(outputs));
        for _ in 0..steps {
            ok(work.step(1));
        }
        drop(work);
        let len = held.len();
        ok(held.rewind(100.min(len)));
    }
    let got = next(&model, &mut held, &ids[100..130]);
    let whole = forward(
        &model,
        (&ids[..130], &[1, 130]),
        None,
        &TextOptions::default(),
    )
    .logits;
    assert_eq!(bits(&got), bits(&whole[100 * 97..]));
}

#[test]
fn caches_go_out_and_come_back() {
    for name in FIXTURES {
        let model = model(name);
        let ids = random_ids(17, 1500, 97);
        for held in [3, 300, 1500] {
            let mut first = cache(&model);
            next(&model, &mut first, &ids[..held]);
            let state = ok(first.export());
            let kinds: Vec<_> = state.layers.iter().map(|layer| layer.kind()).collect();
            assert_eq!(kinds[..2], ["recurrent", "kv"], "{name}");
            assert_eq!(
                kinds[kinds.len() - 1],
                if kinds.len() > 4 { "none" } else { "kv" }
            );
            let mut again = ok(ModelCache::import(&model.decoder(), &state));
            let (a, b) = (
                next(&model, &mut first, &ids[..9]),
                next(&model, &mut again, &ids[..9]),
            );
            assert_eq!(bits(&a), bits(&b), "{name}: {held}");
            assert_eq!(again.ids(), first.ids());
        }
    }
}

#[test]
fn every_layer_of_attention_has_maps() {
    for name in FIXTURES {
        let model = model(name);
        let (ids, layers) = (random_ids(19, 23, 97), model.config().num_hidden_layers);
        let attention: Vec<usize> = (1..layers).step_by(2).collect();
        let options = TextOptions {
            logits: Logits::None,
            map_layers: attention.clone(),
            ..TextOptions::default()
        };
        let all = forward(&model, (&ids, &[1, 23]), None, &options).maps;
        for (maps, &layer) in all.iter().zip(&attention) {
            assert_eq!(
                maps.shape,
                [1, model.config().num_attention_heads / 2, 23, 23]
            );
            let window = model.config().sliding_window.of(layer);
            let window = window.filter(|_| layer < layers / 2).unwrap_or(23);
            for term in &maps.terms {
                for (row, values) in term.chunks_exact(23).enumerate() {
                    let query = row % 23;
                    let seen = (query + 1).saturating_sub(window)..query + 1;
                    let sum: f32 = values[seen.clone()].iter().sum();
                    assert!((sum - 1.0).abs() < 1e-5, "{name}, layer {layer}: {sum}");
                    let mut hidden = (0..23).filter(|key| !seen.contains(key));
                    assert!(
                        hidden.all(|key| values[key] == 0.0),
                        "{name}, layer {layer}"
                    );
                }
            }
            // Alone, with as few layers as it takes.
            let alone = TextOptions {
                map_layers: vec![layer],
                ..options.clone()
            };
            let alone = forward(&model, (&ids, &[1, 23]), None, &alone).maps;
            assert_eq!(
                bits(&alone[0].diff),
                bits(&maps.diff),
                "{name}, layer {layer}"
            );
        }
        let of_mamba = TextOptions {
            map_layers: vec![2],
            ..options
        };
        let text = TokenIds::u32(&ids, &[1, 23]);
        let refused = TextForward::new(model.decoder(), &text, None, &of_mamba).map(drop);
        let sentence = "map_layers: expected layers with attention, got 2, which has none";
        assert_eq!(refusal(refused), ("OPTION", sentence.to_owned()));
    }
}

#[test]
fn configurations_that_do_not_fit_are_refused_by_name() {
    let text = config_text("phi4flash");
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        Phi4FlashConfig::from_json(&text.replace(from, to)).map(drop)
    };
    for (from, to, sentence) in [
        (
            "\"num_hidden_layers\": 8",
            "\"num_hidden_layers\": 6",
            "config.num_hidden_layers: expected a multiple of 4, as each half has layers in pairs, got 6",
        ),
        (
            "\"num_hidden_layers\": 8,",
            "",
            "config.num_hidden_layers: expected a whole number of at least 1, got none",
        ),
        (
            "\"num_key_value_heads\": 2",
            "\"num_key_value_heads\": 1",
            "config.num_key_value_heads: expected an even number, as two heads make one difference, got 1",
        ),
        (
            "\"sliding_window\": 6",
            "\"sliding_window\": [1, 2]",
            "config.sliding_window: expected a list of 8 windows, or null, one per layer, got [1,2]",
        ),
        (
            "\"sliding_window\": 6",
            "\"sliding_window\": 0",
            "config.sliding_window: expected a whole number of at least 1, got 0",
        ),
        (
            "\"lm_head_bias\": false",
            "\"lm_head_bias\": true",
            "config.lm_head_bias: expected false, got true",
        ),
        (
            "\"mb_per_layer\": 2",
            "\"mb_per_layer\": 3",
            "config.mb_per_layer: expected 2, as every second layer is Mamba, got 3",
        ),
    ] {
        assert_eq!(refusal(with(from, to)), ("FILE", sentence.to_owned()));
    }
    ok(with("\"sliding_window\": 6", "\"sliding_window\": null"));
    // More layers than there are, and sizes that no machine has, end at the first weight.
    let tensors = read(&folder("phi4flash").join("model.safetensors"));
    for (from, to) in [
        (
            "\"num_hidden_layers\": 8",
            "\"num_hidden_layers\": 4000000000",
        ),
        ("\"hidden_size\": 32", "\"hidden_size\": 4000000000000000"),
        (
            "\"use_cache\"",
            "\"mamba_d_state\": 9000000000000, \"use_cache\"",
        ),
    ] {
        let config = Phi4FlashConfig::from_json(&text.replace(from, to));
        let load = |config| Phi4Flash::load(&config, &mut &weights(&tensors)).map(drop);
        assert_eq!(refusal(config.and_then(load)).0, "FILE", "{to}");
    }
}
