//! Converted Llamas in training: gradients of their first layer's attention, and of adapters over a
//! frozen base, as it is and quantised.

use crate::common::{distance, model_at, tensors};
use diffattn_nn::training::{
    AdapterOptions, LossOptions, TrainingBatch, TrainingModel, TrainingOptions,
};
use diffattn_reference::fixture::Fixture;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/models/diffattn_llama");
    models.join(name)
}

fn expected(name: &str) -> Fixture {
    Fixture::read(&folder(name).join("expected.safetensors"))
}

fn batch(of: &Fixture) -> TrainingBatch {
    let ids = of.i64("input_ids");
    let tokens: Vec<u32> = ids.data.iter().map(|&id| id as u32).collect();
    TrainingBatch::new(&tokens, ids.shape[1], None, None).unwrap()
}

/// Loss and gradients of every kind that learns, but DEX.
#[test]
fn gradients() {
    let mut compared = 0;
    for name in [
        "share_half",
        "share_half_moved",
        "share_third",
        "v1_mirror_half",
        "v1_zero_scalars",
        "v1_zero_vectors",
        "v2_mirror",
        "v2_mirror_lambda_0_3",
        "v2_mix_0_25",
        "v2_mix_1_0",
    ] {
        let expected = expected(name);
        let model = model_at(&folder(name));
        let mut training = TrainingModel::new(model, &TrainingOptions::default()).unwrap();
        training.begin();
        let loss = training
            .add(&batch(&expected), &LossOptions::default())
            .unwrap();
        training.join();
        if let Some(exact) = expected.expected("loss") {
            let off = (loss.loss - exact.data[0]).abs();
            assert!(off <= 2e-6, "{name}: loss off by {off:e}");
        }
        let names = expected.tensors.keys();
        let wanted = names.filter(|name| name.starts_with("expected.d.")).count();
        let mut found = 0;
        for parameter in training.arena().parameters() {
            let Some(exact) = expected.expected(&format!("d.{}", parameter.name)) else {
                continue;
            };
            let got = training.arena().gradients(&parameter.name).unwrap();
            let worst = distance(&exact.data, got);
            assert!(worst <= 2e-5, "{name} {}: {worst:e}", parameter.name);
            found += 1;
        }
        assert_eq!(found, wanted, "{name}");
        compared += found;
    }
    assert_eq!(compared, 42);
}

/// DEX is refused, by what it is.
#[test]
fn dex_is_refused() {
    let model = model_at(&folder("dex_trained"));
    let error = TrainingModel::new(model, &TrainingOptions::default()).unwrap_err();
    assert!(error.to_string().contains("DEX"), "{error}");
}

/// The gradients of an adapter, and of the λ that it brings, over a frozen base.
#[test]
fn adapters() {
    let expected = expected("adapter");
    let stored = tensors(&folder("adapter").join("adapter_model.safetensors"));
    let own = |name: &str| name.trim_start_matches("base_model.model.").to_owned();
    let options = AdapterOptions {
        rank: 4,
        alpha: 10.0,
        targets: vec!["q_proj".to_owned(), "o_proj".to_owned()],
        seed: 3,
    };
    let moves = |name: &str| name.contains("lambda_proj");
    let mut training = TrainingModel::new(
        model_at(&folder("v2_mirror")),
        &TrainingOptions {
            moves: Some(&moves),
            adapter: Some(&options),
            ..TrainingOptions::default()
        },
    )
    .unwrap();
    assert_eq!(training.arena().parameters().len(), stored.len());
    let values: Vec<_> = stored
        .iter()
        .map(|(name, _, data)| (own(name), data))
        .collect();
    let values = values
        .iter()
        .map(|(name, data)| (name.as_str(), data.as_slice()));
    training.set(values).unwrap();
    training.begin();
    let loss = training
        .add(&batch(&expected), &LossOptions::default())
        .unwrap();
    training.join();
    let off = (loss.loss - expected.expected("loss").unwrap().data[0]).abs();
    assert!(off <= 2e-6, "loss off by {off:e}");
    for (name, _, _) in &stored {
        let exact = expected.expected(&format!("d.{name}")).unwrap();
        let got = training.arena().gradients(&own(name)).unwrap();
        let worst = distance(&exact.data, got);
        assert!(worst <= 2e-5, "{name}: {worst:e}");
    }
}
