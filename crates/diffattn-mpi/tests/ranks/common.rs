//! A model of few weights, and tokens in which the next one follows from the one before.

use diffattn_nn::checkpoint::write_tokens;

pub(crate) const CONFIG: &str = r#"{
  "model_type": "diffllama", "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48,
  "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
  "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "lambda_std_dev": 0.1,
  "rope_theta": 10000.0, "tie_word_embeddings": true, "dtype": "bfloat16"
}"#;

/// The bytes of a file of 20,000 tokens.
pub(crate) fn tokens() -> Vec<u8> {
    let (mut ids, mut starts) = (vec![1_u32], vec![0]);
    for i in 1..20_000_usize {
        if i % 500 == 0 {
            starts.push(i as u64);
        }
        ids.push((17 * ids[i - 1] + i as u32 % 2) % 61);
    }
    write_tokens(&ids, &starts).unwrap()
}
