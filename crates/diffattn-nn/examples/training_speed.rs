//! How long a step of training takes: a DIFF Llama of the examples' sizes (7M parameters) from
//! nothing, float32, AdamW. Prints seconds a step (median), tokens a second, and the counted
//! multiply-adds over the FMA peak. Checks nothing.
//!
//! `cargo run --release -p diffattn-nn --features training --example training_speed -- [ROWS
//! [LENGTH [THREADS [ISA [RECOMPUTE]]]]]`

#![expect(clippy::print_stdout, reason = "what it is for")]

use diffattn::{AdamW, Isa, Run, fma_flops};
use diffattn_nn::training::{
    LossOptions, Recompute, TrainingBatch, TrainingModel, TrainingOptions,
};
use diffattn_nn::{DiffLlama, DiffLlamaConfig};
use std::error::Error;
use std::time::Instant;

const STEPS: usize = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: usize| {
        arguments
            .get(index)
            .map_or(Ok(default), |text| text.parse())
    };
    let (rows, length, threads) = (number(0, 8)?, number(1, 256)?, number(2, 1)?);
    let isa = match arguments.get(3) {
        Some(name) => Isa::named(name)?,
        None => Isa::detect(),
    };
    let recompute = match arguments.get(4).map(String::as_str) {
        Some("layers") => Recompute::Layers,
        Some("mlps") => Recompute::Mlps,
        _ => Recompute::Nothing,
    };
    let run = Run::new(Some(isa), Some(threads), false)?;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/model");
    let config = std::fs::read_to_string(folder.join("config.json"))?;
    let config = DiffLlamaConfig::from_json(&config)?;
    let options = TrainingOptions {
        run,
        recompute,
        ..TrainingOptions::default()
    };
    let mut training = TrainingModel::new(DiffLlama::fresh(&config, 0)?, &options)?;
    let ids: Vec<u32> = (0..rows * length)
        .map(|i| (i * 7919 % config.vocab_size) as u32)
        .collect();
    let batch = TrainingBatch::new(&ids, length, None, None)?;
    let mut seconds = Vec::new();
    for step in 1..=STEPS as u64 {
        let start = Instant::now();
        training.begin();
        let loss = training.add(&batch, &LossOptions::default())?;
        training.step(step, &AdamW::default(), Some(1.0))?;
        let took = start.elapsed().as_secs_f64();
        println!("step {step}: loss {:.4}, {took:.3} s", loss.loss);
        seconds.push(took);
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[STEPS / 2];
    let tokens = (rows * length) as f64;
    // Maps three times, attention 4 d forward and 10 d backward per pair and head.
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let wide = config.num_attention_heads * config.head_dim;
    let narrow = config.num_key_value_heads * config.head_dim;
    let layer = 2 * hidden * wide + 2 * hidden * narrow + 3 * hidden * inner;
    let maps = config.num_hidden_layers * layer + hidden * config.vocab_size;
    let pairs = tokens * (length + 1) as f64 / 2.0;
    let heads = config.num_hidden_layers * config.num_heads();
    let macs = 3.0 * maps as f64 * tokens + 14.0 * (config.head_dim * heads) as f64 * pairs;
    let _ = fma_flops(isa, 1 << 22);
    let start = Instant::now();
    let peak = fma_flops(isa, 1 << 22) / start.elapsed().as_secs_f64() / 2.0;
    println!(
        "{rows} × {length}, {} threads, {}: {median:.3} s a step, {:.0} tokens/s, {:.1} GFLOP/s, {:.2} of the peak",
        threads,
        isa.name(),
        tokens / median,
        2e-9 * macs / median,
        macs / median / peak / threads as f64
    );
    Ok(())
}
