//! Byte-level BPE, llama.cpp's model `gpt2`: merges, and how a text is split before them, by the
//! name of its pre-tokenizer. The expressions are those of the tokenizers that the names are of.

use super::parts::{Bpe, Parts};
use super::vocabulary::Vocabulary;
use crate::gguf::keys::Keys;
use diffattn::Error;
use serde_json::{Value, json};

const PRE: &str = "tokenizer.ggml.pre";
const MERGES: &str = "tokenizer.ggml.merges";

/// Llama 3's, but for how many digits stand together.
macro_rules! modern {
    ($digits:literal) => {
        concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    };
}

/// How a text is split, and what else differs.
struct Pre {
    /// Expressions, each of which cuts out what it finds in what those before it left; with
    /// `by_gpt2`, GPT-2's at last.
    expressions: &'static [&'static str],
    by_gpt2: bool,
    /// Whether a word that is a token is that, whatever its merges would make.
    ignores_merges: bool,
    /// Whether texts are composed first (NFC).
    composes: bool,
    adds_bos: bool,
}

const PLAIN: Pre = Pre {
    expressions: &[],
    by_gpt2: true,
    ignores_merges: false,
    composes: false,
    adds_bos: false,
};

/// The pre-tokenizers that are read. (`default`, which llama.cpp also takes where the file says
/// none, is its own.)
const PRES: [(&str, Pre); 5] = [
    (
        "default",
        Pre {
            expressions: &[
                r"[\p{P}\$\+<=>\^~\|]+",
                r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
                r"\p{N}+",
                "[0-9][0-9][0-9]",
            ],
            by_gpt2: false,
            ..PLAIN
        },
    ),
    ("gpt-2", PLAIN),
    (
        "smollm",
        Pre {
            expressions: &[r"\p{N}"],
            ..PLAIN
        },
    ),
    (
        "llama-bpe",
        Pre {
            expressions: &[modern!(r"\p{N}{1,3}")],
            by_gpt2: false,
            ignores_merges: true,
            adds_bos: true,
            ..PLAIN
        },
    ),
    (
        "qwen2",
        Pre {
            expressions: &[modern!(r"\p{N}")],
            by_gpt2: false,
            composes: true,
            ..PLAIN
        },
    ),
];

pub(super) fn parts<'b, 'v>(
    keys: &Keys<'_, 'b>,
    vocabulary: &'v Vocabulary<'b>,
) -> Result<Parts<'b, 'v>, Error> {
    let name = keys.text(PRE)?.unwrap_or("default");
    let found = PRES.iter().find(|(known, _)| *known == name);
    let Some((_, pre)) = found else {
        let names = PRES.each_ref().map(|(known, _)| format!("{known:?}"));
        let expected = format!("one of {}", names.join(", "));
        return Err(keys.refuse(
            PRE,
            &expected,
            format_args!("{:?}", crate::text::excerpt(name)),
        ));
    };
    let splits = pre.expressions.iter().map(|expression| {
        json!({
            "type": "Split",
            "pattern": {"Regex": expression},
            "behavior": "Isolated",
            "invert": false,
        })
    });
    let byte_level = |use_regex: bool| {
        json!({
            "type": "ByteLevel",
            "add_prefix_space": false,
            "trim_offsets": true,
            "use_regex": use_regex,
        })
    };
    let steps = splits.chain([byte_level(pre.by_gpt2)]);
    Ok(Parts {
        model: Bpe {
            ignore_merges: pre.ignores_merges,
            ..Bpe::new(vocabulary, merges(keys)?)
        },
        normalizer: match pre.composes {
            true => json!({"type": "NFC"}),
            false => Value::Null,
        },
        pre_tokenizer: json!({"type": "Sequence", "pretokenizers": steps.collect::<Vec<_>>()}),
        decoder: byte_level(true),
        adds_bos: pre.adds_bos,
        class: "PreTrainedTokenizerFast",
    })
}

/// The merges as pairs. (No byte of a token is a space: it stands between the two.)
fn merges<'b>(keys: &Keys<'_, 'b>) -> Result<Vec<(&'b str, &'b str)>, Error> {
    let list = keys.wanted(MERGES, keys.list(MERGES)?)?;
    let texts = list.texts();
    let texts = texts.ok_or_else(|| keys.refuse(MERGES, "a list of texts", "another"))?;
    let mut merges = Vec::new();
    for (at, text) in texts.enumerate() {
        let pair = std::str::from_utf8(text).ok();
        let pair = pair.and_then(|text| text.split_once(' '));
        let whole = |(left, right): &(&str, &str)| !left.is_empty() && !right.is_empty();
        let pair = pair.filter(whole).ok_or_else(|| {
            let expected = "two tokens with a space between them";
            keys.refuse(MERGES, expected, format_args!("another: merge {at}"))
        })?;
        merges.push(pair);
    }
    Ok(merges)
}
