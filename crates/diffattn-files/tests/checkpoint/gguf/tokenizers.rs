//! Tokenizers of GGUF files as `tokenizer.json` has them.

use super::open;
use super::writer::{Writer, list, llama, texts};
use crate::common::{ok, refusal};
use diffattn_files::GgufTokenizer;
use serde_json::{Value, json};

/// A tokenizer of these values.
fn tokenizer(writer: &Writer) -> Result<Option<GgufTokenizer>, diffattn::Error> {
    let bytes = writer.bytes();
    ok(open(&bytes)).tokenizer()
}

fn gpt2() -> Writer {
    llama()
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "smollm")
        .value("tokenizer.ggml.tokens", 9, texts(&["<s>", "a", "b", "ab"]))
        .value("tokenizer.ggml.token_type", 9, list(5, &[3, 1, 1, 1]))
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
    assert_eq!(
        json["added_tokens"],
        json!([{
            "id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }])
    );
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
        .value("tokenizer.ggml.scores", 9, list(6, &scores))
        .value(
            "tokenizer.ggml.token_type",
            9,
            list(5, &[2, 3, 1, 1, 1, 1, 1, 1]),
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
        refused(&gpt2().value("tokenizer.ggml.token_type", 9, list(5, &[3]))),
        "f, tokenizer.ggml.token_type: expected 4 whole numbers, one for each token, got 1"
    );
    // Pieces that others make in too many ways cost more than their bytes.
    let long: Vec<String> = (1..=128).map(|len| "a".repeat(len)).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let many = llama()
        .text("tokenizer.ggml.model", "llama")
        .value("tokenizer.ggml.tokens", 9, texts(&long))
        .value("tokenizer.ggml.scores", 9, list(6, &[0; 128]));
    assert!(refused(&many).contains("in 16 ways at most"));
}

/// Tokens of types 2, 3 and 4 are found in a text before it is split; those of others are not.
#[test]
fn types_of_tokens() {
    let tokens = [
        "normal", "unknown", "control", "user", "unused", "<0x41>", "",
    ];
    let writer = gpt2()
        .value("tokenizer.ggml.tokens", 9, texts(&tokens))
        .value(
            "tokenizer.ggml.token_type",
            9,
            list(5, &[1, 2, 3, 4, 5, 6, 3]),
        )
        .value("tokenizer.ggml.merges", 9, texts(&[]));
    let read = ok(tokenizer(&writer)).unwrap_or_else(|| panic!("no tokenizer"));
    let json: Value = serde_json::from_str(&read.tokenizer).unwrap_or_else(|e| panic!("{e}"));
    let added = json["added_tokens"].as_array().map(|added| {
        let one = |token: &Value| (token["id"].as_u64(), token["content"].to_string());
        added.iter().map(one).collect::<Vec<_>>()
    });
    assert_eq!(
        added,
        Some(vec![
            (Some(1), "\"unknown\"".to_owned()),
            (Some(2), "\"control\"".to_owned()),
            (Some(3), "\"user\"".to_owned()),
        ])
    );
}

/// What a text begins and ends with, and what of the configuration says so.
#[test]
fn what_stands_around() {
    let flag = |name: &str, is: bool| {
        (
            format!("tokenizer.ggml.add_{name}_token"),
            vec![u8::from(is)],
        )
    };
    let around = |pre: &str, flags: &[(String, Vec<u8>)]| {
        let mut writer = gpt2()
            .text("tokenizer.ggml.pre", pre)
            .u32("tokenizer.ggml.eos_token_id", 3);
        for (key, value) in flags {
            writer = writer.value(key, 7, value.clone());
        }
        let read = ok(tokenizer(&writer)).unwrap_or_else(|| panic!("no tokenizer"));
        let json: Value = serde_json::from_str(&read.tokenizer).unwrap_or_else(|e| panic!("{e}"));
        let single = json["post_processor"]["single"].as_array().cloned();
        let id = |part: &Value| match &part["SpecialToken"]["id"] {
            Value::String(token) => token.clone(),
            _ => "text".to_owned(),
        };
        let parts = single.map(|parts| parts.iter().map(id).collect::<Vec<_>>().join(" "));
        parts.unwrap_or_else(|| "text".to_owned())
    };
    assert_eq!(around("gpt-2", &[]), "text");
    assert_eq!(around("llama-bpe", &[]), "<s> text");
    assert_eq!(around("llama-bpe", &[flag("bos", false)]), "text");
    assert_eq!(around("gpt-2", &[flag("bos", true)]), "<s> text");
    assert_eq!(around("gpt-2", &[flag("eos", true)]), "text ab");
    assert_eq!(
        around("gpt-2", &[flag("bos", true), flag("eos", true)]),
        "<s> text ab"
    );
}
