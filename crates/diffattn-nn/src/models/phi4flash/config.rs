//! The `config.json` of a Phi-4-mini-flash, read and checked. Reads text, no file; knows nothing of
//! weights.

use crate::config::{Entries, file_error, ids_json, wrong_family};
use diffattn::Error;
use serde_json::{Value, json};

/// The architecture, by `model_type`.
const PHI4_FLASH: &str = "phi4flash";

/// What a [`crate::Phi4Flash`] is made of: the entries of a checkpoint's `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Phi4FlashConfig {
    /// Token ids are below it.
    pub vocab_size: usize,
    /// Channels of the hidden states.
    pub hidden_size: usize,
    /// Channels between the projections of the MLP.
    pub intermediate_size: usize,
    /// Layers, a multiple of 4.
    pub num_hidden_layers: usize,
    /// Flat q heads: twice the differential heads.
    pub num_attention_heads: usize,
    /// Flat k and v heads.
    pub num_key_value_heads: usize,
    /// Added to the variance by every layer norm. 1e-5 by default.
    pub layer_norm_eps: f64,
    /// Tokens that layers of attention in the lower half see.
    pub sliding_window: FlashWindows,
    /// States of a channel of Mamba. 16 by default.
    pub mamba_d_state: usize,
    /// Taps of its convolution. 4 by default.
    pub mamba_d_conv: usize,
    /// Its channels, in hidden sizes. 2 by default.
    pub mamba_expand: usize,
    /// Whether the maps of the MLP have biases. False by default.
    pub mlp_bias: bool,
    /// Whether the embedding is the output projection, too. True by default.
    pub tie_word_embeddings: bool,
    /// The context that the model was trained for, in tokens; longer ones are computed all the
    /// same. 2048 by default.
    pub max_position_embeddings: usize,
    /// Begins a text. None by default.
    pub bos_token_id: Option<u32>,
    /// Each of them ends a text. None by default.
    pub eos_token_ids: Vec<u32>,
    /// Fills up a batch. None by default. (Batches are computed without padding.)
    pub pad_token_id: Option<u32>,
}

/// Tokens that a layer of attention in the lower half sees, itself included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlashWindows {
    /// One window for all such layers; all tokens where it is none.
    All(Option<usize>),
    /// One for each layer of the model; none where a layer sees all tokens or is no attention.
    List(Vec<Option<usize>>),
}

impl FlashWindows {
    /// That of a layer.
    #[must_use]
    pub fn of(&self, layer: usize) -> Option<usize> {
        match self {
            Self::All(window) => *window,
            Self::List(windows) => windows.get(layer).copied().flatten(),
        }
    }
}

impl Phi4FlashConfig {
    /// Reads the text of a `config.json`. `sliding_window` is a number, or a list with one for each
    /// layer; with `layer_types`, layers of `"full_attention"` have none. What it has besides is
    /// ignored, unless it changes the numbers; `mamba_dt_rank` is what the weights say.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the key, as `config.KEY`: no JSON,
    /// another architecture, a value that is missing, that does not fit or is not supported.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let entries = Entries::read("config", text)?;
        if entries.value("model_type").and_then(Value::as_str) != Some(PHI4_FLASH) {
            let expected = format_args!("{PHI4_FLASH:?}, a Phi-4-mini-flash");
            return Err(wrong_family(&entries.map, "model_type", expected));
        }
        refuse(&entries)?;
        let size = |key: &str| {
            let none = || entries.wrong(key, "a whole number of at least 1", None);
            entries.size(key)?.ok_or_else(none)
        };
        let or = |key: &str, default: usize| Ok::<_, Error>(entries.size(key)?.unwrap_or(default));
        let num_hidden_layers = size("num_hidden_layers")?;
        let config = Self {
            vocab_size: size("vocab_size")?,
            hidden_size: size("hidden_size")?,
            intermediate_size: size("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads: size("num_attention_heads")?,
            num_key_value_heads: size("num_key_value_heads")?,
            layer_norm_eps: entries.number("layer_norm_eps")?.unwrap_or(1e-5),
            sliding_window: windows(&entries, num_hidden_layers)?,
            mamba_d_state: or("mamba_d_state", 16)?,
            mamba_d_conv: or("mamba_d_conv", 4)?,
            mamba_expand: or("mamba_expand", 2)?,
            mlp_bias: entries.flag("mlp_bias")?.unwrap_or(false),
            tie_word_embeddings: entries.flag("tie_word_embeddings")?.unwrap_or(true),
            max_position_embeddings: or("max_position_embeddings", 2048)?,
            bos_token_id: entries.id("bos_token_id")?.unwrap_or(None),
            eos_token_ids: entries.ids("eos_token_id")?.unwrap_or_default(),
            pad_token_id: entries.id("pad_token_id")?.unwrap_or(None),
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

    /// The entries that have a default, or whose values have several forms.
    pub(crate) fn known(&self) -> Value {
        json!({
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim(),
            "layer_norm_eps": self.layer_norm_eps,
            "sliding_window": match &self.sliding_window {
                FlashWindows::All(window) => json!(window),
                FlashWindows::List(windows) => json!(windows),
            },
            "mamba_d_state": self.mamba_d_state,
            "mamba_d_conv": self.mamba_d_conv,
            "mamba_expand": self.mamba_expand,
            "mlp_bias": self.mlp_bias,
            "tie_word_embeddings": self.tie_word_embeddings,
            "max_position_embeddings": self.max_position_embeddings,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": ids_json(&self.eos_token_ids),
            "pad_token_id": self.pad_token_id,
        })
    }

    /// Channels of a flat head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden_size
            .checked_div(self.num_attention_heads)
            .unwrap_or(0)
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
            ("mamba_d_state", self.mamba_d_state),
            ("mamba_d_conv", self.mamba_d_conv),
            ("mamba_expand", self.mamba_expand),
        ] {
            if size == 0 {
                return Err(wrong(key, "1 or more", size));
            }
        }
        if !self.num_hidden_layers.is_multiple_of(4) {
            let expected = "a multiple of 4, as each half has layers in pairs";
            return Err(wrong("num_hidden_layers", expected, self.num_hidden_layers));
        }
        let (heads, groups) = (self.num_attention_heads, self.num_key_value_heads);
        for (key, count) in [
            ("num_attention_heads", heads),
            ("num_key_value_heads", groups),
        ] {
            if !count.is_multiple_of(2) {
                let expected = "an even number, as two heads make one difference";
                return Err(wrong(key, expected, count));
            }
        }
        if !heads.is_multiple_of(groups) {
            let expected = format!("a number that divides num_attention_heads {heads}");
            return Err(wrong("num_key_value_heads", &expected, groups));
        }
        if !self.hidden_size.is_multiple_of(heads) {
            let expected = format!("a multiple of num_attention_heads {heads}");
            return Err(wrong("hidden_size", &expected, self.hidden_size));
        }
        // (Twice each is a number of rows.)
        for (key, size, by) in [
            ("mamba_expand", self.hidden_size, self.mamba_expand),
            ("intermediate_size", self.intermediate_size, 1),
            ("mamba_d_state", self.mamba_d_state, 1),
        ] {
            if size
                .checked_mul(by)
                .and_then(|size| size.checked_mul(4))
                .is_none()
            {
                return Err(wrong(key, "a size that fits this machine", by.max(size)));
            }
        }
        if !(self.layer_norm_eps >= 0.0 && self.layer_norm_eps.is_finite()) {
            let expected = "0 or a positive number";
            return Err(file_error(
                "config.layer_norm_eps",
                expected,
                self.layer_norm_eps,
            ));
        }
        Ok(())
    }
}

/// Refuses what would change the numbers.
fn refuse(entries: &Entries<'_>) -> Result<(), Error> {
    if let Some(found) = entries.value("quantization_config") {
        let expected = "none, as quantised checkpoints are not read";
        return Err(entries.wrong("quantization_config", expected, Some(found)));
    }
    if entries.flag("lm_head_bias")? == Some(true) {
        let got = entries.value("lm_head_bias");
        return Err(entries.wrong("lm_head_bias", "false", got));
    }
    match entries.value("hidden_act") {
        None => {}
        Some(Value::String(name)) if name == "silu" || name == "swish" => {}
        other => return Err(entries.wrong("hidden_act", "\"silu\"", other)),
    }
    match entries.size("mb_per_layer")? {
        None | Some(2) => Ok(()),
        Some(_) => {
            let expected = "2, as every second layer is Mamba";
            Err(entries.wrong("mb_per_layer", expected, entries.value("mb_per_layer")))
        }
    }
}

/// The windows of layers.
fn windows(entries: &Entries<'_>, layers: usize) -> Result<FlashWindows, Error> {
    let half = layers / 2;
    let given = match entries.value("sliding_window") {
        Some(Value::Array(list)) => {
            let expected = format!("a list of {layers} windows, or null, one per layer");
            let wrong =
                || entries.wrong("sliding_window", &expected, entries.value("sliding_window"));
            if list.len() != layers {
                return Err(wrong());
            }
            let window = |(layer, value): (usize, &Value)| match value {
                Value::Null => Ok(None),
                // (Other layers see all tokens, or have no window.)
                value if layer % 2 == 1 && layer >= half => {
                    let expected = format!("null for layer {layer}, which sees all tokens");
                    Err(entries.wrong("sliding_window", expected, Some(value)))
                }
                value => match value.as_u64().and_then(|size| usize::try_from(size).ok()) {
                    Some(size) if size > 0 => Ok(Some(size)),
                    _ => Err(wrong()),
                },
            };
            let windows = list.iter().enumerate().map(window);
            return Ok(FlashWindows::List(windows.collect::<Result<_, _>>()?));
        }
        _ => entries.size("sliding_window")?,
    };
    let types = match entries.value("layer_types") {
        None => return Ok(FlashWindows::All(given)),
        Some(Value::Array(types)) if types.len() == layers => types,
        other => {
            let expected = format!("a list of {layers} types, one per layer");
            return Err(entries.wrong("layer_types", expected, other));
        }
    };
    let is_full = |kind: &Value| kind.as_str() == Some("full_attention");
    let window = |kind: &Value| given.filter(|_| !is_full(kind));
    Ok(FlashWindows::List(types.iter().map(window).collect()))
}
