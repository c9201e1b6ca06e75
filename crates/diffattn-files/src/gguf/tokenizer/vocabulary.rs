//! The tokens of a GGUF file and their types. Knows no model.

use crate::gguf::keys::Keys;
use diffattn::Error;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use std::collections::HashSet;

pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";

/// The types of tokens that differ from ordinary ones, by their numbers.
pub(super) const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
pub(super) const BYTE: u64 = 6;

/// Bytes of a token at most: the longest of published tokenizers have some hundred.
const LONGEST: usize = 1024;

/// Tokens, by their ids.
#[derive(Debug)]
pub(super) struct Vocabulary<'b> {
    pub(super) tokens: Vec<&'b str>,
    /// As many; ordinary ones where the file does not say.
    pub(super) types: Vec<u64>,
}

impl<'b> Vocabulary<'b> {
    pub(super) fn read(keys: &Keys<'_, 'b>) -> Result<Self, Error> {
        let list = keys.wanted(TOKENS, keys.list(TOKENS)?)?;
        let texts = list.texts();
        let texts = texts.ok_or_else(|| keys.refuse(TOKENS, "a list of texts", "another"))?;
        let mut tokens = Vec::new();
        for (id, text) in texts.enumerate() {
            let text = std::str::from_utf8(text).ok();
            let Some(text) = text.filter(|text| text.len() <= LONGEST) else {
                let expected = format!("tokens in UTF-8, of at most {LONGEST} bytes");
                return Err(keys.refuse(TOKENS, &expected, format_args!("another: token {id}")));
            };
            tokens.push(text);
        }
        let mut types = Vec::new();
        if let Some(list) = keys.list(TYPES)? {
            let kinds = list.scalars().into_iter().flatten();
            types.extend(kinds.map_while(|kind| kind.count()));
        } else {
            types.resize(tokens.len(), 1);
        }
        if types.len() != tokens.len() {
            let expected = format!("{} whole numbers, one for each token", tokens.len());
            return Err(keys.refuse(TYPES, &expected, types.len()));
        }
        Ok(Self { tokens, types })
    }

    /// Each token with its type.
    pub(super) fn typed(&self) -> impl Iterator<Item = (&'b str, u64)> + '_ {
        let types = self.types.iter().copied();
        self.tokens.iter().copied().zip(types)
    }
}

/// The tokens that are found in a text before it is split, all of them special. (Written as they
/// stand: as trees of values they would be many times the file's header.)
#[derive(Debug)]
pub(super) struct Added<'v, 'b>(pub(super) &'v Vocabulary<'b>);

#[derive(Serialize)]
struct AddedToken<'b> {
    id: usize,
    content: &'b str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

impl Serialize for Added<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let special = |kind: u64| matches!(kind, UNKNOWN | CONTROL | USER_DEFINED);
        let typed = self.0.typed().enumerate();
        let added = typed.filter(|(_, (token, kind))| special(*kind) && !token.is_empty());
        serializer.collect_seq(added.map(|(id, (content, _))| AddedToken {
            id,
            content,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: true,
        }))
    }
}

/// The ids by text; of equal texts the first.
impl Serialize for Vocabulary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seen = HashSet::new();
        let mut ids = serializer.serialize_map(None)?;
        for (id, token) in self.tokens.iter().enumerate() {
            if seen.insert(*token) {
                ids.serialize_entry(token, &id)?;
            }
        }
        ids.end()
    }
}
