//! Errors as JavaScript sees them: a code and a sentence with the argument names of `api.md`; and
//! the wall that no panic passes. Decides nothing about what is an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diffattn::{Error, ErrorKind};

/// A refused or failed request: the same on every backend, because it is made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `SHAPE`, `DTYPE`, `OPTION`, …
    pub code: &'static str,
    /// `keyLengths: expected …, got …`.
    pub message: String,
}

/// Bytes of a sentence at most. What a caller or a file says, which it may repeat, can be of any
/// length.
const LONGEST: usize = 2000;

/// A sentence's beginning, where it is long.
fn cut(mut sentence: String) -> String {
    if sentence.len() > LONGEST {
        let end = (0..=LONGEST)
            .rev()
            .find(|&end| sentence.is_char_boundary(end))
            .unwrap_or(0);
        sentence.truncate(end);
        sentence.push('…');
    }
    sentence
}

impl From<Error> for Failure {
    #[cold]
    fn from(error: Error) -> Self {
        let sentence = cut(error.to_string());
        Self {
            code: error.code(),
            // What a file is wrong about has the file's own names.
            message: match error.kind() {
                Some(ErrorKind::File) => sentence,
                _ => in_camel_case(&sentence),
            },
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Failure {}

/// Runs `work`; a panic in it becomes an INTERNAL error with the panic's message. (Where panics
/// abort, as in WASM, it never returns: there the door's hook keeps the message.)
///
/// # Errors
/// Those of `work`, and INTERNAL after a panic.
pub fn contain<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // After a panic the job at hand is dropped and every lock of ours is taken over, so nothing
    // half done is seen.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .map(|&text| text.to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a message".to_owned());
        Err(Error::internal(message))
    })
}

/// Names that are spelled with underscores in JavaScript too: weights of a checkpoint and Hugging
/// Face's words for rotary scaling.
const KEPT: &[&str] = &[
    "q_proj",
    "k_proj",
    "v_proj",
    "out_proj",
    "o_proj",
    "lambda_proj",
    "lambda_q1",
    "lambda_k1",
    "lambda_q2",
    "lambda_k2",
    "lambda_a",
    "lambda_b",
    "rope_type",
    "rope_theta",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale_all_dim",
];

/// What stands before the name of a weight, which is spelled as its file has it.
const WEIGHTS: &str = "weights.";

/// `key_lengths` to `keyLengths` in a whole sentence; quoted text (what the user wrote) stays, and
/// so does the name of a weight that the sentence begins with.
pub(crate) fn in_camel_case(sentence: &str) -> String {
    let mut result = String::with_capacity(sentence.len());
    let name = match sentence.starts_with(WEIGHTS) {
        true => sentence.find(": ").unwrap_or(0),
        false => 0,
    };
    let (name, sentence) = sentence.split_at(name);
    result.push_str(name);
    let mut word = String::new();
    let mut quoted = false;
    for c in sentence.chars() {
        if !quoted && (c.is_ascii_alphanumeric() || c == '_') {
            word.push(c);
            continue;
        }
        push_word(&mut result, &mut word);
        result.push(c);
        quoted ^= c == '"';
    }
    push_word(&mut result, &mut word);
    result
}

/// Takes `word` over in camel case, or as it is where it is one of those.
fn push_word(result: &mut String, word: &mut String) {
    let stays = KEPT.contains(&word.as_str()) || word.starts_with('_') || word.ends_with('_');
    let mut is_first = false;
    for c in word.drain(..) {
        if c == '_' && !stays {
            is_first = true;
            continue;
        }
        result.push(if is_first { c.to_ascii_uppercase() } else { c });
        is_first = false;
    }
}

#[cfg(test)]
mod tests;
