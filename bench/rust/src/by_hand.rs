//! What the benches that are no criterion's share: their arguments, their end, and weights to
//! measure with.

use diffattn::{Error, Isa, Run};
use std::process::ExitCode;

/// Runs `measure` as `-- ISA [THREADS]` says, by default on the best instruction set and one thread;
/// an error is told. A test of all targets starts benches, too, without the word that `cargo bench`
/// gives, and then nothing is measured.
pub fn bench(measure: impl FnOnce(Isa, Run) -> Result<(), Error>) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--bench") {
        return ExitCode::SUCCESS;
    }
    let mut words = words.iter().filter(|word| *word != "--bench");
    let isa = words
        .next()
        .map_or_else(|| Ok(Isa::detect()), |name| Isa::named(name));
    let threads = words.next().and_then(|threads| threads.parse().ok());
    let measured = isa.and_then(|isa| {
        let run = Run::new(Some(isa), threads.or(Some(1)), false)?;
        measure(isa, run)
    });
    measured.map_or_else(
        |error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

/// So many numbers as float16 bits, between 0.25 and 0.5, of both signs.
#[must_use]
pub fn halves(count: usize) -> Vec<u16> {
    let bits = (0..count).map(|at| {
        let noise = (at as u32).wrapping_mul(0x9e37_79b9) >> 16;
        0x3400 | (noise & 0x83ff) as u16
    });
    bits.collect()
}
