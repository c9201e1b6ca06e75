//! What may not change a bit: threads, batch, slices; and what the jobs promise.

use crate::common::{Case, Sizes, bits, borrowed, ok, on, refusal};
use diffattn::{DataMut, Isa, MapOutputs, Tensor, Work};
use diffattn_nn::{DiffViT, DiffViTArchitecture, DiffViTConfig, DiffViTOptions};

fn small() -> Vec<(DiffViT, Sizes)> {
    DiffViTArchitecture::ALL
        .into_iter()
        .map(|architecture| {
            let sizes = Sizes::small(architecture);
            let config = DiffViTConfig::new(architecture);
            (
                ok(DiffViT::new(&config, &borrowed(&sizes.weights()))),
                sizes,
            )
        })
        .collect()
}

#[test]
fn threads_and_batch_change_no_bit() {
    for (model, sizes) in small() {
        let batch = 11;
        let (shape, images) = sizes.images(batch);
        let one = images.len() / batch;
        for isa in Isa::available() {
            for deterministic in [false, true] {
                let run = |shape: &[usize], images: &[f32], threads: usize| {
                    let options = on(isa, threads, deterministic);
                    bits(&ok(model.forward(Tensor::f32(images, shape), &options)))
                };
                let together = run(&shape, &images, 1);
                assert_eq!(together, run(&shape, &images, 2), "{}: threads", isa.name());
                for image in [0, 4, batch - 1] {
                    let alone = run(
                        &[1, 3, shape[2], shape[3]],
                        &images[image * one..(image + 1) * one],
                        2,
                    );
                    let classes = sizes.classes;
                    assert_eq!(together[image * classes..(image + 1) * classes], alone);
                }
            }
        }
    }
}

#[test]
fn instruction_sets_that_fuse_agree_and_so_does_what_is_deterministic() {
    for (model, sizes) in small() {
        let (shape, images) = sizes.images(2);
        let run = |isa, deterministic| {
            let options = on(isa, 1, deterministic);
            bits(&ok(model.forward(Tensor::f32(&images, &shape), &options)))
        };
        let all = Isa::available();
        let plain = run(all[0], true);
        for &isa in &all {
            assert_eq!(run(isa, true), plain, "{}", isa.name());
        }
        let fused: Vec<_> = all.iter().filter(|isa| isa.name() != "scalar").collect();
        for pair in fused.windows(2) {
            assert_eq!(run(*pair[0], false), run(*pair[1], false));
        }
    }
}

/// Works a job off in steps of `count` units, checking that its progress is sound.
fn step_through(job: &mut Work<'_>, count: usize) {
    let total = job.total();
    let mut done = job.done();
    assert_eq!(done, 0);
    let mut steps = 0;
    while job.done() < total {
        ok(job.step(count));
        assert!(
            job.done() >= done,
            "progress goes back from {done} to {}",
            job.done()
        );
        assert_eq!(job.total(), total);
        done = job.done();
        steps += 1;
        assert!(steps < 1_000_000, "the job does not end");
    }
    ok(job.step(count));
    assert_eq!(job.done(), total);
}

#[test]
fn slices_change_no_bit() {
    for (model, sizes) in small() {
        let (shape, images) = sizes.images(9);
        let options = DiffViTOptions::default();
        let whole = ok(model.forward(Tensor::f32(&images, &shape), &options));
        let maps = ok(model.maps(Tensor::f32(&images, &shape), 1, &options));
        for count in [1, 2, 7] {
            let mut logits = vec![f32::NAN; whole.len()];
            let job = ok(model.forward_job(Tensor::f32(&images, &shape), &options));
            let mut job = ok(job.into_work(DataMut::F32(&mut logits)));
            assert!(job.total() > 3 * sizes.depth);
            step_through(&mut job, count);
            drop(job);
            assert_eq!(bits(&logits), bits(&whole));
            let mut outputs = [(); 3].map(|()| vec![f32::NAN; maps.diff.len()]);
            let [first, second, diff] = &mut outputs;
            let job = ok(model.maps_job(Tensor::f32(&images, &shape), 1, &options));
            let mut job = ok(job.into_work(MapOutputs {
                terms: vec![first, second],
                diff,
            }));
            step_through(&mut job, count);
            drop(job);
            assert_eq!(outputs[..2], maps.terms);
            assert_eq!(outputs[2], maps.diff);
        }
    }
}

#[test]
fn no_image_is_no_work() {
    let case = Case::read();
    let options = DiffViTOptions::default();
    let none = || Tensor::f32(&[], &[0, 3, 64, 64]);
    assert!(ok(case.model.forward(none(), &options)).is_empty());
    assert!(ok(case.model.classify(none(), 1, &options)).is_empty());
    let maps = ok(case.model.maps(none(), 2, &options));
    assert_eq!(maps.shape, [0, 2, 17, 17]);
    assert!(maps.diff.is_empty());
}

#[test]
fn a_pixel_that_is_no_number_stays_within_its_image() {
    let case = Case::read();
    let options = DiffViTOptions::default();
    let whole = ok(case.model.forward(case.pixels(), &options));
    let mut images = case.images.clone();
    images[5] = f32::NAN;
    let logits = ok(case
        .model
        .forward(Tensor::f32(&images, &[2, 3, 64, 64]), &options));
    assert!(logits[..10].iter().all(|x| x.is_nan()));
    assert_eq!(bits(&logits[10..]), bits(&whole[10..]));
}

#[test]
fn a_job_needs_its_output() {
    let case = Case::read();
    let options = DiffViTOptions::default();
    let (mut short, mut halves) = (vec![0.0; 19], vec![0; 20]);
    let mut outputs = [(); 3].map(|()| vec![0.0; 2 * 2 * 17 * 17]);
    let job = ok(case.model.forward_job(case.pixels(), &options));
    assert_eq!(
        refusal(job.into_work(DataMut::F32(&mut short))),
        (
            "SHAPE",
            "out: expected 20 elements for shape [2, 10], got 19".to_owned()
        )
    );
    let job = ok(case.model.forward_job(case.pixels(), &options));
    assert_eq!(
        refusal(job.into_work(DataMut::F16(&mut halves))),
        ("DTYPE", "out: expected float32, got float16".to_owned())
    );
    let job = ok(case.model.maps_job(case.pixels(), 0, &options));
    let [first, second, diff] = &mut outputs;
    let job = ok(job.into_work(MapOutputs {
        terms: vec![first, second],
        diff,
    }));
    ok(job.finish());
}
