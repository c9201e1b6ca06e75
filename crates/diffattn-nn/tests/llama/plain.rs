//! A plain Llama, whose heads are one softmax each: against `transformers`' numbers, and in what its
//! checkpoints and configurations may say besides.

use crate::common::{Checkpoint, Stored, bits, error, forward, ok, random_ids, refusal};
use crate::reference::{Expected, Reference};
use diffattn::RopeType;
use diffattn_nn::{
    DiffLlama, DiffLlamaConfig, DiffLlamaOptions, Generation, Generator, GeneratorOptions,
    HiddenAct, ModelCacheOptions,
};
use diffattn_reference::RopeScaling;
use serde_json::{Value, json};

/// Of the largest error, in standard deviations.
const TOLERANCE: f64 = 2e-5;

fn plain(checkpoint: &Checkpoint) -> Reference<'_> {
    Reference {
        checkpoint,
        scaling: RopeScaling::Default,
        int8: false,
    }
}

/// The configuration of the fixture, with other entries.
fn config(entries: &Value) -> Result<DiffLlamaConfig, diffattn::Error> {
    let mut config = json!({
        "model_type": "llama", "vocab_size": 59, "hidden_size": 48, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
    });
    for (key, value) in entries.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    DiffLlamaConfig::from_llama_json(&config.to_string())
}

#[test]
fn logits_and_hidden_states() {
    let checkpoint = Checkpoint::fixture("llama");
    let model = checkpoint.model();
    let (shape, ids) = checkpoint.ids("input_ids");
    let options = DiffLlamaOptions {
        hidden_states: true,
        ..DiffLlamaOptions::default()
    };
    let output = forward(&model, &ids, &shape, &options);
    assert_eq!(output.logits_shape, [2, 21, 59]);
    let expected = checkpoint.expected("expected.logits");
    let worst = error(expected, &output.logits);
    assert!(worst < TOLERANCE, "{worst:e}");
    // The oracle, which the tests below compare with, is that of the file.
    let (batch, length) = (shape[0], shape[1]);
    for (text, ids) in ids.chunks_exact(length).enumerate() {
        let oracle = plain(&checkpoint).forward(ids, None);
        let logits = &expected[text * length * 59..(text + 1) * length * 59];
        let apart = oracle.logits.iter().zip(logits);
        let apart = apart.fold(0.0f64, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(apart < 1e-11, "{apart:e}");
        for (state, expected) in oracle.hidden_states.iter().enumerate() {
            let first = (state * batch + text) * length * 48;
            let got = &output.hidden_states[first..first + length * 48];
            let worst = error(expected, got);
            assert!(worst < TOLERANCE, "hidden state {state}: {worst:e}");
        }
    }
}

/// The likeliest id each time, as the oracle's.
#[test]
fn greedy() {
    let checkpoint = Checkpoint::fixture("llama");
    let model = checkpoint.model();
    let (shape, ids) = checkpoint.ids("input_ids");
    for prompt in ids.chunks_exact(shape[1]) {
        let mut expected = prompt.to_vec();
        for _ in 0..24 {
            let Expected { logits, .. } = plain(&checkpoint).forward(&expected, None);
            let last = logits[logits.len() - 59..].iter().enumerate();
            let highest = last.max_by(|a, b| a.1.total_cmp(b.1));
            expected.extend(highest.map(|(id, _)| id as u32));
        }
        let generation = Generation {
            prompt: prompt.to_vec(),
            max_new_tokens: 24,
            stop_ids: Some(Vec::new()),
            ..Generation::default()
        };
        let options = GeneratorOptions::default();
        let mut generator = ok(Generator::new(&model, vec![generation], &options));
        while !generator.is_finished() {
            ok(generator.step());
        }
        assert_eq!(generator.ids(0), Some(expected.as_slice()));
    }
    // Unless told otherwise a text ends with the config's own id.
    assert_eq!(model.config().eos_token_ids, [2]);
}

/// A head's one map is its difference, bit for bit.
#[test]
fn maps_of_one_term() {
    let checkpoint = Checkpoint::fixture("llama");
    let model = checkpoint.model();
    let ids = random_ids(8, 33, 59);
    let options = DiffLlamaOptions {
        map_layers: vec![1, 0],
        ..DiffLlamaOptions::default()
    };
    for maps in forward(&model, &ids, &[1, 33], &options).maps {
        assert_eq!(maps.shape, [1, 6, 33, 33]);
        let [map] = maps.terms.as_slice() else {
            panic!("{} terms", maps.terms.len())
        };
        assert_eq!(bits(map), bits(&maps.diff));
    }
}

/// A cache keeps the keys of the heads that there are, and no more.
#[test]
fn memory_of_caches() {
    let model = Checkpoint::fixture("llama").model();
    let cache = ok(model.cache(&ModelCacheOptions {
        capacity: 256,
        window: None,
        ..ModelCacheOptions::default()
    }));
    // Of 2 layers and 2 heads k of 8 channels and v of a panel of 16, float32.
    assert_eq!(cache.bytes(), 2 * 2 * (8 + 16) * 256 * 4);
}

fn random(seed: u64, shape: &[usize]) -> (Vec<usize>, Stored) {
    let len = shape.iter().product();
    let values = random_ids(seed, len, 1 << 16);
    let values = values.iter().map(|&x| x as f32 / 1e5 - 0.3);
    (shape.to_vec(), Stored::F32(values.collect()))
}

/// Biases, tied embeddings, heads wider than their share of the channels, functions of the MLP and
/// rotary embeddings of every kind that configurations of Llamas have.
#[test]
fn variants() {
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 32.0,
    };
    let llama3_entries = json!({ "rope_theta": 5e5, "rope_scaling": { "rope_type": "llama3",
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32 } });
    let variants = [
        (json!({}), RopeScaling::Default),
        (json!({ "rms_norm_eps": 0.1 }), RopeScaling::Default),
        (json!({ "tie_word_embeddings": true }), RopeScaling::Default),
        (
            json!({ "attention_bias": true, "mlp_bias": true }),
            RopeScaling::Default,
        ),
        (json!({ "hidden_act": "gelu" }), RopeScaling::Default),
        (
            json!({ "head_dim": 4, "num_attention_heads": 12, "num_key_value_heads": 4 }),
            RopeScaling::Default,
        ),
        (
            json!({ "num_attention_heads": 3, "num_key_value_heads": 1 }),
            RopeScaling::Default,
        ),
        (llama3_entries, llama3),
        (
            json!({ "rope_parameters": { "type": "linear", "factor": 4.0 } }),
            RopeScaling::Linear { factor: 4.0 },
        ),
    ];
    for (entries, scaling) in variants {
        let mut checkpoint = Checkpoint::fixture("llama");
        checkpoint.config = ok(config(&entries));
        let config = checkpoint.config.clone();
        if config.tie_word_embeddings {
            checkpoint.tensors.remove("lm_head.weight");
        }
        let maps = |layer: usize| {
            let attention = [("q", 48), ("k", 16), ("v", 16), ("o", 48)];
            let attention = attention.map(|(map, rows)| (format!("self_attn.{map}_proj"), rows));
            let mlp = [("gate", 64), ("up", 64), ("down", 48)];
            let mlp = mlp.map(|(map, rows)| (format!("mlp.{map}_proj"), rows));
            let maps = attention.into_iter().chain(mlp);
            maps.map(move |(map, rows)| (format!("model.layers.{layer}.{map}.bias"), rows))
        };
        if config.attention_bias {
            for (seed, (name, rows)) in (0..2).flat_map(maps).enumerate() {
                checkpoint
                    .tensors
                    .insert(name, random(seed as u64, &[rows]));
            }
        }
        let ids = random_ids(9, 40, 59);
        let reference = Reference {
            checkpoint: &checkpoint,
            scaling,
            int8: false,
        };
        let expected = reference.forward(&ids, None).logits;
        let got = forward(
            &checkpoint.model(),
            &ids,
            &[1, 40],
            &DiffLlamaOptions::default(),
        );
        let worst = error(&expected, &got.logits);
        assert!(worst < TOLERANCE, "{entries}: {worst:e}");
    }
}

#[test]
fn rope_of_configurations() {
    let rope = |entries: Value| ok(config(&entries)).rope;
    assert_eq!(rope(json!({})).theta, Some(10_000.0));
    assert_eq!(rope(json!({ "rope_theta": 5e5 })).theta, Some(5e5));
    let scaled = rope(json!({ "rope_scaling": { "type": "yarn", "factor": 2.0 } }));
    assert_eq!(
        scaled.scaling.map(|scaling| scaling.rope_type),
        Some(RopeType::Yarn)
    );
    assert_eq!(
        ok(config(&json!({ "hidden_act": "silu" }))).hidden_act,
        HiddenAct::Silu
    );
    let ends = ok(config(
        &json!({ "eos_token_id": [7, 9], "bos_token_id": null }),
    ));
    assert_eq!((ends.eos_token_ids, ends.bos_token_id), (vec![7, 9], None));
}

/// What is wrong is one sentence: the entry or the weight, what was expected, what was given.
#[test]
fn what_is_refused() {
    for (entries, sentence) in [
        (
            json!({ "num_key_value_heads": 4 }),
            "config.num_key_value_heads: expected a number that divides num_attention_heads 6, got 4",
        ),
        (
            json!({ "head_dim": 5 }),
            "config.head_dim: expected an even number, as the rotary embedding turns channels in pairs, got 5",
        ),
        (
            json!({ "mlp_bias": "no" }),
            "config.mlp_bias: expected true or false, got \"no\"",
        ),
        (
            json!({ "model_type": "mistral" }),
            "config.model_type: expected \"llama\", a Llama, got \"mistral\"",
        ),
        (
            json!({ "rope_scaling": { "rope_type": "llama3", "factor": 8 } }),
            "config.rope_scaling.low_freq_factor: expected a number for rope_type llama3, got none",
        ),
        (
            json!({ "quantization_config": { "bits": 4 } }),
            "config.quantization_config: expected none, as quantised checkpoints are not read, got {\"bits\":4}",
        ),
    ] {
        assert_eq!(refusal(config(&entries)), ("FILE", sentence.to_owned()));
    }
    let checkpoint = Checkpoint::fixture("llama");
    let refused = |entries: &Value, checkpoint: &Checkpoint| {
        let config = ok(config(entries));
        refusal(DiffLlama::new(&config, &checkpoint.weights()))
    };
    for (entries, sentence) in [
        (
            json!({ "num_hidden_layers": 3 }),
            "weights.model.layers.2.self_attn.q_proj.weight: expected a tensor of shape [48, 48], got none",
        ),
        (
            json!({ "num_key_value_heads": 3 }),
            "weights.model.layers.0.self_attn.k_proj.weight: expected a tensor of shape [24, 48], got [16, 48]",
        ),
        (
            json!({ "mlp_bias": true }),
            "weights.model.layers.0.mlp.gate_proj.bias: expected a tensor of shape [64], got none",
        ),
    ] {
        assert_eq!(
            refused(&entries, &checkpoint),
            ("FILE", sentence.to_owned())
        );
    }
    let mut biased = Checkpoint::fixture("llama");
    let bias = "model.layers.1.mlp.up_proj.bias".to_owned();
    biased.tensors.insert(bias, random(1, &[64]));
    assert_eq!(
        refused(&json!({}), &biased).1,
        "weights.model.layers.1.mlp.up_proj.bias: expected only weights that the model has, in its modules, \
         got model.layers.1.mlp.up_proj.bias"
    );
    // Weights of a DIFF Llama under a plain one's name.
    assert_eq!(
        refused(&json!({}), &Checkpoint::fixture("diffllama_gqa")).1,
        "config.model_type: expected \"diffllama\", as the weights have λ (model.layers.0.self_attn.lambda_k1), \
         got \"llama\""
    );
}
