//! What is said of a configuration that is of another family than it should be. Reads no file.

use super::entries::{described, file_error};
use crate::checkpoint::Architecture;
use diffattn::Error;
use serde_json::{Map, Value};

/// That `key`, which tells the family, says another than `expected`; or, where there is no such
/// key, what the configuration is instead, and what loads it.
pub(crate) fn wrong_family(
    config: &Map<String, Value>,
    key: &str,
    expected: impl std::fmt::Display,
) -> Error {
    let value = config.get(key).filter(|value| !value.is_null());
    let of_another = match Architecture::of_config(config) {
        Some(Architecture::DiffLlama) => Some(
            "the configuration of a DIFF Llama, a language model: DiffLlama loads it, and the commands generate and maps",
        ),
        Some(Architecture::Llama) => Some(
            "the configuration of a Llama, a language model: LanguageModel loads it, and the commands generate and maps",
        ),
        Some(Architecture::DiffAttnLlama) => Some(
            "the configuration of a Llama with differential heads, a language model: LanguageModel loads it, and the commands generate and maps",
        ),
        Some(Architecture::Motif) => Some(
            "the configuration of a Motif, a language model: LanguageModel loads it, and the commands generate and maps",
        ),
        Some(Architecture::Phi4Flash) => Some(
            "the configuration of a Phi-4-mini-flash, a language model: LanguageModel loads it, and the commands generate and maps",
        ),
        Some(Architecture::DiffMlx) => Some(
            "the configuration of a model of diff-mlx, a language model: LanguageModel loads it, and the commands generate and maps",
        ),
        Some(Architecture::TimmDiffVit) => Some(
            "the configuration of a DIFF vision transformer: DiffViT loads it, and the command classify",
        ),
        Some(Architecture::SameS) => {
            Some("the configuration of SAME-S, an audio codec: AudioCodec loads it")
        }
        Some(Architecture::UnilmV1 | Architecture::UnilmV2) | None => None,
    };
    let got = match (value, of_another) {
        (None, Some(what)) => what.to_owned(),
        (value, _) => described(value),
    };
    file_error(format_args!("config.{key}"), expected, got)
}
