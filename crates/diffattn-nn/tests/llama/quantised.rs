//! Quantised weights in whole models: made at load, out of GGUF files and out of MLX's, against
//! float64 of the same codes with x as int8; their bits; what is refused.

use crate::common::{Checkpoint, Stored, bits, error, forward, ok, random_ids, read, refusal};
use crate::reference::Reference;
use diffattn::{Data, Error, Isa, Quantisation, Quantiser, Run, Tensor};
use diffattn_files::{
    Dtype, FileRanges, GgufFiles, MlxPacking, MlxQuantization, MlxWeight, RawTensor,
};
use diffattn_nn::{
    DiffLlama, DiffLlamaConfig, DiffLlamaLoader, DiffLlamaOptions, Family, ModelCache,
    ModelCacheOptions, ModelFiles, ModelLoader, Task, TextModel, TokenIds, Weight, WeightFormat,
    WeightFormats, WeightInfo, WeightSource,
};
use diffattn_reference::{QuantisedWeight, RopeScaling, quantise_q4_0, quantise_q8_0};
use half::{bf16, f16};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A checkpoint's tensors as a file has them.
#[derive(Debug, Clone, Default)]
struct File(BTreeMap<String, RawTensor<'static>>);

impl WeightSource<'static> for &File {
    fn entries(&self) -> Result<Vec<WeightInfo>, Error> {
        let entries = self.0.iter().map(|(name, tensor)| WeightInfo {
            name: name.clone(),
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
        });
        Ok(entries.collect())
    }

    fn read(&mut self, name: &str) -> Result<Option<Weight<'static>>, Error> {
        Ok(self.0.get(name).cloned().map(Weight::from))
    }
}

impl File {
    fn of(checkpoint: &Checkpoint) -> Self {
        let weights = checkpoint.weights();
        let tensors = weights.iter();
        Self(
            tensors
                .map(|(name, tensor)| (name.clone(), ok(RawTensor::of(name, tensor))))
                .collect(),
        )
    }

    fn insert(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) {
        let tensor = ok(RawTensor::new(name, dtype, shape, bytes));
        self.0.insert(name.to_owned(), tensor);
    }

    /// Puts a weight's MLX tensors in its place.
    fn pack(&mut self, name: &str, to: Quantisation) {
        let tensor = self.0.remove(name).unwrap_or_else(|| panic!("no {name}"));
        let floats = ok(tensor.into_floats(name));
        let floats = floats.tensor();
        let [outputs, inputs] = floats.shape[..] else {
            panic!("{name} has {:?}", floats.shape)
        };
        let packing = MlxPacking {
            bits: to.bits(),
            group_size: 32,
        };
        let mut rows = ok(Quantiser::new(&floats, to));
        let MlxWeight {
            codes,
            scales,
            biases,
        } = ok(MlxWeight::pack(&mut rows, inputs, 0..outputs, packing));
        let words = [outputs, inputs * to.bits() / 32];
        self.insert(name, Dtype::U32, &words, codes);
        let beside = MlxQuantization::beside(name);
        for (name, bytes) in beside.iter().zip([scales, biases]) {
            self.insert(name, Dtype::F16, &[outputs, inputs / 32], bytes);
        }
    }
}

fn load(config: &DiffLlamaConfig, file: &File, formats: WeightFormats) -> DiffLlama {
    let mut loader = ok(DiffLlamaLoader::new(config, &ok((&file).entries())));
    loader.hold_as(formats);
    let any: &mut dyn ModelLoader = &mut loader;
    ok(any.load_all(&mut &*file));
    ok(loader.finish())
}

const STORED: WeightFormats = WeightFormats {
    maps: None,
    ends: None,
};

fn held(maps: WeightFormat, ends: Option<WeightFormat>) -> WeightFormats {
    let maps = Some(maps);
    WeightFormats { maps, ends }
}

fn is_map(name: &str) -> bool {
    name.ends_with("_proj.weight")
}

fn is_end(name: &str) -> bool {
    name.ends_with("embed_tokens.weight") || name.ends_with("lm_head.weight")
}

type Rule = fn(&[f32]) -> QuantisedWeight;

/// The checkpoint with what codes of its weights stand for.
fn coded(checkpoint: &mut Checkpoint, maps: Rule, ends: Rule) {
    for (name, (shape, stored)) in &mut checkpoint.tensors {
        let rule = match (is_map(name), is_end(name)) {
            (true, _) => maps,
            (_, true) => ends,
            _ => continue,
        };
        if !shape[1].is_multiple_of(32) {
            continue;
        }
        let wide: Vec<f32> = match stored {
            Stored::F32(x) => x.clone(),
            Stored::F16(x) => x.iter().map(|&x| f16::from_bits(x).to_f32()).collect(),
            Stored::Bf16(x) => x.iter().map(|&x| bf16::from_bits(x).to_f32()).collect(),
            other => panic!("{name} is {other:?}"),
        };
        *stored = Stored::F64(rule(&wide).values());
    }
}

/// The root of the mean square error, of that of what is expected.
fn distance(expected: &[f64], got: &[f32]) -> f64 {
    assert_eq!(expected.len(), got.len());
    let square = |x: f64| x * x;
    let pairs = expected.iter().zip(got);
    let error: f64 = pairs.map(|(x, &y)| square(x - f64::from(y))).sum();
    let scale: f64 = expected.iter().map(|&x| square(x)).sum();
    (error / scale).sqrt()
}

/// The logits are far nearer float64 of the same codes and x as int8 than float64 of the codes alone
/// is. What is between the former two are a few values of x that lie at the edge between two codes:
/// one in some thousands, of the unit that all others are rounded to.
fn check_logits(name: &str, model: &DiffLlama, coded: &Checkpoint, ids: &[u32]) {
    let options = DiffLlamaOptions::default();
    let got = forward(model, ids, &[1, ids.len()], &options).logits;
    let expected = |int8: bool| {
        let reference = Reference {
            checkpoint: coded,
            scaling: RopeScaling::Default,
            int8,
        };
        reference.forward(ids, None).logits
    };
    let [same, float] = [true, false].map(|int8| distance(&expected(int8), &got));
    assert!(
        same * 5.0 < float && float < 0.1,
        "{name}: {same:e} beside {float:e}"
    );
}

#[test]
fn made_at_load() {
    let checkpoint = Checkpoint::trained();
    let file = File::of(&checkpoint);
    let ids = random_ids(3, 12, checkpoint.config.vocab_size);
    let rules: [(WeightFormats, Rule, Rule); 3] = [
        (held(WeightFormat::Q8, None), quantise_q8_0, quantise_q8_0),
        (held(WeightFormat::Q4, None), quantise_q4_0, quantise_q8_0),
        (
            held(WeightFormat::Q4, Some(WeightFormat::Q4)),
            quantise_q4_0,
            quantise_q4_0,
        ),
    ];
    for (formats, maps, ends) in rules {
        let model = load(&checkpoint.config, &file, formats);
        let mut codes = Checkpoint::trained();
        coded(&mut codes, maps, ends);
        check_logits(&format!("{formats:?}"), &model, &codes, &ids);
    }
}

/// A prompt at once and token by token, over instruction sets and threads.
#[test]
fn one_set_of_bits() {
    let checkpoint = Checkpoint::trained();
    let file = File::of(&checkpoint);
    let ids = random_ids(5, 20, checkpoint.config.vocab_size);
    for format in [WeightFormat::Q8, WeightFormat::Q4] {
        let model = load(&checkpoint.config, &file, held(format, None));
        let mut first: Option<Vec<u32>> = None;
        for isa in Isa::available() {
            for threads in [1, 3] {
                let options = DiffLlamaOptions {
                    run: ok(Run::new(Some(isa), Some(threads), true)),
                    ..DiffLlamaOptions::default()
                };
                let whole = forward(&model, &ids, &[1, ids.len()], &options).logits;
                let whole = bits(&whole);
                assert_eq!(*first.get_or_insert(whole.clone()), whole, "{}", isa.name());
                let cache = ok(ModelCache::new(
                    &model.decoder(),
                    &ModelCacheOptions::default(),
                ));
                let mut caches = [cache];
                let mut steps = Vec::new();
                for id in &ids {
                    let id = TokenIds::u32(std::slice::from_ref(id), &[1, 1]);
                    let step = ok(model.forward(id, Some(&mut caches), &options));
                    steps.extend(bits(&step.logits));
                }
                assert_eq!(steps, whole, "{}, token by token", isa.name());
            }
        }
    }
}

fn gguf(case: &str) -> (DiffLlamaConfig, File, PathBuf) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test/models/gguf");
    let folder = folder.join(case);
    let files: GgufFiles<FileRanges> = ok(GgufFiles::open(folder.join("model.gguf")));
    let config = ok(DiffLlamaConfig::from_llama_json(files.config()));
    let mut file = File::default();
    for entry in files.entries() {
        let name = &entry.entry.name;
        let raw = ok(ok(files.raw(name)).into_owned());
        file.0.insert(name.clone(), raw);
    }
    (config, file, folder)
}

/// Codes of GGUF files as they are, and as the floats that they stand for.
#[test]
fn out_of_gguf_files() {
    for case in ["q8_0", "q4_0", "q4_1"] {
        let (config, file, folder) = gguf(case);
        let expected = read(&folder.join("expected.safetensors"));
        let Some((shape, Stored::I64(ids))) = expected.get("input_ids") else {
            panic!("{case} has no ids")
        };
        let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
        let floats = load(&config, &file, held(WeightFormat::F32, None));
        let logits = forward(&floats, &ids, shape, &DiffLlamaOptions::default()).logits;
        let Some((_, Stored::F64(wanted))) = expected.get("expected.logits") else {
            panic!("{case} has no logits")
        };
        let worst = error(wanted, &logits);
        assert!(worst < 2e-5, "{case}: {worst:e}");
        // (As float64 has them: what a code stands for is exact in float32, of Q4_1 rounded once.)
        let wide = Checkpoint {
            config: config.clone(),
            tensors: file
                .0
                .iter()
                .map(|(name, tensor)| {
                    let values = Stored::F32(ok(tensor.to_f32(name)));
                    (name.clone(), (tensor.shape().to_vec(), values))
                })
                .collect(),
            ..Checkpoint::trained()
        };
        let model = load(&config, &file, STORED);
        check_logits(case, &model, &wide, &ids[..shape[1]]);
        // Codes of as many bits stay the codes that they are.
        if case == "q4_1" {
            let again = load(&config, &file, held(WeightFormat::Q4, None));
            let [a, b] = [&model, &again].map(|model| {
                bits(&forward(model, &ids, shape, &DiffLlamaOptions::default()).logits)
            });
            assert_eq!(a, b);
        }
    }
}

/// What MLX's tensors say is what was packed, bit for bit.
#[test]
fn out_of_mlx_files() {
    for (trained, maps, to) in [
        (true, WeightFormat::Q4, Quantisation::Q4_0),
        (true, WeightFormat::Q8, Quantisation::Q8_0),
    ] {
        assert!(trained);
        let checkpoint = Checkpoint::trained();
        let mut file = File::of(&checkpoint);
        let made = load(&checkpoint.config, &file, held(maps, None));
        let names: Vec<String> = file.0.keys().cloned().collect();
        for name in names.iter().filter(|name| is_map(name)) {
            file.pack(name, to);
        }
        for name in names.iter().filter(|name| is_end(name)) {
            file.pack(name, Quantisation::Q8_0);
        }
        let read = load(&checkpoint.config, &file, STORED);
        let ids = random_ids(7, 9, checkpoint.config.vocab_size);
        let [a, b] = [&made, &read]
            .map(|model| bits(&forward(model, &ids, &[1, 9], &DiffLlamaOptions::default()).logits));
        assert_eq!(a, b);
    }
}

/// A file of other hands, of the codes of a GGUF file, with another packing of its embeddings.
#[test]
fn the_same_codes_in_another_format() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test/models/mlx");
    let bytes = std::fs::read(folder.join("model.safetensors"));
    let bytes = bytes.unwrap_or_else(|why| panic!("{why}"));
    let checkpoint = ok(diffattn_files::Checkpoint::open("mlx", bytes.as_slice()));
    let mut file = File::default();
    for entry in checkpoint.entries() {
        let raw = ok(ok(checkpoint.raw(&entry.name)).into_owned());
        file.0.insert(entry.name.clone(), raw);
    }
    let text = std::fs::read_to_string(folder.join("config.json"));
    let text = text.unwrap_or_else(|why| panic!("{why}"));
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}"));
    ok(open(&json, &file));
    let mlx = load(&ok(DiffLlamaConfig::from_llama_json(&text)), &file, STORED);
    let (config, file, _) = gguf("q4_1");
    let gguf = load(&config, &file, STORED);
    let ids = random_ids(4, 30, config.vocab_size);
    let [a, b] = [&mlx, &gguf]
        .map(|model| bits(&forward(model, &ids, &[1, 30], &DiffLlamaOptions::default()).logits));
    assert_eq!(a, b);
}

/// An untied table of codes is read row by row.
#[test]
fn tables_and_heads_of_their_own() {
    let checkpoint = Checkpoint::trained();
    let mut file = File::of(&checkpoint);
    let table = "model.embed_tokens.weight";
    let head = file.0[table].clone();
    file.0.insert("lm_head.weight".to_owned(), head);
    let tied = load(&checkpoint.config, &file, held(WeightFormat::Q8, None));
    let config = DiffLlamaConfig {
        tie_word_embeddings: false,
        ..checkpoint.config.clone()
    };
    let untied = load(&config, &file, held(WeightFormat::Q8, None));
    file.pack(table, Quantisation::Q8_0);
    let packed = load(&config, &file, held(WeightFormat::Q8, None));
    let ids = random_ids(9, 9, config.vocab_size);
    let [a, b, c] = [&tied, &untied, &packed]
        .map(|model| bits(&forward(model, &ids, &[1, 9], &DiffLlamaOptions::default()).logits));
    assert_eq!(a, b);
    assert_eq!(a, c);
}

#[test]
fn rows_that_are_no_whole_blocks_stay() {
    let checkpoint = Checkpoint::fixture("llama");
    let file = File::of(&checkpoint);
    let mut loader = ok(DiffLlamaLoader::new(
        &checkpoint.config,
        &ok((&file).entries()),
    ));
    loader.hold_as(held(WeightFormat::Q4, None));
    let [notice] = loader.notices() else {
        panic!("{:?}", loader.notices())
    };
    assert_eq!(
        notice,
        "weights whose rows are no multiple of 32 stay as they are stored: \
         model.embed_tokens.weight, lm_head.weight, model.layers.0.self_attn.q_proj.weight, \
         model.layers.0.self_attn.k_proj.weight and 10 more"
    );
    let model = load(&checkpoint.config, &file, held(WeightFormat::Q4, None));
    let mut codes = Checkpoint::fixture("llama");
    coded(&mut codes, quantise_q4_0, quantise_q8_0);
    let ids = random_ids(2, 20, checkpoint.config.vocab_size);
    check_logits("llama", &model, &codes, &ids);
}

#[test]
fn halves_at_load() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let file = File::of(&checkpoint);
    let model = load(&checkpoint.config, &file, held(WeightFormat::Bf16, None));
    let mut rounded = Checkpoint::fixture("diffllama_gqa");
    for (name, (_, stored)) in &mut rounded.tensors {
        if let (true, Stored::F32(x)) = (is_map(name) || is_end(name), &stored) {
            *stored = Stored::Bf16(x.iter().map(|&x| bf16::from_f32(x).to_bits()).collect());
        }
    }
    let ids = random_ids(2, 9, checkpoint.config.vocab_size);
    let [a, b] = [&model, &rounded.model()]
        .map(|model| bits(&forward(model, &ids, &[1, 9], &DiffLlamaOptions::default()).logits));
    assert_eq!(a, b);
}

/// A Llama of one layer as MLX has it, and its configuration.
fn small() -> (Value, File) {
    let config = json!({
        "model_type": "llama", "vocab_size": 4, "hidden_size": 64, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 2, "tie_word_embeddings": true,
        "quantization": { "group_size": 32, "bits": 4, "mode": "affine" },
    });
    let mut file = File::default();
    let floats = |len: usize| vec![0x3c; 2 * len];
    let layer = "model.layers.0.";
    let attention = ["q", "k", "v", "o"].map(|name| format!("{layer}self_attn.{name}_proj.weight"));
    let mlp = ["gate", "up", "down"].map(|name| format!("{layer}mlp.{name}_proj.weight"));
    let maps: Vec<String> = attention.into_iter().chain(mlp).collect();
    for name in &maps {
        file.insert(name, Dtype::F16, &[64, 64], floats(64 * 64));
    }
    let table = "model.embed_tokens.weight";
    file.insert(table, Dtype::F16, &[4, 64], floats(4 * 64));
    for name in maps.iter().map(String::as_str).chain([table]) {
        file.pack(name, Quantisation::Q4_0);
    }
    for name in ["input_layernorm", "post_attention_layernorm"] {
        let name = format!("{layer}{name}.weight");
        file.insert(&name, Dtype::F16, &[64], floats(64));
    }
    file.insert("model.norm.weight", Dtype::F16, &[64], floats(64));
    (config, file)
}

fn open(config: &Value, file: &File) -> Result<Box<dyn ModelLoader>, Error> {
    let files = ModelFiles {
        config: &config.to_string(),
        generation_config: None,
        entries: &ok(file.entries()),
        formats: STORED,
    };
    Family::open(Task::Text, &files).map(|(_, loader)| loader)
}

/// What a configuration or tensors of codes say that is not so.
#[test]
fn refusals_of_mlx() {
    let (config, file) = small();
    let mut loader = ok(open(&config, &file));
    ok(loader.load_all(&mut &file));
    let says = |config: &Value, file: &File| refusal(open(config, file)).1;
    for (entry, value, expected) in [
        (
            "bits",
            json!(3),
            "config.quantization.bits: expected 4 or 8, got 3",
        ),
        (
            "bits",
            json!("4"),
            "config.quantization.bits: expected 4 or 8, got \"4\"",
        ),
        (
            "group_size",
            json!(48),
            "config.quantization.group_size: expected a multiple of 32, got 48",
        ),
        (
            "mode",
            json!("mxfp4"),
            "config.quantization.mode: expected \"affine\", got \"mxfp4\"",
        ),
        (
            "bits",
            json!(8),
            "weights.model.embed_tokens.weight: expected 8 bits and groups of 32, as \
             config.quantization says, got [4, 8] of codes with [4, 2] of scales",
        ),
        (
            "group_size",
            json!(64),
            "weights.model.embed_tokens.weight: expected 4 bits and groups of 64, as \
             config.quantization says, got [4, 8] of codes with [4, 2] of scales",
        ),
        (
            "lm_head",
            json!({ "bits": 6, "group_size": 64 }),
            "config.quantization.lm_head.bits: expected 4 or 8, got 6",
        ),
    ] {
        let mut config = config.clone();
        config["quantization"][entry] = value;
        assert_eq!(says(&config, &file), expected);
    }
    let mut odd = config.clone();
    odd["quantization"] = json!([4]);
    assert_eq!(
        says(&odd, &file),
        "config.quantization: expected an object or null, got [4]"
    );
    // Another packing of one module, as the configuration says.
    let mut other = config.clone();
    other["quantization"]["bits"] = 8.into();
    for name in file
        .0
        .keys()
        .filter_map(|name| name.strip_suffix(".scales"))
    {
        other["quantization"][name] = json!({ "bits": 4, "group_size": 32 });
    }
    ok(open(&other, &file));
    // Without a word of it in the configuration, the shapes tell.
    let mut silent = config.clone();
    silent["quantization"] = Value::Null;
    ok(open(&silent, &file));
    let with = |name: &str, dtype: Dtype, shape: &[usize]| {
        let mut file = file.clone();
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        file.insert(name, dtype, shape, vec![0; bytes]);
        file
    };
    let q = "model.layers.0.self_attn.q_proj";
    let name = |kind: &str| format!("{q}.{kind}");
    for (file, expected) in [
        (
            with(&name("weight"), Dtype::U32, &[64, 7]),
            format!(
                "weights.{q}.weight: expected codes of 4 or 8 bits for [64, 64], rows of whole blocks of 32, got [64, 7] of U32"
            ),
        ),
        (
            with(&name("scales"), Dtype::F16, &[64, 3]),
            format!(
                "weights.{q}.scales: expected a scale for each group of 32, or of a multiple of it, of [64, 64], got [64, 3] of F16"
            ),
        ),
        (
            with(&name("scales"), Dtype::F32, &[64, 2]),
            format!("weights.{q}.scales: expected scales of F16 or BF16, got [64, 2] of F32"),
        ),
        (
            with(&name("biases"), Dtype::BF16, &[64, 2]),
            format!(
                "weights.{q}.biases: expected [64, 2] of F16, as {q}.scales is, got [64, 2] of BF16"
            ),
        ),
        (
            with(&name("biases"), Dtype::F16, &[64, 1]),
            format!(
                "weights.{q}.biases: expected [64, 2] of F16, as {q}.scales is, got [64, 1] of F16"
            ),
        ),
        (
            with("model.norm.weight", Dtype::U32, &[64]),
            "weights.model.norm.weight: expected elements of F64, F32, F16 or BF16, got U32"
                .to_owned(),
        ),
    ] {
        assert_eq!(says(&silent, &file), expected);
    }
    for kind in ["scales", "biases"] {
        let mut file = file.clone();
        file.0.remove(&name(kind));
        assert_eq!(
            says(&config, &file),
            format!(
                "weights.{q}.{kind}: expected a tensor, as {q}.weight is of U32, MLX's codes, got none"
            )
        );
    }
}

/// A part whose tensors are not what their entries said.
#[test]
fn parts_of_codes_that_are_not_as_said() {
    let (config, file) = small();
    let mut loader = ok(open(&config, &file));
    let part = loader.parts()[1].clone();
    let weights = |file: &File| {
        part.iter()
            .filter_map(|info| Some((info.name.clone(), ok((&mut &*file).read(&info.name))?)))
            .collect()
    };
    for (kind, dtype, shape) in [
        ("weight", Dtype::I32, [64, 8]),
        ("weight", Dtype::U32, [64, 4]),
        ("scales", Dtype::BF16, [64, 2]),
    ] {
        let mut file = file.clone();
        let bytes = vec![0; 64 * shape[1] * dtype.bitsize() / 8];
        let name = format!("model.layers.0.mlp.up_proj.{kind}");
        file.insert(&name, dtype, &shape, bytes);
        let (code, sentence) = refusal(loader.load_part(1, weights(&file)));
        assert_eq!(code, "FILE");
        assert!(
            sentence.starts_with(&format!("weights.{name}: ")),
            "{sentence}"
        );
    }
    // The next call is right.
    ok(ok(loader.load_part(1, weights(&file))).finish());
}

/// What float16 has no scale for is told by its name.
#[test]
fn numbers_that_cannot_be_quantised() {
    let checkpoint = Checkpoint::trained();
    let mut file = File::of(&checkpoint);
    let name = "model.layers.0.mlp.up_proj.weight";
    let shape = file.0[name].shape().to_vec();
    let values = vec![f32::INFINITY; shape.iter().product()];
    let tensor = Tensor {
        data: Data::F32(&values),
        shape,
    };
    let infinite = ok(RawTensor::of(name, &tensor));
    file.0.insert(name.to_owned(), infinite);
    let mut loader = ok(DiffLlamaLoader::new(
        &checkpoint.config,
        &ok((&file).entries()),
    ));
    loader.hold_as(held(WeightFormat::Q4, None));
    let any: &mut dyn ModelLoader = &mut loader;
    let (code, sentence) = refusal(any.load_all(&mut &file));
    assert_eq!(code, "FILE");
    assert_eq!(
        sentence,
        "weights.model.layers.0.mlp.up_proj.weight: expected finite numbers whose scales float16 \
         holds, to be quantised, got others in row 0"
    );
}
