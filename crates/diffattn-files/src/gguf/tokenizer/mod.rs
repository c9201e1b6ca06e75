//! The tokenizer of a GGUF file as a `tokenizer.json` of the `tokenizers` library, and the
//! `tokenizer_config.json` beside it. Splits no text.

mod bpe;
mod parts;
mod sentencepiece;
mod vocabulary;

use super::keys::Keys;
use diffattn::Error;
use parts::Bpe;
use serde::Serialize;
use serde_json::{Map, Value, json};
use vocabulary::{Added, Vocabulary};

/// The template that makes a prompt of messages.
pub(super) const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// A tokenizer as two files of Hugging Face's have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTokenizer {
    /// The text of `tokenizer.json`.
    pub tokenizer: String,
    /// The text of `tokenizer_config.json`, with the chat template where there is one.
    pub config: String,
}

/// A whole tokenizer of the library's.
#[derive(Serialize)]
struct Json<'b, 'v> {
    version: &'static str,
    truncation: Option<()>,
    padding: Option<()>,
    added_tokens: Added<'v, 'b>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Bpe<'b, 'v>,
}

/// Reads the tokenizer; none where the file has none.
pub(super) fn read(keys: &Keys<'_, '_>) -> Result<Option<GgufTokenizer>, Error> {
    let key = "tokenizer.ggml.model";
    let is_bytes = match keys.text(key)? {
        None | Some("none" | "no_vocab") => return Ok(None),
        Some("gpt2") => true,
        Some("llama") => false,
        Some(other) => {
            let got = format!("{:?}", crate::text::excerpt(other));
            return Err(keys.refuse(key, "\"gpt2\" or \"llama\"", got));
        }
    };
    let vocabulary = Vocabulary::read(keys)?;
    let parts = match is_bytes {
        true => bpe::parts(keys, &vocabulary)?,
        false => sentencepiece::parts(keys, &vocabulary)?,
    };
    let bos = token(keys, &vocabulary, "bos")?;
    let eos = token(keys, &vocabulary, "eos")?;
    let flag = |name: &str| keys.flag(&format!("tokenizer.ggml.add_{name}_token"));
    let adds_bos = flag("bos")?.unwrap_or(parts.adds_bos);
    let adds_eos = flag("eos")?.unwrap_or(false);
    let begins = bos.as_ref().filter(|_| adds_bos);
    let ends = eos.as_ref().filter(|_| adds_eos);
    let tokenizer = serde_json::to_string(&Json {
        version: "1.0",
        truncation: None,
        padding: None,
        added_tokens: Added(&vocabulary),
        normalizer: parts.normalizer,
        pre_tokenizer: parts.pre_tokenizer,
        post_processor: post_processor(begins, ends),
        decoder: parts.decoder,
        model: parts.model,
    });
    let tokenizer =
        tokenizer.map_err(|why| Error::internal(format!("a tokenizer that is no JSON: {why}")))?;
    let mut config = Map::new();
    config.insert("tokenizer_class".to_owned(), json!(parts.class));
    config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
    config.insert("add_bos_token".to_owned(), json!(adds_bos));
    config.insert("add_eos_token".to_owned(), json!(adds_eos));
    let unknown = token(keys, &vocabulary, "unknown")?;
    let padding = token(keys, &vocabulary, "padding")?;
    let named = [
        ("bos_token", &bos),
        ("eos_token", &eos),
        ("unk_token", &unknown),
        ("pad_token", &padding),
    ];
    for (name, token) in named {
        if let Some((_, text)) = token {
            config.insert(name.to_owned(), json!(text));
        }
    }
    if let Some(template) = keys.text(CHAT_TEMPLATE)? {
        config.insert("chat_template".to_owned(), json!(template));
    }
    Ok(Some(GgufTokenizer {
        tokenizer,
        config: Value::Object(config).to_string(),
    }))
}

/// A token with a purpose: its id and its text.
type Named<'b> = Option<(u32, &'b str)>;

fn token<'b>(
    keys: &Keys<'_, 'b>,
    vocabulary: &Vocabulary<'b>,
    name: &str,
) -> Result<Named<'b>, Error> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    let Some(id) = keys.id(&key)? else {
        return Ok(None);
    };
    let text = vocabulary.tokens.get(id as usize).copied();
    let text = text.ok_or_else(|| {
        let expected = format!("an id below {}", vocabulary.tokens.len());
        keys.refuse(&key, &expected, id)
    })?;
    Ok(Some((id, text)))
}

/// What stands before and behind every text.
fn post_processor(begins: Option<&(u32, &str)>, ends: Option<&(u32, &str)>) -> Value {
    if begins.is_none() && ends.is_none() {
        return Value::Null;
    }
    let special = |token: &(u32, &str)| json!({"SpecialToken": {"id": token.1, "type_id": 0}});
    let template = |texts: &[&str]| -> Vec<Value> {
        let mut all = Vec::new();
        for text in texts {
            all.extend(begins.map(special));
            all.push(json!({"Sequence": {"id": text, "type_id": 0}}));
            all.extend(ends.map(special));
        }
        all
    };
    let mut tokens = Map::new();
    for (id, text) in begins.into_iter().chain(ends) {
        let token = json!({"id": text, "ids": [id], "tokens": [text]});
        tokens.insert((*text).to_owned(), token);
    }
    json!({
        "type": "TemplateProcessing",
        "single": template(&["A"]),
        "pair": template(&["A", "B"]),
        "special_tokens": tokens,
    })
}
