//! Motif: its configuration, what is refused of it, and what its layers are.

use crate::common::{Checkpoint, forward, logits, notices, ok, random_ids, refusal};
use diffattn_nn::{DecoderAttention, DiffLlama, DiffLlamaConfig, DiffLlamaOptions, HiddenAct};
use serde_json::{Value, json};

fn read(change: impl FnOnce(&mut Value)) -> Result<DiffLlamaConfig, diffattn::Error> {
    let text = Checkpoint::fixture("motif_gda").text("config.json");
    let mut config = ok(serde_json::from_str::<Value>(&text));
    change(&mut config);
    DiffLlamaConfig::from_motif_json(&config.to_string())
}

fn without(config: &mut Value, keys: &[&str]) {
    for key in keys {
        config
            .as_object_mut()
            .unwrap_or_else(|| panic!("an object"))
            .remove(*key);
    }
}

#[test]
fn a_configuration() {
    let config = ok(read(|_| ()));
    assert_eq!(config.kind, DecoderAttention::Grouped);
    assert_eq!(config.hidden_act, HiddenAct::PolyNorm);
    assert_eq!(
        (config.num_attention_heads, config.num_noise_heads),
        (10, 2)
    );
    assert_eq!((config.num_heads(), config.head_dim), (8, 12));
    assert_eq!(
        (config.rms_norm_eps, config.attn_rms_norm_eps),
        (1e-6, 1e-5)
    );
    assert_eq!(config.rope.theta, Some(1e6));
    let upper = ok(read(|config| config["model_type"] = json!("Motif")));
    assert_eq!(upper, config);
    // Half of the heads are noise heads where nothing else is said.
    let plain = ok(read(|config| {
        without(config, &["num_noise_heads", "k_ratio", "head_dim"]);
        without(config, &["hidden_act", "eos_token_id", "bos_token_id"]);
        without(config, &["rms_norm_eps", "attn_rms_norm_eps", "use_bias"]);
        without(config, &["num_key_value_heads", "tie_word_embeddings"]);
        config["num_attention_heads"] = json!(4);
    }));
    assert_eq!((plain.num_heads(), plain.num_noise_heads), (2, 2));
    assert_eq!((plain.head_dim, plain.num_key_value_heads), (12, 4));
    assert_eq!((plain.rms_norm_eps, plain.attn_rms_norm_eps), (1e-6, 1e-5));
    assert_eq!((plain.bos_token_id, &plain.eos_token_ids), (None, &vec![]));
    assert!(!plain.attention_bias && !plain.mlp_bias && !plain.tie_word_embeddings);
    let biased = ok(read(|config| config["use_bias"] = json!(true)));
    assert!(biased.attention_bias && biased.mlp_bias);
    // Of several ids that end a text, those of the generation's configuration.
    assert_eq!(config.eos_token_ids, [1]);
    let both = Checkpoint::fixture("motif_gda").config;
    assert_eq!(both.eos_token_ids, [1, 5]);
}

#[test]
fn what_a_configuration_may_not_say() {
    for (key, value, sentence) in [
        (
            "k_ratio",
            json!(2),
            "1, as each noise key goes with one signal key, got 2",
        ),
        ("hidden_act", json!("silu"), "\"poly_norm\", got \"silu\""),
        (
            "use_sliding_window",
            json!(true),
            "false, as every token sees all before it, got true",
        ),
        (
            "kv_lora_rank",
            json!(64),
            "none, as later models of the name are others, got 64",
        ),
        (
            "head_dim",
            Value::Null,
            "a whole number of at least 1, as there is num_noise_heads, got none",
        ),
        (
            "hidden_size",
            Value::Null,
            "a whole number of at least 1, got none",
        ),
        (
            "num_noise_heads",
            json!(3),
            "a number below num_attention_heads 10 that divides it, as each goes with as many signal heads, got 3",
        ),
        (
            "num_noise_heads",
            json!(10),
            "a number below num_attention_heads 10 that divides it, as each goes with as many signal heads, got 10",
        ),
        (
            "num_noise_heads",
            Value::Null,
            "an even number of which half divides num_noise_heads 5, as keys go in pairs, got 4",
        ),
        (
            "num_key_value_heads",
            json!(3),
            "an even number of which half divides num_noise_heads 2, as keys go in pairs, got 3",
        ),
        (
            "attn_rms_norm_eps",
            json!(-1),
            "0 or a positive number, got -1",
        ),
        (
            "model_type",
            json!("motif3"),
            "\"motif\" or \"Motif\", got \"motif3\"",
        ),
    ] {
        let (code, got) = refusal(read(|config| config[key] = value.clone()));
        assert_eq!(code, "FILE");
        let named = match (key, &value) {
            ("num_noise_heads", Value::Null) => "num_key_value_heads",
            _ => key,
        };
        assert_eq!(got, format!("config.{named}: expected {sentence}"));
    }
    let (_, odd) = refusal(read(|config| {
        without(config, &["num_noise_heads"]);
        config["num_attention_heads"] = json!(9);
    }));
    assert_eq!(
        odd,
        "config.num_attention_heads: expected an even number, as half of the heads are noise heads, got 9"
    );
    // Each entry that is there must be of its kind.
    for key in ["head_dim", "num_noise_heads", "use_bias", "eos_token_id"] {
        let (code, sentence) = refusal(read(|config| config[key] = json!("eight")));
        assert_eq!(code, "FILE");
        assert!(sentence.starts_with(&format!("config.{key}: expected ")));
    }
}

#[test]
fn weights_that_do_not_fit() {
    let refused = |change: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = Checkpoint::fixture("motif_gda");
        change(&mut checkpoint);
        refusal(DiffLlama::new(&checkpoint.config, &checkpoint.weights()))
    };
    for name in [
        "mlp.act_fn.weight",
        "mlp.act_fn.bias",
        "self_attn.subln.weight",
    ] {
        let name = format!("model.layers.1.{name}");
        let (code, sentence) = refused(&|checkpoint| {
            checkpoint.tensors.remove(&name);
        });
        assert_eq!(code, "FILE");
        assert!(
            sentence.starts_with(&format!("weights.{name}: expected a tensor of shape [")),
            "{sentence}"
        );
    }
    // The way out is wider than the hidden states.
    let out = "model.layers.0.self_attn.o_proj.weight";
    let checkpoint = Checkpoint::fixture("motif_gda");
    assert_eq!(checkpoint.tensors[out].0, [48, 192]);
    let (_, sentence) = refused(&|checkpoint| {
        checkpoint.config.num_noise_heads = 5;
        checkpoint.config.num_key_value_heads = 10;
    });
    assert!(
        sentence.starts_with("weights.model.layers.0."),
        "{sentence}"
    );
}

/// Biases of a file whose configuration has none are used, and it is told.
#[test]
fn biases() {
    let mut checkpoint = Checkpoint::fixture("motif_v1_gqa");
    let with = logits(&checkpoint);
    assert_eq!(notices(&checkpoint), [""; 0]);
    checkpoint.config.attention_bias = false;
    assert_eq!(logits(&checkpoint), with);
    assert_eq!(
        notices(&checkpoint),
        ["config.json says use_bias false, yet there are biases: they are used"]
    );
}

/// λ_init counts the layers from −1, where it is negative.
#[test]
fn lambda_of_the_first_layer() {
    let checkpoint = Checkpoint::fixture("motif_gda");
    let mut other = Checkpoint::fixture("motif_gda");
    let vectors: Vec<String> = (other.tensors.keys())
        .filter(|name| name.starts_with("model.layers.0.self_attn.lambda_"))
        .cloned()
        .collect();
    assert_eq!(vectors.len(), 4);
    for name in vectors {
        other.tensors.remove(&name);
        let zero = crate::common::Stored::F32(vec![0.0; 12]);
        other.tensors.insert(name, (vec![12], zero));
    }
    let ids = random_ids(5, 20, 97);
    let options = DiffLlamaOptions {
        map_layers: vec![0],
        ..DiffLlamaOptions::default()
    };
    let maps = forward(&other.model(), &ids, &[1, 20], &options).maps;
    let [first, second] = maps[0].terms.as_slice() else {
        panic!("two terms")
    };
    // With vectors of zeros λ is λ_init.
    let init = 0.8 - 0.6 * 0.3f32.exp();
    assert!(init < 0.0);
    for ((diff, first), second) in maps[0].diff.iter().zip(first).zip(second) {
        assert!((diff - (first - init * second)).abs() < 1e-6);
    }
    assert_ne!(logits(&checkpoint), logits(&other));
}
