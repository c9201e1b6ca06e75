//! A subject of `bench/run.mjs`: the bare crate, natively, and the machine's limits. With
//! `--reference` instead the answers in float64. `bench/README.md` is the protocol.
//!
//! `cargo run --release -p diffattn-bench [-- --reference]`

use base64::{Engine, prelude::BASE64_STANDARD};
use diffattn::{Error, Isa};
use diffattn_bench::reference::{self, Results};
use diffattn_bench::{Case, Limits, Loaded, seconds_of};
use peak_alloc::PeakAlloc;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::time::Instant;

/// Counts what is allocated, for `scratch`; two atomic additions per allocation, of which a call
/// makes few.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Request {
    Info,
    /// Every case has the same.
    Variants {},
    Load {
        case: Case,
        variant: Option<String>,
        #[serde(flatten)]
        on: On,
    },
    Run {
        /// Seconds of calls before, one right after the other.
        #[serde(default)]
        after: f64,
    },
    Answer {
        /// Which result, where there are several.
        of: Option<String>,
        at: Vec<usize>,
    },
    Limit {
        what: Limit,
        bytes: Option<usize>,
        #[serde(flatten)]
        on: On,
    },
    Scratch {
        case: Case,
        #[serde(flatten)]
        on: On,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Limit {
    Fma,
    Read,
    Copy,
}

/// What a call runs on.
#[derive(Deserialize)]
struct On {
    isa: Option<String>,
    threads: Option<usize>,
}

impl On {
    fn isa(&self) -> Result<Isa, Error> {
        self.isa
            .as_deref()
            .map_or_else(|| Ok(Isa::detect()), Isa::named)
    }

    fn threads(&self) -> usize {
        self.threads.unwrap_or(1).max(1)
    }
}

/// The only way in which this subject does a case.
const VARIANT: &str = "bare";

#[derive(Default)]
struct Subject {
    loaded: Option<Loaded>,
    limits: Limits,
}

impl Subject {
    fn reply(&mut self, request: Request) -> Result<Value, Error> {
        match request {
            Request::Info => {
                let isas: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
                Ok(json!({
                    "name": "diffattn crate",
                    "version": env!("CARGO_PKG_VERSION"),
                    "runtime": "native",
                    "isas": isas,
                    "notes": [format!("instruction sets: {}", isas.join(", "))],
                }))
            }
            Request::Variants { .. } => Ok(json!({ "variants": [VARIANT] })),
            Request::Load { case, variant, on } => {
                self.loaded = None;
                if let Some(other) = variant.filter(|name| name != VARIANT) {
                    return Err(Error::option("variant", VARIANT, other));
                }
                let mut loaded = Loaded::new(&case, on.isa()?, on.threads())?;
                loaded.call()?;
                self.loaded = Some(loaded);
                Ok(json!({}))
            }
            Request::Run { after } => {
                let loaded = self.loaded()?;
                let begun = Instant::now();
                while begun.elapsed().as_secs_f64() < after {
                    loaded.call()?;
                }
                let seconds = seconds_of(|| loaded.call())?;
                Ok(json!({ "seconds": seconds }))
            }
            Request::Answer { of, at } => {
                let out = self.loaded()?.answer(of.as_deref())?;
                let values: Option<Vec<f32>> = at.iter().map(|&i| out.get(i).copied()).collect();
                let values =
                    values.ok_or_else(|| Error::option("at", "indices of the result", "others"))?;
                Ok(json!({ "values": encoded(values) }))
            }
            Request::Limit { what, bytes, on } => {
                let per_second = match what {
                    Limit::Fma => Limits::fma(on.isa()?, on.threads()),
                    Limit::Read => self.limits.read(bytes, on.threads())?,
                    Limit::Copy => self.limits.copy(bytes, on.threads())?,
                };
                Ok(json!({ "perSecond": per_second }))
            }
            Request::Scratch { case, on } => {
                self.loaded = None;
                let mut loaded = Loaded::new(&case, on.isa()?, on.threads())?;
                // What the crate keeps of earlier calls counts too: this is asked first in a
                // process.
                let others = PeakAlloc.current_usage();
                PeakAlloc.reset_peak_usage();
                loaded.call()?;
                Ok(json!({ "bytes": PeakAlloc.peak_usage() - others }))
            }
        }
    }

    fn loaded(&mut self) -> Result<&mut Loaded, Error> {
        self.loaded
            .as_mut()
            .ok_or_else(|| Error::option("load", "a case that is loaded", "none"))
    }
}

/// The float64 subject: knows what is loaded, computes when it is asked.
#[derive(Default)]
struct Reference {
    case: Option<Case>,
    /// All results of a case that has several, once one was asked for.
    results: Option<Results>,
}

impl Reference {
    fn reply(&mut self, request: Request) -> Result<Value, Error> {
        match request {
            Request::Info => Ok(json!({
                "name": "diffattn-reference",
                "version": env!("CARGO_PKG_VERSION"),
                "runtime": "native",
                "notes": ["float64"],
            })),
            Request::Variants { .. } => Ok(json!({ "variants": [VARIANT] })),
            Request::Load { case, .. } => {
                self.case = Some(case);
                self.results = None;
                Ok(json!({}))
            }
            Request::Answer { of, at } => {
                let missing = || Error::option("load", "a case that is loaded", "none");
                let case = self.case.as_ref().ok_or_else(missing)?;
                let values = match of {
                    None => reference::values(case, &at),
                    Some(name) => {
                        let all = self.results.get_or_insert_with(|| reference::results(case));
                        let found = all.iter().find(|(one, _)| *one == name);
                        let missing = || Error::option("of", "the name of a result", &name);
                        let (_, values) = found.ok_or_else(missing)?;
                        at.iter().map(|&i| values[i]).collect()
                    }
                };
                let rounded = values.into_iter().map(|value| value as f32).collect();
                Ok(json!({ "values": encoded(rounded) }))
            }
            _ => Err(Error::option("do", "load or answer", "another request")),
        }
    }
}

/// float32 values, little-endian, base64.
fn encoded(values: Vec<f32>) -> String {
    let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
    BASE64_STANDARD.encode(bytes)
}

fn main() -> std::io::Result<()> {
    let mut subject = Subject::default();
    let mut oracle = std::env::args()
        .any(|argument| argument == "--reference")
        .then(Reference::default);
    let mut replies = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let reply = serde_json::from_str(&line)
            .map_err(|error| error.to_string())
            .and_then(|request| {
                let reply = match &mut oracle {
                    Some(oracle) => oracle.reply(request),
                    None => subject.reply(request),
                };
                reply.map_err(|error| error.to_string())
            })
            .unwrap_or_else(|error| json!({ "error": error }));
        writeln!(replies, "{reply}")?;
        replies.flush()?;
    }
    Ok(())
}
