//! Training from step to step: it goes on from a state to the same bits, wherever it was cut; what
//! it refuses to go on from; what ends it.

use crate::common::{folder, model, model_at, steps};
use diffattn::{Error, Run};
use diffattn_nn::checkpoint::{TokenFile, write_tokens};
use diffattn_nn::training::{
    AdapterOptions, Alone, DataOptions, Recompute, Schedule, Trainer, TrainerOptions, TrainingData,
    TrainingModel, TrainingOptions,
};
use diffattn_nn::{DiffLlama, DiffLlamaConfig};
use std::path::Path;

type Tiny = Trainer<TrainingData<Vec<u8>>>;

fn data(seed: u64) -> TrainingData<Vec<u8>> {
    data_of(61, seed)
}

/// Some 20,000 tokens in which the next one follows from the one before.
fn data_of(vocabulary: u32, seed: u64) -> TrainingData<Vec<u8>> {
    let (mut ids, mut starts) = (vec![1_u32], vec![0]);
    for i in 1..20_000_usize {
        if i % 500 == 0 {
            starts.push(i as u64);
        }
        ids.push((17 * ids[i - 1] + i as u32 % 2) % vocabulary);
    }
    let file = TokenFile::open("tiny.tokens", write_tokens(&ids, &starts).unwrap()).unwrap();
    let options = DataOptions {
        context: 64,
        seed,
        ..DataOptions::default()
    };
    TrainingData::new(file, options).unwrap()
}

fn options(batch: usize, accumulate: usize) -> TrainerOptions {
    let mut schedule = Schedule::new(0.02, 30);
    schedule.warmup = 3;
    TrainerOptions {
        batch,
        accumulate,
        ..TrainerOptions::new(schedule)
    }
}

fn fresh() -> DiffLlama {
    let text = std::fs::read_to_string(folder("diffllama_tiny").join("config.json")).unwrap();
    DiffLlama::fresh(&DiffLlamaConfig::from_json(&text).unwrap(), 5).unwrap()
}

fn trainer(threads: usize, options: TrainerOptions) -> Tiny {
    let how = TrainingOptions {
        run: Run::default().with_threads(threads).unwrap(),
        recompute: if threads == 2 {
            Recompute::Mlps
        } else {
            Recompute::Nothing
        },
        ..TrainingOptions::default()
    };
    let model = TrainingModel::new(fresh(), &how).unwrap();
    Trainer::new(model, data(9), options).unwrap()
}

/// It learns what there is to learn, and a fresh model is that of its seed.
#[test]
fn it_learns() {
    let mut trainer = trainer(1, options(8, 1));
    let before = trainer.evaluate(None).unwrap().unwrap().loss;
    let reports = steps(&mut trainer, 100);
    assert_eq!(reports.len(), 30);
    let after = trainer.evaluate(None).unwrap().unwrap().loss;
    assert!((before - 61_f64.ln()).abs() < 0.1, "{before}");
    assert!(after < before - 0.3, "{before} {after}");
    assert_eq!(reports[29].tokens, 30 * 8 * 64);
    assert!(reports.iter().all(|report| !report.has_diverged));
    assert!(reports[0].lambda != reports[29].lambda, "λ moves");
    assert_eq!(trainer.advance(None).unwrap(), None);
}

/// Cut behind any step and gone on from its state, in another process's place: the same reports and
/// the same weights as without a cut; micro-batches of 256 tokens and more as one batch.
#[test]
fn states_go_on_to_the_same_bits() {
    let mut whole = trainer(1, options(8, 1));
    let expected = steps(&mut whole, 20);
    let state = whole.state().unwrap();
    for (cut, threads, options) in [
        (1, 2, options(8, 1)),
        (7, 1, options(4, 2)),
        (19, 4, options(8, 1)),
    ] {
        let mut first = trainer(threads, options.clone());
        let mut got = steps(&mut first, cut);
        let saved = first.state().unwrap();
        drop(first);
        let mut second = trainer(1, options);
        second.restore(&saved).unwrap();
        got.extend(steps(&mut second, 20 - cut));
        for (expected, got) in expected.iter().zip(&got) {
            // (Losses of micro-batches add up in another order.)
            assert!((expected.loss - got.loss).abs() < 1e-12, "{cut}");
            let same = (
                expected.grad_norm,
                expected.lr,
                expected.tokens,
                &expected.lambda,
            );
            assert_eq!(
                same,
                (got.grad_norm, got.lr, got.tokens, &got.lambda),
                "{cut}"
            );
        }
        let other = second.state().unwrap();
        assert!(other.masters == state.masters, "{cut}");
        assert!(other.optimizer == state.optimizer, "{cut}");
    }
}

/// What differs is named, and nothing is gone on from.
#[test]
fn other_states_are_refused() {
    let mut one = trainer(1, options(8, 1));
    steps(&mut one, 2);
    let state = one.state().unwrap();
    let refused = |trainer: &mut Tiny, state| -> Error { trainer.restore(&state).unwrap_err() };
    let mut other = options(8, 1);
    other.weight_decay = 0.2;
    let error = refused(&mut trainer(1, other), state.clone());
    assert_eq!(error.code(), "FILE");
    assert!(error.to_string().contains("weightDecay"), "{error}");
    let mut broken = state.clone();
    broken.optimizer.truncate(100);
    let mut fresh = trainer(1, options(8, 1));
    assert_eq!(refused(&mut fresh, broken).code(), "FILE");
    let mut broken = state.clone();
    broken.json = "{".to_owned();
    assert_eq!(refused(&mut fresh, broken).code(), "FILE");
    // It is still as it was: its first step is the first.
    let first = steps(&mut fresh, 1);
    assert_eq!(first[0].step, 1);
}

/// A loss that is no number ends training and moves nothing.
#[test]
fn divergence_is_told() {
    let mut options = options(8, 1);
    options.schedule.lr = 1e30;
    options.max_grad_norm = None;
    let mut trainer = trainer(1, options);
    let reports = steps(&mut trainer, 30);
    let last = reports.last().unwrap();
    assert!(last.has_diverged && reports.len() < 30, "{last:?}");
    assert!(!last.loss.is_finite() || !last.grad_norm.is_finite());
    assert_eq!(trainer.advance(None).unwrap(), None);
}

/// Adapters alone move over a frozen base, towards a teacher.
#[test]
fn adapters_follow_a_teacher() {
    let teacher = model("diffllama_tiny");
    let adapter = AdapterOptions {
        rank: 4,
        alpha: 8.0,
        ..AdapterOptions::default()
    };
    let how = TrainingOptions {
        adapter: Some(&adapter),
        ..TrainingOptions::default()
    };
    let training = TrainingModel::new(fresh(), &how).unwrap();
    let names = training.arena().parameters().iter();
    assert!(
        names
            .clone()
            .all(|of| of.name.contains("lora_") || of.name.contains("lambda"))
    );
    assert_eq!(names.filter(|of| of.name.contains("lora_A")).count(), 14);
    let mut options = options(8, 1);
    options.alpha = 0.0;
    options.schedule.lr = 0.02;
    let mut trainer = Trainer::new(training, data(3), options).unwrap();
    let mut reports = Vec::new();
    while let Some(report) = trainer.advance(Some(&teacher)).unwrap() {
        reports.push(report);
    }
    let (first, last) = (&reports[0], &reports[29]);
    assert!(
        first.parts[1] > 0.0 && last.parts[1] < 0.9 * first.parts[1],
        "{first:?} {last:?}"
    );
    assert!((first.loss - first.parts[1]).abs() < 1e-9);
}

/// Units that are no units are refused by name.
#[test]
fn other_units_are_refused() {
    for (unit, batch) in [(0, 8), (64, 8), (192, 6), (320, 5), (512, 12), (1024, 8)] {
        let model = TrainingModel::new(fresh(), &TrainingOptions::default()).unwrap();
        let given = TrainerOptions {
            unit: Some(unit),
            ..options(batch, 1)
        };
        let error = Trainer::new(model, data(9), given).unwrap_err();
        assert_eq!(error.code(), "OPTION", "{unit}");
        assert!(error.to_string().contains("unit"), "{error}");
    }
    let error = trainer(1, options(8, 1)).join(&Alone).unwrap_err();
    assert!(error.to_string().contains("unit"), "{error}");
}

/// Units give the same bits however a step is cut into micro-batches, and to go on from.
#[test]
fn units_are_summed_in_their_order() {
    let of = |batch, accumulate| TrainerOptions {
        unit: Some(256),
        ..options(batch, accumulate)
    };
    let (mut whole, mut cut) = (trainer(1, of(16, 1)), trainer(2, of(4, 4)));
    let expected = steps(&mut whole, 6);
    assert_eq!(steps(&mut cut, 3), expected[..3]);
    let mut later = trainer(4, of(8, 2));
    later.restore(&cut.state().unwrap()).unwrap();
    assert_eq!(steps(&mut later, 3), expected[3..]);
    assert!(later.state().unwrap() == whole.state().unwrap());
    let error = trainer(1, options(16, 1)).restore(&whole.state().unwrap());
    assert!(error.unwrap_err().to_string().contains("unit"));
}

/// DEX, zeros at first: its λ is annealed over a tenth of the steps, told of each, and gone on from
/// within that; then λ is the one that is learned. What has no such λ is annealed by no one.
#[test]
fn dex_is_annealed() {
    let of = |lambda_anneal| {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/models/diffattn_llama");
        let model = model_at(&models.join("dex_zero"));
        let model = TrainingModel::new(model, &TrainingOptions::default()).unwrap();
        let mut schedule = Schedule::new(0.02, 40);
        schedule.warmup = 3;
        let options = TrainerOptions {
            lambda_anneal,
            ..TrainerOptions::new(schedule)
        };
        Trainer::new(model, data_of(59, 9), options).unwrap()
    };
    let mut whole = of(None);
    let before = whole.evaluate(None).unwrap().unwrap();
    let reports = steps(&mut whole, 12);
    let learned = |trainer: &Tiny, layer: usize| {
        let name = format!("model.layers.{layer}.self_attn.dex.lambda_learn");
        f64::from(trainer.model().arena().values(&name).unwrap()[0])
    };
    // (What is told of a step is λ after it: of the first, a quarter of the way.)
    for (layer, told) in reports[0].lambda.iter().enumerate() {
        let mut one = of(None);
        steps(&mut one, 1);
        let init = 0.8 - 0.6 * (-0.3 * layer as f64).exp();
        let exact = 0.75 * 0.25 * init + 0.25 * learned(&one, layer);
        assert!(
            (f64::from(told.unwrap()) - exact).abs() < 1e-6,
            "{told:?} {exact}"
        );
    }
    for (layer, told) in reports[11].lambda.iter().enumerate() {
        assert_eq!(told.unwrap(), learned(&whole, layer) as f32);
        assert!(learned(&whole, layer) != 0.0);
    }
    let after = whole.evaluate(None).unwrap().unwrap();
    assert!(after.loss < before.loss, "{before:?} {after:?}");
    let mut first = of(None);
    steps(&mut first, 2);
    let measured = first.evaluate(None).unwrap();
    let saved = first.state().unwrap();
    let mut second = of(None);
    second.restore(&saved).unwrap();
    assert_eq!(second.evaluate(None).unwrap(), measured);
    assert_eq!(steps(&mut second, 10), reports[2..]);
    assert!(second.state().unwrap() == whole.state().unwrap());
    // Another T would go on to other bits.
    let error = of(Some(7)).restore(&saved).unwrap_err().to_string();
    assert!(error.contains("lambdaAnneal"), "{error}");
    // Not annealed, it stays as it is.
    let mut never = of(Some(0));
    steps(&mut never, 3);
    assert_eq!([0, 1].map(|layer| learned(&never, layer)), [0.0; 2]);
    let model = TrainingModel::new(fresh(), &TrainingOptions::default()).unwrap();
    let options = TrainerOptions {
        lambda_anneal: Some(5),
        ..options(8, 1)
    };
    let error = Trainer::new(model, data(9), options).unwrap_err();
    assert!(error.to_string().contains("lambdaAnneal"), "{error}");
}
