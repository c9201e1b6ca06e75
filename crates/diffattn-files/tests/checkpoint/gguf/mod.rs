//! GGUF files: what is read of them.

mod random;
mod refusals;
mod tokenizers;
mod writer;

use crate::common::{models, ok, refusal};
use diffattn_files::{
    Dtype, Gguf, GgufFiles, GgufHeader, GgufParsed, MAX_TENSORS, RawTensor, inspect, split_names,
};
use serde_json::{Value, json};
use writer::{Writer, list, llama};

fn fixture(name: &str) -> Vec<u8> {
    let path = models().join("gguf").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn open(bytes: &[u8]) -> Result<GgufFiles<&[u8]>, diffattn::Error> {
    GgufFiles::new(vec![("f".to_owned(), bytes)])
}

fn config(writer: &Writer) -> Value {
    let bytes = writer.bytes();
    let files = ok(open(&bytes));
    serde_json::from_str(files.config()).unwrap_or_else(|e| panic!("{e}"))
}

fn sentence(bytes: &[u8]) -> String {
    let (code, sentence) = refusal(open(bytes));
    assert_eq!(code, "FILE", "{sentence}");
    sentence
}

#[test]
fn what_a_folder_would_say() {
    let bytes = fixture("q4_1/model.gguf");
    let files = ok(open(&bytes));
    let config: Value = serde_json::from_str(files.config()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        config,
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 97,
            "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
            "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": true,
            "max_position_embeddings": 128,
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
        })
    );
    assert_eq!(
        files.generation_config(),
        "{\"bos_token_id\":1,\"eos_token_id\":2,\"pad_token_id\":2}"
    );
    let entries: Vec<_> = files.entries().iter().map(|entry| &entry.entry).collect();
    let inspection = ok(inspect(entries.iter().copied(), Some(files.config())));
    assert_eq!(
        (inspection.missing.len(), inspection.unexpected.len()),
        (0, 0)
    );
    assert_eq!(inspection.warnings, Vec::<String>::new());
    assert_eq!(inspection.dtypes[0].dtype, Dtype::Q4_1);
    assert_eq!(ok(files.raw("model.norm.weight")).dtype(), Dtype::F32);
    let embedding = ok(files.raw("model.embed_tokens.weight"));
    assert_eq!(
        (embedding.dtype(), embedding.shape()),
        (Dtype::Q8_0, &[97, 64][..])
    );
    assert_eq!(
        refusal(files.raw("lm_head.weight")).1,
        "f, tensor \"lm_head.weight\": expected a tensor of this name, got none"
    );
}

/// Rows of heads lie elsewhere, the blocks in them are the file's.
#[test]
fn rows_of_heads() {
    let bytes = fixture("q8_0/model.gguf");
    let files = ok(open(&bytes));
    let entry = |name: &str| {
        let mut entries = files.entries().iter();
        let found = entries.find(|entry| entry.entry.name == name);
        found.unwrap_or_else(|| panic!("{name}"))
    };
    for (name, heads) in [("q_proj", Some(4)), ("k_proj", Some(2)), ("v_proj", None)] {
        let name = format!("model.layers.1.self_attn.{name}.weight");
        let entry = entry(&name);
        assert_eq!(entry.turned_heads, heads);
        let range = entry.entry.range.start as usize..entry.entry.range.end as usize;
        let stored = &bytes[range];
        let width = 2 * 34;
        let tensor = ok(files.raw(&name));
        for (row, got) in tensor.bytes().chunks_exact(width).enumerate() {
            let (head, at) = (row / 16, row % 16);
            let from = match heads {
                Some(_) => head * 16 + 2 * (at % 8) + at / 8,
                None => row,
            };
            assert_eq!(got, &stored[from * width..][..width], "{name} row {row}");
        }
    }
    let tensor = ok(RawTensor::new("t", Dtype::F32, &[6, 1], vec![0; 24]));
    assert_eq!(
        refusal(tensor.half_split("t", 4)).1,
        "t: expected the rows of 4 heads of an even width, got [6, 1]"
    );
}

#[test]
fn blocks() {
    let d = 0x3800u16.to_le_bytes(); // 0.5
    let m = 0xbc00u16.to_le_bytes(); // -1
    let low_high: Vec<u8> = (0..16).map(|at| at | (15 - at) << 4).collect();
    let codes = |code: usize| if code < 16 { code } else { 31 - code } as f32;
    let q4_1 = [&d[..], &m, &low_high].concat();
    let tensor = ok(RawTensor::new("t", Dtype::Q4_1, &[1, 32], q4_1));
    let want: Vec<f32> = (0..32).map(|at| codes(at) * 0.5 - 1.0).collect();
    assert_eq!(ok(tensor.to_f32("t")), want);
    let block = tensor.blocks().and_then(|mut blocks| blocks.next());
    let block = block.unwrap_or_else(|| panic!("no block"));
    assert_eq!((block.scale, block.bias, block.codes[17]), (0.5, -1.0, 14));
    let q4_0 = [&d[..], &low_high].concat();
    let tensor = ok(RawTensor::new("t", Dtype::Q4_0, &[1, 32], q4_0));
    let want: Vec<f32> = (0..32).map(|at| (codes(at) - 8.0) * 0.5).collect();
    assert_eq!(ok(tensor.to_f32("t")), want);
    let bytes: Vec<u8> = (0..32u8)
        .map(|at| at.wrapping_mul(9).wrapping_add(128))
        .collect();
    let q8_0 = [&d[..], &bytes].concat();
    let tensor = ok(RawTensor::new("t", Dtype::Q8_0, &[1, 32], q8_0));
    let want: Vec<f32> = bytes
        .iter()
        .map(|&code| f32::from(code as i8) * 0.5)
        .collect();
    assert_eq!(ok(tensor.to_f32("t")), want);
    let odd = RawTensor::new("t", Dtype::Q8_0, &[2, 16], vec![0; 34]);
    assert_eq!(
        refusal(odd).1,
        "t: expected a last axis of whole blocks of 32, got [2, 16]"
    );
}

#[test]
fn splits() {
    assert_eq!(split_names("a-b.gguf"), ["a-b.gguf"]);
    assert_eq!(
        split_names("a-b-00002-of-00003.gguf"),
        [
            "a-b-00001-of-00003.gguf",
            "a-b-00002-of-00003.gguf",
            "a-b-00003-of-00003.gguf"
        ]
    );
    for name in [
        "a-00004-of-00003.gguf",
        "a-1-of-3.gguf",
        "a-00001-of-00003.bin",
    ] {
        assert_eq!(split_names(name), [name]);
    }
    let file = |number: usize| {
        let name = format!("model-0000{number}-of-00002.gguf");
        (name.clone(), fixture(&format!("split/{name}")))
    };
    let files = ok(GgufFiles::new(vec![file(1), file(2)]));
    assert_eq!(files.entries().len(), 21);
    assert_eq!(files.entries()[20].file, 1);
    assert_eq!(
        refusal(GgufFiles::new(vec![file(1)])).1,
        "model-00001-of-00002.gguf: expected the 2 files of its model (split.count), got 1"
    );
    assert_eq!(
        refusal(GgufFiles::new(vec![file(2), file(1)])).1,
        "model-00002-of-00002.gguf: expected file 1 of its model (split.no 0), got split.no 1"
    );
}

#[test]
fn rotary_embeddings() {
    let bytes = fixture("rope_freqs/model.gguf");
    let files = ok(open(&bytes));
    let config: Value = serde_json::from_str(files.config()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        config["rope_scaling"],
        json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64.0,
        })
    );
    let scaled = |kind: &str| llama().text("llama.rope.scaling.type", kind);
    let factor = |writer: Writer, factor: f32| writer.f32("llama.rope.scaling.factor", factor);
    assert_eq!(config_of(&scaled("none")), Value::Null);
    assert_eq!(
        config_of(&factor(scaled("linear"), 2.0)),
        json!({"rope_type": "linear", "factor": 2.0})
    );
    let yarn = factor(scaled("yarn"), 4.0).u32("llama.rope.scaling.original_context_length", 64);
    assert_eq!(
        config_of(&yarn),
        json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64.0})
    );
    assert_eq!(
        sentence(&scaled("longrope").bytes()),
        "f, llama.rope.scaling.type: expected \"none\", \"linear\" or \"yarn\", got \"longrope\""
    );
    // Factors: of all scalings that have words, and of none.
    let with = |factors: &[f32]| {
        let writer = llama().tensor("rope_freqs.weight", &[8], 0, 0);
        let mut bytes = writer.bytes();
        factors
            .iter()
            .for_each(|factor| bytes.extend(factor.to_le_bytes()));
        bytes
    };
    let scaling = |factors: &[f32]| {
        let bytes = with(factors);
        let files = ok(open(&bytes));
        let config: Value = serde_json::from_str(files.config()).unwrap_or_else(|e| panic!("{e}"));
        config["rope_scaling"].clone()
    };
    assert_eq!(scaling(&[1.0; 8]), Value::Null);
    assert_eq!(
        scaling(&[4.0; 8]),
        json!({"rope_type": "linear", "factor": 4.0})
    );
    let expected = "f, tensor \"rope_freqs.weight\": expected factors as llama3 or linear scaling has them, got others";
    assert_eq!(
        sentence(&with(&[1.0, 8.0, 1.0, 8.0, 1.0, 8.0, 1.0, 8.0])),
        expected
    );
    assert_eq!(sentence(&with(&[0.5; 8])), expected);
    assert!(sentence(&with(&[f32::NAN; 8])).contains("finite factors above 0"));
}

fn config_of(writer: &Writer) -> Value {
    config(writer)["rope_scaling"].clone()
}

/// By range: what is asked for grows until the header is whole, and no byte of a tensor is needed.
#[test]
fn by_range() {
    let bytes = fixture("q8_0/model.gguf");
    let len = bytes.len() as u64;
    let mut have = 0;
    let mut asked = 0;
    loop {
        match ok(GgufHeader::parse("f", &bytes[..have], len, MAX_TENSORS)) {
            GgufParsed::Need(need) => {
                assert!(need > have as u64 && need <= len);
                have = need as usize;
                asked += 1;
            }
            GgufParsed::Header(header) => {
                let start = header.data_start() as usize;
                let again = ok(GgufHeader::parse("f", &bytes[..start], len, MAX_TENSORS));
                assert!(matches!(again, GgufParsed::Header(_)));
                let model = ok(Gguf::new(vec![("f", header)]));
                assert_eq!(model.metadata()["general.name"], "tiny llama");
                break;
            }
        }
    }
    assert!(asked <= 3, "{asked} times");
}

/// Versions 2 and 3 differ in nothing that little-endian files have.
#[test]
fn versions() {
    let third = fixture("q4_1/model.gguf");
    let mut second = third.clone();
    assert_eq!(second[4..8], 3u32.to_le_bytes());
    second[4] = 2;
    let (second, third) = (ok(open(&second)), ok(open(&third)));
    assert_eq!(second.entries(), third.entries());
    assert_eq!(second.config(), third.config());
    assert_eq!(ok(second.tokenizer()), ok(third.tokenizer()));
    for entry in third.entries() {
        let name = &entry.entry.name;
        assert_eq!(ok(second.raw(name)), ok(third.raw(name)));
    }
}

/// Tensors lie where the alignment says, in any order, with anything between them.
#[test]
fn alignments() {
    for alignment in [1, 8, 32, 64, 4096] {
        let at = u64::from(alignment).next_multiple_of(16);
        let mut data = vec![255; at as usize + 8];
        data[..8].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        data[at as usize..].copy_from_slice(&[9, 10, 11, 12, 13, 14, 15, 16]);
        let writer = llama()
            .tensor("output_norm.weight", &[2], 0, at)
            .tensor("token_embd.weight", &[2, 2], 1, 0)
            .holding(data);
        let writer = match alignment {
            32 => writer,
            other => writer.alignment(other),
        };
        let bytes = writer.version(2).bytes();
        let files = ok(open(&bytes));
        let start = files.entries()[1].entry.range.start;
        assert!(start.is_multiple_of(u64::from(alignment)), "{alignment}");
        let norm = ok(files.raw("model.norm.weight"));
        assert_eq!((norm.dtype(), norm.shape()), (Dtype::F32, &[2][..]));
        assert_eq!(norm.bytes(), [9, 10, 11, 12, 13, 14, 15, 16]);
        let embedding = ok(files.raw("model.embed_tokens.weight"));
        assert_eq!(embedding.dtype(), Dtype::F16);
        assert_eq!(embedding.bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}

/// Numbers may be of any kind that holds them, lists of any; what is not asked for is passed over.
#[test]
fn kinds_of_values() {
    let count = "llama.block_count";
    let numbers: [(u32, Vec<u8>); 8] = [
        (0, vec![3]),
        (1, vec![3]),
        (2, 3u16.to_le_bytes().to_vec()),
        (3, 3i16.to_le_bytes().to_vec()),
        (4, 3u32.to_le_bytes().to_vec()),
        (5, 3i32.to_le_bytes().to_vec()),
        (10, 3u64.to_le_bytes().to_vec()),
        (11, 3i64.to_le_bytes().to_vec()),
    ];
    for (kind, bytes) in numbers {
        assert_eq!(
            config(&llama().value(count, kind, bytes))["num_hidden_layers"],
            3
        );
    }
    for (kind, bytes, shown) in [
        (1, vec![255], "-1"),
        (3, (-2i16).to_le_bytes().to_vec(), "-2"),
        (5, (-3i32).to_le_bytes().to_vec(), "-3"),
        (11, (-4i64).to_le_bytes().to_vec(), "-4"),
        (6, 3.5f32.to_le_bytes().to_vec(), "3.5"),
        (7, vec![1], "true"),
        (12, 3.0f64.to_le_bytes().to_vec(), "3"),
        (9, list(6, &[0, 0]), "a list of 2 (f32)"),
    ] {
        assert_eq!(
            sentence(&llama().value("llama.embedding_length", kind, bytes).bytes()),
            format!("f, llama.embedding_length: expected a whole number of 0 or more, got {shown}")
        );
    }
    // One for each layer, where they are the same.
    let per_layer =
        |counts: &[u32]| llama().value("llama.attention.head_count", 9, list(4, counts));
    assert_eq!(config(&per_layer(&[2, 2, 2]))["num_attention_heads"], 2);
    assert_eq!(
        sentence(&per_layer(&[2, 4]).bytes()),
        "f, llama.attention.head_count: expected a whole number, the same in every layer, got a list of 2 (u32)"
    );
    let eps = llama().value(
        "llama.attention.layer_norm_rms_epsilon",
        12,
        1e-6f64.to_le_bytes().to_vec(),
    );
    assert_eq!(config(&eps)["rms_norm_eps"], 1e-6);
    // A file's own names, and lists of every kind.
    let mut writer = llama()
        .text("general.name", "tiny")
        .value("own.flag", 7, vec![0]);
    for kind in [0u32, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12] {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend(2u64.to_le_bytes());
        bytes.resize(
            bytes.len() + 2 * [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8][kind as usize],
            7,
        );
        writer = writer.value(&format!("own.list{kind}"), 9, bytes);
    }
    let bytes = writer.bytes();
    let GgufParsed::Header(header) = ok(GgufHeader::parse(
        "f",
        &bytes,
        bytes.len() as u64,
        MAX_TENSORS,
    )) else {
        panic!("a header that needs more");
    };
    let metadata = ok(Gguf::new(vec![("f", header)])).metadata();
    assert_eq!(metadata["general.name"], "tiny");
    assert_eq!(metadata["own.flag"], "false");
    assert_eq!(metadata["llama.block_count"], "1");
    assert!(!metadata.keys().any(|key| key.starts_with("own.list")));
}

/// Every element type, by its number in files.
#[test]
fn element_types() {
    for (number, dtype, bytes) in [
        (0, Dtype::F32, 128),
        (1, Dtype::F16, 64),
        (30, Dtype::BF16, 64),
        (8, Dtype::Q8_0, 34),
        (2, Dtype::Q4_0, 18),
        (3, Dtype::Q4_1, 20),
    ] {
        let data: Vec<u8> = (0..2 * bytes).map(|at| at as u8).collect();
        let writer = llama().tensor("blk.0.attn_v.weight", &[32, 2], number, 0);
        let bytes = writer.holding(data.clone()).bytes();
        let files = ok(open(&bytes));
        let tensor = ok(files.raw("model.layers.0.self_attn.v_proj.weight"));
        assert_eq!((tensor.dtype(), tensor.shape()), (dtype, &[2, 32][..]));
        assert_eq!(tensor.bytes(), data);
        assert_eq!(ok(tensor.to_f32("t")).len(), 64);
        assert_eq!(
            tensor.blocks().map(Iterator::count),
            dtype.block_bytes().map(|_| 2)
        );
    }
}
