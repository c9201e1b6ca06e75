//! diff-mlx: its configuration, its names, and what is refused of it.

use crate::common::{Checkpoint, logits, notices, ok, refusal};
use diffattn_nn::{DecoderAttention, DiffLlama, DiffLlamaConfig};
use serde_json::{Value, json};

fn read(change: impl FnOnce(&mut Value)) -> Result<DiffLlamaConfig, diffattn::Error> {
    let text = Checkpoint::fixture("diff_mlx").text("config.json");
    let mut config = ok(serde_json::from_str::<Value>(&text));
    change(&mut config);
    DiffLlamaConfig::from_diff_mlx_json(&config.to_string())
}

fn without(config: &mut Value, key: &str) {
    let sizes = config["model"].as_object_mut();
    sizes.unwrap_or_else(|| panic!("an object")).remove(key);
}

#[test]
fn a_configuration() {
    let config = ok(read(|_| ()));
    assert_eq!(config.kind, DecoderAttention::Interleaved);
    assert_eq!((config.vocab_size, config.hidden_size), (97, 48));
    assert_eq!((config.num_heads(), config.head_dim), (2, 12));
    assert_eq!(
        (config.num_hidden_layers, config.intermediate_size),
        (3, 64)
    );
    assert_eq!(
        (config.num_attention_heads, config.num_key_value_heads),
        (4, 4)
    );
    assert_eq!(config.max_position_embeddings, 128);
    assert!(config.tie_word_embeddings && config.eos_token_ids.is_empty());
    let plain = ok(read(|config| {
        for key in [
            "rope_base",
            "rms_eps",
            "tie_embeddings",
            "block_size",
            "amp_dtype",
        ] {
            without(config, key);
        }
    }));
    assert_eq!((plain.rms_norm_eps, plain.rope.theta), (1e-5, Some(1e4)));
    assert_eq!(plain.max_position_embeddings, 2048);
}

#[test]
fn what_a_configuration_is_refused_for() {
    let changed = |key: &str, value: Value| refusal(read(|config| config["model"][key] = value));
    for (key, value, expected) in [
        (
            "n_heads_vanilla",
            json!(3),
            "an even number, as two heads make one difference, got 3",
        ),
        (
            "qk_head_dim",
            json!(11),
            "an even number, as the rotary embedding turns channels in pairs, got 11",
        ),
        (
            "tie_embeddings",
            json!(false),
            "true, as there is no other head, got false",
        ),
        ("rms_eps", json!(-1.0), "0 or a positive number, got -1.0"),
        (
            "dim",
            json!("wide"),
            "a whole number of at least 1, got \"wide\"",
        ),
        ("rope_base", json!(true), "a number, got true"),
    ] {
        let sentence = format!("config.model.{key}: expected {expected}");
        assert_eq!(changed(key, value), ("FILE", sentence));
    }
    let (code, sentence) = changed("rope_base", json!(-1.0));
    assert_eq!(code, "FILE");
    assert!(
        sentence.starts_with("config.model.rope_base: expected "),
        "{sentence}"
    );
    for key in [
        "dim",
        "n_layers",
        "qk_head_dim",
        "vocab_size",
        "mlp_intermediate",
    ] {
        let (code, sentence) = refusal(read(|config| without(config, key)));
        let expected =
            format!("config.model.{key}: expected a whole number of at least 1, got none");
        assert_eq!((code, sentence), ("FILE", expected));
    }
    let (code, sentence) = refusal(read(|config| without(config, "n_heads_vanilla")));
    assert_eq!(code, "FILE");
    assert!(
        sentence.starts_with(
            "config.model: expected an object with n_heads_vanilla, as diff-mlx has it"
        ),
        "{sentence}"
    );
}

/// Older files have no prefix, newer ones the state of the optimizer beside the weights.
#[test]
fn names() {
    let checkpoint = Checkpoint::fixture("diff_mlx");
    assert_eq!(notices(&checkpoint), [""; 0]);
    let mut older = Checkpoint::fixture("diff_mlx");
    older.tensors = std::mem::take(&mut older.tensors)
        .into_iter()
        .map(|(name, tensor)| (name.replacen("model.", "", 1), tensor))
        .collect();
    assert_eq!(logits(&older), logits(&checkpoint));
    assert_eq!(
        notices(&older),
        [
            "names of tensors lack the prefix model., as a base model's do: it is read as if it were there"
        ]
    );
    let mut trained = Checkpoint::fixture("diff_mlx");
    for (name, (shape, stored)) in checkpoint.tensors.clone() {
        let name = name.replacen("model.", "opt.", 1);
        trained.tensors.insert(format!("{name}.m"), (shape, stored));
    }
    assert_eq!(logits(&trained), logits(&checkpoint));
    assert_eq!(notices(&trained), [""; 0]);
}

#[test]
fn weights_that_do_not_fit() {
    let refused = |change: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = Checkpoint::fixture("diff_mlx");
        change(&mut checkpoint);
        refusal(DiffLlama::new(&checkpoint.config, &checkpoint.weights()))
    };
    // (The file's names, also of what it has not.)
    for name in [
        "model.tok_embed.weight",
        "model.blocks.1.attn.subln.scale",
        "model.blocks.2.mlp.gate.weight",
        "model.blocks.0.norm_mlp.scale",
        "model.final_norm.scale",
    ] {
        let (code, sentence) = refused(&|checkpoint| {
            checkpoint.tensors.remove(name);
        });
        assert_eq!(code, "FILE");
        assert!(
            sentence.starts_with(&format!("weights.{name}: expected a tensor of shape [")),
            "{sentence}"
        );
    }
    // No map has a place for a bias.
    let bias = "model.blocks.0.attn.q_proj.bias";
    let (_, sentence) = refused(&|checkpoint| {
        let norm = checkpoint.tensors["model.blocks.0.norm_mlp.scale"].clone();
        checkpoint.tensors.insert(bias.to_owned(), norm);
    });
    assert_eq!(
        sentence,
        format!(
            "weights.{bias}: expected only weights that the model has, in its modules, got {bias}"
        )
    );
}
