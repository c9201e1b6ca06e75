//! diff-mlx's `config.json`, read and checked. Reads text, no file; knows nothing of weights.

use crate::checkpoint::Architecture;
use crate::config::{Entries, check_rope, wrong_family};
use crate::models::diff_llama::{DiffLlamaConfig, HiddenAct};
use diffattn::{Error, RopeFrequencies};
use diffattn_files::decoder::DecoderAttention;

impl DiffLlamaConfig {
    /// Reads the text of a `config.json` of diff-mlx, whose sizes lie in `model`, as
    /// [`DiffLlamaConfig::from_json`] reads that of a DIFF Llama. `vocab_size`, `dim`,
    /// `mlp_intermediate`, `n_layers`, `n_heads_vanilla` (flat heads, of q, k and v alike) and
    /// `qk_head_dim` must be there. By default `rope_base` is 10000, `rms_eps`, which is of every
    /// norm, 1e-5, `block_size` 2048; the embeddings are the head. No token begins or ends a text:
    /// no entry names one.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the key, as `config.model.KEY`: no
    /// JSON, another architecture, a value that does not fit or that is not supported, as a head
    /// of its own (`tie_embeddings` false) is not.
    pub fn from_diff_mlx_json(text: &str) -> Result<Self, Error> {
        let config = Entries::read("config", text)?;
        let expected = "an object with n_heads_vanilla, as diff-mlx has it";
        if Architecture::of_config(&config.map) != Some(Architecture::DiffMlx) {
            return Err(wrong_family(&config.map, "model", expected));
        }
        let none = || config.wrong("model", expected, config.value("model"));
        let entries = config.object("model")?.ok_or_else(none)?;
        let wanted = |key: &str| {
            let size = entries.size(key)?;
            size.ok_or_else(|| entries.wrong(key, "a whole number of at least 1", None))
        };
        let refuse = |key: &str, expected: &str| {
            let found = entries.value(key);
            Err(entries.wrong(key, expected, found))
        };
        let heads = wanted("n_heads_vanilla")?;
        if !heads.is_multiple_of(2) {
            let expected = "an even number, as two heads make one difference";
            return refuse("n_heads_vanilla", expected);
        }
        let head_dim = wanted("qk_head_dim")?;
        if !head_dim.is_multiple_of(2) {
            let expected = "an even number, as the rotary embedding turns channels in pairs";
            return refuse("qk_head_dim", expected);
        }
        if entries.flag("tie_embeddings")? == Some(false) {
            return refuse("tie_embeddings", "true, as there is no other head");
        }
        let eps = entries.number("rms_eps")?.unwrap_or(1e-5);
        if !(eps >= 0.0 && eps.is_finite()) {
            return refuse("rms_eps", "0 or a positive number");
        }
        let max_position_embeddings = entries.size("block_size")?.unwrap_or(2048);
        let rope = RopeFrequencies {
            theta: Some(entries.number("rope_base")?.unwrap_or(10_000.0)),
            scaling: None,
            max_position_embeddings: Some(max_position_embeddings as f64),
        };
        check_rope(&rope, 2, |_| format!("{}.rope_base", entries.name))?;
        let config = Self {
            kind: DecoderAttention::Interleaved,
            conversion: None,
            vocab_size: wanted("vocab_size")?,
            hidden_size: wanted("dim")?,
            intermediate_size: wanted("mlp_intermediate")?,
            hidden_act: HiddenAct::Silu,
            num_hidden_layers: wanted("n_layers")?,
            num_attention_heads: heads,
            num_noise_heads: heads / 2,
            num_key_value_heads: heads,
            head_dim,
            rms_norm_eps: eps,
            attn_rms_norm_eps: eps,
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: true,
            max_position_embeddings,
            rope,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
            pad_token_id: None,
            lambda_std_dev: 0.1,
        };
        config.check()?;
        Ok(config)
    }
}
