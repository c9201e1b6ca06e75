//! Gradients of whole models against slopes of the float64 loss: kinds of attention and of MLPs of
//! which there are no cases with gradients.

use crate::common::{Checkpoint, Stored, ok, random_ids};
use crate::reference::Reference;
use diffattn_nn::HiddenAct;
use diffattn_nn::training::{LossOptions, TrainingBatch, TrainingModel, TrainingOptions};
use diffattn_reference::RopeScaling;

const TOKENS: usize = 11;
/// What a weight is moved by.
const STEP: f64 = 1e-4;

/// The mean loss of the next token, in float64.
fn exact_loss(checkpoint: &Checkpoint, ids: &[u32]) -> f64 {
    let reference = Reference {
        checkpoint,
        scaling: RopeScaling::Default,
        int8: false,
    };
    let logits = reference.forward(ids, None).logits;
    let rows = logits.chunks(checkpoint.config.vocab_size).zip(&ids[1..]);
    let losses = rows.map(|(row, &next)| {
        let largest = row.iter().fold(f64::MIN, |max, &x| max.max(x));
        let sum: f64 = row.iter().map(|x| (x - largest).exp()).sum();
        largest + sum.ln() - row[next as usize]
    });
    losses.sum::<f64>() / (ids.len() - 1) as f64
}

/// A checkpoint with float64 weights, which can be moved a little.
fn widened(name: &str, act: Option<HiddenAct>) -> Checkpoint {
    let mut checkpoint = Checkpoint::fixture(name);
    if let Some(act) = act {
        checkpoint.config.hidden_act = act;
    }
    checkpoint
}

/// The largest gradient of a tensor. Of λ's vectors: of the attention that they are of, as theirs
/// are one sum over all tokens and heads, which cancels, and what float32 loses of it is a share of
/// what is added up and not of the sum.
fn largest(training: &TrainingModel, name: &str) -> f64 {
    let of_all = name.split("lambda_").next().unwrap_or(name);
    let parameters = training.arena().parameters().iter();
    let alike = parameters.filter(|one| match of_all == name {
        true => one.name == name,
        false => one.name.starts_with(of_all),
    });
    let values = alike.filter_map(|one| training.arena().gradients(&one.name));
    f64::from(values.flatten().fold(0.0, |max: f32, x| max.max(x.abs())))
}

/// Every tensor's gradient is, at some of its places, the slope of the loss, within T3's share of
/// the largest one.
#[test]
fn gradients_are_slopes() {
    for (name, act) in [
        ("motif_gda", None),
        ("motif_gda_shared_kv", None),
        ("motif_v1_gqa", None),
        ("diff_mlx", None),
        ("llama", Some(HiddenAct::Gelu)),
        ("diffllama_bias", Some(HiddenAct::GeluTanh)),
    ] {
        let mut checkpoint = widened(name, act);
        let ids = random_ids(3, TOKENS, checkpoint.config.vocab_size);
        let mut training = ok(TrainingModel::new(
            checkpoint.model(),
            &TrainingOptions::default(),
        ));
        training.begin();
        let batch = ok(TrainingBatch::new(&ids, TOKENS, None, None));
        let loss = ok(training.add(&batch, &LossOptions::default()));
        training.join();
        let exact = exact_loss(&checkpoint, &ids);
        assert!(
            (loss.loss - exact).abs() <= 4e-6 * exact,
            "{name}: {} {exact}",
            loss.loss
        );
        for (index, parameter) in training.arena().parameters().iter().enumerate() {
            let of = parameter.name.as_str();
            let got = training.arena().gradients(of).unwrap_or_default();
            let largest = largest(&training, of);
            let stored = checkpoint.tensors.get(of);
            let Some((shape, _)) = stored.cloned() else {
                panic!("{name}: no {of}");
            };
            let Some(wide) = checkpoint.wide(of) else {
                panic!("{name}: no {of}");
            };
            // (An embedding's row must be read, or its slope is zero.)
            let width = wide.data.len() / shape[0].max(1);
            let places = [
                ids[2] as usize % shape[0] * width + 1 % width.max(1),
                (index * 31) % wide.data.len(),
                (index * 7919 + 5) % wide.data.len(),
            ];
            for place in places {
                let mut at = |step: f64| {
                    let mut moved = wide.data.clone();
                    moved[place] += step;
                    let moved = (shape.clone(), Stored::F64(moved));
                    checkpoint.tensors.insert(of.to_owned(), moved);
                    exact_loss(&checkpoint, &ids)
                };
                let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                let off = (slope - f64::from(got[place])).abs();
                let allowed = 2e-5 * largest + 1e-7;
                assert!(
                    off <= allowed,
                    "{name} {of}[{place}]: {slope} {}",
                    got[place]
                );
            }
            let whole = (shape, Stored::F64(wide.data));
            checkpoint.tensors.insert(of.to_owned(), whole);
        }
    }
}
