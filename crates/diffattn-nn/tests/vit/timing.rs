//! Milliseconds per image of a model of timm's sizes with random weights; run by hand.

use crate::common::{Sizes, borrowed, ok, on};
use diffattn::{DataMut, Isa, Slices, Tensor};
use diffattn_nn::{DiffViT, DiffViTArchitecture, DiffViTConfig};
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
                let rounds = if isa.name() == "scalar" { 2 } else { 9 };
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
                let mut job = ok(model.forward_job(pixels, &options));
                ok(job.bind(DataMut::F32(&mut logits)));
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
