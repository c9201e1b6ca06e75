//! A DIFF Llama in training: loss and gradients of a batch with documents, and twenty steps of
//! AdamW (T3); the same bits from micro-batches, threads and what is recomputed (T4, T5).

use crate::common::{self, distance, file, folder, model};
use diffattn::{AdamW, Run};
use diffattn_nn::training::{
    LossOptions, Recompute, Schedule, ScheduleShape, TrainingBatch, TrainingModel, TrainingOptions,
};
use diffattn_reference::fixture::Fixture;

const FOLDERS: [&str; 2] = ["diffllama_tiny", "diffllama_tiny_tied"];

/// Batch `index` of a file of batches.
fn batch(of: &Fixture, index: usize) -> TrainingBatch {
    let ids = of.i64("input_ids");
    let length = *ids.shape.last().unwrap();
    let tokens = length * ids.shape[ids.shape.len() - 2];
    let range = index * tokens..(index + 1) * tokens;
    let tensor = |name: &str| of.i64(name).data[range.clone()].to_vec();
    let ids: Vec<u32> = tensor("input_ids").iter().map(|&id| id as u32).collect();
    let labels: Vec<i32> = tensor("labels").iter().map(|&label| label as i32).collect();
    TrainingBatch::new(&ids, length, Some(&tensor("documents")), Some(&labels)).unwrap()
}

/// Loss and gradients of the first batch.
#[test]
fn gradients() {
    for name in FOLDERS {
        let expected = file(name, "gradients");
        let mut training = TrainingModel::new(model(name), &TrainingOptions::default()).unwrap();
        training.begin();
        let loss = training
            .add(&batch(&expected, 0), &LossOptions::default())
            .unwrap();
        training.join();
        let exact = expected.expected("loss").unwrap().data[0];
        assert!(
            (loss.loss - exact).abs() <= 2e-6,
            "{name}: {} {exact}",
            loss.loss
        );
        let (mut squares, mut count, mut compared) = (0.0, 0, 0);
        for parameter in training.arena().parameters() {
            let exact = expected.expected(&format!("d.{}", parameter.name));
            let exact = exact.unwrap_or_else(|| panic!("{name}: no d.{}", parameter.name));
            let got = training.arena().gradients(&parameter.name).unwrap();
            let worst = distance(&exact.data, got);
            assert!(worst <= 2e-5, "{name} {}: {worst:e}", parameter.name);
            let largest = exact.data.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
            for (x, &y) in exact.data.iter().zip(got) {
                squares += ((x - f64::from(y)) / largest).powi(2);
                count += 1;
            }
            compared += 1;
        }
        let names = expected
            .tensors
            .keys()
            .filter(|name| name.starts_with("expected.d."));
        assert_eq!(compared, names.count(), "{name}");
        let rms = (squares / f64::from(count)).sqrt();
        assert!(rms <= 2e-6, "{name}: pooled {rms:e}");
    }
}

/// The schedule of the cases.
const SCHEDULE: Schedule = Schedule {
    lr: 0.004,
    steps: 20,
    warmup: 5,
    final_share: 0.1,
    shape: ScheduleShape::Cosine,
};

/// Twenty steps: losses, norms, weights after 1, 5 and 20, moments after 5.
#[test]
fn twenty_steps() {
    for name in FOLDERS {
        let run = file(name, "run");
        let expected = |name: &str| run.expected(name).unwrap().data;
        let [losses, norms] = ["losses", "gradient_norms"].map(expected);
        let mut training = TrainingModel::new(model(name), &TrainingOptions::default()).unwrap();
        for step in 1..=20 {
            training.begin();
            let index = step as usize - 1;
            let loss = training
                .add(&batch(&run, index), &LossOptions::default())
                .unwrap();
            let off = (loss.loss - losses[index]).abs();
            assert!(off <= 2e-6, "{name} step {step}: loss off by {off:e}");
            let lr = SCHEDULE.at(step);
            assert!(
                (lr - expected("learning_rates")[index]).abs() < 1e-12,
                "{step}"
            );
            let adamw = AdamW {
                lr,
                betas: [0.9, 0.95],
                weight_decay: 0.1,
                ..AdamW::default()
            };
            let norm = training.step(step, &adamw, Some(1.0)).unwrap();
            let off = (norm / norms[index] - 1.0).abs();
            assert!(off <= 1e-5, "{name} step {step}: norm off by {off:e}");
            if [1, 5, 20].contains(&step) {
                let after = file(name, &format!("after_step_{step}"));
                for parameter in training.arena().parameters() {
                    let exact = after.expected(&parameter.name).unwrap();
                    let got = training.arena().values(&parameter.name).unwrap();
                    let worst = exact.data.iter().zip(got);
                    let worst =
                        worst.fold(0.0, |max: f64, (x, &y)| max.max((x - f64::from(y)).abs()));
                    assert!(
                        worst <= 5e-6,
                        "{name} step {step} {}: {worst:e}",
                        parameter.name
                    );
                }
            }
            if step == 5 {
                let moments = file(name, "moments_step_5");
                for parameter in training.arena().parameters() {
                    let [m, v] = training.arena().moments(&parameter.name).unwrap();
                    for (kind, got) in [("m", m), ("v", v)] {
                        // (Layer 0's are not stored.)
                        if let Some(exact) = moments.expected(&format!("{kind}.{}", parameter.name))
                        {
                            let worst = distance(&exact.data, got);
                            assert!(worst <= 1e-4, "{name} {kind} {}: {worst:e}", parameter.name);
                        }
                    }
                }
            }
        }
    }
}

/// All gradients of some micro-batches.
fn all_gradients(name: &str, batches: &[TrainingBatch], options: &TrainingOptions<'_>) -> Vec<u32> {
    let count = batches.iter().map(TrainingBatch::counted).sum();
    common::all_gradients(model(name), (batches, count), options)
}

/// Threads, what is recomputed, and micro-batches of 256 tokens change no bit.
#[test]
fn the_same_bits() {
    for name in FOLDERS {
        assert!(folder(name).is_dir());
        let ids: Vec<u32> = (0..1024_u32).map(|i| (i * 7919 + i * i) % 61).collect();
        let whole = TrainingBatch::new(&ids, 64, None, None).unwrap();
        let halves: Vec<_> = ids
            .chunks(512)
            .map(|ids| TrainingBatch::new(ids, 64, None, None).unwrap())
            .collect();
        let run = |threads: usize| Run::default().with_threads(threads).unwrap();
        let of = |threads, recompute| TrainingOptions {
            run: run(threads),
            recompute,
            ..TrainingOptions::default()
        };
        let whole = std::slice::from_ref(&whole);
        let expected = all_gradients(name, whole, &of(1, Recompute::Nothing));
        for (threads, recompute) in [
            (2, Recompute::Nothing),
            (4, Recompute::Layers),
            (1, Recompute::Mlps),
        ] {
            let got = all_gradients(name, whole, &of(threads, recompute));
            assert!(got == expected, "{name} {threads} {recompute:?}");
        }
        let got = all_gradients(name, &halves, &of(2, Recompute::Nothing));
        assert!(got == expected, "{name}: micro-batches");
    }
}
