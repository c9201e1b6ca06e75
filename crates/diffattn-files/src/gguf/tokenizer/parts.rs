//! What the models of tokenizers are made of, as the `tokenizers` library writes them. Reads no
//! file.

use super::vocabulary::Vocabulary;
use serde::Serialize;
use serde_json::Value;

/// A model of the library's. (Written as it stands: as a tree of values it would be many times the
/// file's header.)
#[derive(Serialize)]
pub(super) struct Bpe<'b, 'v> {
    pub(super) r#type: &'static str,
    pub(super) dropout: Option<f32>,
    pub(super) unk_token: Option<&'b str>,
    pub(super) continuing_subword_prefix: Option<&'b str>,
    pub(super) end_of_word_suffix: Option<&'b str>,
    pub(super) fuse_unk: bool,
    pub(super) byte_fallback: bool,
    pub(super) ignore_merges: bool,
    pub(super) vocab: &'v Vocabulary<'b>,
    pub(super) merges: Vec<(&'b str, &'b str)>,
}

impl<'b, 'v> Bpe<'b, 'v> {
    /// The model of these merges, everything else at its default.
    pub(super) fn new(vocab: &'v Vocabulary<'b>, merges: Vec<(&'b str, &'b str)>) -> Self {
        Self {
            r#type: "BPE",
            dropout: None,
            unk_token: None,
            continuing_subword_prefix: None,
            end_of_word_suffix: None,
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: false,
            vocab,
            merges,
        }
    }
}

/// What the models of tokenizers differ in.
pub(super) struct Parts<'b, 'v> {
    pub(super) model: Bpe<'b, 'v>,
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) decoder: Value,
    /// Whether a text begins with its token where the file does not say.
    pub(super) adds_bos: bool,
    /// The class that Hugging Face has for it.
    pub(super) class: &'static str,
}
