//! Milliseconds per image of a model of timm's sizes with random weights; run by hand.

use crate::common::{Sizes, borrowed, ok, on, values};
use diffattn::{DataMut, Isa, LayerNormOptions, Linear, Run, Tensor, gelu, layer_norm};
use diffattn_nn::{DiffViT, DiffViTArchitecture, DiffViTConfig, ForwardOptions};
use std::time::Instant;

#[test]
#[ignore = "measures; run alone, in release, with --nocapture"]
#[expect(clippy::print_stdout, reason = "a measurement tells what it found")]
fn milliseconds_per_image() {
    for architecture in DiffViTArchitecture::ALL {
        let sizes = Sizes::full(architecture);
        let config = DiffViTConfig::new(architecture);
        let model = ok(DiffViT::new(&config, &borrowed(&sizes.weights())));
        let (shape, images) = sizes.images(1);
        for isa in Isa::available() {
            for threads in [1, 2] {
                let options = on(isa, threads, false);
                let rounds = if isa.name() == "scalar" { 1 } else { 7 };
                let mut times: Vec<f64> = (0..rounds)
                    .map(|_| {
                        let start = Instant::now();
                        let pixels = Tensor::f32(&images, &shape);
                        assert!(
                            ok(model.forward(pixels, &options))
                                .iter()
                                .all(|x| x.is_finite())
                        );
                        start.elapsed().as_secs_f64() * 1e3
                    })
                    .collect();
                times.sort_by(f64::total_cmp);
                // The longest slice of one unit.
                let mut logits = vec![0.0; sizes.classes];
                let pixels = Tensor::f32(&images, &shape);
                let job = ok(model.forward_job(pixels, &options));
                let mut job = ok(job.into_work(DataMut::F32(&mut logits)));
                let mut longest = 0.0f64;
                while job.done() < job.total() {
                    let start = Instant::now();
                    ok(job.step(1));
                    longest = longest.max(start.elapsed().as_secs_f64() * 1e3);
                }
                println!(
                    "{} {} threads {threads}: {:.1} ms (best {:.1}), {} units, longest {longest:.2} ms",
                    architecture.name(),
                    isa.name(),
                    times[times.len() / 2],
                    times[0],
                    job.total()
                );
            }
        }
    }
}

/// The median of some runs, in milliseconds.
fn median(mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..15)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[test]
#[ignore = "measures; run alone, in release, with --nocapture"]
#[expect(clippy::print_stdout, reason = "a measurement tells what it found")]
fn where_the_time_goes() {
    let sizes = Sizes::full(DiffViTArchitecture::Wee);
    let config = DiffViTConfig::new(sizes.architecture);
    let stored = sizes.weights();
    let model = ok(DiffViT::new(&config, &borrowed(&stored)));
    let (rows, width, hidden) = (257, sizes.embed_dim, sizes.hidden);
    let blocks = sizes.depth as f64;
    let linear = |name: &str| {
        let (shape, data) = &stored[name];
        ok(Linear::new(&Tensor::f32(data, shape), None))
    };
    let fc1 = linear("blocks.0.mlp.fc1.weight");
    let fc2 = linear("blocks.0.mlp.fc2.weight");
    let x = values(5, rows * width, 1.5);
    let (mut outer, mut inner) = (vec![0.0; rows * width], values(6, rows * hidden, 3.0));
    for isa in Isa::available() {
        if isa.name() == "scalar" {
            continue;
        }
        let run = ok(Run::new(Some(isa), Some(1), false));
        let layer = ForwardOptions {
            run,
            ..ForwardOptions::default()
        };
        let attention = model.attention(0).map_or(0.0, |attention| {
            median(|| {
                let x = Tensor::f32(&x, &[1, rows, width]);
                assert!(ok(attention.forward(x, None, &layer))[0].is_finite());
            })
        });
        let first = median(|| ok(fc1.forward(&x, &mut inner, run)));
        let activation = median(|| gelu(&mut inner, run));
        let second = median(|| ok(fc2.forward(&inner, &mut outer, run)));
        let norm = median(|| {
            let options = LayerNormOptions {
                run,
                ..LayerNormOptions::default()
            };
            ok(layer_norm(
                Tensor::f32(&x, &[rows, width]),
                &mut outer,
                &options,
            ));
        });
        println!(
            "{}: attention {:.1}, fc1 {:.1}, gelu {:.1}, fc2 {:.1}, norms {:.1} ms of an image",
            isa.name(),
            attention * blocks,
            first * blocks,
            activation * blocks,
            second * blocks,
            norm * 2.0 * blocks
        );
    }
}
