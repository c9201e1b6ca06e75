//! `Linear` in every format of weights: one row from memory as a share of what the machine reads,
//! and many rows as a share of its float32 multiply-adds. The best of some rounds, limits measured
//! between them.
//!
//! `cargo bench -p diffattn-bench --bench linear [-- ISA [THREADS]]`

#![expect(clippy::print_stdout, reason = "a bench tells what it found")]

use diffattn::{DType, Data, Error, Isa, Linear, Quantisation, Run, Tensor};
use diffattn_bench::{Limits, bench, halves, seconds_of};
use std::process::ExitCode;

/// Outputs, inputs: at four bits 75 MB, beyond the caches of most cores.
const LARGE: [usize; 2] = [24_576, 5_760];

/// Those of a small model's widest layer, and rows of a prompt.
const SMALL: [usize; 2] = [1_536, 576];
const ROWS: usize = 512;

const ROUNDS: usize = 7;

/// A format: how it is made of float16 or float32, and bits of a weight.
#[derive(Debug, Clone, Copy)]
enum Format {
    Float(DType),
    Coded(Quantisation),
}

impl Format {
    const ALL: [Self; 5] = [
        Self::Float(DType::F32),
        Self::Float(DType::F16),
        Self::Coded(Quantisation::Q8_0),
        Self::Coded(Quantisation::Q4_1),
        Self::Coded(Quantisation::Q4_0),
    ];

    fn bits(self) -> f64 {
        match self {
            Self::Float(dtype) => 8.0 * dtype.bytes() as f64,
            Self::Coded(Quantisation::Q8_0) => 8.5,
            Self::Coded(Quantisation::Q4_1) => 5.0,
            Self::Coded(Quantisation::Q4_0) => 4.5,
        }
    }

    fn linear(self, shape: [usize; 2]) -> Result<Linear, Error> {
        let bits = halves(shape[0] * shape[1]);
        let wide;
        let mut weight = Tensor {
            data: Data::F16(&bits),
            shape: shape.to_vec(),
        };
        match self {
            Self::Coded(to) => Linear::quantise(&weight, None, to),
            Self::Float(DType::F32) => {
                wide = weight.data.to_f32()?;
                weight.data = Data::F32(&wide);
                Linear::new(&weight, None)
            }
            Self::Float(_) => Linear::new(&weight, None),
        }
    }
}

fn fastest(linear: &Linear, rows: usize, run: Run) -> Result<f64, Error> {
    let x: Vec<f32> = (0..rows * linear.inputs())
        .map(|at| (at % 89) as f32 / 89.0 - 0.5)
        .collect();
    let mut y = vec![0.0; rows * linear.outputs()];
    seconds_of(|| linear.forward(&x, &mut y, run))
}

fn measure(isa: Isa, run: Run) -> Result<(), Error> {
    let mut limits = Limits::default();
    println!("{}, {} threads", isa.name(), run.threads());
    for format in Format::ALL {
        let (large, small) = (format.linear(LARGE)?, format.linear(SMALL)?);
        let (mut row, mut rows) = (f64::INFINITY, f64::INFINITY);
        let (mut read, mut fma) = (0.0_f64, 0.0_f64);
        for _ in 0..ROUNDS {
            row = row.min(fastest(&large, 1, run)?);
            rows = rows.min(fastest(&small, ROWS, run)?);
            read = read.max(limits.read(None, run.threads())?);
            fma = fma.max(Limits::fma(isa, run.threads()));
        }
        let bytes = (LARGE[0] * LARGE[1]) as f64 * format.bits() / 8.0 / row;
        let flops = (2 * SMALL[0] * SMALL[1] * ROWS) as f64 / rows;
        println!(
            "{format:?}: 1 row {:.2} ms, {:.1} GB/s of {:.1} ({:.2}); {ROWS} rows {:.0} Gop/s, FMA {:.0} ({:.2})",
            row * 1e3,
            bytes / 1e9,
            read / 1e9,
            bytes / read,
            flops / 1e9,
            fma / 1e9,
            flops / fma,
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    bench(measure)
}
