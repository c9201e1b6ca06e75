//! Criterion benches of the crate alone: one thread, the cases of `bench/cases.json`, only calls on
//! tensors that are ready. What divides by limits or compares with peers is `bench/run.mjs`.
//!
//! `cargo bench [-- --isa avx2] [criterion's own arguments]`

use criterion::{BenchmarkId, Criterion, Throughput};
use diffattn::{Error, Isa};
use diffattn_bench::{Loaded, cases};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Where `--isa` goes: criterion refuses an argument that it does not know.
const ISA: &str = "DIFFATTN_BENCH_ISA";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().position(|argument| argument == "--isa") {
        Some(at) => {
            let isa = arguments.drain(at..arguments.len().min(at + 2)).nth(1);
            again(isa.unwrap_or_default(), &arguments)
        }
        None => measure().map_err(|error| error.to_string()),
    };
    done.map_or_else(
        |error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

/// Runs this program without `--isa`, which the environment carries instead.
fn again(isa: String, arguments: &[String]) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let status = Command::new(program)
        .args(arguments)
        .env(ISA, isa)
        .status()
        .map_err(|error| error.to_string())?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("the benches ended with {status}"))
    }
}

fn measure() -> Result<(), Error> {
    let isa = std::env::var(ISA).map_or_else(|_| Ok(Isa::detect()), |name| Isa::named(&name))?;
    let cases = cases().map_err(|error| Error::option("cases.json", "cases", error.to_string()))?;
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .configure_from_args();
    let mut group = criterion.benchmark_group(isa.name());
    for case in cases {
        // A case that the filter leaves out must not cost its inputs.
        let mut loaded = None;
        let mut failed = None;
        group.throughput(case.flops().map_or_else(
            || Throughput::Bytes(case.bytes() as u64),
            |flops| Throughput::Elements(flops as u64),
        ));
        group.bench_function(
            BenchmarkId::from_parameter(&case.id),
            |bencher| match loaded.take().map_or_else(|| Loaded::new(&case, isa, 1), Ok) {
                Ok(ready) => {
                    let ready = loaded.insert(ready);
                    bencher.iter(|| failed = failed.take().or(ready.call().err()));
                }
                Err(error) => failed = Some(error),
            },
        );
        if let Some(error) = failed {
            return Err(error);
        }
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
