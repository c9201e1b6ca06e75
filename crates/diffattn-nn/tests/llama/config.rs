//! config.json and generation_config.json: every spelling, and what is refused.

use crate::common::{Checkpoint, ok, refusal};
use diffattn::{RopeScaling, RopeType};
use diffattn_nn::{DecoderAttention, DiffLlama, DiffLlamaConfig, HiddenAct};
use serde_json::{Value, json};

fn parsed(entries: &Value) -> DiffLlamaConfig {
    ok(DiffLlamaConfig::from_json(&with_type(entries)))
}

fn with_type(entries: &Value) -> String {
    let mut entries = entries.clone();
    entries["model_type"] = json!("diffllama");
    entries.to_string()
}

fn refused(entries: &Value) -> String {
    let (code, sentence) = refusal(DiffLlamaConfig::from_json(&with_type(entries)));
    assert_eq!(code, "FILE");
    sentence
}

#[test]
fn defaults_are_those_of_hugging_face() {
    let config = parsed(&json!({}));
    assert_eq!(
        (
            config.vocab_size,
            config.hidden_size,
            config.intermediate_size
        ),
        (32_000, 2048, 8192)
    );
    assert_eq!(
        (
            config.num_hidden_layers,
            config.num_attention_heads,
            config.num_key_value_heads
        ),
        (16, 32, 32)
    );
    assert_eq!((config.head_dim, config.num_heads()), (64, 16));
    assert_eq!((config.rms_norm_eps, config.lambda_std_dev), (1e-5, 0.1));
    assert!(!config.attention_bias && !config.tie_word_embeddings);
    assert_eq!(config.max_position_embeddings, 2048);
    assert_eq!(
        (config.rope.theta, config.rope.scaling),
        (Some(10_000.0), None)
    );
    assert_eq!(config.bos_token_id, Some(1));
    assert_eq!((config.eos_token_ids, config.pad_token_id), (vec![2], None));
    let narrow = parsed(&json!({ "num_attention_heads": 4, "hidden_size": 48 }));
    assert_eq!((narrow.num_key_value_heads, narrow.head_dim), (4, 12));
    let wide = parsed(&json!({ "head_dim": 128, "num_key_value_heads": null }));
    assert_eq!((wide.head_dim, wide.num_key_value_heads), (128, 32));
}

#[test]
fn names_of_the_mlps_function() {
    let act = |name: &str| parsed(&json!({ "hidden_act": name })).hidden_act;
    assert_eq!(parsed(&json!({})).hidden_act, HiddenAct::Silu);
    for (names, expected) in [
        (&["silu", "swish"][..], HiddenAct::Silu),
        (&["gelu", "gelu_python"][..], HiddenAct::Gelu),
        (
            &[
                "gelu_new",
                "gelu_fast",
                "gelu_accurate",
                "gelu_pytorch_tanh",
                "gelu_python_tanh",
            ][..],
            HiddenAct::GeluTanh,
        ),
    ] {
        assert!(names.iter().all(|name| act(name) == expected));
        assert_eq!(act(expected.name()), expected);
    }
}

#[test]
fn spellings_of_rope() {
    let llama3 = RopeScaling {
        rope_type: RopeType::Llama3,
        factor: Some(8.0),
        low_freq_factor: Some(1.0),
        high_freq_factor: Some(4.0),
        original_max_position_embeddings: Some(32.0),
        ..RopeScaling::default()
    };
    let entries = |key: &str| {
        json!({ key: "llama3", "factor": 8, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32 })
    };
    for (config, theta) in [
        (
            json!({ "rope_theta": 5e5, "rope_scaling": entries("rope_type") }),
            5e5,
        ),
        (
            json!({ "rope_theta": 500_000, "rope_scaling": entries("type") }),
            5e5,
        ),
        (json!({ "rope_parameters": entries("rope_type") }), 1e4),
        (
            json!({ "rope_scaling": null, "rope_parameters": entries("rope_type") }),
            1e4,
        ),
        (
            json!({ "rope_scaling": {}, "rope_theta": 7, "rope_parameters": entries("type") }),
            7.0,
        ),
    ] {
        let rope = parsed(&config).rope;
        assert_eq!(
            (rope.theta, rope.scaling),
            (Some(theta), Some(llama3)),
            "{config}"
        );
        assert_eq!(rope.max_position_embeddings, Some(2048.0));
    }
    for (config, theta) in [
        (json!({ "rope_theta": 3.0 }), 3.0),
        (json!({ "rope_theta": 3.0, "rope_scaling": null }), 3.0),
        (
            json!({ "rope_parameters": { "rope_theta": 4.0, "rope_type": "default" } }),
            4.0,
        ),
        (
            json!({ "rope_theta": 3.0, "rope_parameters": { "rope_theta": 4.0 } }),
            4.0,
        ),
        (json!({ "rope_scaling": { "type": "default" } }), 1e4),
    ] {
        let rope = parsed(&config).rope;
        assert_eq!((rope.theta, rope.scaling), (Some(theta), None), "{config}");
    }
    let linear = parsed(&json!({ "rope_scaling": { "type": "linear", "factor": 2 } })).rope;
    let factor = linear
        .scaling
        .map(|scaling| (scaling.rope_type, scaling.factor));
    assert_eq!(factor, Some((RopeType::Linear, Some(2.0))));
    let yarn = parsed(&json!({ "original_max_position_embeddings": 512,
        "rope_parameters": { "rope_type": "yarn", "factor": 4.0, "beta_fast": 16, "truncate": false } }));
    let expected = RopeScaling {
        rope_type: RopeType::Yarn,
        factor: Some(4.0),
        beta_fast: Some(16.0),
        truncate: Some(false),
        original_max_position_embeddings: Some(512.0),
        ..RopeScaling::default()
    };
    assert_eq!(yarn.rope.scaling, Some(expected));
}

#[test]
fn ids_that_end_a_text() {
    for (eos, expected) in [
        (json!(7), vec![7]),
        (json!([3, 4]), vec![3, 4]),
        (json!([]), vec![]),
        (Value::Null, vec![]),
        (json!(-1), vec![]),
    ] {
        assert_eq!(
            parsed(&json!({ "eos_token_id": eos })).eos_token_ids,
            expected
        );
    }
    let config = || parsed(&json!({ "eos_token_id": 5, "bos_token_id": null, "pad_token_id": 9 }));
    for (generation, expected) in [
        (json!({ "eos_token_id": [6, 7] }), vec![6, 7]),
        (json!({ "eos_token_id": 8 }), vec![8]),
        (
            json!({ "eos_token_id": null, "max_new_tokens": 3 }),
            vec![5],
        ),
        (json!({}), vec![5]),
    ] {
        let config = ok(config().with_generation_config(&generation.to_string()));
        assert_eq!(config.eos_token_ids, expected);
        assert_eq!((config.bos_token_id, config.pad_token_id), (None, Some(9)));
    }
    let text = json!({ "eos_token_id": ["x"] }).to_string();
    assert_eq!(
        refusal(config().with_generation_config(&text)).1,
        "generation_config.eos_token_id: expected a token id, a list of them or null, got \"x\""
    );
}

#[test]
fn refusals_name_the_key() {
    for (entries, sentence) in [
        (
            json!({ "hidden_size": "256" }),
            "config.hidden_size: expected a whole number of at least 1, got \"256\"",
        ),
        (
            json!({ "hidden_size": 0 }),
            "config.hidden_size: expected a whole number of at least 1, got 0",
        ),
        (
            json!({ "vocab_size": -4 }),
            "config.vocab_size: expected a whole number of at least 1, got -4",
        ),
        (
            json!({ "vocab_size": 1.5 }),
            "config.vocab_size: expected a whole number of at least 1, got 1.5",
        ),
        (
            json!({ "num_hidden_layers": [2] }),
            "config.num_hidden_layers: expected a whole number of at least 1, got [2]",
        ),
        (
            json!({ "num_attention_heads": 7, "num_key_value_heads": 7, "head_dim": 4 }),
            "config.num_attention_heads: expected an even number, as two heads make one difference, got 7",
        ),
        (
            json!({ "num_attention_heads": 8, "num_key_value_heads": 3 }),
            "config.num_key_value_heads: expected a number that divides num_attention_heads 8, got 3",
        ),
        (
            json!({ "head_dim": 3 }),
            "config.head_dim: expected an even number, as the rotary embedding turns channels in pairs, got 3",
        ),
        (
            json!({ "head_dim": u64::MAX - 1 }),
            "config.head_dim: expected a size that fits this machine, got 18446744073709551614",
        ),
        (
            json!({ "num_attention_heads": 4000, "hidden_size": 8 }),
            "config.head_dim: expected 1 or more, got 0",
        ),
        (
            json!({ "rms_norm_eps": -1e-5 }),
            "config.rms_norm_eps: expected 0 or a positive number, got -0.00001",
        ),
        (
            json!({ "rms_norm_eps": "1e-5" }),
            "config.rms_norm_eps: expected a number, got \"1e-5\"",
        ),
        (
            json!({ "attention_bias": 1 }),
            "config.attention_bias: expected true or false, got 1",
        ),
        (
            json!({ "hidden_act": "relu" }),
            "config.hidden_act: expected one of \"silu\", \"gelu\", \"gelu_pytorch_tanh\", \"swish\", \"gelu_python\", \
             \"gelu_new\", \"gelu_fast\", \"gelu_accurate\", \"gelu_python_tanh\", got \"relu\"",
        ),
        (
            json!({ "bos_token_id": "<s>" }),
            "config.bos_token_id: expected a token id or null, got \"<s>\"",
        ),
        (
            json!({ "eos_token_id": [1, -2] }),
            "config.eos_token_id: expected a token id, a list of them or null, got -2",
        ),
        (
            json!({ "partial_rotary_factor": 0.5 }),
            "config.partial_rotary_factor: expected 1, as the whole head turns, got 0.5",
        ),
        (
            json!({ "quantization_config": { "bits": 4 } }),
            "config.quantization_config: expected none, as quantised checkpoints are not read, got {\"bits\":4}",
        ),
        (
            json!({ "rope_scaling": 4 }),
            "config.rope_scaling: expected an object or null, got 4",
        ),
        (
            json!({ "rope_scaling": { "type": "longrope", "factor": 2 } }),
            "config.rope_scaling.type: expected one of \"default\", \"linear\", \"llama3\", \"yarn\", \"dynamic\", got \"longrope\"",
        ),
        (
            json!({ "rope_scaling": { "type": "dynamic" } }),
            "config.rope_scaling.factor: expected a number for rope_type dynamic, got none",
        ),
        (
            json!({ "rope_parameters": { "rope_type": 3 } }),
            "config.rope_parameters.rope_type: expected one of \"default\", \"linear\", \"llama3\", \"yarn\", \"dynamic\", got 3",
        ),
        (
            json!({ "rope_scaling": { "type": "linear" } }),
            "config.rope_scaling.factor: expected a number for rope_type linear, got none",
        ),
        (
            json!({ "rope_parameters": { "rope_type": "linear", "factor": -1 } }),
            "config.rope_parameters.factor: expected a finite number above 0, got -1",
        ),
        (
            json!({ "rope_theta": 0 }),
            "config.rope_theta: expected a finite number above 0, got 0",
        ),
        (
            json!({ "rope_parameters": { "rope_theta": "x" } }),
            "config.rope_parameters.rope_theta: expected a number, got \"x\"",
        ),
    ] {
        assert_eq!(refused(&entries), sentence);
    }
    let long = refused(&json!({ "hidden_size": "é".repeat(1000) }));
    assert!(long.len() < 250 && long.ends_with('…'), "{long}");
}

#[test]
fn other_architectures_and_texts() {
    for (text, sentence) in [
        (
            "{\"model_type\": \"llama\"}",
            "config.model_type: expected \"diffllama\", a DIFF Llama, got \"llama\"",
        ),
        (
            "{\"architecture\": \"vit_dwee_patch16_reg1_gap_256\"}",
            "config.model_type: expected \"diffllama\", a DIFF Llama, got the configuration of a DIFF vision transformer: DiffViT loads it, and the command classify",
        ),
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
            "config: expected a JSON object, got a Git LFS pointer, which only stands for the file: \"git lfs pull\" fetches it",
        ),
        (
            "{}",
            "config.model_type: expected \"diffllama\", a DIFF Llama, got none",
        ),
        ("[1]", "config: expected a JSON object, got [1]"),
    ] {
        assert_eq!(
            refusal(DiffLlamaConfig::from_json(text)),
            ("FILE", sentence.to_owned())
        );
    }
    let deep = "[".repeat(100_000);
    for text in ["", "{", "{\"a\": nan}", "\u{0}", deep.as_str()] {
        let (code, sentence) = refusal(DiffLlamaConfig::from_json(text));
        assert_eq!(code, "FILE");
        assert!(
            sentence.starts_with("config: expected a JSON object, got "),
            "{sentence}"
        );
    }
    // Windows editors put a byte order mark before it.
    let marked = "\u{feff}{\"model_type\": \"diffllama\"}";
    let config = ok(DiffLlamaConfig::from_json(marked));
    let config = ok(config.with_generation_config("\u{feff}{\"eos_token_id\": 7}"));
    assert_eq!(config.eos_token_ids, [7]);
}

/// Sizes that no checkpoint backs are refused before anything is made of them.
#[test]
fn sizes_without_weights() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let huge = usize::MAX / 4;
    let change = |change: &dyn Fn(&mut DiffLlamaConfig)| {
        let mut config = checkpoint.config.clone();
        change(&mut config);
        refusal(DiffLlama::new(&config, &checkpoint.weights())).1
    };
    for (sentence, name) in [
        (
            change(&|config| config.vocab_size = huge),
            "weights.model.embed_tokens.weight: ",
        ),
        (
            change(&|config| config.hidden_size = huge),
            "weights.model.embed_tokens.weight: ",
        ),
        (
            change(&|config| config.intermediate_size = huge),
            "weights.model.layers.0.mlp.gate_proj.weight: ",
        ),
        (
            change(&|config| config.num_hidden_layers = huge),
            "weights.model.layers.3.self_attn.q_proj.weight: ",
        ),
        (
            change(&|config| config.head_dim = 16),
            "weights.model.layers.0.self_attn.q_proj.weight: ",
        ),
        (
            change(&|config| config.num_key_value_heads = 8),
            "weights.model.layers.0.self_attn.k_proj.weight: ",
        ),
        (
            change(&|config| config.attention_bias = true),
            "weights.model.layers.0.self_attn.q_proj.bias: ",
        ),
        (
            change(&|config| config.num_attention_heads = huge & !7),
            "config.head_dim: ",
        ),
        (
            change(&|config| config.num_hidden_layers = 0),
            "config.num_hidden_layers: ",
        ),
        (
            change(&|config| config.rope.theta = Some(f64::NAN)),
            "config.rope.theta: ",
        ),
    ] {
        assert!(sentence.starts_with(name), "{sentence}");
    }
}

/// A plain Llama's entries are the same but for their defaults, and its heads are not in pairs.
#[test]
fn a_plain_llama() {
    let llama = |entries: Value| {
        let mut entries = entries;
        entries["model_type"] = json!("llama");
        DiffLlamaConfig::from_llama_json(&entries.to_string())
    };
    let config = ok(llama(json!({})));
    assert_eq!(config.kind, DecoderAttention::Plain);
    assert_eq!(
        (
            config.vocab_size,
            config.hidden_size,
            config.intermediate_size,
            config.num_hidden_layers,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        ),
        (32_000, 4096, 11_008, 32, 32, 32, 128)
    );
    assert_eq!(config.rms_norm_eps, 1e-6);
    assert_eq!((config.num_heads(), config.mlp_bias), (32, false));
    let odd = json!({ "hidden_size": 48, "num_attention_heads": 3, "mlp_bias": true });
    let odd = ok(llama(odd));
    assert_eq!((odd.num_heads(), odd.head_dim, odd.mlp_bias), (3, 16, true));
    let (code, sentence) = refusal(llama(json!({ "num_key_value_heads": 3 })));
    assert_eq!(code, "FILE");
    assert_eq!(
        sentence,
        "config.num_key_value_heads: expected a number that divides num_attention_heads 32, got 3"
    );
    let (_, sentence) = refusal(DiffLlamaConfig::from_llama_json(&with_type(&json!({}))));
    assert_eq!(
        sentence,
        "config.model_type: expected \"llama\", a Llama, got \"diffllama\""
    );
    // A DIFF Llama has no biases there, whatever its configuration says.
    assert!(!parsed(&json!({ "mlp_bias": true })).mlp_bias);
}
