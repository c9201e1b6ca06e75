//! SentencePiece's BPE, llama.cpp's model `llama`: pieces with scores, the higher joined first, and
//! bytes for what no piece has. As Hugging Face's Llama has it: the merges that the scores stand
//! for.

use super::parts::{Bpe, Parts};
use super::vocabulary::{BYTE, TOKENS, UNKNOWN, Vocabulary};
use crate::gguf::keys::Keys;
use diffattn::Error;
use serde_json::{Value, json};
use std::collections::HashSet;

const SCORES: &str = "tokenizer.ggml.scores";

/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

/// Bytes of a piece at most that others make: SentencePiece itself makes pieces of 16 characters.
const LONGEST: usize = 128;

/// Merges for each token at most, on an average. (Llama 2 has 2.)
const MERGES: usize = 16;

pub(super) fn parts<'b, 'v>(
    keys: &Keys<'_, 'b>,
    vocabulary: &'v Vocabulary<'b>,
) -> Result<Parts<'b, 'v>, Error> {
    let prefix = keys
        .flag("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(true);
    let unknown = vocabulary.typed().find(|(_, kind)| *kind == UNKNOWN);
    let has_bytes = vocabulary.types.contains(&BYTE);
    let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let mut normalizers = Vec::new();
    let mut decoders = vec![
        replace(SPACE, " "),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.push(json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    normalizers.push(replace(" ", SPACE));
    Ok(Parts {
        model: Bpe {
            unk_token: unknown.map(|(token, _)| token),
            fuse_unk: true,
            byte_fallback: has_bytes,
            ..Bpe::new(vocabulary, merges(keys, vocabulary)?)
        },
        normalizer: json!({"type": "Sequence", "normalizers": normalizers}),
        pre_tokenizer: Value::Null,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        adds_bos: true,
        class: "LlamaTokenizer",
    })
}

/// A piece and the two that make it.
struct Merge<'b> {
    score: f32,
    left: &'b str,
    right: &'b str,
}

/// Every way to make a piece of two others, those of the highest score first; of equal ones as
/// Hugging Face's converter orders them: the longer left piece, then the longer right one.
fn merges<'b>(
    keys: &Keys<'_, '_>,
    vocabulary: &Vocabulary<'b>,
) -> Result<Vec<(&'b str, &'b str)>, Error> {
    let list = keys.wanted(SCORES, keys.list(SCORES)?)?;
    let scores: Vec<f32> = list
        .scalars()
        .into_iter()
        .flatten()
        .map_while(|score| match score {
            crate::gguf::value::Value::F32(score) => Some(score),
            _ => None,
        })
        .collect();
    if scores.len() != vocabulary.tokens.len() || scores.iter().any(|score| score.is_nan()) {
        let expected = format!("{} float32, one for each token", vocabulary.tokens.len());
        return Err(keys.refuse(SCORES, &expected, format_args!("{} of them", list.len())));
    }
    let is_piece = |kind: u64| matches!(kind, 1 | 4 | 5);
    let typed = vocabulary.typed().filter(|(_, kind)| is_piece(*kind));
    let pieces: HashSet<&str> = typed.map(|(token, _)| token).collect();
    let mut merges = Vec::new();
    for ((token, kind), score) in vocabulary.typed().zip(scores) {
        if !is_piece(kind) {
            continue;
        }
        if token.len() > LONGEST {
            let expected = format!("pieces of at most {LONGEST} bytes");
            return Err(keys.refuse(TOKENS, &expected, token.len()));
        }
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if pieces.contains(left) && pieces.contains(right) {
                merges.push(Merge { score, left, right });
            }
        }
        if merges.len() > MERGES * vocabulary.tokens.len() {
            let expected =
                format!("pieces that others make in {MERGES} ways at most, on an average");
            return Err(keys.refuse(TOKENS, &expected, "more"));
        }
    }
    let chars = |text: &str| text.chars().count();
    merges.sort_by(|a, b| {
        let by_score = b.score.total_cmp(&a.score);
        let by_left = || chars(b.left).cmp(&chars(a.left));
        let by_right = || chars(b.right).cmp(&chars(a.right));
        by_score.then_with(by_left).then_with(by_right)
    });
    let pairs = merges.iter().map(|merge| (merge.left, merge.right));
    Ok(pairs.collect())
}
