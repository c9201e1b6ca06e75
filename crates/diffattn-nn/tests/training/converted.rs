//! Converted Llamas in training: gradients of their first layer's attention, and of adapters over a
//! frozen base, as it is and quantised.

use crate::common::{distance, model_at, model_with, tensors};
use diffattn_nn::DiffLlama;
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

/// Loss and gradients of every kind.
#[test]
fn gradients() {
    let mut compared = 0;
    for name in [
        "dex_trained",
        "dex_zero",
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
    assert_eq!(compared, 54);
}

/// The gradients of layer 0's DEX matrix and its λ.
fn dex_gradients(model: DiffLlama, alpha: f64, batch: &TrainingBatch) -> [Vec<f32>; 2] {
    let mut training = TrainingModel::new(model, &TrainingOptions::default()).unwrap();
    assert!(training.anneal(alpha).unwrap());
    training.begin();
    training.add(batch, &LossOptions::default()).unwrap();
    training.join();
    let of = |name: &str| {
        let name = format!("model.layers.0.self_attn.dex.{name}");
        training.arena().gradients(&name).unwrap().to_vec()
    };
    ["weight", "lambda_learn"].map(of)
}

/// An annealed λ is one of another value, and what is learned of it has its share of the slope.
#[test]
fn an_annealed_lambda() {
    const ALPHA: f64 = 0.375;
    let folder = folder("dex_trained");
    let batch = batch(&expected("dex_trained"));
    let annealed = dex_gradients(model_at(&folder), ALPHA, &batch);
    let other = model_with(&folder, |name, values| {
        if name.ends_with("lambda_learn") {
            let layer: i32 = name.split('.').nth(2).unwrap().parse().unwrap();
            let init = 0.8 - 0.6 * (-0.3 * f64::from(layer)).exp();
            values[0] = ((1.0 - ALPHA) * ALPHA * init + ALPHA * f64::from(values[0])) as f32;
        }
    });
    let plain = dex_gradients(other, 1.0, &batch);
    let wide = |values: &[f32], factor: f64| -> Vec<f64> {
        values.iter().map(|&x| f64::from(x) * factor).collect()
    };
    // (The other λ is rounded to float32.)
    let [weight, lambda] = [wide(&plain[0], 1.0), wide(&plain[1], ALPHA)];
    assert!(distance(&weight, &annealed[0]) <= 1e-6);
    assert!(distance(&lambda, &annealed[1]) <= 1e-6);
    assert!(annealed[0].iter().any(|&x| x != 0.0));
}

/// With matrices and λ of zeros, as a conversion leaves them, nothing moves but by annealing; and a
/// model without DEX has none.
#[test]
fn what_begins_at_zero_needs_annealing() {
    let zero = || model_at(&folder("dex_zero"));
    let batch = batch(&expected("dex_zero"));
    let is_zero = |of: &[Vec<f32>; 2]| of.iter().flatten().all(|&x| x == 0.0);
    assert!(is_zero(&dex_gradients(zero(), 1.0, &batch)));
    assert!(!is_zero(&dex_gradients(zero(), 0.5, &batch)));
    let needs = |name: &str| {
        let model = model_at(&folder(name));
        let training = TrainingModel::new(model, &TrainingOptions::default()).unwrap();
        training.needs_annealing()
    };
    assert_eq!(
        ["dex_zero", "dex_trained", "v2_mirror"].map(needs),
        [true, false, false]
    );
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
