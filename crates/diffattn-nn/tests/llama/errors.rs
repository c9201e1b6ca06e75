//! What is refused: weights, ids, options and outputs that do not fit.

use crate::common::{Checkpoint, Stored, bits, forward, logits, notices, ok, refusal};
use diffattn_nn::{
    DiffLlama, DiffLlamaOptions, DiffLlamaOutputs, Logits, ModelCacheOptions, TokenIds,
};

#[test]
fn weights() {
    let sentence = |change: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = Checkpoint::fixture("diffllama_bias");
        change(&mut checkpoint);
        let (code, sentence) = refusal(DiffLlama::new(&checkpoint.config, &checkpoint.weights()));
        assert_eq!(code, "FILE", "{sentence}");
        sentence
    };
    let names: Vec<String> = Checkpoint::fixture("diffllama_bias")
        .tensors
        .into_keys()
        .collect();
    for name in &names {
        let missing = sentence(&|checkpoint| drop(checkpoint.tensors.remove(name)));
        assert!(
            missing.starts_with(&format!("weights.{name}: expected a tensor of shape [")),
            "{missing}"
        );
        assert!(missing.ends_with("got none"), "{missing}");
        let misshapen = sentence(&|checkpoint| {
            if let Some((shape, Stored::F32(data))) = checkpoint.tensors.get_mut(name) {
                shape[0] += 1;
                data.resize(shape.iter().product(), 0.0);
            }
        });
        assert!(
            misshapen.starts_with(&format!("weights.{name}: expected a tensor of shape [")),
            "{misshapen}"
        );
    }
    // What has no place in the modules that the model has would change its numbers.
    for name in [
        "model.layers.0.mlp.up_proj.bias",
        "model.layers.0.self_attn.groupnorm.weight",
        "model.layers.2.self_attn.q_proj.lora_A.weight",
        "model.embed_tokens.scale",
        "lm_head.bias",
    ] {
        let unknown = sentence(&|checkpoint| {
            let vector = (vec![1], Stored::F32(vec![0.0]));
            checkpoint.tensors.insert(name.to_owned(), vector);
        });
        assert!(
            unknown.starts_with(&format!("weights.{name}: expected only")),
            "{unknown}"
        );
    }
    let twice = sentence(&|checkpoint| {
        let copy = checkpoint.tensors["model.norm.weight"].clone();
        let name = "module._orig_mod.model.norm.weight";
        checkpoint.tensors.insert(name.to_owned(), copy);
    });
    assert_eq!(
        twice,
        "weights.module._orig_mod.model.norm.weight: expected one weight of this name, got model.norm.weight, too"
    );
    // Weights whose elements are fewer than their shape says.
    let mut checkpoint = Checkpoint::fixture("diffllama_mha");
    if let Some((_, Stored::F32(data))) = checkpoint.tensors.get_mut("model.norm.weight") {
        data.pop();
    }
    let short = refusal(DiffLlama::new(&checkpoint.config, &checkpoint.weights()));
    assert_eq!(short.0, "SHAPE");
    assert!(
        short.1.starts_with("weights.model.norm.weight: "),
        "{}",
        short.1
    );
}

/// What old checkpoints have besides: nobody is told.
#[test]
fn frequencies() {
    let mut checkpoint = Checkpoint::fixture("diffllama_mha");
    let expected = logits(&checkpoint);
    let vector = (vec![4], Stored::F32(vec![0.0; 4]));
    let name = "model.layers.1.self_attn.rotary_emb.inv_freq";
    checkpoint.tensors.insert(name.to_owned(), vector);
    assert_eq!(bits(&expected), bits(&logits(&checkpoint)));
    assert_eq!(notices(&checkpoint), [""; 0]);
}

#[test]
fn ids() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let model = checkpoint.model();
    let options = DiffLlamaOptions::default();
    let sentence = |ids: TokenIds<'_>| refusal(model.forward(ids, None, &options));
    for (refused, expected) in [
        (
            sentence(TokenIds::u32(&[1, 97], &[1, 2])),
            ("OPTION", "ids: expected ids from 0 to 96, got 97 at 1"),
        ),
        (
            sentence(TokenIds::u32(&[u32::MAX], &[1, 1])),
            (
                "OPTION",
                "ids: expected ids from 0 to 96, got 4294967295 at 0",
            ),
        ),
        (
            sentence(TokenIds::i32(&[3, 2, -1], &[1, 3])),
            ("OPTION", "ids: expected ids from 0 to 96, got -1 at 2"),
        ),
        (
            sentence(TokenIds::i32(&[i32::MIN], &[1, 1])),
            (
                "OPTION",
                "ids: expected ids from 0 to 96, got -2147483648 at 0",
            ),
        ),
        (
            sentence(TokenIds::u32(&[1, 2], &[2])),
            ("SHAPE", "ids: expected 2 axes, [B, L], got [2]"),
        ),
        (
            sentence(TokenIds::u32(&[1, 2], &[1, 3])),
            ("SHAPE", "ids: expected 3 elements for shape [1, 3], got 2"),
        ),
        (
            sentence(TokenIds::u32(&[], &[usize::MAX, 2])),
            (
                "SHAPE",
                &format!(
                    "ids: expected a shape whose element count fits this machine, got [{}, 2]",
                    usize::MAX
                ),
            ),
        ),
    ] {
        assert_eq!((refused.0, refused.1.as_str()), expected);
    }
    let unsigned = forward(&model, &[5, 96, 0], &[1, 3], &options);
    let signed = ok(model.forward(TokenIds::i32(&[5, 96, 0], &[1, 3]), None, &options));
    assert_eq!(unsigned, signed);
}

#[test]
fn nothing_to_do() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let model = checkpoint.model();
    let options = DiffLlamaOptions {
        hidden_states: true,
        map_layers: vec![1],
        ..DiffLlamaOptions::default()
    };
    for shape in [[0, 3], [2, 0], [0, 0]] {
        let output = forward(&model, &[], &shape, &options);
        assert_eq!(output.logits_shape, [shape[0], shape[1], 97]);
        assert!(output.logits.is_empty() && output.hidden_states.is_empty());
        assert!(output.maps[0].diff.is_empty());
    }
    let mut cache = [ok(model.cache(&ModelCacheOptions::default()))];
    let plain = DiffLlamaOptions::default();
    ok(model.forward(TokenIds::u32(&[], &[1, 0]), Some(&mut cache), &plain));
    assert!(cache[0].is_empty());
    let last = DiffLlamaOptions {
        logits: Logits::Last,
        ..plain.clone()
    };
    assert_eq!(
        refusal(model.forward(TokenIds::u32(&[], &[1, 0]), None, &last)).0,
        "SHAPE"
    );
    // Only the caches are wanted.
    let none = DiffLlamaOptions {
        logits: Logits::None,
        ..plain.clone()
    };
    let output = ok(model.forward(TokenIds::u32(&[4, 5], &[1, 2]), Some(&mut cache), &none));
    assert!(output.logits.is_empty());
    let rest = ok(model.forward(TokenIds::u32(&[6], &[1, 1]), Some(&mut cache), &plain));
    let whole = forward(&model, &[4, 5, 6], &[1, 3], &plain);
    assert_eq!(bits(&rest.logits), bits(&whole.logits[2 * 97..]));
}

#[test]
fn options_caches_and_outputs() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let model = checkpoint.model();
    let other = Checkpoint::fixture("diffllama_mha").model();
    let cache = |window| {
        ok(model.cache(&ModelCacheOptions {
            capacity: 0,
            window,
            ..ModelCacheOptions::default()
        }))
    };
    let ids = || TokenIds::u32(&[1, 2], &[2, 1]);
    let plain = DiffLlamaOptions::default();
    let maps = DiffLlamaOptions {
        map_layers: vec![0],
        ..plain.clone()
    };
    let windowed = DiffLlamaOptions {
        window: Some(4),
        ..plain.clone()
    };
    let mut caches = [cache(None), cache(Some(5))];
    let foreign = ok(other.cache(&ModelCacheOptions::default()));
    let mut mixed = [cache(None), foreign];
    let mut pair = [cache(None), cache(None)];
    for (refused, start) in [
        (
            refusal(model.forward(ids(), Some(&mut caches[..1]), &plain)),
            "caches: expected 2",
        ),
        (
            refusal(model.forward(ids(), Some(&mut caches), &plain)),
            "caches: expected caches of one window",
        ),
        (
            refusal(model.forward(ids(), Some(&mut mixed), &plain)),
            "cache: expected one that this model made",
        ),
        (
            refusal(model.forward(ids(), Some(&mut pair), &windowed)),
            "window: expected none",
        ),
        (
            refusal(model.maps(ids(), 3, &plain)),
            "map_layers: expected layers from 0 to 2, got 3",
        ),
        (
            refusal(model.forward(
                ids(),
                None,
                &DiffLlamaOptions {
                    window: Some(0),
                    ..plain.clone()
                },
            )),
            "window: ",
        ),
        (
            refusal(model.cache(&ModelCacheOptions {
                capacity: 0,
                window: Some(0),
                ..ModelCacheOptions::default()
            })),
            "window: ",
        ),
        (
            refusal(model.cache(&ModelCacheOptions {
                capacity: usize::MAX,
                window: None,
                ..ModelCacheOptions::default()
            })),
            "capacity: ",
        ),
    ] {
        assert!(
            refused.1.starts_with(start),
            "{} instead of {start}",
            refused.1
        );
    }
    assert!(pair.iter().all(|cache| cache.is_empty()));

    let (mut short, mut fits) = (vec![0.0; 2 * 97 - 1], vec![0.0; 2 * 97]);
    let job = || ok(model.forward_job(ids(), None, &maps));
    assert_eq!(
        (job().logits_shape(), job().map_shape(0)),
        ([2, 1, 97], [2, 4, 1, 1])
    );
    let refused = refusal(job().into_work(DiffLlamaOutputs {
        logits: &mut short,
        ..DiffLlamaOutputs::default()
    }));
    assert!(refused.1.starts_with("logits: "), "{}", refused.1);
    let refused = refusal(job().into_work(DiffLlamaOutputs {
        logits: &mut fits,
        ..DiffLlamaOutputs::default()
    }));
    assert!(refused.1.starts_with("maps: "), "{}", refused.1);
}
