//! The names that llama.cpp has for a Llama's tensors, and Hugging Face's for the same. Knows
//! nothing else of them.

/// The table that holds the factors of the rotary embedding.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The tensors beside the layers.
const ENDS: [(&str, &str); 3] = [
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];

/// The tensors of a layer, and which heads their rows are of.
const OF_LAYER: [(&str, &str, Heads); 9] = [
    ("attn_norm", "input_layernorm", Heads::None),
    ("attn_q", "self_attn.q_proj", Heads::Q),
    ("attn_k", "self_attn.k_proj", Heads::K),
    ("attn_v", "self_attn.v_proj", Heads::None),
    ("attn_output", "self_attn.o_proj", Heads::None),
    ("ffn_norm", "post_attention_layernorm", Heads::None),
    ("ffn_gate", "mlp.gate_proj", Heads::None),
    ("ffn_up", "mlp.up_proj", Heads::None),
    ("ffn_down", "mlp.down_proj", Heads::None),
];

/// The heads whose channels lie as the rotary embedding of llama.cpp turns them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heads {
    None,
    Q,
    K,
}

/// Hugging Face's name of a tensor, and whose heads its rows are; none for one that no Llama has.
pub(super) fn hugging_face(name: &str) -> Option<(String, Heads)> {
    let (module, part) = name.rsplit_once('.')?;
    if !matches!(part, "weight" | "bias") {
        return None;
    }
    if let Some((_, to)) = ENDS.iter().find(|(from, _)| *from == module) {
        return Some((format!("{to}.{part}"), Heads::None));
    }
    let (layer, module) = module.strip_prefix("blk.")?.split_once('.')?;
    // (As it is written, so that no two names become one.)
    let number: usize = layer.parse().ok()?;
    if number.to_string() != layer {
        return None;
    }
    let (_, to, heads) = OF_LAYER.iter().find(|(from, ..)| *from == module)?;
    Some((format!("model.layers.{number}.{to}.{part}"), *heads))
}
