//! Models loaded part by part.

use crate::common::{Checkpoint, Stored, Tensors, bits, forward, logits, notices, ok, refusal};
use diffattn_nn::{
    DiffLlamaLoader, DiffLlamaOptions, ModelLoader, PartWeights, Weight, WeightData, WeightInfo,
};
use std::borrow::Cow;

fn loader(checkpoint: &Checkpoint) -> DiffLlamaLoader {
    let weights = checkpoint.weights();
    let entries: Vec<WeightInfo> = weights
        .iter()
        .map(|(name, tensor)| WeightInfo::of(name, tensor))
        .collect();
    ok(DiffLlamaLoader::new(&checkpoint.config, &entries))
}

fn part<'c>(checkpoint: &'c Checkpoint, entries: &[WeightInfo]) -> PartWeights<'c> {
    entries
        .iter()
        .map(|entry| {
            let (shape, stored) = &checkpoint.tensors[&entry.name];
            let data = match stored {
                Stored::F32(data) => WeightData::F32(Cow::Borrowed(data)),
                Stored::F16(data) => WeightData::F16(Cow::Borrowed(data)),
                Stored::Bf16(data) => WeightData::Bf16(Cow::Borrowed(data)),
                other => panic!("a weight of {other:?}"),
            };
            let shape = shape.clone();
            (entry.name.clone(), Weight { data, shape })
        })
        .collect()
}

/// Whatever the order, and however often a part was begun before.
#[test]
fn parts_in_any_order_make_the_model() {
    for name in ["diffllama_bias", "diffllama_mha"] {
        let checkpoint = Checkpoint::fixture(name);
        let options = DiffLlamaOptions::default();
        let expected = forward(&checkpoint.model(), &[1, 2, 3], &[1, 3], &options);
        let mut loader = loader(&checkpoint);
        let parts = loader.parts().to_vec();
        let is_tied = checkpoint.config.tie_word_embeddings;
        assert_eq!(
            parts.len(),
            checkpoint.config.num_hidden_layers + if is_tied { 2 } else { 3 }
        );
        for (index, entries) in parts.iter().enumerate().rev() {
            let units = ok(loader.load_part(index, part(&checkpoint, entries))).total();
            for steps in 1..units {
                let mut begun = ok(loader.load_part(index, part(&checkpoint, entries)));
                ok(begun.step(steps));
                assert_eq!(begun.done(), steps);
            }
            let (code, sentence) = refusal(loader.model());
            assert_eq!(code, "OPTION");
            assert!(sentence.starts_with("model: expected one with all of its "));
            let mut load = ok(loader.load_part(index, part(&checkpoint, entries)));
            while load.done() < load.total() {
                ok(load.step(1));
            }
        }
        ok(loader.model());
        let model = ok(loader.finish());
        let got = forward(&model, &[1, 2, 3], &[1, 3], &options);
        assert_eq!(bits(&got.logits), bits(&expected.logits));
    }
}

#[test]
fn parts_that_are_not_as_their_entries_said() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let mut loader = loader(&checkpoint);
    let parts = loader.parts().to_vec();
    let (first, last) = (&parts[2], parts.len() - 1);
    let name = &first[0].name;
    let mut missing = part(&checkpoint, first);
    missing.remove(name);
    let (code, sentence) = refusal(loader.load_part(2, missing));
    assert_eq!(code, "FILE");
    assert!(
        sentence.starts_with(&format!("weights.{name}: ")),
        "{sentence}"
    );
    let mut short = part(&checkpoint, first);
    if let Some(weight) = short.get_mut(name) {
        weight.data = WeightData::F32(Cow::Owned(vec![0.0]));
    }
    assert_eq!(refusal(loader.load_part(2, short)).0, "SHAPE");
    let mut narrow = part(&checkpoint, first);
    if let Some(weight) = narrow.get_mut(name) {
        let len = weight.shape.iter().product();
        weight.data = WeightData::F16(Cow::Owned(vec![0; len]));
    }
    assert_eq!(refusal(loader.load_part(2, narrow)).0, "FILE");
    let mut many = part(&checkpoint, first);
    many.extend(part(&checkpoint, &parts[last]));
    assert_eq!(refusal(loader.load_part(2, many)).0, "FILE");
    let none = refusal(loader.load_part(last + 1, PartWeights::new()));
    assert_eq!(none.0, "OPTION");
    ok(ok(loader.load_part(last, part(&checkpoint, &parts[last]))).finish());
    let again = refusal(loader.load_part(last, part(&checkpoint, &parts[last])));
    assert_eq!(
        again.1,
        format!("part: expected one that is not loaded yet, got {last}, which is")
    );
}

const TABLE: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

fn renamed(tensors: &Tensors, rename: impl Fn(&str) -> String) -> Tensors {
    let renamed = |(name, tensor): (&String, &_)| (rename(name), Clone::clone(tensor));
    tensors.iter().map(renamed).collect()
}

/// A head of the file's own wins over a config that ties it; an equal one, and one that is not
/// there, is the table.
#[test]
fn the_head_that_is_there_is_the_head() {
    let mut checkpoint = Checkpoint::fixture("diffllama_gqa");
    let untied = logits(&checkpoint);
    assert_ne!(
        format!("{:?}", checkpoint.tensors[TABLE]),
        format!("{:?}", checkpoint.tensors[HEAD])
    );
    checkpoint.config.tie_word_embeddings = true;
    assert_eq!(bits(&logits(&checkpoint)), bits(&untied));
    assert_eq!(
        notices(&checkpoint),
        [
            "config.json ties the embeddings, yet there is lm_head.weight: the file's own head is used"
        ]
    );
    // Without it: tied.
    let head = checkpoint.tensors.remove(HEAD);
    let tied = logits(&checkpoint);
    assert_ne!(bits(&tied), bits(&untied));
    assert_eq!(notices(&checkpoint), [""; 0]);
    // The same twice is one.
    let table = checkpoint.tensors[TABLE].clone();
    checkpoint.tensors.insert(HEAD.to_owned(), table.clone());
    assert_eq!(bits(&logits(&checkpoint)), bits(&tied));
    // As the head alone.
    checkpoint.tensors.remove(TABLE);
    assert_eq!(bits(&logits(&checkpoint)), bits(&tied));
    assert_eq!(
        notices(&checkpoint),
        ["there are no embeddings: lm_head.weight, to which config.json ties them, is both"]
    );
    // Only where the config ties.
    checkpoint.config.tie_word_embeddings = false;
    let (_, sentence) = refusal(diffattn_nn::DiffLlama::new(
        &checkpoint.config,
        &checkpoint.weights(),
    ));
    assert!(
        sentence.starts_with("weights.model.embed_tokens.weight: "),
        "{sentence}"
    );
    // Of another element type it is another, whatever its values.
    checkpoint.config.tie_word_embeddings = true;
    checkpoint.tensors.insert(TABLE.to_owned(), table);
    if let Some((shape, Stored::F32(values))) = head {
        let narrow = values.iter().map(|&x| half::bf16::from_f32(x).to_bits());
        let narrow = (shape, Stored::Bf16(narrow.collect()));
        checkpoint.tensors.insert(HEAD.to_owned(), narrow);
    }
    assert_ne!(bits(&logits(&checkpoint)), bits(&tied));
}

/// What wraps a model, and a base model's names.
#[test]
fn names_with_prefixes() {
    for name in ["diffllama_bias", "diffllama_mha"] {
        let mut checkpoint = Checkpoint::fixture(name);
        let expected = bits(&logits(&checkpoint));
        let plain = checkpoint.tensors.clone();
        for prefix in [
            "_orig_mod.",
            "module.",
            "base_model.model.",
            "module._orig_mod.module.",
        ] {
            checkpoint.tensors = renamed(&plain, |name| format!("{prefix}{name}"));
            assert_eq!(bits(&logits(&checkpoint)), expected, "{prefix}");
            let [notice] = notices(&checkpoint)
                .try_into()
                .unwrap_or_else(|all| panic!("{all:?}"));
            assert!(notice.contains("prefix"), "{notice}");
            // Parts are read by the file's own names, and errors have them.
            let loader = loader(&checkpoint);
            assert_eq!(loader.parts()[0][0].name, format!("{prefix}{TABLE}"));
        }
        checkpoint.tensors = renamed(&plain, |name| {
            name.replace(".self_attn.", "._orig_mod.self_attn.")
        });
        assert_eq!(bits(&logits(&checkpoint)), expected);
        for prefix in ["", "base_model.model."] {
            checkpoint.tensors = renamed(&plain, |name| {
                format!("{prefix}{}", name.strip_prefix("model.").unwrap_or(name))
            });
            assert_eq!(bits(&logits(&checkpoint)), expected, "{prefix}");
            assert_eq!(
                notices(&checkpoint).len(),
                if prefix.is_empty() { 1 } else { 2 }
            );
        }
    }
}

/// What a checkpoint has besides what the model needs stays unread and is told.
#[test]
fn more_than_the_model_needs() {
    let mut checkpoint = Checkpoint::fixture("diffllama_mha");
    let expected = bits(&logits(&checkpoint));
    for name in [
        "v_head.summary.weight",
        "score.weight",
        "model.layers.01.mlp.up_proj.weight",
        "",
    ] {
        let vector = (vec![1], Stored::F32(vec![0.0]));
        checkpoint.tensors.insert(name.to_owned(), vector);
    }
    assert_eq!(bits(&logits(&checkpoint)), expected);
    assert_eq!(
        notices(&checkpoint),
        [
            "tensors that the model has no use for stay unread: , model.layers.01.mlp.up_proj.weight, score.weight, v_head.summary.weight"
        ]
    );

    // Fewer layers: those of a checkpoint that has no more.
    let mut checkpoint = Checkpoint::fixture("diffllama_mha");
    checkpoint.config.num_hidden_layers = 2;
    let more = logits(&checkpoint);
    let told = notices(&checkpoint);
    assert_eq!(told[0], "config.json says 2 layers, but the tensors have 3");
    assert!(
        told[1].contains("model.layers.2.") && told[1].ends_with(" and 9 more"),
        "{told:?}"
    );
    checkpoint
        .tensors
        .retain(|name, _| !name.starts_with("model.layers.2."));
    assert_eq!(bits(&logits(&checkpoint)), bits(&more));

    // Biases that the config does not speak of.
    let mut checkpoint = Checkpoint::fixture("diffllama_bias");
    let expected = bits(&logits(&checkpoint));
    checkpoint.config.attention_bias = false;
    assert_eq!(bits(&logits(&checkpoint)), expected);
    assert_eq!(
        notices(&checkpoint),
        ["config.json says attention_bias false, yet there are biases: they are used"]
    );
}

/// Elements of F64 are said by the entries and come as F32.
#[test]
fn wide_elements() {
    let checkpoint = Checkpoint::fixture("diffllama_mha");
    let weights = checkpoint.weights();
    let entries: Vec<WeightInfo> = weights
        .iter()
        .map(|(name, tensor)| WeightInfo {
            dtype: diffattn_nn::checkpoint::Dtype::F64,
            ..WeightInfo::of(name, tensor)
        })
        .collect();
    let mut loader = ok(DiffLlamaLoader::new(&checkpoint.config, &entries));
    let [notice] = loader.notices() else {
        panic!("{:?}", loader.notices());
    };
    assert!(
        notice.starts_with("there are elements of F64 (model."),
        "{notice}"
    );
    let parts = loader.parts().to_vec();
    for (index, entries) in parts.iter().enumerate() {
        ok(ok(loader.load_part(index, part(&checkpoint, entries))).finish());
    }
    let options = DiffLlamaOptions::default();
    let got = forward(&ok(loader.finish()), &[1, 2, 3], &[1, 3], &options);
    assert_eq!(bits(&got.logits), bits(&logits(&checkpoint)));
}
