//! Writes what a DIFF Llama adds to a prompt, as it comes:
//!
//!     cargo run --release -- MODEL "Returns the number of" 6
//!
//! MODEL is a folder as Hugging Face has it, with its weights in one file. Takes the likeliest
//! token each time.

use diffattn_nn::checkpoint::{Checkpoint, FileRanges, MODEL_FILE, borrow_weights, float_weights};
use diffattn_nn::{DiffLlama, DiffLlamaConfig, Generation, Generator, GeneratorOptions};
use std::error::Error;
use std::fs::read_to_string;
use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;
use tokenizers::Tokenizer;

/// Errors are only told here. Those of the crates are `diffattn::Error`, whose cases a program can
/// tell apart.
type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn load(folder: &Path) -> Fallible<DiffLlama> {
    let path = folder.join("config.json");
    let config = read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let config = DiffLlamaConfig::from_json(&config)?;
    let file = Checkpoint::open(MODEL_FILE, FileRanges::open(folder.join(MODEL_FILE))?)?;
    let names = file.entries().iter().map(|entry| &entry.name);
    let stored = names
        .map(|name| Ok((name.clone(), file.raw(name)?)))
        .collect::<Result<_, diffattn::Error>>()?;
    // Weights stay in their own element type (here BF16), in place.
    let floats = float_weights(&stored)?;
    Ok(DiffLlama::new(&config, &borrow_weights(&floats))?)
}

fn write(folder: &Path, prompt: &str, max_new_tokens: usize) -> Fallible<()> {
    let model = load(folder)?;
    let tokenizer = Tokenizer::from_file(folder.join("tokenizer.json"))?;
    let prompt = tokenizer.encode(prompt, true)?.get_ids().to_vec();
    // Gives text once it is whole characters; spaces at a word's beginning depend on what stands
    // before it.
    let mut decoder = tokenizer.decode_stream(true);
    for &id in &prompt {
        decoder.step(id)?;
    }
    let generation = Generation {
        prompt,
        max_new_tokens,
        ..Generation::default()
    };
    let mut generator = Generator::new(&model, vec![generation], &GeneratorOptions::default())?;
    let mut out = stdout().lock();
    while !generator.is_finished() {
        for token in generator.step()? {
            if let Some(text) = decoder.step(token.id)? {
                out.write_all(text.as_bytes())?;
                out.flush()?;
            }
        }
    }
    writeln!(out)?;
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, prompt, count] = arguments.as_slice() else {
        eprintln!("expected three arguments: MODEL PROMPT TOKENS");
        return ExitCode::from(2);
    };
    let Ok(count) = count.parse() else {
        eprintln!("TOKENS: expected a number, got {count:?}");
        return ExitCode::from(2);
    };
    match write(Path::new(folder), prompt, count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
