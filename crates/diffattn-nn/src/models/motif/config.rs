//! Motif's `config.json`, read and checked. Reads text, no file; knows nothing of weights.

use crate::checkpoint::Architecture;
use crate::config::{Entries, wrong_family};
use crate::models::diff_llama::{DiffLlamaConfig, HiddenAct, POLY_NORM};
use diffattn::Error;
use diffattn_files::decoder::DecoderAttention;
use serde_json::Value;

/// What later models of the name have, and this one has not.
const OTHERS: [&str; 4] = ["diff_v2", "kv_lora_rank", "q_lora_rank", "num_experts"];

impl DiffLlamaConfig {
    /// Reads the text of a Motif's `config.json`, as [`DiffLlamaConfig::from_json`] reads that of a
    /// DIFF Llama. `model_type` is `motif` or `Motif`. The sizes `vocab_size`, `hidden_size`,
    /// `intermediate_size`, `num_hidden_layers` and `num_attention_heads` must be there, and
    /// `head_dim` where there is `num_noise_heads`; without that key half of the heads are noise
    /// heads. `rms_norm_eps` is 1e-6 by default, `attn_rms_norm_eps` 1e-5; `use_bias` (false) is of
    /// all projections, and without `eos_token_id` nothing ends a text.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the key, as `config.KEY`: no JSON,
    /// another architecture, a value that does not fit or that is not supported, as more than one
    /// signal key to a noise key (`k_ratio`) and sliding windows are not.
    pub fn from_motif_json(text: &str) -> Result<Self, Error> {
        let entries = Entries::read("config", text)?;
        if Architecture::of_config(&entries.map) != Some(Architecture::Motif) {
            let expected = "\"motif\" or \"Motif\"";
            return Err(wrong_family(&entries.map, "model_type", expected));
        }
        supported(&entries)?;
        let wanted = |key: &str| {
            let size = entries.size(key)?;
            size.ok_or_else(|| entries.wrong(key, "a whole number of at least 1", None))
        };
        let (hidden_size, heads) = (wanted("hidden_size")?, wanted("num_attention_heads")?);
        let noise = entries.size("num_noise_heads")?;
        let head_dim = match (entries.size("head_dim")?, noise) {
            (Some(head_dim), _) => head_dim,
            (None, None) => hidden_size / heads,
            (None, Some(_)) => {
                let expected = "a whole number of at least 1, as there is num_noise_heads";
                return Err(entries.wrong("head_dim", expected, None));
            }
        };
        if noise.is_none() && !heads.is_multiple_of(2) {
            let expected = "an even number, as half of the heads are noise heads";
            let found = entries.value("num_attention_heads");
            return Err(entries.wrong("num_attention_heads", expected, found));
        }
        let number = |key: &str, default| Ok::<_, Error>(entries.number(key)?.unwrap_or(default));
        let use_bias = entries.flag("use_bias")?.unwrap_or(false);
        let config = Self {
            kind: DecoderAttention::Grouped,
            conversion: None,
            vocab_size: wanted("vocab_size")?,
            hidden_size,
            intermediate_size: wanted("intermediate_size")?,
            hidden_act: HiddenAct::PolyNorm,
            num_hidden_layers: wanted("num_hidden_layers")?,
            num_attention_heads: heads,
            num_noise_heads: noise.unwrap_or(heads / 2),
            num_key_value_heads: entries.size("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            rms_norm_eps: number("rms_norm_eps", 1e-6)?,
            attn_rms_norm_eps: number("attn_rms_norm_eps", 1e-5)?,
            attention_bias: use_bias,
            mlp_bias: use_bias,
            tie_word_embeddings: entries.flag("tie_word_embeddings")?.unwrap_or(false),
            max_position_embeddings: entries.size("max_position_embeddings")?.unwrap_or(2048),
            rope: entries.rope()?,
            bos_token_id: entries.id("bos_token_id")?.flatten(),
            eos_token_ids: entries.ids("eos_token_id")?.unwrap_or_default(),
            pad_token_id: entries.id("pad_token_id")?.flatten(),
            lambda_std_dev: 0.1,
        };
        config.check()?;
        Ok(config)
    }
}

/// Refuses what would change the numbers and is not computed.
fn supported(entries: &Entries<'_>) -> Result<(), Error> {
    let refuse = |key: &str, expected: &str| {
        let found = entries.value(key);
        Err(entries.wrong(key, expected, found))
    };
    if !matches!(entries.size("k_ratio")?, None | Some(1)) {
        return refuse("k_ratio", "1, as each noise key goes with one signal key");
    }
    match entries.value("hidden_act") {
        None => {}
        Some(Value::String(name)) if name == POLY_NORM => {}
        Some(_) => return refuse("hidden_act", "\"poly_norm\""),
    }
    if entries.flag("use_sliding_window")? == Some(true) {
        return refuse(
            "use_sliding_window",
            "false, as every token sees all before it",
        );
    }
    let is_used = |value: &Value| *value != Value::Bool(false);
    for key in OTHERS {
        if entries.value(key).is_some_and(is_used) {
            return refuse(key, "none, as later models of the name are others");
        }
    }
    if entries.value("quantization_config").is_some() {
        return refuse(
            "quantization_config",
            "none, as quantised checkpoints are not read",
        );
    }
    entries.whole_head()
}
