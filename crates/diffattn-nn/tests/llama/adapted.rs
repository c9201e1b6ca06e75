//! Checkpoints with a low-rank adapter: against float64, over the Llama that it converts first and
//! over the model that was converted already, and what is refused.

use crate::common::{error, ok, refusal};
use diffattn_files::{Adapter, Entry, FileRanges, ModelConversion, RawTensor, Shards};
use diffattn_nn::{DiffLlama, DiffLlamaConfig, DiffLlamaOptions, TokenIds, Weights};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../test/models")
        .join(name)
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn config(name: &str) -> String {
    text(&folder(name).join("config.json"))
}

const ADAPTER: &str = "diffattn_llama/adapter";

fn adapter_config() -> Value {
    let text = text(&folder(ADAPTER).join("adapter_config.json"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}"))
}

fn tensors() -> Shards<FileRanges> {
    ok(Shards::open(
        folder(ADAPTER).join("adapter_model.safetensors"),
    ))
}

fn adapter() -> Adapter {
    ok(Adapter::new(
        &adapter_config().to_string(),
        tensors().entries(),
    ))
}

/// The model that a checkpoint becomes with the adapter.
fn adapted(name: &str) -> DiffLlama {
    let (base, beside) = (ok(Shards::open(folder(name))), tensors());
    let adapter = adapter();
    let plan = ok(ModelConversion::with_adapter(
        base.entries(),
        &config(name),
        &adapter,
        None,
    ));
    let mut weights: Vec<(String, RawTensor<'_>)> = Vec::new();
    for (index, spec) in plan.tensors().iter().enumerate() {
        let sources = plan.sources(index).iter().map(|source| {
            let of = if adapter.has(source) { &beside } else { &base };
            of.raw(source)
        });
        let sources = ok(sources.collect::<Result<Vec<_>, _>>());
        weights.push((spec.name.to_owned(), ok(plan.make(index, sources))));
    }
    let floats: Vec<_> = weights
        .iter()
        .map(|(name, tensor)| (name.clone(), ok(tensor.floats(name))))
        .collect();
    let weights: Weights<'_> = floats
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.tensor()))
        .collect();
    let config = ok(DiffLlamaConfig::from_diffattn_llama_json(&plan.config()));
    ok(DiffLlama::new(&config, &weights))
}

#[test]
fn logits() {
    let expected = crate::common::read(&folder(ADAPTER).join("expected.safetensors"));
    let Some((shape, crate::common::Stored::I64(ids))) = expected.get("input_ids") else {
        panic!("no ids")
    };
    let Some((_, crate::common::Stored::F64(logits))) = expected.get("expected.logits") else {
        panic!("no logits")
    };
    let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
    for name in ["llama", "diffattn_llama/v2_mirror"] {
        let model = adapted(name);
        let ids = TokenIds::u32(&ids, shape);
        let got = ok(model.forward(ids, None, &DiffLlamaOptions::default())).logits;
        let worst = error(logits, &got);
        assert!(worst < 2e-5, "{name}: {worst:e}");
    }
}

#[test]
fn over_another_conversion() {
    for name in [
        "diffattn_llama/share_half",
        "diffattn_llama/v1_zero_scalars",
        "diffattn_llama/dex_zero",
    ] {
        let base = ok(Shards::open(folder(name)));
        let plan = ModelConversion::with_adapter(base.entries(), &config(name), &adapter(), None);
        let (code, sentence) = refusal(plan);
        assert_eq!(code, "OPTION", "{name}: {sentence}");
        assert!(sentence.contains("adapter"), "{name}: {sentence}");
    }
}

#[test]
fn configurations_that_are_refused() {
    let shards = tensors();
    for (key, value) in [
        ("peft_type", json!("IA3")),
        ("peft_type", Value::Null),
        ("r", json!(0)),
        ("r", json!(5)),
        ("r", json!("four")),
        ("lora_alpha", json!("ten")),
        ("bias", json!("all")),
        ("fan_in_fan_out", json!(true)),
        ("use_dora", json!(true)),
        ("rank_pattern", json!({ "q_proj": 8 })),
        ("alpha_pattern", json!({ "q_proj": 8 })),
        ("modules_to_save", json!(["embed_tokens"])),
        ("modules_to_save", json!("lambda_proj")),
        ("diff_attention", json!({ "kind": "v1" })),
        ("diff_attention", json!({ "kind": "v2", "start": "zero" })),
        ("diff_attention", json!({ "kind": "v2", "heads": [0, 1] })),
        ("diff_attention", json!({ "kind": "v2", "order": "mixed" })),
    ] {
        let mut config = adapter_config();
        config[key] = value.clone();
        let (code, sentence) = refusal(Adapter::new(&config.to_string(), shards.entries()));
        assert_eq!(code, "FILE", "{key} {value}: {sentence}");
    }
    let mut config = adapter_config();
    config["use_rslora"] = json!(true);
    let adapter = ok(Adapter::new(&config.to_string(), shards.entries()));
    assert_eq!(adapter.scale(), 5.0);
}

#[test]
fn tensors_that_are_refused() {
    let shards = tensors();
    let all: Vec<Entry> = shards.entries().cloned().collect();
    let config_text = adapter_config().to_string();
    let refused = |entries: Vec<Entry>| {
        let made = Adapter::new(&config_text, &entries).and_then(|adapter| {
            let base = Shards::open(folder("llama"))?;
            ModelConversion::with_adapter(base.entries(), &config("llama"), &adapter, None)
        });
        refusal(made)
    };
    let mut cases = vec![("nothing", Vec::new())];
    let change = |what: &dyn Fn(&mut Entry)| {
        let mut entries = all.clone();
        for entry in &mut entries {
            what(entry);
        }
        entries
    };
    cases.push((
        "no B",
        change(&|entry| entry.name = entry.name.replace("lora_B", "lora_C")),
    ));
    cases.push((
        "no A",
        all.iter()
            .filter(|entry| !entry.name.contains("lora_A"))
            .cloned()
            .collect(),
    ));
    cases.push((
        "no such layer",
        change(&|entry| entry.name = entry.name.replace("layers.1", "layers.7")),
    ));
    cases.push((
        "other names",
        change(&|entry| entry.name = entry.name.replace("base_model.", "")),
    ));
    cases.push((
        "other inputs",
        change(&|entry| {
            if entry.name.contains("lora_A") {
                entry.shape[1] += 1;
            }
        }),
    ));
    cases.push((
        "other outputs",
        change(&|entry| {
            if entry.name.contains("lora_B") {
                entry.shape[0] = 48;
            }
        }),
    ));
    cases.push((
        "another λ",
        change(&|entry| {
            if entry.name.contains("lambda") {
                entry.shape[0] = 3;
            }
        }),
    ));
    for (what, entries) in cases {
        let (code, sentence) = refused(entries);
        assert_eq!(code, "FILE", "{what}: {sentence}");
    }
}
