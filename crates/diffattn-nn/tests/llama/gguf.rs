//! A Llama out of GGUF files: every element type and form of file, against float64 of what the
//! files stand for.

use crate::common::{Stored, Tensors, error, ok, read};
use diffattn::{Data, Tensor};
use diffattn_files::{FileRanges, GgufFiles};
use diffattn_nn::{
    DiffLlama, DiffLlamaConfig, DiffLlamaOptions, Generation, Generator, GeneratorOptions,
    TokenIds, Weights,
};
use std::path::PathBuf;

const CASES: [&str; 9] = [
    "f32",
    "f16",
    "bf16",
    "q8_0",
    "q4_0",
    "q4_1",
    "untied",
    "rope_freqs",
    "split",
];

/// Of the largest error, in standard deviations.
const TOLERANCE: f64 = 2e-5;

fn folder(case: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test/models/gguf");
    folder.join(case)
}

fn open(case: &str) -> GgufFiles<FileRanges> {
    let name = match case {
        "split" => "model-00001-of-00002.gguf",
        _ => "model.gguf",
    };
    ok(GgufFiles::open(folder(case).join(name)))
}

/// The model, quantised weights as float32.
fn model(files: &GgufFiles<FileRanges>) -> DiffLlama {
    let config = ok(DiffLlamaConfig::from_llama_json(files.config()));
    let config = ok(config.with_generation_config(files.generation_config()));
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = files
        .entries()
        .iter()
        .map(|entry| {
            let name = &entry.entry.name;
            let raw = ok(files.raw(name));
            (name.clone(), raw.shape().to_vec(), ok(raw.to_f32(name)))
        })
        .collect();
    let weights: Weights<'_> = tensors
        .iter()
        .map(|(name, shape, data)| {
            let tensor = Tensor {
                data: Data::F32(data),
                shape: shape.clone(),
            };
            (name.clone(), tensor)
        })
        .collect();
    ok(DiffLlama::new(&config, &weights))
}

fn ids(tensors: &Tensors, name: &str) -> (Vec<usize>, Vec<u32>) {
    match tensors.get(name) {
        Some((shape, Stored::I64(ids))) => {
            (shape.clone(), ids.iter().map(|&id| id as u32).collect())
        }
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn logits_and_greedy_ids() {
    for case in CASES {
        let files = open(case);
        let model = model(&files);
        let expected = read(&folder(case).join("expected.safetensors"));
        let (shape, input) = ids(&expected, "input_ids");
        let options = DiffLlamaOptions::default();
        let output = ok(model.forward(TokenIds::u32(&input, &shape), None, &options));
        let Some((_, Stored::F64(logits))) = expected.get("expected.logits") else {
            panic!("{case} has no logits");
        };
        let worst = error(logits, &output.logits);
        assert!(worst < TOLERANCE, "{case}: {worst:e}");
        let (_, greedy) = ids(&expected, "expected.greedy");
        let new = 16;
        let generation = Generation {
            prompt: greedy[..greedy.len() - new].to_vec(),
            max_new_tokens: new,
            stop_ids: Some(Vec::new()),
            ..Generation::default()
        };
        let options = GeneratorOptions::default();
        let mut generator = ok(Generator::new(&model, vec![generation], &options));
        while !generator.is_finished() {
            ok(generator.step());
        }
        assert_eq!(generator.ids(0), Some(greedy.as_slice()), "{case}");
        // (The file's own: a text ends with <|im_end|>.)
        assert_eq!(model.config().eos_token_ids, [2]);
        assert_eq!(model.config().bos_token_id, Some(1));
    }
}
