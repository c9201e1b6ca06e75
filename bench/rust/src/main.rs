//! Prints useful GFLOP/s ÷ FMA peak of causal differential attention, both measured in turn in this process,
//! per instruction set. Checks the answer against the scalar path first. No allocation is timed.
//!
//! `cargo run --release -p diffattn-bench -- [--isa NAME] [--threads N] [L ...]`

#![expect(clippy::print_stdout, reason = "a program that prints")]

use diffattn::{
    AttentionOptions, DataMut, DiffAttention, Error, Isa, KeysValues, Lambda, Slices, Tensor,
    fma_flops,
};
use std::time::Instant;

/// Measurements of each thing; the median counts.
const RUNS: usize = 7;

struct Case {
    heads: usize,
    length: usize,
    d: usize,
    dv: usize,
}

/// Values in −1…1 that need no random numbers: a golden-ratio sequence.
fn values(len: usize, seed: f64) -> Vec<f32> {
    (0..len)
        .map(|i| (((i as f64 + seed) * 0.618_033_988_749_895).fract() * 2.0 - 1.0) as f32)
        .collect()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn attention(
    case: &Case,
    isa: Isa,
    threads: usize,
    inputs: &[Vec<f32>; 3],
    out: &mut [f32],
) -> Result<f64, Error> {
    let &Case {
        heads,
        length,
        d,
        dv,
    } = case;
    let options = AttentionOptions {
        lambda: Some(Lambda::Value(0.35)),
        is_causal: true,
        isa: Some(isa),
        threads: Some(threads),
        ..AttentionOptions::default()
    };
    let flat = [1, 2 * heads, length, d];
    let start = Instant::now();
    let mut call = DiffAttention::new(
        Tensor::f32(&inputs[0], &flat),
        KeysValues::Tensors {
            k: Tensor::f32(&inputs[1], &flat),
            v: Tensor::f32(&inputs[2], &[1, heads, length, dv]),
        },
        &options,
    )?;
    call.bind(DataMut::F32(out), None)?;
    call.finish()?;
    Ok(start.elapsed().as_secs_f64())
}

fn peak(isa: Isa, threads: usize) -> f64 {
    let rounds = if isa.name() == "scalar" {
        1 << 19
    } else {
        1 << 21
    };
    let start = Instant::now();
    // One of them is this thread: a core that slept meanwhile would begin its next call at a lower clock.
    let flops: f64 = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|_| scope.spawn(move || fma_flops(isa, rounds)))
            .collect();
        let own = fma_flops(isa, rounds);
        let joined = others.into_iter().map(|one| one.join().unwrap_or(0.0));
        own + joined.sum::<f64>()
    });
    flops / start.elapsed().as_secs_f64()
}

fn main() -> Result<(), Error> {
    let mut isas: Vec<Isa> = Isa::available()
        .into_iter()
        .filter(|isa| isa.name() != "scalar")
        .collect();
    let (mut threads, mut lengths) = (1, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--isa" => isas = vec![Isa::named(&arguments.next().unwrap_or_default())?],
            "--threads" => threads = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1),
            length => lengths.push(
                length
                    .parse()
                    .map_err(|_| Error::option("length", "a number", length))?,
            ),
        }
    }
    if lengths.is_empty() {
        lengths = vec![512, 2048];
    }
    println!("isa      threads     L    d   dv   GFLOP/s     peak   share");
    for isa in isas {
        for &length in &lengths {
            for (d, dv) in [(64, 128), (32, 64)] {
                let case = Case {
                    heads: 8,
                    length,
                    d,
                    dv,
                };
                let inputs =
                    [2 * d, 2 * d, dv].map(|width| values(8 * length * width, width as f64 * 0.37));
                let mut out = vec![0.0; 8 * length * dv];
                if length <= 2048 {
                    check(&case, isa, threads, &inputs, &mut out)?;
                }
                let useful = (length * (length + 1)) as f64 * 8.0 * (2 * d + dv) as f64;
                let (mut times, mut peaks) = (Vec::new(), Vec::new());
                for _ in 0..RUNS {
                    peaks.push(peak(isa, threads));
                    times.push(attention(&case, isa, threads, &inputs, &mut out)?);
                }
                let (rate, peak) = (useful / median(times) / 1e9, median(peaks) / 1e9);
                println!(
                    "{:8} {threads:7} {length:5} {d:4} {dv:4} {rate:9.1} {peak:8.1} {:7.3}",
                    isa.name(),
                    rate / peak
                );
            }
        }
    }
    Ok(())
}

/// The answer agrees with the scalar path, which the tests hold against float64.
fn check(
    case: &Case,
    isa: Isa,
    threads: usize,
    inputs: &[Vec<f32>; 3],
    out: &mut [f32],
) -> Result<(), Error> {
    let mut expected = vec![0.0; out.len()];
    attention(case, isa, threads, inputs, out)?;
    attention(case, Isa::named("scalar")?, threads, inputs, &mut expected)?;
    let worst = out
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    if worst < 1e-5 {
        Ok(())
    } else {
        Err(Error::Internal(format!(
            "{} differs from scalar by {worst}",
            isa.name()
        )))
    }
}
