//! A DIFF vision transformer in training: gradients against differences of a float64 loss; the same
//! bits from threads, micro-batches and what is recomputed; steps that learn, and states that are
//! gone on from; what is refused.

use crate::common::{self, steps};
use crate::vit::{Sizes, Stored, forward, values};
use diffattn::{Error, Run, Tensor};
use diffattn_nn::training::{
    DiffViTStart, FreshWeights, HeldOut, ImageBatch, ImageData, ImageOptions, LossOptions,
    NamePattern, ParameterRules, Recompute, Schedule, Trainer, TrainerOptions, TrainingModel,
    TrainingOptions,
};
use diffattn_nn::{DiffViT, DiffViTArchitecture, DiffViTConfig, Weights};

const WEE: DiffViTArchitecture = DiffViTArchitecture::Wee;

/// A small model.
fn small() -> Sizes {
    Sizes {
        embed_dim: 24,
        heads: 2,
        hidden: 40,
        depth: 2,
        grid: 3,
        patch: 2,
        channels: 2,
        classes: 5,
        ..Sizes::small(WEE)
    }
}

fn model(stored: &Stored) -> DiffViT {
    let mut weights = Weights::new();
    for (name, (shape, data)) in stored {
        weights.insert(name.clone(), Tensor::f32(data, shape));
    }
    DiffViT::new(&DiffViTConfig::new(WEE), &weights).unwrap()
}

fn batch(sizes: &Sizes, images: usize) -> ImageBatch {
    let (_, pixels) = sizes.images(images);
    let side = sizes.img_size();
    let labels: Vec<i32> = (0..images).map(|i| (i * i + i / 3) as i32 % 5).collect();
    ImageBatch::new(&pixels, [images, sizes.channels, side, side], &labels).unwrap()
}

/// The mean cross entropy of a batch, in float64.
fn exact_loss(sizes: &Sizes, stored: &Stored, images: usize) -> f64 {
    let (shape, pixels) = sizes.images(images);
    let logits = forward(stored, false, sizes.heads, (&shape, &pixels)).logits;
    let rows = logits.chunks(sizes.classes).enumerate();
    let losses = rows.map(|(i, row)| {
        let largest = row.iter().fold(f64::MIN, |max, &x| max.max(x));
        let sum: f64 = row.iter().map(|x| (x - largest).exp()).sum();
        largest + sum.ln() - row[(i * i + i / 3) % 5]
    });
    losses.sum::<f64>() / images as f64
}

/// Every tensor's gradient, at some of its places, is the slope of the loss; T3's share of the
/// tensor's largest gradient is left to float32.
#[test]
fn gradients_are_slopes() {
    const IMAGES: usize = 3;
    const STEP: f32 = 1.0 / 2048.0;
    let other = Sizes {
        biases: false,
        scales: false,
        scalars: true,
        registers: 0,
        ..small()
    };
    for sizes in [small(), other] {
        let stored = sizes.weights();
        let mut training = TrainingModel::new(model(&stored), &TrainingOptions::default()).unwrap();
        training.begin();
        let batch = batch(&sizes, IMAGES);
        let loss = training.add(&batch, &LossOptions::default()).unwrap();
        training.join();
        let exact = exact_loss(&sizes, &stored, IMAGES);
        assert!((loss.loss - exact).abs() <= 2e-6, "{} {exact}", loss.loss);
        let names: Vec<_> = training.arena().parameters().iter().collect();
        assert_eq!(names.len(), stored.len());
        for (index, parameter) in names.into_iter().enumerate() {
            let name = parameter.name.as_str();
            let (shape, data) = &stored[name];
            assert_eq!(&parameter.shape, shape, "{name}");
            let got = training.arena().gradients(name).unwrap();
            let largest = got.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
            for draw in 0..4 {
                let place = (index * 31 + draw * 7919 + draw * draw) % data.len();
                let at = |step: f32| {
                    let mut moved = stored.clone();
                    let value = data[place] + step;
                    moved.get_mut(name).unwrap().1[place] = value;
                    (f64::from(value), exact_loss(&sizes, &moved, IMAGES))
                };
                let [(x0, y0), (x1, y1)] = [at(-STEP), at(STEP)];
                let slope = (y1 - y0) / (x1 - x0);
                let off = (slope - f64::from(got[place])).abs();
                let allowed = 2e-5 * f64::from(largest) + 2e-7;
                assert!(off <= allowed, "{name}[{place}]: {slope} {}", got[place]);
            }
        }
    }
}

/// All gradients of some micro-batches.
fn all_gradients(batches: &[ImageBatch], options: &TrainingOptions<'_>) -> Vec<u32> {
    let count = batches.iter().map(ImageBatch::images).sum();
    common::all_gradients(model(&small().weights()), (batches, count), options)
}

/// Threads, what is recomputed, and micro-batches of 256 images change no bit.
#[test]
fn the_same_bits() {
    let sizes = small();
    let whole = [batch(&sizes, 512)];
    let (_, pixels) = sizes.images(512);
    let side = sizes.img_size();
    let shape = [256, sizes.channels, side, side];
    let labels: Vec<i32> = (0..512).map(|i| (i * i + i / 3) % 5).collect();
    let halves: Vec<_> = pixels
        .chunks(pixels.len() / 2)
        .zip(labels.chunks(256))
        .map(|(pixels, labels)| ImageBatch::new(pixels, shape, labels).unwrap())
        .collect();
    let of = |threads, recompute| TrainingOptions {
        run: Run::default().with_threads(threads).unwrap(),
        recompute,
        ..TrainingOptions::default()
    };
    let expected = all_gradients(&whole, &of(1, Recompute::Nothing));
    for (threads, recompute) in [
        (2, Recompute::Nothing),
        (4, Recompute::Layers),
        (1, Recompute::Mlps),
    ] {
        let got = all_gradients(&whole, &of(threads, recompute));
        assert!(got == expected, "{threads} {recompute:?}");
    }
    let got = all_gradients(&halves, &of(2, Recompute::Nothing));
    assert!(got == expected, "micro-batches");
}

/// Images of noise, each with one bright value in one of its patches: which value of a patch is the
/// class.
fn bright(images: usize, sizes: &Sizes) -> (Vec<u8>, Vec<i32>) {
    let (side, patch) = (sizes.img_size(), sizes.patch);
    let mut pixels = values(7, images * sizes.channels * side * side, 0.3);
    let mut labels = Vec::new();
    for (i, image) in pixels.chunks_mut(sizes.channels * side * side).enumerate() {
        let (class, at) = ((i * 7 + i / 5) % 5, i * 5 % (sizes.grid * sizes.grid));
        let (row, column) = (at / sizes.grid * patch, at % sizes.grid * patch);
        let within = class % (patch * patch);
        let (y, x) = (row + within / patch, column + within % patch);
        image[(class / (patch * patch) * side + y) * side + x] += 3.0;
        labels.push(class as i32);
    }
    let bytes = pixels.iter().flat_map(|x| x.to_le_bytes()).collect();
    (bytes, labels)
}

fn data(eval: HeldOut) -> ImageData<Vec<u8>> {
    let sizes = small();
    let (bytes, labels) = bright(200, &sizes);
    let side = sizes.img_size();
    let shape = [200, sizes.channels, side, side];
    ImageData::new(bytes, shape, labels, &ImageOptions { eval, seed: 4 }).unwrap()
}

/// Every fifth image.
fn fifth() -> HeldOut {
    HeldOut::List((4..200).step_by(5).collect())
}

fn config() -> DiffViTConfig {
    let sizes = small();
    DiffViTConfig {
        img_size: Some(sizes.img_size()),
        patch_size: Some(sizes.patch),
        in_chans: Some(sizes.channels),
        num_classes: Some(sizes.classes),
        embed_dim: Some(sizes.embed_dim),
        num_heads: Some(sizes.heads),
        depth: Some(sizes.depth),
        mlp_ratio: Some(2.0),
        reg_tokens: Some(1),
        ..DiffViTConfig::new(WEE)
    }
}

fn fresh() -> DiffViT {
    let start = DiffViTStart {
        init_values: None,
        ..DiffViTStart::default()
    };
    DiffViT::fresh(&config(), &start, 3).unwrap()
}

type Tiny = Trainer<ImageData<Vec<u8>>>;

fn options(batch: usize, accumulate: usize) -> TrainerOptions {
    let mut schedule = Schedule::new(0.01, 80);
    schedule.warmup = 4;
    TrainerOptions {
        batch,
        accumulate,
        ..TrainerOptions::new(schedule)
    }
}

fn trainer(threads: usize, options: TrainerOptions) -> Tiny {
    let how = TrainingOptions {
        run: Run::default().with_threads(threads).unwrap(),
        ..TrainingOptions::default()
    };
    let model = TrainingModel::new(fresh(), &how).unwrap();
    Trainer::new(model, data(fifth()), options).unwrap()
}

/// It learns what there is to learn.
#[test]
fn it_learns() {
    let mut trainer = trainer(1, options(32, 1));
    let before = trainer.evaluate(None).unwrap().unwrap();
    assert_eq!(before.counted, 40);
    assert!((before.loss - 5_f64.ln()).abs() < 0.2, "{before:?}");
    let reports = steps(&mut trainer, 100);
    assert_eq!(reports.len(), 80);
    assert_eq!(reports[79].tokens, 80 * 32 * 10);
    assert!(reports[0].lambda != reports[79].lambda, "λ moves");
    let after = trainer.evaluate(None).unwrap().unwrap();
    assert!(after.accuracy >= Some(0.95), "{after:?}");
    // The model is one as any other, and says the same.
    let sizes = small();
    let (bytes, labels) = bright(200, &sizes);
    let (values, _) = bytes.as_chunks::<4>();
    let pixels: Vec<f32> = values.iter().copied().map(f32::from_le_bytes).collect();
    let side = sizes.img_size();
    let shape = [200, sizes.channels, side, side];
    let trained = trainer.into_model();
    let classes = trained
        .classify(Tensor::f32(&pixels, &shape), 1, &Default::default())
        .unwrap();
    let held = (4..200).step_by(5);
    let right = held.filter(|&i| classes[i][0].id == labels[i] as usize);
    assert_eq!(right.count() as f64 / 40.0, after.accuracy.unwrap());
}

/// Cut behind any step and gone on from its state, on other threads: the same reports and weights.
#[test]
fn states_go_on_to_the_same_bits() {
    let mut whole = trainer(1, options(32, 1));
    let expected = steps(&mut whole, 8);
    let state = whole.state().unwrap();
    for (cut, threads) in [(1, 2), (5, 4)] {
        let mut first = trainer(threads, options(32, 1));
        let mut got = steps(&mut first, cut);
        let saved = first.state().unwrap();
        drop(first);
        let mut second = trainer(1, options(32, 1));
        second.restore(&saved).unwrap();
        got.extend(steps(&mut second, 8 - cut));
        assert_eq!(got, expected, "{cut}");
        assert!(second.state().unwrap() == state, "{cut}");
    }
}

/// Units of 256 images give the same bits however a step is cut.
#[test]
fn units_are_summed_in_their_order() {
    let of = |batch, accumulate| TrainerOptions {
        unit: Some(2560),
        ..options(batch, accumulate)
    };
    let (mut whole, mut cut) = (trainer(1, of(512, 1)), trainer(2, of(256, 2)));
    assert_eq!(steps(&mut whole, 2), steps(&mut cut, 2));
    assert!(whole.state().unwrap() == cut.state().unwrap());
    // Not a whole number of images of 10 tokens.
    let model = TrainingModel::new(fresh(), &TrainingOptions::default()).unwrap();
    let given = TrainerOptions {
        unit: Some(256),
        ..options(256, 1)
    };
    let error = Trainer::new(model, data(fifth()), given).unwrap_err();
    assert!(error.to_string().contains("unit"), "{error}");
}

/// What is frozen stays: a weight, and of q, k and v together the rows of k.
#[test]
fn what_is_frozen_stays() {
    let rules = ParameterRules {
        freeze: vec![NamePattern::new("pos_embed")],
        freeze_rows: vec![(
            NamePattern::new("blocks.0.attn.qkv.weight"),
            vec![24..32, 32..48],
        )],
        ..ParameterRules::default()
    };
    let how = TrainingOptions {
        rules: Some(&rules),
        ..TrainingOptions::default()
    };
    let model = TrainingModel::new(fresh(), &how).unwrap();
    assert!(model.arena().values("pos_embed").is_none());
    let name = "blocks.0.attn.qkv.weight";
    let before = model.arena().values(name).unwrap().to_vec();
    let mut trainer = Trainer::new(model, data(fifth()), options(32, 1)).unwrap();
    steps(&mut trainer, 2);
    let after = trainer.model().arena().values(name).unwrap();
    let rows = before.chunks(24).zip(after.chunks(24)).enumerate();
    for (row, (before, after)) in rows {
        assert_eq!(before == after, (24..48).contains(&row), "{row}");
    }
}

/// A teacher takes part: what it knows of the classes.
#[test]
fn a_teacher_takes_part() {
    let teacher = model(&small().weights());
    let mut given = options(32, 1);
    given.alpha = 0.0;
    let model = TrainingModel::new(fresh(), &TrainingOptions::default()).unwrap();
    let mut trainer = Trainer::new(model, data(fifth()), given).unwrap();
    let mut reports = Vec::new();
    while let Some(report) = trainer.advance(Some(&teacher)).unwrap() {
        reports.push(report);
    }
    let (first, last) = (reports[0].parts[1], reports[79].parts[1]);
    assert!(first > 0.0 && last < 0.7 * first, "{first} {last}");
}

/// A fresh model's weights, by timm's names and beginnings.
#[test]
fn fresh_weights() {
    let text = r#"{
        "architecture": "vit_dwee_patch16_reg1_gap_256", "num_classes": 10,
        "model_args": {"img_size": 8, "in_chans": 1, "patch_size": 2, "embed_dim": 32, "depth": 2,
            "num_heads": 2, "mlp_ratio": 2, "init_values": 0.1, "qkv_bias": false,
            "dual_lambda": true}
    }"#;
    let fresh = FreshWeights::of_config(text).unwrap();
    let values = |name: &str| {
        let index = fresh.tensors().iter().position(|of| of.name == name)?;
        let mut values = vec![9.0; fresh.tensors()[index].shape.iter().product()];
        fresh.fill(index, 1, &mut values);
        Some(values)
    };
    assert_eq!(values("blocks.1.ls2.gamma").unwrap(), vec![0.1; 32]);
    assert_eq!(values("blocks.1.attn.lambda_a").unwrap(), [0.0]);
    assert_eq!(values("blocks.0.attn.qkv.bias"), None);
    assert_eq!(values("blocks.0.attn.proj.bias").unwrap(), vec![0.0; 32]);
    assert_eq!(
        values("blocks.0.attn.sub_norm.weight").unwrap(),
        vec![1.0; 16]
    );
    let kernel = values("patch_embed.proj.weight").unwrap();
    assert!(kernel.iter().all(|x| x.abs() <= 0.5) && kernel.iter().any(|x| x.abs() > 0.4));
    let map = values("blocks.0.attn.qkv.weight").unwrap();
    let squares = map.iter().map(|x| f64::from(x * x)).sum::<f64>();
    assert!(((squares / map.len() as f64).sqrt() - 0.02).abs() < 1e-3);
    // All of them, as they are, are a model.
    let start = DiffViTStart::from_json(text).unwrap();
    let made = DiffViT::fresh(&DiffViTConfig::from_json(text).unwrap(), &start, 1).unwrap();
    assert_eq!((made.tokens(), made.num_classes()), (17, 10));
}

/// What is refused, by its name.
#[test]
fn what_is_refused() {
    let refused = |sizes: &Sizes| -> Error {
        let config = DiffViTConfig::new(sizes.architecture);
        let stored = sizes.weights();
        let mut weights = Weights::new();
        for (name, (shape, data)) in &stored {
            weights.insert(name.clone(), Tensor::f32(data, shape));
        }
        let model = DiffViT::new(&config, &weights).unwrap();
        TrainingModel::new(model, &TrainingOptions::default()).unwrap_err()
    };
    let parallel = Sizes::small(DiffViTArchitecture::ParallelWee);
    let headless = Sizes {
        classes: 0,
        ..small()
    };
    for sizes in [parallel, headless] {
        let error = refused(&sizes);
        assert!(error.to_string().contains("model"), "{error}");
        assert_eq!(error.code(), "OPTION");
    }
    let of = |shape: [usize; 4], labels: Vec<i32>, eval: HeldOut| {
        let bytes = vec![0; shape.iter().product::<usize>() * 4];
        let data = ImageData::new(bytes, shape, labels, &ImageOptions { eval, seed: 0 })?;
        let model = TrainingModel::new(fresh(), &TrainingOptions::default())?;
        Trainer::new(model, data, options(2, 1)).map(drop)
    };
    let none = HeldOut::Share(0.0);
    for (shape, labels, eval, name) in [
        ([3, 2, 6, 6], vec![0, 1], none.clone(), "labels"),
        ([3, 2, 6, 6], vec![0, 1, 5], none.clone(), "labels"),
        ([3, 2, 6, 6], vec![0, 1, -1], none.clone(), "labels"),
        ([3, 1, 6, 6], vec![0, 1, 2], none.clone(), "images"),
        ([3, 2, 6, 4], vec![0, 1, 2], none.clone(), "images"),
        ([3, 2, 8, 8], vec![0, 1, 2], none, "images"),
        ([3, 2, 6, 6], vec![0, 1, 2], HeldOut::Share(1.0), "eval"),
        ([3, 2, 6, 6], vec![0, 1, 2], HeldOut::List(vec![3]), "eval"),
        (
            [3, 2, 6, 6],
            vec![0, 1, 2],
            HeldOut::List(vec![1, 1]),
            "eval",
        ),
        (
            [3, 2, 6, 6],
            vec![0, 1, 2],
            HeldOut::List(vec![0, 1, 2]),
            "images",
        ),
    ] {
        let error = of(shape, labels, eval).unwrap_err();
        assert!(error.to_string().starts_with(name), "{name}: {error}");
    }
}
