//! Hugging Face's `config.json` of a Llama, differential, plain or converted, read and checked.
//! Reads text, no file; knows nothing of weights.

use super::conversion::LlamaConversion;
use crate::config::{Entries, check_rope, file_error, ids_json, wrong_family};
use diffattn::{Error, RopeFrequencies};
use diffattn_files::Architecture;
use diffattn_files::decoder::{ConversionKind, DecoderAttention};
use serde_json::{Value, json};

/// The differential architecture, by `model_type`.
const DIFF_LLAMA: &str = "diffllama";

/// The plain one.
const LLAMA: &str = "llama";

/// A plain one that was converted.
const DIFFATTN_LLAMA: &str = "diffattn_llama";
/// Motif's function of the MLP, by `hidden_act`.
pub(crate) const POLY_NORM: &str = "poly_norm";

/// What Hugging Face's classes have where a file says nothing, as far as they differ.
struct Defaults {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    rms_norm_eps: f64,
}

/// Those of `DiffLlamaConfig` and of `LlamaConfig`.
fn defaults(kind: DecoderAttention) -> Defaults {
    match kind {
        DecoderAttention::Differential
        | DecoderAttention::Grouped
        | DecoderAttention::Interleaved => Defaults {
            hidden_size: 2048,
            intermediate_size: 8192,
            num_hidden_layers: 16,
            rms_norm_eps: 1e-5,
        },
        DecoderAttention::Plain | DecoderAttention::Converted(_) => Defaults {
            hidden_size: 4096,
            intermediate_size: 11_008,
            num_hidden_layers: 32,
            rms_norm_eps: 1e-6,
        },
    }
}

/// The entries of a configuration of that `model_type`; another is not what was `expected`.
fn entries_of(
    text: &str,
    model_type: &str,
    expected: std::fmt::Arguments<'_>,
) -> Result<Entries<'static>, Error> {
    let entries = Entries::read("config", text)?;
    match entries.value("model_type").and_then(Value::as_str) {
        Some(name) if name == model_type => Ok(entries),
        _ => Err(wrong_family(&entries.map, "model_type", expected)),
    }
}

/// The function between the projections of a decoder layer's MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HiddenAct {
    /// `x · σ(x)`.
    #[default]
    Silu,
    /// [`diffattn::gelu`].
    Gelu,
    /// [`diffattn::gelu_tanh`].
    GeluTanh,
    /// [`diffattn::poly_norm`], which has weights: Motif's alone.
    PolyNorm,
}

impl HiddenAct {
    /// Hugging Face's names (`ACT2FN`) of what is here, the first of each its usual one.
    /// (`gelu_fast` writes √(2/π) with ten digits, which float32 does not tell apart.)
    const NAMES: [(&'static str, Self); 9] = [
        ("silu", Self::Silu),
        ("gelu", Self::Gelu),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("swish", Self::Silu),
        ("gelu_python", Self::Gelu),
        ("gelu_new", Self::GeluTanh),
        ("gelu_fast", Self::GeluTanh),
        ("gelu_accurate", Self::GeluTanh),
        ("gelu_python_tanh", Self::GeluTanh),
    ];

    fn named(name: &str) -> Option<Self> {
        let known = Self::NAMES.into_iter().find(|(known, _)| *known == name);
        known.map(|(_, act)| act)
    }

    /// Its usual name in a configuration file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_pytorch_tanh",
            Self::PolyNorm => POLY_NORM,
        }
    }
}

/// What a [`crate::DiffLlama`] is made of: the entries of a checkpoint's `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct DiffLlamaConfig {
    /// What attention is, by `model_type`: differential (`diffllama`), plain (`llama`), plain but
    /// for some heads (`diffattn_llama`), differential in groups (`motif`) or in pairs (diff-mlx).
    pub kind: DecoderAttention,
    /// Which heads these are, where attention was converted.
    pub conversion: Option<LlamaConversion>,
    /// Token ids are below it. 32000 by default.
    pub vocab_size: usize,
    /// Channels of the hidden states. 2048 by default.
    pub hidden_size: usize,
    /// Channels between the projections of the MLP. 8192 by default.
    pub intermediate_size: usize,
    /// What stands between them; `silu` by default.
    pub hidden_act: HiddenAct,
    /// Decoder layers. 16 by default.
    pub num_hidden_layers: usize,
    /// Flat q heads: twice the differential heads, or as many as the plain ones; in groups the
    /// signal and the noise heads. 32 by default.
    pub num_attention_heads: usize,
    /// Flat q heads whose maps are subtracted, only in groups; half of all by default.
    pub num_noise_heads: usize,
    /// Flat k and v heads; divides the q heads. As many as those by default.
    pub num_key_value_heads: usize,
    /// Channels of a flat head; `hidden_size / num_attention_heads` by default.
    pub head_dim: usize,
    /// Added to the mean square by every norm. 1e-5 by default.
    pub rms_norm_eps: f64,
    /// Added to the mean square by the norm per head, which is apart only in groups. 1e-5 by
    /// default.
    pub attn_rms_norm_eps: f64,
    /// Whether the projections of attention have a bias. False by default.
    pub attention_bias: bool,
    /// Whether the projections of the MLP have a bias, which those of `diffllama` may not. False
    /// by default.
    pub mlp_bias: bool,
    /// Whether the embedding is the output projection, too. False by default.
    pub tie_word_embeddings: bool,
    /// The context that the model was trained for, in tokens. 2048 by default. Longer ones are
    /// computed all the same, unless the rotary embedding is of the type `dynamic`.
    pub max_position_embeddings: usize,
    /// How fast the rotary embedding turns: `rope_theta` 10000 and no scaling by default.
    pub rope: RopeFrequencies,
    /// Begins a text. 1 by default.
    pub bos_token_id: Option<u32>,
    /// Each of them ends a text. 2 by default.
    pub eos_token_ids: Vec<u32>,
    /// Fills up a batch. None by default. (Batches are computed without padding.)
    pub pad_token_id: Option<u32>,
    /// Spread of λ's vectors before training; of no use afterwards. 0.1 by default.
    pub lambda_std_dev: f64,
}

impl DiffLlamaConfig {
    /// Reads the text of a DIFF Llama's `config.json`. What it leaves out has Hugging Face's
    /// default; what it has besides is ignored, unless it changes the numbers.
    ///
    /// The rotary embedding is taken from `rope_scaling` if that says anything, else from
    /// `rope_parameters`; a `rope_theta` therein wins over one beside it. Its type (`rope_type`, or
    /// `type`) is `default`, `linear`, `llama3`, `yarn` or `dynamic`; the last for texts of at most
    /// `max_position_embeddings` tokens, up to which it is the default.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the key, as `config.KEY`: no JSON,
    /// another architecture, a value that does not fit or that is not supported.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let expected = format_args!("{DIFF_LLAMA:?}, a DIFF Llama");
        let entries = entries_of(text, DIFF_LLAMA, expected)?;
        Self::read(&entries, DecoderAttention::Differential, None)
    }

    /// Reads the text of a plain Llama's `config.json`, as [`DiffLlamaConfig::from_json`] reads
    /// that of a differential one.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the key, as `config.KEY`: no JSON,
    /// another architecture, a value that does not fit or that is not supported.
    pub fn from_llama_json(text: &str) -> Result<Self, Error> {
        let entries = entries_of(text, LLAMA, format_args!("{LLAMA:?}, a Llama"))?;
        Self::read(&entries, DecoderAttention::Plain, None)
    }

    /// Reads the text of the `config.json` of a Llama that was converted to differential attention:
    /// that of a plain one, and how it was converted in `diff_attention`.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the key, as `config.KEY`: no JSON,
    /// another architecture, a value that does not fit or that is not supported.
    pub fn from_diffattn_llama_json(text: &str) -> Result<Self, Error> {
        let expected = format_args!("{DIFFATTN_LLAMA:?}, a Llama with differential heads");
        let entries = entries_of(text, DIFFATTN_LLAMA, expected)?;
        let (kind, conversion) = LlamaConversion::read(&entries)?;
        let kind = DecoderAttention::Converted(kind);
        Self::read(&entries, kind, Some(conversion))
    }

    /// Reads the text of a `config.json` of any of the three, by its `model_type`.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the key, as `config.KEY`: no JSON, a
    /// value that does not fit or that is not supported; another architecture is told as
    /// [`DiffLlamaConfig::from_json`] tells it.
    pub fn of_config(text: &str) -> Result<Self, Error> {
        let entries = Entries::read("config", text)?;
        match Architecture::of_config(&entries.map) {
            Some(Architecture::Llama) => Self::from_llama_json(text),
            Some(Architecture::DiffAttnLlama) => Self::from_diffattn_llama_json(text),
            _ => Self::from_json(text),
        }
    }

    /// Reads the entries that all architectures have, and what some of them have besides.
    fn read(
        entries: &Entries<'_>,
        kind: DecoderAttention,
        conversion: Option<LlamaConversion>,
    ) -> Result<Self, Error> {
        let defaults = defaults(kind);
        let is_plain = kind != DecoderAttention::Differential;
        let hidden_act = match entries.value("hidden_act") {
            None => HiddenAct::default(),
            value => value
                .and_then(Value::as_str)
                .and_then(HiddenAct::named)
                .ok_or_else(|| {
                    let names = HiddenAct::NAMES.map(|(name, _)| format!("{name:?}"));
                    let expected = format_args!("one of {}", names.join(", ")).to_string();
                    entries.wrong("hidden_act", expected, value)
                })?,
        };
        if let Some(found) = entries.value("quantization_config") {
            let expected = "none, as quantised checkpoints are not read";
            return Err(entries.wrong("quantization_config", expected, Some(found)));
        }
        entries.whole_head()?;
        let hidden_size = entries.size("hidden_size")?.unwrap_or(defaults.hidden_size);
        let num_attention_heads = entries.size("num_attention_heads")?.unwrap_or(32);
        let or = |key: &str, default: usize| Ok::<_, Error>(entries.size(key)?.unwrap_or(default));
        let config = Self {
            kind,
            conversion,
            vocab_size: or("vocab_size", 32_000)?,
            hidden_size,
            intermediate_size: or("intermediate_size", defaults.intermediate_size)?,
            hidden_act,
            num_hidden_layers: or("num_hidden_layers", defaults.num_hidden_layers)?,
            num_attention_heads,
            num_noise_heads: num_attention_heads / 2,
            num_key_value_heads: or("num_key_value_heads", num_attention_heads)?,
            head_dim: or("head_dim", hidden_size / num_attention_heads)?,
            rms_norm_eps: entries
                .number("rms_norm_eps")?
                .unwrap_or(defaults.rms_norm_eps),
            attn_rms_norm_eps: 1e-5,
            attention_bias: entries.flag("attention_bias")?.unwrap_or(false),
            mlp_bias: is_plain && entries.flag("mlp_bias")?.unwrap_or(false),
            tie_word_embeddings: entries.flag("tie_word_embeddings")?.unwrap_or(false),
            max_position_embeddings: or("max_position_embeddings", 2048)?,
            rope: entries.rope()?,
            bos_token_id: entries.id("bos_token_id")?.unwrap_or(Some(1)),
            eos_token_ids: entries.ids("eos_token_id")?.unwrap_or_else(|| vec![2]),
            pad_token_id: entries.id("pad_token_id")?.unwrap_or(None),
            lambda_std_dev: entries.number("lambda_std_dev")?.unwrap_or(0.1),
        };
        config.check()?;
        Ok(config)
    }

    /// Takes over what a `generation_config.json` says of the ids that begin, end and fill a text;
    /// where it says nothing (or null), they stay.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the key, as `generation_config.KEY`.
    pub fn with_generation_config(mut self, text: &str) -> Result<Self, Error> {
        let ids = Entries::read("generation_config", text)?.generation_ids()?;
        self.bos_token_id = ids.bos.or(self.bos_token_id);
        self.pad_token_id = ids.pad.or(self.pad_token_id);
        self.eos_token_ids = ids.eos.unwrap_or(self.eos_token_ids);
        Ok(self)
    }

    /// The entries that have a default; what the rotary embedding is stays under the keys that it
    /// has.
    pub(crate) fn known(&self) -> Value {
        let mut known = json!({
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "hidden_act": self.hidden_act.name(),
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_word_embeddings,
            "max_position_embeddings": self.max_position_embeddings,
            "rope_theta": self.rope.theta,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": ids_json(&self.eos_token_ids),
            "pad_token_id": self.pad_token_id,
        });
        known[self.kind.bias_key()] = json!(self.attention_bias);
        match self.kind {
            DecoderAttention::Differential => known["lambda_std_dev"] = json!(self.lambda_std_dev),
            DecoderAttention::Plain | DecoderAttention::Converted(_) => {
                known["mlp_bias"] = json!(self.mlp_bias);
            }
            DecoderAttention::Interleaved => {}
            DecoderAttention::Grouped => {
                known["num_noise_heads"] = json!(self.num_noise_heads);
                known["attn_rms_norm_eps"] = json!(self.attn_rms_norm_eps);
            }
        }
        if let Some((kind, conversion)) = self.converted() {
            known["diff_attention"] = conversion.known(kind);
        }
        known
    }

    /// Output heads: differential ones, of two flat q heads each, plain ones, or signal heads.
    #[must_use]
    pub fn num_heads(&self) -> usize {
        match self.kind {
            DecoderAttention::Differential | DecoderAttention::Interleaved => {
                self.num_attention_heads / 2
            }
            DecoderAttention::Plain | DecoderAttention::Converted(_) => self.num_attention_heads,
            DecoderAttention::Grouped => {
                let noise = self.num_noise_heads;
                self.num_attention_heads.saturating_sub(noise)
            }
        }
    }

    /// How it was converted, where it was.
    pub(crate) fn converted(&self) -> Option<(ConversionKind, &LlamaConversion)> {
        match self.kind {
            DecoderAttention::Converted(kind) => Some((kind, self.conversion.as_ref()?)),
            _ => None,
        }
    }

    /// How many heads of a layer are differential, where it was converted.
    pub(crate) fn differential_heads(&self, layer: usize) -> usize {
        let converted = self.converted();
        converted.map_or(0, |(_, conversion)| {
            conversion.count(layer, self.num_attention_heads)
        })
    }

    /// Which heads of a layer are differential, where it was converted.
    pub(crate) fn differential_list(&self, layer: usize) -> Vec<usize> {
        let converted = self.converted();
        converted.map_or_else(Vec::new, |(_, conversion)| {
            conversion.layer(layer, self.num_attention_heads)
        })
    }

    /// Checks what the entries say of each other.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |key: &str, expected: &str, got: usize| {
            file_error(format_args!("config.{key}"), expected, got)
        };
        for (key, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if size == 0 {
                return Err(wrong(key, "1 or more", size));
            }
        }
        let (heads, groups) = (self.num_attention_heads, self.num_key_value_heads);
        let is_paired = matches!(
            self.kind,
            DecoderAttention::Differential | DecoderAttention::Interleaved
        );
        if is_paired && !heads.is_multiple_of(2) {
            let expected = "an even number, as two heads make one difference";
            return Err(wrong("num_attention_heads", expected, heads));
        }
        if self.kind.has_head_norm() {
            self.check_groups()?;
        } else if !heads.is_multiple_of(groups) {
            let expected = format!("a number that divides num_attention_heads {heads}");
            return Err(wrong("num_key_value_heads", &expected, groups));
        }
        if !self.head_dim.is_multiple_of(2) {
            let expected = "an even number, as the rotary embedding turns channels in pairs";
            return Err(wrong("head_dim", expected, self.head_dim));
        }
        if heads.checked_mul(self.head_dim).is_none() {
            return Err(wrong(
                "head_dim",
                "a size that fits this machine",
                self.head_dim,
            ));
        }
        for (key, eps) in [
            ("rms_norm_eps", self.rms_norm_eps),
            ("attn_rms_norm_eps", self.attn_rms_norm_eps),
        ] {
            if !(eps >= 0.0 && eps.is_finite()) {
                let argument = format_args!("config.{key}");
                return Err(file_error(argument, "0 or a positive number", eps));
            }
        }
        if let Some((kind, conversion)) = self.converted() {
            conversion.check(kind, [self.num_hidden_layers, heads])?;
        }
        // (How the head is wide does not matter to what is an error, and is not backed by weights
        // yet.)
        check_rope(&self.rope, 2, |entry| format!("config.rope.{entry}"))
    }

    /// Checks the heads of groups of signal heads and a noise head, or of pairs.
    fn check_groups(&self) -> Result<(), Error> {
        let (heads, noise) = (self.num_attention_heads, self.num_noise_heads);
        let groups = self.num_key_value_heads;
        let wrong = |key: &str, expected: String, got: usize| {
            Err(file_error(format_args!("config.{key}"), expected, got))
        };
        if noise == 0 || noise >= heads || !heads.is_multiple_of(noise) {
            let expected = format!(
                "a number below num_attention_heads {heads} that divides it, as each goes with as many signal heads"
            );
            return wrong("num_noise_heads", expected, noise);
        }
        if !groups.is_multiple_of(2) || !noise.is_multiple_of(groups / 2) {
            let expected = format!(
                "an even number of which half divides num_noise_heads {noise}, as keys go in pairs"
            );
            return wrong("num_key_value_heads", expected, groups);
        }
        Ok(())
    }
}
