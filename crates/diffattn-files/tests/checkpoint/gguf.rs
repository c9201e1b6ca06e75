//! GGUF files: what is read of them, what must be refused, each with its sentence; and files changed
//! at random, which must not panic nor make the reader allocate what they claim.

use crate::common::{models, ok, peak, refusal};
use diffattn_files::{
    Dtype, Gguf, GgufFiles, GgufHeader, GgufParsed, GgufTokenizer, MAX_TENSORS, RawTensor, inspect,
    split_names,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn fixture(name: &str) -> Vec<u8> {
    let path = models().join("gguf").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A file that is being written.
#[derive(Default, Clone)]
struct Writer {
    values: Vec<(String, u32, Vec<u8>)>,
    tensors: Vec<(String, Vec<u64>, u32, u64)>,
    alignment: usize,
    data: usize,
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn texts(list: &[&str]) -> Vec<u8> {
    let mut bytes = 8u32.to_le_bytes().to_vec();
    bytes.extend((list.len() as u64).to_le_bytes());
    list.iter().for_each(|one| bytes.extend(text(one)));
    bytes
}

impl Writer {
    fn value(mut self, key: &str, kind: u32, bytes: Vec<u8>) -> Self {
        self.values.retain(|(known, ..)| known != key);
        self.values.push((key.to_owned(), kind, bytes));
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.values.retain(|(known, ..)| known != key);
        self
    }

    fn u32(self, key: &str, value: u32) -> Self {
        self.value(key, 4, value.to_le_bytes().to_vec())
    }

    fn f32(self, key: &str, value: f32) -> Self {
        self.value(key, 6, value.to_le_bytes().to_vec())
    }

    fn text(self, key: &str, value: &str) -> Self {
        self.value(key, 8, text(value))
    }

    fn tensor(mut self, name: &str, shape: &[u64], kind: u32, offset: u64) -> Self {
        self.tensors.retain(|(known, ..)| known != name);
        self.tensors
            .push((name.to_owned(), shape.to_vec(), kind, offset));
        self
    }

    fn data(mut self, bytes: usize) -> Self {
        self.data = bytes;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.values.len() as u64).to_le_bytes());
        for (key, kind, bytes) in &self.values {
            file.extend(text(key));
            file.extend(kind.to_le_bytes());
            file.extend_from_slice(bytes);
        }
        for (name, shape, kind, offset) in &self.tensors {
            file.extend(text(name));
            file.extend((shape.len() as u32).to_le_bytes());
            shape
                .iter()
                .for_each(|size| file.extend(size.to_le_bytes()));
            file.extend(kind.to_le_bytes());
            file.extend(offset.to_le_bytes());
        }
        file.resize(file.len().next_multiple_of(self.alignment.max(32)), 0);
        file.resize(file.len() + self.data, 0);
        file
    }
}

/// The values of a Llama of one layer, without tensors.
fn llama() -> Writer {
    Writer::default()
        .text("general.architecture", "llama")
        .u32("llama.block_count", 1)
        .u32("llama.embedding_length", 32)
        .u32("llama.feed_forward_length", 32)
        .u32("llama.attention.head_count", 2)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
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

/// What is no such file, or no such Llama, has a sentence.
#[test]
fn refusals() {
    let mut old = llama().bytes();
    old[4] = 1;
    let mut big = llama().bytes();
    big[4..8].copy_from_slice(&3u32.to_be_bytes());
    let mut many = llama().bytes();
    many[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut keys = llama().bytes();
    keys[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    let tensor = |shape: &[u64], kind: u32, offset: u64| {
        llama()
            .tensor("token_embd.weight", shape, kind, offset)
            .data(64)
    };
    let list = |kind: u32, len: u64| {
        let bytes = [kind.to_le_bytes().to_vec(), len.to_le_bytes().to_vec()].concat();
        llama().value("x", 9, bytes)
    };
    let embedding = "f, tensor \"token_embd.weight\": expected";
    let cases: Vec<(Vec<u8>, String)> = vec![
        (b"GGUX".to_vec(), "f: expected a GGUF file, got text that begins with \"GGUX\"".into()),
        (b"GG".to_vec(), "f: expected what a GGUF file begins with within the 2 bytes of the file, got 4 bytes from byte 0 on".into()),
        (old, "f: expected GGUF of version 2 or 3, little-endian, got version 1".into()),
        (big, "f: expected GGUF of version 2 or 3, little-endian, got one of big-endian numbers".into()),
        (many, "f: expected at most 65536 tensors (maxTensors), got 18446744073709551615".into()),
        (keys, "f: expected at most 65536 values of metadata, got 18446744073709551615".into()),
        (llama().value("x", 13, vec![]).bytes(), "f, x: expected a value of a kind that GGUF 3 has, got kind 13".into()),
        (list(9, 1).bytes(), "f, x: expected a value of a kind that GGUF 3 has, got a list of lists".into()),
        (llama().value("x", 8, u64::MAX.to_le_bytes().to_vec()).bytes(), String::new()),
        (list(8, u64::MAX).bytes(), String::new()),
        (list(10, u64::MAX / 8).bytes(), String::new()),
        (llama().u32("general.alignment", 0).bytes(), "f, general.alignment: expected a power of two below 2^32, got 0".into()),
        (llama().u32("general.alignment", 24).bytes(), "f, general.alignment: expected a power of two below 2^32, got 24".into()),
        (tensor(&[4, 4], 0, 8).bytes(), format!("{embedding} an offset that is a multiple of 32, got 8")),
        (tensor(&[4, 4], 0, 32).bytes(), String::new()),
        (tensor(&[4, 4], 0, u64::MAX - 31).bytes(), format!("{embedding} bytes within the file, got offset 18446744073709551584")),
        (tensor(&[1 << 40, 1 << 40], 0, 0).bytes(), String::new()),
        (tensor(&[16, 2], 8, 0).bytes(), format!("{embedding} a last axis of whole blocks of 32, got [2, 16] of Q8_0")),
        (tensor(&[4, 4], 12, 0).bytes(), format!("{embedding} a type among F32, F16, Q4_0, Q4_1, Q8_0, BF16, got Q4_K")),
        (tensor(&[4, 4], 99, 0).bytes(), format!("{embedding} a type among F32, F16, Q4_0, Q4_1, Q8_0, BF16, got type 99")),
        (tensor(&[1, 1, 1, 1, 1], 0, 0).bytes(), format!("{embedding} at most 4 axes, got 5")),
        (tensor(&[4, 4], 0, 0).tensor("output.weight", &[4], 0, 32).bytes(), "f, tensor \"output.weight\": expected bytes from".into()),
        (tensor(&[4, 4], 0, 0).tensor("blk.0.ffn_gate_inp.weight", &[0], 0, 64).bytes(), "f, tensor \"blk.0.ffn_gate_inp.weight\": expected a tensor that a Llama has, got one of another model".into()),
        (llama().tensor("blk.00.ffn_up.weight", &[0], 0, 0).bytes(), "f, tensor \"blk.00.ffn_up.weight\": expected a tensor that a Llama has, got one of another model".into()),
        (llama().tensor("blk.0.attn_q.weight", &[32, 8], 0, 0).data(1024).bytes(), "f, tensor \"blk.0.attn_q.weight\": expected the rows of 2 heads of 16, got 8".into()),
        (llama().text("general.architecture", "qwen3").bytes(), "f, general.architecture: expected \"llama\", the one architecture of GGUF files that is read, got \"qwen3\"".into()),
        (Writer::default().bytes(), "f, general.architecture: expected \"llama\", the one architecture of GGUF files that is read, got none".into()),
        (llama().u32("llama.expert_count", 8).bytes(), "f, llama.expert_count: expected none, as a Llama has none, got 8".into()),
        (llama().u32("llama.rope.dimension_count", 8).bytes(), "f, llama.rope.dimension_count: expected 16, as the whole head turns, got 8".into()),
        (llama().without("llama.block_count").bytes(), "f, llama.block_count: expected a value, got none".into()),
        (llama().text("llama.block_count", "1").bytes(), "f, llama.block_count: expected a whole number, the same in every layer, got \"1\"".into()),
        (llama().u32("llama.attention.head_count", 0).bytes(), "f, llama.attention.head_count: expected a value, got none".into()),
    ];
    let mut wrong = Vec::new();
    for (bytes, want) in cases {
        let got = sentence(&bytes);
        if !got.starts_with(&want) || !got.starts_with("f") {
            wrong.push(format!("want {want}\n got {got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A value twice.
    let mut twice = llama();
    twice.values.extend_from_within(..1);
    assert_eq!(
        sentence(&twice.bytes()),
        "f, general.architecture: expected one value of this name, got more than one"
    );
}

/// Cut anywhere, a file is refused.
#[test]
fn cut_short() {
    let bytes = fixture("q4_0/model.gguf");
    for len in (0..5000).chain([bytes.len() - 1]) {
        sentence(&bytes[..len]);
    }
}

/// A tokenizer of these values.
fn tokenizer(writer: &Writer) -> Result<Option<GgufTokenizer>, diffattn::Error> {
    let bytes = writer.bytes();
    ok(open(&bytes)).tokenizer()
}

fn bytes_of(list: &[u32], kind: u32) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend((list.len() as u64).to_le_bytes());
    list.iter().for_each(|one| bytes.extend(one.to_le_bytes()));
    bytes
}

fn gpt2() -> Writer {
    llama()
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "smollm")
        .value("tokenizer.ggml.tokens", 9, texts(&["<s>", "a", "b", "ab"]))
        .value("tokenizer.ggml.token_type", 9, bytes_of(&[3, 1, 1, 1], 5))
        .value("tokenizer.ggml.merges", 9, texts(&["a b"]))
        .u32("tokenizer.ggml.bos_token_id", 0)
}

#[test]
fn tokenizers() {
    let read = |writer: &Writer| -> (Value, Value) {
        let read = ok(tokenizer(writer)).unwrap_or_else(|| panic!("no tokenizer"));
        let json = |text: &str| serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}"));
        (json(&read.tokenizer), json(&read.config))
    };
    assert_eq!(ok(tokenizer(&llama())), None);
    let (json, config) = read(&gpt2());
    assert_eq!(
        json["model"]["vocab"],
        json!({"<s>": 0, "a": 1, "b": 2, "ab": 3})
    );
    assert_eq!(json["model"]["merges"], json!([["a", "b"]]));
    assert_eq!(json["added_tokens"][0]["content"], "<s>");
    assert_eq!(json["post_processor"], Value::Null);
    assert_eq!(config["bos_token"], "<s>");
    let begins = gpt2().value("tokenizer.ggml.add_bos_token", 7, vec![1]);
    assert_eq!(
        read(&begins).0["post_processor"]["single"],
        json!([{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}])
    );
    for pre in ["default", "gpt-2", "smollm", "llama-bpe", "qwen2"] {
        let (json, _) = read(&gpt2().text("tokenizer.ggml.pre", pre));
        assert_eq!(json["pre_tokenizer"]["type"], "Sequence");
        assert_eq!(json["model"]["ignore_merges"], pre == "llama-bpe");
        assert_eq!(json["post_processor"].is_null(), pre != "llama-bpe");
    }
    // Of scores: the higher is joined first.
    let scores: Vec<u32> = [0.0f32, 0.0, -3.0, -1.0, -2.0, -4.0, -5.0, -6.0]
        .map(f32::to_bits)
        .to_vec();
    let pieces = ["<unk>", "<s>", "ab", "abc", "bc", "a", "b", "c"];
    let sentencepiece = llama()
        .text("tokenizer.ggml.model", "llama")
        .value("tokenizer.ggml.tokens", 9, texts(&pieces))
        .value("tokenizer.ggml.scores", 9, bytes_of(&scores, 6))
        .value(
            "tokenizer.ggml.token_type",
            9,
            bytes_of(&[2, 3, 1, 1, 1, 1, 1, 1], 5),
        )
        .u32("tokenizer.ggml.bos_token_id", 1);
    let (json, _) = read(&sentencepiece);
    assert_eq!(
        json["model"]["merges"],
        json!([["ab", "c"], ["a", "bc"], ["b", "c"], ["a", "b"]])
    );
    assert_eq!(json["model"]["unk_token"], "<unk>");
    assert_eq!(json["model"]["byte_fallback"], false);
    assert_eq!(json["normalizer"]["normalizers"][0]["type"], "Prepend");
    // Refused by name.
    let refused = |writer: &Writer| refusal(tokenizer(writer)).1;
    assert_eq!(
        refused(&gpt2().text("tokenizer.ggml.pre", "tekken")),
        "f, tokenizer.ggml.pre: expected one of \"default\", \"gpt-2\", \"smollm\", \"llama-bpe\", \"qwen2\", got \"tekken\""
    );
    assert_eq!(
        refused(&gpt2().text("tokenizer.ggml.model", "bert")),
        "f, tokenizer.ggml.model: expected \"gpt2\" or \"llama\", got \"bert\""
    );
    assert_eq!(
        refused(&gpt2().u32("tokenizer.ggml.bos_token_id", 4)),
        "f, tokenizer.ggml.bos_token_id: expected an id below 4, got 4"
    );
    assert_eq!(
        refused(&gpt2().value("tokenizer.ggml.merges", 9, texts(&["ab"]))),
        "f, tokenizer.ggml.merges: expected two tokens with a space between them, got another: merge 0"
    );
    assert_eq!(
        refused(&gpt2().value("tokenizer.ggml.token_type", 9, bytes_of(&[3], 5))),
        "f, tokenizer.ggml.token_type: expected 4 whole numbers, one for each token, got 1"
    );
    // Pieces that others make in too many ways cost more than their bytes.
    let long: Vec<String> = (1..=128).map(|len| "a".repeat(len)).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let many = llama()
        .text("tokenizer.ggml.model", "llama")
        .value("tokenizer.ggml.tokens", 9, texts(&long))
        .value("tokenizer.ggml.scores", 9, bytes_of(&[0; 128], 6));
    assert!(refused(&many).contains("in 16 ways at most"));
}

/// Opens what can be opened, and reads all of it; memory stays in proportion to the file.
fn survives(bytes: &[u8]) {
    let (_, held) = peak(|| {
        let Ok(files) = open(bytes) else { return };
        let mut names = BTreeMap::new();
        for entry in files.entries() {
            names.insert(entry.entry.name.clone(), entry.turned_heads);
            if let Ok(tensor) = files.raw(&entry.entry.name) {
                let _ = tensor.to_f32("t");
            }
        }
        let _ = files.tokenizer();
    });
    assert!(held < 24 * bytes.len() + (1 << 20), "{held} bytes held");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random bytes of a header changed.
    #[test]
    fn changed_headers(
        changes in prop::collection::vec((0usize..4096, any::<u8>()), 1..6),
        cut in prop::option::weighted(0.1, 0usize..5000),
    ) {
        let mut bytes = fixture("q4_0/model.gguf");
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        survives(&bytes);
    }

    /// A piece of the header moved to another place.
    #[test]
    fn moved_pieces(from in 8usize..4096, len in 1usize..200, to in 8usize..4096) {
        let mut bytes = fixture("q4_1/model.gguf");
        let piece = bytes[from..(from + len).min(4096)].to_vec();
        let end = (to + piece.len()).min(4096);
        bytes[to..end].copy_from_slice(&piece[..end - to]);
        survives(&bytes);
    }
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
