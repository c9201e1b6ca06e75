//! What the tests share: checkpoint folders in training, and what is expected of them.

use diffattn::Tensor;
use diffattn_nn::training::{
    Dataset, LossOptions, StepReport, Trainable, Trainer, TrainingModel, TrainingOptions,
};
use diffattn_nn::{DiffLlama, DiffLlamaConfig, Weights};
use diffattn_reference::fixture::Fixture;
use diffattn_reference::testing::bits;
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

/// A folder of the training cases.
pub(crate) fn folder(name: &str) -> PathBuf {
    diffattn_reference::fixture::folder()
        .join("training")
        .join(name)
}

/// A file of a folder.
pub(crate) fn file(name: &str, file: &str) -> Fixture {
    Fixture::read(&folder(name).join(format!("{file}.safetensors")))
}

/// The model of a folder of the training cases.
pub(crate) fn model(name: &str) -> DiffLlama {
    model_at(&folder(name))
}

/// Tensors of a file, in float32: name, shape, values.
pub(crate) fn tensors(path: &Path) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(path).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = stored.iter().map(|(name, view)| {
        let values = view.data().chunks_exact(4);
        let values = values.map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]));
        (name.to_owned(), view.shape().to_vec(), values.collect())
    });
    tensors.collect()
}

/// The model of a folder.
pub(crate) fn model_at(folder: &Path) -> DiffLlama {
    model_with(folder, |_, _| {})
}

/// The model of a folder, some of whose weights were changed.
pub(crate) fn model_with(folder: &Path, change: impl Fn(&str, &mut [f32])) -> DiffLlama {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let config = DiffLlamaConfig::from_json(&text)
        .or_else(|_| DiffLlamaConfig::from_llama_json(&text))
        .or_else(|_| DiffLlamaConfig::from_diffattn_llama_json(&text))
        .unwrap();
    let mut tensors = tensors(&folder.join("model.safetensors"));
    for (name, _, values) in &mut tensors {
        change(name, values);
    }
    let mut weights = Weights::new();
    for (name, shape, data) in &tensors {
        weights.insert(name.clone(), Tensor::f32(data, shape));
    }
    DiffLlama::new(&config, &weights).unwrap()
}

/// The largest difference over the largest expected value.
pub(crate) fn distance(expected: &[f64], got: &[f32]) -> f64 {
    assert_eq!(expected.len(), got.len());
    let largest = expected.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
    let unit = if largest > 0.0 { largest } else { 1.0 };
    let differences = expected
        .iter()
        .zip(got)
        .map(|(x, &y)| (x - f64::from(y)).abs() / unit);
    differences.fold(
        0.0,
        |max: f64, x| if x > max || x.is_nan() { x } else { max },
    )
}

/// Steps of a trainer, so many at most.
pub(crate) fn steps<D: Dataset>(trainer: &mut Trainer<D>, count: usize) -> Vec<StepReport> {
    let mut made = Vec::new();
    while made.len() < count
        && let Some(report) = trainer.advance(None).unwrap()
    {
        made.push(report);
    }
    made
}

/// The bits of all gradients of micro-batches in which `count` labels count.
pub(crate) fn all_gradients<M: Trainable>(
    model: M,
    (batches, count): (&[M::Batch], usize),
    options: &TrainingOptions<'_>,
) -> Vec<u32> {
    let mut training = TrainingModel::new(model, options).unwrap();
    training.begin();
    for batch in batches {
        let options = LossOptions {
            count: Some(count),
            teacher: None,
        };
        training.add(batch, &options).unwrap();
    }
    training.join();
    let of = training.arena().parameters().iter();
    of.flat_map(|one| bits(training.arena().gradients(&one.name).unwrap()))
        .collect()
}
