//! Llamas some of whose heads were made differential: against float64 formulas, against the Llama
//! that they were, and in what their checkpoints and configurations may say besides.

use crate::common::{Checkpoint, Stored, bits, error, forward, notices, ok, random_ids, refusal};
use diffattn_nn::{
    ConversionKind, DecoderAttention, DiffLlama, DiffLlamaConfig, DiffLlamaOptions,
    DifferentialHeads, Generation, Generator, GeneratorOptions, LambdaForm, ModelCache,
    ModelCacheOptions, NoiseOrder, TokenIds,
};
use serde_json::{Value, json};

/// Of the largest error, in standard deviations.
const TOLERANCE: f64 = 2e-5;

/// Each fixture, and whether its logits are those of the Llama that it was.
const FIXTURES: [(&str, bool); 13] = [
    ("v2_mirror", true),
    ("v2_mirror_lambda_0_3", true),
    ("share_third", true),
    ("share_half", true),
    ("share_half_moved", false),
    ("v1_mirror_half", true),
    ("v1_zero_scalars", true),
    ("v1_zero_vectors", true),
    ("v2_mix_0", true),
    ("v2_mix_0_25", false),
    ("v2_mix_1_0", false),
    ("dex_zero", true),
    ("dex_trained", false),
];

fn converted(name: &str) -> Checkpoint {
    Checkpoint::fixture(&format!("diffattn_llama/{name}"))
}

fn all_logits(model: &DiffLlama, ids: &[u32], shape: &[usize]) -> Vec<f32> {
    forward(model, ids, shape, &DiffLlamaOptions::default()).logits
}

fn greedy(model: &DiffLlama, prompt: &[u32], count: usize) -> Vec<u32> {
    let generation = Generation {
        prompt: prompt.to_vec(),
        max_new_tokens: count,
        stop_ids: Some(Vec::new()),
        ..Generation::default()
    };
    let options = GeneratorOptions::default();
    let mut generator = ok(Generator::new(model, vec![generation], &options));
    while !generator.is_finished() {
        ok(generator.step());
    }
    generator.ids(0).map(<[u32]>::to_vec).unwrap_or_default()
}

#[test]
fn logits() {
    for (name, _) in FIXTURES {
        let checkpoint = converted(name);
        let (shape, ids) = checkpoint.ids("input_ids");
        let got = all_logits(&checkpoint.model(), &ids, &shape);
        let worst = error(checkpoint.expected("expected.logits"), &got);
        assert!(worst < TOLERANCE, "{name}: {worst:e}");
        assert_eq!(notices(&checkpoint), [""; 0], "{name}");
    }
}

/// Starts that are exact: logits within 2e-6 of the largest, and the same ids over 64 tokens.
#[test]
fn what_they_were() {
    let llama = Checkpoint::fixture("llama").model();
    for (name, is_llama) in FIXTURES {
        let checkpoint = converted(name);
        let model = checkpoint.model();
        let (shape, ids) = checkpoint.ids("input_ids");
        let (was, is) = (
            all_logits(&llama, &ids, &shape),
            all_logits(&model, &ids, &shape),
        );
        let largest = was.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let apart = was.iter().zip(&is);
        let apart = apart.fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs())) / largest;
        assert_eq!(apart <= 2e-6, is_llama, "{name}: {apart:e}");
        let prompt = &ids[..shape[1]];
        if is_llama {
            assert_eq!(
                greedy(&model, prompt, 64),
                greedy(&llama, prompt, 64),
                "{name}"
            );
        }
        // A matrix of zeros leaves every bit.
        if name == "dex_zero" {
            assert_eq!(bits(&was), bits(&is));
        }
    }
}

/// DEX is the Llama that it folds into.
#[test]
fn folded() {
    let (trained, folded) = (converted("dex_trained"), converted("dex_folded"));
    let (shape, ids) = trained.ids("input_ids");
    let got = all_logits(&trained.model(), &ids, &shape);
    let worst = error(folded.expected("expected.logits"), &got);
    assert!(worst < TOLERANCE, "{worst:e}");
    let got = all_logits(&folded.model(), &ids, &shape);
    let worst = error(folded.expected("expected.logits"), &got);
    assert!(worst < TOLERANCE, "{worst:e}");
}

/// Token by token, in pieces, in a batch and rewound: the bits of all at once.
#[test]
fn caches() {
    for (name, _) in FIXTURES {
        let model = converted(name).model();
        let ids = random_ids(3, 2 * 300, 59);
        let whole = all_logits(&model, &ids, &[2, 300]);
        for (text, ids) in ids.chunks_exact(300).enumerate() {
            let whole = &whole[text * 300 * 59..(text + 1) * 300 * 59];
            assert_eq!(
                bits(&all_logits(&model, ids, &[1, 300])),
                bits(whole),
                "{name}"
            );
            let mut cache = [ok(model.cache(&ModelCacheOptions::default()))];
            let mut at = 0;
            for step in [1, 1, 17, 1, 240, 38, 1, 1] {
                let options = DiffLlamaOptions::default();
                let ids = TokenIds::u32(&ids[at..at + step], &[1, step]);
                let got = ok(model.forward(ids, Some(&mut cache), &options)).logits;
                let expected = &whole[at * 59..(at + step) * 59];
                assert_eq!(bits(&got), bits(expected), "{name}, {step} from {at}");
                at += step;
            }
            assert_eq!(at, 300);
            // Out and in again.
            let [cache] = &mut cache;
            ok(cache.rewind(290));
            let state = ok(cache.export());
            for layer in 0..state.layers.len() {
                let shapes: Vec<_> = cache
                    .parts(layer)
                    .into_iter()
                    .map(|part| part.shape)
                    .collect();
                let keys = if name.starts_with("v1") { 4 } else { 2 };
                assert_eq!(shapes, [[keys, 290, 8], [2, 290, 8]], "{name}");
            }
            let mut caches: [ModelCache; 1] = [ok(model.import_cache(&state))];
            let rest = TokenIds::u32(&ids[290..], &[1, 10]);
            let options = DiffLlamaOptions::default();
            let got = ok(model.forward(rest, Some(&mut caches), &options)).logits;
            assert_eq!(bits(&got), bits(&whole[290 * 59..]), "{name}");
        }
    }
}

/// Every layer's maps: where heads of one map are beside heads of two, the second is zeros.
#[test]
fn maps() {
    for (name, differential) in [
        ("share_half_moved", [vec![0, 2, 4], vec![3, 4, 5]]),
        ("share_third", [vec![1, 4], vec![0, 5]]),
        ("v2_mix_0_25", [(0..6).collect(), (0..6).collect()]),
        ("v1_mirror_half", [(0..6).collect(), (0..6).collect()]),
        ("dex_trained", [vec![], vec![]]),
    ] {
        let model = converted(name).model();
        let ids = random_ids(8, 33, 59);
        let options = DiffLlamaOptions {
            map_layers: vec![0, 1],
            ..DiffLlamaOptions::default()
        };
        let found = forward(&model, &ids, &[1, 33], &options).maps;
        assert_eq!(found.len(), 2);
        for (maps, differential) in found.iter().zip(&differential) {
            assert_eq!(maps.shape, [1, 6, 33, 33]);
            let terms = if name == "dex_trained" { 1 } else { 2 };
            assert_eq!(maps.terms.len(), terms, "{name}");
            let size = 33 * 33;
            for head in 0..6 {
                let of = |map: &[f32]| map[head * size..(head + 1) * size].to_vec();
                let (first, diff) = (of(&maps.terms[0]), of(&maps.diff));
                let second = maps.terms.get(1).map(|map| of(map));
                for row in first.chunks_exact(33) {
                    assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{name}");
                }
                if differential.contains(&head) {
                    let sums = second.iter().flat_map(|map| map.chunks_exact(33));
                    for row in sums {
                        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{name}");
                    }
                } else {
                    assert_eq!(bits(&diff), bits(&first), "{name}");
                    assert!(second.iter().flatten().all(|&x| x == 0.0), "{name}");
                }
            }
        }
    }
}

/// Halves of the weights' bits: the same numbers, and no rounding of what is multiplied in.
#[test]
fn half_precision() {
    for name in ["share_half_moved", "v1_mirror_half", "dex_trained"] {
        let mut checkpoint = converted(name);
        let mut narrow = converted(name);
        for (tensor, (_, stored)) in &mut checkpoint.tensors {
            let Stored::F32(values) = stored else {
                panic!("{tensor} is {stored:?}")
            };
            let halves: Vec<u16> = values
                .iter()
                .map(|&x| half::bf16::from_f32(x).to_bits())
                .collect();
            for (x, half) in values.iter_mut().zip(&halves) {
                *x = half::bf16::from_bits(*half).to_f32();
            }
            if let Some((_, stored)) = narrow.tensors.get_mut(tensor) {
                *stored = Stored::Bf16(halves);
            }
        }
        let ids = random_ids(5, 40, 59);
        let (wide, narrow) = (checkpoint.model(), narrow.model());
        let (wide, narrow) = (
            all_logits(&wide, &ids, &[1, 40]),
            all_logits(&narrow, &ids, &[1, 40]),
        );
        assert_eq!(bits(&wide), bits(&narrow), "{name}");
    }
}

fn config(conversion: &Value) -> Result<DiffLlamaConfig, diffattn::Error> {
    let config = json!({
        "model_type": "diffattn_llama", "vocab_size": 59, "hidden_size": 48,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 6,
        "num_key_value_heads": 2, "diff_attention": conversion,
    });
    DiffLlamaConfig::from_diffattn_llama_json(&config.to_string())
}

#[test]
fn configurations() {
    let v2 = json!({ "kind": "v2", "order": "appended", "heads": [[0], [1, 5]], "mix": 0.5 });
    let read = ok(config(&v2));
    assert_eq!(read.kind, DecoderAttention::Converted(ConversionKind::V2));
    assert_eq!(read.num_heads(), 6);
    let conversion = read.conversion.unwrap_or_else(|| panic!("no conversion"));
    assert_eq!(
        conversion.heads,
        DifferentialHeads::Listed(vec![vec![0], vec![1, 5]])
    );
    assert_eq!(
        (conversion.order, conversion.mix),
        (NoiseOrder::Appended, 0.5)
    );
    let v1 = json!({ "version": 1, "kind": "v1", "lambda": "scalars", "lambda_init": [0, 0.5] });
    let read = ok(config(&v1));
    let kind = ConversionKind::V1(LambdaForm::Scalars);
    assert_eq!(read.kind, DecoderAttention::Converted(kind));
    let conversion = read.conversion.unwrap_or_else(|| panic!("no conversion"));
    assert_eq!(conversion.heads, DifferentialHeads::All);
    assert_eq!(
        (conversion.lambda_init, conversion.mix),
        (vec![0.0, 0.5], 1.0)
    );
}

/// What is wrong is one sentence: the entry or the weight, what was expected, what was given.
#[test]
fn what_is_refused() {
    let v2 = |entries: Value| {
        let mut config = json!({ "kind": "v2", "order": "appended", "heads": [[0], [1]] });
        for (key, value) in entries.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config
    };
    for (conversion, sentence) in [
        (
            json!(null),
            "config.diff_attention: expected an object that says how the Llama was converted, got none",
        ),
        (
            v2(json!({ "version": 2 })),
            "config.diff_attention.version: expected 1, got 2",
        ),
        (
            v2(json!({ "kind": "v3" })),
            "config.diff_attention.kind: expected \"v2\" or \"v1\" or \"dex\", got \"v3\"",
        ),
        (
            v2(json!({ "lambda": "vectors" })),
            "config.diff_attention.lambda: expected \"sigmoid\", got \"vectors\"",
        ),
        (
            v2(json!({ "order": null })),
            "config.diff_attention.order: expected \"pairs\" or \"appended\", got none",
        ),
        (
            v2(json!({ "order": "pairs" })),
            "config.diff_attention.heads[0]: expected all 6 heads or none, as their noise heads lie in pairs, got [0]",
        ),
        (
            v2(json!({ "heads": "half" })),
            "config.diff_attention.heads: expected \"all\" or a list of heads' numbers for each layer, got \"half\"",
        ),
        (
            v2(json!({ "heads": [[0]] })),
            "config.diff_attention.heads: expected an entry for each of 2 layers (num_hidden_layers), got 1 entries",
        ),
        (
            v2(json!({ "heads": [[0], [2, 1]] })),
            "config.diff_attention.heads[1]: expected numbers of heads below 6, ascending, got [2, 1]",
        ),
        (
            v2(json!({ "heads": [[0], [6]] })),
            "config.diff_attention.heads[1]: expected numbers of heads below 6, ascending, got [6]",
        ),
        (
            v2(json!({ "norm": { "eps": 1e-5 } })),
            "config.diff_attention.norm: expected none, as converted heads have no norm, got {\"eps\":0.00001}",
        ),
        (
            v2(json!({ "mix": "half" })),
            "config.diff_attention.mix: expected a number, got \"half\"",
        ),
        (
            json!({ "kind": "v1" }),
            "config.diff_attention.lambda: expected \"vectors\" or \"scalars\", got none",
        ),
        (
            json!({ "kind": "v1", "lambda": "vectors" }),
            "config.diff_attention.lambda_init: expected a number for each layer, got none",
        ),
        (
            json!({ "kind": "v1", "lambda": "vectors", "lambda_init": [0.5] }),
            "config.diff_attention.lambda_init: expected an entry for each of 2 layers (num_hidden_layers), got 1 entries",
        ),
    ] {
        let refused = refusal(config(&conversion));
        assert_eq!(refused, ("FILE", sentence.to_owned()));
    }
    let checkpoint = converted("share_half");
    let refused = |entries: Value| {
        let config = ok(config(&v2(entries)));
        refusal(DiffLlama::new(&config, &checkpoint.weights()))
    };
    assert_eq!(
        refused(json!({ "heads": [[0, 2], [3, 4, 5]] })),
        (
            "FILE",
            "weights.model.layers.0.self_attn.q_proj.weight: expected a tensor of shape [64, 48], got [72, 48]"
                .to_owned()
        )
    );
    assert_eq!(
        refused(json!({ "kind": "dex", "heads": "all" })).1,
        "weights.model.layers.0.self_attn.q_proj.weight: expected a tensor of shape [48, 48], got [72, 48]"
    );
}

/// A layer without differential heads is the Llama's.
#[test]
fn a_layer_left_alone() {
    let mut checkpoint = converted("share_half");
    let llama = Checkpoint::fixture("llama");
    for (name, tensor) in &llama.tensors {
        if name.starts_with("model.layers.1.") {
            checkpoint.tensors.insert(name.clone(), tensor.clone());
        }
    }
    let gate = "model.layers.1.self_attn.lambda_proj.weight";
    checkpoint.tensors.remove(gate);
    let heads = json!({ "kind": "v2", "order": "appended", "heads": [[0, 2, 4], []] });
    checkpoint.config = ok(config(&heads));
    checkpoint.config.rms_norm_eps = 1e-5;
    let (shape, ids) = checkpoint.ids("input_ids");
    let options = DiffLlamaOptions {
        map_layers: vec![0, 1],
        ..DiffLlamaOptions::default()
    };
    let got = forward(&checkpoint.model(), &ids, &shape, &options);
    let worst = error(checkpoint.expected("expected.logits"), &got.logits);
    assert!(worst < TOLERANCE, "{worst:e}");
    let terms: Vec<usize> = got.maps.iter().map(|maps| maps.terms.len()).collect();
    assert_eq!(terms, [2, 1]);
    // Of the first version, whose caches are not those of plain layers.
    let mut checkpoint = converted("v1_mirror_half");
    for (name, tensor) in &llama.tensors {
        if name.starts_with("model.layers.1.") {
            checkpoint.tensors.insert(name.clone(), tensor.clone());
        }
    }
    let is_lambda = |name: &str| name.starts_with("model.layers.1.self_attn.lambda");
    checkpoint.tensors.retain(|name, _| !is_lambda(name));
    let heads = json!({ "kind": "v1", "lambda": "vectors", "lambda_init": [0.5, 0.5],
        "heads": [[0, 1, 2, 3, 4, 5], []] });
    checkpoint.config = ok(config(&heads));
    checkpoint.config.rms_norm_eps = 1e-5;
    let model = checkpoint.model();
    let got = all_logits(&model, &ids, &shape);
    let worst = error(checkpoint.expected("expected.logits"), &got);
    assert!(worst < TOLERANCE, "{worst:e}");
    let mut cache = [ok(model.cache(&ModelCacheOptions::default()))];
    let text = TokenIds::u32(&ids[..21], &[1, 21]);
    let options = DiffLlamaOptions::default();
    let kept = ok(model.forward(text, Some(&mut cache), &options)).logits;
    assert_eq!(bits(&kept), bits(&got[..21 * 59]));
    let keys: Vec<usize> = (0..2)
        .map(|layer| cache[0].parts(layer)[0].shape[0])
        .collect();
    assert_eq!(keys, [4, 2]);
}
