//! How fast a DIFF Llama is: tokens per second of a prompt and of greedy decoding, and how much of
//! that its linear maps alone take. Checks nothing.
//!
//! `cargo run --release -p diffattn-nn --features models --example llama_speed -- FOLDER [THREADS
//! [ISA]]`

#![expect(clippy::print_stdout, reason = "what it is for")]

use diffattn::{Data, Isa, Linear, Run, Tensor};
use diffattn_nn::checkpoint::Checkpoint;
use diffattn_nn::{
    DiffLlama, DiffLlamaConfig, DiffLlamaOptions, Generation, Generator, GeneratorOptions, Logits,
    ModelCacheOptions, TokenIds, Weight, WeightInfo, WeightSource,
};
use std::error::Error;
use std::time::Instant;

const PROMPT: usize = 64;
const NEW: usize = 64;
const PREFILL: usize = 512;
const ROUNDS: usize = 9;

/// A checkpoint file in memory, read weight by weight.
struct Source<'b>(Checkpoint<&'b [u8]>);

impl WeightSource<'static> for Source<'_> {
    fn entries(&self) -> Result<Vec<WeightInfo>, diffattn::Error> {
        let entries = self.0.entries().iter().map(|entry| WeightInfo {
            name: entry.name.clone(),
            dtype: entry.dtype,
            shape: entry.shape.clone(),
        });
        Ok(entries.collect())
    }

    fn read(&mut self, name: &str) -> Result<Option<Weight<'static>>, diffattn::Error> {
        let Some(_) = self.0.header().get(name) else {
            return Ok(None);
        };
        let raw = self.0.raw(name)?.into_owned()?;
        Ok(Some(raw.into_floats(name)?.into()))
    }
}

/// The median of some rounds, in seconds.
fn median(mut round: impl FnMut() -> Result<f64, diffattn::Error>) -> Result<f64, diffattn::Error> {
    let mut seconds = Vec::new();
    for _ in 0..ROUNDS {
        seconds.push(round()?);
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[ROUNDS / 2])
}

/// Seconds of all linear maps of the model on `rows` rows, the output projection on `last` of them.
fn linear_maps(
    config: &DiffLlamaConfig,
    [rows, last]: [usize; 2],
    run: Run,
) -> Result<f64, diffattn::Error> {
    let (hidden, wide) = (
        config.hidden_size,
        config.num_attention_heads * config.head_dim,
    );
    let narrow = config.num_key_value_heads * config.head_dim;
    let layer = [
        [hidden, wide],
        [hidden, narrow],
        [hidden, narrow],
        [wide, hidden],
        [hidden, config.intermediate_size],
        [hidden, config.intermediate_size],
        [config.intermediate_size, hidden],
    ];
    let mut maps = Vec::new();
    for _ in 0..config.num_hidden_layers {
        maps.extend(layer.map(|sizes| (sizes, rows)));
    }
    maps.push(([hidden, config.vocab_size], last));
    let mut made = Vec::new();
    for ([inputs, outputs], rows) in maps {
        let weight = vec![0x3c00; inputs * outputs];
        let weight = Tensor {
            data: Data::Bf16(&weight),
            shape: vec![outputs, inputs],
        };
        let (x, y) = (vec![0.5; rows * inputs], vec![0.0; rows * outputs]);
        made.push((Linear::new(&weight, None)?, x, y));
    }
    median(|| {
        let start = Instant::now();
        for (linear, x, y) in &mut made {
            linear.forward(x, y, run)?;
        }
        Ok(start.elapsed().as_secs_f64())
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .ok_or("the folder of a checkpoint is wanted")?;
    let threads = arguments.next().map_or(Ok(1), |threads| threads.parse())?;
    let isa = arguments
        .next()
        .map_or_else(|| Ok(Isa::detect()), |name| Isa::named(&name))?;
    let folder = std::path::Path::new(&folder);
    let config = std::fs::read_to_string(folder.join("config.json"))?;
    let config = DiffLlamaConfig::from_json(&config)?;
    let bytes = std::fs::read(folder.join("model.safetensors"))?;
    let start = Instant::now();
    let mut checkpoint = Source(Checkpoint::open("model.safetensors", &bytes[..])?);
    let model = DiffLlama::load(&config, &mut checkpoint)?;
    println!("load     {:8.1} ms", start.elapsed().as_secs_f64() * 1e3);

    let ids: Vec<u32> = (0..PREFILL)
        .map(|i| (i * 7919 % config.vocab_size) as u32)
        .collect();
    let options = DiffLlamaOptions {
        logits: Logits::Last,
        run: on(isa, threads),
        ..DiffLlamaOptions::default()
    };
    let mut caches = [model.cache(&ModelCacheOptions {
        capacity: PREFILL,
        window: None,
        ..ModelCacheOptions::default()
    })?];
    let seconds = median(|| {
        caches[0].clear();
        let start = Instant::now();
        model.forward(
            TokenIds::u32(&ids, &[1, PREFILL]),
            Some(&mut caches),
            &options,
        )?;
        Ok(start.elapsed().as_secs_f64())
    })?;
    let alone = linear_maps(&config, [PREFILL, 1], on(isa, threads))?;
    println!(
        "prefill  {:8.1} tokens/s ({PREFILL} tokens, {:.2} ms; linear maps alone {:.2} ms)",
        PREFILL as f64 / seconds,
        seconds * 1e3,
        alone * 1e3
    );

    let generation = Generation {
        prompt: ids[..PROMPT].to_vec(),
        max_new_tokens: NEW + 1,
        stop_ids: Some(Vec::new()),
        ..Generation::default()
    };
    let run = GeneratorOptions {
        run: on(isa, threads),
        ..GeneratorOptions::default()
    };
    for texts in [1, 8] {
        let seconds = median(|| {
            let mut generator = Generator::new(&model, vec![generation.clone(); texts], &run)?;
            generator.step()?;
            let start = Instant::now();
            while !generator.is_finished() {
                generator.step()?;
            }
            Ok(start.elapsed().as_secs_f64() / NEW as f64)
        })?;
        let alone = linear_maps(&config, [texts, texts], on(isa, threads))?;
        println!(
            "decode   {:8.1} tokens/s ({texts} texts after {PROMPT} tokens, {:.3} ms a step; linear maps alone {:.3} ms)",
            texts as f64 / seconds,
            seconds * 1e3,
            alone * 1e3
        );
    }
    Ok(())
}

fn on(isa: Isa, threads: usize) -> Run {
    Run::new(Some(isa), Some(threads), false).unwrap_or_else(|error| panic!("{error}"))
}
