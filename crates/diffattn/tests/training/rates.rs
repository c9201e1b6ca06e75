//! What training's operators cost beside what bounds them. Not a check, so it is left out:
//!
//! `cargo test --release -p diffattn --test training -- --ignored --nocapture --test-threads 1`

use std::time::Instant;

use diffattn::{
    AdamW, CrossEntropyOptions, HeadGradients, Isa, Linear, LinearGradients, Parameters,
    Quantisation, Run, Tensor, fma_flops, gradient_norm, linear_backward, linear_cross_entropy,
};
use diffattn_reference::testing::{noise, ok};

use super::support::on;

const ROUNDS: usize = 9;

/// Median seconds of each, measured in turn, each long enough to be timed.
fn medians<const N: usize>(mut works: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut times = [const { Vec::new() }; N];
    for _ in 0..ROUNDS {
        for (work, times) in works.iter_mut().zip(&mut times) {
            let start = Instant::now();
            let mut count = 0;
            while start.elapsed().as_secs_f64() < 0.03 {
                work();
                count += 1;
            }
            times.push(start.elapsed().as_secs_f64() / f64::from(count));
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    })
}

fn gradients<'g>(dx: Option<&'g mut [f32]>, dweight: Option<&'g mut [f32]>) -> LinearGradients<'g> {
    LinearGradients {
        dx,
        dweight,
        ..LinearGradients::default()
    }
}

fn linear_rates([inputs, outputs, rows]: [usize; 3], run: Run) {
    let shape = [outputs, inputs];
    let weight = noise(inputs * outputs, 1);
    let weight = Tensor::f32(&weight, &shape);
    let mut linear = ok(Linear::new(&weight, None));
    let turned = ok(Linear::pack_transposed(&weight));
    let q8 = (inputs % 32 == 0).then(|| ok(Linear::quantise(&weight, None, Quantisation::Q8_0)));
    let (x, dy) = (noise(inputs * rows, 2), noise(outputs * rows, 3));
    let mut y = vec![0.0; outputs * rows];
    let [mut dx, mut dx_turned, mut dx_q8] = [const { Vec::new() }; 3];
    for dx in [&mut dx, &mut dx_turned, &mut dx_q8] {
        dx.resize(inputs * rows, 0.0);
    }
    let mut dweight = vec![0.0; inputs * outputs];
    let mut flops = 0.0;
    let times = medians([
        &mut || flops = fma_flops(run.isa(), 1 << 20),
        &mut || ok(linear.forward(&x, &mut y, run)),
        &mut || {
            ok(linear_backward(
                &linear,
                &dy,
                &x,
                gradients(Some(&mut dx), None),
                run,
            ))
        },
        &mut || ok(turned.forward(&dy, &mut dx_turned, run)),
        &mut || {
            if let Some(q8) = &q8 {
                ok(linear_backward(
                    q8,
                    &dy,
                    &x,
                    gradients(Some(&mut dx_q8), None),
                    run,
                ));
            }
        },
        &mut || {
            ok(linear_backward(
                &linear,
                &dy,
                &x,
                gradients(None, Some(&mut dweight)),
                run,
            ))
        },
    ]);
    let [repack] = medians([&mut || ok(linear.repack(&weight, None))]);
    let work = 2.0 * (inputs * outputs * rows) as f64;
    let rate = |seconds: f64| work / seconds / 1e9;
    let [peak, forward, dx, dx_turned, dx_q8, dweight] = times;
    let both = 2.0 * work / (dx + dweight) / 1e9;
    eprintln!(
        "{inputs} x {outputs} x {rows}, {}, {} threads: peak {:.0}, forward {:.1}, dx {:.1} (packed \
         transposed {:.1}, q8 {:.1}), dW {:.1}, both {both:.1} = {:.2} of forward; repack {:.2} ms",
        run.isa().name(),
        run.threads(),
        flops / peak / 1e9,
        rate(forward),
        rate(dx),
        rate(dx_turned),
        rate(dx_q8),
        rate(dweight),
        both / rate(forward),
        repack * 1e3,
    );
}

#[test]
#[ignore = "measures"]
fn linear() {
    let shapes = [
        [256, 256, 2048],
        [256, 1024, 2048],
        [1024, 256, 2048],
        [256, 4096, 512],
        [768, 768, 1024],
        [768, 3072, 1024],
        [1024, 1024, 512],
        [256, 256, 256],
    ];
    for isa in Isa::available().into_iter().skip(1) {
        for threads in [1, 2] {
            for shape in shapes {
                linear_rates(shape, on(isa, threads, false));
            }
        }
    }
}

/// A head's loss and gradients as a share of its three products' time.
#[test]
#[ignore = "measures"]
fn head() {
    for [inputs, vocabulary, rows] in [[256, 4096, 512], [768, 32_000, 256]] {
        for isa in Isa::available().into_iter().skip(1) {
            for threads in [1, 2] {
                let run = on(isa, threads, false);
                let weight = noise(inputs * vocabulary, 1);
                let head = ok(Linear::new(
                    &Tensor::f32(&weight, &[vocabulary, inputs]),
                    None,
                ));
                let hidden = noise(inputs * rows, 2);
                let labels: Vec<i32> = (0..rows as i32).collect();
                let options = CrossEntropyOptions {
                    run,
                    ..CrossEntropyOptions::default()
                };
                let (mut dhidden, mut dweight) = (hidden.clone(), weight.clone());
                let mut logits = vec![0.0; rows * vocabulary];
                let [forward, all] = medians([
                    &mut || ok(head.forward(&hidden, &mut logits, run)),
                    &mut || {
                        let gradients = HeadGradients {
                            dhidden: Some(&mut dhidden),
                            dweight: Some(&mut dweight),
                            ..HeadGradients::default()
                        };
                        ok(linear_cross_entropy(
                            &head, &hidden, &labels, gradients, &options,
                        ));
                    },
                ]);
                let work = 2.0 * (inputs * vocabulary * rows) as f64 / 1e9;
                eprintln!(
                    "head {inputs} x {vocabulary} x {rows}, {}, {threads} threads: forward {:.1} \
                     GFLOP/s, loss and gradients {:.1} = {:.2}",
                    isa.name(),
                    work / forward,
                    3.0 * work / all,
                    3.0 * forward / all,
                );
            }
        }
    }
}

/// AdamW, by its 28 bytes a parameter, against the bandwidth of a copy, which reads and writes.
#[test]
#[ignore = "measures"]
fn adamw() {
    for len in [7 << 20, 32 << 20] {
        let (mut p, g) = (noise(len, 1), noise(len, 2));
        let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
        let mut copy = vec![0.0_f32; len];
        for isa in Isa::available() {
            for threads in [1, 2] {
                let run = on(isa, threads, false);
                let from = g.clone();
                let [copied, stepped, norm] = medians([
                    &mut || copy.copy_from_slice(&from),
                    &mut || {
                        let of = Parameters {
                            parameters: &mut p,
                            gradients: &g,
                            first_moments: &mut m,
                            second_moments: &mut v,
                        };
                        ok(AdamW::default().step(3, of, 0.5, run));
                    },
                    &mut || assert!(ok(gradient_norm(&[&g], run)) > 0.0),
                ]);
                let rate = |bytes: usize, seconds: f64| (bytes * len) as f64 / seconds / 1e9;
                eprintln!(
                    "adamw {len}, {}, {threads} threads: copy {:.1} GB/s, step {:.1} = {:.2}; norm \
                     {:.1} GB/s",
                    isa.name(),
                    rate(8, copied),
                    rate(28, stepped),
                    rate(28, stepped) / rate(8, copied),
                    rate(4, norm),
                );
            }
        }
    }
}
