//! What a `config.json` and a `generation_config.json` of Hugging Face's would say of the Llama
//! that a GGUF file holds. Checks no sizes against one another: who reads the configuration does.

use super::keys::Keys;
use super::llama::{LLAMA, of_llama};
use super::rope;
use crate::entry::Entry;
use diffattn::Error;
use serde_json::{Map, Value, json};

/// Keys behind the architecture's name that change the numbers in a way that Hugging Face's Llama
/// knows nothing of, unless they are 0 or false.
const OTHERS: [&str; 11] = [
    "expert_count",
    "expert_used_count",
    "attention.sliding_window",
    "attention.scale",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "embedding_scale",
    "residual_scale",
    "use_parallel_residual",
];

/// Refuses what is no Llama, with the reason.
pub(super) fn check_architecture(keys: &Keys<'_, '_>) -> Result<(), Error> {
    let key = "general.architecture";
    let expected = "\"llama\", the one architecture of GGUF files that is read";
    match keys.text(key)? {
        Some(LLAMA) => {}
        Some(other) => {
            let got = format!("{:?}", crate::text::excerpt(other));
            return Err(keys.refuse(key, expected, got));
        }
        None => return Err(keys.refuse(key, expected, "none")),
    }
    for key in OTHERS.map(of_llama) {
        let is_off = |value: super::value::Value<'_>| {
            value.flag() == Some(false) || value.number() == Some(0.0)
        };
        if let Some(value) = keys.value(&key).filter(|value| !is_off(*value)) {
            return Err(keys.refuse(&key, "none, as a Llama has none", value.shown()));
        }
    }
    match keys.number(&of_llama("logit_scale"))? {
        None | Some(0.0 | 1.0) => Ok(()),
        Some(scale) => {
            let key = of_llama("logit_scale");
            Err(keys.refuse(&key, "none, as a Llama has none", scale))
        }
    }
}

/// Heads, and what is wide by them.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadCounts {
    pub(super) q: u64,
    pub(super) k: u64,
    pub(super) width: u64,
}

impl HeadCounts {
    pub(super) fn read(keys: &Keys<'_, '_>) -> Result<Self, Error> {
        let key = of_llama("attention.head_count");
        let q = keys.wanted(&key, keys.same_count(&key)?)?;
        if q == 0 {
            return Err(keys.refuse(&key, "1 or more", q));
        }
        let k = keys.same_count(&of_llama("attention.head_count_kv"))?;
        let key = of_llama("embedding_length");
        let hidden = keys.wanted(&key, keys.count(&key)?)?;
        let key = of_llama("attention.key_length");
        let width = keys.count(&key)?.unwrap_or(hidden / q);
        let values = of_llama("attention.value_length");
        match keys.count(&values)? {
            Some(other) if other != width => {
                let expected = format!("{width}, the width of keys");
                return Err(keys.refuse(&values, &expected, other));
            }
            _ => {}
        }
        let turned = of_llama("rope.dimension_count");
        match keys.count(&turned)? {
            Some(other) if other != width => {
                let expected = format!("{width}, as the whole head turns");
                return Err(keys.refuse(&turned, &expected, other));
            }
            _ => {}
        }
        Ok(Self {
            q,
            k: k.unwrap_or(q),
            width,
        })
    }
}

/// The configuration; `factors` are those of [`super::names::ROPE_FACTORS`].
pub(super) fn config(
    keys: &Keys<'_, '_>,
    entries: &[&Entry],
    factors: Option<&[f32]>,
) -> Result<String, Error> {
    let count = |key: &str| {
        let key = of_llama(key);
        keys.wanted(&key, keys.same_count(&key)?)
    };
    let heads = HeadCounts::read(keys)?;
    let has = |name: &str| entries.iter().any(|entry| entry.name == name);
    let embedding = entries.iter().find(|entry| entry.name == EMBEDDING);
    let rows = embedding.and_then(|entry| entry.shape.first()).copied();
    let theta_key = of_llama("rope.freq_base");
    let theta = keys.number(&theta_key)?.unwrap_or(10_000.0);
    let eps_key = of_llama("attention.layer_norm_rms_epsilon");
    let vocabulary = keys.count(&of_llama("vocab_size"))?;
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary.or(rows.map(|rows| rows as u64)),
        "hidden_size": count("embedding_length")?,
        "intermediate_size": count("feed_forward_length")?,
        "num_hidden_layers": count("block_count")?,
        "num_attention_heads": heads.q,
        "num_key_value_heads": heads.k,
        "head_dim": heads.width,
        "hidden_act": "silu",
        "rms_norm_eps": keys.wanted(&eps_key, keys.number(&eps_key)?)?,
        "rope_theta": theta,
        "attention_bias": has("model.layers.0.self_attn.q_proj.bias"),
        "mlp_bias": has("model.layers.0.mlp.gate_proj.bias"),
        "tie_word_embeddings": !has("lm_head.weight"),
    });
    let length = keys.count(&of_llama("context_length"))?;
    if let Some(length) = length {
        config["max_position_embeddings"] = json!(length);
    }
    if let Some(scaling) = rope::scaling(keys, theta, heads.width, factors)? {
        config["rope_scaling"] = scaling;
    }
    if let (Value::Object(config), Value::Object(ids)) = (&mut config, ids(keys)?) {
        config.extend(ids);
    }
    Ok(config.to_string())
}

const EMBEDDING: &str = "model.embed_tokens.weight";

/// The ids that begin, end and fill a text.
fn ids(keys: &Keys<'_, '_>) -> Result<Value, Error> {
    let id = |name: &str| keys.id(&format!("tokenizer.ggml.{name}_token_id"));
    // (Each of them ends what a model says: the text, its turn, its message.)
    let mut ends = Vec::new();
    for name in ["eos", "eot", "eom"] {
        match id(name)? {
            Some(end) if !ends.contains(&end) => ends.push(end),
            _ => {}
        }
    }
    let mut ids = Map::new();
    ids.insert("bos_token_id".to_owned(), json!(id("bos")?));
    let ends = match ends.as_slice() {
        [] => Value::Null,
        [end] => json!(end),
        ends => json!(ends),
    };
    ids.insert("eos_token_id".to_owned(), ends);
    ids.insert("pad_token_id".to_owned(), json!(id("padding")?));
    Ok(Value::Object(ids))
}

/// The generation's configuration.
pub(super) fn generation_config(keys: &Keys<'_, '_>) -> Result<String, Error> {
    Ok(ids(keys)?.to_string())
}
