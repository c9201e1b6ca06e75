//! Models loaded part by part.

use crate::common::{Checkpoint, Stored, bits, forward, ok, refusal};
use diffattn::Slices;
use diffattn_nn::{DiffLlamaLoader, DiffLlamaOptions, PartWeights, Weight, WeightData, WeightInfo};
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
